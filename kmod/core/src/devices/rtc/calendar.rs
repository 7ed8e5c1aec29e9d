//! Seconds since 1970 and the civil calendar (Gregorian, UTC), and the clock's fields in
//! the formats that a MC146818 can be told to show them in.

/// A date and a time of day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DateTime {
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

pub const SECS_PER_DAY: i64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01. Years are counted from March here, so that a leap
/// day is a year's last.
const DAYS_TO_1970: i64 = 719_468;
const FIRST_YEAR: u16 = 1970;

impl DateTime {
    /// The date at a second; of years after 9999 only the last four digits remain.
    pub fn from_secs(secs: i64) -> Self {
        let days = secs.div_euclid(SECS_PER_DAY).saturating_add(DAYS_TO_1970);
        let of_day = secs.rem_euclid(SECS_PER_DAY);
        let era = days.div_euclid(DAYS_PER_ERA);
        let day_of_era = days.rem_euclid(DAYS_PER_ERA);
        // Leap days so far: one in 4 years, but not in 100, but in 400.
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - days_before_year(year_of_era);
        // Months from March have 31, 30, 31, 30, 31 days, over and over: 153 in five.
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - days_before_month(month_from_march) + 1;
        let month = (month_from_march + 2) % 12 + 1;
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        Self {
            year: year.rem_euclid(10_000) as u16,
            month: month as u8,
            day: day as u8,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
        }
    }

    /// The second; `None` for a date that isn't in the calendar or is before 1970.
    pub fn to_secs(self) -> Option<i64> {
        let in_range = self.year >= FIRST_YEAR
            && (1..=12).contains(&self.month)
            && self.hour < 24
            && self.minute < 60
            && self.second < 60;
        if !in_range || self.day == 0 {
            return None;
        }
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let month_from_march = (i64::from(self.month) + 9) % 12;
        let days = year.div_euclid(400) * DAYS_PER_ERA
            + days_before_year(year.rem_euclid(400))
            + days_before_month(month_from_march)
            + i64::from(self.day)
            - 1
            - DAYS_TO_1970;
        let time =
            (i64::from(self.hour) * 60 + i64::from(self.minute)) * 60 + i64::from(self.second);
        let secs = days * SECS_PER_DAY + time;
        // February 30th is a second of March.
        (Self::from_secs(secs) == self).then_some(secs)
    }

    /// 1 is Sunday.
    pub fn day_of_week(secs: i64) -> u8 {
        const THURSDAY: i64 = 4;
        ((secs.div_euclid(SECS_PER_DAY) + THURSDAY).rem_euclid(7) + 1) as u8
    }
}

/// Days from an era's start to a year's (of March).
const fn days_before_year(year_of_era: i64) -> i64 {
    year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + year_of_era / 400
}

/// Days from March 1st to a month's first.
const fn days_before_month(month_from_march: i64) -> i64 {
    (153 * month_from_march + 2) / 5
}

/// How the clock's bytes are to be read: register B's DM and 24/12.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    pub binary: bool,
    pub hours_24: bool,
}

/// In 12-hour format the afternoon's hours have this bit.
const PM: u8 = 0x80;

impl Format {
    /// A number below 100 as the clock shows it.
    pub const fn encode(self, value: u8) -> u8 {
        if self.binary {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }

    /// The number that a byte shows, if it shows one.
    pub fn decode(self, byte: u8) -> Option<u8> {
        let (tens, ones) = (byte >> 4, byte & 0xf);
        if self.binary {
            Some(byte)
        } else {
            (tens < 10 && ones < 10).then(|| tens * 10 + ones)
        }
    }

    /// An hour, 0 to 23.
    pub const fn encode_hour(self, hour: u8) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
        self.encode(twelve) | if hour >= 12 { PM } else { 0 }
    }

    /// The hour that a byte shows.
    pub fn decode_hour(self, byte: u8) -> Option<u8> {
        if self.hours_24 {
            return self.decode(byte).filter(|&hour| hour < 24);
        }
        let twelve = self.decode(byte & !PM)?;
        let afternoon = if byte & PM != 0 { 12 } else { 0 };
        (1..=12).contains(&twelve).then(|| twelve % 12 + afternoon)
    }
}

/// An alarm: a field without a value matches always.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alarm {
    pub hour: Option<u8>,
    pub minute: Option<u8>,
    pub second: Option<u8>,
}

impl Alarm {
    /// The first second after `secs` at which it goes off.
    pub fn next(self, secs: i64) -> Option<i64> {
        let from = secs.checked_add(1)?;
        let midnight = from - from.rem_euclid(SECS_PER_DAY);
        let today = self.at_or_after(from.rem_euclid(SECS_PER_DAY));
        match today {
            Some(time) => midnight.checked_add(time),
            None => midnight
                .checked_add(SECS_PER_DAY)?
                .checked_add(self.at_or_after(0)?),
        }
    }

    /// The first second of the day at or after `time` that matches.
    fn at_or_after(self, time: i64) -> Option<i64> {
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        // The same minute, else the same hour, else a later one.
        let here = first(self.second, second, 60).map(|s| (hour, minute, s));
        let here = here.filter(|_| matches(self.hour, hour) && matches(self.minute, minute));
        let this_hour = || {
            let m = first(self.minute, minute + 1, 60)?;
            let s = first(self.second, 0, 60)?;
            matches(self.hour, hour).then_some((hour, m, s))
        };
        let later = || {
            let h = first(self.hour, hour + 1, 24)?;
            Some((h, first(self.minute, 0, 60)?, first(self.second, 0, 60)?))
        };
        let (h, m, s) = here.or_else(this_hour).or_else(later)?;
        Some((h * 60 + m) * 60 + s)
    }
}

fn matches(field: Option<u8>, value: i64) -> bool {
    field.is_none_or(|field| i64::from(field) == value)
}

/// The field's first value from `from` on, below `end`.
fn first(field: Option<u8>, from: i64, end: i64) -> Option<i64> {
    let value = field.map_or(from, i64::from);
    (from..end).contains(&value).then_some(value)
}
