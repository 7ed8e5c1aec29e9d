//! The DSDT's contents: the machine's devices as AML objects (ACPI 6.5, chapter 20), so that
//! an operating system with ACPI finds what has no bus to be found on, and learns which
//! addresses and interrupts are PCI's. `\_S5` is how it powers off.
//!
//! Here is what doesn't depend on a bus, and the PCI root buses; [`isa`] has what is behind
//! the PCI-ISA bridge, [`resource`] the descriptors.

#![forbid(unsafe_code)]

mod isa;
mod resource;

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, EISAName, Else, If, Memory32Fixed, Method,
    Name, Package, PackageBuilder, Path, ResourceTemplate, Return, Scope, Store, ZERO,
};

use self::resource::{Raw, bytes, device, ports};
use super::acpi::{HPET_BASE, HPET_LEN, Hardware};
use crate::devices::pm;
use crate::pci::access::{ECAM_BASE, ECAM_SIZE, PORT, PORTS};
use crate::pci::bar::IO_WINDOW;
use crate::pci::bus::{IntxWire, RootBus};

/// What the sleep type field takes for soft-off.
const S5_SLEEP_TYPE: u8 = pm::SLP_TYP_S5 as u8;
/// The bus that the ISA bus is behind.
const LEGACY_BUS: u8 = 0;
/// The interrupt model that `_PIC` has named: 0 for the 8259s, 1 for the I/O APIC.
const PIC_MODE: &str = "PICM";

/// The definition block without its header.
pub fn definition_block(hardware: &Hardware) -> Vec<u8> {
    let mut aml = Vec::new();
    Name::new("_S5_".into(), &Package::new(vec![&S5_SLEEP_TYPE, &ZERO])).to_aml_bytes(&mut aml);
    if hardware.ioapic.is_some() {
        aml.extend(interrupt_model());
    }
    let mut system = ecam();
    if hardware.hpet.is_some() {
        let registers = Memory32Fixed::new(true, HPET_BASE, HPET_LEN);
        system.extend(device("HPET", "PNP0103", Some(0), vec![&registers]));
    }
    for bus in &hardware.buses {
        system.extend(root_bus(hardware, bus));
    }
    // Without any PCI device the ISA bus is alone.
    if !hardware.buses.iter().any(|bus| bus.number == LEGACY_BUS) {
        system.extend(isa::bridge(hardware));
    }
    Scope::new("_SB_".into(), vec![&Raw(system)]).to_aml_bytes(&mut aml);
    aml
}

/// ACPI 6.5, 5.8.1.
fn interrupt_model() -> Vec<u8> {
    let mode = Path::new(PIC_MODE);
    let mut aml = bytes(&Name::new(PIC_MODE.into(), &ZERO));
    Method::new("_PIC".into(), 1, false, vec![&Store::new(&mode, &Arg(0))]).to_aml_bytes(&mut aml);
    aml
}

/// The enhanced configuration access is nobody's to give away (PCI Firmware 3.2, 4.1.2: a
/// motherboard resource directly below the system bus).
fn ecam() -> Vec<u8> {
    let registers = Memory32Fixed::new(true, ECAM_BASE.0 as u32, ECAM_SIZE as u32);
    device("ECAM", "PNP0C02", Some(0), vec![&registers])
}

/// A host bridge: the addresses that it hands down, where its interrupt pins lead, and
/// what is behind it and can't be asked.
fn root_bus(hardware: &Hardware, bus: &RootBus) -> Vec<u8> {
    let name = bus_name(bus.number);
    let number = bus.number;
    let mut children = Vec::new();
    let mut add = |aml: &dyn Aml| aml.to_aml_bytes(&mut children);
    add(&Name::new("_HID".into(), &EISAName::new("PNP0A03")));
    add(&Name::new("_UID".into(), &number));
    add(&Name::new("_BBN".into(), &number));
    add(&Raw(address_windows(bus)));
    if hardware.ioapic.is_some() {
        let wires = hardware.intx.iter().filter(|wire| wire.bus == number);
        let wires: Vec<IntxWire> = wires.copied().collect();
        add(&Raw(routing(&wires, hardware.lpc.is_some())));
    }
    if number == LEGACY_BUS {
        add(&Raw(isa::bridge(hardware)));
    }
    bytes(&Device::new(Path::new(&name), vec![&Raw(children)]))
}

/// "PC00".
fn bus_name(number: u8) -> String {
    format!("PC{number:02X}")
}

/// `_CRS` of a host bridge. The ports below those for BARs belong to the bus that the ISA
/// bus is behind; in their midst the bridge consumes its own.
fn address_windows(bus: &RootBus) -> Vec<u8> {
    let mut list = Vec::new();
    let mut add = |aml: &dyn Aml| aml.to_aml_bytes(&mut list);
    add(&AddressSpace::new_bus_number(
        u16::from(bus.number),
        u16::from(bus.number),
    ));
    if bus.number == LEGACY_BUS {
        let bars = IO_WINDOW.start as u16;
        add(&ports(PORT, PORTS));
        add(&AddressSpace::new_io(0_u16, PORT - 1, None));
        add(&AddressSpace::new_io(PORT + PORTS, bars - 1, None));
    }
    let windows = &bus.windows;
    if let Some((first, last)) = ends(&windows.io) {
        add(&AddressSpace::new_io(first as u16, last as u16, None));
    }
    let cached = AddressSpaceCacheable::NotCacheable;
    if let Some((first, last)) = ends(&windows.memory32) {
        let (first, last) = (first as u32, last as u32);
        add(&AddressSpace::new_memory(cached, true, first, last, None));
    }
    if let Some((first, last)) = ends(&windows.memory64) {
        add(&AddressSpace::new_memory(cached, true, first, last, None));
    }
    let list = Raw(list);
    bytes(&Name::new(
        "_CRS".into(),
        &ResourceTemplate::new(vec![&list]),
    ))
}

/// First and last address, if there are any.
fn ends(window: &std::ops::Range<u64>) -> Option<(u64, u64)> {
    (!window.is_empty()).then(|| (window.start, window.end - 1))
}

/// `_PRT` (6.2.13): with the I/O APIC the wires to its pins, with the 8259s those to the
/// interrupt router, which is part of the PCI-ISA bridge.
fn routing(wires: &[IntxWire], router: bool) -> Vec<u8> {
    let mut apic = PackageBuilder::new();
    let mut pic = PackageBuilder::new();
    for wire in wires {
        // All functions of the slot.
        let address = u32::from(wire.slot) << 16 | 0xffff;
        if let Some(pin) = wire.route.ioapic_pin {
            apic.add_element(&Package::new(vec![&address, &wire.pin, &ZERO, &pin]));
        }
        if router {
            let link = isa::link_path(wire.route.pirq);
            pic.add_element(&Package::new(vec![&address, &wire.pin, &link, &ZERO]));
        }
    }
    let (apic_name, pic_name) = (Path::new("APRT"), Path::new("PPRT"));
    let mut aml = bytes(&Name::new("APRT".into(), &apic));
    Name::new("PPRT".into(), &pic).to_aml_bytes(&mut aml);
    Method::new(
        "_PRT".into(),
        0,
        false,
        vec![
            &If::new(&Path::new(PIC_MODE), vec![&Return::new(&apic_name)]),
            &Else::new(vec![&Return::new(&pic_name)]),
        ],
    )
    .to_aml_bytes(&mut aml);
    aml
}
