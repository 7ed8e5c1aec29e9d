//! Chains of descriptors that keep the rules, and those that don't; and requests that are
//! in flight when the device is reset.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::guest::{Guest, HIGH, LOW, Part, Version, into, made_by, out, write_descriptor};
use crate::config::View;
use crate::pci::{DeviceContext, DeviceError, PciDevice};
use crate::virtio::chain::{Chain, ChainError};
use crate::virtio::device::{Identity, VirtioDevice};
use crate::virtio::feature::INDIRECT_DESC;
use crate::virtio::function::VirtioFunction;
use crate::virtio::transport::status;
use vmmapi::Gpa;

/// Answers with what it reads; a request that begins with "wait" stays until it is let go.
struct Echo(Mutex<Receiver<()>>);

thread_local! {
    /// Lets a waiting request of the [`Echo`] go that this test made last.
    static LET_GO: RefCell<Option<Sender<()>>> = const { RefCell::new(None) };
}

impl VirtioDevice for Echo {
    fn identity(&self) -> Identity {
        Identity {
            device_type: 63,
            pci_device: 0x103f,
            class: 0xff,
            subclass: 0,
        }
    }
    fn features(&self) -> u64 {
        0
    }
    fn queues(&self) -> &[u16] {
        &[16]
    }
    fn config(&self) -> Vec<u8> {
        b"echo!".to_vec()
    }
    fn threads(&self) -> usize {
        3
    }
    fn handle(&self, _queue: usize, chain: Chain, _features: u64) -> Result<u32, ChainError> {
        let mut bytes = vec![0; chain.readable.len() as usize];
        chain.readable.copy_from(&mut bytes).unwrap();
        if bytes.starts_with(b"wait") {
            let _ = self.0.lock().unwrap().recv_timeout(Duration::from_secs(20));
        }
        Ok(chain.writable.copy_to(&bytes).unwrap() as u32)
    }
}

fn echo(_: &View<'_>, context: DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError> {
    let (sender, receiver) = channel();
    LET_GO.set(Some(sender));
    let device = Box::new(Echo(Mutex::new(receiver)));
    Ok(VirtioFunction::new(device, context, "echo")?)
}

fn guest(version: Version) -> Guest {
    Guest::new(version, made_by(echo), "")
}

#[test]
fn requests_are_divided_into_descriptors_in_any_way() {
    for version in [Version::Legacy, Version::Modern] {
        let g = guest(version);
        let mut ring = g.start(0);
        let text = g.room_with(b"abcdefghij");
        let to = g.room(16, 1);
        let parts = [
            out(text, 3),
            out(Gpa(text.0 + 3), 1),
            out(Gpa(text.0 + 4), 6),
            into(to, 1),
            into(Gpa(to.0 + 1), 7),
            into(Gpa(to.0 + 8), 8),
        ];
        assert_eq!(ring.request(&g, &parts), 10);
        assert_eq!(g.bytes(to, 16), b"abcdefghij\0\0\0\0\0\0");
        assert_eq!(ring.request(&g, &[out(text, 5), into(to, 2)]), 2);
        assert_eq!(ring.request(&g, &[out(text, 5)]), 0);
    }
}

#[test]
fn memory_may_be_anywhere_but_must_be_memory() {
    let g = guest(Version::Modern);
    let mut ring = g.start(0);
    g.memory.copy_to(Gpa(LOW as u64 - 4), b"last").unwrap();
    g.memory.copy_to(HIGH, b"high").unwrap();
    let to = g.room(8, 1);
    let parts = [out(HIGH, 4), out(Gpa(LOW as u64 - 4), 4), into(to, 8)];
    assert_eq!(ring.request(&g, &parts), 8);
    assert_eq!(g.bytes(to, 8), b"highlast");
    for part in [
        out(Gpa(LOW as u64 - 4), 5),
        out(Gpa(LOW as u64), 1),
        out(Gpa(u64::MAX), 1),
        out(Gpa(u64::MAX - 3), 4),
        out(Gpa(0), u32::MAX),
        into(Gpa(HIGH.0 - 1), 2),
    ] {
        let mut ring = g.start(0);
        ring.send(&g, &[part]);
        g.wait_for_needs_reset();
        assert_eq!(ring.used_index(&g), 0, "{part:?}");
    }
}

