//! The real-time clock (Motorola MC146818A) with its CMOS memory, and the century in byte
//! 0x32. The clock is a number of seconds; its bytes are made of that when they are read,
//! and it is made of them when the guest has set them.
//!
//! While the guest has set the clock to a date that there isn't, it stands still. (FreeBSD
//! ends the VM then.)

mod calendar;

use super::Nanos;
use super::frequency::Frequency;
use crate::types::Errno;
use calendar::{Alarm, DateTime, Format};

/// The clock and its memory.
pub struct Rtc {
    /// Port 0x70: the byte that port 0x71 accesses.
    index: u8,
    /// The bytes; the clock's are out of date while it runs.
    bytes: [u8; SIZE],
    clock: Clock,
    /// When the divider chain started: periodic interrupts are in step with it.
    chain: Nanos,
    /// An instant at which the seconds advance, and all others by whole seconds from it.
    phase: Nanos,
    /// Up to when register C's flags are right.
    seen: Nanos,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Clock {
    /// The time is `secs` until `next`, one more from then on, and so forth.
    Runs { secs: i64, next: Nanos },
    /// The time is what the bytes say.
    Stands,
}

const SIZE: usize = 128;
const SECOND: u64 = 1_000_000_000;
const CRYSTAL: Frequency = Frequency(32_768);
/// After the divider chain is released the first update comes half a second later.
const FIRST_UPDATE: u64 = SECOND / 2;
/// UIP is set 244 µs before an update cycle begins, and that takes 1984 µs.
const UPDATE_IN_PROGRESS: u64 = 244_000 + 1_984_000;

// The bytes.
const SECONDS: usize = 0x00;
const SECONDS_ALARM: usize = 0x01;
const MINUTES: usize = 0x02;
const MINUTES_ALARM: usize = 0x03;
const HOURS: usize = 0x04;
const HOURS_ALARM: usize = 0x05;
const DAY_OF_WEEK: usize = 0x06;
const DAY: usize = 0x07;
const MONTH: usize = 0x08;
const YEAR: usize = 0x09;
const REG_A: usize = 0x0a;
const REG_B: usize = 0x0b;
const REG_C: usize = 0x0c;
const REG_D: usize = 0x0d;
const CENTURY: usize = 0x32;
// Register A.
const UIP: u8 = 0x80;
const DIVIDER: u8 = 0x70;
const DIVIDER_32768_HZ: u8 = 0x20;
const RATE: u8 = 0x0f;
// Register B; PIE, AIE and UIE are where C has their flags.
const SET: u8 = 0x80;
const PIE: u8 = 0x40;
const AIE: u8 = 0x20;
const UIE: u8 = 0x10;
const SQWE: u8 = 0x08;
const DM_BINARY: u8 = 0x04;
const HOURS_24: u8 = 0x02;
// Register C.
const IRQF: u8 = 0x80;
const PF: u8 = PIE;
const AF: u8 = AIE;
const UF: u8 = UIE;
// Register D: the battery is good.
const VRT: u8 = 0x80;
/// Alarm bytes from here up match always.
const DONT_CARE: u8 = 0xc0;

impl Rtc {
    /// Power-on with a good battery: the time is `secs` since 1970.
    pub fn new(secs: i64, now: Nanos) -> Self {
        let mut bytes = [0; SIZE];
        bytes[REG_A] = DIVIDER_32768_HZ;
        bytes[REG_B] = HOURS_24;
        bytes[REG_D] = VRT;
        let next = now.after(SECOND);
        Self {
            index: REG_D as u8,
            bytes,
            clock: Clock::Runs { secs, next },
            chain: now,
            phase: next,
            seen: now,
        }
    }

    /// The RESET pin: no interrupts; time and memory stay.
    pub fn reset(&mut self) {
        self.bytes[REG_B] &= !(PIE | AIE | UIE | SQWE);
        self.bytes[REG_C] = 0;
    }

    /// Whether the IRQ pin has gone active since the last call, or the access before it.
    pub fn advance(&mut self, now: Nanos) -> bool {
        if now <= self.seen {
            return false;
        }
        let mut flags = 0;
        if let Some(period) = self.period() {
            let periods = |at: Nanos| CRYSTAL.ticks(at.since(self.chain)) / period;
            if periods(now) > periods(self.seen) {
                flags |= PF;
            }
        }
        if let (Some(before), Some(after)) = (self.secs_at(self.seen), self.secs_at(now)) {
            if after > before {
                flags |= UF;
            }
            if self.next_alarm(before).is_some_and(|at| at <= after) {
                flags |= AF;
            }
        }
        self.seen = now;
        self.flag(flags)
    }

