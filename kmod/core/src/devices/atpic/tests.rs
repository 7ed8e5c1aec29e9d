//! The 8259As, along Intel 231468.

use super::*;

const ICW1: u8 = 0x11;
const AEOI: u8 = 0x02;
const SFNM: u8 = 0x10;

const EOI: u8 = 0x20;
const SPECIFIC_EOI: u8 = 0x60;
const ROTATE_ON_EOI: u8 = 0xa0;
const ROTATE_ON_SPECIFIC_EOI: u8 = 0xe0;
const SET_PRIORITY: u8 = 0xc0;
const ROTATE_IN_AEOI: u8 = 0x80;
const NO_ROTATE_IN_AEOI: u8 = 0x00;
const READ_IRR: u8 = 0x0a;
const READ_ISR: u8 = 0x0b;
const POLL: u8 = 0x0c;
const SPECIAL_MASK: u8 = 0x68;
const NO_SPECIAL_MASK: u8 = 0x48;

/// A pair that was initialized as PCs do: vectors from 0x20 and 0x28, cascade on IR2.
struct Pair(Atpic);

impl Pair {
    fn new() -> Self {
        Self::with_icw4(0, 0)
    }

    fn with_icw4(master: u8, slave: u8) -> Self {
        let mut pair = Self(Atpic::new());
        for (port, base, icw3, icw4) in [(0x20, 0x20, 4, master), (0xa0, 0x28, 2, slave)] {
            pair.out(port, ICW1);
            pair.out(port + 1, base);
            pair.out(port + 1, icw3);
            pair.out(port + 1, icw4 | 1);
        }
        pair
    }

    fn out(&mut self, port: u16, value: u8) {
        self.0.write(Register::at(port).unwrap(), value);
    }

    fn inb(&mut self, port: u16) -> u8 {
        self.0.read(Register::at(port).unwrap())
    }

    fn drive(&mut self, irq: i32, drive: Drive) {
        self.0.drive(Irq::from_raw(irq).unwrap(), drive);
    }

    fn pulse(&mut self, irq: i32) {
        self.drive(irq, Drive::Pulse);
    }

    /// INTA, if INTR is high.
    fn inta(&mut self) -> Option<u8> {
        self.0.intr().then(|| self.0.acknowledge().0)
    }

    fn irr(&mut self, port: u16) -> u8 {
        self.out(port, READ_IRR);
        self.inb(port)
    }

    fn isr(&mut self, port: u16) -> u8 {
        self.out(port, READ_ISR);
        self.inb(port)
    }
}

#[test]
fn there_are_16_inputs() {
    assert!(Irq::from_raw(0).is_some());
    assert!(Irq::from_raw(15).is_some());
    for raw in [-1, 16, 256, i32::MIN, i32::MAX] {
        assert!(Irq::from_raw(raw).is_none(), "{raw}");
    }
}

#[test]
fn nothing_interrupts_before_the_initialization_is_complete() {
    let mut p = Pair(Atpic::new());
    p.pulse(3);
    assert_eq!(p.inta(), None);
    for (port, value) in [(0x20, ICW1), (0x21, 0x20), (0x21, 4)] {
        p.out(port, value);
        p.pulse(3);
        assert_eq!(p.inta(), None);
    }
    p.out(0x21, 1);
    assert_eq!(p.inta(), Some(0x23));
}

#[test]
fn icw1_starts_over() {
    let mut p = Pair::new();
    p.out(0x21, 0x55);
    p.pulse(3);
    p.pulse(1);
    assert_eq!(p.inta(), Some(0x21));
    p.out(0x20, SPECIAL_MASK);
    p.out(0x20, SET_PRIORITY | 3);
    p.out(0x20, READ_ISR);
    p.out(0x20, ICW1);
    p.out(0x21, 0x40);
    p.out(0x21, 4);
    p.out(0x21, 1);
    assert_eq!(p.inb(0x20), 0, "reads the IRR, and edges are forgotten");
    assert_eq!(p.inb(0x21), 0, "nothing is masked");
    assert_eq!(p.isr(0x20), 0);
    // IR7 is lowest again, and the vectors are new.
    p.pulse(4);
    p.pulse(3);
    assert_eq!(p.inta(), Some(0x43));
    p.out(0x21, 1 << 3);
    assert_eq!(p.inta(), None, "special mask mode is off");
}

