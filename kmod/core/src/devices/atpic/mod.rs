//! The PC's two 8259As (Intel 231468) with the edge/level control registers of the PIIX
//! (ports 0x4d0, 0x4d1). The slave's INT output is the master's IR2; the master's is the
//! pair's INTR.
//!
//! An edge is latched until it is acknowledged, as in FreeBSD, where the datasheet lets the
//! request end with the line: userland's pulses are that short.

mod chip;

use super::{Drive, Trigger};
use crate::types::{Errno, Vector};
use chip::Chip;

/// One of the 16 inputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Irq(u8);

impl Irq {
    /// The 8254's OUT0.
    pub const PIT: Self = Self(0);
    /// The RTC's IRQ.
    pub const RTC: Self = Self(8);

    /// From userland's number.
    pub fn from_raw(raw: i32) -> Option<Self> {
        let irq = u8::try_from(raw).ok()?;
        (irq < 16).then_some(Self(irq))
    }

    const fn chip(self) -> usize {
        self.0 as usize / 8
    }

    const fn input(self) -> u8 {
        self.0 % 8
    }
}

/// A register of the pair, by its port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// A0 = 0: ICW1, OCW2, OCW3; IRR, ISR, poll.
    Command(usize),
    /// A0 = 1: ICW2 to ICW4, OCW1; IMR.
    Data(usize),
    /// ELCR.
    Trigger(usize),
}

impl Register {
    /// The register at a port.
    pub const fn at(port: u16) -> Option<Self> {
        Some(match port {
            0x20 => Self::Command(MASTER),
            0x21 => Self::Data(MASTER),
            0xa0 => Self::Command(SLAVE),
            0xa1 => Self::Data(SLAVE),
            0x4d0 => Self::Trigger(MASTER),
            0x4d1 => Self::Trigger(SLAVE),
            _ => return None,
        })
    }
}

/// The pair.
pub struct Atpic {
    chips: [Chip; 2],
}

const MASTER: usize = 0;
const SLAVE: usize = 1;
/// The master's input that the slave's INT output drives.
const CASCADE: u8 = 2;
/// What can be level-triggered: not the timer, the keyboard and the cascade; not the RTC
/// and the floating-point error.
const ELCR_WRITABLE: [u8; 2] = [0xf8, 0xde];

impl Atpic {
    /// After reset: neither answers before its first initialization.
    pub const fn new() -> Self {
        Self {
            chips: [Chip::new(); 2],
        }
    }

    /// The master's INT output.
    pub fn intr(&self) -> bool {
        self.chips[MASTER].request().is_some()
    }

    /// A device drives an input.
    pub fn drive(&mut self, irq: Irq, drive: Drive) {
        self.chips[irq.chip()].drive(irq.input(), drive);
        self.cascade();
    }

    /// VM_ISA_SET_IRQ_TRIGGER: EINVAL for level on an input that has to be edge-triggered.
    pub fn set_trigger(&mut self, irq: Irq, trigger: Trigger) -> Result<(), Errno> {
        let bit = 1 << irq.input();
        let elcr = self.chips[irq.chip()].elcr();
        let elcr = match trigger {
            Trigger::Edge => elcr & !bit,
            Trigger::Level if ELCR_WRITABLE[irq.chip()] & bit != 0 => elcr | bit,
            Trigger::Level => return Err(Errno::EINVAL),
        };
        self.chips[irq.chip()].set_elcr(elcr);
        self.cascade();
        Ok(())
    }

    /// IN.
    pub fn read(&mut self, register: Register) -> u8 {
        match register {
            Register::Command(n) => {
                let value = self.chips[n].read_command();
                self.cascade();
                value
            }
            Register::Data(n) => {
                let value = self.chips[n].read_data();
                self.cascade();
                value
            }
            Register::Trigger(n) => self.chips[n].elcr(),
        }
    }

    /// OUT.
    pub fn write(&mut self, register: Register, value: u8) {
        match register {
            Register::Command(n) => self.chips[n].write_command(value),
            Register::Data(n) => self.chips[n].write_data(value, n == MASTER),
            Register::Trigger(n) => self.chips[n].set_elcr(value & ELCR_WRITABLE[n]),
        }
        self.cascade();
    }

    /// The CPU's acknowledge cycle: both INTA pulses.
    pub fn acknowledge(&mut self) -> Vector {
        let input = self.chips[MASTER].acknowledge();
        let vector = if input == CASCADE && self.chips[MASTER].has_slave(CASCADE) {
            let input = self.chips[SLAVE].acknowledge();
            self.chips[SLAVE].vector(input)
        } else {
            self.chips[MASTER].vector(input)
        };
        self.cascade();
        vector
    }

    /// The slave's INT output reaches the master's IR2.
    fn cascade(&mut self) {
        let int = self.chips[SLAVE].request().is_some();
        self.chips[MASTER].set_cascade(CASCADE, int);
    }
}

#[cfg(test)]
mod tests;
