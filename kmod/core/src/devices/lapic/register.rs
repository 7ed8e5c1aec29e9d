//! The local APIC's register space (SDM vol. 3A, table 11-1, and table 11-6 for the MSRs of
//! x2APIC mode): which register is at an offset, and who may read and write it.

use super::Lvt;

/// Byte offsets, in the 4 KiB of xAPIC mode as in the virtual-APIC page.
pub const ID: u16 = 0x20;
pub const VERSION: u16 = 0x30;
pub const TPR: u16 = 0x80;
pub const LDR: u16 = 0xd0;
pub const DFR: u16 = 0xe0;
pub const SVR: u16 = 0xf0;
/// The first of 8 registers of 32 vectors each, 16 bytes apart; so TMR and IRR.
pub const ISR: u16 = 0x100;
pub const TMR: u16 = 0x180;
pub const IRR: u16 = 0x200;
pub const ESR: u16 = 0x280;
pub const ICR_LOW: u16 = 0x300;
/// In x2APIC mode the ICR is one register of 64 bits, whose upper half is here.
pub const ICR_X2APIC_HIGH: u16 = 0x304;
pub const ICR_HIGH: u16 = 0x310;
pub const INITIAL_COUNT: u16 = 0x380;
pub const DIVIDE: u16 = 0x3e0;

/// The MSR of the register at offset 0.
pub const X2APIC_MSR: u32 = 0x800;

/// A register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    Id,
    Version,
    Tpr,
    /// Arbitration priority: always 0, there is no bus to arbitrate.
    Apr,
    Ppr,
    Eoi,
    /// Remote read: always 0, no Intel CPU with x2APIC does it.
    RemoteRead,
    Ldr,
    Dfr,
    Svr,
    /// One of the 24 registers of ISR, TMR and IRR, by its offset.
    Vectors(u16),
    Esr,
    Lvt(Lvt),
    IcrLow,
    IcrHigh,
    InitialCount,
    CurrentCount,
    Divide,
    SelfIpi,
}

use Register::*;

impl Register {
    /// The register at that offset, in either mode; `None` for a reserved one.
    pub const fn at(offset: u16) -> Option<Self> {
        if offset % 16 != 0 {
            return None;
        }
        Some(match offset {
            0x020 => Id,
            0x030 => Version,
            0x080 => Tpr,
            0x090 => Apr,
            0x0a0 => Ppr,
            0x0b0 => Eoi,
            0x0c0 => RemoteRead,
            0x0d0 => Ldr,
            0x0e0 => Dfr,
            0x0f0 => Svr,
            0x100..=0x270 => Vectors(offset),
            0x280 => Esr,
            0x2f0 => Lvt(Lvt::Cmci),
            0x300 => IcrLow,
            0x310 => IcrHigh,
            0x320 => Lvt(Lvt::Timer),
            0x330 => Lvt(Lvt::Thermal),
            0x340 => Lvt(Lvt::Pmc),
            0x350 => Lvt(Lvt::Lint0),
            0x360 => Lvt(Lvt::Lint1),
            0x370 => Lvt(Lvt::Error),
            0x380 => InitialCount,
            0x390 => CurrentCount,
            0x3e0 => Divide,
            0x3f0 => SelfIpi,
            _ => return None,
        })
    }

    /// The register at an offset of the xAPIC's page.
    pub fn xapic(offset: u16) -> Option<Self> {
        Self::at(offset).filter(|register| !matches!(register, SelfIpi))
    }

    /// The register behind an MSR of x2APIC mode.
    pub fn x2apic(msr: u32) -> Option<Self> {
        let index = u16::try_from(msr.checked_sub(X2APIC_MSR)?).ok()?;
        Self::at(index.checked_mul(16)?)
            .filter(|register| !matches!(register, Apr | RemoteRead | Dfr | IcrHigh))
    }

    /// Whether RDMSR may read it: all but the write-only ones.
    pub const fn x2apic_readable(self) -> bool {
        !matches!(self, Eoi | SelfIpi)
    }

    /// Which bits WRMSR may set; `None` for a read-only register.
    pub const fn x2apic_writable(self) -> Option<u64> {
        Some(match self {
            Tpr | SelfIpi => 0xff,
            Eoi | Esr => 0,
            // Vector, software enable, focus check.
            Svr => 0x3ff,
            Lvt(entry) => (entry.writable() | entry.read_only()) as u64,
            // Delivery status (bit 12) is gone, and ignored as CPUs do.
            IcrLow => 0xffff_ffff_000c_dfff,
            InitialCount => 0xffff_ffff,
            Divide => 0xb,
            Id | Version | Apr | Ppr | RemoteRead | Ldr | Dfr | Vectors(_) | IcrHigh
            | CurrentCount => return None,
        })
    }
}
