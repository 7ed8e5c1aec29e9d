//! The 256 bytes of configuration space of a function (PCI Local Bus 3.0, chapter 6.1): a
//! type 0 header, then capabilities, linked and each on a double word. Every bit either
//! takes what software writes or doesn't; BARs are no exception, as their sizes are
//! found by just that (6.2.5.1).

#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;

use super::bar::{BARS, BarKind, BarRange, BarSpec};
use super::device::FunctionSpec;
use super::{msi, msix};

pub const SIZE: usize = 256;

// Header registers.
const VENDOR: usize = 0x00;
const DEVICE: usize = 0x02;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CACHE_LINE: usize = 0x0c;
const HEADER_TYPE: usize = 0x0e;
const BAR0: usize = 0x10;
const SUBSYSTEM_VENDOR: usize = 0x2c;
const SUBSYSTEM: usize = 0x2e;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
/// Where capabilities begin.
pub const HEADER_LEN: usize = 0x40;

const COMMAND_IO: u16 = 1 << 0;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_PARITY: u16 = 1 << 6;
const COMMAND_SERR: u16 = 1 << 8;
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
const COMMAND_WRITABLE: u16 = COMMAND_IO
    | COMMAND_MEMORY
    | COMMAND_BUS_MASTER
    | COMMAND_PARITY
    | COMMAND_SERR
    | COMMAND_INTX_DISABLE;
const STATUS_INTERRUPT: u8 = 1 << 3;
const STATUS_CAPABILITIES: u8 = 1 << 4;
const MULTI_FUNCTION: u8 = 1 << 7;
/// No interrupt is connected (6.2.4).
const NO_INTERRUPT_LINE: u8 = 255;

/// Whose registers a capability has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CapabilityKind {
    Msix,
    Msi,
    /// The device's, by its index there.
    Device(usize),
}

#[derive(Clone, Debug)]
struct Placed {
    kind: CapabilityKind,
    /// Behind ID and next pointer.
    contents: Range<usize>,
}

/// A function describes itself in a way that no configuration space can show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpecError {
    /// There is no such BAR, it is taken, or its size is not possible.
    Bar(usize),
    /// The capabilities don't fit.
    Capabilities,
    /// The number of MSI messages or MSI-X vectors.
    Messages,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bar(index) => write!(f, "BAR {index} can't be as it is described"),
            Self::Capabilities => f.write_str("its capabilities don't fit"),
            Self::Messages => f.write_str("it has an impossible number of messages"),
        }
    }
}

/// The bytes.
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    capabilities: Vec<Placed>,
    /// With rounded sizes.
    bars: [Option<BarSpec>; BARS],
}

