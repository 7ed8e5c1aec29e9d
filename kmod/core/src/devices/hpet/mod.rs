//! The HPET (IA-PC HPET Specification 1.0a): a 64-bit counter of 2^24 Hz and eight
//! comparators. Each interrupts through one of the I/O APIC's upper inputs or by a message
//! of its own (FSB), at a value or periodically; the first two can stand in for the 8254
//! and the RTC (legacy replacement).

mod timer;

use super::frequency::Frequency;
use super::{Drive, Nanos};
use timer::Timer;

const HPET: Frequency = Frequency(1 << 24);
const TIMERS: usize = 8;

/// What an HPET does to the rest of the chipset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// A timer drives an interrupt line.
    Line { route: Route, drive: Drive },
    /// A timer's message, as an MSI.
    Message { address: u32, data: u32 },
}

/// Where a timer's line leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// To an input of the I/O APIC.
    Ioapic(u8),
    /// In place of the 8254.
    Irq0,
    /// In place of the RTC.
    Irq8,
}

/// Who takes the outputs.
pub type Outputs<'a> = &'a mut dyn FnMut(Output);

/// The timer block.
pub struct Hpet {
    /// The general configuration register.
    config: u64,
    /// The general interrupt status register.
    status: u64,
    /// The main counter at `base_time`, or as long as it is halted.
    base: u64,
    base_time: Nanos,
    /// The first counter value that the comparators haven't been compared with.
    unseen: u64,
    timers: [Timer; TIMERS],
}

// Registers (2.3).
const CAPABILITIES: u64 = 0x000;
const CONFIG: u64 = 0x010;
const STATUS: u64 = 0x020;
const COUNTER: u64 = 0x0f0;
const FIRST_TIMER: u64 = 0x100;
const TIMER_BYTES: u64 = 0x20;
// General configuration.
const ENABLE_CNF: u64 = 1 << 0;
const LEG_RT_CNF: u64 = 1 << 1;

impl Hpet {
    /// After reset: halted at 0.
    pub const fn new(now: Nanos) -> Self {
        Self {
            config: 0,
            status: 0,
            base: 0,
            base_time: now,
            unseen: 0,
            timers: [Timer::new(); TIMERS],
        }
    }

    /// The general capabilities register: revision 1, eight timers, a 64-bit counter,
    /// legacy replacement, Intel, and the period in femtoseconds.
    pub const fn capabilities() -> u64 {
        const FEMTOS_PER_SEC: u64 = 1_000_000_000_000_000;
        const REVISION: u64 = 1;
        const COUNT_SIZE_CAP: u64 = 1 << 13;
        const LEG_RT_CAP: u64 = 1 << 15;
        const VENDOR_INTEL: u64 = 0x8086 << 16;
        (FEMTOS_PER_SEC / HPET.0) << 32
            | VENDOR_INTEL
            | LEG_RT_CAP
            | COUNT_SIZE_CAP
            | (TIMERS as u64 - 1) << 8
            | REVISION
    }

    /// Whether the first two timers are connected instead of the 8254 and the RTC.
    pub const fn replaces_legacy(&self) -> bool {
        self.config & LEG_RT_CNF != 0 && self.is_enabled()
    }

    /// Timers whose value has come interrupt.
    pub fn advance(&mut self, now: Nanos, out: Outputs) {
        if !self.is_enabled() {
            return;
        }
        let counter = self.counter(now);
        // All ones: no value is new.
        let span = counter.wrapping_sub(self.unseen);
        if span == u64::MAX {
            return;
        }
        for n in 0..TIMERS {
            if self.timers[n].until(self.unseen) <= span {
                self.timers[n].reload(counter);
                self.fire(n, out);
            }
        }
        self.unseen = counter.wrapping_add(1);
    }

    /// When the next timer interrupts.
    pub fn deadline(&self) -> Option<Nanos> {
        if !self.is_enabled() {
            return None;
        }
        let next = (0..TIMERS)
            .filter(|&n| self.can_interrupt(n))
            .map(|n| self.timers[n].until(self.unseen))
            .min()?;
        let ticks = self.unseen.wrapping_sub(self.base).checked_add(next)?;
        let at = self.base_time.after(HPET.nanos(ticks));
        (at != Nanos(u64::MAX)).then_some(at)
    }

    /// A load, after [`Self::advance`] to `now`. Only aligned ones of 4 and 8 bytes answer.
    pub fn read(&self, offset: u64, bytes: u8, now: Nanos) -> u64 {
        let Some(access) = Access::new(offset, bytes) else {
            return 0;
        };
        let register = match access.register {
            CAPABILITIES => Self::capabilities(),
            CONFIG => self.config,
            STATUS => self.status,
            COUNTER => self.counter(now),
            register => match timer_at(register) {
                Some((n, offset)) => self.timers[n].read(offset),
                None => 0,
            },
        };
        (register & access.mask) >> access.shift
    }

    /// A store, after [`Self::advance`] to `now`.
    pub fn write(&mut self, offset: u64, bytes: u8, value: u64, now: Nanos, out: Outputs) {
        let Some(access) = Access::new(offset, bytes) else {
            return;
        };
        match access.register {
            CONFIG => self.set_config(access.merge(self.config, value), now),
            STATUS => self.status &= !access.merge(0, value),
            COUNTER => {
                self.base = access.merge(self.counter(now), value);
                self.base_time = now;
                self.unseen = self.base;
                self.catch_up_periods(now);
            }
            register => {
                if let Some((n, offset)) = timer_at(register) {
                    self.write_timer(n, offset, access, value, now, out);
                }
            }
        }
        self.drive_lines(out);
    }

