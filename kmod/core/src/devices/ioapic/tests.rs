//! The I/O APIC, along Intel 290566.

use alloc::vec;
use alloc::vec::Vec;

use super::super::testing::Recorder;
use super::*;

const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

/// An I/O APIC and what it sends.
struct Bench {
    ioapic: Ioapic,
    sent: Recorder,
}

impl Bench {
    fn new() -> Self {
        Self {
            ioapic: Ioapic::new(),
            sent: Recorder::default(),
        }
    }

    fn get(&mut self, register: u8) -> u32 {
        self.ioapic.write(0, 4, register.into(), &mut self.sent);
        self.ioapic.read(0x10, 4)
    }

    fn set(&mut self, register: u8, value: u32) {
        self.ioapic.write(0, 4, register.into(), &mut self.sent);
        self.ioapic.write(0x10, 4, value, &mut self.sent);
    }

    fn entry(&mut self, pin: u8, low: u32) {
        self.set(0x10 + 2 * pin, low);
    }

    fn entry_low(&mut self, pin: u8) -> u32 {
        self.get(0x10 + 2 * pin)
    }

    fn drive(&mut self, pin: i32, drive: Drive) {
        let pin = Pin::from_raw(pin).unwrap();
        self.ioapic.drive(pin, drive, &mut self.sent);
    }

    fn eoi(&mut self, vector: u8) {
        self.ioapic.eoi(Vector(vector), &mut self.sent);
    }
}

#[test]
fn it_has_32_inputs_and_no_more() {
    assert!(Pin::from_raw(0).is_some());
    assert!(Pin::from_raw(31).is_some());
    for raw in [-1, 32, 256, i32::MIN, i32::MAX] {
        assert!(Pin::from_raw(raw).is_none(), "{raw}");
    }
    let mut b = Bench::new();
    assert_eq!(b.get(1), 31 << 16 | 0x11);
    // The last input's entry, and the register behind it.
    b.set(0x4e, 0x1ff);
    b.set(0x50, 0x1ff);
    assert_eq!(b.get(0x4e), 0x1ff);
    assert_eq!(b.get(0x50), 0);
}

#[test]
fn after_reset_every_input_is_masked() {
    let mut b = Bench::new();
    for pin in 0..32 {
        assert_eq!(b.entry_low(pin), MASKED);
        b.drive(pin.into(), Drive::Pulse);
    }
    assert_eq!(b.sent.take(), vec![]);
}

#[test]
fn the_id_can_be_set_and_is_the_arbitration_id_too() {
    let mut b = Bench::new();
    b.set(0, 0x0f12_3456);
    assert_eq!(b.get(0), 0x0f00_0000);
    assert_eq!(b.get(2), 0x0f00_0000);
    b.set(1, 0);
    b.set(2, 0);
    assert_eq!(b.get(1), 31 << 16 | 0x11);
    assert_eq!(b.get(2), 0x0f00_0000);
}

#[test]
fn registers_are_words_at_two_offsets() {
    let mut b = Bench::new();
    b.entry(5, 0x35);
    b.set(0x10 + 10, 0x35);
    for (offset, bytes) in [
        (0x10, 1),
        (0x10, 2),
        (0x10, 8),
        (0x14, 4),
        (0x40, 4),
        (0x08, 4),
    ] {
        assert_eq!(b.ioapic.read(offset, bytes), 0, "{offset:#x}/{bytes}");
        b.ioapic.write(offset, bytes, MASKED, &mut b.sent);
    }
    assert_eq!(b.ioapic.read(0x00, 4), 0x1a);
    assert_eq!(b.entry_low(5), 0x35);
}

