//! The HPET, along IA-PC HPET 1.0a.

use alloc::vec;
use alloc::vec::Vec;

use super::*;

const START: Nanos = Nanos(77_000);

// Timer configuration bits.
const LEVEL: u64 = 1 << 1;
const INT_ENB: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const VAL_SET: u64 = 1 << 6;
const MODE_32: u64 = 1 << 8;
const FSB_EN: u64 = 1 << 14;
const PIN_24: u64 = 24 << 9;

/// When the counter, started with 0 at `START`, comes to a value.
fn at(counter: u64) -> Nanos {
    START.after(HPET.nanos(counter))
}

/// An HPET and what it has put out.
struct Bench {
    hpet: Hpet,
    out: Vec<Output>,
}

impl Bench {
    fn new() -> Self {
        Self {
            hpet: Hpet::new(START),
            out: Vec::new(),
        }
    }

    /// With timers configured and set before the counter starts.
    fn started(timers: &[(u64, u64, u64)]) -> Self {
        let mut b = Self::new();
        for &(n, config, comparator) in timers {
            b.write(0x100 + 0x20 * n, config, START);
            b.write(0x108 + 0x20 * n, comparator, START);
        }
        b.write(CONFIG, ENABLE_CNF, START);
        b
    }

    fn write(&mut self, offset: u64, value: u64, now: Nanos) {
        self.write_bytes(offset, 8, value, now);
    }

    fn write_bytes(&mut self, offset: u64, bytes: u8, value: u64, now: Nanos) {
        self.advance(now);
        let out = &mut self.out;
        self.hpet
            .write(offset, bytes, value, now, &mut |o| out.push(o));
    }

    fn advance(&mut self, now: Nanos) {
        let out = &mut self.out;
        self.hpet.advance(now, &mut |o| out.push(o));
    }

    fn read(&mut self, offset: u64, now: Nanos) -> u64 {
        self.advance(now);
        self.hpet.read(offset, 8, now)
    }

    fn take(&mut self) -> Vec<Output> {
        core::mem::take(&mut self.out)
    }
}

fn line(route: Route, drive: Drive) -> Output {
    Output::Line { route, drive }
}

fn pulse(pin: u8) -> Vec<Output> {
    vec![line(Route::Ioapic(pin), Drive::Pulse)]
}

#[test]
fn its_capabilities() {
    let capabilities = Bench::new().read(0, START);
    assert_eq!(capabilities, Hpet::capabilities());
    assert_eq!(capabilities & 0xff, 1, "revision");
    assert_eq!(capabilities >> 8 & 0x1f, 7, "eight timers");
    assert_eq!(capabilities >> 13 & 1, 1, "64 bits");
    assert_eq!(capabilities >> 15 & 1, 1, "legacy replacement");
    assert_eq!(capabilities >> 16 & 0xffff, 0x8086);
    assert_eq!(capabilities >> 32, 59_604_644, "femtoseconds of 2^-24 s");
}

#[test]
fn a_timers_capabilities() {
    let mut b = Bench::new();
    for n in 0..8 {
        let config = b.read(0x100 + 0x20 * n, START);
        assert_eq!(
            config, 0xff00_0000_0000_8030,
            "inputs 24 to 31, FSB, 64 bits, periodic"
        );
        b.write(0x100 + 0x20 * n, 0, START);
        assert_eq!(b.read(0x100 + 0x20 * n, START), config);
    }
    assert_eq!(b.read(0x200, START), 0, "there is no ninth");
}

#[test]
fn the_counter_counts_while_it_is_enabled() {
    let mut b = Bench::new();
    assert_eq!(b.read(COUNTER, at(1000)), 0);
    b.write(CONFIG, ENABLE_CNF, START);
    assert_eq!(b.read(COUNTER, START.after(1_000_000_000)), 1 << 24);
    b.write(CONFIG, 0, at(5000));
    assert_eq!(b.read(COUNTER, at(9000)), 5000);
    b.write(COUNTER, 0x1_0000_0000, at(9000));
    b.write(CONFIG, ENABLE_CNF, at(9000));
    assert_eq!(
        b.read(COUNTER, Nanos(at(9000).0 + 59_605)),
        0x1_0000_0000 + 1000
    );
}

