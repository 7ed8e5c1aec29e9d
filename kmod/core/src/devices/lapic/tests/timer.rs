//! SDM vol. 3A, 11.5.4: the timer.

use super::*;

const LVT: u16 = 0x320;
const INITIAL: u16 = 0x380;
const CURRENT: u16 = 0x390;
const DIVIDE: u16 = 0x3e0;
const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 2 << 17;
/// Divide by 1: 128 ticks are a microsecond.
const BY_1: u32 = 0xb;
const MICROSECOND: u64 = 1_000;

impl Bench {
    /// Unmasked with vector 0x40, not yet counting.
    fn timer(mode: u32) -> Self {
        let mut bench = Self::new(0);
        let _ = bench.write(DIVIDE, BY_1);
        let _ = bench.write(LVT, mode | 0x40);
        bench
    }

    /// The host's timer goes off: whether the guest gets its interrupt.
    fn wake(&mut self) -> bool {
        self.inbox.signal(Signal::Timer);
        assert!(self.accept().timer, "the host's timer is to be set again");
        let taken = self.take();
        if taken.is_some() {
            assert_eq!(taken, Some(0x40));
            let _ = self.write(0xb0, 0);
        }
        taken.is_some()
    }

    fn due_in(&self) -> Option<u64> {
        Some(self.apic.deadline()?.since(self.clock.now))
    }
}

#[test]
fn one_shot_counts_to_zero_once() {
    let mut bench = Bench::timer(0);
    assert_eq!(bench.apic.deadline(), None);
    assert_eq!(bench.write(INITIAL, 128_000), ApicEffect::Timer);
    assert_eq!(bench.due_in(), Some(1000 * MICROSECOND));
    bench.pass(250 * MICROSECOND);
    assert_eq!(bench.read(CURRENT), 96_000);
    bench.pass(749 * MICROSECOND);
    assert_eq!(bench.read(CURRENT), 128);
    assert!(!bench.wake(), "early");
    assert_eq!(bench.due_in(), Some(MICROSECOND));
    bench.pass(MICROSECOND);
    assert!(bench.wake());
    assert_eq!(bench.read(CURRENT), 0);
    assert_eq!(bench.read(INITIAL), 128_000);
    assert_eq!(bench.apic.deadline(), None);
    bench.pass(5000 * MICROSECOND);
    assert!(!bench.wake());
}

#[test]
fn every_divide_configuration() {
    for (divide, by) in [
        (0, 2),
        (1, 4),
        (2, 8),
        (3, 16),
        (8, 32),
        (9, 64),
        (10, 128),
        (11, 1),
    ] {
        let mut bench = Bench::timer(0);
        let _ = bench.write(DIVIDE, divide | 0x4);
        assert_eq!(bench.read(DIVIDE), divide);
        let _ = bench.write(INITIAL, 128_000);
        assert_eq!(bench.due_in(), Some(1000 * MICROSECOND * by), "{divide}");
    }
}

#[test]
fn a_new_initial_count_starts_anew_and_zero_stops() {
    let mut bench = Bench::timer(0);
    let _ = bench.write(INITIAL, 12_800);
    bench.pass(99 * MICROSECOND);
    assert_eq!(bench.write(INITIAL, 25_600), ApicEffect::Timer);
    assert_eq!(bench.due_in(), Some(200 * MICROSECOND));
    assert_eq!(bench.read(CURRENT), 25_600);
    assert_eq!(bench.write(INITIAL, 0), ApicEffect::Timer);
    assert_eq!(bench.apic.deadline(), None);
    assert_eq!(bench.read(CURRENT), 0);
    bench.pass(1000 * MICROSECOND);
    assert!(!bench.wake());
}

#[test]
fn another_divisor_lets_the_count_go_on() {
    let mut bench = Bench::timer(0);
    let _ = bench.write(INITIAL, 128_000);
    bench.pass(500 * MICROSECOND);
    let _ = bench.write(DIVIDE, 0);
    assert_eq!(bench.read(CURRENT), 64_000);
    assert_eq!(bench.due_in(), Some(1000 * MICROSECOND));
    bench.pass(10 * MICROSECOND);
    assert_eq!(bench.read(CURRENT), 64_000 - 640);
}

#[test]
fn periodic_keeps_its_phase() {
    let mut bench = Bench::timer(PERIODIC);
    // 125000125/16 ns: no whole number.
    let count = 1_000_001;
    let _ = bench.write(INITIAL, count);
    let begin = bench.clock.now;
    for n in 1..=1000u64 {
        // Woken late by up to a tenth of the period.
        let deadline = bench.apic.deadline().unwrap();
        let exact = n * u64::from(count) * 125;
        assert_eq!(deadline.since(begin), exact.div_ceil(16), "the {n}th");
        bench.pass(deadline.since(bench.clock.now) + n % 7 * 100_000);
        assert!(bench.wake());
        assert!(!bench.wake(), "once a period");
    }
    let _ = bench.write(INITIAL, 0);
    assert_eq!(bench.apic.deadline(), None);
}