#[test]
fn an_edge_is_one_message_as_the_entry_says() {
    let mut b = Bench::new();
    b.set(0x11 + 2 * 4, 0x0300_0000);
    b.entry(4, 0x34);
    b.drive(4, Drive::Assert);
    let message = ApicMessage {
        destination: Destination::Physical { id: 3, wide: false },
        mode: DeliveryMode::Fixed,
        vector: Vector(0x34),
        trigger: Trigger::Edge,
    };
    assert_eq!(b.sent.take(), vec![message]);
    // Neither the level nor its end says more; the next edge does, without an EOI.
    b.drive(4, Drive::Deassert);
    assert_eq!(b.sent.take(), vec![]);
    b.drive(4, Drive::Assert);
    assert_eq!(b.sent.take(), vec![message]);
    assert_eq!(b.entry_low(4), 0x34, "no remote IRR");
}

#[test]
fn a_masked_edge_is_lost() {
    let mut b = Bench::new();
    b.entry(4, MASKED | 0x34);
    b.drive(4, Drive::Assert);
    b.entry(4, 0x34);
    assert_eq!(b.sent.take(), vec![]);
}

#[test]
fn destinations() {
    let mut b = Bench::new();
    let mut destination = |high: u32, low: u32| {
        b.set(0x11 + 2 * 9, high);
        b.entry(9, low | 0x40);
        b.drive(9, Drive::Pulse);
        b.sent.take()[0].destination
    };
    let wide = false;
    assert_eq!(
        destination(0xff00_0000, 0),
        Destination::Physical { id: 0xff, wide }
    );
    assert_eq!(
        destination(0x8100_0000, 0x800),
        Destination::Logical { id: 0x81, wide }
    );
    // The 15-bit ids of the extended destination id: bits 55:49 are bits 14:8.
    assert_eq!(
        destination(0x0502_0000, 0),
        Destination::Physical { id: 0x105, wide }
    );
    assert_eq!(
        destination(0x05fe_0000, 0),
        Destination::Physical { id: 0x7f05, wide }
    );
}

#[test]
fn delivery_modes() {
    let mut b = Bench::new();
    let mut mode = |bits: u32| {
        b.entry(9, bits << 8 | 0x40);
        b.drive(9, Drive::Pulse);
        b.sent.take().first().map(|message| message.mode)
    };
    assert_eq!(mode(0), Some(DeliveryMode::Fixed));
    assert_eq!(mode(1), Some(DeliveryMode::LowestPriority));
    assert_eq!(mode(2), Some(DeliveryMode::Smi));
    assert_eq!(mode(3), None);
    assert_eq!(mode(4), Some(DeliveryMode::Nmi));
    assert_eq!(mode(5), Some(DeliveryMode::Init));
    assert_eq!(mode(6), Some(DeliveryMode::StartUp));
    assert_eq!(mode(7), Some(DeliveryMode::ExtInt));
}

#[test]
fn a_level_interrupts_once_until_its_eoi() {
    let mut b = Bench::new();
    b.entry(16, LEVEL | 0x50);
    b.drive(16, Drive::Assert);
    let sent = b.sent.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].trigger, Trigger::Level);
    assert_eq!(b.entry_low(16), LEVEL | REMOTE_IRR | 0x50);
    // Another edge before the EOI says nothing new.
    b.drive(16, Drive::Deassert);
    b.drive(16, Drive::Assert);
    assert_eq!(b.sent.vectors(), vec![]);
    b.drive(16, Drive::Deassert);
    b.eoi(0x50);
    assert_eq!(b.sent.vectors(), vec![]);
    assert_eq!(b.entry_low(16), LEVEL | 0x50);
    b.drive(16, Drive::Assert);
    assert_eq!(b.sent.vectors(), [0x50]);
}

#[test]
fn a_level_that_is_still_held_interrupts_again_at_its_eoi() {
    let mut b = Bench::new();
    b.entry(16, LEVEL | 0x50);
    b.drive(16, Drive::Assert);
    assert_eq!(b.sent.vectors(), [0x50]);
    for _ in 0..3 {
        b.eoi(0x50);
        assert_eq!(b.sent.vectors(), [0x50]);
    }
    b.drive(16, Drive::Deassert);
    b.eoi(0x50);
    assert_eq!(b.sent.vectors(), vec![]);
}

