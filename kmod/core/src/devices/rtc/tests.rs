//! The RTC, along the MC146818A's datasheet.

use super::*;

/// 2024-02-29 23:59:58 UTC, a Thursday.
const LEAP_DAY: i64 = 1_709_251_198;
const START: Nanos = Nanos(10_000_000_000);
const MILLI: u64 = 1_000_000;

/// An RTC that shows [`LEAP_DAY`] for one second from `START`.
struct Bench {
    rtc: Rtc,
    now: Nanos,
    irqs: u32,
}

impl Bench {
    fn new() -> Self {
        Self {
            rtc: Rtc::new(LEAP_DAY, START),
            now: START,
            irqs: 0,
        }
    }

    /// Time passes until that many milliseconds after `START`.
    fn at(&mut self, millis: u64) -> &mut Self {
        self.until(START.after(millis * MILLI))
    }

    fn until(&mut self, now: Nanos) -> &mut Self {
        self.now = now;
        self.irqs += u32::from(self.rtc.advance(now));
        self
    }

    fn get(&mut self, offset: usize) -> u8 {
        self.until(self.now);
        self.rtc.select(offset as u8);
        self.rtc.read(self.now)
    }

    fn set(&mut self, offset: usize, value: u8) {
        self.until(self.now);
        self.rtc.select(offset as u8);
        self.irqs += u32::from(self.rtc.write(value, self.now));
    }

    fn time(&self) -> i64 {
        self.rtc.time(self.now)
    }

    /// Milliseconds from `START` to the deadline.
    fn deadline(&self) -> Option<u64> {
        self.rtc.deadline().map(|at| at.since(START) / MILLI)
    }

    fn irqs(&mut self) -> u32 {
        core::mem::take(&mut self.irqs)
    }

    fn fields(&mut self) -> [u8; 8] {
        [
            CENTURY,
            YEAR,
            MONTH,
            DAY,
            DAY_OF_WEEK,
            HOURS,
            MINUTES,
            SECONDS,
        ]
        .map(|n| self.get(n))
    }
}

#[test]
fn after_power_on_it_runs_in_bcd_and_24_hours() {
    let mut b = Bench::new();
    assert_eq!(b.fields(), [0x20, 0x24, 0x02, 0x29, 0x05, 0x23, 0x59, 0x58]);
    assert_eq!(b.get(REG_B), HOURS_24);
    assert_eq!(b.get(REG_D), VRT);
    b.at(999);
    assert_eq!(b.get(SECONDS), 0x58);
    b.at(1000);
    assert_eq!(b.get(SECONDS), 0x59);
    b.at(2000);
    assert_eq!(b.fields(), [0x20, 0x24, 0x03, 0x01, 0x06, 0x00, 0x00, 0x00]);
    assert_eq!(b.time(), LEAP_DAY + 2);
}

#[test]
fn binary_and_12_hour_formats() {
    let mut b = Bench::new();
    b.set(REG_B, DM_BINARY | HOURS_24);
    assert_eq!(b.fields(), [20, 24, 2, 29, 5, 23, 59, 58]);
    let mut hours = |b_reg, hour: i64| {
        b.rtc.set_time(hour * 3600, b.now).unwrap();
        b.set(REG_B, b_reg);
        b.get(HOURS)
    };
    for (hour, bcd, binary) in [
        (0, 0x12, 12),
        (1, 0x01, 1),
        (11, 0x11, 11),
        (12, 0x92, 0x8c),
        (13, 0x81, 0x81),
        (23, 0x91, 0x8b),
    ] {
        assert_eq!(hours(0, hour), bcd, "{hour}");
        assert_eq!(hours(DM_BINARY, hour), binary, "{hour}");
    }
}

#[test]
fn the_guest_sets_the_clock() {
    for (format, fields, secs) in [
        (
            HOURS_24,
            [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x30],
            946_684_770,
        ),
        (DM_BINARY, [20, 38, 1, 19, 3, 14, 7], 2_147_483_647),
        (0, [0x20, 0x38, 0x01, 0x19, 0x83, 0x14, 0x07], 2_147_526_847),
        (DM_BINARY | HOURS_24, [21, 0, 2, 28, 0, 0, 0], 4_107_456_000),
    ] {
        let mut b = Bench::new();
        b.set(REG_B, SET | format);
        for (offset, value) in [CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS]
            .into_iter()
            .zip(fields)
        {
            b.set(offset, value);
        }
        b.at(5000);
        assert_eq!(b.time(), -1, "halted");
        b.set(REG_B, format);
        assert_eq!(b.time(), secs);
        b.at(6000);
        assert_eq!(b.time(), secs + 1);
    }
}

