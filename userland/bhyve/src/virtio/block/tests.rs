//! Tests of disks: requests through the rings, with an image file behind them.

use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;
use vmmapi::Gpa;

use super::feature;
use crate::block::image::Image;
use crate::ports::Width;
use crate::virtio::tests::guest::{Guest, Part, Ring, Version, device, into, out};

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// A guest with a started disk.
struct Machine {
    g: Guest,
    ring: Ring,
}

impl Machine {
    fn new(version: Version, config: &str) -> Self {
        let g = Guest::new(version, device("virtio-blk"), config);
        // ANY_LAYOUT is only for old drivers, and theirs alone to take.
        let ring = g.start(g.offered() & !(1 << 29));
        Self { g, ring }
    }

    /// One request: its status, and how many bytes the device says it wrote.
    fn request(&mut self, kind: u32, sector: u64, data: &[Part]) -> (u8, u32) {
        let mut header = Vec::new();
        header.extend(kind.to_le_bytes());
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        let header = self.g.room_with(&header);
        let status = self.g.room_with(&[0xee]);
        let mut parts = vec![out(header, 16)];
        parts.extend(data);
        parts.push(into(status, 1));
        let len = self.ring.request(&self.g, &parts);
        (self.g.bytes(status, 1)[0], len)
    }

    fn write(&mut self, sector: u64, bytes: &[u8]) -> u8 {
        let data = self.g.room_with(bytes);
        self.request(OUT, sector, &[out(data, bytes.len() as u32)])
            .0
    }

    fn read(&mut self, sector: u64, len: usize) -> (u8, Vec<u8>) {
        let data = self.g.room(len as u64, 512);
        let (status, _) = self.request(IN, sector, &[into(data, len as u32)]);
        (status, self.g.bytes(data, len))
    }

    fn ranges(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        let mut bytes = Vec::new();
        for (sector, sectors, flags) in ranges {
            bytes.extend(sector.to_le_bytes());
            bytes.extend(sectors.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
        }
        let data = self.g.room_with(&bytes);
        self.request(kind, 0, &[out(data, bytes.len() as u32)]).0
    }

    fn config(&self, offset: u64, size: u8) -> u64 {
        self.g.read(self.g.registers.device + offset, size)
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 512 + n % 251) as u8).collect()
}

#[test]
fn what_is_written_is_in_the_image_and_read_again() {
    for version in [Version::Legacy, Version::Modern] {
        for options in ["", ",nocache", ",direct", ",sync,nocache"] {
            let image = Image::new(&[0; 65536]);
            let mut m = Machine::new(version, &image.with(options));
            let bytes = pattern(4096);
            assert_eq!(m.write(8, &bytes), OK);
            assert_eq!(m.request(FLUSH, 0, &[]), (OK, 1));
            assert_eq!(image.read(4096, 4096), bytes, "{version:?} {options}");
            assert_eq!(m.read(9, 512), (OK, bytes[512..1024].to_vec()));
            assert_eq!(m.read(0, 512), (OK, vec![0; 512]));
        }
    }
}

#[test]
fn what_is_flushed_is_on_the_disk() {
    let image = Image::new(&vec![0; 1 << 20]);
    let unwritten = || crate::platform::disk::unwritten_pages(&image.file());
    image.file().sync_all().unwrap();
    if unwritten().is_none() {
        // This kernel doesn't tell.
        return;
    }
    let mut m = Machine::new(Version::Modern, &image.with(""));
    assert_eq!(m.write(0, &pattern(65536)), OK);
    assert_ne!(unwritten(), Some(0), "in the host's cache");
    assert_eq!(m.request(FLUSH, 0, &[]).0, OK);
    assert_eq!(unwritten(), Some(0));
    // A driver that doesn't know flushes takes each write for safe.
    let g = Guest::new(Version::Legacy, device("virtio-blk"), &image.with(""));
    let ring = g.start(0);
    let mut m = Machine { g, ring };
    assert_eq!(m.write(128, &pattern(65536)), OK);
    assert_eq!(unwritten(), Some(0));
    assert_eq!(m.ranges(WRITE_ZEROES, &[(128, 3, 0)]), OK);
    assert_eq!(unwritten(), Some(0));
}

