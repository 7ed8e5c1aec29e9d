//! A CD drive's commands.

use super::driver::{ABRT, FAILED, Fis, Machine, OK, RFIS};
use crate::ahci::ata::code;
use crate::block::image::Image;
use vmmapi::Gpa;

const BLOCKS: usize = 40;

const NO_MEDIUM: (u8, u8, u8) = (2, 0x3a, 0);
const INVALID_FIELD: (u8, u8, u8) = (5, 0x24, 0);
const OUT_OF_RANGE: (u8, u8, u8) = (5, 0x21, 0);

fn pattern() -> Vec<u8> {
    (0..BLOCKS * 2048)
        .map(|n| (n / 2048 * 3 + n) as u8)
        .collect()
}

fn read_10(first: u32, count: u16) -> [u8; 10] {
    let ([f0, f1, f2, f3], [c0, c1]) = (first.to_be_bytes(), count.to_be_bytes());
    [0x28, 0, f0, f1, f2, f3, 0, c0, c1, 0]
}

#[test]
fn a_drive_says_what_it_is() {
    let image = Image::new(&pattern());
    let m = Machine::new("ahci-cd", &image.with(""));
    assert_eq!(m.port(0, 0x24), 0xeb14_0101);
    let abort = m.read_sectors(Fis::new(code::IDENTIFY_DEVICE, 0, 0), 512).0;
    assert_eq!(abort, FAILED | ABRT << 8);
    let fis = m.bytes(Gpa(RFIS + 0x40), 20);
    assert_eq!([fis[12], fis[4], fis[5], fis[6]], [1, 1, 0x14, 0xeb]);
    let words = m.identify(code::IDENTIFY_PACKET_DEVICE);
    assert_eq!(words[0], 0x85c0);
    assert_eq!(
        Machine::text(&words[27..47]).trim_end(),
        "BHYVE SATA DVD ROM"
    );
    let inquiry = m.scsi(&[0x12, 0, 0, 0, 96, 0], 96).unwrap();
    assert_eq!((inquiry.len(), inquiry[0], inquiry[1]), (36, 5, 0x80));
    assert_eq!(&inquiry[8..], b"BHYVE   BHYVE DVD-ROM   001 ");
    assert_eq!(m.scsi(&[0x12, 0, 0, 0, 5, 0], 96).unwrap().len(), 5);
    assert_eq!(m.scsi(&[0x12, 1, 0x80, 0, 96, 0], 96), Err(INVALID_FIELD));
    assert_eq!(
        m.scsi(&[0x12, 1, 0, 0, 96, 0], 96).unwrap(),
        [5, 0, 0, 1, 0]
    );
    let luns = m.scsi(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16], 16).unwrap();
    assert_eq!((luns.len(), luns[3]), (16, 8));
    assert_eq!(m.scsi(&[0xff], 0), Err((5, 0x20, 0)));
    // Mode page 2Ah and all of them.
    let page = m.scsi(&[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 64, 0], 64).unwrap();
    assert_eq!((page.len(), page[1], page[8]), (30, 28, 0x2a));
    assert_eq!(
        m.scsi(&[0x5a, 0, 0xc1, 0, 0, 0, 0, 0, 64, 0], 64),
        Err((5, 0x39, 0))
    );
}

#[test]
fn blocks_are_read_and_no_others() {
    let image = Image::new(&pattern());
    let m = Machine::new("ahci-cd", &image.with(""));
    let capacity = m.scsi(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8).unwrap();
    assert_eq!(capacity, [0, 0, 0, BLOCKS as u8 - 1, 0, 0, 8, 0]);
    assert_eq!(
        m.scsi(&read_10(3, 5), 5 * 2048).unwrap(),
        pattern()[3 * 2048..8 * 2048]
    );
    let read_12 = [0xa8, 0, 0, 0, 0, 39, 0, 0, 0, 1];
    assert_eq!(m.scsi(&read_12, 2048).unwrap(), pattern()[39 * 2048..]);
    let read_cd = [0xbe, 0, 0, 0, 0, 1, 0, 0, 2, 0x10, 0];
    assert_eq!(m.scsi(&read_cd, 4096).unwrap(), pattern()[2048..3 * 2048]);
    let audio = [0xbe, 1 << 2, 0, 0, 0, 1, 0, 0, 2, 0x10, 0];
    assert_eq!(m.scsi(&audio, 4096), Err(INVALID_FIELD));
    assert_eq!(m.scsi(&read_10(40, 0), 0).unwrap(), [0; 0]);
    assert_eq!(m.scsi(&read_10(39, 2), 4096), Err(OUT_OF_RANGE));
    assert_eq!(m.scsi(&read_10(u32::MAX, 0xffff), 4096), Err(OUT_OF_RANGE));
    let most = [0xa8, 0, 0, 0, 0, 1, 255, 255, 255, 255];
    assert_eq!(m.scsi(&most, 4096), Err(OUT_OF_RANGE));
    // The driver has less room than it asks for.
    assert_eq!(m.scsi(&read_10(0, 2), 2048), Err((0xb, 0x4b, 0)));
    image.file().set_len(2048).unwrap();
    assert_eq!(m.scsi(&read_10(1, 1), 2048), Err((3, 0x11, 0)));
    // By PIO there is a setup FIS first.
    let at = m.room(2048);
    let tfd = m.packet(Fis::new(code::PACKET, 0, 0), &read_10(0, 1), &[(at, 2048)]);
    assert_eq!(tfd, OK);
    assert_eq!(m.bytes(Gpa(RFIS + 0x20), 1), [0x5f]);
    assert_eq!(m.bytes(at, 2048), pattern()[..2048]);
}

