//! The wiring, with all devices in place.

use alloc::vec;
use alloc::vec::Vec;

use super::super::testing::Recorder;
use super::super::{ApicMessage, DeliveryMode, Destination};
use super::*;

const START: Nanos = Nanos(1_000_000_000);
const MILLI: u64 = 1_000_000;

/// A chipset, what time it is, and what it put out.
struct Bench {
    chipset: Chipset,
    now: Nanos,
    out: Recorder,
}

impl Bench {
    fn new() -> Self {
        Self {
            chipset: Chipset::new(START, 0),
            now: START,
            out: Recorder::default(),
        }
    }

    /// Both 8259s from vector 0x20 on; the I/O APIC's inputs from 0x40 on, edge-triggered.
    fn initialized() -> Self {
        let mut b = Self::new();
        for (port, base, icw3) in [(0x20, 0x20, 4), (0xa0, 0x28, 2)] {
            b.outb(port, 0x11);
            for value in [base, icw3, 1] {
                b.outb(port + 1, value);
            }
        }
        for pin in 0..32 {
            b.redirect(pin, 0x40 + u32::from(pin));
        }
        b
    }

    fn outb(&mut self, port: u16, value: u8) {
        let (now, out) = (self.now, &mut self.out);
        self.chipset.port_out(port, 1, value.into(), now, out);
    }

    fn inb(&mut self, port: u16) -> u8 {
        self.chipset.port_in(port, 1, self.now, &mut self.out) as u8
    }

    fn store(&mut self, gpa: u64, bytes: u8, value: u64) {
        let (now, out) = (self.now, &mut self.out);
        self.chipset.mmio_write(Gpa(gpa), bytes, value, now, out);
    }

    fn load(&mut self, gpa: u64, bytes: u8) -> u64 {
        self.chipset
            .mmio_read(Gpa(gpa), bytes, self.now, &mut self.out)
    }

    fn redirect(&mut self, pin: u8, low: u32) {
        self.store(0xfec0_0000, 4, 0x10 + 2 * u64::from(pin));
        self.store(0xfec0_0010, 4, low.into());
    }

    fn pass(&mut self, nanos: u64) {
        self.now = self.now.after(nanos);
        self.chipset.tick(self.now, &mut self.out);
    }

    fn inta(&mut self) -> Option<u8> {
        let pending = self.chipset.pic_pending();
        pending.then(|| self.chipset.pic_acknowledge(&mut self.out).0)
    }

    fn deadline(&self) -> Option<u64> {
        self.chipset.deadline().map(|at| at.since(self.now))
    }

    /// Counter 0 in mode 2.
    fn start_pit(&mut self, count: u16) {
        self.outb(0x43, 0x34);
        let [low, high] = count.to_le_bytes();
        self.outb(0x40, low);
        self.outb(0x40, high);
    }
}

#[test]
fn its_ports_are_bhyves() {
    let ours: Vec<u16> = (0..=u16::MAX).filter(|&port| Chipset::port(port)).collect();
    let expected = [
        0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0x61, 0x70, 0x71, 0xa0, 0xa1, 0x408, 0x4d0, 0x4d1,
    ];
    assert_eq!(ours, expected);
}

#[test]
fn its_mmio_is_a_page_and_a_kilobyte() {
    for (gpa, device) in [
        (0xfebf_ffff, None),
        (0xfec0_0000, Some(Mmio::Ioapic)),
        (0xfec0_0fff, Some(Mmio::Ioapic)),
        (0xfec0_1000, None),
        (0xfecf_ffff, None),
        (0xfed0_0000, Some(Mmio::Hpet)),
        (0xfed0_03ff, Some(Mmio::Hpet)),
        (0xfed0_0400, None),
        (0xfee0_0000, None),
        (u64::MAX, None),
    ] {
        assert_eq!(Mmio::at(Gpa(gpa)), device, "{gpa:#x}");
    }
    assert_eq!(Mmio::at(IOAPIC_BASE), Some(Mmio::Ioapic));
    assert_eq!(Mmio::at(HPET_BASE), Some(Mmio::Hpet));
}

#[test]
fn the_pit_is_irq_0_and_input_2() {
    let mut b = Bench::initialized();
    b.start_pit(11_932);
    assert_eq!(b.deadline(), Some(10_000_989));
    b.pass(10_000_988);
    assert_eq!((b.inta(), b.out.vectors()), (None, vec![]));
    b.pass(1);
    assert_eq!(b.inta(), Some(0x20));
    // Input 0 has the 8259s' INTR.
    assert_eq!(b.out.vectors(), [0x40, 0x42]);
}

