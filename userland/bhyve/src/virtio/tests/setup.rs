//! How drivers find and set up a device.

use super::guest::{ACKNOWLEDGE, Guest, NONE, Ring, Version, device, into};
use crate::ports::Width;
use crate::virtio::feature::{ANY_LAYOUT, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use crate::virtio::rnd;
use crate::virtio::transport::status;
use vmmapi::Gpa;

fn guest(version: Version) -> Guest {
    Guest::new(version, device("virtio-rnd"), "")
}

/// Whether the device does anything.
fn works(g: &Guest, ring: &mut Ring) -> bool {
    ring.request(g, &[into(g.room(8, 1), 8)]) == 8
}

#[test]
fn the_function_is_that_of_a_transitional_device() {
    let g = guest(Version::Modern);
    assert_eq!(g.config32(0), 0x1005_1af4);
    assert_eq!(g.config32(8) & 0xff, 0, "revision 0 is transitional");
    assert_eq!(g.config32(0x2c), 0x0004_1af4, "the subsystem is the type");
    let ids: Vec<u8> = g.capabilities().iter().map(|(_, id)| *id).collect();
    assert_eq!(ids, [0x11, 5, 9, 9, 9, 9]);
    assert_eq!(g.config32(0x10) & 1, 1, "legacy registers are ports");
}

#[test]
fn features_come_in_halves_and_version_1_is_for_new_drivers_only() {
    let g = guest(Version::Modern);
    assert_eq!(g.offered(), INDIRECT_DESC | EVENT_IDX | VERSION_1);
    g.set_common(0, 4, 2);
    assert_eq!(g.common(4, 4), 0);
    let g = guest(Version::Legacy);
    assert_eq!(g.offered(), INDIRECT_DESC | EVENT_IDX | ANY_LAYOUT);
    g.accept(u64::MAX);
    assert_eq!(
        u64::from(g.legacy(4, Width::Dword)),
        INDIRECT_DESC | EVENT_IDX | ANY_LAYOUT,
        "what is not offered can't be had"
    );
}

#[test]
fn features_that_were_not_offered_are_not_ok() {
    let g = guest(Version::Modern);
    let ok = |features| {
        g.set_status(0);
        g.set_status(ACKNOWLEDGE | status::DRIVER);
        g.accept(features);
        g.set_status(ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        g.status() & status::FEATURES_OK != 0
    };
    assert!(ok(VERSION_1));
    assert!(ok(VERSION_1 | EVENT_IDX));
    assert!(!ok(EVENT_IDX), "without virtio 1");
    assert!(!ok(VERSION_1 | ANY_LAYOUT));
    assert!(!ok(VERSION_1 | 1 << 40));
    g.set_status(ACKNOWLEDGE | status::DRIVER | status::DRIVER_OK);
    assert_eq!(g.status() & status::DRIVER_OK, 0, "not without features");
}

#[test]
fn features_hold_still_once_they_are_ok() {
    let g = guest(Version::Modern);
    g.start(0);
    g.accept(VERSION_1 | EVENT_IDX);
    g.set_common(8, 4, 0);
    assert_eq!(g.common(12, 4), 0);
}

#[test]
fn queues_beyond_the_last_one_have_no_size() {
    let g = guest(Version::Modern);
    assert_eq!(g.common(18, 2), 1, "queues");
    assert_eq!(g.common(24, 2), rnd::QUEUE_SIZE.into());
    g.set_common(22, 2, 1);
    assert_eq!((g.common(22, 2), g.common(24, 2)), (1, 0));
    g.set_common(28, 2, 1);
    g.set_common(32, 8, 0x1000);
    assert_eq!((g.common(28, 2), g.common(32, 8)), (0, 0));
    g.set_legacy(14, Width::Word, 0xffff);
    assert_eq!(g.legacy(12, Width::Word), 0);
    g.set_legacy(8, Width::Dword, 1);
    assert_eq!(g.legacy(8, Width::Dword), 0);
    g.set_legacy(16, Width::Word, 0xffff);
    g.write(g.registers.notify + 0xffc, 2, 0);
    assert_eq!(g.status(), 0);
}

#[test]
fn a_driver_of_virtio_1_chooses_a_smaller_ring() {
    let g = guest(Version::Modern);
    g.set_status(ACKNOWLEDGE | status::DRIVER);
    g.accept(VERSION_1);
    g.set_status(ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
    for bad in [0, 3, 48, 128, 0x8000] {
        g.set_common(24, 2, bad);
        assert_eq!(g.common(24, 2), rnd::QUEUE_SIZE.into(), "{bad}");
    }
    g.set_common(24, 2, 4);
    let mut ring = g.enable_queue();
    assert_eq!((ring.size, g.common(28, 2)), (4, 1));
    g.set_common(24, 2, 8);
    g.set_common(32, 4, 0);
    assert_eq!(g.common(24, 2), 4, "fixed while it is enabled");
    assert_eq!(g.common(32, 8), ring.descriptors);
    g.set_status(g.status() | status::DRIVER_OK);
    for _ in 0..20 {
        assert!(works(&g, &mut ring));
    }
}

#[test]
fn a_queue_must_lie_in_memory_and_on_its_boundaries() {
    let size = rnd::QUEUE_SIZE;
    let good = (0x10_0000_u64, 0x11_0000_u64, 0x12_0000_u64);
    for (why, (descriptors, available, used)) in [
        ("table not aligned", (good.0 + 8, good.1, good.2)),
        ("available ring not aligned", (good.0, good.1 + 1, good.2)),
        ("used ring not aligned", (good.0, good.1, good.2 + 2)),
        ("table outside", (u64::MAX - 15, good.1, good.2)),
        ("ring outside", (good.0, 0xc000_0000, good.2)),
        ("last byte outside", (good.0, good.1, (8 << 20) - 64 * 8)),
    ] {
        let g = guest(Version::Modern);
        g.set_status(ACKNOWLEDGE | status::DRIVER);
        g.place_queue(&Ring::new(size, descriptors, available, used));
        g.set_common(28, 2, 1);
        assert_eq!(g.common(28, 2), 0, "{why}");
        assert!(g.status() & status::NEEDS_RESET != 0, "{why}");
        assert!(works(&g, &mut g.start(0)), "{why}");
    }
}

#[test]
fn nothing_is_done_before_driver_ok_and_all_of_it_then() {
    let g = guest(Version::Modern);
    let mut ring = g.start_without_driver_ok(0);
    let buffer = g.room(16, 1);
    ring.send(&g, &[into(buffer, 16)]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(ring.used_index(&g), 0);
    assert_eq!(g.bytes(buffer, 16), [0; 16]);
    g.set_status(g.status() | status::DRIVER_OK);
    assert_eq!(ring.receive(&g), (0, 16), "the notification isn't lost");
}

#[test]
fn an_old_driver_may_use_its_queue_before_driver_ok_but_not_before_driver() {
    let g = guest(Version::Legacy);
    g.set_status(ACKNOWLEDGE);
    let mut ring = g.enable_queue();
    ring.send(&g, &[into(g.room(4, 1), 4)]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(ring.used_index(&g), 0);
    g.set_status(ACKNOWLEDGE | status::DRIVER);
    assert_eq!(ring.receive(&g), (0, 4));
}

#[test]
fn an_old_driver_that_gave_up_gets_nothing_any_more() {
    let g = guest(Version::Legacy);
    let mut ring = g.start(0);
    g.set_status(g.status() | status::FAILED);
    ring.send(&g, &[into(g.room(4, 1), 4)]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(ring.used_index(&g), 0);
}

#[test]
fn page_number_zero_takes_an_old_drivers_queue_away() {
    let g = guest(Version::Legacy);
    let mut ring = g.start(0);
    assert!(works(&g, &mut ring));
    assert_eq!(u64::from(g.legacy(8, Width::Dword)), ring.descriptors >> 12);
    g.set_legacy(8, Width::Dword, 0);
    assert_eq!(g.legacy(8, Width::Dword), 0);
    ring.send(&g, &[into(g.room(4, 1), 4)]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(ring.used_index(&g), 1);
    let mut ring = g.enable_queue();
    assert!(works(&g, &mut ring), "from the beginning");
    g.set_legacy(8, Width::Dword, 0xffff_ffff);
    assert!(g.status() & status::NEEDS_RESET != 0, "not memory");
}

#[test]
fn reset_puts_all_registers_back() {
    for version in [Version::Legacy, Version::Modern] {
        let g = guest(version);
        g.enable_msix();
        let mut ring = g.start(EVENT_IDX);
        g.set_queue_vector(1);
        assert!(works(&g, &mut ring));
        g.set_status(0);
        assert_eq!(g.status(), 0);
        assert_eq!(g.legacy(4, Width::Dword), 0);
        assert_eq!(g.legacy(8, Width::Dword), 0);
        assert_eq!(g.legacy(22, Width::Word), NONE.into());
        assert_eq!(g.common(28, 2), 0);
        assert_eq!(g.common(32, 8), 0);
        assert!(works(&g, &mut g.start(0)));
    }
}

#[test]
fn registers_are_reached_through_configuration_space_too() {
    let g = guest(Version::Modern);
    let window = g.virtio_capability(5).unwrap();
    let set = |bar: u32, offset: u32, len: u32| {
        g.set_config(window + 4, Width::Byte, bar);
        g.set_config(window + 8, Width::Dword, offset);
        g.set_config(window + 12, Width::Dword, len);
    };
    set(2, 18, 2);
    assert_eq!(g.config32(window + 16) & 0xffff, 1, "queues");
    set(2, 20, 1);
    g.set_config(window + 16, Width::Byte, ACKNOWLEDGE.into());
    assert_eq!(g.status(), ACKNOWLEDGE);
    set(0, 12, 2);
    assert_eq!(g.config32(window + 16) & 0xffff, rnd::QUEUE_SIZE.into());
    for (bar, offset, len) in [
        (2, 0x4000, 4),
        (2, 0x3ffe, 4),
        (2, u32::MAX - 3, 4),
        (1, 0, 4),
        (6, 0, 4),
        (255, 0, 1),
        (2, 21, 2),
        (2, 0, 3),
        (2, 0, 0),
        (2, 0, 8),
    ] {
        set(bar, offset, len);
        g.set_config(window + 16, Width::Dword, 0xffff_ffff);
        let data = g.config32(window + 16);
        assert_eq!(
            (g.status(), data),
            (ACKNOWLEDGE, 0xffff_ffff),
            "no access: {bar} {offset:#x} {len}"
        );
    }
}

#[test]
fn accesses_of_other_widths_change_nothing() {
    let g = guest(Version::Modern);
    g.set_common(20, 4, 0xffff_ffff);
    assert_eq!(g.status(), 0);
    assert_eq!(g.common(22, 2), 0);
    g.set_legacy(18, Width::Word, 0xffff);
    assert_eq!(g.status(), 0);
    g.set_status(ACKNOWLEDGE);
    assert_eq!(g.common(20, 4) & 0xff, ACKNOWLEDGE.into());
    assert_eq!(g.read(g.registers.common + 56, 4), 0);
    assert_eq!(g.mmio_read_empty(), [0, 0]);
}

impl Guest {
    /// Behind the end of the common configuration, and notification registers.
    fn mmio_read_empty(&self) -> [u64; 2] {
        [
            self.read(self.registers.common + 0xff8, 8),
            self.read(self.registers.notify, 4),
        ]
    }
}

#[test]
fn a_queue_may_lie_above_4_gib() {
    let g = guest(Version::Modern);
    g.set_status(ACKNOWLEDGE | status::DRIVER);
    g.accept(VERSION_1);
    g.set_status(ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
    let base = super::guest::HIGH.0;
    let mut ring = Ring::new(rnd::QUEUE_SIZE, base, base + 0x1000, base + 0x2000);
    g.place_queue(&ring);
    g.set_common(28, 2, 1);
    g.set_status(g.status() | status::DRIVER_OK);
    let buffer = Gpa(base + 0x3000);
    assert_eq!(ring.request(&g, &[into(buffer, 32)]), 32);
    assert_ne!(g.bytes(buffer, 32), [0; 32]);
}
