//! The controller's registers, its ports' links and command lists, and its interrupts.

use vmmapi::Gpa;

use super::driver::{AT, CR, FRE, Fis, LIST, MEMORY, Machine, OK, RFIS, ST};
use crate::ahci::ata::code;
use crate::block::image::Image;
use crate::mmio::MmioBus;
use crate::ports::Width;

/// Interrupt bits of a port.
const D2H: u32 = 1;
const INTERFACE_FATAL: u32 = 1 << 27;
const BUS_FATAL: u32 = 1 << 29;

const GHC: u64 = 0x04;
const IS: u64 = 0x08;

fn image() -> Image {
    Image::new(&[7; 64 * 512])
}

fn flush() -> Fis {
    Fis::new(code::FLUSH_CACHE, 0, 0)
}

#[test]
fn it_is_the_controller_that_bhyve_has() {
    let (disk, cd) = (image(), image());
    let m = Machine::try_new("ahci", &format!("hd:{},cd:{}", disk.with(""), cd.with(""))).unwrap();
    assert_eq!(m.bus.read(AT, 0, Width::Dword), 0x2821_8086);
    assert_eq!(m.bus.read(AT, 8, Width::Dword), 0x0106_0100);
    assert_eq!(m.read(0x00), 0xff30_ff25, "CAP: six ports");
    assert_eq!(m.read(0x0c), 3, "PI");
    assert_eq!(m.read(0x10), 0x0001_0300, "VS");
    assert_eq!(m.read(0x24), 4, "CAP2");
    assert_eq!(m.read(GHC), 1 << 31);
    assert_eq!([m.port(0, 0x24), m.port(1, 0x24)], [0x101, 0xeb14_0101]);
    assert_eq!([m.port(0, 0x28), m.port(1, 0x28)], [0x133, 0x133]);
    assert_eq!([m.port(0, 0x20), m.port(1, 0x20)], [0x150, 0x110]);
    // Ports without a device are not there.
    m.set_port(2, 0x00, 0x1000);
    assert_eq!([m.port(2, 0x00), m.port(2, 0x28)], [0; 2]);
    // Parts of a register can be read, and not be written.
    let vs = u64::from(m.bus.read(AT, 0x24, Width::Dword)) + 0x10;
    assert_eq!(m.mmio.read(Gpa(vs + 1), 1), Some(3));
    assert_eq!(m.mmio.read(Gpa(vs + 2), 2), Some(1));
    m.mmio.write(Gpa(vs - 0x10 + GHC), 1, 2);
    assert_eq!(m.read(GHC), 1 << 31);

    let m = Machine::try_new("ahci", "").unwrap();
    assert_eq!([m.read(0x00) & 0x1f, m.read(0x0c)], [5, 0]);
    let many = vec![format!("hd:{}", disk.with(",ro")); 32].join(",");
    let m = Machine::try_new("ahci", &many).unwrap();
    assert_eq!([m.read(0x00) & 0x1f, m.read(0x0c)], [31, u32::MAX]);
    m.start(31);
    assert_eq!(m.port(31, 0x18) & CR, CR);
}

#[test]
fn what_is_no_disk_is_refused_by_name() {
    let refusal = |device, options: &str| Machine::try_new(device, options).err().unwrap();
    let message = refusal("ahci-hd", "/nonexistent/disk");
    assert!(
        message.starts_with("ahci-hd@pci.0.3.0: port 0: /nonexistent/disk: "),
        "{message}"
    );
    assert!(refusal("ahci-cd", "").contains("the path"));
    let empty = Image::new(&[]);
    assert!(refusal("ahci-hd", &empty.with("")).contains("smaller than one sector"));
    let message = refusal("ahci-hd", &image().with(",fast"));
    assert!(
        message.ends_with("unknown option pci.0.3.0.port.0.fast"),
        "{message}"
    );
}

