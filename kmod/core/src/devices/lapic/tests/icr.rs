//! SDM vol. 3A, 11.6.1, 11.12.9, 11.12.11: sending interrupts.

use super::*;
use crate::devices::lapic::register::{IRR, TMR};

const NONE: u32 = 0;
const MYSELF: u32 = 1 << 18;
const ALL: u32 = 2 << 18;
const OTHERS: u32 = 3 << 18;
const LOGICAL: u32 = 1 << 11;
const ASSERT: u32 = 1 << 14;
const LEVEL: u32 = 1 << 15;

fn ipi(destination: Destination, mode: DeliveryMode, vector: u8) -> ApicEffect {
    ApicEffect::Ipi(ApicMessage {
        destination,
        mode,
        vector: Vector(vector),
        trigger: Trigger::Edge,
    })
}

#[test]
fn xapic_destinations() {
    let mut bench = Bench::new(0);
    assert_eq!(bench.write(0x310, 0x0512_3456), ApicEffect::None);
    let physical = Destination::Physical { id: 5, wide: false };
    let logical = Destination::Logical { id: 5, wide: false };
    for (low, destination) in [
        (NONE, physical),
        (LOGICAL, logical),
        (ALL, Destination::All),
        (OTHERS | LOGICAL, Destination::Others),
    ] {
        assert_eq!(
            bench.write(0x300, low | 0xf3),
            ipi(destination, DeliveryMode::Fixed, 0xf3)
        );
        assert_eq!(bench.read(0x300), low | 0xf3);
    }
    assert_eq!(bench.read(0x310), 0x0512_3456);
    // The delivery status is idle always.
    let _ = bench.write(0x300, 1 << 12 | 0xf3);
    assert_eq!(bench.read(0x300), 0xf3);
}

#[test]
fn x2apic_destinations() {
    let mut bench = Bench::x2apic(0);
    for (value, destination) in [
        (
            0x0001_0203_0000_0040,
            Destination::Physical {
                id: 0x10203,
                wide: true,
            },
        ),
        (
            0x0003_0001_0000_0840,
            Destination::Logical {
                id: 0x30001,
                wide: true,
            },
        ),
        (0xc_0040, Destination::Others),
    ] {
        assert_eq!(
            bench.wrmsr(0x830, value),
            Ok(ipi(destination, DeliveryMode::Fixed, 0x40))
        );
        assert_eq!(bench.rdmsr(0x830), Ok(value));
    }
    // Where a CPU that virtualizes the register reads both halves.
    let _ = bench.wrmsr(0x830, 0x0102_0304_0000_0041);
    assert_eq!(bench.apic.page().get(0x300), 0x41);
    assert_eq!(bench.apic.page().get(0x304), 0x0102_0304);
}

#[test]
fn every_delivery_mode_with_every_shorthand() {
    use DeliveryMode::*;
    for (bits, mode, everybody) in [
        (0, Some(Fixed), true),
        (1, Some(LowestPriority), false),
        (2, Some(Smi), false),
        (3, None, false),
        (4, Some(Nmi), false),
        (5, Some(Init), false),
        (6, Some(StartUp), false),
        (7, None, false),
    ] {
        let mut bench = Bench::new(2);
        let low = bits << 8 | 0x9a;
        let sends = |destination| mode.map_or(ApicEffect::None, |m| ipi(destination, m, 0x9a));
        let bsp = Destination::Physical { id: 0, wide: false };
        assert_eq!(bench.write(0x300, low | ASSERT), sends(bsp), "{bits}");
        assert_eq!(bench.write(0x300, low), sends(bsp), "{bits}");
        assert_eq!(
            bench.write(0x300, low | LEVEL | ASSERT),
            sends(bsp),
            "{bits}: a level becomes an edge"
        );
        assert_eq!(bench.write(0x300, low | OTHERS), sends(Destination::Others));
        let all = bench.write(0x300, low | ALL);
        let expected = if everybody {
            sends(Destination::All)
        } else {
            ApicEffect::None
        };
        assert_eq!(all, expected, "{bits}");
        // Level de-assert: only a start-up IPI doesn't know the bit.
        let deassert = bench.write(0x300, low | LEVEL);
        let expected = if mode == Some(StartUp) {
            sends(bsp)
        } else {
            ApicEffect::None
        };
        assert_eq!(deassert, expected, "{bits}");
        assert_eq!(bench.vectors(IRR), []);
        // To itself only fixed.
        assert_eq!(bench.write(0x300, low | MYSELF), ApicEffect::None);
        assert_eq!(bench.apic.pending().is_some(), everybody, "{bits}");
        assert_eq!(bench.esr(), 0);
    }
}

#[test]
fn an_illegal_vector_is_not_sent() {
    let mut bench = Bench::new(0);
    for low in [0x0f, 0x10f, MYSELF | 0x0f, OTHERS] {
        assert_eq!(bench.write(0x300, low), ApicEffect::None);
        assert_eq!(bench.esr(), 1 << 5, "{low:#x}");
    }
    // The others' vectors are not looked at.
    for mode in [2, 4, 5, 6] {
        assert_ne!(bench.write(0x300, mode << 8), ApicEffect::None);
        assert_eq!(bench.esr(), 0);
    }
    assert_eq!(bench.vectors(IRR), []);
}

#[test]
fn self_ipi() {
    let mut bench = Bench::x2apic(3);
    bench.post(0x77, Trigger::Level);
    assert_eq!(bench.wrmsr(0x83f, 0x77), Ok(ApicEffect::None));
    assert_eq!(bench.vectors(TMR), [], "it is edge-triggered");
    assert_eq!(bench.take(), Some(0x77));
    assert_eq!(bench.wrmsr(0x83f, 0x0f), Ok(ApicEffect::None));
    assert_eq!(bench.apic.pending(), None);
    assert_eq!(bench.wrmsr(0x828, 0), Ok(ApicEffect::None));
    assert_eq!(bench.rdmsr(0x828), Ok(1 << 5));
    assert_eq!(bench.wrmsr(0x83f, 0x100), Err(GeneralProtection));
    assert_eq!(bench.rdmsr(0x83f), Err(GeneralProtection));
    // xAPIC mode has none.
    let mut bench = Bench::new(0);
    let _ = bench.write(0x3f0, 0x77);
    assert_eq!(bench.apic.pending(), None);
    assert_eq!(bench.esr(), 1 << 7);
}

#[test]
fn a_disabled_apic_sends_and_does_not_take() {
    let mut bench = Bench::cold(0);
    assert_eq!(
        bench.write(0x300, OTHERS | 0x40),
        ipi(Destination::Others, DeliveryMode::Fixed, 0x40)
    );
    let _ = bench.write(0x300, MYSELF | 0x40);
    assert_eq!(bench.vectors(IRR), []);
}