#[test]
fn data_may_be_scattered_in_unaligned_memory() {
    for options in ["", ",nocache"] {
        let image = Image::new(&pattern(65536));
        let mut m = Machine::new(Version::Modern, &image.with(options));
        let at = m.g.room(8192, 1);
        let part = |from: u64, len| into(Gpa(at.0 + from), len);
        let parts = [
            part(1, 3),
            part(100, 1000),
            part(2000, 21),
            part(4001, 1024),
        ];
        assert_eq!(m.request(IN, 4, &parts), (OK, 2049));
        let mut read = Vec::new();
        for part in parts {
            read.extend(m.g.bytes(part.gpa, part.len as usize));
        }
        assert_eq!(read, pattern(65536)[2048..4096], "{options}");
        let parts = parts.map(|part| out(part.gpa, part.len));
        assert_eq!(m.request(OUT, 100, &parts), (OK, 1));
        assert_eq!(image.read(51200, 2048), read);
    }
}

#[test]
fn large_requests_go_through_whole() {
    let bytes = pattern(3 << 20);
    for options in ["", ",nocache"] {
        let image = Image::new(&bytes);
        let mut m = Machine::new(Version::Modern, &image.with(options));
        let at = m.g.room(3 << 20, 2);
        assert_eq!(m.request(IN, 0, &[into(at, 3 << 20)]).0, OK);
        assert!(m.g.bytes(at, 3 << 20) == bytes, "{options}");
    }
}

#[test]
fn the_header_may_be_divided_and_the_status_may_follow_the_data() {
    let image = Image::new(&pattern(4096));
    let mut m = Machine::new(Version::Modern, &image.with(""));
    let header = m.g.room_with(&[0; 16]);
    let data = m.g.room(513, 1);
    let parts = [
        out(header, 5),
        out(Gpa(header.0 + 5), 11),
        into(data, 500),
        into(Gpa(data.0 + 500), 13),
    ];
    assert_eq!(m.ring.request(&m.g, &parts), 513);
    assert_eq!(m.g.bytes(data, 513)[..512], pattern(4096)[..512]);
    assert_eq!(m.g.bytes(data, 513)[512], OK);
}

#[test]
fn requests_that_make_no_sense_end_in_an_error() {
    let image = Image::new(&[0x11; 8192]);
    let mut m = Machine::new(Version::Modern, &image.with(""));
    let at = m.g.room(16384, 512);
    for (why, kind, sector, parts) in [
        ("behind the end", IN, 16, vec![into(at, 512)]),
        ("over the end", IN, 15, vec![into(at, 1024)]),
        ("far away", IN, u64::MAX, vec![into(at, 512)]),
        ("overflow", OUT, u64::MAX / 512, vec![out(at, 1024)]),
        ("more than the disk", OUT, 0, vec![out(at, 8704)]),
        ("half a sector", OUT, 0, vec![out(at, 256)]),
        ("half a sector", IN, 0, vec![into(at, 256)]),
        ("data to read into nothing", IN, 0, vec![out(at, 512)]),
        ("both ways", OUT, 0, vec![out(at, 512), into(at, 512)]),
    ] {
        assert_eq!(m.request(kind, sector, &parts).0, IO_ERROR, "{why}");
    }
    for kind in [2, 3, 6, 14, 0x100, u32::MAX] {
        assert_eq!(m.request(kind, 0, &[]).0, UNSUPPORTED, "{kind}");
    }
    let status = m.g.room_with(&[0xee]);
    let header = m.g.room_with(&[0; 16]);
    assert_eq!(m.ring.request(&m.g, &[out(header, 15), into(status, 1)]), 1);
    assert_eq!(m.g.bytes(status, 1), [IO_ERROR], "a short header");
    assert_eq!(m.ring.request(&m.g, &[into(status, 1)]), 1);
    assert_eq!(image.read(0, 8192), [0x11; 8192], "nothing was written");
    assert_eq!(m.request(IN, 0, &[]).0, OK, "nothing to read is no error");
    m.ring.send(&m.g, &[out(header, 16)]);
    m.g.wait_for_needs_reset();
}