    const fn is_enabled(&self) -> bool {
        self.config & ENABLE_CNF != 0
    }

    const fn counter(&self, now: Nanos) -> u64 {
        if self.is_enabled() {
            self.base
                .wrapping_add(HPET.ticks(now.since(self.base_time)))
        } else {
            self.base
        }
    }

    fn set_config(&mut self, value: u64, now: Nanos) {
        let counter = self.counter(now);
        let was_enabled = self.is_enabled();
        self.config = value & (ENABLE_CNF | LEG_RT_CNF);
        if was_enabled != self.is_enabled() {
            self.base = counter;
            self.base_time = now;
            self.catch_up_periods(now);
        }
    }

    fn write_timer(
        &mut self,
        n: usize,
        offset: u64,
        access: Access,
        value: u64,
        now: Nanos,
        out: Outputs,
    ) {
        let old = self.timers[n].read(offset);
        match offset {
            timer::CONFIG => {
                self.timers[n].set_config(access.merge(old, value));
                if !self.timers[n].is_level() || self.by_message(n) {
                    self.status &= !(1 << n);
                }
            }
            timer::COMPARATOR => {
                self.timers[n].set_comparator(|old| access.merge(old, value));
                if !self.is_enabled() {
                    return;
                }
                let counter = self.counter(now);
                if self.timers[n].until(counter) == 0 && !self.timers[n].is_periodic() {
                    self.fire(n, out);
                }
                self.catch_up_periods(now);
            }
            _ => self.timers[n].set_fsb(access.merge(old, value)),
        }
    }

    /// Periodic timers whose comparator is behind the counter go on with the next period
    /// from now. Hardware would let them wait until the counter comes round, and guests
    /// that were preempted between reading the counter and writing the comparator with it.
    fn catch_up_periods(&mut self, now: Nanos) {
        if self.is_enabled() {
            let counter = self.counter(now);
            for timer in &mut self.timers {
                timer.catch_up(counter);
            }
        }
    }

    /// A timer's value has come.
    fn fire(&mut self, n: usize, out: Outputs) {
        let timer = &self.timers[n];
        if timer.is_level() && !self.by_message(n) {
            self.status |= 1 << n;
            self.drive_lines(out);
        } else if timer.interrupts() {
            if self.by_message(n) {
                let (address, data) = timer.message();
                out(Output::Message { address, data });
            } else if let Some(route) = self.route(n) {
                out(Output::Line {
                    route,
                    drive: Drive::Pulse,
                });
            }
        }
    }

    /// Whether a match of a timer would be noticed by anybody but readers of its status.
    fn can_interrupt(&self, n: usize) -> bool {
        self.timers[n].interrupts()
            && (self.by_message(n) || self.route(n).is_some() && self.status & 1 << n == 0)
    }

    /// Legacy replacement overrides a timer's own choice of message or route.
    fn by_message(&self, n: usize) -> bool {
        self.timers[n].by_message() && self.legacy_route(n).is_none()
    }

    fn route(&self, n: usize) -> Option<Route> {
        self.legacy_route(n)
            .or_else(|| self.timers[n].route().map(Route::Ioapic))
    }

    fn legacy_route(&self, n: usize) -> Option<Route> {
        match n {
            0 if self.replaces_legacy() => Some(Route::Irq0),
            1 if self.replaces_legacy() => Some(Route::Irq8),
            _ => None,
        }
    }

    /// The level-triggered lines become what status, routes and enables say.
    fn drive_lines(&mut self, out: Outputs) {
        for n in 0..TIMERS {
            let held = self.status & 1 << n != 0
                && self.is_enabled()
                && self.timers[n].interrupts()
                && !self.by_message(n);
            let line = if held { self.route(n) } else { None };
            let old = core::mem::replace(&mut self.timers[n].line, line);
            if old == line {
                continue;
            }
            for (route, drive) in [(old, Drive::Deassert), (line, Drive::Assert)] {
                if let Some(route) = route {
                    out(Output::Line { route, drive });
                }
            }
        }
    }
}

/// A load or store: which register, which of its bits.
#[derive(Clone, Copy)]
struct Access {
    register: u64,
    mask: u64,
    shift: u32,
}

impl Access {
    fn new(offset: u64, bytes: u8) -> Option<Self> {
        let register = offset & !7;
        let (mask, shift) = match (bytes, offset % 8) {
            (8, 0) => (u64::MAX, 0),
            (4, 0) => (0xffff_ffff, 0),
            (4, 4) => (0xffff_ffff << 32, 32),
            _ => return None,
        };
        Some(Self {
            register,
            mask,
            shift,
        })
    }

    const fn merge(self, old: u64, value: u64) -> u64 {
        old & !self.mask | value << self.shift & self.mask
    }
}

/// The timer that a register belongs to, and the register's place in it.
fn timer_at(register: u64) -> Option<(usize, u64)> {
    let offset = register.checked_sub(FIRST_TIMER)?;
    let n = usize::try_from(offset / TIMER_BYTES).ok()?;
    (n < TIMERS).then_some((n, offset % TIMER_BYTES))
}

#[cfg(test)]
mod tests;
