//! SDM vol. 3A, 11.5.1 and 11.5.3: the local vector table and ESR.

use super::*;
use crate::devices::lapic::register::{IRR, TMR};
use crate::stats::Stat;

const MASKED: u32 = 1 << 16;
const NMI: u32 = 4 << 8;
const EXTINT: u32 = 7 << 8;

const OFFSETS: [(Lvt, u16); 7] = [
    (Lvt::Cmci, 0x2f0),
    (Lvt::Timer, 0x320),
    (Lvt::Thermal, 0x330),
    (Lvt::Pmc, 0x340),
    (Lvt::Lint0, 0x350),
    (Lvt::Lint1, 0x360),
    (Lvt::Error, 0x370),
];

impl Bench {
    fn local(&mut self, lvt: Lvt) -> Accepted {
        self.inbox.signal(Signal::Local(lvt));
        self.accept()
    }
}

#[test]
fn each_entry_has_its_fields() {
    for (lvt, fields) in [
        (Lvt::Cmci, 0x1_07ff),
        (Lvt::Timer, 0x7_00ff),
        (Lvt::Thermal, 0x1_07ff),
        (Lvt::Pmc, 0x1_07ff),
        (Lvt::Lint0, 0x1_a7ff),
        (Lvt::Lint1, 0x1_a7ff),
        (Lvt::Error, 0x1_00ff),
    ] {
        let offset = OFFSETS.into_iter().find(|row| row.0 == lvt).unwrap().1;
        let mut bench = Bench::new(0);
        assert_eq!(bench.read(offset), MASKED, "{lvt:?} after reset");
        let _ = bench.write(offset, !0);
        assert_eq!(bench.read(offset), fields, "{lvt:?}");
        let _ = bench.write(offset, 0);
        assert_eq!(bench.read(offset), 0, "{lvt:?}");
    }
}

#[test]
fn a_fixed_entry_raises_its_vector() {
    for (i, (lvt, offset)) in (0u8..).zip(OFFSETS) {
        let mut bench = Bench::new(0);
        let vector = 0x50 + i;
        let _ = bench.write(offset, u32::from(vector) | MASKED);
        bench.local(lvt);
        assert_eq!(bench.apic.pending(), None, "{lvt:?} is masked");
        let _ = bench.write(offset, u32::from(vector));
        assert_eq!(bench.local(lvt), Accepted::default());
        assert_eq!(bench.apic.pending(), Some(Vector(vector)), "{lvt:?}");
        assert_eq!(bench.vectors(TMR), []);
    }
}

#[test]
fn nmi_and_extint_modes() {
    for (lvt, offset) in OFFSETS {
        let mut bench = Bench::new(1);
        let has_mode = !matches!(lvt, Lvt::Timer | Lvt::Error);
        let _ = bench.write(offset, NMI | 0x20);
        assert_eq!(bench.local(lvt).nmi, has_mode, "{lvt:?}");
        let _ = bench.write(offset, EXTINT | 0x20);
        assert!(!bench.local(lvt).nmi);
        assert_eq!(bench.apic.takes_extint(), has_mode, "{lvt:?}");
        // Once; but LINT0 is a line.
        bench.apic.extint_taken();
        assert_eq!(bench.apic.takes_extint(), lvt == Lvt::Lint0, "{lvt:?}");
        if has_mode {
            assert_eq!(bench.vectors(IRR), []);
        }
    }
}

#[test]
fn other_delivery_modes_do_nothing() {
    for mode in [1, 2, 3, 5, 6] {
        let mut bench = Bench::new(1);
        let _ = bench.write(0x350, mode << 8 | 0x40);
        assert_eq!(bench.local(Lvt::Lint0), Accepted::default());
        assert_eq!(bench.vectors(IRR), [], "{mode}");
        assert!(!bench.apic.takes_extint());
        assert_eq!(bench.esr(), 0);
    }
}

#[test]
fn level_triggered_lint0_waits_for_its_eoi() {
    const LEVEL: u32 = 1 << 15;
    const REMOTE_IRR: u32 = 1 << 14;
    let mut bench = Bench::new(0);
    let _ = bench.write(0x350, LEVEL | 0x61);
    bench.local(Lvt::Lint0);
    assert_eq!(bench.read(0x350), LEVEL | REMOTE_IRR | 0x61);
    assert_eq!(bench.vectors(TMR), [0x61]);
    assert_eq!(bench.take(), Some(0x61));
    bench.local(Lvt::Lint0);
    assert_eq!(bench.vectors(IRR), [], "remote IRR is set");
    // A write leaves it alone.
    let _ = bench.write(0x350, LEVEL | 0x61);
    assert_eq!(bench.read(0x350), LEVEL | REMOTE_IRR | 0x61);
    assert_eq!(bench.write(0xb0, 0), ApicEffect::Eoi(Vector(0x61)));
    assert_eq!(bench.read(0x350), LEVEL | 0x61);
    bench.local(Lvt::Lint0);
    assert_eq!(bench.vectors(IRR), [0x61]);
    // LINT1 is always edge-triggered.
    let _ = bench.write(0x360, LEVEL | 0x62);
    bench.local(Lvt::Lint1);
    assert_eq!(bench.vectors(TMR), [0x61]);
}