#[test]
fn barriers_of_old_drivers_are_let_pass() {
    let image = Image::new(&[0; 4096]);
    let mut m = Machine::new(Version::Legacy, &image.with(""));
    let at = m.g.room_with(&[7; 512]);
    assert_eq!(m.request(OUT | 1 << 31, 1, &[out(at, 512)]).0, OK);
    assert_eq!(image.read(512, 512), [7; 512]);
    assert_eq!(m.request(5, 0, &[]).0, OK, "an old flush");
}

#[test]
fn a_read_only_disk_is_one() {
    let image = Image::new(&[1; 4096]);
    let mut m = Machine::new(Version::Modern, &image.with(",ro"));
    assert_eq!(m.g.offered() & feature::RO, feature::RO);
    assert_eq!(
        m.g.offered() & (feature::DISCARD | feature::WRITE_ZEROES),
        0
    );
    assert_eq!(m.write(0, &[2; 512]), IO_ERROR);
    assert_eq!(m.ranges(WRITE_ZEROES, &[(0, 1, 0)]), UNSUPPORTED);
    assert_eq!(m.ranges(DISCARD, &[(0, 1, 0)]), UNSUPPORTED);
    assert_eq!(m.request(FLUSH, 0, &[]).0, OK);
    assert_eq!(m.read(0, 512), (OK, vec![1; 512]));
    assert_eq!(image.read(0, 4096), [1; 4096]);
    let m = Machine::new(Version::Modern, &image.with(""));
    assert_eq!(m.g.offered() & feature::RO, 0);
}

#[test]
fn discarding_gives_space_back_and_reads_as_zeros() {
    let image = Image::new(&vec![0x77; 1 << 20]);
    image.file().sync_all().unwrap();
    let blocks = || image.file().metadata().unwrap().blocks();
    let before = blocks();
    let mut m = Machine::new(Version::Modern, &image.with(""));
    if m.g.offered() & feature::DISCARD == 0 {
        // The file system of this build can't.
        return;
    }
    assert_eq!(m.ranges(DISCARD, &[(0, 512, 0), (1024, 512, 0)]), OK);
    assert_eq!(m.request(FLUSH, 0, &[]).0, OK);
    assert!(blocks() < before, "{before} blocks");
    assert_eq!(m.read(0, 512).1, [0; 512]);
    assert_eq!(m.read(511, 1024).1, [[0; 512], [0x77; 512]].concat());
    assert_eq!(m.read(1535, 512).1, [0; 512]);
    assert_eq!(image.read(1536 * 512, 512), [0x77; 512]);
    assert_eq!(image.file().metadata().unwrap().len(), 1 << 20);
    let m = Machine::new(Version::Modern, &image.with(",nodelete"));
    assert_eq!(m.g.offered() & feature::DISCARD, 0);
}

#[test]
fn zeroes_are_written_with_and_without_giving_space_back() {
    for options in ["", ",nodelete"] {
        let image = Image::new(&[0x77; 65536]);
        let mut m = Machine::new(Version::Modern, &image.with(options));
        assert_eq!(m.ranges(WRITE_ZEROES, &[(1, 2, 0), (100, 3, 1)]), OK);
        assert_eq!(image.read(512, 1024), [0; 1024]);
        assert_eq!(image.read(51200, 1536), [0; 1536]);
        for around in [0, 3 * 512, 99 * 512, 103 * 512] {
            assert_eq!(image.read(around, 512), [0x77; 512], "{options} {around}");
        }
    }
}

#[test]
fn zeroes_give_space_back_only_where_driver_and_user_allow_it() {
    for (options, flags, given_back) in [("", 0, false), ("", 1, true), (",nodelete", 1, false)] {
        let image = Image::new(&vec![0x77; 1 << 20]);
        image.file().sync_all().unwrap();
        let blocks = || image.file().metadata().unwrap().blocks();
        let before = blocks();
        let mut m = Machine::new(Version::Modern, &image.with(options));
        let can = m.config(56, 1) == 1;
        assert_eq!(can, m.g.offered() & feature::DISCARD != 0);
        assert_eq!(m.ranges(WRITE_ZEROES, &[(0, 2048, flags)]), OK);
        assert_eq!(m.request(FLUSH, 0, &[]).0, OK);
        assert_eq!(image.read(0, 1 << 20), vec![0; 1 << 20]);
        assert_eq!(blocks() < before, can && given_back, "{options} {flags}");
    }
}