#[test]
fn the_rtc_is_irq_8_and_input_8() {
    let mut b = Bench::initialized();
    b.outb(0x70, 0x0b);
    b.outb(0x71, 0x12);
    assert_eq!(b.deadline(), Some(1000 * MILLI));
    b.pass(1000 * MILLI);
    assert_eq!(b.inta(), Some(0x28));
    assert_eq!(b.out.vectors(), [0x40, 0x48]);
    b.outb(0x70, 0x0c);
    assert_eq!(b.inb(0x71), 0x90);
    assert_eq!(b.inb(0x70), 0xff, "the index can't be read");
    // A flag that is up already interrupts with its enable.
    b.outb(0x70, 0x0b);
    b.outb(0x71, 0x02);
    b.pass(1000 * MILLI);
    b.outb(0x71, 0x12);
    assert_eq!(b.out.vectors(), [0x48]);
}

#[test]
fn legacy_replacement_disconnects_pit_and_rtc() {
    let mut b = Bench::initialized();
    b.start_pit(1000);
    b.outb(0x70, 0x0b);
    b.outb(0x71, 0x12);
    // Timers 0 and 1 after 2^20 and 2^21 ticks: 62.5 and 125 ms.
    for n in [0, 1] {
        b.store(0xfed0_0100 + 0x20 * n, 4, 1 << 2);
        b.store(0xfed0_0108 + 0x20 * n, 8, 1 << (20 + n));
    }
    b.store(0xfed0_0010, 4, 3);
    assert_eq!(b.deadline(), Some(62_500_000));
    b.pass(62_500_000);
    assert_eq!(b.inta(), Some(0x20));
    assert_eq!(b.out.vectors(), [0x40, 0x42]);
    b.outb(0x20, 0x20);
    b.pass(62_500_000);
    assert_eq!(b.inta(), Some(0x28));
    assert_eq!(b.out.vectors(), [0x40, 0x48]);
    assert_eq!(b.deadline(), None);
    b.pass(2000 * MILLI);
    assert_eq!(b.out.vectors(), vec![]);
    // Connected again they interrupt again.
    b.store(0xfed0_0010, 4, 1);
    b.pass(MILLI);
    assert_eq!(b.out.vectors(), [0x40, 0x42]);
}

#[test]
fn an_hpet_timer_has_its_input_or_message() {
    let mut b = Bench::initialized();
    b.store(0xfed0_0140, 4, 25 << 9 | 1 << 2);
    b.store(0xfed0_0148, 8, 1 << 20);
    b.store(0xfed0_0160, 4, 1 << 14 | 1 << 2);
    b.store(0xfed0_0168, 8, 1 << 21);
    b.store(0xfed0_0170, 8, 0xfee0_3000_0000_0055);
    b.store(0xfed0_0010, 4, 1);
    b.pass(62_500_000);
    assert_eq!(b.out.vectors(), [0x59]);
    b.pass(62_500_000);
    let messages = b.out.take();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].vector, Vector(0x55));
    let id = Destination::Physical { id: 3, wide: false };
    assert_eq!(messages[0].destination, id);
    assert_eq!(b.load(0xfed0_00f0, 8), 1 << 21);
    assert_eq!(b.load(0xfed0_0000, 8), Chipset::hpet_capabilities());
}

#[test]
fn intr_falls_with_each_acknowledge() {
    let mut b = Bench::initialized();
    b.chipset.isa_irq(4, -1, Drive::Pulse, &mut b.out).unwrap();
    b.chipset.isa_irq(1, -1, Drive::Pulse, &mut b.out).unwrap();
    assert_eq!(b.out.intr, [true]);
    assert_eq!(b.inta(), Some(0x21));
    assert_eq!(b.out.intr, [true, false]);
    b.outb(0x20, 0x20);
    assert_eq!(b.inta(), Some(0x24));
    assert_eq!(b.out.intr, [true, false, true, false]);
    b.chipset.isa_irq(0, -1, Drive::Pulse, &mut b.out).unwrap();
    b.outb(0x20, 0x0c);
    assert_eq!(b.inb(0x20), 0x80, "polled");
    assert_eq!(b.out.intr[4..], [true, false]);
}