#[test]
fn the_8259s_reach_who_listens_on_lint0() {
    let mut bsp = Bench::cold(0);
    assert!(
        bsp.apic.takes_extint(),
        "virtual wire, as firmware sets it up"
    );
    bsp.enable();
    assert!(!bsp.apic.takes_extint(), "LINT0 is masked");
    let _ = bsp.write(0x350, EXTINT | MASKED);
    assert!(!bsp.apic.takes_extint());
    let _ = bsp.write(0x350, EXTINT);
    assert!(bsp.apic.takes_extint());
    bsp.apic.extint_taken();
    assert!(bsp.apic.takes_extint(), "it is the 8259s' line that counts");
    let _ = bsp.write(0x350, 0x33);
    assert!(!bsp.apic.takes_extint(), "fixed");

    let mut ap = Bench::cold(1);
    assert!(!ap.apic.takes_extint());
    ap.enable();
    ap.inbox.signal(Signal::ExtInt);
    assert!(!ap.apic.takes_extint());
    ap.accept();
    assert!(ap.apic.takes_extint(), "an ExtINT message");
    ap.apic.extint_taken();
    assert!(!ap.apic.takes_extint());
}

#[test]
fn the_pins_of_a_disabled_apic_are_intr_and_nmi() {
    let mut software = Bench::cold(1);
    let _ = software.write(0x360, 0x40);
    let mut hardware = Bench::new(1);
    let base = hardware.apic.apic_base();
    hardware.apic.set_apic_base(base & !(1 << 11)).unwrap();
    for mut bench in [software, hardware] {
        assert!(bench.local(Lvt::Lint1).nmi);
        assert!(!bench.local(Lvt::Lint0).nmi);
        assert!(!bench.local(Lvt::Thermal).nmi);
        assert!(!bench.apic.takes_extint(), "only the BSP");
    }
    let mut bsp = Bench::new(0);
    for _ in 0..2 {
        assert!(!bsp.apic.takes_extint());
        let base = bsp.apic.apic_base();
        bsp.apic.set_apic_base(base & !(1 << 11)).unwrap();
        assert!(bsp.apic.takes_extint());
        bsp.apic.set_apic_base(base).unwrap();
        assert!(bsp.apic.takes_extint(), "disabled by software");
        bsp.local(Lvt::Lint0);
        bsp.enable();
    }
}

#[test]
fn an_illegal_vector_is_an_error_and_raises_the_error_interrupt_once() {
    let mut bench = Bench::new(0);
    let _ = bench.write(0x370, 0xe0);
    let _ = bench.write(0x350, 0x0f);
    bench.local(Lvt::Lint0);
    assert_eq!(bench.read(0x280), 0, "ESR shows it when it is written");
    assert_eq!(bench.take(), Some(0xe0));
    let _ = bench.write(0xb0, 0);
    // Another error does not interrupt until ESR is written.
    let _ = bench.read(0x3c0);
    assert_eq!(bench.take(), None);
    assert_eq!(bench.esr(), 1 << 6 | 1 << 7);
    assert_eq!(bench.read(0x280), 1 << 6 | 1 << 7);
    bench.local(Lvt::Lint0);
    assert_eq!(bench.take(), Some(0xe0));
    assert_eq!(bench.esr(), 1 << 6);
    assert_eq!(bench.esr(), 0);
}

#[test]
fn an_illegal_error_vector_ends_there() {
    let mut bench = Bench::new(0);
    let _ = bench.write(0x370, 3);
    let _ = bench.read(0x40);
    assert_eq!(bench.vectors(IRR), []);
    assert_eq!(bench.esr(), 1 << 6 | 1 << 7);
}

#[test]
fn a_masked_error_interrupt_stays_armed() {
    let mut bench = Bench::new(0);
    let _ = bench.read(0x40);
    let _ = bench.write(0x370, 0xe0);
    assert_eq!(bench.apic.pending(), None);
    let _ = bench.read(0x40);
    assert_eq!(bench.apic.pending(), Some(Vector(0xe0)));
}

#[test]
fn what_the_statistics_count() {
    let mut bench = Bench::new(0);
    let stats = bench.stats.clone();
    let counts = || {
        [
            Stat::LvtsTriggeredLint1,
            Stat::LvtsTriggeredPmc,
            Stat::VlapicIntrTimer,
            Stat::VlapicIntrError,
            Stat::VlapicGratuitousEoi,
        ]
        .map(|stat| stats.get(stat))
    };
    // Masked entries do nothing, and nothing is counted.
    bench.local(Lvt::Pmc);
    let _ = bench.write(0x380, 1); // the timer's initial count
    bench.pass(1_000_000);
    bench.accept();
    assert_eq!(counts(), [0; 5]);

    let _ = bench.write(0x340, 0x50);
    bench.local(Lvt::Pmc);
    let _ = bench.write(0x360, NMI);
    assert!(bench.local(Lvt::Lint1).nmi);
    let _ = bench.write(0x320, 0x51);
    let _ = bench.write(0x380, 1);
    bench.pass(1_000_000);
    bench.accept();
    // A vector below 16 is an error, whose interrupt comes once.
    let _ = bench.write(0x370, 0x52);
    bench.post(5, Trigger::Edge);
    bench.post(6, Trigger::Edge);
    let _ = bench.write(0xb0, 0);
    assert_eq!(counts(), [1, 1, 1, 1, 1]);
}