#[test]
fn registers_are_read_and_written_in_words_and_double_words() {
    let mut b = Bench::new();
    b.write_bytes(COUNTER + 4, 4, 0x1234_5678, START);
    b.write_bytes(COUNTER, 4, 0xffff_ffff_9abc_def0, START);
    assert_eq!(b.hpet.read(COUNTER, 8, START), 0x1234_5678_9abc_def0);
    assert_eq!(b.hpet.read(COUNTER, 4, START), 0x9abc_def0);
    assert_eq!(b.hpet.read(COUNTER + 4, 4, START), 0x1234_5678);
    for (offset, bytes) in [(1, 4), (2, 4), (4, 8), (0, 1), (0, 2)] {
        assert_eq!(b.hpet.read(COUNTER + offset, bytes, START), 0);
        b.write_bytes(COUNTER + offset, bytes, 0, START);
    }
    assert_eq!(b.hpet.read(COUNTER, 8, START), 0x1234_5678_9abc_def0);
}

#[test]
fn a_one_shot_timer_interrupts_at_its_value() {
    let mut b = Bench::started(&[(2, INT_ENB | PIN_24, 1000)]);
    assert_eq!(b.hpet.deadline(), Some(at(1000)));
    b.advance(Nanos(at(1000).0 - 1));
    assert_eq!(b.take(), vec![]);
    b.advance(at(1000));
    assert_eq!(b.take(), pulse(24));
    b.advance(at(1000));
    b.advance(at(100_000));
    assert_eq!(b.take(), vec![], "once");
    assert_eq!(b.read(STATUS, at(100_000)), 0, "edges leave no status");
    // Late is not never.
    b.write(0x148, 200_000, at(150_000));
    b.advance(at(1 << 40));
    assert_eq!(b.take(), pulse(24));
}

#[test]
fn a_value_that_is_passed_comes_again_only_when_the_counter_wraps() {
    let mut b = Bench::started(&[
        (2, INT_ENB | PIN_24, u64::MAX),
        (3, INT_ENB | MODE_32 | PIN_24, u64::MAX),
    ]);
    b.write(0x148, 500, at(1000));
    b.write(0x168, 500, at(1000));
    assert_eq!(
        b.hpet.deadline(),
        Some(at(500 + (1 << 32))),
        "that of 32 bits"
    );
    b.advance(at((1 << 32) + 499));
    assert_eq!(b.take(), vec![]);
    b.advance(at((1 << 32) + 500));
    assert_eq!(b.take(), pulse(24));
    b.advance(at((2 << 32) + 499));
    assert_eq!(b.take(), vec![]);
    b.advance(at((2 << 32) + 500));
    assert_eq!(
        b.take(),
        pulse(24),
        "a comparator of 32 bits matches at every wrap"
    );
}

#[test]
fn the_current_value_is_not_passed_yet() {
    let mut b = Bench::started(&[(2, INT_ENB | PIN_24, u64::MAX)]);
    b.write(0x148, 1000, at(1000));
    assert_eq!(b.take(), pulse(24));
}

#[test]
fn an_interrupt_needs_its_enable_and_a_route() {
    let mut b = Bench::started(&[(2, PIN_24, 1000), (3, INT_ENB, 1000)]);
    assert_eq!(b.hpet.deadline(), None);
    b.advance(at(2000));
    assert_eq!(b.take(), vec![]);
}

#[test]
fn only_the_offered_routes_can_be_chosen() {
    let mut b = Bench::new();
    for pin in 0..32 {
        b.write(0x140, pin << 9, START);
        let route = b.read(0x140, START) >> 9 & 0x1f;
        assert_eq!(route, if pin >= 24 { pin } else { 0 }, "{pin}");
    }
}

#[test]
fn a_periodic_timer_interrupts_with_each_period() {
    let mut b = Bench::started(&[]);
    b.write(0x140, INT_ENB | PERIODIC | VAL_SET | PIN_24, at(0));
    b.write(0x148, 5000, at(0));
    b.write(0x148, 100, at(0));
    assert_eq!(b.read(0x140, at(0)) & VAL_SET, 0, "clears itself");
    for n in 0..5 {
        let value = 5000 + 100 * n;
        assert_eq!(b.read(0x148, at(value - 1)), value);
        assert_eq!(b.hpet.deadline(), Some(at(value)));
        b.advance(at(value));
        assert_eq!(b.take(), pulse(24));
    }
    // Missed ones are one, and the next is in step.
    b.advance(at(1_000_042));
    assert_eq!(b.take(), pulse(24));
    assert_eq!(b.hpet.deadline(), Some(at(1_000_100)));
}

#[test]
fn without_val_set_a_write_changes_the_period_only() {
    let mut b = Bench::started(&[]);
    b.write(0x140, INT_ENB | PERIODIC | VAL_SET | PIN_24, at(0));
    b.write(0x148, 5000, at(0));
    b.write(0x148, 100, at(0));
    b.write(0x148, 300, at(10));
    assert_eq!(b.read(0x148, at(10)), 5000);
    b.advance(at(5000));
    assert_eq!(b.hpet.deadline(), Some(at(5300)));
}

