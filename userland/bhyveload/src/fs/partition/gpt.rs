//! GUID partition tables: UEFI 2.10 §5.3.

use super::super::bytes::{array_at, u32_at, u64_at};
use super::super::source::{Part, Source, bytes_at};
use super::Partition;

const SIGNATURE: &[u8; 8] = b"EFI PART";
/// The table doesn't say how large the disk's sectors are; its place does.
const SECTORS: [u64; 2] = [512, 4096];
const HEADER: usize = 92;
const ENTRY: u32 = 128;
/// Usual are 128 entries of 128 bytes.
const MAX_TABLE: u32 = 1 << 20;

/// Type GUIDs as they lie on the disk, and gpart(8)'s names.
const TYPES: [([u8; 16], &str); 13] = [
    (
        guid(0x516e_7cb6_6ecf_11d6, 0x8ff8_0002_2d09_712b),
        "freebsd-ufs",
    ),
    (
        guid(0x516e_7cba_6ecf_11d6, 0x8ff8_0002_2d09_712b),
        "freebsd-zfs",
    ),
    (
        guid(0x516e_7cb4_6ecf_11d6, 0x8ff8_0002_2d09_712b),
        super::FREEBSD,
    ),
    (
        guid(0x516e_7cb5_6ecf_11d6, 0x8ff8_0002_2d09_712b),
        "freebsd-swap",
    ),
    (
        guid(0x516e_7cb8_6ecf_11d6, 0x8ff8_0002_2d09_712b),
        "freebsd-vinum",
    ),
    (
        guid(0x83bd_6b9d_7f41_11dc, 0xbe0b_0015_60b8_4f0f),
        "freebsd-boot",
    ),
    (
        guid(0x74ba_7dd9_a689_11e1, 0xbd04_00e0_8128_6acf),
        "freebsd-nandfs",
    ),
    (guid(0xc12a_7328_f81f_11d2, 0xba4b_00a0_c93e_c93b), "efi"),
    (
        guid(0x2168_6148_6449_6e6f, 0x744e_6565_6445_4649),
        "bios-boot",
    ),
    (
        guid(0xebd0_a0a2_b9e5_4433, 0x87c0_68b6_b726_99c7),
        "ms-basic-data",
    ),
    (
        guid(0x0fc6_3daf_8483_4772, 0x8e79_3d69_d847_7de4),
        "linux-data",
    ),
    (
        guid(0x0657_fd6d_a4ab_43c4, 0x84e5_0933_c84b_4f4f),
        "linux-swap",
    ),
    (
        guid(0xe6d6_d379_f507_44c2, 0xa23c_238f_2a3d_f928),
        "linux-lvm",
    ),
];

/// A GUID's first three parts are little endian, the last two aren't.
const fn guid(high: u64, low: u64) -> [u8; 16] {
    let h = high.to_be_bytes();
    let l = low.to_be_bytes();
    [
        h[3], h[2], h[1], h[0], h[5], h[4], h[7], h[6], l[0], l[1], l[2], l[3], l[4], l[5], l[6],
        l[7],
    ]
}

/// The partitions; `None` if there is no GPT, an error if there is none that is whole.
pub fn read(disk: &Part) -> Result<Option<Vec<Partition>>, String> {
    let mut seen = false;
    for sector in SECTORS {
        // The primary table, then the backup in the disk's last sector.
        for at in [Some(1), (disk.size() / sector).checked_sub(1)] {
            let Some(lba) = at else { continue };
            match table(disk, lba, sector) {
                Found::Nothing => {}
                Found::Broken => seen = true,
                Found::Partitions(partitions) => return Ok(Some(partitions)),
            }
        }
    }
    if seen {
        return Err("its GPT and the backup of that are damaged".to_owned());
    }
    Ok(None)
}

enum Found {
    Nothing,
    Broken,
    Partitions(Vec<Partition>),
}

fn table(disk: &Part, lba: u64, sector: u64) -> Found {
    let Ok(header) = bytes_at(disk, lba.saturating_mul(sector), sector as usize) else {
        return Found::Nothing;
    };
    if !header.starts_with(SIGNATURE) {
        return Found::Nothing;
    }
    match partitions(disk, header, lba, sector) {
        Some(partitions) => Found::Partitions(partitions),
        None => Found::Broken,
    }
}

/// `None` if a checksum or a size is wrong.
fn partitions(disk: &Part, header: Vec<u8>, lba: u64, sector: u64) -> Option<Vec<Partition>> {
    let size = usize::try_from(u32_at(&header, 12)).ok()?;
    let mut covered = header.get(..size).filter(|_| size >= HEADER)?.to_vec();
    covered.get_mut(16..20)?.fill(0);
    if crc32fast::hash(&covered) != u32_at(&header, 16) || u64_at(&header, 24) != lba {
        return None;
    }
    let (first, last) = (u64_at(&header, 40), u64_at(&header, 48));
    let (count, entry) = (u32_at(&header, 80), u32_at(&header, 84));
    let len = count.checked_mul(entry).filter(|&len| len <= MAX_TABLE)?;
    if entry < ENTRY || entry % 8 != 0 {
        return None;
    }
    let at = u64_at(&header, 72).checked_mul(sector)?;
    let bytes = bytes_at(disk, at, len as usize).ok()?;
    if crc32fast::hash(&bytes) != u32_at(&header, 88) {
        return None;
    }
    let partition = |(n, entry): (usize, &[u8])| {
        let (start, end) = (u64_at(entry, 32), u64_at(entry, 40));
        if array_at(entry, 0) == [0; 16] || start < first || end > last || end < start {
            return None;
        }
        let size = (end - start).checked_add(1)?.checked_mul(sector)?;
        Some(Partition {
            name: format!("p{}", n + 1),
            kind: kind(&array_at(entry, 0)),
            part: disk.part(start.checked_mul(sector)?, size),
        })
    };
    let entries = bytes.chunks_exact(entry as usize).enumerate();
    Some(entries.filter_map(partition).collect())
}

fn kind(guid: &[u8; 16]) -> String {
    match TYPES.iter().find(|(known, _)| known == guid) {
        Some((_, name)) => (*name).to_owned(),
        None => {
            let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
            let tail: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
            let (front, back) = tail.split_at(4);
            format!("!{d:02x}{c:02x}{b:02x}{a:02x}-{f:02x}{e:02x}-{h:02x}{g:02x}-{front}-{back}")
        }
    }
}
