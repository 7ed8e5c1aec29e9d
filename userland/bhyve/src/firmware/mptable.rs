//! The MP table (mptable_build() of bhyve, step (13)), which tells an operating system
//! without ACPI of its processors and of the way of its interrupts: MultiProcessor
//! Specification 1.4, chapter 4. The floating pointer is at 0xF0000, where the search for it
//! begins; the configuration table is behind the other tables, where it has room.

#![forbid(unsafe_code)]

use vmmapi::Vm;

use super::ioapic::IoApic;
use super::{
    Description, FirmwareError, IO_APIC, LOCAL_APIC, MP_CONFIGURATION, MP_POINTER, SCI, TIMER_PIN,
};
use crate::pci::bus::IntxWire;

const NAME: &str = "MP table";
/// Version 1.4.
const SPEC_REVISION: u8 = 4;
const POINTER_LEN: usize = 16;
const HEADER_LEN: usize = 44;

/// The types of entries (4.3), in the order in which they must come.
mod entry {
    pub const PROCESSOR: u8 = 0;
    pub const BUS: u8 = 1;
    pub const IO_APIC: u8 = 2;
    pub const IO_INTERRUPT: u8 = 3;
    pub const LOCAL_INTERRUPT: u8 = 4;
}

const CPU_ENABLED: u8 = 1 << 0;
const CPU_BOOT: u8 = 1 << 1;
/// What the version register of the kernel's local APICs says.
const LOCAL_APIC_VERSION: u8 = 0x10;
/// Family 6, model 10, stepping 5: any processor that is newer than this table. The guest
/// has CPUID for the truth.
const CPU_SIGNATURE: u32 = 0x6a5;
/// The bits that the specification names (table 4-6), all of which a processor with VT-x
/// has: FPU, MCE, CX8 and APIC.
const CPU_FEATURES: u32 = 1 << 0 | 1 << 7 | 1 << 8 | 1 << 9;

const IO_APIC_ID: u8 = 0;
const IO_APIC_VERSION: u8 = 0x11;
const IO_APIC_ENABLED: u8 = 1;

const PCI_BUS: u8 = 0;
const ISA_BUS: u8 = 1;

/// Types of interrupts (4.3.4).
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
/// Polarity and trigger mode as the bus has them.
const CONFORMING: u16 = 0;
const ACTIVE_LOW_LEVEL: u16 = 0b11 | 0b11 << 2;
const ALL_LOCAL_APICS: u8 = 0xff;

/// Builds the table, if there is an I/O APIC to speak of.
pub fn mptable_build(vm: &Vm, machine: &Description<'_>) -> Result<(), FirmwareError> {
    let Some(ioapic) = machine.ioapic else {
        return Ok(());
    };
    let mut buses = machine.pci.buses().iter();
    if let Some(bus) = buses.find(|bus| bus.number != PCI_BUS) {
        return Err(FirmwareError::PciBus(bus.number));
    }
    let cpus = super::cpu_count(NAME, machine.cpus)?;
    let configuration = configuration(cpus, ioapic, machine.pci.intx_wires());
    super::install(vm, NAME, MP_CONFIGURATION, &configuration)?;
    super::install(vm, NAME, MP_POINTER, &floating_pointer())
}

/// 4.1.
fn floating_pointer() -> Vec<u8> {
    let mut bytes = b"_MP_".to_vec();
    bytes.extend((MP_CONFIGURATION.start as u32).to_le_bytes());
    // Its length in units of 16 bytes, the revision, and a place for the checksum.
    bytes.extend([(POINTER_LEN / 16) as u8, SPEC_REVISION, 0]);
    // No default configuration, and virtual wire mode instead of an IMCR.
    bytes.extend([0; 5]);
    bytes[10] = super::checksum(&bytes);
    bytes
}

/// The configuration table with its checksum.
fn configuration(cpus: u8, ioapic: IoApic, intx: &[IntxWire]) -> Vec<u8> {
    let entries = entries(cpus, ioapic, intx);
    let mut table = header(&entries);
    table.extend(entries.concat());
    table[7] = super::checksum(&table);
    table
}

