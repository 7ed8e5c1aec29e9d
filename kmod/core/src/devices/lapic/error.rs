//! Errors (SDM vol. 3A, 11.5.3): they are collected, shown in ESR by a write to it, and
//! raise the LVT's error interrupt once between two such writes.

use super::lvt::Fired;
use super::register::ESR;
use super::{ApicMemory, LocalApic, Lvt};
use crate::stats::Stat;

/// A bit of ESR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Error {
    /// The ICR was to send a vector below 16.
    SendIllegalVector = 1 << 5,
    /// A message, the LVT or the self-IPI register had one.
    ReceiveIllegalVector = 1 << 6,
    /// xAPIC mode: there is no such register.
    IllegalRegister = 1 << 7,
}

/// What has gone wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Errors {
    /// ESR as the guest reads it.
    latched: u32,
    /// Since the last write to ESR.
    collected: u32,
    /// The interrupt has been raised since then.
    raised: bool,
}

impl<P: ApicMemory> LocalApic<P> {
    /// Notes an error.
    pub(super) fn error(&mut self, error: Error) {
        self.errors.collected |= error as u32;
        if self.errors.raised || self.lvt.get(Lvt::Error).masked() {
            return;
        }
        // Before: an illegal vector in the error entry is an error too.
        self.errors.raised = true;
        if self.fire(Lvt::Error) != Fired::Nothing {
            self.stats.incr(Stat::VlapicIntrError);
        }
    }

    /// A write to ESR, of whatever value.
    pub(super) fn latch_errors(&mut self) {
        self.errors = Errors {
            latched: self.errors.collected,
            ..Errors::default()
        };
        self.page.set(ESR, self.errors.latched);
    }
}
