//! The structures, walked as an operating system walks them.

use super::*;

const TOPOLOGY: CpuTopology = CpuTopology {
    sockets: 2,
    cores: 3,
    threads: 2,
    maxcpus: 0,
};

fn machine(lowmem: u64, highmem: u64) -> Machine<'static> {
    Machine {
        config: Box::leak(Box::default()),
        uuid: Uuid::parse("00112233-4455-6677-8899-aabbccddeeff").unwrap(),
        topology: &TOPOLOGY,
        lowmem,
        highmem,
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Formatted area and strings of each structure.
fn walk(image: &[u8]) -> Vec<(Vec<u8>, Vec<String>)> {
    let (entry, mut rest) = image.split_at(31);
    assert_eq!((&entry[..4], &entry[16..21]), (&b"_SM_"[..], &b"_DMI_"[..]));
    assert_eq!((sum(entry), sum(&entry[16..])), (0, 0));
    assert_eq!((entry[5], entry[6], entry[7], entry[30]), (31, 2, 8, 0x28));
    assert_eq!(usize::from(word(entry, 22)), rest.len());
    let address = u32::from_le_bytes(entry[24..28].try_into().unwrap());
    assert_eq!(address, 0xf_1000 + 31);
    let mut found = Vec::new();
    let mut longest = 0;
    while !rest.is_empty() {
        let (formatted, behind) = rest.split_at(usize::from(rest[1]));
        let end = behind.windows(2).position(|pair| pair == [0, 0]).unwrap();
        let strings = behind[..end].split(|byte| *byte == 0);
        let strings = strings
            .filter(|text| !text.is_empty())
            .map(|text| String::from_utf8(text.to_vec()).unwrap());
        found.push((formatted.to_vec(), strings.collect()));
        longest = longest.max(formatted.len() + end + 2);
        rest = &behind[end + 2..];
    }
    assert_eq!(usize::from(word(entry, 28)), found.len());
    assert_eq!(usize::from(word(entry, 8)), longest);
    found
}

#[test]
fn each_structure_has_the_length_of_its_version_and_a_handle_of_its_own() {
    let image = tables(&machine(3 << 30, 2 << 30));
    let found = walk(&image);
    let headers: Vec<_> = found.iter().map(|(s, _)| (s[0], s[1])).collect();
    assert_eq!(
        headers,
        [
            (0, 0x18),
            (1, 0x1b),
            (2, 0x0f),
            (3, 0x16),
            (4, 0x2a),
            (4, 0x2a),
            (16, 0x17),
            (17, 0x28),
            (19, 0x1f),
            (19, 0x1f),
            (32, 0x0b),
            (127, 4)
        ]
    );
    for (n, (structure, _)) in found.iter().enumerate() {
        assert_eq!(usize::from(word(structure, 2)), n);
    }
}

#[test]
fn it_is_bhyve_with_the_uuid_that_was_given() {
    let image = tables(&machine(128 << 20, 0));
    let found = walk(&image);
    assert_eq!(found[0].1, ["BHYVE", "14.0", "10/17/2021"]);
    assert_eq!(found[1].1[..2], ["FreeBSD", "BHYVE"]);
    assert_eq!(
        found[1].0[8..24],
        [
            0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
            0xee, 0xff
        ]
    );
    assert_eq!(word(&found[2].0, 0x0b), 3, "the board is in the chassis");
}

#[test]
fn the_texts_are_the_configurations() {
    let mut config = Config::default();
    for (variable, value) in [
        ("bios.release_date", "11/24/2025"),
        ("system.family_name", "Family of %(name)"),
        ("name", "web"),
        ("board.location", "Nowhere"),
        ("chassis.sku", ""),
    ] {
        config.set(variable, value).unwrap();
    }
    let machine = Machine {
        config: &config,
        ..machine(128 << 20, 0)
    };
    let found = walk(&tables(&machine));
    assert_eq!(found[0].1, ["BHYVE", "14.0", "11/24/2025"]);
    assert_eq!(found[1].1[5], "Family of web");
    assert_eq!(found[2].1[5], "Nowhere");
    assert_eq!(
        found[3].1[4], "None",
        "an empty text can't be in a structure"
    );
}

#[test]
fn sockets_have_their_cores_and_threads() {
    let image = tables(&machine(128 << 20, 0));
    let found = walk(&image);
    assert_eq!(
        (&found[4].1[0], &found[5].1[0]),
        (&"CPU #0".into(), &"CPU #1".into())
    );
    assert_eq!(found[4].0[0x23..0x26], [3, 3, 6]);
    let many = CpuTopology {
        cores: 200,
        threads: 2,
        ..TOPOLOGY
    };
    assert_eq!(processor(&many)[0x1f..0x22], [200, 200, 0]);
}

#[test]
fn memory_is_one_device_at_one_or_two_places() {
    let of_kind = |image: &[u8], kind| -> Vec<Vec<u8>> {
        let found = walk(image).into_iter().map(|(s, _)| s);
        found.filter(|s| s[0] == kind).collect()
    };
    let image = tables(&machine(3 << 30, 2 << 30));
    let array = &of_kind(&image, 16)[0];
    assert_eq!(long(array, 0x0f), 5 << 30);
    let device = &of_kind(&image, 17)[0];
    assert_eq!(word(device, 4), word(array, 2));
    assert_eq!(word(device, 0x0c), 5 << 10);
    let mapped: Vec<_> = of_kind(&image, 19)
        .iter()
        .map(|s| (long(s, 0x0f), long(s, 0x17)))
        .collect();
    assert_eq!(
        mapped,
        [(0, (3 << 30) - 1), (4 << 30, (6 << 30) - 1)],
        "first and last byte"
    );
    assert_eq!(of_kind(&tables(&machine(1 << 30, 0)), 19).len(), 1);

    assert_eq!(memory_size(16 << 20), (0x8000 | 16 << 10, 0));
    assert_eq!(memory_size(32 << 20), (32, 0));
    assert_eq!(memory_size(31 << 30), (31 << 10, 0));
    assert_eq!(memory_size(64 << 30), (0x7fff, 64 << 10));
}

#[test]
fn uuids_are_read_and_made() {
    for bad in [
        "",
        "00112233445566778899aabbccddeeff",
        "00112233-4455-6677-8899-aabbccddeef",
        "00112233-4455-6677-8899-aabbccddeefg",
        "+0112233-4455-6677-8899-aabbccddeeff",
        "0011223-34455-6677-8899-aabbccddeeff",
    ] {
        assert_eq!(Uuid::parse(bad), Err(UuidError), "{bad}");
    }
    let made = Uuid::of_machine("guest0", "host");
    assert_eq!(made, Uuid::of_machine("guest0", "host"));
    assert_ne!(made, Uuid::of_machine("guest1", "host"));
    assert_ne!(made, Uuid::of_machine("guest0", "hots"));
    assert_ne!(Uuid::of_machine("ab", "c"), Uuid::of_machine("a", "bc"));
    assert_eq!(
        (made.0[6] >> 4, made.0[8] >> 6),
        (3, 2),
        "version and variant"
    );
}
