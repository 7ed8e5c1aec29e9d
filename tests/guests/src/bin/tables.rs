//! The firmware's tables, found as an operating system finds them: by signature between
//! 0xF0000 and 1 MiB. Every pointer is followed, every checksum checked, and what a table
//! promises is used: ACPI mode is switched on, APICs answer.

#![no_std]
#![no_main]

use kit::{Boot, cpu, println};

kit::main!(tables);

const FIRST: usize = 0xf0000;
const END: usize = 0x10_0000;
/// Both pointers lie on such a boundary.
const STEP: usize = 16;
const HEADER: usize = 36;

const LOCAL_APIC_VERSION: usize = 0x30;
const IO_APIC_INDEX: usize = 0;
const IO_APIC_DATA: usize = 0x10;
const IO_APIC_VERSION: u32 = 1;

const SCI_EN: u16 = 1;

/// The first 8259: its command port, and the mask's behind it.
const PIC: u16 = 0x20;
const COM1: u16 = 0x3f8;
const COM1_IRQ: u8 = 4;

fn tables(_: Boot) {
    match find(b"_MP_") {
        Some(at) => mp_table(at),
        None => println!("no MP table"),
    }
    match find(b"RSD PTR ") {
        Some(at) => acpi(at),
        None => println!("no ACPI tables"),
    }
}

fn find(signature: &[u8]) -> Option<usize> {
    (FIRST..END)
        .step_by(STEP)
        .find(|at| matches(*at, signature))
}

fn matches(at: usize, signature: &[u8]) -> bool {
    (at..)
        .zip(signature)
        .all(|(at, byte)| read::<u8>(at) == *byte)
}

/// What is at a physical address, which is also the linear one.
fn read<T: Copy>(at: usize) -> T {
    // SAFETY: boot.s maps the first 4 GiB; any bytes are a value of the integers asked for.
    unsafe { (at as *const T).read_unaligned() }
}

/// A device's register.
fn read_register(at: usize) -> u32 {
    // SAFETY: as above; the tables say that there is a register.
    unsafe { (at as *const u32).read_volatile() }
}

fn write_register(at: usize, value: u32) {
    // SAFETY: as for reading.
    unsafe { (at as *mut u32).write_volatile(value) };
}

fn check_sum(what: &str, at: usize, len: usize) {
    assert!(
        FIRST <= at && at + len <= END,
        "{what} at {at:#x} has {len} bytes: not in the firmware's place"
    );
    let sum = (at..at + len).fold(0_u8, |sum, at| sum.wrapping_add(read(at)));
    assert!(sum == 0, "{what} at {at:#x}: the checksum is off by {sum}");
}

/// MultiProcessor Specification 1.4, chapter 4.
fn mp_table(pointer: usize) {
    check_sum(
        "MP floating pointer",
        pointer,
        usize::from(read::<u8>(pointer + 8)) * 16,
    );
    let config = read::<u32>(pointer + 4) as usize;
    let len = usize::from(read::<u16>(config + 4));
    assert!(matches(config, b"PCMP"), "no MP configuration table");
    check_sum("MP configuration table", config, len);
    let mut counts = [0; 5];
    let mut at = config + 44;
    for _ in 0..read::<u16>(config + 34) {
        let kind = usize::from(read::<u8>(at));
        assert!(kind < counts.len(), "an MP entry of type {kind}");
        counts[kind] += 1;
        if kind == 2 {
            io_apic(read::<u32>(at + 4) as usize);
        }
        at += if kind == 0 { 20 } else { 8 };
    }
    assert!(at == config + len, "MP entries end at {at:#x}");
    local_apic(read::<u32>(config + 36) as usize);
    let [cpus, buses, io_apics, interrupts, local] = counts;
    println!(
        "MP table at {pointer:#x}: {cpus} processors, {buses} buses, {io_apics} I/O APICs, \
         {interrupts} interrupts, {local} local interrupts"
    );
}

/// ACPI 6.5, chapter 5.
fn acpi(rsdp: usize) {
    check_sum("RSDP", rsdp, 20);
    check_sum("RSDP", rsdp, read::<u32>(rsdp + 20) as usize);
    let rsdt = read::<u32>(rsdp + 16) as usize;
    let xsdt = read::<u64>(rsdp + 24) as usize;
    println!("RSD PTR at {rsdp:#x}");
    let count = (table(rsdt, b"RSDT") - HEADER) / 4;
    assert!(
        (table(xsdt, b"XSDT") - HEADER) / 8 == count,
        "RSDT and XSDT differ"
    );
    for n in 0..count {
        let at = read::<u64>(xsdt + HEADER + 8 * n) as usize;
        assert!(
            read::<u32>(rsdt + HEADER + 4 * n) as usize == at,
            "RSDT and XSDT differ in entry {n}"
        );
        match &read::<[u8; 4]>(at) {
            b"FACP" => fadt(at),
            b"APIC" => madt(at),
            signature => {
                table(at, signature);
            }
        }
    }
}