#[test]
fn an_eoi_is_for_its_vector_on_every_input_that_has_it() {
    let mut b = Bench::new();
    for (pin, vector) in [(16, 0x50), (17, 0x51), (18, 0x50)] {
        b.entry(pin, LEVEL | vector);
        b.drive(pin.into(), Drive::Assert);
    }
    b.sent.take();
    b.eoi(0x52);
    assert_eq!(b.sent.vectors(), vec![]);
    b.eoi(0x50);
    assert_eq!(b.sent.vectors(), [0x50, 0x50]);
    assert_eq!(b.entry_low(17), LEVEL | REMOTE_IRR | 0x51);
}

#[test]
fn two_devices_share_a_level() {
    let mut b = Bench::new();
    b.entry(16, LEVEL | 0x50);
    b.drive(16, Drive::Assert);
    b.drive(16, Drive::Assert);
    assert_eq!(b.sent.vectors(), [0x50]);
    b.drive(16, Drive::Deassert);
    b.eoi(0x50);
    assert_eq!(b.sent.vectors(), [0x50], "the second still waits");
    b.drive(16, Drive::Deassert);
    b.eoi(0x50);
    assert_eq!(b.sent.vectors(), vec![]);
}

#[test]
fn a_masked_level_waits_for_the_mask() {
    let mut b = Bench::new();
    b.entry(16, MASKED | LEVEL | 0x50);
    b.drive(16, Drive::Assert);
    assert_eq!(b.sent.vectors(), vec![]);
    b.entry(16, LEVEL | 0x50);
    assert_eq!(b.sent.vectors(), [0x50]);
    // Masked and unmasked during service it doesn't interrupt twice.
    b.entry(16, MASKED | LEVEL | 0x50);
    b.entry(16, LEVEL | 0x50);
    assert_eq!(b.sent.vectors(), vec![]);
    // An EOI while masked frees it, the mask's end sends it again.
    b.entry(16, MASKED | LEVEL | 0x50);
    b.eoi(0x50);
    assert_eq!(b.sent.vectors(), vec![]);
    b.entry(16, LEVEL | 0x50);
    assert_eq!(b.sent.vectors(), [0x50]);
}

#[test]
fn status_bits_are_read_only_and_reserved_ones_are_0() {
    let mut b = Bench::new();
    b.entry(16, 0xfffe_f0ff);
    assert_eq!(b.entry_low(16), 0xa0ff);
    b.set(0x11 + 2 * 16, u32::MAX);
    assert_eq!(b.get(0x11 + 2 * 16), 0xfffe_0000);
    b.drive(16, Drive::Assert);
    b.entry(16, LEVEL | 0x51);
    assert_eq!(
        b.entry_low(16),
        LEVEL | REMOTE_IRR | 0x51,
        "writes don't clear it"
    );
}

#[test]
fn to_be_edge_triggered_for_a_moment_ends_an_interrupt() {
    let mut b = Bench::new();
    b.entry(16, LEVEL | 0x50);
    b.drive(16, Drive::Assert);
    b.drive(16, Drive::Deassert);
    b.sent.take();
    b.entry(16, MASKED | 0x50);
    b.entry(16, LEVEL | 0x50);
    assert_eq!(b.entry_low(16), LEVEL | 0x50);
    b.drive(16, Drive::Assert);
    assert_eq!(b.sent.vectors(), [0x50]);
}

#[test]
fn modes_without_a_vector_are_edge_triggered() {
    for (mode, name) in [(2, "SMI"), (4, "NMI"), (5, "INIT"), (7, "ExtINT")] {
        let mut b = Bench::new();
        b.entry(16, LEVEL | mode << 8);
        b.drive(16, Drive::Assert);
        let triggers: Vec<_> = b.sent.take().iter().map(|m| m.trigger).collect();
        assert_eq!(triggers, [Trigger::Edge], "{name}");
        assert_eq!(b.entry_low(16) & REMOTE_IRR, 0, "{name}");
    }
}
