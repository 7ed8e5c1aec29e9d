//! SDM vol. 3A, 11.4.1, 11.12.1: who may read and write what.

use super::*;

/// Table 11-6: MSR, readable, writable.
const X2APIC: &[(u32, bool, bool)] = &[
    (0x802, true, false),
    (0x803, true, false),
    (0x808, true, true),
    (0x80a, true, false),
    (0x80b, false, true),
    (0x80d, true, false),
    (0x80f, true, true),
    (0x828, true, true),
    (0x82f, true, true),
    (0x830, true, true),
    (0x832, true, true),
    (0x833, true, true),
    (0x834, true, true),
    (0x835, true, true),
    (0x836, true, true),
    (0x837, true, true),
    (0x838, true, true),
    (0x839, true, false),
    (0x83e, true, true),
    (0x83f, false, true),
];

#[test]
fn x2apic_registers() {
    for msr in 0x800..=0x8ff {
        let (_, readable, writable) = X2APIC.iter().copied().find(|row| row.0 == msr).unwrap_or((
            msr,
            (0x810..=0x827).contains(&msr),
            false,
        ));
        let mut bench = Bench::x2apic(1);
        assert_eq!(bench.rdmsr(msr).is_ok(), readable, "{msr:#x}");
        assert_eq!(bench.wrmsr(msr, 0).is_ok(), writable, "{msr:#x}");
        // In xAPIC mode, or disabled, there are none.
        for mut bench in [Bench::new(1), {
            let mut off = Bench::new(1);
            off.apic.set_apic_base(0xfee0_0000).unwrap();
            off
        }] {
            assert_eq!(bench.rdmsr(msr), Err(GeneralProtection));
            assert_eq!(bench.wrmsr(msr, 0), Err(GeneralProtection));
        }
    }
    let mut bench = Bench::x2apic(1);
    for msr in [0, 0x7ff, 0x900, 0x1800, u32::MAX] {
        assert_eq!(bench.rdmsr(msr), Err(GeneralProtection));
    }
}

#[test]
fn x2apic_reserved_bits() {
    for (msr, valid) in [
        (0x808, 0xffu64),
        (0x80b, 0),
        (0x80f, 0x3ff),
        (0x828, 0),
        (0x82f, 0x1_17ff),
        (0x830, 0xffff_ffff_000c_dfff),
        (0x832, 0x7_10ff),
        (0x833, 0x1_17ff),
        (0x834, 0x1_17ff),
        (0x835, 0x1_f7ff),
        (0x836, 0x1_f7ff),
        (0x837, 0x1_10ff),
        (0x838, 0xffff_ffff),
        (0x83e, 0xb),
        (0x83f, 0xff),
    ] {
        for bit in 0..64 {
            let mut bench = Bench::x2apic(1);
            let taken = bench.wrmsr(msr, 1 << bit).is_ok();
            assert_eq!(taken, valid & 1 << bit != 0, "{msr:#x} bit {bit}");
        }
    }
}

#[test]
fn x2apic_values() {
    let mut bench = Bench::x2apic(1);
    for (msr, value) in [
        (0x808, 0x25),
        (0x80f, 0x1f3),
        (0x82f, 0x42),
        (0x833, 0x43),
        (0x838, 0x1234_5678),
        (0x83e, 9),
    ] {
        assert_eq!(bench.wrmsr(msr, value), Ok(ApicEffect::None));
        assert_eq!(bench.rdmsr(msr), Ok(value), "{msr:#x}");
    }
    assert_eq!(bench.rdmsr(0x803), Ok(0x0006_0014));
    assert_eq!(bench.rdmsr(0x839), Ok(0x1234_5678));
    bench.post(0x83, Trigger::Level);
    assert_eq!(bench.rdmsr(0x824), Ok(8));
    assert_eq!(bench.rdmsr(0x81c), Ok(8));
    assert_eq!(bench.take(), Some(0x83));
    assert_eq!(bench.rdmsr(0x814), Ok(8));
    assert_eq!(bench.rdmsr(0x80a), Ok(0x80));
    assert_eq!(bench.wrmsr(0x80b, 0), Ok(ApicEffect::Eoi(Vector(0x83))));
    assert_eq!(bench.rdmsr(0x814), Ok(0));
}

#[test]
fn the_page_is_there_in_xapic_mode_only() {
    let mut bench = Bench::x2apic(1);
    assert_eq!(bench.read(0x20), !0);
    assert_eq!(bench.write(0x80, 0x30), ApicEffect::None);
    assert_eq!(bench.apic.cr8(), 0);
    let mut bench = Bench::new(1);
    bench.apic.set_apic_base(0xfee0_0000).unwrap();
    assert_eq!(bench.read(0x30), !0);
    assert_eq!(bench.write(0x80, 0x30), ApicEffect::None);
    assert_eq!(bench.apic.cr8(), 0);
}

#[test]
fn read_only_registers_stay() {
    let mut bench = Bench::new(6);
    bench.post(0x40, Trigger::Level);
    bench.take();
    bench.post(0x38, Trigger::Level);
    let offsets = [
        0x20, 0x30, 0x90, 0xa0, 0xc0, 0x110, 0x120, 0x190, 0x1a0, 0x210, 0x390,
    ];
    for offset in offsets {
        let before = bench.read(offset);
        assert_eq!(bench.write(offset, 0x1234_5678), ApicEffect::None);
        assert_eq!(bench.read(offset), before, "{offset:#x}");
    }
    assert_eq!(bench.esr(), 0);
    // Write-only.
    assert_eq!(bench.read(0xb0), 0);
}

