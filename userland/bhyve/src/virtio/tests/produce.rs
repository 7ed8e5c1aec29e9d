//! Queues that a device serves by itself: waiting for chains, using several of them at
//! once, resets meanwhile.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;

use proptest::prelude::*;

use super::guest::{Guest, Part, Ring, Version, into, made_by, out, write_descriptor};
use crate::config::View;
use crate::pci::{DeviceContext, DeviceError, PciDevice};
use crate::ports::Width;
use crate::virtio::chain::{Chain, ChainError};
use crate::virtio::device::{Identity, VirtioDevice};
use crate::virtio::feature::{EVENT_IDX, INDIRECT_DESC};
use crate::virtio::function::VirtioFunction;
use crate::virtio::queues::{Batch, DeviceQueues, Stopped, Wait};
use crate::virtio::transport::status;
use vmmapi::Gpa;

/// The device's own queue, and the one that the transport serves.
const OWN: usize = 0;
const SERVED: usize = 1;

/// A device whose first queue the tests serve.
struct Source {
    told: Arc<Mutex<Vec<String>>>,
}

/// What a test has of its [`Source`].
#[derive(Clone)]
struct Outside {
    queues: DeviceQueues,
    told: Arc<Mutex<Vec<String>>>,
}

thread_local! {
    static OUTSIDE: RefCell<Option<Outside>> = const { RefCell::new(None) };
}

impl Source {
    fn tell(&self, what: String) {
        self.told.lock().unwrap().push(what);
    }
}

impl VirtioDevice for Source {
    fn identity(&self) -> Identity {
        Identity {
            device_type: 63,
            pci_device: 0x103f,
            class: 0xff,
            subclass: 0,
        }
    }
    fn features(&self) -> u64 {
        1 << 5
    }
    fn queues(&self) -> &[u16] {
        &[8, 16]
    }
    fn config(&self) -> Vec<u8> {
        b"first".to_vec()
    }
    fn config_write(&self, offset: usize, bytes: &[u8]) {
        self.tell(format!("config {offset} {bytes:?}"));
    }
    fn threads(&self) -> usize {
        1
    }
    fn served(&self, queue: usize) -> bool {
        queue == SERVED
    }
    fn handle(&self, queue: usize, chain: Chain, _features: u64) -> Result<u32, ChainError> {
        assert_eq!(queue, SERVED);
        Ok(chain.writable.copy_to(b"served").unwrap() as u32)
    }
    fn attach(&self, queues: DeviceQueues) -> io::Result<()> {
        let told = Arc::clone(&self.told);
        OUTSIDE.set(Some(Outside { queues, told }));
        Ok(())
    }
    fn notified(&self, queue: usize) {
        self.tell(format!("notified {queue}"));
    }
    fn ready(&self, features: u64) {
        self.tell(format!("ready {}", features & 0xff));
    }
    fn reset(&self) {
        self.tell("reset".into());
    }
}

fn source(_: &View<'_>, context: DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError> {
    let told = Arc::default();
    let device = Box::new(Source { told });
    Ok(VirtioFunction::new(device, context, "source")?)
}

fn guest(version: Version) -> (Guest, Outside) {
    let g = Guest::new(version, made_by(source), "");
    (g, OUTSIDE.take().unwrap())
}

impl Outside {
    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    /// Puts a message into one chain after the other, as many as it needs; false if there
    /// are too few.
    fn send(&self, message: &[u8]) -> Result<bool, Stopped> {
        self.queues.produce(OWN, |batch| fill(batch, message))?
    }
}

/// All of a message, or nothing.
fn fill(batch: &mut Batch<'_>, message: &[u8]) -> Result<bool, Stopped> {
    let (mut left, mut lengths) = (message, Vec::new());
    while !left.is_empty() {
        let Some(chain) = batch.take()? else {
            batch.put_back();
            return Ok(false);
        };
        let len = chain.writable.copy_to(left).unwrap();
        left = &left[len..];
        lengths.push(len as u32);
    }
    batch.commit(&lengths);
    Ok(true)
}

