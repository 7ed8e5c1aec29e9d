//! Disks as a whole: every kind of table, what is no table, and images by other programs.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;

use super::testing::table::{self, EFI, FREEBSD, UFS, ZFS, disklabel, entry, gpt};
use super::testing::{Counted, iso, ufs};
use super::ufs::Version;
use super::*;

fn open(disk: Vec<u8>) -> Result<Disk, FsError> {
    open_source(Arc::new(disk), "disk0")
}

fn labels(disk: Vec<u8>) -> Vec<String> {
    open(disk)
        .unwrap()
        .volumes
        .iter()
        .map(Volume::label)
        .collect()
}

fn refused(disk: Vec<u8>) -> String {
    open(disk).err().unwrap().to_string()
}

fn ufs2() -> Vec<u8> {
    ufs::boot(Version::Ufs2).bytes
}

fn ufs1() -> Vec<u8> {
    ufs::boot(Version::Ufs1).bytes
}

fn sectors(bytes: &[u8]) -> u32 {
    (bytes.len() / 512) as u32
}

#[test]
fn gpt_partitions_with_ufs_first() {
    for sector in [512, 4096] {
        let disk = gpt(
            sector,
            &[
                (EFI, &[0; 4096]),
                (ZFS, &[0; 4096]),
                (EFI, &ufs1()),
                (UFS, &ufs2()),
            ],
        );
        let disk = open(disk).unwrap();
        let labels: Vec<String> = disk.volumes.iter().map(Volume::label).collect();
        assert_eq!(
            labels,
            ["disk0p4 (freebsd-ufs, UFS2)", "disk0p3 (efi, UFS1)"]
        );
        assert_eq!(disk.others, ["disk0p1 is efi", "disk0p2 is freebsd-zfs"]);
        let kernel = disk.volumes[0].files.read("/boot/kernel/kernel", 1 << 20);
        assert_eq!(kernel.unwrap().unwrap(), ufs::kernel());
        assert_eq!(disk.volumes[0].device, "disk0p4");
    }
}

#[test]
fn a_damaged_gpt_has_a_backup() {
    for at in [512 + 41, 1024 + 33] {
        let mut disk = gpt(512, &[(UFS, &ufs2())]);
        disk[at] ^= 1;
        assert_eq!(
            labels(disk.clone()),
            ["disk0p1 (freebsd-ufs, UFS2)"],
            "{at}"
        );
        // Without an MBR, a GPT is one as well.
        disk[510] = 0;
        assert_eq!(
            labels(disk.clone()),
            ["disk0p1 (freebsd-ufs, UFS2)"],
            "{at}"
        );
        let last = disk.len() - 512;
        disk[last + 41] ^= 1;
        let text = refused(disk);
        assert!(
            text.contains("its GPT and the backup of that are damaged"),
            "{text}"
        );
    }
}