    /// When the IRQ pin goes active next. It stays active until register C is read.
    pub fn deadline(&self) -> Option<Nanos> {
        if self.bytes[REG_C] & IRQF != 0 {
            return None;
        }
        let enabled = |bit| self.bytes[REG_B] & bit != 0;
        let periodic = self.period().filter(|_| enabled(PIE)).map(|period| {
            let next = CRYSTAL.ticks(self.seen.since(self.chain)) / period + 1;
            self.chain.after(CRYSTAL.nanos(next.saturating_mul(period)))
        });
        let second_after = |secs: i64| match self.clock {
            Clock::Runs { secs: base, next } => {
                let updates = u64::try_from(secs.saturating_sub(base).saturating_sub(1)).ok()?;
                Some(next.after(updates.saturating_mul(SECOND)))
            }
            Clock::Stands => None,
        };
        let secs = self.secs_at(self.seen);
        let update = secs
            .filter(|_| enabled(UIE))
            .and_then(|secs| second_after(secs.saturating_add(1)));
        let alarm = secs
            .filter(|_| enabled(AIE))
            .and_then(|secs| self.next_alarm(secs))
            .and_then(second_after);
        [periodic, update, alarm].into_iter().flatten().min()
    }

    /// OUT to port 0x70. Bit 7 masks NMIs on a PC and isn't the clock's.
    pub fn select(&mut self, index: u8) {
        self.index = index & 0x7f;
    }

    /// IN from port 0x71, after [`Self::advance`] to `now`.
    pub fn read(&mut self, now: Nanos) -> u8 {
        let offset = usize::from(self.index);
        let value = self.peek(offset, now);
        if offset == REG_C {
            self.bytes[REG_C] = 0;
        }
        value
    }

    /// OUT to port 0x71, after [`Self::advance`] to `now`. True if the IRQ pin goes active.
    pub fn write(&mut self, value: u8, now: Nanos) -> bool {
        match usize::from(self.index) {
            REG_A => self.set_reg_a(value, now),
            REG_B => return self.set_reg_b(value, now),
            REG_C | REG_D => {}
            offset if is_time(offset) => {
                self.stop(now);
                self.bytes[offset] = if offset == SECONDS {
                    value & 0x7f
                } else {
                    value
                };
                self.start(now);
            }
            offset => self.bytes[offset] = value,
        }
        false
    }

    /// VM_RTC_READ: a byte without the side effects of reading it.
    pub fn nvram_read(&mut self, offset: i32, now: Nanos) -> Result<u8, Errno> {
        let offset = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        if offset >= SIZE {
            return Err(Errno::EINVAL);
        }
        Ok(self.peek(offset, now))
    }

    /// VM_RTC_WRITE: only the memory, not the clock and its control registers.
    pub fn nvram_write(&mut self, offset: i32, value: u8) -> Result<(), Errno> {
        let offset = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        if offset <= REG_D || offset == CENTURY || offset >= SIZE {
            return Err(Errno::EINVAL);
        }
        self.bytes[offset] = value;
        Ok(())
    }

    /// VM_RTC_GETTIME: -1 while there is no valid time.
    pub fn time(&self, now: Nanos) -> i64 {
        let standing = || {
            let halted = self.bytes[REG_B] & SET != 0;
            self.shown().filter(|_| !halted)
        };
        self.secs_at(now).or_else(standing).unwrap_or(-1)
    }

    /// VM_RTC_SETTIME: EBUSY while the guest sets the clock.
    pub fn set_time(&mut self, secs: i64, now: Nanos) -> Result<(), Errno> {
        if secs < 0 {
            return Err(Errno::EINVAL);
        }
        if self.bytes[REG_B] & SET != 0 {
            return Err(Errno::EBUSY);
        }
        self.show(secs);
        self.clock = Clock::Stands;
        self.phase = now.after(SECOND);
        self.start(now);
        Ok(())
    }

    fn peek(&mut self, offset: usize, now: Nanos) -> u8 {
        if is_time(offset) {
            if let Some(secs) = self.secs_at(now) {
                self.show(secs);
            }
        }
        match offset {
            REG_A if self.update_in_progress(now) => self.bytes[REG_A] | UIP,
            offset => self.bytes[offset],
        }
    }

    fn set_reg_a(&mut self, value: u8, now: Nanos) {
        let was_on = self.divider_on();
        self.bytes[REG_A] = value & !UIP;
        match (was_on, self.divider_on()) {
            (false, true) => {
                self.chain = now;
                self.phase = now.after(FIRST_UPDATE);
                self.start(now);
            }
            (true, false) => self.stop(now),
            _ => {}
        }
    }

    fn set_reg_b(&mut self, value: u8, now: Nanos) -> bool {
        self.bytes[REG_B] = value;
        if value & SET != 0 {
            self.bytes[REG_B] &= !UIE;
            // The bytes show the time of the stop, in the format that is set now.
            self.stop(now);
        } else {
            self.start(now);
        }
        self.flag(0)
    }

