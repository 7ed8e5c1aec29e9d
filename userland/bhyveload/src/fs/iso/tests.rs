use std::sync::Arc;

use proptest::prelude::*;

use super::super::testing::Counted;
use super::super::testing::iso::{Image, Record as New, continuation, field, mode, name, target};
use super::super::{FileSystem, FsError};
use super::*;

fn open(image: Image) -> Iso {
    let part = Part::whole(Arc::new(image.bytes));
    Iso::open(part, "disk0").unwrap().unwrap()
}

fn error<T>(result: Result<T, FsError>) -> String {
    result.err().unwrap().to_string()
}

/// /boot/loader.conf and /boot/kernel/kernel; with Rock Ridge, /boot/link as well, and the
/// name of loader.conf in a continuation.
fn boot(rock_ridge: bool) -> Image {
    let mut image = Image::new(rock_ridge);
    let conf = image.contents(b"a=b\n");
    let kernel = image.contents(&contents());
    let kernel_dir = image.contents(b"");
    let boot_dir = image.contents(b"");
    let rest = image.contents(&[&[0; 100], &name("loader.conf")[..]].concat());
    let go_on = continuation(rest, 100, name("loader.conf").len());
    let rock = |fields: &[&[u8]]| {
        if rock_ridge {
            fields.concat()
        } else {
            Vec::new()
        }
    };
    image.root(&[New::directory(b"BOOT", boot_dir).with(&[&rock(&[&name("boot")])])]);
    let mut records = vec![
        New::directory(b"KERNEL", kernel_dir).with(&[&rock(&[&name("kernel"), &mode(0o040_755)])]),
        New::file(b"LOADER.CON;1", conf, 4).with(&[&rock(&[&go_on, &mode(0o100_644)])]),
    ];
    if rock_ridge {
        records.push(New::file(b"LINK", 0, 0).with(&[
            &name("link"),
            &mode(0o120_777),
            &target(&["kernel", "kernel"]),
        ]));
    }
    image.directory(boot_dir, &records);
    let kernel_name = rock(&[&name("kernel"), &mode(0o100_644)]);
    image.directory(
        kernel_dir,
        &[New::file(b"KERNEL.;1", kernel, contents().len()).with(&[&kernel_name])],
    );
    image
}

fn contents() -> Vec<u8> {
    (0..5000_u32).map(|n| (n / 3) as u8).collect()
}

#[test]
fn rock_ridge_names_links_and_continuations() {
    let iso = open(boot(true));
    assert_eq!(iso.list("/").unwrap().unwrap(), ["boot"]);
    assert_eq!(
        iso.list("/boot").unwrap().unwrap(),
        ["kernel", "link", "loader.conf"]
    );
    assert_eq!(iso.read("/boot/loader.conf", 4).unwrap().unwrap(), b"a=b\n");
    for path in ["/boot/kernel/kernel", "/boot/link", "/boot/kernel/../link"] {
        assert_eq!(iso.read(path, 5000).unwrap().unwrap(), contents(), "{path}");
    }
    assert!(iso.read("/boot/none", 9).unwrap().is_none());
    assert!(error(iso.read("/boot", 9)).contains("disk0:/boot is not a regular file"));
    let mut file = iso.open("/boot/link").unwrap().unwrap();
    let mut buf = [0; 8];
    assert_eq!(file.read_at(4997, &mut buf).unwrap(), 3);
    assert_eq!(buf[..3], contents()[4997..]);
    assert_eq!(file.read_at(u64::MAX, &mut buf).unwrap(), 0);
}

#[test]
fn plain_names_are_lower_case_without_versions() {
    let iso = open(boot(false));
    assert_eq!(
        iso.list("/boot").unwrap().unwrap(),
        ["kernel", "loader.con"]
    );
    assert_eq!(
        iso.read("/boot/kernel/kernel", 5000).unwrap().unwrap(),
        contents()
    );
}