impl ConfigSpace {
    /// As it is after reset, with BARs at 0.
    pub fn new(spec: &FunctionSpec) -> Result<Self, SpecError> {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            capabilities: Vec::new(),
            bars: [None; BARS],
        };
        space.fill_header(spec);
        for bar in &spec.bars {
            space.add_bar(*bar)?;
        }
        if let Some(msix) = spec.msix {
            if !(1..=msix::MAX_VECTORS).contains(&msix.vectors) {
                return Err(SpecError::Messages);
            }
            space.add_bar(BarSpec {
                index: msix.bar,
                kind: BarKind::Memory32,
                size: msix::Msix::bar_size(msix.vectors),
            })?;
        }
        space.link_capabilities(spec)?;
        Ok(space)
    }

    pub fn byte(&self, register: usize) -> u8 {
        self.bytes.get(register).copied().unwrap_or(u8::MAX)
    }

    /// A byte from software: its writable bits change.
    pub fn write(&mut self, register: usize, value: u8) {
        if let (Some(old), Some(mask)) = (self.bytes.get_mut(register), self.writable.get(register))
        {
            *old = *old & !mask | value & mask;
        }
    }

    /// A byte from the device, whatever software could write.
    pub fn store(&mut self, register: usize, value: u8) {
        if let Some(old) = self.bytes.get_mut(register) {
            *old = value;
        }
    }

    /// The capability that has this register behind its ID and next pointer, and where its
    /// contents are.
    pub fn capability_at(&self, register: usize) -> Option<(CapabilityKind, Range<usize>)> {
        self.capabilities
            .iter()
            .find(|placed| placed.contents.contains(&register))
            .map(|placed| (placed.kind, placed.contents.clone()))
    }

    /// Whether a register belongs neither to the header nor to a capability.
    pub fn is_device_specific(&self, register: usize) -> bool {
        let in_capability = |placed: &Placed| {
            let end = placed.contents.end.next_multiple_of(4);
            (placed.contents.start - 2..end).contains(&register)
        };
        register >= HEADER_LEN && !self.capabilities.iter().any(in_capability)
    }

    /// The contents of a capability, for the device.
    pub fn contents_mut(&mut self, contents: Range<usize>) -> &mut [u8] {
        self.bytes.get_mut(contents).unwrap_or_default()
    }

    /// The status register's low byte with the level of the interrupt pin.
    pub fn status_low(&self, interrupt: bool) -> u8 {
        self.byte(STATUS) | if interrupt { STATUS_INTERRUPT } else { 0 }
    }

    /// Whether that register is the status register's low byte.
    pub const fn is_status_low(register: usize) -> bool {
        register == STATUS
    }

    /// Whether a write there can change what the function decodes or whether its interrupt
    /// pin is enabled.
    pub const fn changes_decoding(register: usize) -> bool {
        matches!(register, COMMAND..STATUS) || matches!(register, BAR0..0x28)
    }

    pub fn intx_disabled(&self) -> bool {
        self.command() & COMMAND_INTX_DISABLE != 0
    }

    /// What firmware does at start: BARs are decoded, the function may use the bus.
    pub fn enable(&mut self) {
        let mut command = self.command() | COMMAND_BUS_MASTER;
        for bar in self.bars.iter().flatten() {
            command |= match bar.kind {
                BarKind::Io => COMMAND_IO,
                BarKind::Memory32 | BarKind::Memory64 => COMMAND_MEMORY,
            };
        }
        self.put16(COMMAND, command);
    }

    pub fn set_multi_function(&mut self) {
        self.bytes[HEADER_TYPE] |= MULTI_FUNCTION;
    }

    /// `pin` 1 is INTA#.
    pub fn set_interrupt(&mut self, pin: u8, line: u8) {
        self.bytes[INTERRUPT_PIN] = pin;
        self.bytes[INTERRUPT_LINE] = line;
    }

    /// The BARs with their rounded sizes.
    pub fn bars(&self) -> impl Iterator<Item = BarSpec> + '_ {
        self.bars.iter().flatten().copied()
    }

    /// Places a BAR.
    pub fn set_bar(&mut self, bar: BarSpec, address: u64) {
        let [low, high] = [address as u32, (address >> 32) as u32];
        self.put32(BAR0 + 4 * bar.index, low | bar.type_bits());
        if bar.kind == BarKind::Memory64 {
            self.put32(BAR0 + 4 * (bar.index + 1), high);
        }
    }

    /// The addresses that a BAR decodes now. `None` if decoding is off, or if the register
    /// says what its space hasn't got.
    pub fn decoded(&self, bar: BarSpec) -> Option<BarRange> {
        let low = u64::from(self.get32(BAR0 + 4 * bar.index) & !bar.type_bits());
        let command = self.command();
        match bar.kind {
            BarKind::Io if command & COMMAND_IO != 0 => Some(BarRange::Io {
                // The bus has 16 address lines for ports; the upper half is ignored.
                first: low as u16,
                len: bar.size as u16,
            }),
            BarKind::Memory32 if command & COMMAND_MEMORY != 0 => Some(BarRange::Memory {
                first: low,
                len: bar.size,
            }),
            BarKind::Memory64 if command & COMMAND_MEMORY != 0 => {
                let high = u64::from(self.get32(BAR0 + 4 * (bar.index + 1)));
                let first = high << 32 | low;
                first.checked_add(bar.size - 1)?;
                Some(BarRange::Memory {
                    first,
                    len: bar.size,
                })
            }
            BarKind::Io | BarKind::Memory32 | BarKind::Memory64 => None,
        }
    }

    fn fill_header(&mut self, spec: &FunctionSpec) {
        let header = &spec.header;
        self.put16(VENDOR, header.vendor);
        self.put16(DEVICE, header.device);
        self.bytes[REVISION..REVISION + 4].copy_from_slice(&[
            header.revision,
            header.prog_if,
            header.subclass,
            header.class,
        ]);
        self.put16(SUBSYSTEM_VENDOR, header.subsystem_vendor);
        self.put16(SUBSYSTEM, header.subsystem);
        self.bytes[INTERRUPT_LINE] = NO_INTERRUPT_LINE;
        self.writable[COMMAND..COMMAND + 2].copy_from_slice(&COMMAND_WRITABLE.to_le_bytes());
        self.writable[CACHE_LINE] = u8::MAX;
        self.writable[INTERRUPT_LINE] = u8::MAX;
    }

    fn add_bar(&mut self, bar: BarSpec) -> Result<(), SpecError> {
        let error = SpecError::Bar(bar.index);
        let size = bar.rounded().ok_or_else(|| error.clone())?;
        let bar = BarSpec { size, ..bar };
        let registers = match bar.kind {
            BarKind::Io | BarKind::Memory32 => 1,
            BarKind::Memory64 => 2,
        };
        let end = bar.index + registers;
        let taken = self.bars.iter().flatten().any(|other| {
            let other_end = other.index + 1 + usize::from(other.kind == BarKind::Memory64);
            other.index < end && bar.index < other_end
        });
        if end > BARS || taken {
            return Err(error);
        }
        let mask = !(size - 1);
        let at = BAR0 + 4 * bar.index;
        self.writable[at..at + 4].copy_from_slice(&(mask as u32).to_le_bytes());
        if bar.kind == BarKind::Memory64 {
            let high = ((mask >> 32) as u32).to_le_bytes();
            self.writable[at + 4..at + 8].copy_from_slice(&high);
        }
        self.bars[bar.index] = Some(bar);
        self.set_bar(bar, 0);
        Ok(())
    }

    fn link_capabilities(&mut self, spec: &FunctionSpec) -> Result<(), SpecError> {
        let mut next = HEADER_LEN;
        let mut link = CAPABILITIES;
        let mut add = |space: &mut Self, id, kind, len: usize| {
            let contents = next + 2..next + len;
            if contents.end > SIZE {
                return Err(SpecError::Capabilities);
            }
            space.bytes[next] = id;
            space.bytes[link] = next as u8;
            space.bytes[STATUS] |= STATUS_CAPABILITIES;
            link = next + 1;
            next = contents.end.next_multiple_of(4);
            space.capabilities.push(Placed {
                kind,
                contents: contents.clone(),
            });
            Ok(contents)
        };
        if spec.msix.is_some() {
            add(self, msix::ID, CapabilityKind::Msix, msix::LEN)?;
        }
        if let Some(messages) = spec.msi {
            if !messages.is_power_of_two() || messages > msi::MAX_MESSAGES {
                return Err(SpecError::Messages);
            }
            add(self, msi::ID, CapabilityKind::Msi, msi::LEN)?;
        }
        for (index, capability) in spec.capabilities.iter().enumerate() {
            let kind = CapabilityKind::Device(index);
            let contents = add(self, capability.id, kind, capability.contents.len() + 2)?;
            self.bytes[contents.clone()].copy_from_slice(&capability.contents);
            for (register, mask) in contents.zip(&capability.writable) {
                self.writable[register] = *mask;
            }
        }
        Ok(())
    }

    fn command(&self) -> u16 {
        u16::from_le_bytes([self.bytes[COMMAND], self.bytes[COMMAND + 1]])
    }

    fn put16(&mut self, register: usize, value: u16) {
        self.bytes[register..register + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn put32(&mut self, register: usize, value: u32) {
        self.bytes[register..register + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn get32(&self, register: usize) -> u32 {
        let bytes = self.bytes[register..register + 4].iter().rev();
        bytes.fold(0, |value, byte| value << 8 | u32::from(*byte))
    }
}

#[cfg(test)]
mod tests;
