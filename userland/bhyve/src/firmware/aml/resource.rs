//! Resource descriptors (ACPI 6.5, 6.4) and how a device is made of them, where the crate
//! has no form for it.

#![forbid(unsafe_code)]

use acpi_tables::aml::{Device, EISAName, IO, Name, Path, ResourceTemplate};
use acpi_tables::{Aml, AmlSink};

use crate::firmware::SCI;

/// A device with an ID and resources of its own. An EISA ID has seven characters, others are
/// texts (6.1.5).
pub fn device(name: &str, hid: &str, uid: Option<u8>, resources: Vec<&dyn Aml>) -> Vec<u8> {
    let hid: Box<dyn Aml> = match hid.len() {
        7 => Box::new(EISAName::new(hid)),
        _ => Box::new(hid.to_owned()),
    };
    let hid = Name::new("_HID".into(), &*hid);
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
pub fn ports(first: u16, len: u16) -> IO {
    // No device here has more than eight ports.
    IO::new(first, first, 1, len as u8)
}

pub fn bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

/// AML that is encoded already.
pub struct Raw(pub Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// An ISA interrupt, edge-triggered (6.4.2.1: the IRQ descriptor of two bytes, a bit for
/// each interrupt).
pub struct Irq(pub u8);

impl Aml for Irq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        debug_assert!(self.0 < 16 && self.0 != SCI);
        sink.byte(0x22);
        sink.word(1 << (self.0 % 16));
    }
}

/// One of several PCI interrupts: level-triggered, active low, shared (6.4.3.6).
pub struct PciIrqs(pub Vec<u8>);

impl PciIrqs {
    /// Where the first interrupt's double word is in the descriptor.
    pub const FIRST: u8 = 5;
}

impl Aml for PciIrqs {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        const CONSUMER: u8 = 1 << 0;
        const ACTIVE_LOW: u8 = 1 << 2;
        const SHARED: u8 = 1 << 3;
        sink.byte(0x89);
        // Two bytes before the list, which is one of sixteen interrupts at most.
        sink.word(2 + 4 * self.0.len() as u16);
        sink.byte(CONSUMER | ACTIVE_LOW | SHARED);
        sink.byte(self.0.len() as u8);
        for irq in &self.0 {
            sink.dword(u32::from(*irq));
        }
    }
}