#[test]
fn what_a_gpt_says_is_bounded() {
    // An entry size and a count whose product is huge, with right checksums.
    let mut disk = gpt(512, &[(UFS, &ufs2())]);
    let last = disk.len() - 512;
    for at in [512, last] {
        let header = &mut disk[at..at + 92];
        header[80..84].copy_from_slice(&0x8000_0000_u32.to_le_bytes());
        header[16..20].fill(0);
        let crc = crc32fast::hash(header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
    }
    assert!(refused(disk).contains("its GPT and the backup"));
}

#[test]
fn mbr_partitions_logical_ones_and_disklabels() {
    // s1: a slice with a disklabel; s2: extended, with two logical partitions.
    let (a, b) = (ufs1(), ufs2());
    let mut slice = vec![0; 16 * 512];
    slice.extend(&b);
    let slice_len = sectors(&slice);
    disklabel(
        &mut slice,
        &[(7, 63 + 16, sectors(&b)), (1, 63, 8), (0, 63, slice_len)],
    );
    let logical = 63 + slice_len;
    let mut disk = vec![0; 63 * 512];
    disk.extend(&slice);
    disk.resize(disk.len() + 512, 0);
    disk.extend(&a);
    disk.resize(disk.len() + 512, 0);
    disk.extend(&a);
    let each = sectors(&a) + 1;
    entry(&mut disk, 0, 0, 0xa5, 63, slice_len);
    entry(&mut disk, 0, 1, 0x0f, logical, 2 * each);
    entry(&mut disk, logical as usize, 0, 0x83, 1, each - 1);
    entry(&mut disk, logical as usize, 1, 0x05, each, each);
    entry(&mut disk, (logical + each) as usize, 0, 0xa5, 1, each - 1);
    let expected = [
        "disk0s1a (freebsd-ufs, UFS2)",
        "disk0s5 (linux-data, UFS1)",
        "disk0s6 (freebsd, UFS1)",
    ];
    assert_eq!(labels(disk.clone()), expected);
    assert_eq!(
        open(disk.clone()).unwrap().others,
        ["disk0s1b is freebsd-swap"]
    );
    // A chain that leads to its own begin.
    entry(&mut disk, (logical + each) as usize, 1, 0x05, each, each);
    assert_eq!(labels(disk)[..2], expected[..2]);
}

#[test]
fn whole_disks_and_disklabels_in_gpt_partitions() {
    assert_eq!(labels(ufs2()), ["disk0 (UFS2)"]);
    assert_eq!(labels(ufs1()), ["disk0 (UFS1)"]);
    // A disklabel whose partition a is the whole disk: one file system, not two.
    let mut disk = ufs2();
    let len = sectors(&disk);
    disklabel(&mut disk, &[(7, 0, len), (0, 0, 0), (0, 0, len)]);
    assert_eq!(labels(disk.clone()), ["disk0a (freebsd-ufs, UFS2)"]);
    assert_eq!(
        labels(gpt(512, &[(FREEBSD, &disk)])),
        ["disk0p1a (freebsd-ufs, UFS2)"]
    );
    // The label's checksum.
    disk[600] ^= 1;
    let disk = open(disk).unwrap();
    assert_eq!(disk.volumes[0].label(), "disk0 (UFS2)");
    assert_eq!(disk.others, ["disk0: the disklabel of the disk is damaged"]);
}

/// As FreeBSD's install discs are: a GPT in the unused first sectors of an ISO 9660 volume.
#[test]
fn a_disc_with_a_gpt_is_a_disc() {
    let mut disk = gpt(512, &[(EFI, &[0; 131_072])]);
    let mut volume = iso::Image::new(true);
    let file = volume.contents(b"x=y\n");
    volume.root(&[iso::Record::file(b"X.;1", file, 4).with(&[&iso::name("x")])]);
    disk[16 * 2048..64 * 2048].copy_from_slice(&volume.bytes[16 * 2048..64 * 2048]);
    let disk = open(disk).unwrap();
    assert_eq!(disk.volumes.len(), 1);
    assert_eq!(disk.volumes[0].label(), "disk0 (ISO 9660)");
    assert_eq!(
        disk.volumes[0].files.read("/x", 9).unwrap().unwrap(),
        b"x=y\n"
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let text = refused(gpt(512, &[(EFI, &[0; 512]), (ZFS, &[0; 512])]));
    assert_eq!(
        text,
        "disk0 has neither UFS nor ISO 9660: disk0p1 is efi; disk0p2 is freebsd-zfs \
         (ZFS is read by FreeBSD's own loader only: -l userboot.so)"
    );
    let mut ext4 = vec![0; 4096];
    ext4[1080..1082].copy_from_slice(&[0x53, 0xef]);
    let text = refused(gpt(512, &[(EFI, &ext4)]));
    assert!(
        text.ends_with("disk0p1 is efi, it contains ext2, ext3 or ext4"),
        "{text}"
    );
    assert!(refused(b"QFI\xfb\0\0\0\x03".to_vec()).contains("a QCOW image: make it a raw one"));
    let text = refused(b"hello, I am no disk at all".to_vec());
    assert!(
        text.ends_with(
            "disk0: no partition table and nothing known, it begins with \
             68 65 6c 6c 6f 2c 20 49 20 61 6d 20 6e 6f 20 64"
        ),
        "{text}"
    );
    assert!(refused(Vec::new()).ends_with("it begins with nothing: it is empty"));
    let mut uberblock = vec![0; 256 << 10];
    uberblock[132 << 10..][..8].copy_from_slice(&0x00ba_b10c_u64.to_le_bytes());
    assert!(refused(uberblock).contains("disk0: it contains ZFS (ZFS is read by"));
    // A file system that is damaged, beside nothing else.
    let mut damaged = ufs::boot(Version::Ufs2);
    damaged.set_super_block(48, 77);
    let text = refused(gpt(512, &[(UFS, &damaged.bytes)]));
    assert!(
        text.contains("disk0p1 is freebsd-ufs, its superblock has blocks of 77"),
        "{text}"
    );
}

/// A tree as other programs make images of it.
fn tree(root: &Path) {
    let boot = root.join("boot");
    std::fs::create_dir_all(boot.join("kernel")).unwrap();
    std::fs::create_dir_all(boot.join("a/b/c/d/e/f/g/h/i")).unwrap();
    let kernel: Vec<u8> = (0..2_500_000_u32).map(|n| (n / 5) as u8).collect();
    std::fs::write(boot.join("kernel/kernel"), kernel).unwrap();
    std::fs::write(boot.join("a/b/c/d/e/f/g/h/i/deep"), "deep\n").unwrap();
    std::fs::create_dir(boot.join("loader.conf.d")).unwrap();
    for n in 0..300 {
        let name = format!("loader.conf.d/a-file-with-a-long-name-{n}.conf");
        std::fs::write(boot.join(name), format!("n=\"{n}\"\n")).unwrap();
    }
    std::os::unix::fs::symlink("kernel/kernel", boot.join("short")).unwrap();
    // makefs writes a symbolic link that needs two fields of Rock Ridge wrongly.
    let long = format!("{}kernel/kernel", "../boot/".repeat(20));
    std::os::unix::fs::symlink(long, boot.join("long")).unwrap();
}

/// Every name beneath `path`, with a file's contents.
fn all(files: &dyn FileSystem, path: &str, found: &mut Vec<(String, Option<Vec<u8>>)>) {
    for name in files.list(path).unwrap().unwrap() {
        let name = format!("{path}/{name}");
        match files.read(&name, 1 << 24) {
            Ok(contents) => found.push((name, contents)),
            Err(FsError::NotAFile { .. }) => {
                found.push((name.clone(), None));
                all(files, &name, found);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// makefs and mke2fs lie where a user's PATH needn't lead.
fn path_with_sbin() -> String {
    format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}

fn same_as_the_host(format: Format, program: &str, arguments: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    tree(&root);
    let image = dir.path().join("image");
    let made = Command::new(program)
        .env("PATH", path_with_sbin())
        .args(arguments)
        .args([&image, &root])
        .output();
    let made = match made {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("{program} isn't installed: not tested");
            return;
        }
        made => made.unwrap(),
    };
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let disk = open_disk(std::fs::File::open(image).unwrap(), "disk0").unwrap();
    assert_eq!(disk.volumes[0].format, format);
    let host = HostDir::open(root.to_str().unwrap()).unwrap();
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    all(&host, "", &mut expected);
    all(disk.volumes[0].files.as_ref(), "", &mut found);
    // Where makefs puts directories that are too deep for ISO 9660.
    found.retain(|(name, _)| !name.starts_with("/.rr_moved"));
    let names = |all: &[(String, Option<Vec<u8>>)]| -> Vec<String> {
        all.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&found), names(&expected));
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        assert!(found == expected, "{name} differs");
    }
}

#[test]
fn makefs_ufs_is_what_the_host_has() {
    let makefs = |options| {
        same_as_the_host(
            Format::Ufs1,
            "makefs",
            &["-t", "ffs", "-b", "40%", "-o", options],
        )
    };
    makefs("version=1");
    makefs("version=1,bsize=65536,fsize=8192");
    let makefs = |options| {
        same_as_the_host(
            Format::Ufs2,
            "makefs",
            &["-t", "ffs", "-b", "40%", "-o", options],
        )
    };
    makefs("version=2");
    makefs("version=2,bsize=4096,fsize=512");
}

#[test]
fn discs_of_makefs_and_xorriso_are_what_the_host_has() {
    let makefs = ["-t", "cd9660", "-o", "rockridge"];
    same_as_the_host(Format::Iso9660, "makefs", &makefs);
    let xorriso = ["-as", "mkisofs", "-quiet", "-R", "-o"];
    same_as_the_host(Format::Iso9660, "xorriso", &xorriso);
}

#[test]
fn a_disk_of_mke2fs_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let made = Command::new("mke2fs")
        .env("PATH", path_with_sbin())
        .arg("-qF")
        .arg(&image)
        .arg("1M")
        .output();
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("mke2fs isn't installed: not tested");
            return;
        }
        made => assert!(made.unwrap().status.success()),
    }
    let text = refused(std::fs::read(&image).unwrap());
    assert!(
        text.ends_with("disk0: it contains ext2, ext3 or ext4"),
        "{text}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever bytes of the tables are changed: no panic, and no more is read than needed.
    #[test]
    fn changed_tables_are_read_or_refused(
        which in 0..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut disk = match which {
            0 => gpt(512, &[(EFI, &[0; 4096]), (UFS, &ufs2())]),
            1 => {
                let mut disk = ufs2();
                let len = sectors(&disk);
                disklabel(&mut disk, &[(7, 0, len), (0, 0, 0), (0, 0, len)]);
                table::entry(&mut disk, 0, 0, 0xa5, 1, len);
                disk
            }
            _ => {
                let mut disk = vec![0; 512 * 64];
                table::entry(&mut disk, 0, 0, 0xa5, 1, 20);
                table::entry(&mut disk, 0, 1, 0x05, 3, 20);
                table::entry(&mut disk, 3, 0, 0x83, 1, 1);
                table::entry(&mut disk, 3, 1, 0x05, 2, 1);
                disk
            }
        };
        for (index, value) in changes {
            disk[index.index(2048)] = value;
        }
        let source = Counted::new(disk);
        if let Ok(disk) = open_source(source.clone(), "disk0") {
            for volume in &disk.volumes {
                let _ = volume.files.read("/boot/kernel/kernel", 1 << 20);
            }
        }
        prop_assert!(source.read() < 16 << 20, "{} bytes read", source.read());
    }

    #[test]
    fn random_bytes_are_no_disk(bytes in prop::collection::vec(any::<u8>(), 0..70_000)) {
        let _ = open(bytes);
    }
}