fn give(g: &Guest, ring: &mut Ring, len: u32) -> Gpa {
    let at = g.room(len.into(), 1);
    ring.send(g, &[into(at, len)]);
    at
}

#[test]
fn a_message_takes_several_chains_and_interrupts_once() {
    for version in [Version::Legacy, Version::Modern] {
        let (g, outside) = guest(version);
        g.enable_msix();
        let mut ring = g.start_queues(0, 2).remove(0);
        match version {
            Version::Legacy => g.set_legacy(14, Width::Word, 0),
            Version::Modern => g.set_common(22, 2, 0),
        }
        assert_eq!(g.set_queue_vector(1), 1);
        let places: Vec<Gpa> = (0..4).map(|_| give(&g, &mut ring, 4)).collect();
        assert_eq!(outside.send(b"over three"), Ok(true));
        assert_eq!(ring.used_index(&g), 3);
        assert_eq!(g.messages(), [1]);
        for (n, (text, place)) in [b"over", b" thr", b"ee\0\0"].iter().zip(places).enumerate() {
            let len = [4, 4, 2][n];
            assert_eq!(ring.receive(&g), (n as u32, len));
            assert_eq!(&g.bytes(place, 4), *text);
        }
        // What doesn't fit is as if it had never been there.
        assert_eq!(outside.send(b"too long"), Ok(false));
        assert_eq!((ring.used_index(&g), g.messages().len()), (3, 0));
        give(&g, &mut ring, 4);
        assert_eq!(outside.send(b"too long"), Ok(true));
        assert_eq!((ring.receive(&g), ring.receive(&g)), ((3, 4), (4, 4)));
    }
}

#[test]
fn several_messages_in_one_go_interrupt_once_and_the_last_may_not_fit() {
    let (g, outside) = guest(Version::Modern);
    let mut ring = g.start(0);
    for _ in 0..3 {
        give(&g, &mut ring, 8);
    }
    let done = outside.queues.produce(OWN, |batch| {
        [&b"one"[..], b"two", b"longer than eight"].map(|message| fill(batch, message).unwrap())
    });
    assert_eq!(done, Ok([true, true, false]));
    assert_eq!(ring.used_index(&g), 2);
    assert_eq!(g.isr(), 1);
    assert_eq!(outside.send(b"3"), Ok(true));
    assert_eq!(
        [ring.receive(&g), ring.receive(&g), ring.receive(&g)],
        [(0, 3), (1, 3), (2, 1)]
    );
}

#[test]
fn one_batch_takes_no_more_than_a_ring_holds() {
    let (g, outside) = guest(Version::Modern);
    let mut ring = g.start(0);
    for _ in 0..8 {
        give(&g, &mut ring, 1);
    }
    let taken = outside.queues.produce(OWN, |batch| {
        assert_eq!(batch.size(), 8);
        let mut taken = 0;
        while batch.take().unwrap().is_some() {
            taken += 1;
            batch.commit(&[]);
            // The driver has it back, and adds another one at once.
            give(&g, &mut ring, 1);
        }
        taken
    });
    assert_eq!(taken, Ok(8));
}

#[test]
fn the_driver_is_not_ready_before_it_says_so_nor_after_mistakes() {
    let (g, outside) = guest(Version::Modern);
    assert_eq!(outside.send(b"x"), Err(Stopped::NotReady));
    let mut ring = g.start_without_driver_ok(0);
    give(&g, &mut ring, 1);
    assert_eq!(outside.send(b"x"), Err(Stopped::NotReady));
    assert!(!outside.queues.available(OWN, 1));
    g.set_status(g.status() | status::DRIVER_OK);
    assert!(outside.queues.available(OWN, 1));
    assert_eq!(outside.send(b"x"), Ok(true));
    give(&g, &mut ring, 1);
    ring.publish(&g, 0xffff);
    assert_eq!(
        outside.send(b"xx"),
        Err(Stopped::NotReady),
        "a broken chain"
    );
    assert_ne!(g.status() & status::NEEDS_RESET, 0);
    assert_eq!(ring.used_index(&g), 1, "nor the good one before it");
    assert_eq!(outside.send(b"x"), Err(Stopped::NotReady));
    let mut ring = g.start(0);
    g.memory.write(Gpa(ring.available + 2), 9_u16).unwrap();
    assert!(!outside.queues.available(OWN, 1));
    assert_ne!(
        g.status() & status::NEEDS_RESET,
        0,
        "an index too far ahead"
    );
    ring = g.start(0);
    give(&g, &mut ring, 1);
    assert_eq!(outside.send(b"x"), Ok(true));
    assert_eq!(outside.queues.produce(2, |_| ()), Err(Stopped::NotReady));
}