#[test]
fn the_pin_is_up_while_the_driver_has_something_to_see() {
    let image = image();
    let m = Machine::new("ahci-hd", &image.with(""));
    m.command(flush(), &[]);
    assert_eq!((m.port(0, 0x10), m.read(IS), m.pin()), (D2H, 0, false));
    m.set_port(0, 0x14, D2H);
    assert_eq!((m.read(IS), m.pin()), (1, false), "GHC.IE is off");
    m.write(GHC, 2);
    assert!(m.pin());
    // The global bit comes again as long as the port's is set.
    m.write(IS, 1);
    assert_eq!((m.read(IS), m.pin()), (1, true));
    m.set_port(0, 0x10, D2H);
    assert!(m.pin());
    m.write(IS, 1);
    assert_eq!((m.read(IS), m.pin()), (0, false));
    m.command(flush(), &[]);
    m.wait_for("interrupt", || m.pin());
    m.write(GHC, 0);
    assert!(!m.pin());
    m.write(GHC, 2);
    assert!(m.pin());
    m.write(GHC, 1);
    assert_eq!(
        (m.read(GHC), m.read(IS), m.pin()),
        (1 << 31, 0, false),
        "reset"
    );
}

#[test]
fn messages_are_each_ports_own_or_shared() {
    let (a, b) = (image(), image());
    let options = format!("hd:{},hd:{}", a.with(""), b.with(""));
    let flush_on = |m: &Machine, port: u64| {
        m.prepare(0, &flush().bytes(), &[], &[]);
        m.set_port(port, 0x38, 1);
        m.wait_for("end", || m.port(port, 0x38) == 0);
    };
    let m = Machine::try_new("ahci", &options).unwrap();
    for port in [0, 1] {
        m.start(port);
        m.set_port(port, 0x14, D2H);
    }
    m.write(GHC, 2);
    m.enable_msi(3);
    flush_on(&m, 1);
    m.wait_for("message", || m.messages() == [1]);
    m.set_port(1, 0x10, D2H);
    flush_on(&m, 0);
    m.wait_for("message", || m.messages() == [0]);
    // One for all: told once until the driver clears the port's bit in IS, and then again.
    m.enable_msi(0);
    m.set_port(0, 0x10, D2H);
    m.write(IS, u32::MAX);
    m.messages();
    flush_on(&m, 1);
    m.wait_for("message", || m.messages() == [0]);
    m.set_port(1, 0x10, D2H);
    flush_on(&m, 1);
    m.wait_for("interrupt bit", || m.port(1, 0x10) == D2H);
    assert_eq!(m.messages(), []);
    m.write(IS, 2);
    assert_eq!(m.messages(), [0]);
    assert!(!m.pin());
}

#[test]
fn comreset_brings_the_device_back() {
    let image = image();
    let m = Machine::new("ahci-hd", &image.with(""));
    m.command(Fis::new(code::SET_FEATURES, 0, 0x42).features(3), &[]);
    m.set_port(0, 0x2c, 1);
    assert_eq!(m.port(0, 0x28), 0x133, "not while the command list runs");
    m.stop(0);
    m.set_port(0, 0x2c, 0x301);
    assert_eq!([m.port(0, 0x28), m.port(0, 0x20)], [0, 0x7f]);
    m.memory.write(Gpa(RFIS + 0x40), 0_u32).unwrap();
    m.set_port(0, 0x2c, 0x310);
    assert_eq!(m.port(0, 0x28), 0x113, "1.5 Gbit/s");
    assert_eq!([m.port(0, 0x24), m.port(0, 0x20)], [0x101, 0x150]);
    let fis = m.bytes(Gpa(RFIS + 0x40), 20);
    assert_eq!(fis[..5], [0x34, 0, 0x50, 1, 1]);
    assert_eq!(m.port(0, 0x10) & D2H, D2H, "of the command before");
    m.restart();
    let words = m.identify(code::IDENTIFY_DEVICE);
    assert_eq!([words[77] & 0xe, words[88]], [1 << 1, 0x407f]);
    // Switched off.
    m.stop(0);
    m.set_port(0, 0x2c, 4);
    assert_eq!(m.port(0, 0x28), 4);
    m.set_port(0, 0x2c, 0);
    assert_eq!(m.port(0, 0x28), 0x133);
}