#[test]
fn a_periodic_timer_that_is_set_too_late_starts_with_the_next_period() {
    for mode in [0, MODE_32] {
        let mut b = Bench::started(&[]);
        b.write(0x140, mode | INT_ENB | PERIODIC | VAL_SET | PIN_24, at(0));
        b.write(0x148, 5000, at(7777));
        b.write(0x148, 1000, at(7777));
        let deadline = b.hpet.deadline().unwrap();
        assert_eq!(deadline, at(8000), "{mode:#x}");
    }
}

#[test]
fn a_value_that_comes_between_the_two_stores_does_not_delay_the_second() {
    let mut b = Bench::started(&[]);
    b.write(0x140, INT_ENB | PERIODIC | VAL_SET | PIN_24, at(0));
    b.write(0x148, 5000, at(4900));
    b.write(0x148, 1000, at(6100));
    assert_eq!(b.take(), pulse(24));
    assert_eq!(b.hpet.deadline(), Some(at(7000)));
}

#[test]
fn one_store_with_val_set_is_value_and_period() {
    let mut b = Bench::new();
    b.write(0x140, INT_ENB | PERIODIC | VAL_SET | PIN_24, START);
    b.write(0x148, 5000, START);
    b.write(CONFIG, ENABLE_CNF, START);
    for n in 1..4 {
        b.advance(at(5000 * n));
        assert_eq!(b.take(), pulse(24));
        assert_eq!(b.hpet.deadline(), Some(at(5000 * (n + 1))));
    }
}

#[test]
fn a_32_bit_period_wraps_with_the_counter() {
    let mut b = Bench::new();
    b.write(
        0x140,
        INT_ENB | PERIODIC | VAL_SET | MODE_32 | PIN_24,
        START,
    );
    b.write(0x148, 0xffff_ff00, START);
    b.write(0x148, 0x200, START);
    b.write(COUNTER, 0xffff_fe00, START);
    b.write(CONFIG, ENABLE_CNF, START);
    b.advance(at(0x100));
    assert_eq!(b.take(), pulse(24));
    assert_eq!(b.read(0x148, at(0x100)), 0x100);
    assert_eq!(b.hpet.deadline(), Some(at(0x300)));
    b.advance(at(0x300));
    assert_eq!(b.take(), pulse(24));
}

#[test]
fn a_32_bit_comparator_has_no_upper_half() {
    let mut b = Bench::new();
    assert_eq!(b.read(0x148, START), u64::MAX);
    b.write(0x140, MODE_32, START);
    assert_eq!(b.read(0x148, START), 0xffff_ffff);
    b.write(0x148, 0x1_2345_6789, START);
    assert_eq!(b.read(0x148, START), 0x2345_6789);
    b.write(0x140, 0, START);
    b.write_bytes(0x14c, 4, 7, START);
    assert_eq!(b.read(0x148, START), 0x7_2345_6789);
}

#[test]
fn a_level_is_held_until_its_status_is_cleared() {
    let mut b = Bench::started(&[(2, LEVEL | INT_ENB | PERIODIC | VAL_SET | PIN_24, 1000)]);
    let pin = Route::Ioapic(24);
    b.advance(at(1000));
    assert_eq!(b.take(), vec![line(pin, Drive::Assert)]);
    assert_eq!(b.read(STATUS, at(1500)), 1 << 2);
    assert_eq!(
        b.hpet.deadline(),
        None,
        "until then there is nothing new to say"
    );
    b.advance(at(2000));
    assert_eq!(b.take(), vec![]);
    b.write(STATUS, 0xff & !(1 << 2), at(2500));
    assert_eq!(b.take(), vec![]);
    b.write(STATUS, 1 << 2, at(2500));
    assert_eq!(b.take(), vec![line(pin, Drive::Deassert)]);
    assert_eq!(b.read(STATUS, at(2500)), 0);
    assert_eq!(b.hpet.deadline(), Some(at(3000)));
    b.advance(at(3000));
    assert_eq!(b.take(), vec![line(pin, Drive::Assert)]);
}

