//! Names for what can't be read here: other file systems, other kinds of images. Only to
//! tell people what they have given.

use super::bytes::u64_at;
use super::source::{Part, Source, bytes_at};

/// Offset, bytes, name.
const SIGNATURES: [(u64, &[u8], &str); 19] = [
    (0, b"QFI\xfb", "a QCOW image: make it a raw one"),
    (0, b"KDMV", "a VMDK image: make it a raw one"),
    (
        0,
        b"# Disk DescriptorFile",
        "a VMDK descriptor: make it a raw image",
    ),
    (0, b"vhdxfile", "a VHDX image: make it a raw one"),
    (0, b"conectix", "a VHD image: make it a raw one"),
    (0, b"\xfd7zXZ\0", "an xz file: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file: unpack it first"),
    (0, b"\x1f\x8b\x08", "a gzip file: unpack it first"),
    (0, b"BZh", "a bzip2 file: unpack it first"),
    (0, b"\x7fELF", "an ELF file, not a disk"),
    (0, b"XFSB", "XFS"),
    (0, b"LUKS\xba\xbe", "an encrypted disk (LUKS)"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (54, b"FAT1", "FAT"),
    (82, b"FAT32", "FAT"),
    (1080, b"\x53\xef", "ext2, ext3 or ext4"),
    (4086, b"SWAPSPACE2", "Linux' swap space"),
    (65_600, b"_BHRfS_M", "Btrfs"),
];

/// ZFS' first label has its ring of uberblocks here; each begins with the magic number.
const UBERBLOCKS: u64 = 128 << 10;
const UBERBLOCKS_LEN: usize = 128 << 10;
const UBERBLOCK: usize = 1024;
const UBERBLOCK_MAGIC: u64 = 0x00ba_b10c;

/// geli(8) has its metadata in the last sector.
const GELI: &[u8] = b"GEOM::ELI";
pub const ZFS: &str = "ZFS";

/// What a partition or disk contains, if it is known.
pub fn name(part: &Part) -> Option<&'static str> {
    for (at, bytes, name) in SIGNATURES {
        if bytes_at(part, at, bytes.len()).is_ok_and(|found| found == bytes) {
            return Some(name);
        }
    }
    let uberblocks = bytes_at(part, UBERBLOCKS, UBERBLOCKS_LEN).unwrap_or_default();
    let is_zfs = |block: &[u8]| {
        let magic = u64_at(block, 0);
        magic == UBERBLOCK_MAGIC || magic.swap_bytes() == UBERBLOCK_MAGIC
    };
    if uberblocks.chunks(UBERBLOCK).any(is_zfs) {
        return Some(ZFS);
    }
    [512, 4096].into_iter().find_map(|sector| {
        let at = part.size().checked_sub(sector)?;
        let last = bytes_at(part, at, GELI.len()).ok()?;
        (last == GELI).then_some("an encrypted disk (geli)")
    })
}

/// What a disk begins with, for people.
pub fn first_bytes(part: &Part) -> String {
    let len = part.size().min(16) as usize;
    match bytes_at(part, 0, len) {
        Ok(bytes) if bytes.is_empty() => "nothing: it is empty".to_owned(),
        Ok(bytes) => {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            hex.join(" ")
        }
        Err(error) => cli::io_error(&error),
    }
}
