//! SDM vol. 3A, 11.8: IRR, ISR, TPR, PPR, EOI.

use super::*;
use crate::devices::lapic::register::{IRR, ISR, TMR};

#[test]
fn the_highest_vector_comes_first_and_others_wait_for_its_eoi() {
    let mut bench = Bench::new(0);
    for vector in [0x31, 0x45, 0xfe, 0x10] {
        bench.post(vector, Trigger::Edge);
    }
    assert_eq!(bench.vectors(IRR), [0x10, 0x31, 0x45, 0xfe]);
    assert_eq!(bench.take(), Some(0xfe));
    assert_eq!(bench.vectors(ISR), [0xfe]);
    assert_eq!(bench.vectors(IRR), [0x10, 0x31, 0x45]);
    assert_eq!(bench.take(), None, "class 4 waits for class 15");
    assert_eq!(bench.read(0xa0), 0xf0);
    for next in [0x45, 0x31, 0x10] {
        assert_eq!(bench.write(0xb0, 0), ApicEffect::None);
        assert_eq!(bench.take(), Some(next));
    }
    assert_eq!(bench.write(0xb0, 0), ApicEffect::None);
    assert_eq!(bench.read(0xa0), 0);
    assert_eq!(bench.vectors(ISR), []);
}

#[test]
fn a_higher_class_nests_and_the_same_class_does_not() {
    let mut bench = Bench::new(0);
    bench.post(0x51, Trigger::Edge);
    assert_eq!(bench.take(), Some(0x51));
    bench.post(0x5f, Trigger::Edge);
    assert_eq!(bench.take(), None);
    bench.post(0x60, Trigger::Edge);
    assert_eq!(bench.take(), Some(0x60));
    assert_eq!(bench.vectors(ISR), [0x51, 0x60]);
    // The EOI is the highest's.
    assert_eq!(bench.apic.highest_isr(), Some(Vector(0x60)));
    let _ = bench.write(0xb0, 0);
    assert_eq!(bench.vectors(ISR), [0x51]);
    assert_eq!(bench.read(0xa0), 0x50);
    let _ = bench.write(0xb0, 0);
    assert_eq!(bench.take(), Some(0x5f));
}

#[test]
fn tpr_holds_back_its_class_and_below() {
    let mut bench = Bench::new(0);
    bench.post(0x62, Trigger::Edge);
    let _ = bench.write(0x80, 0x60);
    assert_eq!(bench.apic.pending(), None);
    assert_eq!(bench.read(0xa0), 0x60);
    let _ = bench.write(0x80, 0x5f);
    assert_eq!(bench.apic.pending(), Some(Vector(0x62)));
    // PPR is all of TPR while that is not below the class in service.
    assert_eq!(bench.read(0xa0), 0x5f);
    bench.apic.acknowledge(Vector(0x62));
    assert_eq!(bench.read(0xa0), 0x60);
    let _ = bench.write(0x80, 0x6f);
    assert_eq!(bench.read(0xa0), 0x6f);
    // TPR has 8 bits.
    let _ = bench.write(0x80, 0x1234_5678);
    assert_eq!(bench.read(0x80), 0x78);
}

#[test]
fn cr8_is_the_class_of_tpr() {
    let mut bench = Bench::new(0);
    let _ = bench.write(0x80, 0x9a);
    assert_eq!(bench.apic.cr8(), 9);
    bench.apic.set_cr8(0xb);
    assert_eq!(bench.read(0x80), 0xb0);
    assert_eq!(bench.read(0xa0), 0xb0);
    assert_eq!(bench.apic.cr8(), 0xb);
}

#[test]
fn the_tpr_threshold_is_for_what_only_tpr_holds_back() {
    let mut bench = Bench::new(0);
    assert_eq!(bench.apic.tpr_threshold(), 0);
    bench.post(0x75, Trigger::Edge);
    assert_eq!(bench.apic.tpr_threshold(), 0, "it is deliverable");
    bench.apic.set_cr8(7);
    assert_eq!(bench.apic.tpr_threshold(), 7);
    bench.apic.set_cr8(15);
    assert_eq!(bench.apic.tpr_threshold(), 7);
    bench.apic.acknowledge(Vector(0x75));
    bench.post(0x76, Trigger::Edge);
    assert_eq!(bench.apic.tpr_threshold(), 0, "it waits for an EOI");
}

#[test]
fn a_page_that_the_cpu_changed_counts() {
    let mut bench = Bench::new(0);
    bench.post(0x41, Trigger::Edge);
    // MOV to CR8 under a TPR shadow.
    bench.apic.page().set(0x80, 0x40);
    assert_eq!(bench.apic.pending(), None);
    assert_eq!(bench.read(0xa0), 0x40);
    bench.apic.page().set(0x80, 0);
    // Virtual-interrupt delivery of 0x41.
    bench.apic.page().set(IRR + 0x20, 0);
    bench.apic.page().set(ISR + 0x20, 2);
    assert_eq!(bench.apic.highest_isr(), Some(Vector(0x41)));
    assert_eq!(bench.apic.highest_irr(), None);
    bench.post(0x42, Trigger::Edge);
    assert_eq!(bench.apic.pending(), None);
}

#[test]
fn the_eoi_of_a_level_triggered_interrupt_is_told() {
    let mut bench = Bench::new(0);
    bench.post(0x91, Trigger::Level);
    bench.post(0xa2, Trigger::Edge);
    bench.post(0x3f, Trigger::Level);
    assert_eq!(bench.vectors(TMR), [0x3f, 0x91]);
    let bitmap = bench.apic.eoi_exit_bitmap();
    assert_eq!(bitmap, [1 << 0x3f, 0, 1 << (0x91 - 128), 0]);
    assert_eq!(bench.take(), Some(0xa2));
    assert_eq!(bench.write(0xb0, 0), ApicEffect::None);
    assert_eq!(bench.take(), Some(0x91));
    assert_eq!(bench.write(0xb0, 0), ApicEffect::Eoi(Vector(0x91)));
    assert_eq!(bench.take(), Some(0x3f));
    assert_eq!(bench.write(0xb0, 0), ApicEffect::Eoi(Vector(0x3f)));
    // The next one of that vector says anew what it is.
    bench.post(0x91, Trigger::Edge);
    assert_eq!(bench.vectors(TMR), [0x3f]);
    assert_eq!(bench.take(), Some(0x91));
    assert_eq!(bench.write(0xb0, 0), ApicEffect::None);
    // An EOI of nothing.
    assert_eq!(bench.write(0xb0, 0), ApicEffect::None);
    // One that the CPU has virtualized.
    assert_eq!(
        bench.apic.eoi_done(Vector(0x3f)),
        ApicEffect::Eoi(Vector(0x3f))
    );
    assert_eq!(bench.apic.eoi_done(Vector(0x40)), ApicEffect::None);
}
