//! The devices that test suites and firmware look for: pc-testdev with its ports, memory and
//! interrupt lines, and QEMU's fw_cfg with its files, which are printed. It ends by the debug
//! exit port, so that the host sees a code of its own.

#![no_std]
#![no_main]

use kit::{Boot, cpu, println};

kit::main!(testdev);

const DATA: u16 = 0xe0;
const IRQ: u16 = 0x2000;
const DEBUG_EXIT: u16 = 0xf4;
const MEMORY: u64 = 0xff00_0000;

const PIC: u16 = 0x20;
/// OCW3: the next read gives IRR.
const READ_IRR: u8 = 0x0a;

const SELECTOR: u16 = 0x510;
const FILE_DIRECTORY: u16 = 0x19;

fn testdev(_: Boot) {
    ports();
    memory();
    lines();
    fw_cfg();
    println!("ends with code 43");
    cpu::outl(DEBUG_EXIT, 21);
    panic!("it goes on after the debug exit");
}

fn ports() {
    cpu::outl(DATA, 0x1234_5678);
    cpu::outb(DATA + 1, 0xab);
    assert!(cpu::inl(DATA) == 0x1234_ab78 && cpu::inw(DATA + 2) == 0x1234);
}

fn memory() {
    let at = (MEMORY + 0x8000) as *mut u64;
    // SAFETY: the device's registers, which nothing else uses; they are mapped one to one.
    unsafe {
        at.write_volatile(0x0102_0304_0506_0708);
        at.cast::<u16>().write_volatile(0xeeff);
        assert!(at.read_volatile() == 0x0102_0304_0506_eeff);
    }
}

/// Line 5, as the first 8259 sees it.
fn lines() {
    for (port, value) in [
        (PIC, 0x11),
        (PIC + 1, 0x20),
        (PIC + 1, 4),
        (PIC + 1, 1),
        (PIC + 1, 0xff),
    ] {
        cpu::outb(port, value);
    }
    cpu::outb(PIC, READ_IRR);
    assert!(cpu::inb(PIC) & 1 << 5 == 0, "a request that nobody made");
    cpu::outb(IRQ + 5, 1);
    assert!(cpu::inb(PIC) & 1 << 5 != 0, "no request of line 5");
    cpu::outb(IRQ + 5, 0);
}

fn fw_cfg() {
    let mut signature = [0; 4];
    read(0, &mut signature);
    assert!(&signature == b"QEMU", "{signature:?}");
    let mut count = [0; 4];
    read(FILE_DIRECTORY, &mut count);
    for n in 0..u32::from_be_bytes(count) {
        select(FILE_DIRECTORY);
        let mut entry = [0; 64];
        for _ in 0..4 + 64 * n {
            cpu::inb(SELECTOR + 1);
        }
        entry.fill_with(|| cpu::inb(SELECTOR + 1));
        let [s0, s1, s2, s3, n0, n1, _, _, name @ ..] = entry;
        let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
        let end = name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(name.len());
        let mut contents = [0; 64];
        let contents = &mut contents[..size.min(64)];
        read(u16::from_be_bytes([n0, n1]), contents);
        println!(
            "{}: {:?}",
            core::str::from_utf8(&name[..end]).unwrap_or("?"),
            core::str::from_utf8(contents).unwrap_or("?")
        );
    }
}

fn select(item: u16) {
    cpu::outw(SELECTOR, item);
}

fn read(item: u16, to: &mut [u8]) {
    select(item);
    to.fill_with(|| cpu::inb(SELECTOR + 1));
}
