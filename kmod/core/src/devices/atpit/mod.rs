//! The 8254 timer (Intel 231164) and port 0x61, as in the PC: three counters at 1.193182
//! MHz. Counter 0 interrupts with each rising edge of its OUT; counter 2's GATE and OUT
//! are in port 0x61, with which guests calibrate their clocks.

mod counter;

use super::Nanos;
use super::frequency::Frequency;
use counter::{Counter, Tick};

const PIT: Frequency = Frequency(1_193_182);

/// A register of the timer, by its port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    Counter(usize),
    /// Control words; there is nothing to read.
    Control,
    /// Port 0x61.
    Misc,
}

impl Register {
    /// The register at a port.
    pub const fn at(port: u16) -> Option<Self> {
        Some(match port {
            0x40..=0x42 => Self::Counter(port as usize - 0x40),
            0x43 => Self::Control,
            0x61 => Self::Misc,
            _ => return None,
        })
    }
}

/// The timer.
pub struct Atpit {
    /// Tick 0.
    epoch: Nanos,
    /// Up to when counter 0's edges have been reported.
    reported: Tick,
    counters: [Counter; 3],
    /// Port 0x61's writable bits.
    misc: u8,
}

// Port 0x61 (ISA system control port B).
const MISC_GATE2: u8 = 1 << 0;
const MISC_WRITABLE: u8 = 0x0f;
const MISC_REFRESH: u8 = 1 << 4;
const MISC_OUT2: u8 = 1 << 5;
/// DRAM refresh requests are 15 µs apart.
const REFRESH_TICKS: Tick = 18;
/// A control word that selects no counter: the read-back command.
const READ_BACK: usize = 3;

impl Atpit {
    /// After power-on: nothing is programmed, nothing interrupts.
    pub const fn new(now: Nanos) -> Self {
        Self {
            epoch: now,
            reported: 0,
            counters: [Counter::new(true), Counter::new(true), Counter::new(false)],
            misc: 0,
        }
    }

    /// Whether OUT0 has risen since the last call, or the access before it.
    pub fn advance(&mut self, now: Nanos) -> bool {
        let tick = self.tick(now);
        let rose = self.counters[0]
            .next_rise(self.reported)
            .is_some_and(|at| at <= tick);
        self.reported = self.reported.max(tick);
        for counter in &mut self.counters {
            counter.settle(tick);
        }
        rose
    }

    /// When OUT0 rises next.
    pub fn deadline(&self) -> Option<Nanos> {
        let tick = self.counters[0].next_rise(self.reported)?;
        Some(self.epoch.after(PIT.nanos(tick.unsigned_abs())))
    }

    /// IN, after [`Self::advance`] to `now`.
    pub fn read(&mut self, register: Register, now: Nanos) -> u8 {
        let tick = self.tick(now);
        match register {
            Register::Counter(n) => self.counters[n].read(tick),
            Register::Control => 0xff,
            Register::Misc => {
                let mut value = self.misc;
                if tick / REFRESH_TICKS % 2 == 1 {
                    value |= MISC_REFRESH;
                }
                if self.counters[2].out(tick) {
                    value |= MISC_OUT2;
                }
                value
            }
        }
    }

    /// OUT, after [`Self::advance`] to `now`. True if OUT0 rises by it at once.
    pub fn write(&mut self, register: Register, value: u8, now: Nanos) -> bool {
        let tick = self.tick(now);
        let low_before = !self.counters[0].out(tick);
        match register {
            Register::Counter(n) => self.counters[n].write(value, tick),
            Register::Control => self.control(value, tick),
            Register::Misc => {
                self.misc = value & MISC_WRITABLE;
                self.counters[2].set_gate(value & MISC_GATE2 != 0, tick);
            }
        }
        low_before && self.counters[0].out(tick)
    }

    fn control(&mut self, value: u8, tick: Tick) {
        let select = usize::from(value >> 6);
        if select == READ_BACK {
            // Both latch bits are active low; bits 3 to 1 choose counters.
            for (n, counter) in self.counters.iter_mut().enumerate() {
                if value & 2 << n != 0 {
                    if value & 1 << 5 == 0 {
                        counter.latch_count(tick);
                    }
                    if value & 1 << 4 == 0 {
                        counter.latch_status(tick);
                    }
                }
            }
        } else {
            self.counters[select].control(value, tick);
        }
    }

    fn tick(&self, now: Nanos) -> Tick {
        Tick::try_from(PIT.ticks(now.since(self.epoch))).unwrap_or(Tick::MAX / 2)
    }
}

#[cfg(test)]
mod tests;
