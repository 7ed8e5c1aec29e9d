//! SDM vol. 3A, 11.4.3, 11.4.4, 11.4.7, 11.12.5: modes, reset, INIT.

use super::*;
use crate::devices::lapic::register::{IRR, ISR};

const BSP: u64 = 1 << 8;
const EXTD: u64 = 1 << 10;
const EN: u64 = 1 << 11;

#[test]
fn power_on() {
    for vcpu in [0u16, 5] {
        let mut bench = Bench::cold(vcpu);
        let bsp = if vcpu == 0 { BSP } else { 0 };
        assert_eq!(bench.apic.apic_base(), 0xfee0_0000 | EN | bsp);
        assert_eq!(bench.apic.mode(), ApicMode::Xapic);
        for (offset, value) in [
            (0x20, u32::from(vcpu) << 24),
            (0x30, 0x0006_0014),
            (0x80, 0),
            (0xa0, 0),
            (0xd0, 0),
            (0xe0, !0),
            (0xf0, 0xff),
            (0x280, 0),
            (0x2f0, 0x1_0000),
            (0x300, 0),
            (0x310, 0),
            (0x320, 0x1_0000),
            (0x330, 0x1_0000),
            (0x340, 0x1_0000),
            (0x350, 0x1_0000),
            (0x360, 0x1_0000),
            (0x370, 0x1_0000),
            (0x380, 0),
            (0x390, 0),
            (0x3e0, 0),
        ] {
            assert_eq!(bench.read(offset), value, "{offset:#x}");
        }
    }
}

#[test]
fn init_resets_all_but_the_mode() {
    for mut bench in [Bench::new(4), Bench::x2apic(4)] {
        let fresh = if bench.apic.x2apic_allowed() {
            let mut fresh = Bench::cold(4);
            fresh.apic.allow_x2apic(true);
            fresh
        } else {
            Bench::cold(4)
        };
        bench.post(0x40, Trigger::Level);
        bench.take();
        bench.post(0x90, Trigger::Level);
        bench.inbox.signal(Signal::ExtInt);
        bench.accept();
        bench.apic.set_cr8(3);
        if bench.apic.mode() == ApicMode::Xapic {
            for offset in [0xd0, 0xe0, 0x280, 0x310, 0x350, 0x3e0, 0x320, 0x380, 0x1c0] {
                let _ = bench.write(offset, 0x0f00_00a3);
            }
        }
        bench.apic.init();
        assert_eq!(bench.apic.apic_base(), fresh.apic.apic_base());
        for offset in (0..4096).step_by(4) {
            let (is, was) = (bench.apic.page().get(offset), fresh.apic.page().get(offset));
            assert_eq!(is, was, "{offset:#x}");
        }
        assert_eq!(bench.inbox.address(), fresh.inbox.address());
        assert_eq!(bench.apic.deadline(), None);
        assert!(!bench.apic.takes_extint());
    }
}

#[test]
fn a_reset_is_a_power_on() {
    for off in [0, EN | EXTD] {
        let mut bench = Bench::x2apic(0);
        let base = bench.apic.apic_base();
        bench.apic.set_apic_base(base & !off).unwrap();
        bench.inbox.post(Vector(0x40), Trigger::Edge);
        bench.apic.reset();
        assert_eq!(bench.apic.apic_base(), 0xfee0_0000 | BSP | EN);
        assert!(!bench.apic.x2apic_allowed());
        assert!(bench.inbox.is_empty());
        bench.enable();
        assert_eq!(bench.apic.pending(), None);
    }
}

/// Figure 11-24.
#[test]
fn mode_transitions() {
    let modes = [0, EN, EXTD, EN | EXTD];
    let allowed = |from, to| match (from, to) {
        (0, 0 | EN) | (EN, _) if to != EXTD => true,
        (both, 0) if both == EN | EXTD => true,
        (a, b) => a == b,
    };
    for from in [0, EN, EN | EXTD] {
        for to in modes {
            let mut bench = Bench::cold(1);
            bench.apic.allow_x2apic(true);
            if from != EN | EXTD {
                bench.apic.set_apic_base(0xfee0_0000).unwrap();
                bench.apic.set_apic_base(0xfee0_0000 | from).unwrap();
            }
            let result = bench.apic.set_apic_base(0xfee0_0000 | to);
            assert_eq!(result.is_ok(), allowed(from, to), "{from:#x} to {to:#x}");
            let now = if result.is_ok() { to } else { from };
            assert_eq!(bench.apic.apic_base(), 0xfee0_0000 | now);
        }
    }
    // Without an x2APIC there is no way there.
    let mut bench = Bench::cold(1);
    let base = bench.apic.apic_base();
    assert_eq!(
        bench.apic.set_apic_base(base | EXTD),
        Err(GeneralProtection)
    );
    assert_eq!(bench.apic.set_apic_base(base), Ok(()));
}

#[test]
fn it_cannot_be_moved_and_the_bsp_stays_the_bsp() {
    let mut bench = Bench::cold(0);
    let base = bench.apic.apic_base();
    for change in [0x1000, 1 << 35, 1 << 52, BSP, 1, 1 << 9] {
        assert_eq!(
            bench.apic.set_apic_base(base ^ change),
            Err(GeneralProtection),
            "{change:#x}"
        );
    }
    assert_eq!(bench.apic.apic_base(), base);
}

#[test]
fn going_to_x2apic_mode_keeps_interrupts_and_makes_ids() {
    let mut bench = Bench::cold(0x13);
    bench.apic.allow_x2apic(true);
    bench.apic.set_apic_base(0xfee0_0000).unwrap();
    bench.apic.set_apic_base(0xfee0_0000 | EN).unwrap();
    bench.enable();
    assert_eq!(bench.read(0x20), 0x1300_0000);
    let _ = bench.write(0xd0, 0x8000_0000);
    bench.post(0x60, Trigger::Edge);
    bench.post(0x50, Trigger::Edge);
    assert_eq!(bench.take(), Some(0x60));
    bench.apic.set_apic_base(0xfee0_0000 | EN | EXTD).unwrap();
    assert_eq!(bench.rdmsr(0x802), Ok(0x13));
    assert_eq!(bench.rdmsr(0x80d), Ok(0x0001_0008));
    assert_eq!(bench.rdmsr(0x80f), Ok(0x1ff));
    assert_eq!(bench.vectors(ISR), [0x60]);
    assert_eq!(bench.vectors(IRR), [0x50]);
}

#[test]
fn disabling_loses_everything() {
    let mut bench = Bench::new(0);
    bench.post(0x60, Trigger::Edge);
    let base = bench.apic.apic_base();
    bench.apic.set_apic_base(base & !EN).unwrap();
    assert_eq!(bench.apic.mode(), ApicMode::Disabled);
    assert_eq!(bench.apic.pending(), None);
    bench.post(0x61, Trigger::Edge);
    bench.apic.set_apic_base(base).unwrap();
    assert_eq!(bench.read(0xf0), 0xff);
    bench.enable();
    assert_eq!(bench.apic.pending(), None);
}
