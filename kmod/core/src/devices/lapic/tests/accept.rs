//! SDM vol. 3A, 11.8.4: what comes in.

use super::*;
use crate::devices::lapic::register::{IRR, TMR};

#[test]
fn vectors_of_every_word_with_their_trigger() {
    let mut bench = Bench::new(0);
    let vectors = [
        16, 31, 32, 63, 64, 95, 96, 127, 128, 159, 160, 191, 192, 223, 224, 255,
    ];
    for (i, &vector) in vectors.iter().enumerate() {
        let trigger = if i % 2 == 0 {
            Trigger::Edge
        } else {
            Trigger::Level
        };
        bench.inbox.post(Vector(vector), trigger);
    }
    assert_eq!(bench.accept(), Accepted::default());
    assert_eq!(bench.vectors(IRR), vectors);
    assert_eq!(bench.vectors(TMR), [31, 63, 95, 127, 159, 191, 223, 255]);
    assert!(bench.inbox.is_empty());
    assert_eq!(bench.vectors(0x100), []);
}

#[test]
fn one_that_waits_already_is_not_lost_by_another() {
    let mut bench = Bench::new(0);
    bench.post(0x41, Trigger::Level);
    bench.post(0x42, Trigger::Edge);
    bench.post(0x42, Trigger::Edge);
    assert_eq!(bench.vectors(IRR), [0x41, 0x42]);
    assert_eq!(bench.vectors(TMR), [0x41]);
    // One may wait behind the same one in service.
    assert_eq!(bench.take(), Some(0x42));
    bench.post(0x42, Trigger::Edge);
    let _ = bench.write(0xb0, 0);
    assert_eq!(bench.take(), Some(0x42));
}

#[test]
fn an_illegal_vector_is_an_error() {
    let mut bench = Bench::new(0);
    bench.post(15, Trigger::Edge);
    bench.post(0x40, Trigger::Edge);
    assert_eq!(bench.vectors(IRR), [0x40]);
    assert_eq!(bench.esr(), 1 << 6);
}

#[test]
fn a_disabled_apic_takes_nothing_and_keeps_what_it_has() {
    let mut bench = Bench::cold(0);
    bench.post(0x40, Trigger::Edge);
    bench.post(3, Trigger::Edge);
    bench.enable();
    assert_eq!(bench.accept(), Accepted::default());
    assert_eq!(bench.vectors(IRR), []);
    assert_eq!(bench.esr(), 0);
    bench.post(0x40, Trigger::Edge);
    let _ = bench.write(0xf0, 0xff);
    bench.post(0x50, Trigger::Edge);
    assert_eq!(bench.apic.pending(), Some(Vector(0x40)));
    assert_eq!(bench.vectors(IRR), [0x40]);
}

#[test]
fn init_ends_all_that_waits() {
    let mut bench = Bench::new(1);
    let _ = bench.write(0x360, 4 << 8);
    let _ = bench.write(0x3e0, 0xb);
    let _ = bench.write(0x320, 0x55);
    let _ = bench.write(0x380, 1);
    bench.pass(1_000_000);
    bench.inbox.post(Vector(0x40), Trigger::Edge);
    bench.inbox.signal(Signal::Timer);
    bench.inbox.signal(Signal::ExtInt);
    bench.inbox.signal(Signal::Local(Lvt::Lint1));
    bench.inbox.signal(Signal::Init);
    let accepted = bench.accept();
    assert_eq!(
        accepted,
        Accepted {
            timer: true,
            nmi: false
        }
    );
    assert_eq!(bench.apic.deadline(), None);
    assert!(bench.inbox.is_empty());
    bench.enable();
    bench.accept();
    assert_eq!(bench.apic.pending(), None);
    assert!(!bench.apic.takes_extint());
}