#[test]
fn ranges_are_checked_before_any_of_them_is_touched() {
    let image = Image::new(&[0x77; 65536]);
    let mut m = Machine::new(Version::Modern, &image.with(""));
    for kind in [DISCARD, WRITE_ZEROES] {
        if kind == DISCARD && m.g.offered() & feature::DISCARD == 0 {
            continue;
        }
        let most = m.config(if kind == DISCARD { 36 } else { 48 }, 4) as u32;
        for (bad, status) in [
            ((128, 1, 0), IO_ERROR),
            ((127, 2, 0), IO_ERROR),
            ((u64::MAX, 1, 0), IO_ERROR),
            ((0, 0, 0), IO_ERROR),
            ((0, most + 1, 0), IO_ERROR),
            ((0, u32::MAX, 0), IO_ERROR),
            ((0, 1, 2), UNSUPPORTED),
            ((0, 1, u32::MAX), UNSUPPORTED),
        ] {
            assert_eq!(m.ranges(kind, &[(0, 1, 0), bad]), status, "{kind} {bad:?}");
        }
        let most = m.config(if kind == DISCARD { 40 } else { 52 }, 4) as usize;
        assert_eq!(m.ranges(kind, &vec![(0, 1, 0); most + 1]), IO_ERROR);
        assert_eq!(m.ranges(kind, &[]), IO_ERROR);
        let at = m.g.room_with(&[0; 15]);
        assert_eq!(m.request(kind, 0, &[out(at, 15)]).0, IO_ERROR);
    }
    if m.g.offered() & feature::DISCARD != 0 {
        assert_eq!(m.ranges(DISCARD, &[(0, 1, 1)]), UNSUPPORTED, "unmap");
    }
    assert_eq!(image.read(0, 65536), [0x77; 65536]);
}

#[test]
fn a_range_has_a_limit_so_that_no_request_takes_long() {
    let image = Image::new(&[]);
    image.file().set_len(17 << 20).unwrap();
    let mut m = Machine::new(Version::Modern, &image.with(""));
    let most = m.config(48, 4) as u32;
    assert_eq!(u64::from(most) * 512, 16 << 20);
    assert_eq!(m.ranges(WRITE_ZEROES, &[(0, most + 1, 1)]), IO_ERROR);
    assert_eq!(m.ranges(WRITE_ZEROES, &[(1, most, 1)]), OK);
}