#[test]
fn empty_buffers_say_nothing() {
    let g = guest(Version::Modern);
    let mut ring = g.start(0);
    let text = g.room_with(b"ab");
    let to = g.room(2, 1);
    let parts = [
        out(Gpa(u64::MAX), 0),
        out(text, 2),
        into(Gpa(u64::MAX), 0),
        into(to, 2),
    ];
    assert_eq!(ring.request(&g, &parts), 2);
    assert_eq!(g.bytes(to, 2), b"ab");
}

#[test]
fn an_indirect_table_holds_more_than_the_ring() {
    for version in [Version::Legacy, Version::Modern] {
        let g = guest(version);
        let mut ring = g.start(INDIRECT_DESC);
        let text = g.room_with(&[7; 60]);
        let to = g.room(60, 1);
        let table = g.room(61 * 16, 16);
        for n in 0..60 {
            write_descriptor(&g, table, n, out(Gpa(text.0 + u64::from(n)), 1), 1, n + 1);
        }
        write_descriptor(&g, table, 60, into(to, 60), 0, 0);
        ring.set_descriptor(&g, 5, out(table, 61 * 16), 4, 0);
        ring.publish(&g, 5);
        g.notify();
        assert_eq!(ring.receive(&g), (5, 60));
        assert_eq!(g.bytes(to, 60), [7; 60]);
    }
}

#[test]
fn chains_that_break_a_rule_stop_the_device_until_its_reset() {
    const NEXT: u16 = 1;
    const INDIRECT: u16 = 4;
    type Break = fn(&Guest, Gpa, &mut super::guest::Ring) -> u16;
    let rules: [(&str, Break); 12] = [
        ("head beyond the table", |_, _, _| 16),
        ("next beyond the table", |g, at, ring| {
            ring.set_descriptor(g, 0, out(at, 4), NEXT, 16);
            0
        }),
        ("a loop of one", |g, at, ring| {
            ring.set_descriptor(g, 0, out(at, 4), NEXT, 0);
            0
        }),
        ("a loop of all", |g, at, ring| {
            for n in 0..16 {
                ring.set_descriptor(g, n, out(at, 4), NEXT, (n + 1) % 16);
            }
            3
        }),
        ("readable behind writable", |g, at, ring| {
            ring.chain(g, &[into(at, 4), out(at, 4)])
        }),
        (
            "an indirect table of no whole descriptors",
            |g, at, ring| {
                ring.set_descriptor(g, 0, out(at, 17), INDIRECT, 0);
                0
            },
        ),
        ("an indirect table of none", |g, at, ring| {
            ring.set_descriptor(g, 0, out(at, 0), INDIRECT, 0);
            0
        }),
        ("an indirect table outside memory", |g, _, ring| {
            ring.set_descriptor(g, 0, out(Gpa(LOW as u64 - 8), 16), INDIRECT, 0);
            0
        }),
        ("an indirect table and a next descriptor", |g, at, ring| {
            write_descriptor(g, at, 0, out(at, 4), 0, 0);
            ring.set_descriptor(g, 0, out(at, 16), INDIRECT | NEXT, 1);
            ring.set_descriptor(g, 1, out(at, 4), 0, 0);
            0
        }),
        ("an indirect table in an indirect table", |g, at, ring| {
            write_descriptor(g, at, 0, out(at, 16), INDIRECT, 0);
            ring.set_descriptor(g, 0, out(at, 16), INDIRECT, 0);
            0
        }),
        ("next beyond the indirect table", |g, at, ring| {
            write_descriptor(g, at, 0, out(at, 4), NEXT, 1);
            ring.set_descriptor(g, 0, out(at, 16), INDIRECT, 0);
            0
        }),
        ("a loop in the indirect table", |g, at, ring| {
            write_descriptor(g, at, 0, out(at, 4), NEXT, 1);
            write_descriptor(g, at, 1, out(at, 4), NEXT, 0);
            ring.set_descriptor(g, 0, out(at, 32), INDIRECT, 0);
            0
        }),
    ];
    let g = guest(Version::Modern);
    let at = g.room(4096, 16);
    let text = g.room_with(b"ok");
    for (rule, make) in rules {
        let mut ring = g.start(INDIRECT_DESC);
        let head = make(&g, at, &mut ring);
        ring.publish(&g, head);
        g.notify();
        g.wait_for_needs_reset();
        let good = ring.chain(&g, &[out(text, 2)]);
        ring.publish(&g, good);
        g.notify();
        assert_eq!(ring.used_index(&g), 0, "{rule}");
        let mut ring = g.start(0);
        assert_eq!(ring.request(&g, &[out(text, 2), into(at, 2)]), 2, "{rule}");
    }
}