#[test]
fn intr_rises_again_for_a_request_that_is_left() {
    let mut b = Bench::initialized();
    b.outb(0x20, 0x11);
    for value in [0x20, 4, 3] {
        b.outb(0x21, value);
    }
    b.chipset.isa_irq(4, -1, Drive::Pulse, &mut b.out).unwrap();
    b.chipset.isa_irq(1, -1, Drive::Pulse, &mut b.out).unwrap();
    // With automatic EOI the next may follow at once.
    assert_eq!(b.inta(), Some(0x21));
    assert_eq!(b.out.intr, [true, false, true]);
    assert_eq!(b.inta(), Some(0x24));
    assert_eq!(b.out.intr[3..], [false]);
}

#[test]
fn the_8259s_reach_the_local_apics_through_input_0_as_extint() {
    let mut b = Bench::initialized();
    b.redirect(0, 0x700);
    b.chipset.isa_irq(3, -1, Drive::Assert, &mut b.out).unwrap();
    let modes: Vec<_> = b.out.take().iter().map(|m: &ApicMessage| m.mode).collect();
    assert_eq!(modes, [DeliveryMode::ExtInt]);
    assert_eq!(b.inta(), Some(0x23));
    b.outb(0x20, 0x20);
    b.chipset.isa_irq(4, -1, Drive::Pulse, &mut b.out).unwrap();
    assert_eq!(b.out.take().len(), 1, "an edge for each interrupt");
}

#[test]
fn userlands_isa_interrupts_go_to_both_controllers() {
    let mut b = Bench::initialized();
    let out = &mut b.out;
    b.chipset.isa_irq(4, 4, Drive::Assert, out).unwrap();
    assert_eq!(out.vectors(), [0x40, 0x44]);
    assert_eq!(b.inta(), Some(0x24));
    b.outb(0x20, 0x20);
    let out = &mut b.out;
    b.chipset.isa_irq(4, 4, Drive::Assert, out).unwrap();
    b.chipset.isa_irq(4, 4, Drive::Deassert, out).unwrap();
    b.chipset.isa_irq(4, 4, Drive::Deassert, out).unwrap();
    assert_eq!(out.vectors(), vec![]);
    b.chipset.isa_irq(4, 5, Drive::Pulse, out).unwrap();
    assert_eq!(out.vectors(), [0x40, 0x45]);
    assert_eq!(b.inta(), Some(0x24));
    // Without an I/O APIC's pin.
    b.outb(0x20, 0x20);
    b.chipset.isa_irq(4, -1, Drive::Pulse, &mut b.out).unwrap();
    assert_eq!(b.out.vectors(), [0x40]);
}

#[test]
fn interrupts_that_there_are_not() {
    let mut b = Bench::initialized();
    let (chipset, out) = (&mut b.chipset, &mut b.out);
    for irq in [-1, 32, i32::MIN, i32::MAX] {
        assert_eq!(
            chipset.ioapic_irq(irq, Drive::Assert, out),
            Err(Errno::EINVAL)
        );
        assert_eq!(
            chipset.ioapic_irq(irq, Drive::Deassert, out),
            Err(Errno::EINVAL)
        );
        assert_eq!(
            chipset.ioapic_irq(irq, Drive::Pulse, out),
            Err(Errno::EINVAL)
        );
    }
    for irq in [-1, 16, i32::MIN, i32::MAX] {
        assert_eq!(
            chipset.isa_irq(irq, 4, Drive::Assert, out),
            Err(Errno::EINVAL)
        );
        assert_eq!(
            chipset.isa_irq(irq, 4, Drive::Deassert, out),
            Err(Errno::EINVAL)
        );
        assert_eq!(
            chipset.isa_irq(irq, 4, Drive::Pulse, out),
            Err(Errno::EINVAL)
        );
        let trigger = chipset.isa_set_trigger(irq, Trigger::Edge, out);
        assert_eq!(trigger, Err(Errno::EINVAL));
    }
    assert_eq!(out.vectors(), vec![], "the I/O APIC's weren't driven");
    for irq in [-2, 32, i32::MIN, i32::MAX] {
        assert_eq!(
            chipset.isa_irq(4, irq, Drive::Pulse, out),
            Err(Errno::EINVAL)
        );
    }
    let level = chipset.isa_set_trigger(8, Trigger::Level, out);
    assert_eq!(level, Err(Errno::EINVAL));
    assert_eq!(chipset.isa_set_trigger(10, Trigger::Level, out), Ok(()));
    assert_eq!(b.inb(0x4d1), 4);
}