#[test]
fn icw1_without_ic4_needs_no_icw4_and_turns_its_modes_off() {
    let mut p = Pair::with_icw4(AEOI | SFNM, 0);
    p.out(0x20, 0x10);
    p.out(0x21, 0x30);
    p.out(0x21, 4);
    p.pulse(1);
    assert_eq!(p.inta(), Some(0x31));
    assert_eq!(p.isr(0x20), 2, "no automatic EOI");
    p.out(0x21, 0xfe);
    assert_eq!(p.inb(0x21), 0xfe, "an OCW1");
}

#[test]
fn a_single_8259_has_no_icw3_and_no_slave() {
    let mut p = Pair::new();
    p.out(0x20, 0x13);
    p.out(0x21, 0x30);
    p.out(0x21, AEOI | 1);
    p.out(0x21, 0);
    p.pulse(9);
    // The slave's output is there, but as an ordinary input.
    assert_eq!(p.inta(), Some(0x32));
    assert_eq!(p.isr(0x20), 0, "the word after ICW2 was ICW4");
}

#[test]
fn a_vectors_lower_bits_are_the_input() {
    let mut p = Pair::new();
    p.out(0x20, ICW1);
    p.out(0x21, 0x77);
    p.out(0x21, 4);
    p.out(0x21, 1);
    p.pulse(5);
    assert_eq!(p.inta(), Some(0x75));
}

#[test]
fn lower_inputs_go_first_and_interrupt_higher_ones() {
    let mut p = Pair::new();
    p.pulse(4);
    p.pulse(6);
    assert_eq!(p.inta(), Some(0x24));
    assert_eq!(p.inta(), None, "6 waits for 4's EOI");
    p.pulse(4);
    assert_eq!(p.inta(), None, "4 too");
    p.pulse(1);
    assert_eq!(p.inta(), Some(0x21), "1 doesn't");
    assert_eq!(p.isr(0x20), 1 << 4 | 1 << 1);
    p.out(0x20, EOI);
    assert_eq!(p.isr(0x20), 1 << 4, "the highest in service ends");
    p.out(0x20, EOI);
    assert_eq!(p.inta(), Some(0x24));
    p.out(0x20, EOI);
    assert_eq!(p.inta(), Some(0x26));
}

#[test]
fn a_specific_eoi_ends_the_one_it_names() {
    let mut p = Pair::new();
    p.pulse(4);
    p.inta();
    p.pulse(1);
    p.inta();
    p.out(0x20, SPECIFIC_EOI | 4);
    assert_eq!(p.isr(0x20), 1 << 1);
}

#[test]
fn masked_inputs_wait() {
    let mut p = Pair::new();
    p.out(0x21, 1 << 3);
    assert_eq!(p.inb(0x21), 1 << 3);
    p.pulse(3);
    assert_eq!(p.inta(), None);
    assert_eq!(p.irr(0x20), 1 << 3, "the request stands");
    p.out(0x21, 0);
    assert_eq!(p.inta(), Some(0x23));
    assert_eq!(p.irr(0x20), 0);
}

#[test]
fn the_slaves_inputs_come_through_ir2() {
    let mut p = Pair::new();
    p.pulse(9);
    p.pulse(3);
    assert_eq!(p.irr(0x20), 1 << 3 | 1 << 2);
    assert_eq!(p.inta(), Some(0x29), "IR2 is before IR3");
    assert_eq!(p.isr(0x20), 1 << 2);
    assert_eq!(p.isr(0xa0), 1 << 1);
    assert_eq!(p.inta(), None);
    p.out(0xa0, EOI);
    p.out(0x20, EOI);
    assert_eq!(p.inta(), Some(0x23));
    // Masking the cascade masks the slave.
    p.out(0x20, EOI);
    p.out(0x21, 1 << 2);
    p.pulse(9);
    assert_eq!(p.inta(), None);
}

#[test]
fn a_slaves_second_interrupt_waits_for_the_masters_eoi() {
    let mut p = Pair::new();
    p.pulse(12);
    assert_eq!(p.inta(), Some(0x2c));
    p.pulse(8);
    assert_eq!(p.inta(), None, "IR2 is in service");
    p.out(0x20, EOI);
    assert_eq!(p.inta(), Some(0x28));
}

#[test]
fn in_special_fully_nested_mode_it_does_not_wait() {
    let mut p = Pair::with_icw4(SFNM, SFNM);
    p.pulse(12);
    assert_eq!(p.inta(), Some(0x2c));
    p.pulse(8);
    assert_eq!(p.inta(), Some(0x28));
    p.pulse(14);
    assert_eq!(p.inta(), None, "the slave's own priorities hold");
    p.pulse(3);
    assert_eq!(p.inta(), None, "and so do the master's");
    p.pulse(1);
    assert_eq!(p.inta(), Some(0x21));
    p.pulse(1);
    assert_eq!(p.inta(), None, "IR1 has no slave");
}