    /// From now on the bytes hold the time.
    fn stop(&mut self, now: Nanos) {
        if let Some(secs) = self.secs_at(now) {
            self.show(secs);
            self.clock = Clock::Stands;
        }
    }

    /// The clock runs on from what the bytes say, if nothing stops it.
    fn start(&mut self, now: Nanos) {
        let halted = self.bytes[REG_B] & SET != 0;
        if self.clock != Clock::Stands || halted || !self.divider_on() {
            return;
        }
        if let Some(secs) = self.shown() {
            let next = if self.phase > now {
                self.phase
            } else {
                let seconds = now.since(self.phase) / SECOND + 1;
                self.phase.after(seconds.saturating_mul(SECOND))
            };
            self.clock = Clock::Runs { secs, next };
        }
    }

    /// The time, if the clock runs.
    fn secs_at(&self, now: Nanos) -> Option<i64> {
        match self.clock {
            Clock::Runs { secs, next } if now < next => Some(secs),
            Clock::Runs { secs, next } => {
                let updates = now.since(next) / SECOND + 1;
                Some(secs.saturating_add_unsigned(updates))
            }
            Clock::Stands => None,
        }
    }

    fn update_in_progress(&self, now: Nanos) -> bool {
        match self.clock {
            Clock::Runs { next, .. } => {
                let to_next = if now < next {
                    next.since(now)
                } else {
                    SECOND - now.since(next) % SECOND
                };
                to_next <= UPDATE_IN_PROGRESS
            }
            Clock::Stands => false,
        }
    }

    const fn divider_on(&self) -> bool {
        self.bytes[REG_A] & DIVIDER == DIVIDER_32768_HZ
    }

    /// The periodic rate in crystal clocks (the datasheet's table 5).
    const fn period(&self) -> Option<u64> {
        match self.bytes[REG_A] & RATE {
            _ if !self.divider_on() => None,
            0 => None,
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    const fn format(&self) -> Format {
        Format {
            binary: self.bytes[REG_B] & DM_BINARY != 0,
            hours_24: self.bytes[REG_B] & HOURS_24 != 0,
        }
    }

    /// When the alarm goes off after a second.
    fn next_alarm(&self, secs: i64) -> Option<i64> {
        let format = self.format();
        let field = |offset: usize| match self.bytes[offset] {
            DONT_CARE.. => Some(None),
            byte => format.decode(byte).map(Some),
        };
        let hour = match self.bytes[HOURS_ALARM] {
            DONT_CARE.. => None,
            byte => Some(format.decode_hour(byte)?),
        };
        let alarm = Alarm {
            hour,
            minute: field(MINUTES_ALARM)?,
            second: field(SECONDS_ALARM)?,
        };
        alarm.next(secs)
    }

    /// Raises flags in register C; true if that makes the IRQ pin active.
    fn flag(&mut self, flags: u8) -> bool {
        let was_active = self.bytes[REG_C] & IRQF != 0;
        let flags = self.bytes[REG_C] & (PF | AF | UF) | flags;
        let active = flags & self.bytes[REG_B] & (PIE | AIE | UIE) != 0;
        self.bytes[REG_C] = flags | if active { IRQF } else { 0 };
        active && !was_active
    }

    fn show(&mut self, secs: i64) {
        let format = self.format();
        let date = DateTime::from_secs(secs);
        let bytes = &mut self.bytes;
        bytes[SECONDS] = format.encode(date.second);
        bytes[MINUTES] = format.encode(date.minute);
        bytes[HOURS] = format.encode_hour(date.hour);
        bytes[DAY_OF_WEEK] = format.encode(DateTime::day_of_week(secs));
        bytes[DAY] = format.encode(date.day);
        bytes[MONTH] = format.encode(date.month);
        bytes[YEAR] = format.encode((date.year % 100) as u8);
        bytes[CENTURY] = format.encode((date.year / 100) as u8);
    }

    /// The time that the bytes show. The day of the week may be wrong: guests let it be.
    fn shown(&self) -> Option<i64> {
        let format = self.format();
        let field = |offset: usize| format.decode(self.bytes[offset]);
        let year = field(YEAR).filter(|&year| year < 100)?;
        DateTime {
            year: u16::from(field(CENTURY)?) * 100 + u16::from(year),
            month: field(MONTH)?,
            day: field(DAY)?,
            hour: format.decode_hour(self.bytes[HOURS])?,
            minute: field(MINUTES)?,
            second: field(SECONDS)?,
        }
        .to_secs()
    }
}

/// Whether a byte is part of the date and time.
const fn is_time(offset: usize) -> bool {
    matches!(
        offset,
        SECONDS | MINUTES | HOURS | DAY_OF_WEEK | DAY | MONTH | YEAR | CENTURY
    )
}

#[cfg(test)]
mod tests;
