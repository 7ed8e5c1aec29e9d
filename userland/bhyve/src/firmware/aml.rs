//! The DSDT's contents: the machine's devices as AML objects (ACPI 6.5, chapter 20), so that
//! an operating system with ACPI finds what has no bus to be found on. `\_S5` is how it
//! powers off.

#![forbid(unsafe_code)]

use acpi_tables::aml::{
    AddressSpace, Device, EISAName, IO, Memory32Fixed, Name, Package, Path, ResourceTemplate,
    Scope, ZERO,
};
use acpi_tables::{Aml, AmlSink};

use super::SCI;
use super::acpi::{HPET_BASE, HPET_LEN, Hardware};
use crate::devices::serial::{COM_PORTS, PORTS};
use crate::devices::pm;
use crate::pci::access::{PORT, PORTS as CONFIG_PORTS};

/// What the sleep type field takes for soft-off.
const S5_SLEEP_TYPE: u8 = pm::SLP_TYP_S5 as u8;

/// Where the second 8259 is at the first one.
const CASCADE: u8 = 2;

/// The definition block without its header.
pub fn definition_block(hardware: &Hardware) -> Vec<u8> {
    let mut aml = Vec::new();
    Name::new("_S5_".into(), &Package::new(vec![&S5_SLEEP_TYPE, &ZERO])).to_aml_bytes(&mut aml);
    let root = pci_root(hardware);
    Scope::new("_SB_".into(), vec![&Raw(root)]).to_aml_bytes(&mut aml);
    aml
}

/// The host bridge with bus 0: which ports are its own, which ones it hands down; and what
/// is on the bus behind the PCI-ISA bridge.
fn pci_root(hardware: &Hardware) -> Vec<u8> {
    let isa = isa_devices(hardware);
    let isa = match hardware.lpc {
        // _ADR is the slot in the high word, the function in the low one.
        Some(at) => {
            let address = u32::from(at.slot) << 16 | u32::from(at.function);
            bytes(&Device::new(
                "ISA_".into(),
                vec![&Name::new("_ADR".into(), &address), &Raw(isa)],
            ))
        }
        None => isa,
    };
    let config_ports = ports(PORT, CONFIG_PORTS);
    let below = AddressSpace::new_io(0u16, PORT - 1, None);
    let above = AddressSpace::new_io(PORT + CONFIG_PORTS, u16::MAX, None);
    let bus = AddressSpace::new_bus_number(0u16, 0);
    bytes(&Device::new(
        "PC00".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_BBN".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&bus, &config_ports, &below, &above]),
            ),
            &Raw(isa),
        ],
    ))
}

/// What an ISA bus can't be asked about.
fn isa_devices(hardware: &Hardware) -> Vec<u8> {
    let mut aml = Vec::new();
    let pm_timer = ports(pm::PM_TIMER, 4);
    let events = ports(pm::PM1A_EVT, pm::PM1A_EVT_LEN);
    let control = ports(pm::PM1A_CNT, pm::PM1A_CNT_LEN);
    let smi = ports(pm::SMI_CMD, 1);
    let mut board: Vec<&dyn Aml> = vec![&events, &control, &smi];
    if hardware.ioapic.is_some() {
        board.push(&pm_timer);
    }
    aml.extend(device("SIO_", "PNP0C02", None, board));

    for index in &hardware.com_ports {
        let Some((first, irq)) = COM_PORTS.get(*index) else {
            continue;
        };
        let (first, irq) = (ports(*first, PORTS), Irq(*irq));
        let mut resources: Vec<&dyn Aml> = vec![&first];
        if hardware.ioapic.is_some() {
            resources.push(&irq);
        }
        let number = *index as u8 + 1;
        let name = format!("COM{number}");
        aml.extend(device(&name, "PNP0501", Some(number), resources));
    }
    if hardware.ioapic.is_some() {
        let (first, second) = (ports(0x20, 2), ports(0xa0, 2));
        let cascade = Irq(CASCADE);
        aml.extend(device(
            "PIC_",
            "PNP0000",
            None,
            vec![&first, &second, &cascade],
        ));
        aml.extend(device(
            "TIMR",
            "PNP0100",
            None,
            vec![&ports(0x40, 4), &Irq(0)],
        ));
        aml.extend(device(
            "RTC_",
            "PNP0B00",
            None,
            vec![&ports(0x70, 2), &Irq(8)],
        ));
    }
    if hardware.hpet.is_some() {
        let registers = Memory32Fixed::new(true, HPET_BASE, HPET_LEN);
        aml.extend(device("HPET", "PNP0103", Some(0), vec![&registers]));
    }
    aml
}

/// A device with an ID and resources of its own.
fn device(name: &str, hid: &str, uid: Option<u8>, resources: Vec<&dyn Aml>) -> Vec<u8> {
    let hid = Name::new("_HID".into(), &EISAName::new(hid));
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
    let uid = uid.map(|uid| Name::new("_UID".into(), &uid));
    let mut children: Vec<&dyn Aml> = vec![&hid];
    if let Some(uid) = &uid {
        children.push(uid);
    }
    children.push(&crs);
    bytes(&Device::new(Path::new(name), children))
}

/// Fixed ports.
fn ports(first: u16, len: u16) -> IO {
    // No device here has more than eight ports.
    IO::new(first, first, 1, len as u8)
}

fn bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

/// AML that is encoded already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// An ISA interrupt, edge-triggered (6.4.2.1: the IRQ descriptor of two bytes, a bit for
/// each interrupt).
struct Irq(u8);

impl Aml for Irq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        debug_assert!(self.0 < 16 && self.0 != SCI);
        sink.byte(0x22);
        sink.word(1 << (self.0 % 16));
    }
}