#[test]
fn a_directory_that_was_too_deep_lies_elsewhere() {
    let mut image = Image::new(true);
    let file = image.contents(b"deep");
    let deep = image.contents(b"");
    image.directory(deep, &[New::file(b"X", file, 4).with(&[&name("x")])]);
    let moved = field(
        b"CL",
        &[(deep as u32).to_le_bytes(), (deep as u32).to_be_bytes()].concat(),
    );
    image.root(&[New::file(b"D", 0, 0).with(&[&name("d"), &moved])]);
    assert_eq!(open(image).read("/d/x", 9).unwrap().unwrap(), b"deep");
}

#[test]
fn a_file_in_pieces_is_read_as_one() {
    let mut image = Image::new(true);
    let two = image.contents(b"two");
    let one = image.contents(&[1; SECTOR as usize]);
    let mut first = New::file(b"F", one, SECTOR as usize).with(&[&name("f")]);
    first.flags = MULTI_EXTENT;
    image.root(&[first, New::file(b"F", two, 3).with(&[&name("f")])]);
    let iso = open(image);
    assert_eq!(iso.list("/").unwrap().unwrap(), ["f"]);
    let expected = [&[1; SECTOR as usize][..], b"two"].concat();
    assert_eq!(iso.read("/f", 9000).unwrap().unwrap(), expected);
    let mut buf = [0; 9];
    let mut file = iso.open("/f").unwrap().unwrap();
    assert_eq!(file.read_at(SECTOR + 1, &mut buf).unwrap(), 2);
    assert_eq!(&buf[..2], b"wo");
}

#[test]
fn continuations_without_end_are_damage() {
    let mut image = Image::new(true);
    let at = image.contents(b"");
    let again = continuation(at, 0, 28);
    image.put(at, &again);
    image.root(&[New::file(b"X", 0, 0).with(&[&again])]);
    let text = error(open(image).list("/"));
    assert!(
        text.contains("more Rock Ridge fields than any name needs"),
        "{text}"
    );
}

#[test]
fn damage_is_named() {
    let mut image = boot(true);
    image.bytes[16 * 2048 + 128] = 3;
    let text = error(Iso::open(Part::whole(Arc::new(image.bytes)), "disk0"));
    assert!(text.contains("blocks of 2051 bytes"), "{text}");
    let mut image = boot(true);
    image.bytes[16 * 2048 + 156 + 25] = 0;
    let text = error(Iso::open(Part::whole(Arc::new(image.bytes)), "disk0"));
    assert!(text.contains("no root directory"), "{text}");
    // A record that ends behind its sector.
    let mut image = Image::new(false);
    let at = image.contents(b"x");
    image.root(&[New::file(b"X", at, 1)]);
    image.bytes[18 * 2048 + 68] = 10;
    assert!(error(open(image).list("/")).contains("record at byte 68 makes no sense"));
    // A file and a directory that lie behind the disc's end.
    let mut image = Image::new(false);
    image.root(&[New::file(b"X", 1 << 30, 1), New::directory(b"D", 1 << 30)]);
    let iso = open(image);
    assert!(error(iso.read("/x", 9)).contains("disk0:/x: beyond the end"));
    assert!(error(iso.list("/d")).contains("disk0:/d: beyond the end"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever bytes are changed: no panic, and no more is read than the limits allow.
    #[test]
    fn changed_images_are_read_or_refused(
        rock_ridge: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut image = boot(rock_ridge);
        // The volume descriptor, then the root and what else there is but the kernel.
        let ranges = [16 * 2048..16 * 2048 + 200, 18 * 2048..18 * 2048 + 200, 23 * 2048..26 * 2048];
        let places: Vec<usize> = ranges.into_iter().flatten().collect();
        for (index, value) in changes {
            image.bytes[*index.get(&places)] = value;
        }
        let source = Counted::new(image.bytes);
        if let Ok(Some(iso)) = Iso::open(Part::whole(source.clone()), "disk0") {
            for path in ["/", "/boot", "/boot/kernel"] {
                let _ = iso.list(path);
            }
            for path in ["/boot/kernel/kernel", "/boot/link", "/boot/loader.conf"] {
                let _ = iso.read(path, 1 << 20);
            }
        }
        prop_assert!(source.read() < 64 << 20, "{} bytes read", source.read());
    }
}
