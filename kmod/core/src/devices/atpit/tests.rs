//! The 8254, along Intel 231164: each mode's waveform clock by clock, then the registers.

use alloc::string::String;
use alloc::vec::Vec;

use super::counter::{Counter, Tick};
use super::*;

// Control words of counter 0: both bytes, binary.
const MODE: [u8; 6] = [0x30, 0x32, 0x34, 0x36, 0x38, 0x3a];
const BCD: u8 = 0x01;
const LATCH: u8 = 0x00;

/// A counter in a mode, GATE high, in clock 0.
fn counter(control: u8) -> Counter {
    let mut counter = Counter::new(true);
    counter.control(control, 0);
    counter
}

fn load(counter: &mut Counter, count: u16, now: Tick) {
    let [low, high] = count.to_le_bytes();
    counter.settle(now);
    counter.write(low, now);
    counter.write(high, now);
}

fn gate(counter: &mut Counter, high: bool, now: Tick) {
    counter.settle(now);
    counter.set_gate(high, now);
}

fn count(counter: &Counter, now: Tick) -> u16 {
    let mut latched = *counter;
    latched.latch_count(now);
    u16::from_le_bytes([latched.read(now), latched.read(now)])
}

/// OUT in each clock of a range: `_` is low.
fn wave(counter: &Counter, clocks: core::ops::Range<Tick>) -> String {
    clocks
        .map(|t| if counter.out(t) { '#' } else { '_' })
        .collect()
}

fn counts(counter: &Counter, clocks: core::ops::Range<Tick>) -> Vec<u16> {
    clocks.map(|t| count(counter, t)).collect()
}

#[test]
fn mode_0_rises_once_n_plus_1_clocks_after_the_count() {
    let mut c = counter(MODE[0]);
    assert_eq!(wave(&c, 0..3), "___", "low from the control word on");
    load(&mut c, 4, 0);
    assert_eq!(wave(&c, 0..8), "_____###");
    assert_eq!(counts(&c, 1..8), [4, 3, 2, 1, 0, 0xffff, 0xfffe]);
    // A new count starts over.
    load(&mut c, 2, 10);
    assert_eq!(wave(&c, 10..15), "___##");
}

#[test]
fn mode_0_stops_with_the_first_byte_of_a_new_count() {
    let mut c = counter(MODE[0]);
    load(&mut c, 4, 0);
    c.write(5, 2);
    assert_eq!(wave(&c, 2..20), "_".repeat(18));
    c.write(0, 20);
    assert_eq!(wave(&c, 20..28), "______##");
}

#[test]
fn mode_0_counts_only_while_gate_is_high() {
    let mut c = counter(MODE[0]);
    load(&mut c, 4, 0);
    gate(&mut c, false, 3);
    assert_eq!(counts(&c, 3..6), [2, 2, 2]);
    gate(&mut c, true, 10);
    assert_eq!(counts(&c, 10..13), [2, 1, 0]);
    assert_eq!(wave(&c, 10..14), "__##");
    // GATE has no effect on OUT, and one that is low at first holds the count.
    gate(&mut c, false, 14);
    assert_eq!(wave(&c, 14..16), "##");
    load(&mut c, 3, 20);
    assert_eq!(counts(&c, 20..23), [3, 3, 3]);
    gate(&mut c, true, 30);
    assert_eq!(wave(&c, 30..35), "___##", "N clocks, none to load");
}

#[test]
fn mode_1_is_low_for_n_clocks_after_a_trigger() {
    let mut c = counter(MODE[1]);
    load(&mut c, 3, 0);
    assert_eq!(wave(&c, 0..9), "#########", "no trigger, no pulse");
    gate(&mut c, false, 10);
    gate(&mut c, true, 11);
    assert_eq!(wave(&c, 11..17), "#___##");
    // Without a new count it can be triggered again, during the pulse too.
    gate(&mut c, false, 20);
    gate(&mut c, true, 20);
    gate(&mut c, false, 22);
    assert_eq!(wave(&c, 20..23), "#__");
    gate(&mut c, true, 22);
    assert_eq!(wave(&c, 22..28), "____##");
}