#[test]
fn a_thread_waits_for_as_many_chains_as_it_needs() {
    for (version, features) in [
        (Version::Legacy, 0),
        (Version::Modern, 0),
        (Version::Modern, EVENT_IDX),
    ] {
        let (g, outside) = guest(version);
        thread::scope(|scope| {
            let mut ring = g.start(features);
            let waiter = scope.spawn(|| outside.queues.wait(OWN, 3));
            give(&g, &mut ring, 1);
            give(&g, &mut ring, 1);
            assert!(!waiter.is_finished());
            // As a real driver has it: notify only when the device asks for it.
            g.wait_for("wish", || {
                if features == 0 {
                    g.memory.read::<u16>(Gpa(ring.used)) == Ok(0)
                } else {
                    ring.avail_event(&g) == 2
                }
            });
            give(&g, &mut ring, 1);
            assert_eq!(waiter.join().unwrap(), Wait::Available);
            if features == 0 {
                let flags: u16 = g.memory.read(Gpa(ring.used)).unwrap();
                assert_eq!(flags, 1, "no more notifications for now");
            }
            for _ in 0..5 {
                give(&g, &mut ring, 1);
            }
            assert_eq!(outside.queues.wait(OWN, 100), Wait::Available, "full");
        });
    }
}

#[test]
fn waiting_ends_with_a_reset_and_with_the_device() {
    let (g, outside) = guest(Version::Modern);
    let first = outside.queues.driver();
    thread::scope(|scope| {
        let ring = g.start(EVENT_IDX);
        let waiter = scope.spawn(|| outside.queues.wait(OWN, 5));
        g.wait_for("wish", || ring.avail_event(&g) == 4);
        g.set_status(0);
        assert_eq!(waiter.join().unwrap(), Wait::Reset);
    });
    assert_ne!(outside.queues.driver(), first);
    assert_eq!(outside.queues.features(), 0);
    let queues = outside.queues.clone();
    let waiter = thread::spawn(move || queues.wait(OWN, 1));
    drop(g);
    assert_eq!(waiter.join().unwrap(), Wait::Closed);
    assert_eq!(outside.queues.wait(OWN, 1), Wait::Closed);
    assert_eq!(outside.send(b"x"), Err(Stopped::Closed));
}

#[test]
fn a_reset_waits_for_a_batch_and_nothing_is_taken_during_it() {
    let (g, outside) = guest(Version::Modern);
    let mut ring = g.start(0);
    let at = give(&g, &mut ring, 4);
    give(&g, &mut ring, 4);
    thread::scope(|scope| {
        let reset = outside.queues.produce(OWN, |batch| {
            let chain = batch.take().unwrap().unwrap();
            let reset = scope.spawn(|| g.set_status(0));
            g.wait_for("reset's wish", || {
                batch.take().err() == Some(Stopped::NotReady)
            });
            assert!(!reset.is_finished());
            chain.writable.copy_to(b"last").unwrap();
            reset
        });
        reset.unwrap().join().unwrap();
    });
    assert_eq!(g.bytes(at, 4), b"last");
    assert_eq!(g.status(), 0);
}

