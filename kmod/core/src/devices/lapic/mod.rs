//! The local APIC (SDM vol. 3A, chapter 11): registers by MMIO (xAPIC) or MSR (x2APIC),
//! priorities, LVT, timer, IPIs. Its vcpu owns it; everybody else uses its [`Inbox`].

mod accept;
mod access;
mod address;
mod base;
mod error;
mod icr;
mod inbox;
mod lvt;
mod page;
mod priority;
mod register;
mod timer;

pub use address::{Address, lowest_priority};
pub use inbox::{Inbox, Signal, Signals};
pub use page::{ApicMemory, ApicPage};

use alloc::sync::Arc;

use self::error::Errors;
use self::lvt::LvtEntries;
use self::timer::Timer;
use super::{ApicMessage, Nanos};
use crate::stats::VcpuStats;
use crate::types::{Gpa, VcpuId, Vector};

/// Where the registers are by MMIO; it can't be moved.
pub const APIC_BASE: Gpa = Gpa(0xfee0_0000);
/// The timer's input clock before its divider: about FreeBSD's 128 MiHz, and a whole number
/// of kHz.
pub const TIMER_HZ: u64 = 128_000_000;

/// The local vector table's entries, in VM_LAPIC_LOCAL_IRQ's numbering (APIC_LVT_*).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Lvt {
    Lint0 = 0,
    Lint1 = 1,
    Timer = 2,
    Error = 3,
    Pmc = 4,
    Thermal = 5,
    Cmci = 6,
}

impl Lvt {
    /// From its ABI number.
    pub const fn from_raw(raw: i32) -> Option<Self> {
        Some(match raw {
            0 => Self::Lint0,
            1 => Self::Lint1,
            2 => Self::Timer,
            3 => Self::Error,
            4 => Self::Pmc,
            5 => Self::Thermal,
            6 => Self::Cmci,
            _ => return None,
        })
    }
}

/// The clocks that its timer runs by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicClock {
    pub now: Nanos,
    /// The guest's TSC at `now`, and its frequency: for the TSC deadline.
    pub guest_tsc: u64,
    pub tsc_hz: u64,
}

/// What a register access makes others do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum ApicEffect {
    None,
    /// An IPI to send.
    Ipi(ApicMessage),
    /// The EOI of a level-triggered interrupt: the I/O APIC is to know.
    Eoi(Vector),
    /// [`LocalApic::deadline`] changed: arm the host's timer anew.
    Timer,
}

/// What came with the inbox besides interrupts that are now in the IRR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Accepted {
    /// [`LocalApic::deadline`] changed.
    pub timer: bool,
    /// An NMI for this vcpu (LINT1, or an LVT entry in NMI mode).
    pub nmi: bool,
}

/// #GP(0) is what the guest gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GeneralProtection;

/// IA32_APIC_BASE's bits 11:10 (SDM vol. 3A, table 11-5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApicMode {
    /// As if the CPU had no local APIC: LINT0 is INTR, LINT1 is NMI.
    Disabled,
    /// Registers at [`APIC_BASE`].
    Xapic,
    /// Registers at MSRs 0x800 and up.
    X2apic,
}

/// One local APIC. The registers are in its page. What a write of the guest that the CPU
/// carries out by itself could change there (SDM vol. 3C, 30.4.3) and has an effect of its
/// own is kept here too, and the page is then corrected.
#[derive(Debug)]
pub struct LocalApic<P> {
    page: P,
    vcpu: VcpuId,
    inbox: Arc<Inbox>,
    stats: Arc<VcpuStats>,
    /// IA32_APIC_BASE
    base: u64,
    x2apic_allowed: bool,
    svr: u32,
    ldr: u32,
    dfr: u32,
    lvt: LvtEntries,
    errors: Errors,
    timer: Timer,
    /// An ExtINT came as a message, and has not been taken.
    extint: bool,
}

#[cfg(test)]
mod tests;