#[test]
fn mode_1_takes_a_new_count_with_the_next_trigger() {
    let mut c = counter(MODE[1]);
    load(&mut c, 3, 0);
    gate(&mut c, false, 1);
    gate(&mut c, true, 1);
    load(&mut c, 5, 2);
    assert_eq!(wave(&c, 1..7), "#___##");
    gate(&mut c, false, 10);
    gate(&mut c, true, 10);
    assert_eq!(wave(&c, 10..18), "#_____##");
}

#[test]
fn mode_2_is_low_for_the_last_clock_of_every_n() {
    let mut c = counter(MODE[2]);
    load(&mut c, 3, 0);
    assert_eq!(wave(&c, 0..11), "###_##_##_#");
    assert_eq!(counts(&c, 1..8), [3, 2, 1, 3, 2, 1, 3]);
}

#[test]
fn mode_2_takes_a_new_count_at_the_end_of_the_cycle() {
    let mut c = counter(MODE[2]);
    load(&mut c, 3, 0);
    load(&mut c, 5, 2);
    assert_eq!(counts(&c, 2..10), [2, 1, 5, 4, 3, 2, 1, 5]);
    assert_eq!(wave(&c, 0..15), "###_####_####_#");
}

#[test]
fn mode_2_stops_high_with_gate_and_starts_over_with_it() {
    let mut c = counter(MODE[2]);
    load(&mut c, 3, 0);
    gate(&mut c, false, 3);
    assert_eq!(wave(&c, 3..9), "######");
    gate(&mut c, true, 9);
    assert_eq!(wave(&c, 9..14), "###_#");
}

#[test]
fn mode_3_is_high_for_half_of_an_even_count() {
    let mut c = counter(MODE[3]);
    load(&mut c, 4, 0);
    assert_eq!(wave(&c, 0..11), "###__##__##");
    assert_eq!(counts(&c, 1..7), [4, 2, 4, 2, 4, 2]);
}

#[test]
fn mode_3_is_high_for_the_larger_part_of_an_odd_count() {
    let mut c = counter(MODE[3]);
    load(&mut c, 5, 0);
    assert_eq!(wave(&c, 0..13), "####__###__##");
    assert_eq!(counts(&c, 1..8), [4, 2, 0, 4, 2, 4, 2]);
}

#[test]
fn mode_3_takes_a_new_count_at_the_end_of_the_half_cycle() {
    let mut c = counter(MODE[3]);
    load(&mut c, 4, 0);
    load(&mut c, 6, 1);
    assert_eq!(
        wave(&c, 0..14),
        "###___###___##",
        "low half with the new count"
    );
    let mut c = counter(MODE[3]);
    load(&mut c, 4, 0);
    load(&mut c, 6, 3);
    assert_eq!(
        wave(&c, 0..13),
        "###__###___##",
        "high half with the new count"
    );
}

#[test]
fn mode_3_stops_high_with_gate_and_starts_over_with_it() {
    let mut c = counter(MODE[3]);
    load(&mut c, 4, 0);
    gate(&mut c, false, 3);
    assert_eq!(wave(&c, 3..8), "#####");
    gate(&mut c, true, 8);
    assert_eq!(wave(&c, 8..14), "###__#");
}

#[test]
fn mode_4_strobes_once_n_plus_1_clocks_after_the_count() {
    let mut c = counter(MODE[4]);
    load(&mut c, 3, 0);
    assert_eq!(wave(&c, 0..8), "####_###");
    assert_eq!(counts(&c, 1..6), [3, 2, 1, 0, 0xffff]);
    load(&mut c, 2, 10);
    load(&mut c, 2, 12);
    assert_eq!(wave(&c, 10..18), "#####_##", "a new count starts over");
}