#[test]
fn set_stops_updates_and_disables_their_interrupt() {
    let mut b = Bench::new();
    b.at(1500).set(REG_B, SET | UIE | HOURS_24);
    assert_eq!(b.get(REG_B), SET | HOURS_24);
    b.at(9000);
    assert_eq!(b.get(SECONDS), 0x59);
    assert_eq!(b.get(REG_A) & UIP, 0);
    assert_eq!(b.get(REG_C) & UF, UF, "that of the first second");
    b.at(20_000);
    assert_eq!(b.get(REG_C), 0);
    // It goes on from what the bytes say, at the divider chain's next second.
    b.at(20_300).set(REG_B, HOURS_24);
    b.at(20_999);
    assert_eq!(b.get(SECONDS), 0x59);
    b.at(21_000);
    assert_eq!(b.get(SECONDS), 0x00);
}

#[test]
fn fields_can_be_written_while_it_runs() {
    let mut b = Bench::new();
    b.at(400).set(HOURS, 0x07);
    assert_eq!(b.time(), LEAP_DAY - 16 * 3600);
    b.set(CENTURY, 0x19);
    // 1924 is before 1970: it stands still until the date is right.
    assert_eq!(b.time(), -1);
    b.at(9000);
    assert_eq!(b.get(SECONDS), 0x58);
    b.set(CENTURY, 0x20);
    assert_eq!(b.time(), LEAP_DAY - 16 * 3600);
    b.at(10_000);
    assert_eq!(b.get(SECONDS), 0x59);
}

#[test]
fn a_date_that_there_is_not_stops_it() {
    for (offset, value) in [
        (SECONDS, 0x60),
        (MINUTES, 0x60),
        (HOURS, 0x24),
        (DAY, 0x30),
        (DAY, 0x00),
        (MONTH, 0x13),
        (MONTH, 0x00),
        (YEAR, 0x23),
        (YEAR, 0x9a),
        (CENTURY, 0x1f),
    ] {
        let mut b = Bench::new();
        b.set(REG_B, SET | HOURS_24);
        b.set(offset, value);
        b.set(REG_B, HOURS_24);
        b.at(5000);
        assert_eq!(b.time(), -1, "{offset:#x} {value:#x}");
        assert_eq!(b.get(offset), value);
    }
    // The day of the week may be wrong.
    let mut b = Bench::new();
    b.set(REG_B, SET | HOURS_24);
    b.set(DAY_OF_WEEK, 0x01);
    b.set(REG_B, HOURS_24);
    assert_eq!(b.time(), LEAP_DAY);
    assert_eq!(b.get(DAY_OF_WEEK), 0x05);
}

#[test]
fn update_in_progress_is_up_2228_microseconds_before_an_update() {
    let mut b = Bench::new();
    let mut uip = |micros: u64| {
        b.until(START.after(micros * 1000));
        b.get(REG_A) & UIP != 0
    };
    assert!(!uip(997_771));
    assert!(uip(997_772));
    assert!(uip(999_999));
    assert!(!uip(1_000_000));
    assert!(!uip(1_997_771));
    assert!(uip(1_997_772));
    b.set(REG_A, UIP);
    assert_eq!(b.rtc.bytes[REG_A], 0, "can't be written");
}

#[test]
fn a_divider_held_in_reset_stops_everything() {
    let mut b = Bench::new();
    b.set(REG_B, PIE | UIE | HOURS_24);
    b.at(100).set(REG_A, 0x76);
    b.irqs();
    b.get(REG_C);
    b.at(10_000);
    assert_eq!((b.get(SECONDS), b.get(REG_C), b.irqs()), (0x58, 0, 0));
    assert_eq!(b.deadline(), None);
    assert_eq!(b.time(), LEAP_DAY);
    // The first update comes half a second after the release.
    b.set(REG_A, 0x20);
    assert_eq!(b.deadline(), Some(10_500));
    b.at(10_499);
    assert_eq!(b.get(SECONDS), 0x58);
    b.at(10_500);
    assert_eq!(b.get(SECONDS), 0x59);
}

#[test]
fn periodic_rates() {
    // The datasheet's table of rates, in crystal clocks of 1/32768 s.
    let clocks = [
        0, 128, 256, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384,
    ];
    for (rate, clocks) in clocks.into_iter().enumerate().skip(1) {
        let mut b = Bench::new();
        b.set(REG_A, 0x20 | rate as u8);
        b.set(REG_B, PIE | HOURS_24);
        for n in 1..10 {
            let due = START.after(CRYSTAL.nanos(n * clocks));
            assert_eq!(b.rtc.deadline(), Some(due), "rate {rate}");
            b.until(Nanos(due.0 - 1));
            assert_eq!(b.get(REG_C) & (IRQF | PF), 0);
            b.until(due);
            assert_eq!(b.irqs(), 1);
            assert_eq!(b.get(REG_C) & (IRQF | PF), IRQF | PF);
        }
    }
    let mut b = Bench::new();
    b.set(REG_B, PIE | HOURS_24);
    b.at(10_000);
    assert_eq!(b.get(REG_C) & PF, 0, "rate 0 is none");
}