#[test]
fn a_line_held_when_it_becomes_level_triggered_interrupts() {
    let mut b = Bench::initialized();
    b.outb(0xa1, 0);
    b.chipset
        .isa_irq(10, -1, Drive::Assert, &mut b.out)
        .unwrap();
    assert_eq!(b.inta(), Some(0x2a));
    b.outb(0xa0, 0x20);
    b.outb(0x20, 0x20);
    assert_eq!(b.inta(), None);
    let level = Trigger::Level;
    b.chipset.isa_set_trigger(10, level, &mut b.out).unwrap();
    assert_eq!(b.out.intr.last(), Some(&true));
}

#[test]
fn an_eoi_resends_a_level() {
    let mut b = Bench::initialized();
    b.redirect(20, 0x8054);
    b.chipset.ioapic_irq(20, Drive::Assert, &mut b.out).unwrap();
    b.chipset.ioapic_eoi(Vector(0x54), &mut b.out);
    b.chipset
        .ioapic_irq(20, Drive::Deassert, &mut b.out)
        .unwrap();
    b.chipset.ioapic_eoi(Vector(0x54), &mut b.out);
    assert_eq!(b.out.vectors(), [0x54, 0x54]);
}

#[test]
fn wide_port_accesses_are_one_for_each_port() {
    let mut b = Bench::initialized();
    let (now, out) = (b.now, &mut b.out);
    b.chipset.port_out(0x20, 2, 0x5500 | 0x0b, now, out);
    assert_eq!(b.inb(0x21), 0x55);
    let out = &mut b.out;
    assert_eq!(b.chipset.port_in(0x20, 2, now, out), 0x5500);
    assert_eq!(b.chipset.port_in(0x21, 4, now, out), 0xffff_ff55);
}

#[test]
fn the_pm_timer_is_a_word_at_0x408() {
    let mut b = Bench::new();
    b.pass(1000 * MILLI);
    let (now, out) = (b.now, &mut b.out);
    assert_eq!(b.chipset.port_in(0x408, 4, now, out), 3_579_545);
    assert_eq!(b.chipset.port_in(0x408, 2, now, out), 3_579_545 & 0xffff);
    assert_eq!(b.chipset.port_in(0x408, 1, now, out), 3_579_545 & 0xff);
    b.chipset.port_out(0x408, 4, 0, now, out);
    assert_eq!(b.chipset.port_in(0x408, 4, now, out), 3_579_545);
}

#[test]
fn what_is_due_comes_before_an_access() {
    let mut b = Bench::initialized();
    b.start_pit(1000);
    b.now = b.now.after(MILLI);
    // Nobody ticked, but the guest sees the request, and stopping the timer doesn't lose it.
    b.outb(0x43, 0x30);
    assert_eq!(b.inta(), Some(0x20));
}

#[test]
fn time_does_not_go_back() {
    let mut b = Bench::initialized();
    b.store(0xfed0_0140, 4, 25 << 9 | 1 << 2);
    b.store(0xfed0_0148, 8, 1 << 20);
    b.store(0xfed0_0010, 4, 1);
    b.pass(10 * MILLI);
    let counter = b.load(0xfed0_00f0, 8);
    // Another CPU read the clock before and got the lock after.
    b.now = START;
    assert_eq!(b.load(0xfed0_00f0, 8), counter);
    b.pass(5 * MILLI);
    assert_eq!(b.out.vectors(), vec![]);
}

#[test]
fn a_guest_can_not_ask_for_more_than_20000_ticks_a_second() {
    let mut b = Bench::initialized();
    b.start_pit(1);
    b.store(0xfed0_0140, 4, 25 << 9 | 1 << 6 | 1 << 3 | 1 << 2);
    b.store(0xfed0_0148, 8, 1);
    b.store(0xfed0_0010, 4, 1);
    let mut ticks = 0;
    let end = b.now.after(10 * MILLI);
    while let Some(at) = b.chipset.deadline().filter(|&at| at <= end) {
        ticks += 1;
        b.pass(at.since(b.now));
    }
    assert!((199..=202).contains(&ticks), "{ticks}");
}