#[test]
fn the_medium_has_one_track() {
    let image = Image::new(&pattern());
    let m = Machine::new("ahci-cd", &image.with(""));
    let toc = m.scsi(&[0x43, 0, 0, 0, 0, 0, 0, 0, 64, 0], 64).unwrap();
    assert_eq!(toc[..4], [0, 18, 1, 1]);
    assert_eq!(toc[4..12], [0, 0x14, 1, 0, 0, 0, 0, 0]);
    assert_eq!(toc[12..], [0, 0x14, 0xaa, 0, 0, 0, 0, BLOCKS as u8]);
    let msf = m.scsi(&[0x43, 2, 0, 0, 0, 0, 0xaa, 0, 64, 0], 64).unwrap();
    assert_eq!(msf[8..], [0, 0, 2, BLOCKS as u8]);
    assert!(m.scsi(&[0x43, 2, 0, 0, 0, 0, 0, 0, 64, 0x80], 64).is_ok());
    assert_eq!(
        m.scsi(&[0x43, 0, 0, 0, 0, 0, 0, 0, 64, 0xc0], 64),
        Err(INVALID_FIELD)
    );
    let disc = m.scsi(&[0x51, 0, 0, 0, 0, 0, 0, 0, 34, 0], 34).unwrap();
    assert_eq!((disc.len(), disc[2]), (34, 0x0e));
    let profile = m.scsi(&[0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0], 8).unwrap();
    assert_eq!(profile[6..8], [0, 8], "a CD");
}

#[test]
fn the_tray_goes_out_and_in() {
    let image = Image::new(&pattern());
    let m = Machine::new("ahci-cd", &image.with(""));
    let ready = || m.scsi(&[0], 0).map(drop);
    let move_tray = |flags| m.scsi(&[0x1b, 0, 0, 0, flags, 0], 0).map(drop);
    let lock = |on| m.scsi(&[0x1e, 0, 0, 0, on, 0], 0).map(drop);
    let event = || {
        let bytes = m.scsi(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0], 8).unwrap();
        (bytes[4], bytes[5])
    };
    assert_eq!((ready(), event()), (Ok(()), (0, 2)));
    assert_eq!(lock(1), Ok(()));
    assert_eq!(move_tray(2), Err((5, 0x53, 2)));
    assert_eq!(lock(0), Ok(()));
    assert_eq!(move_tray(2), Ok(()));
    assert_eq!(event(), (3, 1));
    assert_eq!(ready(), Err(NO_MEDIUM));
    assert_eq!(m.scsi(&read_10(0, 1), 2048), Err(NO_MEDIUM));
    assert_eq!(move_tray(3), Ok(()));
    assert_eq!(event(), (2, 2));
    assert_eq!(ready(), Err((6, 0x28, 0)), "told once");
    assert_eq!((ready(), event()), (Ok(()), (0, 2)));
    assert_eq!(
        m.scsi(&[0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8, 0], 8),
        Err(INVALID_FIELD)
    );
}

#[test]
fn a_drive_may_be_empty() {
    let image = Image::new(&[]);
    let m = Machine::new("ahci-cd", &image.with(""));
    assert_eq!(m.scsi(&[0], 0), Err(NO_MEDIUM));
    assert_eq!(m.scsi(&[0x25], 8), Err(NO_MEDIUM));
    assert_eq!(
        m.scsi(&[0x43, 0, 0, 0, 0, 0, 0, 0, 64, 0], 64),
        Err(NO_MEDIUM)
    );
    let sense = m.scsi(&[3, 0, 0, 0, 18, 0], 18).unwrap();
    assert_eq!((sense[0], sense[2]), (0x70, 0), "told already");
    let profile = m.scsi(&[0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0], 8).unwrap();
    assert_eq!(profile[6..8], [0, 0]);
    assert!(m.scsi(&[0x12, 0, 0, 0, 36, 0], 36).is_ok());
}
