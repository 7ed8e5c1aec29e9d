//! A disk's commands.

use proptest::prelude::*;
use vmmapi::Gpa;

use super::driver::{ABRT, FAILED, Fis, IDNF, Machine, OK, RFIS};
use crate::ahci::ata::code;
use crate::block::image::Image;

const SECTORS: usize = 256;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 512 + n * 7) as u8).collect()
}

fn machine(image: &Image, options: &str) -> Machine {
    Machine::new("ahci-hd", &image.with(options))
}

fn failed(error: u32) -> u32 {
    FAILED | error << 8
}

#[test]
fn a_disk_says_what_it_is() {
    let image = Image::new(&pattern(SECTORS * 512));
    let m = machine(&image, ",ser=SER 1,rev=R2,model=M3,nmrr=1");
    let words = m.identify(code::IDENTIFY_DEVICE);
    assert_eq!(Machine::text(&words[10..20]), "SER 1               ");
    assert_eq!(Machine::text(&words[23..27]), "R2      ");
    assert_eq!(Machine::text(&words[27..47]).trim_end(), "M3");
    assert_eq!(words[217], 1);
    assert_eq!(
        [words[60], words[61], words[100], words[103]],
        [256, 0, 256, 0]
    );
    assert_eq!(words[75], 31);
    assert_eq!(words[77], 3 << 1 | 1 << 6, "6 Gbit/s");
    assert_eq!(words[88], 0x407f, "Ultra DMA 6 selected");
    assert_eq!(words[59], 0x180);
    assert_eq!(words[85] & 1 << 5, 1 << 5, "write cache on");
    assert_eq!(m.transferred(0), 512);

    let m = machine(&image, "");
    let words = m.identify(code::IDENTIFY_DEVICE);
    assert!(Machine::text(&words[10..20]).starts_with("BHYVE-"));
    assert_eq!(Machine::text(&words[27..47]).trim_end(), "BHYVE SATA DISK");
    assert_eq!(Machine::text(&words[23..27]).trim_end(), "001");

    let m = machine(&image, ",sectorsize=4096/8192");
    let words = m.identify(code::IDENTIFY_DEVICE);
    assert_eq!([words[60], words[106], words[117]], [32, 0x7001, 2048]);
    assert_eq!(
        m.read_sectors(Fis::new(code::READ_DMA_EXT, 1, 1), 4096).1,
        pattern(SECTORS * 512)[4096..8192]
    );
}

#[test]
fn features_that_are_set_are_told() {
    let image = Image::new(&pattern(SECTORS * 512));
    let m = machine(&image, "");
    let set = |feature, count| {
        m.command(
            Fis::new(code::SET_FEATURES, 0, count).features(feature),
            &[],
        )
    };
    assert_eq!(set(0x82, 0), OK);
    assert_eq!(set(0x55, 0), OK);
    assert_eq!(set(0x03, 0x42), OK);
    assert_eq!(set(0x03, 0x47), failed(ABRT), "there is no Ultra DMA 7");
    assert_eq!(set(0x05, 0x80), failed(ABRT), "no power management levels");
    assert_eq!(m.command(Fis::new(code::SET_MULTIPLE_MODE, 0, 16), &[]), OK);
    let three = Fis::new(code::SET_MULTIPLE_MODE, 0, 3);
    assert_eq!(m.command(three, &[]), failed(ABRT));
    let words = m.identify(code::IDENTIFY_DEVICE);
    assert_eq!(words[85] & (1 << 5 | 1 << 6), 0);
    assert_eq!([words[88], words[59]], [0x047f, 0x110]);
    assert_eq!(m.command(Fis::new(code::SET_MULTIPLE_MODE, 0, 0), &[]), OK);
    let multiple = Fis::new(code::READ_MULTIPLE, 0, 1);
    assert_eq!(m.read_sectors(multiple, 512).0, failed(ABRT));
}