#[test]
fn periodic_count_reloads() {
    let mut bench = Bench::timer(PERIODIC);
    let _ = bench.write(INITIAL, 128_000);
    bench.pass(3250 * MICROSECOND);
    assert_eq!(bench.read(CURRENT), 96_000);
}

#[test]
fn a_late_periodic_timer_raises_one_interrupt_and_goes_on_in_phase() {
    let mut bench = Bench::timer(PERIODIC);
    let _ = bench.write(INITIAL, 128_000);
    // A day and a half period: 86 million periods, without a loop over them.
    bench.pass(86_400 * 1_000_000_000 + 500 * MICROSECOND);
    assert!(bench.wake());
    assert!(!bench.wake());
    assert_eq!(bench.due_in(), Some(500 * MICROSECOND));
}

#[test]
fn a_period_too_short_for_the_host_is_stretched() {
    let mut bench = Bench::timer(PERIODIC);
    let _ = bench.write(INITIAL, 1);
    for _ in 0..3 {
        let due = bench.due_in().unwrap();
        assert_eq!(due, 50 * MICROSECOND);
        bench.pass(due);
        assert!(bench.wake());
    }
    // A single short shot is as short as it is.
    let mut bench = Bench::timer(0);
    let _ = bench.write(INITIAL, 128);
    assert_eq!(bench.due_in(), Some(MICROSECOND));
}

#[test]
fn a_masked_timer_counts_and_wakes_nobody() {
    let mut bench = Bench::timer(PERIODIC);
    let _ = bench.write(INITIAL, 128_000);
    assert_eq!(
        bench.write(LVT, PERIODIC | MASKED | 0x40),
        ApicEffect::Timer
    );
    assert_eq!(bench.apic.deadline(), None);
    bench.pass(2500 * MICROSECOND);
    assert_eq!(bench.read(CURRENT), 64_000);
    assert_eq!(bench.write(LVT, PERIODIC | 0x40), ApicEffect::Timer);
    assert_eq!(
        bench.apic.pending(),
        None,
        "what passed while masked is lost"
    );
    assert_eq!(bench.due_in(), Some(500 * MICROSECOND));

    let mut bench = Bench::timer(MASKED);
    let _ = bench.write(INITIAL, 128_000);
    bench.pass(1000 * MICROSECOND);
    let _ = bench.write(LVT, 0x40);
    assert_eq!(bench.apic.pending(), None);
    assert_eq!(bench.apic.deadline(), None);
    // Expired before it is masked, though nobody has looked yet.
    let mut bench = Bench::timer(0);
    let _ = bench.write(INITIAL, 128_000);
    bench.pass(1000 * MICROSECOND);
    let _ = bench.write(LVT, MASKED | 0x40);
    assert_eq!(bench.apic.pending(), Some(Vector(0x40)));
}

#[test]
fn software_disable_masks_the_timer() {
    let mut bench = Bench::timer(PERIODIC);
    let _ = bench.write(INITIAL, 128_000);
    assert_eq!(bench.write(0xf0, 0xff), ApicEffect::Timer);
    assert_eq!(bench.apic.deadline(), None);
    assert_eq!(bench.write(LVT, PERIODIC | 0x40), ApicEffect::None);
    assert_eq!(bench.read(LVT), PERIODIC | MASKED | 0x40);
    bench.enable();
    assert_eq!(bench.apic.deadline(), None);
    let _ = bench.write(LVT, PERIODIC | 0x40);
    assert_eq!(bench.due_in(), Some(1000 * MICROSECOND));
}

#[test]
fn tsc_deadline_fires_once_when_the_tsc_gets_there() {
    let mut bench = Bench::timer(TSC_DEADLINE);
    bench.clock.guest_tsc = 1_000;
    assert_eq!(
        bench.apic.set_tsc_deadline(5_001, &bench.clock),
        ApicEffect::Timer
    );
    assert_eq!(bench.apic.tsc_deadline(&bench.clock), 5_001);
    // 4001 ticks at 2 GHz, rounded up.
    assert_eq!(bench.due_in(), Some(2_001));
    bench.pass(2_000);
    assert!(!bench.wake());
    assert_eq!(bench.due_in(), Some(1));
    bench.pass(1);
    assert_eq!(bench.apic.tsc_deadline(&bench.clock), 0);
    assert!(bench.wake());
    assert_eq!(bench.apic.deadline(), None);
    bench.pass(10_000);
    assert!(!bench.wake());
    // In the past: at once.
    assert_eq!(
        bench.apic.set_tsc_deadline(77, &bench.clock),
        ApicEffect::None
    );
    assert_eq!(bench.take(), Some(0x40));
    // 0 disarms.
    let _ = bench.apic.set_tsc_deadline(1 << 40, &bench.clock);
    assert_eq!(
        bench.apic.set_tsc_deadline(0, &bench.clock),
        ApicEffect::Timer
    );
    assert_eq!(bench.apic.deadline(), None);
}

