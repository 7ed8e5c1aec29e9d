use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::testing::Counted;
use super::super::testing::ufs::{self as image, BLOCK, Image, boot, kernel};
use super::super::{FileSystem, FsError};
use super::*;

const VERSIONS: [Version; 2] = [Version::Ufs1, Version::Ufs2];

fn open(image: Image) -> Ufs {
    let part = Part::whole(Arc::new(image.bytes));
    Ufs::open(part, "disk0p2").unwrap().unwrap()
}

fn error<T>(result: Result<T, FsError>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn files_directories_and_links_are_read() {
    for version in VERSIONS {
        let ufs = open(boot(version));
        assert_eq!(ufs.version(), version);
        assert_eq!(ufs.list("/").unwrap().unwrap(), ["boot"]);
        let names = ufs.list("boot/.").unwrap().unwrap();
        assert_eq!(names, ["far", "kernel", "link", "loader.conf"]);
        for path in [
            "/boot/kernel/kernel",
            "boot//kernel/../kernel/./kernel",
            "/../../boot/kernel/kernel",
            "/boot/link",
            "/boot/far",
        ] {
            let read = ufs.read(path, 1 << 20).unwrap();
            assert!(read.is_some_and(|bytes| bytes == kernel()), "{path}");
        }
        for path in [
            "/boot/kernel/none",
            "/gone",
            "/boot/loader.conf/x",
            "/boot/link/x",
        ] {
            assert!(ufs.read(path, 1 << 20).unwrap().is_none(), "{path}");
            assert!(ufs.list(path).unwrap().is_none(), "{path}");
        }
        assert!(error(ufs.read("/boot", 99)).contains("disk0p2:/boot is not a regular file"));
        assert!(error(ufs.list("/boot/link")).contains("is not a directory"));
        assert!(error(ufs.read("/boot/link", 99)).contains("more than the 99"));
    }
}

/// A file with a block behind each kind of indirect block, the rest of it holes.
#[test]
fn three_levels_of_indirect_blocks_and_holes() {
    for version in VERSIONS {
        let per_block = BLOCK as u64 / version.address_size();
        let marks: Vec<u64> = [
            0,
            11,
            12,
            12 + per_block - 1,
            12 + per_block,
            12 + per_block + 3 * per_block + 5,
            12 + per_block + per_block * per_block - 1,
            12 + per_block + per_block * per_block,
            12 + per_block + per_block * per_block + 2 * per_block * per_block + 7,
        ]
        .to_vec();
        let block = |n: u64| vec![n as u8 ^ 0x5a; BLOCK];
        let blocks: BTreeMap<u64, Vec<u8>> = marks.iter().map(|&n| (n, block(n))).collect();
        let mut image = boot(version);
        let last = *marks.last().unwrap();
        image.inode(4, image::FILE, (last + 1) * BLOCK as u64 - 9, &blocks);
        let ufs = open(image);
        let mut file = ufs.open("/boot/loader.conf").unwrap().unwrap();
        let mut buf = vec![1; BLOCK];
        for &mark in &marks {
            let len = file.read_at(mark * BLOCK as u64, &mut buf).unwrap();
            assert_eq!(buf[..len], block(mark)[..len], "{version:?} block {mark}");
            assert_eq!(len, if mark == last { BLOCK - 9 } else { BLOCK });
        }
        for hole in [
            1,
            13,
            12 + per_block + 1,
            last - 1,
            last - per_block * per_block,
        ] {
            assert_eq!(file.read_at(hole * BLOCK as u64, &mut buf).unwrap(), BLOCK);
            assert!(buf.iter().all(|&byte| byte == 0), "{version:?} hole {hole}");
        }
        // Across a bound, and unaligned.
        let at = 12 * BLOCK as u64 - 5;
        assert_eq!(file.read_at(at, &mut buf[..10]).unwrap(), 10);
        assert_eq!(buf[..5], block(11)[..5]);
        assert_eq!(buf[5..10], block(12)[..5]);
        assert_eq!(file.read_at(u64::MAX, &mut buf).unwrap(), 0);
    }
}

#[test]
fn reading_a_file_reads_each_indirect_block_once() {
    let mut image = boot(Version::Ufs2);
    let contents = vec![7; 150 * BLOCK];
    image.file(4, &contents);
    let source = Counted::new(image.bytes);
    let ufs = Ufs::open(Part::whole(source.clone()), "disk0")
        .unwrap()
        .unwrap();
    let before = source.read();
    assert_eq!(
        ufs.read("/boot/loader.conf", 1 << 20).unwrap().unwrap(),
        contents
    );
    let more = source.read() - before - contents.len() as u64;
    assert!(
        more < 8 * BLOCK as u64,
        "{more} bytes beside the file's own"
    );
}

#[test]
fn links_that_never_end_are_refused() {
    let mut image = boot(Version::Ufs2);
    image.symlink(5, "link");
    assert!(error(open(image).read("/boot/link", 9)).ends_with("too many symbolic links"));
    let mut image = boot(Version::Ufs1);
    image.symlink(5, &format!("{}link", "./".repeat(500)));
    assert!(error(open(image).read("/boot/link", 9)).ends_with("too many symbolic links"));
}

#[test]
fn other_kinds_of_inodes_are_no_files() {
    let mut image = boot(Version::Ufs2);
    image.inode(4, image::FIFO, 0, &BTreeMap::new());
    assert!(error(open(image).read("/boot/loader.conf", 9)).contains("is not a regular file"));
    let mut image = boot(Version::Ufs2);
    image.inode(4, 0, 0, &BTreeMap::new());
    let text = error(open(image).read("/boot/loader.conf", 9));
    assert!(text.contains("inode 4: it is not in use"), "{text}");
}

#[test]
fn addresses_beyond_the_file_system_are_damage() {
    for version in VERSIONS {
        for address in [1024, 1023, 0xffff_ffff, u64::MAX] {
            let mut image = boot(version);
            let at = image.addresses_at(34);
            image.put_address(at, address);
            let text = error(open(image).read("/boot/kernel/kernel", 1 << 20));
            assert!(
                text.starts_with("disk0p2:/boot/kernel/kernel is damaged: it uses fragment"),
                "{text}"
            );
        }
        // An indirect block.
        let mut image = boot(version);
        let at = image.addresses_at(34) + 12 * version.address_size() as usize;
        image.put_address(at, 1 << 20);
        let text = error(open(image).read("/boot/kernel/kernel", 1 << 20));
        assert!(text.contains("it uses fragment 1048576"), "{text}");
    }
}

#[test]
fn an_inode_that_does_not_exist_is_damage() {
    let mut image = boot(Version::Ufs2);
    image.directory(2, &[(".", 2), ("boot", 128), ("one", 1)]);
    let ufs = open(image);
    assert!(error(ufs.list("/boot")).contains("inode 128, which doesn't exist"));
    assert!(error(ufs.list("/one")).contains("inode 1, which doesn't exist"));
}

#[test]
fn directories_without_sense_are_damage() {
    let record = |len: u16, name: u8| {
        let mut piece = image::directory(&[("a", 4)]);
        piece[4..6].copy_from_slice(&len.to_le_bytes());
        piece[7] = name;
        piece
    };
    for (len, name) in [(0, 1), (4, 1), (13, 1), (516, 1), (12, 5)] {
        let mut image = boot(Version::Ufs2);
        let blocks = BTreeMap::from([(0, record(len, name))]);
        image.inode(2, image::DIRECTORY, 512, &blocks);
        let text = error(open(image).list("/"));
        assert!(
            text.contains("a directory's entry of"),
            "{len} {name}: {text}"
        );
    }
    for size in [511, 1 << 40, 8 << 20] {
        let mut image = boot(Version::Ufs2);
        let blocks = BTreeMap::from([(0, record(12, 1))]);
        image.inode(2, image::DIRECTORY, size, &blocks);
        let text = error(open(image).list("/"));
        assert!(text.contains("a directory of"), "{text}");
    }
}

#[test]
fn super_blocks_without_sense_are_damage() {
    let wrong = [
        (48, 12_288),
        (48, 1 << 20),
        (48, 0),
        (52, 256),
        (52, 8192),
        (52, 0),
        (44, 0),
        (184, 0),
        (188, 0),
        (16, 300),
        (1084, 0xffff_ffff),
    ];
    for (at, value) in wrong {
        let mut image = boot(Version::Ufs2);
        image.set_super_block(at, value);
        let text = error(Ufs::open(Part::whole(Arc::new(image.bytes)), "disk0"));
        assert!(
            text.starts_with("disk0 is damaged: its superblock has"),
            "{at}: {text}"
        );
    }
    for (magic, why) in [
        (BAD_MAGIC, "newfs did not finish"),
        (0x1901_5419, "big-endian"),
    ] {
        let mut image = boot(Version::Ufs2);
        image.set_super_block(MAGIC, magic);
        let text = error(Ufs::open(Part::whole(Arc::new(image.bytes)), "disk0"));
        assert!(text.contains(why), "{text}");
    }
}

/// A copy of the superblock lies at another place of the search.
#[test]
fn a_copy_is_not_the_superblock() {
    let mut image = boot(Version::Ufs1);
    let copy = image.bytes[8192..16_384].to_vec();
    image.bytes[65_536..65_536 + copy.len()].copy_from_slice(&copy);
    let ufs = open(image);
    assert_eq!(ufs.place(), 8192);
    let mut image = boot(Version::Ufs2);
    image.set_super_block(1000, 262_144);
    assert!(
        Ufs::open(Part::whole(Arc::new(image.bytes)), "disk0")
            .unwrap()
            .is_none()
    );
}

#[test]
fn the_end_of_the_image_is_no_panic() {
    let image = boot(Version::Ufs2).bytes;
    for len in [0, 1, 1000, 66_000, 70_000, 83_000, 92_000] {
        let part = Part::whole(Arc::new(image[..len].to_vec()));
        if let Ok(Some(ufs)) = Ufs::open(part, "disk0") {
            assert!(ufs.read("/boot/kernel/kernel", 1 << 20).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever bytes are changed: no panic, and no more is read than the limits allow.
    #[test]
    fn changed_images_are_read_or_refused(
        ufs2: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        words in prop::collection::vec((any::<prop::sample::Index>(), prop::num::u32::ANY), 0..3),
    ) {
        let version = if ufs2 { Version::Ufs2 } else { Version::Ufs1 };
        let mut image = boot(version);
        let place = image.place();
        // Where the structures are: the superblock, inodes, directories, indirect blocks.
        let ranges = [place..place + SUPERBLOCK_SIZE, 80 << 10..104 << 10, 336 << 10..344 << 10];
        let places: Vec<usize> = ranges.into_iter().flatten().collect();
        for (index, value) in changes {
            image.bytes[*index.get(&places)] = value;
        }
        for (index, value) in words {
            let at = *index.get(&places) & !3;
            image.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let source = Counted::new(image.bytes);
        if let Ok(Some(ufs)) = Ufs::open(Part::whole(source.clone()), "disk0") {
            for path in ["/", "/boot", "/boot/kernel"] {
                let _ = ufs.list(path);
            }
            for path in ["/boot/kernel/kernel", "/boot/link", "/boot/far", "/boot/loader.conf"] {
                if let Ok(Some(bytes)) = ufs.read(path, 1 << 20) {
                    prop_assert!(bytes.len() <= 1 << 20);
                }
            }
        }
        prop_assert!(source.read() < 64 << 20, "{} bytes read", source.read());
    }
}
