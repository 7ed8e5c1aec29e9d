//! The owner takes what others have posted, before a VM entry (SDM vol. 3A, 11.8.4, and
//! 11.4.7 for INIT).

use super::error::Error;
use super::lvt::Fired;
use super::{Accepted, ApicClock, ApicMemory, LocalApic, Lvt, Signal};

impl<P: ApicMemory> LocalApic<P> {
    /// Takes the inbox: posted vectors are in IRR afterwards (or dropped, if the APIC is
    /// disabled), the timer has been looked at, local interrupts have done what the LVT
    /// says. An INIT comes before everything else that waits and makes an end of it.
    pub fn accept(&mut self, clock: &ApicClock) -> Accepted {
        let inbox = self.inbox.clone();
        let signals = inbox.take_signals();
        let mut accepted = Accepted::default();
        if signals.has(Signal::Init) {
            self.init();
            accepted.timer = true;
            return accepted;
        }
        for lvt in Lvt::ALL {
            if !signals.has(Signal::Local(lvt)) {
                continue;
            }
            let fired = self.fire(lvt);
            accepted.nmi |= fired == Fired::Nmi;
            if fired != Fired::Nothing {
                self.stats.lvt_triggered(lvt);
            }
        }
        if signals.has(Signal::ExtInt) {
            self.extint = true;
        }
        if signals.has(Signal::Vector) {
            self.take_vectors(&inbox);
        }
        accepted.timer = self.sync_timer(clock) || signals.has(Signal::Timer);
        accepted
    }

    fn take_vectors(&mut self, inbox: &super::Inbox) {
        for word in 0..4u16 {
            let (mut vectors, level) = inbox.take_vectors(word.into());
            if !self.enabled() {
                continue;
            }
            if word == 0 && vectors & 0xffff != 0 {
                self.error(Error::ReceiveIllegalVector);
                vectors &= !0xffff;
            }
            for (half, shift) in [(0, 0), (1, 32)] {
                let (vectors, level) = ((vectors >> shift) as u32, (level >> shift) as u32);
                if vectors != 0 {
                    self.request_word(word * 2 + half, vectors, level);
                }
            }
        }
    }
}