#[test]
fn each_way_to_read_and_write_moves_the_sectors() {
    let image = Image::new(&pattern(SECTORS * 512));
    let m = machine(&image, "");
    let data = pattern(SECTORS * 512);
    for (n, read) in [
        code::READ_SECTORS,
        code::READ_SECTORS_EXT,
        code::READ_DMA_EXT,
        code::READ_MULTIPLE_EXT,
        code::READ_MULTIPLE,
        code::READ_DMA,
    ]
    .into_iter()
    .enumerate()
    {
        let (tfd, bytes) = m.read_sectors(Fis::new(read, n as u64, 3), 3 * 512);
        assert_eq!(
            (tfd, &bytes[..]),
            (OK, &data[n * 512..][..3 * 512]),
            "{read:#x}"
        );
        assert_eq!(m.transferred(0), 3 * 512);
    }
    // A PIO setup FIS, with the status behind the data.
    m.memory.write(Gpa(RFIS + 0x20), 0_u32).unwrap();
    m.read_sectors(Fis::new(code::READ_SECTORS, 0, 1), 512);
    let setup = m.bytes(Gpa(RFIS + 0x20), 20);
    assert_eq!(
        [setup[0], setup[1], setup[2], setup[15]],
        [0x5f, 0x20, 0x58, 0x50]
    );
    assert_eq!(u16::from_le_bytes([setup[16], setup[17]]), 512);

    for (n, write) in [
        code::WRITE_SECTORS,
        code::WRITE_SECTORS_EXT,
        code::WRITE_DMA_EXT,
        code::WRITE_MULTIPLE_EXT,
        code::WRITE_MULTIPLE,
        code::WRITE_DMA,
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = vec![write; 1024];
        let lba = 100 + 2 * n as u64;
        assert_eq!(m.write_sectors(Fis::new(write, lba, 2), &bytes), OK);
        assert_eq!(image.read(lba * 512, 1024), bytes, "{write:#x}");
    }
    // A count of 0 is 256 sectors.
    let (tfd, _) = m.read_sectors(Fis::new(code::READ_DMA, 0, 0), SECTORS * 512);
    assert_eq!((tfd, m.transferred(0)), (OK, 256 * 512));
    assert_eq!(m.command(Fis::new(code::FLUSH_CACHE_EXT, 0, 0), &[]), OK);
}

#[test]
fn data_goes_through_all_entries_of_the_table() {
    let image = Image::new(&pattern(SECTORS * 512));
    let m = machine(&image, "");
    let at = m.room(4096);
    let pieces: Vec<(Gpa, usize)> = [(0, 2), (1000, 510), (100, 600), (2000, 424)]
        .map(|(offset, len)| (Gpa(at.0 + offset), len))
        .into();
    let fis = Fis::new(code::READ_DMA_EXT, 5, 3);
    assert_eq!(m.command(fis, &pieces), OK);
    let read: Vec<u8> = pieces
        .iter()
        .flat_map(|(gpa, len)| m.bytes(*gpa, *len))
        .collect();
    assert_eq!(read, pattern(SECTORS * 512)[5 * 512..8 * 512]);
    // Room for less than the command has.
    let fis = Fis::new(code::READ_DMA_EXT, 5, 4);
    m.prepare(0, &fis.bytes(), &[], &pieces);
    m.issue(0, false);
    assert_eq!(m.finish(1), failed(ABRT));
    assert_eq!(m.port(0, 0x10), 0x4100_0001, "overflow, task file error");
    assert_eq!(m.port(0, 0x38), 1, "the command's bit stays");
}

#[test]
fn what_is_not_on_the_disk_is_not_found() {
    let image = Image::new(&pattern(SECTORS * 512));
    let m = machine(&image, "");
    for fis in [
        Fis::new(code::READ_DMA_EXT, 255, 2),
        Fis::new(code::READ_DMA_EXT, (1 << 48) - 1, 0),
        Fis::new(code::WRITE_DMA, 256, 1),
        Fis::new(code::READ_VERIFY, 256, 1),
        Fis::new(code::READ_VERIFY_EXT, 0, 0),
    ] {
        assert_eq!(m.read_sectors(fis, 1024).0, failed(IDNF), "{fis:?}");
    }
    assert_eq!(m.command(Fis::new(code::READ_VERIFY, 255, 1), &[]), OK);
    // An image that has become shorter is a medium error.
    image.file().set_len(512 * 100).unwrap();
    let gone = Fis::new(code::READ_DMA_EXT, 100, 1);
    assert_eq!(m.read_sectors(gone, 512).0, failed(0x40));
}

#[test]
fn unknown_commands_are_aborted() {
    let image = Image::new(&pattern(SECTORS * 512));
    let m = machine(&image, "");
    for command in [
        0x00,
        0x3f,
        code::PACKET,
        code::IDENTIFY_PACKET_DEVICE,
        0xf5,
        0xff,
    ] {
        let fis = Fis::new(command, 0, 1);
        assert_eq!(m.read_sectors(fis, 512).0, failed(ABRT), "{command:#x}");
    }
    assert_eq!(m.command(Fis::new(code::STANDBY_IMMEDIATE, 0, 0), &[]), OK);
    assert_eq!(m.command(Fis::new(code::CHECK_POWER_MODE, 0, 0), &[]), OK);
    assert_eq!(m.bytes(Gpa(RFIS + 0x40), 20)[12], 0xff, "active");
}

