//! The local APIC's timer (SDM vol. 3A, 11.5.4): one-shot, periodic, TSC deadline.
//!
//! Nothing counts. The timer knows when its count began, and what has happened since is
//! worked out when somebody looks ([`LocalApic::sync_timer`]): before each change of a
//! register that matters, and when the host's timer has gone off. Times are in sixteenths
//! of a nanosecond, of which a tick of 128 MHz has exactly 125: a periodic timer does not
//! drift.

use super::lvt::Fired;
use super::register::{DIVIDE, INITIAL_COUNT};
use super::{ApicClock, ApicEffect, ApicMemory, ApicMode, LocalApic, Lvt, TIMER_HZ};
use crate::devices::Nanos;
use crate::stats::Stat;

const UNITS_PER_NANO: u64 = 16;
const UNITS_PER_TICK: u64 = 1_000_000_000 * UNITS_PER_NANO / TIMER_HZ;
const _: () = assert!(UNITS_PER_TICK * TIMER_HZ == 1_000_000_000 * UNITS_PER_NANO);

/// A periodic timer wakes the host no more often; the interrupts between are lost, as they
/// are when a CPU is too slow for them.
const MIN_PERIOD: u64 = 50_000;
/// The host's timer is never armed for longer: [`LocalApic::accept`] arms it again.
const MAX_WAIT: u64 = 3_600_000_000_000;

/// Its state besides the LVT entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timer {
    initial: u32,
    /// The divide configuration register.
    divide: u32,
    /// A count is under way: in one-shot mode until 0, in periodic mode until it is
    /// stopped.
    counting: bool,
    /// When it was at the initial count, in units.
    began: u64,
    /// IA32_TSC_DEADLINE; 0 is disarmed.
    tsc_deadline: u64,
    /// When the host is to wake us.
    deadline: Option<Nanos>,
}

/// The mode in bits 18:17 of the LVT entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    OneShot,
    Periodic,
    TscDeadline,
    /// 3: it does nothing.
    Reserved,
}

impl Mode {
    const fn of(entry: u32) -> Self {
        match entry >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }

    /// Whether it counts down from the initial count.
    const fn counts(self) -> bool {
        matches!(self, Self::OneShot | Self::Periodic)
    }
}

const fn units(now: Nanos) -> u64 {
    now.0.saturating_mul(UNITS_PER_NANO)
}

impl Timer {
    /// What the divide configuration says (figure 11-10): bits 3 and 1:0 are a logarithm,
    /// that of 2 first, and 7 is to divide by 1.
    const fn divisor(&self) -> u64 {
        let bits = self.divide & 3 | (self.divide & 8) >> 1;
        1 << ((bits + 1) & 7)
    }

    /// Of one count down.
    const fn units_per_count(&self) -> u64 {
        self.divisor() * UNITS_PER_TICK
    }

    /// From the initial count to 0, at most 2^46.
    const fn period(&self) -> u64 {
        self.initial as u64 * self.units_per_count()
    }

    /// The current count, once [`LocalApic::sync_timer`] has been here.
    const fn current(&self, now: Nanos) -> u32 {
        if !self.counting {
            return 0;
        }
        let gone = units(now).saturating_sub(self.began) / self.units_per_count();
        (self.initial as u64).saturating_sub(gone) as u32
    }

    /// Lets time pass until `now`: whether the count has come to 0.
    fn count_down(&mut self, mode: Mode, now: Nanos) -> bool {
        let gone = units(now).saturating_sub(self.began);
        if !self.counting || gone < self.period() {
            return false;
        }
        match gone.checked_div(self.period()) {
            Some(periods) if mode == Mode::Periodic => self.began += periods * self.period(),
            _ => self.counting = false,
        }
        true
    }
}

impl<P: ApicMemory> LocalApic<P> {
    /// When to call [`Self::accept`] after a [`super::Signal::Timer`].
    pub fn deadline(&self) -> Option<Nanos> {
        self.timer.deadline
    }

    /// IA32_TSC_DEADLINE: 0 once it has passed, and in the other modes.
    pub fn tsc_deadline(&self, clock: &ApicClock) -> u64 {
        match self.timer.tsc_deadline {
            passed if passed <= clock.guest_tsc => 0,
            deadline => deadline,
        }
    }

    /// Ignored in the other modes; 0 disarms.
    pub fn set_tsc_deadline(&mut self, value: u64, clock: &ApicClock) -> ApicEffect {
        self.change_timer(clock, |apic| {
            if apic.timer_mode() == Mode::TscDeadline {
                apic.timer.tsc_deadline = value;
            }
        })
    }

    /// The guest's TSC has been set, or moves by another offset.
    pub fn tsc_moved(&mut self, clock: &ApicClock) -> ApicEffect {
        self.change_timer(clock, |_| {})
    }

    pub(super) fn write_initial_count(&mut self, value: u32, clock: &ApicClock) -> ApicEffect {
        let effect = self.change_timer(clock, |apic| {
            if apic.timer_mode() == Mode::TscDeadline {
                return;
            }
            apic.timer.initial = value;
            apic.timer.counting = value != 0;
            apic.timer.began = units(clock.now);
        });
        self.store_timer();
        effect
    }