/// Checks and shows a table; returns its length.
fn table(at: usize, signature: &[u8; 4]) -> usize {
    let name = core::str::from_utf8(signature).unwrap_or("?");
    let len = read::<u32>(at + 4) as usize;
    assert!(matches(at, signature), "no {name} at {at:#x}");
    // The FACS alone has none: its contents change.
    if signature != b"FACS" {
        check_sum(name, at, len);
    }
    println!("{name} at {at:#x}, {len} bytes");
    len
}

fn fadt(at: usize) {
    table(at, b"FACP");
    let facs = read::<u32>(at + 36) as usize;
    assert!(facs % 64 == 0, "the FACS is at {facs:#x}");
    table(facs, b"FACS");
    let dsdt = read::<u64>(at + 140) as usize;
    assert!(read::<u32>(at + 40) as usize == dsdt, "two DSDTs");
    let len = table(dsdt, b"DSDT");
    let s5 = (dsdt + HEADER..dsdt + len - 4).any(|at| matches(at, b"\x08_S5_"));
    assert!(s5, "no _S5 in the DSDT");

    let command = read::<u32>(at + 48) as u16;
    let control = read::<u32>(at + 64) as u16;
    assert!(cpu::inw(control) & SCI_EN == 0, "ACPI mode is on already");
    cpu::outb(command, read(at + 52));
    assert!(cpu::inw(control) & SCI_EN != 0, "ACPI mode is still off");
    cpu::outb(command, read(at + 53));
    assert!(cpu::inw(control) & SCI_EN == 0, "ACPI mode is still on");
    let timer = read::<u32>(at + 76) as u16;
    if timer != 0 {
        let start = cpu::inl(timer);
        let moves = (0..1000).any(|_| cpu::inl(timer) != start);
        assert!(moves, "the ACPI timer stands still");
        println!("ACPI timer at {timer:#x}");
    }
}

fn madt(at: usize) {
    let end = at + table(at, b"APIC");
    let (mut cpus, mut overrides) = (0, 0);
    local_apic(read::<u32>(at + 36) as usize);
    let mut entry = at + 44;
    while entry < end {
        match read::<u8>(entry) {
            0 => cpus += 1,
            1 => io_apic(read::<u32>(entry + 4) as usize),
            2 => overrides += 1,
            _ => {}
        }
        entry += usize::from(read::<u8>(entry + 1)).max(1);
    }
    assert!(entry == end, "MADT entries end at {entry:#x}");
    println!("MADT: {cpus} processors, {overrides} overrides");
    if read::<u32>(at + 40) & 1 != 0 {
        com1_interrupt();
    }
}

/// The MADT says that there are 8259s: com1's interrupt must arrive there.
fn com1_interrupt() {
    cpu::outb(PIC, 0x11); // ICW1: edges, cascade, ICW4 follows
    cpu::outb(PIC + 1, 0x20); // ICW2: vectors
    cpu::outb(PIC + 1, 1 << 2); // ICW3: where the second one is
    cpu::outb(PIC + 1, 1); // ICW4: 8086 mode
    cpu::outb(PIC + 1, 0xff); // no interrupt reaches the processor
    cpu::outb(PIC, 0x0a); // OCW3: the request register is read
    let before = cpu::inb(PIC);
    cpu::outb(COM1 + 4, 0b1011); // OUT2, RTS, DTR
    cpu::outb(COM1 + 1, 0b10); // the transmitter is empty
    let after = cpu::inb(PIC);
    cpu::outb(COM1 + 1, 0);
    assert!(
        before & 1 << COM1_IRQ == 0 && after & 1 << COM1_IRQ != 0,
        "com1's interrupt doesn't arrive: {before:#x}, {after:#x}"
    );
    println!("com1 interrupts at IRQ {COM1_IRQ}");
}

fn local_apic(base: usize) {
    let version = read_register(base + LOCAL_APIC_VERSION);
    assert!(
        (0x10..0x16).contains(&(version & 0xff)),
        "the local APIC at {base:#x} says version {version:#x}"
    );
    println!("local APIC at {base:#x}");
}

fn io_apic(base: usize) {
    write_register(base + IO_APIC_INDEX, IO_APIC_VERSION);
    let version = read_register(base + IO_APIC_DATA);
    let pins = (version >> 16 & 0xff) + 1;
    assert!(
        (0x10..0x30).contains(&(version & 0xff)) && pins >= 16,
        "the I/O APIC at {base:#x} says version {version:#x}"
    );
    println!("I/O APIC at {base:#x} with {pins} pins");
}