#[test]
fn flags_come_without_their_enables_and_go_with_a_read() {
    let mut b = Bench::new();
    b.set(REG_A, 0x2f);
    b.at(600);
    assert_eq!(b.get(REG_C), PF);
    b.at(1100);
    assert_eq!(b.get(REG_C), PF | UF);
    assert_eq!(b.get(REG_C), 0);
    assert_eq!(b.irqs(), 0);
}

#[test]
fn an_enable_whose_flag_is_up_interrupts_at_once() {
    let mut b = Bench::new();
    b.at(1100).set(REG_B, UIE | HOURS_24);
    assert_eq!(b.irqs(), 1);
    assert_eq!(b.get(REG_C), IRQF | UF);
}

#[test]
fn the_irq_pin_stays_active_until_register_c_is_read() {
    let mut b = Bench::new();
    b.set(SECONDS_ALARM, 0x30);
    b.set(REG_B, UIE | HOURS_24);
    assert_eq!(b.deadline(), Some(1000));
    b.at(1000);
    assert_eq!(b.deadline(), None);
    b.at(2000).at(3000);
    assert_eq!(b.irqs(), 1);
    assert_eq!(b.get(REG_C), IRQF | UF);
    assert_eq!(b.deadline(), Some(4000));
    b.at(4000);
    assert_eq!(b.irqs(), 1);
    // Taking the enable away lets go of it, too.
    b.set(REG_B, HOURS_24);
    b.set(REG_B, UIE | HOURS_24);
    assert_eq!(b.irqs(), 1);
}

#[test]
fn the_alarm() {
    let mut b = Bench::new();
    for (offset, value) in [
        (HOURS_ALARM, 0x00),
        (MINUTES_ALARM, 0x01),
        (SECONDS_ALARM, 0x30),
    ] {
        b.set(offset, value);
        assert_eq!(b.get(offset), value);
    }
    b.set(REG_B, AIE | HOURS_24);
    assert_eq!(b.deadline(), Some(92_000));
    b.at(91_999);
    assert_eq!(b.irqs(), 0);
    b.at(92_000);
    assert_eq!(b.irqs(), 1);
    assert_eq!(b.get(REG_C), IRQF | AF | UF);
    assert_eq!(b.deadline(), Some(92_000 + 86_400_000), "a day later again");
    // However long nobody looked.
    b.at(92_000 + 1000 * 86_400_000);
    assert_eq!(b.irqs(), 1);
}

#[test]
fn alarms_in_every_format() {
    for (format, hour, minute, second) in [
        (HOURS_24, 0x23, 0x59, 0x59),
        (0, 0x91, 0x59, 0x59),
        (DM_BINARY, 0x8b, 59, 59),
        (DM_BINARY | HOURS_24, 23, 59, 59),
    ] {
        let mut b = Bench::new();
        b.set(HOURS_ALARM, hour);
        b.set(MINUTES_ALARM, minute);
        b.set(SECONDS_ALARM, second);
        b.set(REG_B, AIE | format);
        assert_eq!(b.deadline(), Some(1000), "{format:#x}");
    }
}

#[test]
fn alarm_bytes_from_c0_up_match_always() {
    let deadline = |hour, minute, second| {
        let mut b = Bench::new();
        b.set(HOURS_ALARM, hour);
        b.set(MINUTES_ALARM, minute);
        b.set(SECONDS_ALARM, second);
        b.set(REG_B, AIE | HOURS_24);
        b.deadline().map(|at| at / 1000)
    };
    // From 23:59:58, which is past when the alarm is looked for.
    assert_eq!(deadline(0xc0, 0xff, 0xc0), Some(1), "each second");
    assert_eq!(deadline(0xff, 0xff, 0x58), Some(60), "each minute");
    assert_eq!(deadline(0xff, 0x30, 0x10), Some(2 + 1810), "each hour");
    assert_eq!(deadline(0xff, 0xff, 0x00), Some(2));
    assert_eq!(deadline(0xff, 0x59, 0xff), Some(1));
    assert_eq!(deadline(0xff, 0x58, 0xff), Some(2 + 58 * 60));
    assert_eq!(deadline(0x01, 0xff, 0xff), Some(2 + 3600));
    assert_eq!(deadline(0x23, 0x59, 0x58), Some(86_400));
    // Times that there are not.
    for (hour, minute, second) in [
        (0x24, 0, 0),
        (0, 0x60, 0),
        (0, 0, 0x60),
        (0x0a, 0, 0),
        (0xbf, 0xff, 0xff),
    ] {
        assert_eq!(deadline(hour, minute, second), None);
    }
}