#[test]
fn automatic_eoi_ends_with_the_acknowledge() {
    let mut p = Pair::with_icw4(AEOI, 0);
    p.pulse(4);
    p.pulse(5);
    assert_eq!(p.inta(), Some(0x24));
    assert_eq!(p.isr(0x20), 0);
    assert_eq!(p.inta(), Some(0x25));
}

#[test]
fn rotation_in_automatic_eoi_mode() {
    let mut p = Pair::with_icw4(AEOI, 0);
    let three = |p: &mut Pair| {
        p.pulse(3);
        p.inta();
        p.pulse(3);
        p.pulse(4);
        (p.inta(), p.inta())
    };
    assert_eq!(three(&mut p), (Some(0x23), Some(0x24)));
    p.out(0x20, ROTATE_IN_AEOI);
    assert_eq!(three(&mut p), (Some(0x24), Some(0x23)));
    p.out(0x20, NO_ROTATE_IN_AEOI);
    p.out(0x20, SET_PRIORITY | 7);
    assert_eq!(three(&mut p), (Some(0x23), Some(0x24)));
}

#[test]
fn rotation_with_an_eoi_makes_the_ended_one_lowest() {
    let mut p = Pair::new();
    p.pulse(4);
    p.inta();
    p.out(0x20, ROTATE_ON_EOI);
    assert_eq!(p.isr(0x20), 0);
    for irq in [0, 4, 5] {
        p.pulse(irq);
    }
    assert_eq!(p.inta(), Some(0x25));
    p.out(0x20, EOI);
    assert_eq!(p.inta(), Some(0x20));
    p.out(0x20, EOI);
    assert_eq!(p.inta(), Some(0x24));
    // Nothing in service: nothing rotates.
    p.out(0x20, EOI);
    p.out(0x20, ROTATE_ON_EOI);
    p.pulse(4);
    p.pulse(5);
    assert_eq!(p.inta(), Some(0x25));
}

#[test]
fn rotation_with_a_specific_eoi() {
    let mut p = Pair::new();
    p.pulse(4);
    p.inta();
    p.out(0x20, ROTATE_ON_SPECIFIC_EOI | 4);
    assert_eq!(p.isr(0x20), 0);
    p.pulse(4);
    p.pulse(5);
    assert_eq!(p.inta(), Some(0x25));
}

#[test]
fn set_priority_names_the_lowest_and_ends_nothing() {
    let mut p = Pair::new();
    p.pulse(5);
    p.inta();
    p.out(0x20, SET_PRIORITY | 5);
    assert_eq!(p.isr(0x20), 1 << 5);
    p.pulse(4);
    p.pulse(6);
    assert_eq!(p.inta(), Some(0x26));
    // A non-specific EOI goes by the new order, too: 6 is before 5.
    p.out(0x20, EOI);
    assert_eq!(p.isr(0x20), 1 << 5);
}

#[test]
fn special_mask_mode_lets_lower_ones_interrupt_a_masked_service() {
    let mut p = Pair::new();
    p.pulse(4);
    p.inta();
    p.pulse(6);
    assert_eq!(p.inta(), None);
    p.out(0x21, 1 << 4);
    assert_eq!(p.inta(), None, "the mask alone does nothing");
    p.out(0x20, SPECIAL_MASK);
    assert_eq!(p.inta(), Some(0x26));
    // What is in service and not masked still holds back what is below.
    p.pulse(7);
    assert_eq!(p.inta(), None);
    // A non-specific EOI doesn't end the masked one, which is higher.
    p.out(0x20, EOI);
    assert_eq!(p.isr(0x20), 1 << 4);
    p.out(0x20, NO_SPECIAL_MASK);
    assert_eq!(p.inta(), None);
    p.out(0x20, SPECIFIC_EOI | 4);
    assert_eq!(p.inta(), Some(0x27));
}

#[test]
fn the_special_mask_bit_counts_only_with_its_enable() {
    let mut p = Pair::new();
    p.pulse(4);
    p.inta();
    p.pulse(6);
    p.out(0x21, 1 << 4);
    p.out(0x20, 0x28);
    assert_eq!(p.inta(), None);
    p.out(0x20, SPECIAL_MASK);
    p.out(0x20, 0x08);
    assert_eq!(p.inta(), Some(0x26));
}