/// 4.2, without its checksum.
fn header(entries: &[Vec<u8>]) -> Vec<u8> {
    let len = HEADER_LEN + entries.iter().map(Vec::len).sum::<usize>();
    let mut bytes = b"PCMP".to_vec();
    bytes.extend((len as u16).to_le_bytes());
    bytes.extend([SPEC_REVISION, 0]);
    bytes.extend(b"BHyVe   Hypervisor  ");
    // There is no OEM table.
    bytes.extend([0; 6]);
    bytes.extend((entries.len() as u16).to_le_bytes());
    bytes.extend(LOCAL_APIC.to_le_bytes());
    // Nor an extended one.
    bytes.extend([0; 4]);
    bytes
}

fn entries(cpus: u8, ioapic: IoApic, intx: &[IntxWire]) -> Vec<Vec<u8>> {
    let mut entries: Vec<_> = (0..cpus).map(processor).collect();
    entries.push(bus(PCI_BUS, b"PCI   "));
    entries.push(bus(ISA_BUS, b"ISA   "));
    entries.push(io_apic());
    entries.extend((0..ioapic.isa_pins()).map(isa_interrupt));
    entries.extend(intx.iter().filter_map(pci_interrupt));
    // The 8259s at LINT0, NMI at LINT1 of every processor.
    for (lint, kind) in [(0, EXT_INT), (1, NMI)] {
        let source = (ISA_BUS, 0);
        let to = (ALL_LOCAL_APICS, lint);
        entries.push(interrupt(
            entry::LOCAL_INTERRUPT,
            kind,
            CONFORMING,
            source,
            to,
        ));
    }
    entries
}

/// The vcpu's APIC ID is its number; 0 is the one that boots.
fn processor(id: u8) -> Vec<u8> {
    let boot = if id == 0 { CPU_BOOT } else { 0 };
    let mut bytes = vec![entry::PROCESSOR, id, LOCAL_APIC_VERSION, CPU_ENABLED | boot];
    bytes.extend(CPU_SIGNATURE.to_le_bytes());
    bytes.extend(CPU_FEATURES.to_le_bytes());
    bytes.extend([0; 8]);
    bytes
}

fn bus(id: u8, name: &[u8; 6]) -> Vec<u8> {
    [&[entry::BUS, id][..], name].concat()
}

fn io_apic() -> Vec<u8> {
    let mut bytes = vec![entry::IO_APIC, IO_APIC_ID, IO_APIC_VERSION, IO_APIC_ENABLED];
    bytes.extend(IO_APIC.to_le_bytes());
    bytes
}

/// Pin n takes ISA interrupt n, except that pin 0 is where the 8259s are and the timer
/// (interrupt 0) has pin 2, whose ISA interrupt is the cascade and reaches nobody.
fn isa_interrupt(pin: u8) -> Vec<u8> {
    let (kind, irq) = match pin {
        0 => (EXT_INT, 0),
        TIMER_PIN => (INT, 0),
        pin => (INT, pin),
    };
    let flags = match pin {
        SCI => ACTIVE_LOW_LEVEL,
        _ => CONFORMING,
    };
    interrupt(
        entry::IO_INTERRUPT,
        kind,
        flags,
        (ISA_BUS, irq),
        (IO_APIC_ID, pin),
    )
}

/// A slot's pin at the I/O APIC (appendix D.3): bits 2 to 6 are the slot, 0 and 1 the pin.
/// A conforming interrupt of PCI is active low and level-triggered.
fn pci_interrupt(wire: &IntxWire) -> Option<Vec<u8>> {
    let source = (wire.bus, wire.slot << 2 | wire.pin);
    let to = (IO_APIC_ID, wire.route.ioapic_pin?);
    Some(interrupt(entry::IO_INTERRUPT, INT, CONFORMING, source, to))
}