#[test]
fn mode_4_counts_only_while_gate_is_high() {
    let mut c = counter(MODE[4]);
    load(&mut c, 3, 0);
    gate(&mut c, false, 2);
    gate(&mut c, true, 8);
    assert_eq!(wave(&c, 8..13), "##_##");
    gate(&mut c, false, 13);
    assert_eq!(wave(&c, 13..15), "##");
}

#[test]
fn mode_5_strobes_n_plus_1_clocks_after_each_trigger() {
    let mut c = counter(MODE[5]);
    load(&mut c, 3, 0);
    assert_eq!(wave(&c, 0..9), "#########");
    gate(&mut c, false, 10);
    gate(&mut c, true, 10);
    assert_eq!(wave(&c, 10..17), "####_##");
    gate(&mut c, false, 12);
    gate(&mut c, true, 12);
    assert_eq!(wave(&c, 10..19), "######_##");
}

#[test]
fn edges_are_announced_in_every_mode() {
    for control in MODE {
        for n in [2, 3, 4, 7] {
            let mut c = counter(control);
            load(&mut c, n, 0);
            gate(&mut c, false, 2);
            gate(&mut c, true, 4);
            load(&mut c, n + 3, 7);
            for t in 7..60 {
                let next = (t + 1..80).find(|&t| !c.out(t - 1) && c.out(t));
                assert_eq!(c.next_rise(t), next, "{control:#x}, N {n}, clock {t}");
            }
        }
    }
}

#[test]
fn modes_6_and_7_are_2_and_3() {
    for (mode, same) in [(0x3c, MODE[2]), (0x3e, MODE[3])] {
        let (mut a, mut b) = (counter(mode), counter(same));
        load(&mut a, 6, 0);
        load(&mut b, 6, 0);
        assert_eq!(wave(&a, 0..20), wave(&b, 0..20));
    }
}

#[test]
fn a_count_of_0_is_the_largest() {
    let mut c = counter(MODE[2]);
    load(&mut c, 0, 0);
    assert_eq!(c.next_rise(0), Some(65_537));
    assert_eq!(counts(&c, 1..3), [0, 0xffff]);
    let mut c = counter(MODE[2] | BCD);
    load(&mut c, 0, 0);
    assert_eq!(c.next_rise(0), Some(10_001));
    assert_eq!(counts(&c, 1..3), [0, 0x9999]);
}

#[test]
fn a_periodic_count_of_1_is_2() {
    for (mode, waves) in [(MODE[2], "##_#_#_#"), (MODE[3], "##_#_#_#")] {
        let mut c = counter(mode);
        load(&mut c, 1, 0);
        assert_eq!(wave(&c, 0..8), waves);
    }
}

#[test]
fn bcd_counts_in_decimal() {
    let mut c = counter(MODE[0] | BCD);
    load(&mut c, 0x1000, 0);
    assert_eq!(counts(&c, 1..3), [0x1000, 0x0999]);
    assert_eq!(c.next_rise(0), Some(1001));
    assert_eq!(counts(&c, 1001..1003), [0, 0x9999]);
}

#[test]
fn one_byte_of_a_count_is_the_other_with_0() {
    // Least significant byte only.
    let mut c = counter(0x14);
    c.write(5, 0);
    assert_eq!(c.next_rise(0), Some(6));
    assert_eq!([c.read(1), c.read(2), c.read(3)], [5, 4, 3]);
    // Most significant byte only.
    let mut c = counter(0x24);
    c.write(5, 0);
    assert_eq!(c.next_rise(0), Some(0x501));
    assert_eq!([c.read(1), c.read(2)], [5, 4]);
    c.latch_count(3);
    assert_eq!(c.read(0x280), 4, "a latched byte");
    assert_eq!(c.read(0x280), 2, "one read of it is enough");
}

#[test]
fn without_a_latch_reads_follow_the_count() {
    let mut c = counter(MODE[2]);
    load(&mut c, 0x1234, 0);
    assert_eq!([c.read(1), c.read(1)], [0x34, 0x12]);
    assert_eq!([c.read(2), c.read(0x235)], [0x33, 0x10]);
}

