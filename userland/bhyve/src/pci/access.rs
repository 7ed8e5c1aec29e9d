//! How software gets at configuration space: mechanism #1 (PCI Local Bus 3.0, 3.2.2.3.2)
//! with the address register at port 0xCF8 and the data window at 0xCFC, and the enhanced
//! mechanism (PCI Express Base 3.0, 7.2.2), which maps all of it to memory. Byte 0xCF9
//! inside the address register is the reset control register of the south bridge.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmmapi::{Gpa, SuspendHow};

use super::bus::PciBus;
use super::decode::pieces;
use super::device::Bdf;
use crate::devices::Suspend;
use crate::mmio::MmioDevice;
use crate::ports::{PortDevice, Width};

/// Address register, reset control and data window.
pub const PORT: u16 = 0xcf8;
pub const PORTS: u16 = 8;
/// The reset control register.
pub const RESET_PORT: u16 = PORT + RESET_CONTROL;

/// Where the enhanced mechanism is: 1 MiB for each of 256 buses.
pub const ECAM_BASE: Gpa = Gpa(0xe000_0000);
pub const ECAM_SIZE: u64 = 256 << 20;

const RESET_CONTROL: u16 = 1;
const DATA: u16 = 4;
const ADDRESS_ENABLE: u32 = 1 << 31;
/// Reserved bits and the two lowest read as zero.
const ADDRESS_MASK: u32 = 0x80ff_fffc;
const RESET_CPU: u8 = 1 << 2;

#[derive(Default)]
struct Registers {
    address: u32,
    reset_control: u8,
}

/// Mechanism #1.
pub struct ConfigPorts {
    bus: Arc<PciBus>,
    registers: Mutex<Registers>,
    suspend: Suspend,
}

impl ConfigPorts {
    pub fn new(bus: Arc<PciBus>, suspend: Suspend) -> Self {
        Self {
            bus,
            registers: Mutex::default(),
            suspend,
        }
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The function and register that an access of the data window is for.
    fn selected(&self, offset: u16) -> Option<(Bdf, u16)> {
        let address = self.registers().address;
        if address & ADDRESS_ENABLE == 0 {
            return None;
        }
        let at = Bdf {
            bus: (address >> 16) as u8,
            slot: (address >> 11) as u8 & 31,
            function: (address >> 8) as u8 & 7,
        };
        Some((at, (address & 0xfc) as u16 + (offset - DATA)))
    }
}

impl PortDevice for ConfigPorts {
    fn widest(&self) -> Width {
        Width::Dword
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        match (offset, width) {
            (0, Width::Dword) => self.registers().address,
            (RESET_CONTROL, Width::Byte) => self.registers().reset_control.into(),
            (DATA.., _) => match self.selected(offset) {
                Some((at, register)) => self.bus.read(at, register, width),
                None => width.mask(),
            },
            // The address register exists for whole double words only.
            _ => width.mask(),
        }
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        match (offset, width) {
            (0, Width::Dword) => self.registers().address = value & ADDRESS_MASK,
            (RESET_CONTROL, Width::Byte) => {
                self.registers().reset_control = value as u8;
                if value as u8 & RESET_CPU != 0 {
                    (self.suspend)(SuspendHow::Reset);
                }
            }
            (DATA.., _) => {
                if let Some((at, register)) = self.selected(offset) {
                    self.bus.write(at, register, width, value);
                }
            }
            _ => {}
        }
    }
}

/// The enhanced mechanism.
pub struct Ecam(pub Arc<PciBus>);

/// The function and register of an offset in the ECAM.
fn ecam_address(offset: u64) -> (Bdf, u16) {
    let at = Bdf {
        bus: (offset >> 20) as u8,
        slot: (offset >> 15) as u8 & 31,
        function: (offset >> 12) as u8 & 7,
    };
    (at, (offset & 0xfff) as u16)
}

impl MmioDevice for Ecam {
    fn read(&self, offset: u64, size: u8) -> u64 {
        pieces(size).fold(0, |value, (n, width)| {
            let (at, register) = ecam_address(offset + u64::from(n));
            let piece = self.0.read(at, register, width) & width.mask();
            value | u64::from(piece) << (8 * n)
        })
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        for (n, width) in pieces(size) {
            let (at, register) = ecam_address(offset + u64::from(n));
            self.0.write(at, register, width, (value >> (8 * n)) as u32);
        }
    }
}
