//! SDM vol. 3A, 11.6.2, 11.12.10: who is meant.

use super::*;

fn physical(id: u32, wide: bool) -> Destination {
    Destination::Physical { id, wide }
}

fn logical(id: u32, wide: bool) -> Destination {
    Destination::Logical { id, wide }
}

impl Bench {
    fn hears(&self, destination: Destination) -> bool {
        self.inbox.address().accepts(&destination, None)
    }
}

#[test]
fn physical_ids() {
    for bench in [Bench::new(3), Bench::x2apic(3)] {
        for wide in [false, true] {
            assert!(bench.hears(physical(3, wide)));
            assert!(!bench.hears(physical(2, wide)));
            assert_eq!(bench.hears(physical(0xff, wide)), !wide);
            assert_eq!(bench.hears(physical(!0, wide)), wide);
        }
    }
    let far = Bench::x2apic(300);
    assert!(far.hears(physical(300, true)));
    assert!(!far.hears(physical(300 & 0xff, true)));
    assert!(!far.hears(physical(300 & 0xff, false)));
}

#[test]
fn shorthands() {
    let address = Bench::new(3).inbox.address();
    for (destination, own, other) in [
        (Destination::All, true, true),
        (Destination::Myself, true, false),
        (Destination::Others, false, true),
    ] {
        assert_eq!(address.accepts(&destination, Some(3)), own);
        assert_eq!(address.accepts(&destination, Some(4)), other);
    }
    assert!(!address.accepts(&Destination::Myself, None));
}

#[test]
fn flat_model() {
    let mut bench = Bench::new(0);
    assert!(!bench.hears(logical(1, false)), "LDR is 0 after reset");
    let _ = bench.write(0xd0, 0x24ff_ffff);
    assert_eq!(bench.read(0xd0), 0x2400_0000);
    for (id, heard) in [
        (0x20, true),
        (0x04, true),
        (0xdb, false),
        (0x3f, true),
        (0, false),
        (0xff, true),
    ] {
        assert_eq!(bench.hears(logical(id, false)), heard, "{id:#x}");
    }
    assert!(bench.hears(logical(!0, true)));
    assert!(!bench.hears(logical(0x124, true)));
}

#[test]
fn cluster_model() {
    let mut bench = Bench::new(0);
    let _ = bench.write(0xd0, 0x2500_0000);
    let _ = bench.write(0xe0, 0x0abc_def0);
    assert_eq!(bench.read(0xe0), 0x0fff_ffff);
    for (id, heard) in [
        (0x21, true),
        (0x24, true),
        (0x2f, true),
        (0x22, false),
        (0x20, false),
        (0x15, false),
        (0x65, false),
        (0xff, true),
    ] {
        assert_eq!(bench.hears(logical(id, false)), heard, "{id:#x}");
    }
    // Neither model: only broadcasts.
    let _ = bench.write(0xe0, 0x7000_0000);
    for id in 0..0xff {
        assert!(!bench.hears(logical(id, false)), "{id:#x}");
    }
    assert!(bench.hears(logical(0xff, false)));
}

#[test]
fn x2apic_logical_ids() {
    // Cluster 2, member 5.
    let mut bench = Bench::x2apic(0x25);
    assert_eq!(bench.rdmsr(0x80d), Ok(0x0002_0020));
    assert!(bench.hears(logical(0x0002_0020, true)));
    assert!(bench.hears(logical(0x0002_ffff, true)));
    assert!(!bench.hears(logical(0x0002_ffdf, true)));
    assert!(!bench.hears(logical(0x0001_0020, true)));
    // 8 bits reach the first 8 of cluster 0.
    assert!(!bench.hears(logical(0x20, false)));
    let first = Bench::x2apic(5);
    assert!(first.hears(logical(0x20, false)));
    assert!(!first.hears(logical(0x10, false)));
    assert!(first.hears(logical(0xff, false)));
}

#[test]
fn what_senders_are_told() {
    let mut bench = Bench::cold(7);
    let off = Address {
        id: 7,
        present: true,
        ..Address::default()
    };
    assert_eq!(bench.inbox.address(), off);
    bench.enable();
    let on = Address {
        enabled: true,
        ..off
    };
    assert_eq!(bench.inbox.address(), on);
    let base = bench.apic.apic_base();
    bench.apic.set_apic_base(base & !(1 << 11)).unwrap();
    assert!(!bench.inbox.address().present);
    assert!(!bench.hears(Destination::All));
    // Nor does a vcpu hear that isn't there yet.
    assert!(!Inbox::new().address().accepts(&Destination::All, None));
    let all = Address {
        id: 0xffff,
        logical: 0xfeff_ffff,
        cluster: true,
        x2apic: true,
        present: true,
        enabled: true,
    };
    bench.inbox.publish_address(all.pack());
    assert_eq!(bench.inbox.address(), all);
}

#[test]
fn lowest_priority_takes_one_that_is_enabled() {
    let benches = [Bench::new(0), Bench::cold(1), Bench::new(2), Bench::new(3)];
    let addresses = benches.iter().map(|bench| bench.inbox.address());
    let choose = |destination, vector| {
        lowest_priority(addresses.clone(), &destination, Some(0), Vector(vector))
    };
    let chosen: Vec<_> = (0x40..0x46)
        .map(|v| choose(Destination::All, v).unwrap())
        .collect();
    assert!(chosen.iter().all(|&position| position != 1));
    for position in [0, 2, 3] {
        assert_eq!(chosen.iter().filter(|&&c| c == position).count(), 2);
    }
    assert_eq!(choose(physical(3, false), 0x40), Some(3));
    assert_eq!(choose(physical(1, false), 0x40), None);
    assert_eq!(choose(physical(9, false), 0x40), None);
    let others: Vec<_> = (0x40..0x44)
        .map(|v| choose(Destination::Others, v))
        .collect();
    assert!(!others.contains(&Some(0)));
}