#[test]
fn a_latched_count_stays_until_it_is_read() {
    let mut c = counter(MODE[2]);
    load(&mut c, 0x1234, 0);
    c.control(LATCH, 1);
    c.control(LATCH, 0x100);
    assert_eq!([c.read(0x200), c.read(0x300)], [0x34, 0x12]);
    assert_eq!(c.read(2), 0x33);
    // A latch doesn't change the mode, a control word ends it.
    c.read(2);
    c.control(LATCH, 1);
    c.control(MODE[0], 5);
    load(&mut c, 7, 5);
    assert_eq!(c.read(6), 7);
}

#[test]
fn status_has_out_null_count_and_the_control_word() {
    let status = |c: &Counter, now| {
        let mut c = *c;
        c.latch_status(now);
        c.read(now)
    };
    let mut c = counter(MODE[0]);
    assert_eq!(status(&c, 0), 0x70, "no count yet");
    load(&mut c, 4, 0);
    assert_eq!(status(&c, 0), 0x70, "not loaded yet");
    assert_eq!(status(&c, 1), 0x30);
    assert_eq!(status(&c, 5), 0xb0, "OUT");
    let mut c = counter(MODE[3] | BCD);
    load(&mut c, 4, 0);
    assert_eq!(status(&c, 1), 0xb7);
    load(&mut c, 8, 1);
    assert_eq!(status(&c, 1), 0xf7, "the new count waits");
    assert_eq!(status(&c, 3), 0x37);
    let mut c = counter(MODE[1]);
    load(&mut c, 4, 0);
    assert_eq!(status(&c, 9), 0xf2, "until the trigger");
}

fn at_tick(tick: u64) -> Nanos {
    Nanos(1_000_000).after(PIT.nanos(tick))
}

fn pit() -> Atpit {
    Atpit::new(Nanos(1_000_000))
}

#[test]
fn read_back_latches_counts_and_status_of_the_chosen_counters() {
    let mut p = pit();
    for n in 0..3 {
        p.write(Register::Control, (n as u8) << 6 | 0x34, at_tick(0));
    }
    p.write(Register::Misc, MISC_GATE2, at_tick(0));
    for n in 0..3 {
        p.write(Register::Counter(n), 0, at_tick(0));
        p.write(Register::Counter(n), 0x10, at_tick(0));
    }
    // Counters 0 and 2, count and status.
    p.write(Register::Control, 0xc0 | 2 | 8, at_tick(0x101));
    for n in [0, 2] {
        let mut read = || p.read(Register::Counter(n), at_tick(0x501));
        assert_eq!([read(), read(), read()], [0xb4, 0x00, 0x0f], "{n}");
        assert_eq!([read(), read()], [0x00, 0x0b], "{n}");
    }
    let mut read = || p.read(Register::Counter(1), at_tick(0x501));
    assert_eq!([read(), read()], [0x00, 0x0b]);
    // Count only, status only.
    p.write(Register::Control, 0xd0 | 4, at_tick(0x601));
    p.write(Register::Control, 0xe0 | 2, at_tick(0x601));
    let mut read = |n| p.read(Register::Counter(n), at_tick(0x701));
    assert_eq!([read(1), read(1)], [0x00, 0x0a]);
    assert_eq!([read(0), read(0)], [0xb4, 0x00]);
    // A second status latch before the read keeps the first.
    p.write(Register::Control, 0xe0 | 2, at_tick(0x701));
    p.write(Register::Counter(0), 0, at_tick(0x701));
    p.write(Register::Counter(0), 0x20, at_tick(0x701));
    p.write(Register::Control, 0xe0 | 2, at_tick(0x702));
    assert_eq!(p.read(Register::Counter(0), at_tick(0x703)), 0xb4);
}

