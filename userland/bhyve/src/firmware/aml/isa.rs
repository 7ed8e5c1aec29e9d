//! What is behind the PCI-ISA bridge: devices with fixed ports, and the PCI interrupt
//! router with its link devices (ACPI 6.5, 6.2.13), whose registers are in the bridge's
//! configuration space.

#![forbid(unsafe_code)]

use acpi_tables::Aml;
use acpi_tables::aml::{
    And, Arg, CreateDWordField, Device, EISAName, Field, FieldAccessType, FieldEntry,
    FieldLockRule, FieldUpdateRule, If, LessThan, Method, MethodCall, Name, OpRegion,
    OpRegionSpace, Path, ResourceTemplate, Return, Store, ZERO,
};

use super::resource::{Irq, PciIrqs, Raw, bytes, device, ports};
use crate::devices::serial::{COM_PORTS, PORTS};
use crate::devices::{fwcfg, pm};
use crate::firmware::acpi::Hardware;
use crate::pci::pirq::{PIRQS, permitted_irqs};

/// Where the second 8259 is at the first one.
const CASCADE: u8 = 2;

/// Of a router register: it drives nothing.
const DISABLED: u8 = 0x80;
/// Configuration space of a function that isn't PCI Express'.
const CONFIG_LEN: u16 = 0x100;
/// The registers of PIRQA to PIRQD; those of PIRQE to PIRQH follow four bytes behind them.
const PIRQA: usize = 0x60;
/// Device status (6.3.7): present and decoding; and enabled too.
const STATUS_PRESENT: u8 = 0x09;
const STATUS_ENABLED: u8 = 0x0b;

/// The bridge with all that is behind it; without a bridge the devices alone.
pub fn bridge(hardware: &Hardware) -> Vec<u8> {
    let devices = devices(hardware);
    let Some(at) = hardware.lpc else {
        return devices;
    };
    // _ADR is the slot in the high word, the function in the low one.
    let address = u32::from(at.slot) << 16 | u32::from(at.function);
    let mut children = bytes(&Name::new("_ADR".into(), &address));
    if hardware.ioapic.is_some() {
        children.extend(router(hardware));
    }
    children.extend(devices);
    bytes(&Device::new("ISA_".into(), vec![&Raw(children)]))
}

/// The link device of a router input, as `_PRT` names it.
pub fn link_path(pirq: u8) -> Path {
    Path::new(&format!("\\_SB_.PC00.ISA_.{}", link_name(pirq)))
}

/// "LNKA".
fn link_name(pirq: u8) -> String {
    format!("LNK{}", letter(pirq))
}

/// The field of a router register: "PIRA".
fn register_name(pirq: u8) -> String {
    format!("PIR{}", letter(pirq))
}

fn letter(pirq: u8) -> char {
    char::from(b'A' + pirq % PIRQS)
}

/// The router's registers, what all link devices share, and the link devices of those
/// inputs that something is wired to: the others would be interrupts that nobody has.
fn router(hardware: &Hardware) -> Vec<u8> {
    let mut aml = Vec::new();
    let region = OpRegion::new("LPCR".into(), OpRegionSpace::PCIConfig, &ZERO, &CONFIG_LEN);
    region.to_aml_bytes(&mut aml);
    let registers = |first: u8| {
        (first..first + PIRQS / 2).map(|pirq| {
            let mut name = *b"PIRA";
            name[3] += pirq;
            FieldEntry::Named(name, 8)
        })
    };
    let fields = [FieldEntry::Reserved(8 * PIRQA)]
        .into_iter()
        .chain(registers(0))
        .chain([FieldEntry::Reserved(8 * 4)])
        .chain(registers(PIRQS / 2));
    Field::new(
        "LPCR".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        fields.collect(),
    )
    .to_aml_bytes(&mut aml);
    aml.extend(link_status());
    aml.extend(link_current());
    let wired = |pirq: &u8| hardware.intx.iter().any(|wire| wire.route.pirq == *pirq);
    (0..PIRQS)
        .filter(wired)
        .for_each(|pirq| aml.extend(link(pirq)));
    aml
}