#[test]
fn a_software_reset_takes_two_fises() {
    let image = image();
    let m = Machine::new("ahci-cd", &image.with(""));
    let control = |srst: u8| {
        let mut fis = [0; 20];
        fis[0] = 0x27;
        fis[15] = srst;
        m.prepare(0, &fis, &[], &[]);
        m.issue(0, false);
        m.finish(1);
    };
    m.command(Fis::new(code::CHECK_POWER_MODE, 0, 0), &[]);
    control(0);
    assert_eq!(m.port(0, 0x20), OK, "nothing without its first half");
    control(4);
    control(0);
    m.wait_for("signature", || m.port(0, 0x20) == 0x110);
    let fis = m.bytes(Gpa(RFIS + 0x40), 20);
    assert_eq!(
        [fis[0], fis[3], fis[4], fis[5], fis[6], fis[12]],
        [0x34, 1, 1, 0x14, 0xeb, 1]
    );
    assert!(m.scsi(&[0], 0).is_ok());
}

#[test]
fn stopping_drops_what_was_not_begun() {
    let image = image();
    let m = Machine::new("ahci-hd", &image.with(""));
    m.set_port(0, 0x18, FRE);
    m.set_port(0, 0x38, 0xff);
    m.set_port(0, 0x34, 0xff);
    assert_eq!(
        [m.port(0, 0x38), m.port(0, 0x34)],
        [0, 0],
        "nothing while it is stopped"
    );
    // Commands begin and end while the list is stopped and started all the time.
    let at = m.room(32 * 512);
    for slot in 0..32 {
        let fis = Fis::new(code::READ_FPDMA_QUEUED, slot.into(), u16::from(slot) << 3).features(1);
        m.prepare(
            slot,
            &fis.bytes(),
            &[],
            &[(Gpa(at.0 + 512 * u64::from(slot)), 512)],
        );
    }
    for _ in 0..200 {
        m.set_port(0, 0x18, FRE | ST);
        m.set_port(0, 0x34, u32::MAX);
        m.set_port(0, 0x38, u32::MAX);
        m.set_port(0, 0x18, FRE);
        assert_eq!([m.port(0, 0x38), m.port(0, 0x34)], [0, 0]);
    }
    m.set_port(0, 0x2c, 1);
    assert_eq!(
        m.port(0, 0x18) & CR,
        0,
        "a reset waits for what is in flight"
    );
    m.set_port(0, 0x2c, 0);
    m.restart();
    assert_eq!(m.command(flush(), &[]), OK);
}

#[test]
fn addresses_outside_of_memory_stop_the_port() {
    let image = image();
    let m = Machine::new("ahci-hd", &image.with(""));
    let read = Fis::new(code::READ_DMA_EXT, 0, 1);
    for gpa in [MEMORY as u64 - 511, 1 << 40, u64::MAX - 5] {
        m.prepare(0, &read.bytes(), &[], &[(Gpa(gpa), 512)]);
        m.issue(0, false);
        m.finish(1);
        assert_eq!(m.port(0, 0x10) & BUS_FATAL, BUS_FATAL, "data at {gpa:#x}");
        m.restart();
    }
    // The table's address, and then that of the list.
    m.prepare(0, &read.bytes(), &[], &[]);
    m.memory.write(Gpa(LIST + 8), u64::MAX).unwrap();
    m.issue(0, false);
    m.wait_for("bus error", || m.port(0, 0x10) & BUS_FATAL != 0);
    m.stop(0);
    m.set_port(0, 0x10, u32::MAX);
    m.set_port(0, 0x04, u32::MAX);
    m.set_port(0, 0x18, FRE | ST);
    m.issue(0, false);
    m.wait_for("bus error", || m.port(0, 0x10) & BUS_FATAL != 0);
    m.stop(0);
    m.set_port(0, 0x10, u32::MAX);
    // That of the received FISes.
    m.start(0);
    m.set_port(0, 0x0c, 1);
    m.prepare(0, &flush().bytes(), &[], &[]);
    m.issue(0, false);
    m.wait_for("bus error", || m.port(0, 0x10) & BUS_FATAL != 0);
    m.stop(0);
    m.start(0);
    m.set_port(0, 0x10, u32::MAX);
    assert_eq!(m.command(flush(), &[]), OK);
    // What is no FIS of a host.
    let mut fis = flush().bytes();
    fis[0] = 0x46;
    m.prepare(0, &fis, &[], &[]);
    m.issue(0, false);
    m.wait_for("interface error", || m.port(0, 0x10) & INTERFACE_FATAL != 0);
    m.restart();
    assert_eq!(m.command(flush(), &[]), OK);
}