#[test]
fn counter_0_reports_each_edge_once_and_announces_the_next() {
    let mut p = pit();
    assert_eq!(p.deadline(), None, "nothing is programmed");
    p.write(Register::Control, 0x34, at_tick(0));
    p.write(Register::Counter(0), 100, at_tick(0));
    assert_eq!(p.deadline(), None, "half a count is none");
    p.write(Register::Counter(0), 0, at_tick(0));
    for cycle in 1..50 {
        let edge = at_tick(cycle * 100 + 1);
        assert_eq!(p.deadline(), Some(edge));
        assert!(!p.advance(Nanos(edge.0 - 1)));
        assert!(p.advance(edge));
        assert!(!p.advance(edge));
    }
    // However many are missed, one is reported, and the next is in step.
    assert!(p.advance(at_tick(1_000_000_000)));
    assert_eq!(p.deadline(), Some(at_tick(1_000_000_001)));
    assert!(p.advance(Nanos(u64::MAX)));
}

#[test]
fn a_second_has_1193182_ticks() {
    let mut p = pit();
    p.write(Register::Control, 0x30, Nanos(1_000_000));
    p.write(Register::Counter(0), 0x9c, Nanos(1_000_000));
    p.write(Register::Counter(0), 0x2e, Nanos(1_000_000));
    // 0x2e9c is 11932, plus the clock to load it: 11933 / 1193182 Hz.
    assert_eq!(p.deadline(), Some(Nanos(1_000_000 + 10_000_989)));
}

#[test]
fn a_one_shot_count_interrupts_once() {
    let mut p = pit();
    p.write(Register::Control, 0x30, at_tick(0));
    p.write(Register::Counter(0), 10, at_tick(0));
    p.write(Register::Counter(0), 0, at_tick(0));
    assert_eq!(p.deadline(), Some(at_tick(11)));
    assert!(p.advance(at_tick(12)));
    assert_eq!(p.deadline(), None);
    assert!(!p.advance(at_tick(200_000)));
}

#[test]
fn a_control_word_can_raise_out_at_once() {
    let mut p = pit();
    assert!(!p.write(Register::Control, 0x30, at_tick(0)), "falls");
    assert!(p.write(Register::Control, 0x34, at_tick(5)), "rises");
    assert!(!p.write(Register::Control, 0x36, at_tick(6)), "stays");
    assert!(!p.write(Register::Control, 0xb0, at_tick(6)), "counter 2's");
    assert!(!p.write(Register::Control, 0xb4, at_tick(6)), "counter 2's");
}

#[test]
fn port_61_has_counter_2s_gate_and_output() {
    let mut p = pit();
    p.write(Register::Control, 0xb0, at_tick(0));
    p.write(Register::Counter(2), 10, at_tick(0));
    p.write(Register::Counter(2), 0, at_tick(0));
    let misc = |p: &mut Atpit, tick| p.read(Register::Misc, at_tick(tick)) & !MISC_REFRESH;
    assert_eq!(misc(&mut p, 100), 0, "GATE is low, nothing counts");
    p.write(Register::Misc, 0xff, at_tick(100));
    assert_eq!(misc(&mut p, 109), 0x0f);
    assert_eq!(misc(&mut p, 110), 0x2f);
    p.write(Register::Misc, 0x02, at_tick(120));
    assert_eq!(misc(&mut p, 121), 0x22, "the speaker's bit is no gate");
}

#[test]
fn port_61_shows_refreshes() {
    let mut p = pit();
    let refresh = |p: &mut Atpit, tick| p.read(Register::Misc, at_tick(tick)) & MISC_REFRESH;
    assert_eq!(refresh(&mut p, 17), 0);
    assert_eq!(refresh(&mut p, 18), MISC_REFRESH);
    assert_eq!(refresh(&mut p, 36), 0);
}

#[test]
fn what_is_not_programmed_counts_without_effect() {
    let mut p = pit();
    let mut read = || p.read(Register::Counter(0), at_tick(0x1234));
    assert_ne!([read(), read()], [0, 0]);
    assert_eq!(p.read(Register::Control, at_tick(1)), 0xff);
    p.write(Register::Counter(0), 1, at_tick(1));
    p.write(Register::Counter(0), 1, at_tick(1));
    assert_eq!(p.deadline(), None);
}