#[test]
fn an_indirect_descriptor_must_have_been_negotiated() {
    let g = guest(Version::Modern);
    let mut ring = g.start(0);
    let at = g.room(16, 16);
    write_descriptor(&g, at, 0, out(at, 4), 0, 0);
    ring.set_descriptor(&g, 0, out(at, 16), 4, 0);
    ring.publish(&g, 0);
    g.notify();
    g.wait_for_needs_reset();
}

#[test]
fn an_index_further_ahead_than_the_ring_stops_the_device() {
    let g = guest(Version::Modern);
    let ring = g.start(0);
    g.memory.write(Gpa(ring.available + 2), 17_u16).unwrap();
    g.notify();
    g.wait_for_needs_reset();
    let mut ring = g.start(0);
    let text = g.room_with(b"x");
    for _ in 0..16 {
        let head = ring.chain(&g, &[out(text, 1)]);
        ring.publish(&g, head);
    }
    g.notify();
    for _ in 0..16 {
        ring.receive(&g);
    }
    assert_eq!(g.status() & status::NEEDS_RESET, 0, "a full ring is fine");
}

#[test]
fn indices_wrap() {
    let g = guest(Version::Legacy);
    let mut ring = g.start(0);
    let parts: Vec<Part> = vec![out(g.room_with(b"x"), 1)];
    for _ in 0..70_000_u32 {
        ring.send(&g, &parts);
        while ring.used_index(&g) == ring.taken {
            std::thread::yield_now();
        }
        ring.taken = ring.taken.wrapping_add(1);
    }
    assert_eq!(ring.used_index(&g), (70_000_u32 % 65_536) as u16);
}

#[test]
fn reset_waits_for_requests_in_flight_and_no_others() {
    let g = guest(Version::Modern);
    let let_go = LET_GO.take().unwrap();
    let mut ring = g.start(0);
    let text = g.room_with(b"wait");
    let to = g.room(8, 1);
    ring.send(&g, &[out(text, 4), into(to, 4)]);
    // The other threads go on meanwhile, and once this is answered the first one is taken.
    let quick = g.room_with(b"now!");
    ring.request_out_of_order(&g, &[out(quick, 4), into(Gpa(to.0 + 4), 4)]);
    std::thread::scope(|scope| {
        let reset = scope.spawn(|| g.set_status(0));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!reset.is_finished());
        assert_ne!(g.status(), 0, "the driver reads that it isn't done");
        ring.send(&g, &[out(quick, 4), into(Gpa(to.0 + 4), 4)]);
        assert_eq!(g.bytes(to, 8), b"\0\0\0\0now!");
        let_go.send(()).unwrap();
        reset.join().unwrap();
    });
    assert_eq!(g.bytes(to, 4), b"wait", "done before the reset was");
    assert_eq!(ring.used_index(&g), 2, "and nothing was begun during it");
    assert_eq!(g.status(), 0);
}

impl super::guest::Ring {
    /// Sends, and waits for an answer to that, with another request waiting.
    fn request_out_of_order(&mut self, g: &Guest, parts: &[Part]) {
        let head = self.send(g, parts);
        assert_eq!(self.receive(g).0, u32::from(head));
    }
}

#[test]
fn the_device_configuration_moves_with_msix_for_old_drivers() {
    use crate::ports::Width;
    let g = guest(Version::Legacy);
    assert_eq!(g.legacy(20, Width::Dword), u32::from_le_bytes(*b"echo"));
    assert_eq!(g.legacy(24, Width::Byte), u32::from(b'!'));
    assert_eq!(g.legacy(23, Width::Dword), u32::from_le_bytes(*b"o!\0\0"));
    g.set_legacy(20, Width::Dword, 0);
    g.enable_msix();
    assert_eq!(g.legacy(20, Width::Word), 0xffff, "vectors are there now");
    assert_eq!(g.legacy(24, Width::Dword), u32::from_le_bytes(*b"echo"));
    assert_eq!(
        g.read(g.registers.device, 8) as u32,
        u32::from_le_bytes(*b"echo")
    );
}