#[test]
fn a_far_tsc_deadline_is_armed_piece_by_piece() {
    let mut bench = Bench::timer(TSC_DEADLINE);
    for deadline in [u64::MAX, 3_600 * 3 * TSC_HZ] {
        let _ = bench.apic.set_tsc_deadline(deadline, &bench.clock);
        assert_eq!(bench.due_in(), Some(3_600_000_000_000));
    }
    for _ in 0..2 {
        bench.pass(3_600_000_000_000);
        assert!(!bench.wake());
        assert_eq!(bench.due_in(), Some(3_600_000_000_000));
    }
    bench.pass(3_600_000_000_000);
    assert!(bench.wake());
}

#[test]
fn an_inbox_message_does_not_move_a_deadline() {
    let mut bench = Bench::timer(TSC_DEADLINE);
    let _ = bench.apic.set_tsc_deadline(9_999, &bench.clock);
    let deadline = bench.apic.deadline();
    bench.clock.now = bench.clock.now.after(100);
    bench.clock.guest_tsc += 150;
    bench.inbox.post(Vector(0x99), Trigger::Edge);
    assert!(!bench.accept().timer);
    assert_eq!(bench.apic.deadline(), deadline);
}

#[test]
fn the_deadline_follows_the_tsc() {
    let mut bench = Bench::timer(TSC_DEADLINE);
    let _ = bench.apic.set_tsc_deadline(1_000_000, &bench.clock);
    bench.clock.guest_tsc = 990_000;
    assert_eq!(bench.apic.tsc_moved(&bench.clock), ApicEffect::Timer);
    assert_eq!(bench.due_in(), Some(5_000));
    bench.clock.guest_tsc = 2_000_000;
    assert_eq!(bench.apic.tsc_moved(&bench.clock), ApicEffect::Timer);
    assert_eq!(bench.take(), Some(0x40));
}

#[test]
fn the_modes_do_not_mix() {
    // In TSC-deadline mode the counts are not there.
    let mut bench = Bench::timer(TSC_DEADLINE);
    assert_eq!(bench.write(INITIAL, 1000), ApicEffect::None);
    assert_eq!(bench.read(INITIAL), 0);
    assert_eq!(bench.read(CURRENT), 0);
    // In the others the deadline is not.
    let mut bench = Bench::timer(0);
    let _ = bench.write(INITIAL, 128_000);
    assert_eq!(
        bench.apic.set_tsc_deadline(5, &bench.clock),
        ApicEffect::None
    );
    assert_eq!(bench.apic.tsc_deadline(&bench.clock), 0);
    assert_eq!(bench.apic.pending(), None);
    // Going over disarms, both ways.
    assert_eq!(bench.write(LVT, TSC_DEADLINE | 0x40), ApicEffect::Timer);
    assert_eq!(bench.apic.deadline(), None);
    let _ = bench.apic.set_tsc_deadline(1 << 30, &bench.clock);
    assert_eq!(bench.write(LVT, PERIODIC | 0x40), ApicEffect::Timer);
    assert_eq!(bench.apic.deadline(), None);
    let _ = bench.write(LVT, TSC_DEADLINE | 0x40);
    assert_eq!(bench.apic.deadline(), None);
    assert_eq!(bench.apic.tsc_deadline(&bench.clock), 0);
    // Between one-shot and periodic the count goes on.
    let mut bench = Bench::timer(0);
    let _ = bench.write(INITIAL, 128_000);
    bench.pass(500 * MICROSECOND);
    let _ = bench.write(LVT, PERIODIC | 0x40);
    assert_eq!(bench.read(CURRENT), 64_000);
    bench.pass(1000 * MICROSECOND);
    assert!(bench.wake());
    assert_eq!(bench.due_in(), Some(500 * MICROSECOND));
    // Mode 3 is none.
    let _ = bench.write(LVT, 3 << 17 | 0x40);
    assert_eq!(bench.apic.deadline(), None);
}

#[test]
fn the_longest_count() {
    let mut bench = Bench::timer(0);
    let _ = bench.write(DIVIDE, 10);
    let _ = bench.write(INITIAL, u32::MAX);
    // 2^32 · 128 ticks are 4295 s: the host is woken between.
    assert_eq!(bench.due_in(), Some(3_600_000_000_000));
    bench.pass(3_600_000_000_000);
    assert!(!bench.wake());
    bench.pass(bench.due_in().unwrap());
    assert!(bench.wake());
    assert_eq!(bench.clock.now.0 - 1_000_000, 4_294_967_295_000);
}