#[test]
fn a_read_only_disk_is_not_written() {
    let image = Image::new(&pattern(SECTORS * 512));
    let m = machine(&image, ",ro");
    let write = Fis::new(code::WRITE_DMA_EXT, 0, 1);
    assert_eq!(m.write_sectors(write, &[9; 512]), failed(ABRT));
    assert_eq!(image.read(0, 512), pattern(512));
    assert_eq!(m.identify(code::IDENTIFY_DEVICE)[169], 0, "no TRIM");
}

#[test]
fn trimmed_ranges_read_as_zeros() {
    let image = Image::new(&[0xaa; SECTORS * 512]);
    let m = machine(&image, "");
    let words = m.identify(code::IDENTIFY_DEVICE);
    assert_eq!(
        [words[169], words[105]],
        [1, 1],
        "this file system has holes"
    );
    assert_eq!(words[69], 1 << 14 | 1 << 5);
    let block = |ranges: &[(u64, u64)]| {
        let mut block = vec![0; 512];
        for (n, (lba, sectors)) in ranges.iter().enumerate() {
            block[8 * n..8 * n + 8].copy_from_slice(&(lba | sectors << 48).to_le_bytes());
        }
        block
    };
    let trim = Fis::new(code::DATA_SET_MANAGEMENT, 0, 1).features(1);
    assert_eq!(
        m.write_sectors(trim, &block(&[(8, 2), (0, 0), (100, 1)])),
        OK
    );
    assert_eq!(image.read(8 * 512, 1024), [0; 1024]);
    assert_eq!(image.read(100 * 512, 512), [0; 512]);
    assert_eq!(image.read(10 * 512, 512), [0xaa; 512]);
    assert_eq!(
        m.write_sectors(trim, &block(&[(0, 1), (255, 2)])),
        failed(IDNF)
    );
    assert_eq!(image.read(0, 512), [0xaa; 512], "all or nothing");
    let two = Fis::new(code::DATA_SET_MANAGEMENT, 0, 2).features(1);
    assert_eq!(m.write_sectors(two, &[0; 1024]), failed(ABRT));
    // Queued.
    let at = m.room_with(&block(&[(20, 1)]));
    let mut queued = Fis::new(code::SEND_FPDMA_QUEUED, 0, 3 << 3).features(1);
    queued.auxiliary = 1;
    m.prepare(3, &queued.bytes(), &[], &[(at, 512)]);
    m.issue(3, true);
    assert_eq!(m.finish(1 << 3), OK);
    assert_eq!(image.read(20 * 512, 512), [0; 512]);

    let m = machine(&image, ",nodelete");
    assert_eq!(m.identify(code::IDENTIFY_DEVICE)[169], 0);
    assert_eq!(m.write_sectors(trim, &block(&[(0, 1)])), failed(ABRT));
}

#[test]
fn thirty_two_queued_commands_are_all_done() {
    let image = Image::new(&pattern(SECTORS * 512));
    let m = machine(&image, "");
    let mut places = Vec::new();
    for slot in 0..32_u8 {
        let (write, lba) = (slot % 2 == 1, 4 * u64::from(slot));
        let bytes = if write { [slot; 1024] } else { [0; 1024] };
        let at = m.room_with(&bytes);
        let command = if write {
            code::WRITE_FPDMA_QUEUED
        } else {
            code::READ_FPDMA_QUEUED
        };
        let mut fis = Fis::new(command, lba, u16::from(slot) << 3).features(2);
        // To the medium at once, every second write.
        fis.device |= u8::from(slot % 4 == 1) << 7;
        m.prepare(slot, &fis.bytes(), &[], &[(at, 1024)]);
        places.push((write, lba, at));
    }
    m.set_port(0, 0x34, u32::MAX);
    m.set_port(0, 0x38, u32::MAX);
    assert_eq!(m.finish(u32::MAX), OK);
    for (slot, (write, lba, at)) in places.into_iter().enumerate() {
        let expected = if write {
            vec![slot as u8; 1024]
        } else {
            pattern(SECTORS * 512)[lba as usize * 512..][..1024].to_vec()
        };
        assert_eq!(m.bytes(at, 1024), expected, "{slot}");
        assert_eq!(image.read(lba * 512, 1024), expected, "{slot}");
    }
    let fis = m.bytes(Gpa(RFIS + 0x58), 8);
    assert_eq!([fis[0], fis[1], fis[2], fis[3]], [0xa1, 0x40, 0x50, 0]);
}