#[test]
fn reserved_registers_are_errors() {
    for offset in [
        0x0, 0x10, 0x40, 0x70, 0x290, 0x2e0, 0x3a0, 0x3d0, 0x3f0, 0x400, 0xff0, 0x24,
    ] {
        let mut bench = Bench::new(0);
        assert_eq!(bench.read(offset), 0);
        assert_eq!(bench.esr(), 1 << 7, "{offset:#x}");
        assert_eq!(bench.write(offset, 1), ApicEffect::None);
        assert_eq!(bench.esr(), 1 << 7, "{offset:#x}");
    }
}

#[test]
fn svr_masks_the_lvt_and_keeps_its_fields() {
    let mut bench = Bench::new(0);
    let _ = bench.write(0x350, 0x700);
    let _ = bench.write(0xf0, 0xffff_f7ff);
    assert_eq!(bench.read(0xf0), 0x3ff);
    assert_eq!(bench.read(0x350), 0x700);
    let _ = bench.write(0xf0, 0x2f);
    assert_eq!(bench.read(0xf0), 0x2f);
    assert_eq!(bench.read(0x350), 0x1_0700);
    let _ = bench.write(0x350, 0x700);
    assert_eq!(bench.read(0x350), 0x1_0700, "it stays masked");
    bench.enable();
    assert_eq!(bench.read(0x350), 0x1_0700);
}

/// APIC-write exits: the CPU has written the page, whatever the register.
#[test]
fn writes_that_the_cpu_did() {
    let mut bench = Bench::new(2);
    let mut write = |offset, value| {
        bench.apic.page().set(offset, value);
        let effect = bench.apic.virtual_apic_write(offset, &bench.clock);
        (effect, bench.apic.page().get(offset))
    };
    assert_eq!(write(0x20, 0x5500_0000), (ApicEffect::None, 0x0200_0000));
    assert_eq!(write(0xd0, !0), (ApicEffect::None, 0xff00_0000));
    assert_eq!(write(0xe0, 0), (ApicEffect::None, 0x0fff_ffff));
    assert_eq!(write(0x350, 0x700), (ApicEffect::None, 0x700));
    assert_eq!(write(0x370, !0), (ApicEffect::None, 0x1_00ff));
    assert_eq!(write(0x280, !0), (ApicEffect::None, 0));
    assert_eq!(write(0x3e0, !0), (ApicEffect::None, 0xb));
    assert_eq!(write(0x320, 0x40), (ApicEffect::None, 0x40));
    assert_eq!(write(0x380, 500), (ApicEffect::Timer, 500));
    assert_eq!(write(0x310, 0x0100_0000), (ApicEffect::None, 0x0100_0000));
    let message = ApicMessage {
        destination: Destination::Physical { id: 1, wide: false },
        mode: DeliveryMode::Fixed,
        vector: Vector(0x44),
        trigger: Trigger::Edge,
    };
    assert_eq!(write(0x300, 0x1044), (ApicEffect::Ipi(message), 0x44));
    assert_eq!(write(0xf0, 0xf0), (ApicEffect::Timer, 0xf0));
    assert_eq!(bench.read(0x350), 0x1_0700);
    assert!(!bench.inbox.address().enabled);

    let mut bench = Bench::x2apic(2);
    bench.apic.page().set(0x3f0, 0x0c);
    let _ = bench.apic.virtual_apic_write(0x3f0, &bench.clock);
    assert_eq!(bench.wrmsr(0x828, 0), Ok(ApicEffect::None));
    assert_eq!(bench.rdmsr(0x828), Ok(1 << 5));
}

proptest::proptest! {
    #[test]
    fn no_guest_makes_it_panic(
        accesses in proptest::collection::vec((0u16..0x1000, 0u32.., 0u64..1 << 40), 1..50),
        x2apic: bool,
    ) {
        let mut bench = if x2apic { Bench::x2apic(9) } else { Bench::new(9) };
        for (offset, value, nanos) in accesses {
            let _ = bench.write(offset & !15, value);
            let _ = bench.read(offset);
            let _ = bench.wrmsr(0x800 + u32::from(offset >> 4), value.into());
            let _ = bench.rdmsr(0x800 + u32::from(offset >> 4));
            bench.clock.guest_tsc = bench.clock.guest_tsc.wrapping_mul(3).wrapping_add(nanos);
            let _ = bench.apic.set_tsc_deadline(u64::from(value) << (value % 33), &bench.clock);
            let _ = bench.apic.tsc_moved(&bench.clock);
            bench.clock.now = bench.clock.now.after(nanos);
            bench.inbox.post(Vector(value as u8), Trigger::Level);
            bench.inbox.signal(Signal::Timer);
            bench.accept();
            if bench.take().is_some() && value & 1 == 0 {
                let _ = bench.apic.eoi();
            }
            assert!(bench.apic.highest_irr().is_none_or(|vector| vector.0 >= 16));
        }
    }
}
