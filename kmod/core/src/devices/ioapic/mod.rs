//! The I/O APIC (Intel 290566, 82093AA): 32 inputs, each of which becomes a message to the
//! local APICs as its redirection entry says. As FreeBSD's it calls itself version 0x11, so
//! there is no EOI register: a local APIC's EOI broadcast ends a level-triggered interrupt.
//!
//! Polarity is ignored, as in bhyve: a line that is held is active.

use super::line::Line;
use super::{ApicMessage, DeliveryMode, Destination, Drive, Trigger, Wires};
use crate::types::Vector;

/// How many inputs there are (VM_IOAPIC_PINCOUNT).
pub const PINS: usize = 32;

/// One of the inputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pin(u8);

impl Pin {
    /// The 8259s' INTR: virtual wire mode by way of the I/O APIC (MP specification, 3.6.2).
    pub const EXTINT: Self = Self(0);
    /// The 8254's OUT0.
    pub const PIT: Self = Self(2);
    /// The RTC's IRQ.
    pub const RTC: Self = Self(8);

    /// From userland's or a register's number.
    pub fn from_raw(raw: i32) -> Option<Self> {
        let pin = u8::try_from(raw).ok()?;
        (usize::from(pin) < PINS).then_some(Self(pin))
    }
}

/// The I/O APIC.
pub struct Ioapic {
    /// IOAPICID as it is read: the id in the upper bits.
    id: u32,
    /// IOREGSEL.
    select: u8,
    inputs: [Input; PINS],
}

#[derive(Clone, Copy)]
struct Input {
    line: Line,
    entry: Entry,
}

impl Ioapic {
    /// After reset: every input masked, nobody holds a line.
    pub const fn new() -> Self {
        Self {
            id: 0,
            select: 0,
            inputs: [Input {
                line: Line::LOW,
                entry: Entry(Entry::MASKED),
            }; PINS],
        }
    }

    /// A load from the register page. Only aligned words of IOREGSEL and IOWIN answer.
    pub fn read(&self, offset: u64, bytes: u8) -> u32 {
        match (offset, bytes) {
            (IOREGSEL, 4) => self.select.into(),
            (IOWIN, 4) => self.register(),
            _ => 0,
        }
    }

    /// A store to the register page.
    pub fn write(&mut self, offset: u64, bytes: u8, value: u32, wires: &mut dyn Wires) {
        match (offset, bytes) {
            (IOREGSEL, 4) => self.select = value as u8,
            (IOWIN, 4) => self.set_register(value, wires),
            _ => {}
        }
    }

    /// A device drives an input.
    pub fn drive(&mut self, pin: Pin, drive: Drive, wires: &mut dyn Wires) {
        let input = &mut self.inputs[usize::from(pin.0)];
        if input.line.drive(drive) {
            input.deliver(wires);
        }
    }

    /// A local APIC's EOI of a level-triggered interrupt (3.2.4, Remote IRR): inputs with
    /// that vector may interrupt again, and those that are still held do.
    pub fn eoi(&mut self, vector: Vector, wires: &mut dyn Wires) {
        for input in &mut self.inputs {
            if input.entry.has(Entry::REMOTE_IRR) && input.entry.vector() == vector {
                input.entry.clear(Entry::REMOTE_IRR);
                if input.line.is_high() {
                    input.deliver(wires);
                }
            }
        }
    }

    fn register(&self) -> u32 {
        match self.select {
            IOAPICID | IOAPICARB => self.id,
            IOAPICVER => (PINS as u32 - 1) << 16 | VERSION,
            select => match entry_of(select) {
                Some((pin, High(false))) => self.inputs[pin].entry.0 as u32,
                Some((pin, High(true))) => (self.inputs[pin].entry.0 >> 32) as u32,
                None => 0,
            },
        }
    }