#[test]
fn a_held_level_follows_its_configuration() {
    let held = LEVEL | INT_ENB | PIN_24;
    let (down, up) = (Drive::Deassert, Drive::Assert);
    let pin = Route::Ioapic;
    let mut b = Bench::started(&[(2, held, 1000)]);
    b.advance(at(1000));
    b.take();
    b.write(0x140, LEVEL | INT_ENB | 25 << 9, at(1001));
    assert_eq!(b.take(), vec![line(pin(24), down), line(pin(25), up)]);
    b.write(0x140, LEVEL | 25 << 9, at(1001));
    assert_eq!(b.take(), vec![line(pin(25), down)]);
    b.write(0x140, held, at(1001));
    assert_eq!(b.take(), vec![line(pin(24), up)]);
    b.write(CONFIG, 0, at(1002));
    assert_eq!(b.take(), vec![line(pin(24), down)]);
    b.write(CONFIG, ENABLE_CNF, at(1002));
    assert_eq!(b.take(), vec![line(pin(24), up)]);
    b.write(0x140, INT_ENB | PIN_24, at(1003));
    assert_eq!(b.take(), vec![line(pin(24), down)]);
    assert_eq!(b.read(STATUS, at(1003)), 0, "an edge has no status");
    b.write(0x140, held, at(1003));
    b.write(0x148, 2000, at(1003));
    b.advance(at(2000));
    b.take();
    b.write(0x140, held | FSB_EN, at(2000));
    assert_eq!(b.take(), vec![line(pin(24), down)], "nor has a message");
}

#[test]
fn fsb_delivery_sends_the_timers_message() {
    let mut b = Bench::new();
    b.write_bytes(0x150, 4, 0x4031, START);
    b.write_bytes(0x154, 4, 0xfee0_1000, START);
    assert_eq!(b.read(0x150, START), 0xfee0_1000_0000_4031);
    b.write(0x140, LEVEL | INT_ENB | FSB_EN | PIN_24, START);
    b.write(0x148, 1000, START);
    b.write(CONFIG, ENABLE_CNF, START);
    assert_eq!(b.hpet.deadline(), Some(at(1000)));
    b.advance(at(1000));
    let (address, data) = (0xfee0_1000, 0x4031);
    assert_eq!(b.take(), vec![Output::Message { address, data }]);
    assert_eq!(b.read(STATUS, at(1000)), 0);
}

#[test]
fn legacy_replacement_takes_the_places_of_pit_and_rtc() {
    let mut b = Bench::new();
    for n in 0..3 {
        // Routes and messages of the first two don't matter.
        let config = INT_ENB | PIN_24 | if n == 1 { FSB_EN } else { 0 };
        b.write(0x100 + 0x20 * n, config, START);
        b.write(0x108 + 0x20 * n, 1000 + n, START);
    }
    b.write(CONFIG, LEG_RT_CNF, START);
    assert!(!b.hpet.replaces_legacy(), "not while it is halted");
    b.write(CONFIG, LEG_RT_CNF | ENABLE_CNF, START);
    assert!(b.hpet.replaces_legacy());
    for (n, route) in [(0, Route::Irq0), (1, Route::Irq8), (2, Route::Ioapic(24))] {
        assert_eq!(b.hpet.deadline(), Some(at(1000 + n)));
        b.advance(at(1000 + n));
        assert_eq!(b.take(), vec![line(route, Drive::Pulse)]);
    }
    b.write(CONFIG, ENABLE_CNF, at(2000));
    b.write(0x108, 3000, at(2000));
    b.advance(at(3000));
    assert_eq!(b.take(), pulse(24));
}

#[test]
fn halting_loses_and_repeats_nothing() {
    let mut b = Bench::started(&[(2, INT_ENB | PIN_24, 1000)]);
    b.write(CONFIG, 0, at(1000));
    assert_eq!(b.take(), pulse(24), "what was due comes before the halt");
    b.write(CONFIG, ENABLE_CNF, at(5000));
    b.advance(at(5000));
    assert_eq!(b.take(), vec![]);
    assert_eq!(b.read(COUNTER, at(5000)), 1000);
}

#[test]
fn the_end_of_time_is_no_deadline() {
    let mut b = Bench::started(&[(2, INT_ENB | PIN_24, u64::MAX)]);
    assert_eq!(b.hpet.deadline(), None);
    b.write(0x148, u64::MAX - 1, at(0));
    assert_eq!(b.hpet.deadline(), None);
    b.advance(Nanos(u64::MAX));
    assert_eq!(b.take(), vec![]);
    // The shortest period, a long time later.
    let mut b = Bench::started(&[(2, INT_ENB | PERIODIC | VAL_SET | PIN_24, 1)]);
    b.advance(Nanos(u64::MAX));
    assert_eq!(b.take(), pulse(24));
}