#[test]
fn the_device_hears_of_notifications_drivers_and_configuration_writes() {
    for version in [Version::Legacy, Version::Modern] {
        let (g, outside) = guest(version);
        let mut rings = g.start_queues(1 << 5, 2);
        assert_eq!(outside.told(), ["reset", "ready 32"]);
        g.set_status(g.status() | status::DRIVER_OK);
        give(&g, &mut rings[OWN], 1);
        assert_eq!(outside.told(), ["notified 0"], "ready only once");
        let at = give(&g, &mut rings[SERVED], 6);
        rings[SERVED].receive(&g);
        assert_eq!(g.bytes(at, 6), b"served");
        assert!(outside.told().is_empty());
        match version {
            Version::Legacy => {
                g.set_legacy(20, Width::Word, 0x0201);
                g.set_legacy(23, Width::Word, 0x0403);
                g.set_legacy(24, Width::Byte, 5);
            }
            Version::Modern => {
                g.write(g.registers.device, 2, 0x0201);
                g.write(g.registers.device + 3, 2, 0x0403);
                g.write(g.registers.device + 4, 4, 5);
                g.write(g.registers.device + 5, 1, 5);
                g.write(g.registers.device + 0xfff, 1, 5);
            }
        }
        assert_eq!(
            outside.told(),
            ["config 0 [1, 2]", "config 3 [3, 4]", "config 4 [5]"],
            "cut off at the end"
        );
        g.set_status(0);
        assert_eq!(outside.told(), ["reset"]);
    }
}

#[test]
fn a_changed_configuration_has_another_generation_and_interrupts() {
    let (g, outside) = guest(Version::Modern);
    let generation = |g: &Guest| g.common(21, 1);
    outside.queues.config_changed(b"early");
    assert_eq!((generation(&g), g.isr()), (1, 0), "nobody is there yet");
    g.start(0);
    outside.queues.config_changed(b"again");
    assert_eq!((generation(&g), g.isr()), (2, 2));
    assert_eq!(
        g.read(g.registers.device, 4),
        u64::from(u32::from_le_bytes(*b"agai"))
    );
    assert_eq!(g.legacy(20, Width::Dword), u32::from_le_bytes(*b"agai"));
    g.enable_msix();
    g.start(0);
    g.set_common(16, 2, 0);
    outside.queues.config_changed(b"third");
    assert_eq!(g.messages(), [0]);
    g.set_status(0);
    assert_eq!(generation(&g), 3, "it stays over a reset");
    assert_eq!(g.read(g.registers.device + 4, 1), u64::from(b'd'));
}

/// A thread of the device that sends as fast as the driver lets it, until the device goes.
fn flood(queues: &DeviceQueues, message: &[u8], busy: &AtomicBool) {
    let mut needed = 1;
    loop {
        match queues.wait(OWN, needed) {
            Wait::Closed => return,
            Wait::Reset => needed = 1,
            Wait::Available => {
                let sent = queues.produce(OWN, |batch| (fill(batch, message), batch.size()));
                match sent {
                    Ok((Ok(true), _)) => {
                        busy.store(true, Relaxed);
                        needed = 1;
                    }
                    // It will never fit.
                    Ok((Ok(false), size)) if needed >= size => needed = 1,
                    Ok((Ok(false), _)) => needed += 1,
                    Ok((Err(Stopped::Closed), _)) | Err(Stopped::Closed) => return,
                    Ok((Err(Stopped::NotReady), _)) | Err(Stopped::NotReady) => {}
                }
            }
        }
    }
}

