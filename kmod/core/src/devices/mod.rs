//! The PC's interrupt controllers and timers as software: each a state machine that calls
//! no host. Time comes in as an argument, the next deadline is asked for, and interrupts
//! leave through [`Wires`]. `kmod/src/vm` connects them to the host's clock, its timers and
//! the vcpus; the unit tests connect them to a test.
//!
//! Two halves, as in the hardware. A [`lapic::LocalApic`] belongs to its vcpu, and
//! everybody else reaches it through its [`lapic::Inbox`]. The [`chipset::Chipset`] is the
//! VM's: I/O APIC, 8259s, 8254, HPET, RTC, ACPI PM timer.

mod atpic;
mod atpit;
pub mod chipset;
mod frequency;
mod hpet;
mod ioapic;
pub mod lapic;
mod line;
pub mod message;
mod pmtimer;
mod rtc;
#[cfg(test)]
mod testing;

pub use line::Drive;
pub use message::{ApicMessage, DeliveryMode, Destination, Trigger};

/// A point on a monotonic clock, in nanoseconds (the host's uptime).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// `self + ns`, at most the end of time.
    #[must_use]
    pub const fn after(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// How long it has been since `earlier`; 0 if it is yet to come.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Where the chipset's interrupts go. Called with the chipset's lock held.
pub trait Wires {
    /// A message on the bus to the local APICs.
    fn message(&mut self, message: ApicMessage);
    /// The master 8259's INTR output changed. It is wired to LINT0 of every local APIC;
    /// whoever takes it calls [`chipset::Chipset::pic_acknowledge`].
    fn pic_intr(&mut self, high: bool);
}