#[test]
fn a_poll_is_an_acknowledge() {
    let mut p = Pair::new();
    p.out(0x20, POLL);
    assert_eq!(p.inb(0x20), 0, "no interrupt");
    p.pulse(5);
    p.out(0x20, POLL);
    assert_eq!(p.inb(0x20), 0x85);
    assert_eq!(p.inta(), None);
    assert_eq!(p.isr(0x20), 1 << 5);
    // Only one read is; and it may be of either port.
    p.pulse(1);
    p.out(0x20, POLL);
    assert_eq!(p.inb(0x21), 0x81);
    assert_eq!(p.inb(0x21), 0);
    // A poll goes before a register read in the same word.
    p.pulse(0);
    p.out(0x20, POLL | READ_ISR);
    assert_eq!(p.inb(0x20), 0x80);
}

#[test]
fn a_polled_slave_withdraws_its_request() {
    let mut p = Pair::new();
    p.pulse(13);
    p.out(0xa0, POLL);
    assert_eq!(p.inb(0xa0), 0x85);
    assert_eq!(p.irr(0x20), 0);
    assert_eq!(p.inta(), None);
}

#[test]
fn the_chosen_register_stays_chosen() {
    let mut p = Pair::new();
    p.pulse(4);
    p.inta();
    p.pulse(6);
    p.out(0x20, READ_ISR);
    assert_eq!([p.inb(0x20), p.inb(0x20)], [1 << 4, 1 << 4]);
    p.out(0x20, 0x08);
    assert_eq!(p.inb(0x20), 1 << 4, "without RR nothing changes");
    p.out(0x20, READ_IRR);
    assert_eq!([p.inb(0x20), p.inb(0x20)], [1 << 6, 1 << 6]);
}

#[test]
fn a_request_that_is_gone_at_the_acknowledge_is_spurious() {
    let mut p = Pair::new();
    p.pulse(3);
    assert!(p.0.intr());
    p.out(0x21, 0xff);
    assert!(!p.0.intr());
    assert_eq!(p.0.acknowledge(), Vector(0x27));
    assert_eq!(p.isr(0x20), 0, "IR7 isn't in service by that");
}

#[test]
fn an_edge_interrupts_once_however_long_the_line_is_held() {
    let mut p = Pair::new();
    p.drive(4, Drive::Assert);
    assert_eq!(p.inta(), Some(0x24));
    p.out(0x20, EOI);
    assert_eq!(p.inta(), None);
    p.drive(4, Drive::Assert);
    assert_eq!(p.inta(), None, "a second holder makes no edge");
    p.drive(4, Drive::Deassert);
    p.drive(4, Drive::Deassert);
    p.drive(4, Drive::Assert);
    assert_eq!(p.inta(), Some(0x24));
}

#[test]
fn a_level_interrupts_as_long_as_it_is_held() {
    let mut p = Pair::new();
    p.out(0x4d1, 1 << 2);
    assert_eq!(p.inb(0x4d1), 1 << 2);
    p.drive(10, Drive::Assert);
    p.drive(10, Drive::Assert);
    for _ in 0..2 {
        assert_eq!(p.inta(), Some(0x2a));
        p.out(0xa0, EOI);
        p.out(0x20, EOI);
    }
    p.drive(10, Drive::Deassert);
    assert!(p.0.intr(), "one of two still holds it");
    p.drive(10, Drive::Deassert);
    assert_eq!(p.inta(), None);
    assert_eq!(p.irr(0xa0), 0);
}

#[test]
fn a_level_that_ends_before_its_acknowledge_is_gone() {
    let mut p = Pair::new();
    p.drive(5, Drive::Assert);
    p.drive(5, Drive::Deassert);
    assert_eq!(p.irr(0x20), 1 << 5, "an edge is latched");
    p.out(0x4d0, 1 << 5);
    assert_eq!(p.irr(0x20), 0);
    p.drive(5, Drive::Assert);
    assert!(p.0.intr());
    p.drive(5, Drive::Deassert);
    p.pulse(5);
    assert!(!p.0.intr());
}

#[test]
fn the_timer_keyboard_cascade_rtc_and_fpu_are_edge_triggered() {
    let mut p = Pair::new();
    p.out(0x4d0, 0xff);
    p.out(0x4d1, 0xff);
    assert_eq!(p.inb(0x4d0), 0xf8);
    assert_eq!(p.inb(0x4d1), 0xde);
    for raw in 0..16 {
        let irq = Irq::from_raw(raw).unwrap();
        let level = p.0.set_trigger(irq, Trigger::Level);
        let edge_only = [0, 1, 2, 8, 13].contains(&raw);
        assert_eq!(level.is_err(), edge_only, "{raw}");
        assert_eq!(p.0.set_trigger(irq, Trigger::Edge), Ok(()), "{raw}");
    }
    assert_eq!((p.inb(0x4d0), p.inb(0x4d1)), (0, 0));
}
