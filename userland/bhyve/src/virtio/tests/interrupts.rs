//! When a driver is interrupted, and how; and when the device asks for notifications.

use super::guest::{Guest, NONE, Version, device, into};
use crate::ports::Width;
use crate::virtio::feature::EVENT_IDX;
use crate::virtio::transport::status;

fn guest(version: Version) -> Guest {
    Guest::new(version, device("virtio-rnd"), "")
}

/// The level that the function's pin has now, as the router's changes leave it.
fn pin(g: &Guest) -> bool {
    let isa = g.recorder.isa.lock().unwrap();
    let ioapic = g.recorder.ioapic.lock().unwrap();
    let last = isa.last().map(|(_, _, level)| *level);
    last.or(ioapic.last().map(|(_, level)| *level)) == Some(true)
}

#[test]
fn the_pin_rises_with_an_answer_and_falls_when_the_isr_is_read() {
    for version in [Version::Legacy, Version::Modern] {
        let g = guest(version);
        let mut ring = g.start(0);
        assert_eq!((g.isr(), pin(&g)), (0, false));
        ring.request(&g, &[into(g.room(4, 1), 4)]);
        g.wait_for("interrupt", || pin(&g));
        assert_eq!(g.isr(), 1);
        assert_eq!((g.isr(), pin(&g)), (0, false));
        ring.request(&g, &[into(g.room(4, 1), 4)]);
        g.wait_for("interrupt", || pin(&g));
        g.set_status(0);
        assert_eq!((g.isr(), pin(&g)), (0, false), "after reset");
    }
}

#[test]
fn with_msix_each_event_has_its_vector_or_none() {
    for version in [Version::Legacy, Version::Modern] {
        let g = guest(version);
        g.enable_msix();
        let mut ring = g.start(0);
        assert_eq!(g.set_queue_vector(2), NONE, "there are two");
        assert_eq!(g.set_queue_vector(1), 1);
        ring.request(&g, &[into(g.room(4, 1), 4)]);
        g.wait_for("message", || {
            !g.recorder.messages.lock().unwrap().is_empty()
        });
        assert_eq!(g.messages(), [1]);
        assert_eq!((g.isr(), pin(&g)), (0, false));
        assert_eq!(g.set_queue_vector(NONE), NONE);
        ring.request(&g, &[into(g.room(4, 1), 4)]);
        ring.request(&g, &[into(g.room(4, 1), 4)]);
        assert_eq!(g.messages(), []);
    }
}

#[test]
fn the_configuration_vector_tells_of_needs_reset() {
    let g = guest(Version::Modern);
    g.enable_msix();
    let mut ring = g.start(0);
    g.set_common(16, 2, 5);
    assert_eq!(g.common(16, 2), NONE.into());
    g.set_common(16, 2, 0);
    assert_eq!(g.common(16, 2), 0);
    ring.publish(&g, 0xffff);
    g.notify();
    g.wait_for_needs_reset();
    assert_eq!(g.messages(), [0]);
    let g = guest(Version::Modern);
    let mut ring = g.start(0);
    ring.publish(&g, 0xffff);
    g.notify();
    g.wait_for_needs_reset();
    assert_eq!(g.isr(), 2);
    assert!(g.status() & status::DRIVER_OK != 0);
}

#[test]
fn msi_carries_interrupts_where_msix_is_not_wanted() {
    let g = Guest::try_new(Version::Legacy, device("virtio-rnd"), "", true).unwrap();
    let ids: Vec<u8> = g.capabilities().iter().map(|(_, id)| *id).collect();
    assert!(!ids.contains(&0x11), "-W");
    let (msi, _) = g.capabilities()[0];
    g.set_config(msi + 4, Width::Dword, 0xfee0_0000);
    g.set_config(msi + 12, Width::Word, 0x41);
    g.set_config(msi + 2, Width::Word, 1);
    let mut ring = g.start(0);
    // Without MSI-X the device's configuration begins earlier.
    ring.request(&g, &[into(g.room(4, 1), 4)]);
    g.wait_for("message", || {
        !g.recorder.messages.lock().unwrap().is_empty()
    });
    assert_eq!(g.messages(), [0x41]);
    assert!(!pin(&g));
    assert_eq!(g.isr(), 1, "the handler finds its reason");
}

#[test]
fn a_driver_that_wants_no_interrupt_gets_none() {
    let g = guest(Version::Modern);
    g.enable_msix();
    let mut ring = g.start(0);
    g.set_queue_vector(1);
    g.memory.write(vmmapi::Gpa(ring.available), 1_u16).unwrap();
    for _ in 0..3 {
        ring.request(&g, &[into(g.room(4, 1), 4)]);
    }
    // The thread that answered is through when it can be drained.
    g.set_status(0);
    assert_eq!(g.messages(), []);
}

#[test]
fn with_event_indices_only_the_answer_that_is_waited_for_interrupts() {
    let g = guest(Version::Modern);
    g.enable_msix();
    let mut ring = g.start(EVENT_IDX);
    g.set_queue_vector(1);
    ring.set_used_event(&g, 2);
    for n in 1..=6 {
        ring.request(&g, &[into(g.room(4, 1), 4)]);
        // The interrupt follows the answer; the next request is taken behind it.
        if n == 4 {
            assert_eq!(g.messages(), [1], "for the third answer only");
            ring.set_used_event(&g, 5);
        }
    }
    g.wait_for("message", || {
        !g.recorder.messages.lock().unwrap().is_empty()
    });
    g.set_status(0);
    assert_eq!(g.messages(), [1]);
}

#[test]
fn the_device_asks_for_a_notification_of_what_it_has_not_seen() {
    let g = guest(Version::Modern);
    let mut ring = g.start(EVENT_IDX);
    for n in 1..=3 {
        ring.request(&g, &[into(g.room(4, 1), 4)]);
        g.wait_for("event index", || ring.avail_event(&g) == n);
    }
    let flags =
        |ring: &super::guest::Ring| -> u16 { g.memory.read(vmmapi::Gpa(ring.used)).unwrap() };
    let mut ring = g.start(0);
    ring.request(&g, &[into(g.room(4, 1), 4)]);
    g.wait_for("wish", || flags(&ring) == 0);
}