#[test]
fn the_serial_is_the_given_one_or_bhyves() {
    let image = Image::new(&[0; 512]);
    let id = |config: &str, room: u32| {
        let mut m = Machine::new(Version::Legacy, config);
        let at = m.g.room_with(&[0xff; 32]);
        let (status, len) = m.request(GET_ID, 0, &[into(at, room)]);
        assert_eq!(status, OK);
        (len, m.g.bytes(at, 32))
    };
    let (len, bytes) = id(&image.with(",ser=disk 7"), 20);
    assert_eq!(len, 21);
    assert_eq!(&bytes[..20], b"disk 7\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(bytes[20..], [0xff; 12]);
    let (len, bytes) = id(&image.with(",serial=12345678901234567890"), 4);
    assert_eq!((len, &bytes[..5]), (5, &b"1234\xff"[..]));
    assert_eq!(id(&image.with(""), 20).1[..6], *b"BHYVE-");
}

#[test]
fn the_configuration_tells_sizes_and_limits() {
    let image = Image::new(&vec![0; 3 << 20 | 700]);
    let m = Machine::new(Version::Modern, &image.with(",sectorsize=512/4096"));
    assert_eq!(m.config(0, 8), 6145, "whole sectors");
    assert_eq!(
        m.config(12, 4),
        126,
        "segments: the ring without header and status"
    );
    assert_eq!(
        [m.config(16, 2), m.config(18, 1), m.config(19, 1)],
        [6, 16, 63]
    );
    assert_eq!(m.config(20, 4), 512);
    assert_eq!(
        [m.config(24, 1), m.config(25, 1)],
        [3, 0],
        "8 to a physical one"
    );
    assert_eq!([m.config(36, 4), m.config(48, 4)], [32768, 32768]);
    assert_eq!(m.config(44, 4), 8);
    let m = Machine::new(Version::Legacy, &image.with(",sectorsize=4096"));
    assert_eq!(m.g.legacy(20, Width::Dword), 6144, "whole sectors of 4096");
    assert_eq!(m.g.legacy(40, Width::Dword), 4096);
    assert_eq!(m.config(24, 1), 0);
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let image = Image::new(&pattern(65536));
    let mut m = Machine::new(Version::Modern, &image.with(""));
    let data = m.g.room(42 * 1024, 512);
    let mut heads = Vec::new();
    for n in 0..42 {
        let mut header = [0; 16];
        header[8] = n as u8;
        let header = m.g.room_with(&header);
        let parts = [out(header, 16), into(Gpa(data.0 + n * 1024), 513)];
        let head = m.ring.chain(&m.g, &parts);
        m.ring.publish(&m.g, head);
        heads.push(u32::from(head));
    }
    m.g.notify();
    let mut answered: Vec<u32> = (0..42).map(|_| m.ring.receive(&m.g).0).collect();
    answered.sort_unstable();
    assert_eq!(answered, heads);
    for n in 0..42 {
        let read = m.g.bytes(Gpa(data.0 + n as u64 * 1024), 513);
        assert_eq!(read[..512], pattern(65536)[n * 512..][..512]);
        assert_eq!(read[512], OK);
    }
}

#[test]
fn an_image_that_shrinks_gives_errors_and_nothing_else() {
    let image = Image::new(&[3; 8192]);
    let mut m = Machine::new(Version::Modern, &image.with(""));
    image.file().set_len(4096).unwrap();
    assert_eq!(m.read(0, 4096), (OK, vec![3; 4096]));
    assert_eq!(m.read(8, 512).0, IO_ERROR);
    assert_eq!(m.read(7, 1024).0, IO_ERROR);
}

#[test]
fn what_is_no_disk_is_refused_by_name() {
    let refusal = |config: &str| {
        Guest::try_new(Version::Modern, device("virtio-blk"), config, false)
            .err()
            .unwrap()
    };
    let message = refusal("/nonexistent/disk");
    assert!(
        message.starts_with("virtio-blk@pci.0.3.0: /nonexistent/disk: "),
        "{message}"
    );
    assert!(refusal("/dev/null").contains("/dev/null"));
    assert!(refusal("/").contains('/'));
    let image = Image::new(&[0; 511]);
    assert!(refusal(&image.with("")).contains("smaller than one sector of 512"));
    let image = Image::new(&[0; 2048]);
    assert!(refusal(&image.with(",sectorsize=4096")).contains("4096"));
    assert!(refusal(&image.with(",fast")).ends_with("unknown option pci.0.3.0.fast"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any sequence of writes, zeroes and discards leaves what a plain array would hold.
    #[test]
    fn the_disk_is_an_array_of_sectors(
        modern: bool,
        direct: bool,
        steps in proptest::collection::vec((0_u8..3, 0_u64..32, 1_usize..9, any::<u8>()), 1..30),
    ) {
        let image = Image::new(&[0; 32 * 512]);
        let version = if modern { Version::Modern } else { Version::Legacy };
        let mut m = Machine::new(version, &image.with(if direct { ",nocache" } else { "" }));
        let mut model = vec![0; 32 * 512];
        for (step, sector, sectors, byte) in steps {
            let at = sector as usize * 512;
            let inside = at + sectors * 512 <= model.len();
            let range = at..(at + sectors * 512).min(model.len());
            let status = match step {
                0 => m.write(sector, &vec![byte; sectors * 512]),
                1 => m.ranges(WRITE_ZEROES, &[(sector, sectors as u32, u32::from(byte & 1))]),
                _ => {
                    let (status, read) = m.read(sector, sectors * 512);
                    if status == OK {
                        prop_assert_eq!(&read, &model[range.clone()]);
                    }
                    status
                }
            };
            prop_assert_eq!(status, if inside { OK } else { IO_ERROR });
            if inside && step == 0 {
                model[range].fill(byte);
            } else if inside && step == 1 {
                model[range].fill(0);
            }
        }
        prop_assert_eq!(image.read(0, 32 * 512), model);
    }
}