/// A descriptor with values that are wrong now and then.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let gpa = prop_oneof![8 => 0x30_0000_u64..0x30_4000, 1 => any::<u64>()];
    let len = prop_oneof![6 => 1_u32..32, 1 => Just(0_u32), 1 => any::<u32>()];
    let flags = prop_oneof![8 => 2_u16..4, 1 => 4_u16..8, 1 => any::<u16>()];
    (
        gpa,
        len,
        flags,
        prop_oneof![8 => 0_u16..8, 1 => any::<u16>()],
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_driver_breaks_a_device_that_sends_all_the_time(
        modern: bool,
        features: u64,
        rounds in proptest::collection::vec(
            (
                proptest::collection::vec(descriptor(), 8),
                proptest::collection::vec(prop_oneof![9 => 0_u16..8, 1 => any::<u16>()], 0..12),
                prop_oneof![6 => Just(None), 1 => any::<u16>().prop_map(Some)],
            ),
            1..12,
        ),
    ) {
        let version = if modern { Version::Modern } else { Version::Legacy };
        let (g, outside) = guest(version);
        let busy = AtomicBool::new(false);
        let finished = thread::scope(|scope| {
            let sender = scope.spawn(|| flood(&outside.queues, b"some twenty bytes of it", &busy));
            for (descriptors, heads, jump) in rounds {
                let mut ring = g.start(features & g.offered() & (EVENT_IDX | INDIRECT_DESC));
                for (n, (gpa, len, flags, next)) in descriptors.iter().enumerate() {
                    let part = Part { gpa: Gpa(*gpa), len: *len, writable: false };
                    ring.set_descriptor(&g, n as u16, part, *flags, *next);
                    write_descriptor(&g, Gpa(0x30_0000), n as u16, part, *flags, *next);
                }
                for head in heads {
                    ring.publish(&g, head);
                    g.notify();
                }
                if let Some(index) = jump {
                    g.memory.write(Gpa(ring.available + 2), index).unwrap();
                    g.notify();
                }
            }
            // After all that a driver that keeps the rules is served.
            let mut ring = g.start(0);
            busy.store(false, Relaxed);
            for _ in 0..4 {
                give(&g, &mut ring, 10);
            }
            g.wait_for("message", || busy.load(Relaxed));
            let lengths = [ring.receive(&g).1, ring.receive(&g).1, ring.receive(&g).1];
            drop(g);
            sender.join().unwrap();
            lengths
        });
        prop_assert_eq!(finished, [10, 10, 3]);
    }

    #[test]
    fn chains_come_back_once_each_in_order(
        lens in proptest::collection::vec(1_u32..40, 1..60),
        messages in proptest::collection::vec(1_usize..60, 1..40),
        event_idx: bool,
    ) {
        let (g, outside) = guest(Version::Modern);
        let mut ring = g.start(if event_idx { EVENT_IDX } else { 0 });
        let (mut lens, mut messages) = (lens.into_iter(), messages.into_iter().peekable());
        let mut given = std::collections::VecDeque::new();
        let mut next: u8 = 0;
        let mut expected: u8 = 0;
        while let Some(len) = messages.peek() {
            let text: Vec<u8> = (0..*len).map(|n| next.wrapping_add(n as u8)).collect();
            if outside.send(&text).unwrap() {
                next = next.wrapping_add(*len as u8);
                messages.next();
            } else if given.len() == 8 {
                // A ring of short buffers can't take it.
                messages.next();
            } else {
                let Some(len) = lens.next() else { break };
                let at = g.room(len.into(), 1);
                given.push_back((ring.send(&g, &[into(at, len)]), at));
            }
            while ring.used_index(&g) != ring.taken {
                let (id, len) = ring.receive(&g);
                let (head, at) = given.pop_front().unwrap();
                prop_assert_eq!(id, u32::from(head));
                for byte in g.bytes(at, len as usize) {
                    prop_assert_eq!(byte, expected);
                    expected = expected.wrapping_add(1);
                }
            }
        }
        prop_assert_eq!(expected, next);
    }
}

#[test]
fn what_the_driver_sends_is_taken_the_same_way() {
    let (g, outside) = guest(Version::Modern);
    let mut ring = g.start(0);
    let text = g.room_with(b"from the guest");
    ring.send(&g, &[out(text, 4), out(Gpa(text.0 + 4), 10)]);
    let got = outside.queues.produce(OWN, |batch| {
        let chain = batch.take().unwrap().unwrap();
        let mut bytes = [0; 32];
        let len = chain.readable.copy_from(&mut bytes).unwrap();
        batch.commit(&[]);
        bytes[..len].to_vec()
    });
    assert_eq!(got.unwrap(), b"from the guest");
    assert_eq!(ring.receive(&g), (0, 0));
}