    /// A count under way goes on from where it is at the new speed.
    pub(super) fn write_divide(&mut self, value: u32, clock: &ApicClock) -> ApicEffect {
        let effect = self.change_timer(clock, |apic| {
            let timer = &mut apic.timer;
            let gone = u64::from(timer.initial - timer.current(clock.now));
            timer.divide = value & 0xb;
            if timer.counting {
                timer.began = units(clock.now).saturating_sub(gone * timer.units_per_count());
            }
        });
        self.store_timer();
        effect
    }

    pub(super) fn write_timer_lvt(&mut self, value: u32, clock: &ApicClock) -> ApicEffect {
        let effect = self.change_timer(clock, |apic| {
            let before = apic.timer_mode();
            apic.write_lvt(Lvt::Timer, value);
            // To TSC-deadline mode or from it: the timer is disarmed (11.5.4.1).
            if before.counts() != apic.timer_mode().counts() {
                let timer = &mut apic.timer;
                (timer.initial, timer.counting, timer.tsc_deadline) = (0, false, 0);
            }
        });
        self.store_timer();
        effect
    }

    /// The current count register.
    pub(super) fn current_count(&mut self, clock: &ApicClock) -> u32 {
        self.sync_timer(clock);
        self.timer.current(clock.now)
    }

    /// Changes the timer, after what happened until now and before what follows from the
    /// change.
    pub(super) fn change_timer(
        &mut self,
        clock: &ApicClock,
        change: impl FnOnce(&mut Self),
    ) -> ApicEffect {
        let before = self.timer.deadline;
        self.sync_timer(clock);
        change(self);
        self.timer.deadline = None;
        self.sync_timer(clock);
        if self.timer.deadline == before {
            ApicEffect::None
        } else {
            ApicEffect::Timer
        }
    }

    /// Raises the timer's interrupt if its time has come. Sets the next deadline when there
    /// is none or it has passed, and says whether it did.
    pub(super) fn sync_timer(&mut self, clock: &ApicClock) -> bool {
        let mode = self.timer_mode();
        let timer = &mut self.timer;
        let expired = match mode {
            Mode::OneShot | Mode::Periodic => timer.count_down(mode, clock.now),
            Mode::TscDeadline => {
                let passed = timer.tsc_deadline != 0 && timer.tsc_deadline <= clock.guest_tsc;
                if passed {
                    timer.tsc_deadline = 0;
                }
                passed
            }
            Mode::Reserved => false,
        };
        if expired && self.fire(Lvt::Timer) != Fired::Nothing {
            self.stats.incr(Stat::VlapicIntrTimer);
        }
        let timer = &self.timer;
        let due = timer.deadline.is_none_or(|deadline| deadline <= clock.now);
        if !expired && !due {
            return false;
        }
        let deadline = self.next_deadline(mode, clock);
        let changed = deadline != timer.deadline;
        self.timer.deadline = deadline;
        changed
    }

    /// A masked timer needs no waking: what it missed is worked out later.
    fn next_deadline(&self, mode: Mode, clock: &ApicClock) -> Option<Nanos> {
        let timer = &self.timer;
        if self.lvt.get(Lvt::Timer).masked() || self.mode() == ApicMode::Disabled {
            return None;
        }
        let at = match mode {
            Mode::OneShot | Mode::Periodic if timer.counting => {
                let end = timer.began.saturating_add(timer.period());
                let at = Nanos(end.div_ceil(UNITS_PER_NANO));
                if mode == Mode::Periodic && timer.period() < MIN_PERIOD * UNITS_PER_NANO {
                    at.max(clock.now.after(MIN_PERIOD))
                } else {
                    at
                }
            }
            Mode::TscDeadline if timer.tsc_deadline != 0 => {
                let ticks = timer.tsc_deadline.saturating_sub(clock.guest_tsc);
                clock.now.after(tsc_nanos(ticks, clock.tsc_hz))
            }
            Mode::OneShot | Mode::Periodic | Mode::TscDeadline | Mode::Reserved => return None,
        };
        Some(at.min(clock.now.after(MAX_WAIT)))
    }

    fn timer_mode(&self) -> Mode {
        Mode::of(self.lvt.get(Lvt::Timer).0)
    }

    pub(super) fn store_timer(&mut self) {
        self.page.set(INITIAL_COUNT, self.timer.initial);
        self.page.set(DIVIDE, self.timer.divide);
    }
}

/// How long that many ticks of the TSC take, rounded up. `devices::frequency` without its
/// divisions of 128 bits: a guest's every timer comes by here.
fn tsc_nanos(ticks: u64, hz: u64) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    let hz = hz.max(1);
    let rest = (ticks % hz).saturating_mul(SECOND).div_ceil(hz);
    (ticks / hz).saturating_mul(SECOND).saturating_add(rest)
}