#[test]
fn a_queued_command_that_fails_is_in_the_log() {
    let image = Image::new(&pattern(SECTORS * 512));
    let m = machine(&image, "");
    let at = m.room(512);
    let fis = Fis::new(code::READ_FPDMA_QUEUED, 0x1_0000_0100, 7 << 3).features(1);
    m.prepare(7, &fis.bytes(), &[], &[(at, 512)]);
    m.issue(7, true);
    assert_eq!(m.finish(1 << 7), failed(IDNF));
    assert_eq!(m.port(0, 0x10), 0x4000_0008);
    assert_eq!((m.port(0, 0x38), m.port(0, 0x34)), (0, 1 << 7));
    // Nothing is done until the driver has stopped the command list.
    m.issue(8, true);
    assert_eq!(m.port(0, 0x38), 1 << 8);
    m.restart();
    assert_eq!((m.port(0, 0x38), m.port(0, 0x34)), (0, 0));

    for read in [code::READ_LOG_EXT, code::READ_LOG_DMA_EXT] {
        let (tfd, log) = m.read_sectors(Fis::new(read, 0x10, 1), 512);
        assert_eq!(tfd, OK);
        assert_eq!(log[..8], [7, 0, 0x41, 0x10, 0, 1, 0, 0x40]);
        assert_eq!(log[8..11], [0, 1, 0]);
        assert_eq!(
            log.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)),
            0
        );
    }
    let (_, directory) = m.read_sectors(Fis::new(code::READ_LOG_EXT, 0, 1), 512);
    assert_eq!([directory[0], directory[0x20], directory[0x26]], [1, 1, 1]);
    for (lba, count) in [(0x10, 2), (0x11, 1), (0x110, 1)] {
        let fis = Fis::new(code::READ_LOG_EXT, lba, count);
        assert_eq!(m.read_sectors(fis, 1024).0, failed(ABRT), "{lba:#x}");
    }
    // The last error was one of a command that isn't queued.
    let (_, log) = m.read_sectors(Fis::new(code::READ_LOG_EXT, 0x10, 1), 512);
    assert_eq!(log[0], 0x80);
}

#[test]
fn smart_says_that_the_disk_is_well() {
    let image = Image::new(&pattern(SECTORS * 512));
    let m = machine(&image, "");
    let smart = |subcommand| Fis::new(code::SMART, 0xc2_4f00, 1).features(subcommand);
    assert_eq!(m.command(smart(0xda), &[]), OK);
    let fis = m.bytes(Gpa(RFIS + 0x40), 20);
    assert_eq!([fis[5], fis[6]], [0x4f, 0xc2]);
    assert_eq!(m.read_sectors(smart(0xd0), 512).0, OK);
    assert_eq!(m.command(smart(0xd9), &[]), OK);
    assert_eq!(m.command(smart(0xda), &[]), failed(ABRT), "it is off");
    assert_eq!(m.command(smart(0xd8), &[]), OK);
    assert_eq!(m.command(smart(0xda), &[]), OK);
    let keyless = Fis::new(code::SMART, 0, 1).features(0xda);
    assert_eq!(m.command(keyless, &[]), failed(ABRT));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any sequence of reads and writes, queued or not, leaves what an array would hold.
    #[test]
    fn the_disk_is_an_array_of_sectors(
        no_cache: bool,
        steps in proptest::collection::vec(
            (any::<bool>(), any::<bool>(), 0_u64..32, 1_u16..9, any::<u8>()),
            1..40,
        ),
    ) {
        let image = Image::new(&[0; 32 * 512]);
        let m = machine(&image, if no_cache { ",nocache" } else { "" });
        let mut model = vec![0; 32 * 512];
        for (write, queued, lba, count, byte) in steps {
            let len = usize::from(count) * 512;
            let inside = lba as usize * 512 + len <= model.len();
            let command = match (write, queued) {
                (true, true) => code::WRITE_FPDMA_QUEUED,
                (true, false) => code::WRITE_DMA_EXT,
                (false, true) => code::READ_FPDMA_QUEUED,
                (false, false) => code::READ_DMA_EXT,
            };
            let fis = if queued {
                Fis::new(command, lba, 0).features(count)
            } else {
                Fis::new(command, lba, count)
            };
            let at = m.room_with(&vec![byte; len]);
            m.prepare(0, &fis.bytes(), &[], &[(at, len)]);
            m.issue(0, queued);
            let tfd = m.finish(1);
            if !inside {
                prop_assert_eq!(tfd, failed(IDNF));
                m.restart();
                continue;
            }
            prop_assert_eq!(tfd, OK);
            let range = lba as usize * 512..lba as usize * 512 + len;
            if write {
                model[range].fill(byte);
            } else {
                prop_assert_eq!(&m.bytes(at, len), &model[range]);
            }
        }
        prop_assert_eq!(image.read(0, 32 * 512), model);
    }
}