/// From a bus' interrupt to an APIC's input (4.3.4, 4.3.5).
fn interrupt(entry: u8, kind: u8, flags: u16, source: (u8, u8), to: (u8, u8)) -> Vec<u8> {
    let [low, high] = flags.to_le_bytes();
    vec![entry, kind, low, high, source.0, source.1, to.0, to.1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::pirq::Route;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn word(bytes: &[u8], at: usize) -> u16 {
        u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
    }

    fn dword(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn the_pointer_is_whole_and_points_to_the_configuration() {
        let pointer = floating_pointer();
        assert_eq!(&pointer[..4], b"_MP_");
        assert_eq!((pointer.len(), pointer[8]), (16, 1));
        assert_eq!((sum(&pointer), pointer[9], pointer[11]), (0, 4, 0));
        assert_eq!(u64::from(dword(&pointer, 4)), MP_CONFIGURATION.start);
    }

    /// Takes the table apart as an operating system does.
    fn parse(config: &[u8]) -> Vec<&[u8]> {
        assert_eq!(&config[..4], b"PCMP");
        assert_eq!(usize::from(word(config, 4)), config.len());
        assert_eq!(sum(config), 0);
        assert_eq!(dword(config, 36), 0xfee0_0000);
        let mut entries = Vec::new();
        let mut rest = &config[44..];
        while let Some(kind) = rest.first() {
            let (entry, behind) = rest.split_at(if *kind == 0 { 20 } else { 8 });
            entries.push(entry);
            rest = behind;
        }
        assert_eq!(usize::from(word(config, 34)), entries.len());
        assert!(entries.is_sorted_by_key(|entry| entry[0]));
        entries
    }

    #[test]
    fn the_table_reads_back_for_any_number_of_vcpus() {
        for cpus in [1, 2, 4, 255] {
            let table = configuration(cpus, IoApic { pins: 32 }, &[]);
            let entries = parse(&table);
            let of_type = |kind| entries.iter().filter(move |entry| entry[0] == kind);
            let ids: Vec<u8> = of_type(0).map(|entry| entry[1]).collect();
            assert_eq!(ids, (0..cpus).collect::<Vec<_>>());
            let boot: Vec<u8> = of_type(0).filter(|e| e[3] & 2 != 0).map(|e| e[1]).collect();
            assert_eq!(boot, [0], "one processor boots");
            assert!(of_type(0).all(|entry| entry[3] & 1 != 0));
            let counts = [1, 2, 3, 4].map(|kind| of_type(kind).count());
            assert_eq!(counts, [2, 1, 16, 2]);
            assert!(table.len() as u64 <= MP_CONFIGURATION.end - MP_CONFIGURATION.start);
        }
    }

    #[test]
    fn the_timer_is_at_pin_2_and_the_sci_is_level_triggered() {
        let table = configuration(1, IoApic { pins: 24 }, &[]);
        let entries = parse(&table);
        let pin = |pin| {
            let mut at = entries.iter().filter(|e| e[0] == 3 && e[7] == pin);
            let entry = at.next().expect("a pin of the ISA bus");
            assert!(at.next().is_none());
            assert_eq!(
                (entry[4], entry[6]),
                (1, 0),
                "from the ISA bus to I/O APIC 0"
            );
            (entry[1], word(entry, 2), entry[5])
        };
        assert_eq!(pin(0), (3, 0, 0), "ExtINT");
        assert_eq!(pin(2), (0, 0, 0));
        assert_eq!(pin(4), (0, 0, 4));
        assert_eq!(pin(9), (0, 0xf, 9));
    }

    #[test]
    fn an_io_apic_with_few_pins_gets_no_more_interrupts() {
        let table = configuration(1, IoApic { pins: 4 }, &[]);
        assert_eq!(parse(&table).iter().filter(|e| e[0] == 3).count(), 4);
    }

    #[test]
    fn pci_interrupts_are_wired_as_the_bus_says() {
        let wire = |slot, pin, ioapic_pin| IntxWire {
            bus: 0,
            slot,
            pin,
            route: Route {
                pirq: 0,
                ioapic_pin,
            },
        };
        let wires = [
            wire(3, 0, Some(16)),
            wire(31, 3, Some(23)),
            wire(4, 0, None),
        ];
        let table = configuration(1, IoApic { pins: 32 }, &wires);
        let entries = parse(&table);
        let pci: Vec<_> = entries
            .iter()
            .filter(|e| e[0] == 3 && e[4] == 0)
            .map(|e| (e[1], word(e, 2), e[5], e[6], e[7]))
            .collect();
        assert_eq!(pci, [(0, 0, 0x0c, 0, 16), (0, 0, 0x7f, 0, 23)]);
    }
}