/// `_STA` of the link device whose register holds Arg0.
fn link_status() -> Vec<u8> {
    bytes(&Method::new(
        "LSTA".into(),
        1,
        false,
        vec![
            &If::new(
                &LessThan::new(&Arg(0), &DISABLED),
                vec![&Return::new(&STATUS_ENABLED)],
            ),
            &Return::new(&STATUS_PRESENT),
        ],
    ))
}

/// `_CRS` of the link device whose register holds Arg0: its interrupt, 0 for none.
fn link_current() -> Vec<u8> {
    let buffer = Path::new("LBUF");
    let irq = Path::new("LIRQ");
    let none = PciIrqs(vec![0]);
    bytes(&Method::new(
        "LCRS".into(),
        1,
        true,
        vec![
            &Name::new("LBUF".into(), &ResourceTemplate::new(vec![&none])),
            &CreateDWordField::new(&irq, &buffer, &PciIrqs::FIRST),
            &If::new(
                &LessThan::new(&Arg(0), &DISABLED),
                vec![&And::new(&irq, &Arg(0), &0x0f_u8)],
            ),
            &Return::new(&buffer),
        ],
    ))
}

fn link(pirq: u8) -> Vec<u8> {
    let register = Path::new(&register_name(pirq));
    let possible = (0..16).filter(|irq| permitted_irqs() >> irq & 1 != 0);
    let possible = PciIrqs(possible.collect());
    let irq = Path::new("LIRQ");
    let ask = |method: &'static str| MethodCall::new(method.into(), vec![&register]);
    let method =
        |name: &'static str, args, children| Method::new(name.into(), args, args > 0, children);
    bytes(&Device::new(
        Path::new(&link_name(pirq)),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C0F")),
            &Name::new("_UID".into(), &(pirq + 1)),
            &Name::new("_PRS".into(), &ResourceTemplate::new(vec![&possible])),
            &method("_STA", 0, vec![&Return::new(&ask("LSTA"))]),
            &method("_CRS", 0, vec![&Return::new(&ask("LCRS"))]),
            &method("_DIS", 0, vec![&Store::new(&register, &DISABLED)]),
            &method(
                "_SRS",
                1,
                vec![
                    &CreateDWordField::new(&irq, &Arg(0), &PciIrqs::FIRST),
                    &Store::new(&register, &irq),
                ],
            ),
        ],
    ))
}

/// What an ISA bus can't be asked about.
fn devices(hardware: &Hardware) -> Vec<u8> {
    let mut aml = Vec::new();
    let pm_timer = ports(pm::PM_TIMER, 4);
    let events = ports(pm::PM1A_EVT, pm::PM1A_EVT_LEN);
    let control = ports(pm::PM1A_CNT, pm::PM1A_CNT_LEN);
    let smi = ports(pm::SMI_CMD, 1);
    let mut board: Vec<&dyn Aml> = vec![&events, &control, &smi];
    if hardware.ioapic.is_some() {
        board.push(&pm_timer);
    }
    aml.extend(device("SIO_", "PNP0C02", Some(1), board));
    if hardware.fwcfg {
        let both = ports(fwcfg::PORT, fwcfg::PORTS);
        aml.extend(device("FWCF", fwcfg::ACPI_ID, None, vec![&both]));
    }
    for index in &hardware.com_ports {
        aml.extend(com_port(*index, hardware.ioapic.is_some()));
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
        let timer = ports(0x40, 4);
        aml.extend(device("TIMR", "PNP0100", None, vec![&timer, &Irq(0)]));
        let rtc = ports(0x70, 2);
        aml.extend(device("RTC_", "PNP0B00", None, vec![&rtc, &Irq(8)]));
    }
    aml
}

/// com1 is index 0.
fn com_port(index: usize, interrupts: bool) -> Vec<u8> {
    let Some((first, irq)) = COM_PORTS.get(index) else {
        return Vec::new();
    };
    let (first, irq) = (ports(*first, PORTS), Irq(*irq));
    let mut resources: Vec<&dyn Aml> = vec![&first];
    if interrupts {
        resources.push(&irq);
    }
    let number = index as u8 + 1;
    let name = format!("COM{number}");
    device(&name, "PNP0501", Some(number), resources)
}