#[test]
fn reset_ends_interrupts_and_keeps_time_and_memory() {
    let mut b = Bench::new();
    b.set(REG_B, PIE | AIE | UIE | SQWE | HOURS_24);
    b.set(0x40, 0x5a);
    b.at(1500);
    b.rtc.reset();
    assert_eq!(b.get(REG_B), HOURS_24);
    assert_eq!(b.get(REG_C), 0);
    assert_eq!(b.deadline(), None);
    assert_eq!((b.get(0x40), b.get(SECONDS)), (0x5a, 0x59));
}

#[test]
fn memory_and_read_only_registers() {
    let mut b = Bench::new();
    for offset in (0x0e..0x80).filter(|&n| n != CENTURY) {
        b.set(offset, offset as u8 ^ 0xa5);
    }
    for offset in (0x0e..0x80).filter(|&n| n != CENTURY) {
        assert_eq!(b.get(offset), offset as u8 ^ 0xa5);
    }
    b.set(REG_C, 0xff);
    b.set(REG_D, 0);
    assert_eq!((b.get(REG_C), b.get(REG_D)), (0, VRT));
    b.set(SECONDS, 0xd9);
    assert_eq!(b.get(SECONDS), 0x59, "its upper bit can't be written");
    b.rtc.select(0x80 | 0x40);
    assert_eq!(
        b.rtc.read(b.now),
        0x40 ^ 0xa5,
        "bit 7 of the index is for NMIs"
    );
}

#[test]
fn userland_reads_all_bytes_and_writes_the_memory() {
    let mut b = Bench::new();
    b.at(1100);
    assert_eq!(b.rtc.nvram_read(0, b.now), Ok(0x59));
    assert_eq!(b.rtc.nvram_read(REG_C as i32, b.now), Ok(UF));
    assert_eq!(
        b.rtc.nvram_read(REG_C as i32, b.now),
        Ok(UF),
        "no side effect"
    );
    assert_eq!(b.rtc.nvram_read(127, b.now), Ok(0));
    for offset in [-1, 128, i32::MIN, i32::MAX] {
        assert_eq!(b.rtc.nvram_read(offset, b.now), Err(Errno::EINVAL));
        assert_eq!(b.rtc.nvram_write(offset, 1), Err(Errno::EINVAL));
    }
    for offset in (0..14).chain([0x32]) {
        assert_eq!(b.rtc.nvram_write(offset, 1), Err(Errno::EINVAL), "{offset}");
    }
    for offset in [14, 0x31, 0x33, 127] {
        assert_eq!(b.rtc.nvram_write(offset, 0x77), Ok(()));
        assert_eq!(b.get(offset as usize), 0x77);
    }
}

#[test]
fn userland_sets_the_time() {
    let mut b = Bench::new();
    b.at(700);
    assert_eq!(b.rtc.set_time(86_400, b.now), Ok(()));
    assert_eq!(b.fields(), [0x19, 0x70, 0x01, 0x02, 0x06, 0, 0, 0]);
    b.at(1699);
    assert_eq!(b.time(), 86_400);
    b.at(1700);
    assert_eq!(b.time(), 86_401);
    assert_eq!(b.rtc.set_time(-1, b.now), Err(Errno::EINVAL));
    b.set(REG_B, SET);
    assert_eq!(b.rtc.set_time(5, b.now), Err(Errno::EBUSY));
    b.set(REG_B, HOURS_24);
    assert_eq!(b.rtc.set_time(i64::MAX, b.now), Ok(()));
    b.until(Nanos(u64::MAX));
    b.fields();
}

#[test]
fn the_calendar_of_130_years_day_by_day() {
    // Counted the other way: day after day, month lengths and leap years as in a calendar.
    let (mut year, mut month, mut day) = (1970u16, 1u8, 1u8);
    for n in 0..130 * 366 {
        let secs = n * calendar::SECS_PER_DAY + 3661;
        let date = DateTime {
            year,
            month,
            day,
            hour: 1,
            minute: 1,
            second: 1,
        };
        assert_eq!(DateTime::from_secs(secs), date);
        assert_eq!(date.to_secs(), Some(secs));
        assert_eq!(DateTime::day_of_week(secs), ((n + 4) % 7 + 1) as u8);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + u8::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        (day, month) = if day < days {
            (day + 1, month)
        } else {
            (1, month + 1)
        };
        (month, year) = if month <= 12 {
            (month, year)
        } else {
            (1, year + 1)
        };
    }
}