#[test]
fn reset_forgets_userlands_lines_and_keeps_the_time() {
    let mut b = Bench::initialized();
    b.redirect(20, 0x8054);
    b.start_pit(1000);
    b.chipset.ioapic_irq(20, Drive::Assert, &mut b.out).unwrap();
    b.chipset.isa_irq(4, 4, Drive::Assert, &mut b.out).unwrap();
    b.chipset.rtc_settime(1_000_000, b.now, &mut b.out).unwrap();
    b.chipset.rtc_write(0x40, 7).unwrap();
    b.chipset.reset(b.now, &mut b.out);
    assert_eq!(b.out.intr, [true, false]);
    b.out.take();
    assert!(!b.chipset.pic_pending());
    assert_eq!(b.deadline(), None);
    b.redirect(20, 0x8054);
    assert_eq!(b.out.vectors(), vec![]);
    b.chipset.ioapic_irq(20, Drive::Assert, &mut b.out).unwrap();
    assert_eq!(b.out.vectors(), [0x54]);
    assert_eq!(b.chipset.rtc_read(0x40, b.now), Ok(7));
    assert_eq!(b.chipset.rtc_gettime(b.now), 1_000_000);
}

#[test]
fn userland_and_the_guest_have_the_same_rtc() {
    let mut b = Bench::new();
    assert_eq!(b.chipset.rtc_gettime(b.now), 0);
    // 2001-09-09 01:46:40.
    b.chipset
        .rtc_settime(1_000_000_000, b.now, &mut b.out)
        .unwrap();
    b.outb(0x70, 0x04);
    assert_eq!(b.inb(0x71), 0x01);
    assert_eq!(b.chipset.rtc_read(0x02, b.now), Ok(0x46));
    assert_eq!(b.chipset.rtc_read(128, b.now), Err(Errno::EINVAL));
    assert_eq!(b.chipset.rtc_write(0x0d, 1), Err(Errno::EINVAL));
    let negative = b.chipset.rtc_settime(-1, b.now, &mut b.out);
    assert_eq!(negative, Err(Errno::EINVAL));
}

#[test]
fn a_time_far_away_is_not_armed_at_once() {
    let mut b = Bench::initialized();
    b.store(0xfed0_0140, 4, 25 << 9 | 1 << 2);
    b.store(0xfed0_0148, 8, 1 << 56);
    b.store(0xfed0_0010, 4, 1);
    assert_eq!(b.deadline(), Some(MAX_WAIT));
    b.pass(MAX_WAIT);
    assert_eq!(b.deadline(), Some(MAX_WAIT));
    assert_eq!(b.out.vectors(), vec![]);
}

#[test]
fn a_reset_delivers_nothing() {
    let mut b = Bench::initialized();
    b.start_pit(1000);
    b.now = b.now.after(MILLI);
    b.chipset.reset(b.now, &mut b.out);
    assert_eq!((b.out.vectors(), b.out.intr), (vec![], vec![]));
}

/// Whatever a guest and its userland do, nothing panics, runs away or goes back.
#[test]
fn a_guest_that_does_anything_at_any_time() {
    // A linear congruential generator with Knuth's constants for MMIX.
    let mut state = 1u64;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let ports: Vec<u16> = (0..=u16::MAX).filter(|&port| Chipset::port(port)).collect();
    for _ in 0..200 {
        let mut b = Bench::new();
        for _ in 0..500 {
            let step = 1u64 << random(50);
            b.now = b.now.after(random(step));
            let bytes = [1, 1, 2, 4, 8][random(5) as usize];
            let value = random(1 << 31) << random(33) | random(256);
            let (now, out, chipset) = (b.now, &mut b.out, &mut b.chipset);
            match random(10) {
                0..4 => {
                    let port = ports[random(ports.len() as u64) as usize];
                    chipset.port_out(port, bytes.min(4), value as u32, now, out);
                    chipset.port_in(port, bytes.min(4), now, out);
                }
                4..7 => {
                    let base = [0xfec0_0000, 0xfed0_0000][random(2) as usize];
                    let gpa = Gpa(base + random(0x208) / 4 * 4);
                    chipset.mmio_write(gpa, bytes.max(4), value, now, out);
                    chipset.mmio_read(gpa, bytes.max(4), now, out);
                }
                7 => {
                    let irq = random(36) as i32 - 2;
                    let _ = chipset.isa_irq(irq, irq, Drive::Assert, out);
                    let _ = chipset.ioapic_irq(irq, Drive::Deassert, out);
                }
                8 => {
                    chipset.pic_acknowledge(out);
                    chipset.ioapic_eoi(Vector(value as u8), out);
                }
                _ => {
                    if let Some(deadline) = chipset.deadline() {
                        b.now = b.now.max(deadline);
                        chipset.tick(b.now, out);
                        let next = chipset.deadline();
                        assert!(
                            next.is_none_or(|next| next > b.now),
                            "a tick changes nothing"
                        );
                    }
                }
            }
            b.out.take();
        }
    }
}