    fn set_register(&mut self, value: u32, wires: &mut dyn Wires) {
        match self.select {
            IOAPICID => self.id = value & ID_MASK,
            IOAPICVER | IOAPICARB => {}
            select => {
                if let Some((pin, high)) = entry_of(select) {
                    let input = &mut self.inputs[pin];
                    input.entry.write(value, high);
                    if input.entry.is_level() && input.line.is_high() {
                        input.deliver(wires);
                    }
                }
            }
        }
    }
}

impl Input {
    /// Sends the input's message unless it is masked or, for a level, was sent already.
    fn deliver(&mut self, wires: &mut dyn Wires) {
        let entry = self.entry;
        if entry.has(Entry::MASKED) || entry.is_level() && entry.has(Entry::REMOTE_IRR) {
            return;
        }
        let Some(message) = entry.message() else {
            return;
        };
        if entry.is_level() {
            self.entry.0 |= Entry::REMOTE_IRR;
        }
        wires.message(message);
    }
}

/// A redirection table entry (3.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry(u64);

impl Entry {
    const LOGICAL: u64 = 1 << 11;
    const DELIVERY_STATUS: u64 = 1 << 12;
    const REMOTE_IRR: u64 = 1 << 14;
    const LEVEL: u64 = 1 << 15;
    const MASKED: u64 = 1 << 16;
    const READ_ONLY: u64 = Self::DELIVERY_STATUS | Self::REMOTE_IRR;
    /// What holds bits: up to the mask, the destination, and below it bits 14:8 of the
    /// 15-bit destination ids that bhyve's and KVM's guests may use.
    const IMPLEMENTED: u64 = 0xfffe_0000_0001_ffff;

    const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    fn clear(&mut self, bits: u64) {
        self.0 &= !bits;
    }

    const fn vector(self) -> Vector {
        Vector(self.0 as u8)
    }

    const fn mode(self) -> Option<DeliveryMode> {
        DeliveryMode::from_bits((self.0 >> 8) as u8)
    }

    /// The modes that have no vector are edge-triggered whatever the trigger bit says.
    const fn is_level(self) -> bool {
        self.has(Self::LEVEL)
            && matches!(
                self.mode(),
                Some(DeliveryMode::Fixed | DeliveryMode::LowestPriority)
            )
    }

    fn write(&mut self, value: u32, High(high): High) {
        let shift = if high { 32 } else { 0 };
        let written = u64::from(u32::MAX) << shift & Self::IMPLEMENTED & !Self::READ_ONLY;
        self.0 = self.0 & !written | u64::from(value) << shift & written;
        // Systems without the EOI register end an interrupt by making its input
        // edge-triggered for a moment.
        if !self.has(Self::LEVEL) {
            self.clear(Self::REMOTE_IRR);
        }
    }

    fn message(self) -> Option<ApicMessage> {
        let extended = (self.0 >> 49 & 0x7f) as u32;
        let id = extended << 8 | (self.0 >> 56) as u32;
        Some(ApicMessage {
            destination: if self.has(Self::LOGICAL) {
                Destination::Logical { id, wide: false }
            } else {
                Destination::Physical { id, wide: false }
            },
            mode: self.mode()?,
            vector: self.vector(),
            trigger: if self.is_level() {
                Trigger::Level
            } else {
                Trigger::Edge
            },
        })
    }
}

// Offsets in the page, register numbers, and the version register (3.1, 3.2).
const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const IOAPICID: u8 = 0;
const IOAPICVER: u8 = 1;
const IOAPICARB: u8 = 2;
const IOREDTBL: u8 = 0x10;
const VERSION: u32 = 0x11;
/// The datasheet's id has 4 bits; bhyve's has 8.
const ID_MASK: u32 = 0xff00_0000;

/// Whether a register is the upper half of its entry.
struct High(bool);

/// Which input's entry a register belongs to.
fn entry_of(select: u8) -> Option<(usize, High)> {
    let index = usize::from(select.checked_sub(IOREDTBL)?);
    (index < 2 * PINS).then_some((index / 2, High(index % 2 == 1)))
}

#[cfg(test)]
mod tests;
