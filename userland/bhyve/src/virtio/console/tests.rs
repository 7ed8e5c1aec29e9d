//! Tests of consoles: a driver on one side, clients of the sockets on the other.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use vmmapi::Gpa;

use super::control::{Message, event};
use super::{CONTROL_IN, CONTROL_OUT, feature};
use crate::ports::Width;
use crate::unix_socket::tests::Directory;
use crate::virtio::feature::{EVENT_IDX, INDIRECT_DESC};
use crate::virtio::tests::guest::{
    Guest, Part, Ring, Version, device, into, out, write_descriptor,
};
use crate::virtio::transport::status;

const VERSIONS: [Version; 2] = [Version::Legacy, Version::Modern];

/// A queue of what the device sends, with buffers of one size.
struct Inbox {
    ring: Ring,
    size: u32,
    buffers: VecDeque<(u32, Gpa)>,
}

impl Inbox {
    fn new(g: &Guest, ring: Ring, size: u32, count: usize) -> Self {
        let buffers = VecDeque::new();
        let mut inbox = Self {
            ring,
            size,
            buffers,
        };
        for _ in 0..count {
            let at = g.room(size.into(), 1);
            inbox.give(g, at);
        }
        inbox
    }

    fn give(&mut self, g: &Guest, at: Gpa) {
        let head = self.ring.send(g, &[into(at, self.size)]);
        self.buffers.push_back((head.into(), at));
    }

    /// The next of what comes. Its buffer is given again.
    fn receive(&mut self, g: &Guest) -> Vec<u8> {
        let (id, len) = self.ring.receive(g);
        let (head, at) = self.buffers.pop_front().unwrap();
        assert_eq!(id, head);
        let bytes = g.bytes(at, len as usize);
        self.give(g, at);
        bytes
    }

    fn is_empty(&self, g: &Guest) -> bool {
        self.ring.used_index(g) == self.ring.taken
    }

    /// So many bytes, in as many pieces as they come.
    fn receive_all(&mut self, g: &Guest, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < len {
            all.extend(self.receive(g));
        }
        all
    }
}

/// A console with ports 0 and 1, and its driver.
struct Machine {
    g: Guest,
    directory: Directory,
    news: Inbox,
    orders: Ring,
    input: [Inbox; 2],
    output: [Ring; 2],
    /// Heard of while something else was expected: ports whose clients were there first.
    opened: VecDeque<(Message, Vec<u8>)>,
}

impl Machine {
    fn new(version: Version) -> Self {
        let directory = Directory::new();
        let options = format!(
            "first={},second={}",
            directory.file("0").display(),
            directory.file("1").display()
        );
        let g = Guest::new(version, device("virtio-console"), &options);
        Self::start(g, directory, feature::MULTIPORT)
    }

    /// Starts the driver.
    fn start(g: Guest, directory: Directory, features: u64) -> Self {
        let mut rings: VecDeque<Ring> = g.start_queues(features, 6).into();
        let mut next = || rings.pop_front().unwrap();
        let (in0, out0, news, orders, in1, out1) = (next(), next(), next(), next(), next(), next());
        let input = [in0, in1].map(|ring| Inbox::new(&g, ring, 128, 8));
        Self {
            news: Inbox::new(&g, news, 64, 4),
            g,
            directory,
            orders,
            input,
            output: [out0, out1],
            opened: VecDeque::new(),
        }
    }

    /// The driver is another one.
    fn restart(self) -> Self {
        Self::start(self.g, self.directory, feature::MULTIPORT)
    }

    fn path(&self, port: usize) -> PathBuf {
        self.directory.file(&port.to_string())
    }

    fn connect(&self, port: usize) -> UnixStream {
        let stream = UnixStream::connect(self.path(port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    fn order(&mut self, id: u32, event: u16, value: u16) {
        let message = Message { id, event, value };
        let at = self.g.room_with(&message.to_bytes());
        self.orders.request(&self.g, &[out(at, 8)]);
    }

    fn hear(&mut self) -> (Message, Vec<u8>) {
        match self.opened.pop_front() {
            Some(heard) => heard,
            None => self.hear_now(),
        }
    }

    fn hear_now(&mut self) -> (Message, Vec<u8>) {
        let mut bytes = self.news.receive(&self.g);
        let rest = bytes.split_off(8);
        (Message::from_bytes(bytes.try_into().unwrap()), rest)
    }

    fn expect(&mut self, id: u32, event: u16, value: u16) {
        assert_eq!(self.hear(), (Message { id, event, value }, Vec::new()));
    }

    /// As a driver begins, both ports open.
    fn greet(&mut self) {
        self.order(u32::MAX, event::DEVICE_READY, 1);
        for id in [0, 1] {
            self.expect(id, event::PORT_ADD, 1);
        }
        for (id, name) in [(0, b"first".to_vec()), (1, b"second".to_vec())] {
            self.order(id, event::PORT_READY, 1);
            let named = Message {
                id,
                event: event::PORT_NAME,
                value: 1,
            };
            let mut heard = self.hear_now();
            while heard.0.event == event::PORT_OPEN {
                self.opened.push_back(heard);
                heard = self.hear_now();
            }
            assert_eq!(heard, (named, name));
            self.order(id, event::PORT_OPEN, 1);
        }
    }

    fn send(&mut self, port: usize, bytes: &[u8]) {
        let at = self.g.room_with(bytes);
        self.output[port].request(&self.g, &[out(at, bytes.len() as u32)]);
    }
}

fn read(client: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    client.read_exact(&mut bytes).unwrap();
    bytes
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 256 + n % 251) as u8).collect()
}

#[test]
fn bytes_go_both_ways_on_each_port() {
    for version in VERSIONS {
        let mut m = Machine::new(version);
        m.greet();
        let mut clients = [m.connect(0), m.connect(1)];
        for _ in 0..2 {
            let (message, _) = m.hear();
            assert_eq!((message.event, message.value), (event::PORT_OPEN, 1));
        }
        for (port, client) in clients.iter_mut().enumerate() {
            client.write_all(b"to the guest").unwrap();
            assert_eq!(m.input[port].receive(&m.g), b"to the guest");
            m.send(port, b"to the host");
            assert_eq!(read(client, 11), b"to the host");
        }
        drop(clients);
        for _ in 0..2 {
            let (message, _) = m.hear();
            assert_eq!((message.event, message.value), (event::PORT_OPEN, 0));
        }
        assert!(m.input.iter().all(|inbox| inbox.is_empty(&m.g)));
    }
}

#[test]
fn the_next_client_comes_when_the_first_one_has_left() {
    let mut m = Machine::new(Version::Modern);
    m.greet();
    let mut first = m.connect(1);
    m.expect(1, event::PORT_OPEN, 1);
    let mut second = m.connect(1);
    second.write_all(b"second").unwrap();
    first.write_all(b"first").unwrap();
    assert_eq!(m.input[1].receive(&m.g), b"first");
    m.send(1, b"for the first");
    assert_eq!(read(&mut first, 13), b"for the first");
    first.write_all(b"last").unwrap();
    drop(first);
    assert_eq!(m.input[1].receive(&m.g), b"last");
    m.expect(1, event::PORT_OPEN, 0);
    m.expect(1, event::PORT_OPEN, 1);
    assert_eq!(m.input[1].receive(&m.g), b"second");
    m.send(1, b"for the second");
    assert_eq!(read(&mut second, 14), b"for the second");
}

#[test]
fn a_client_that_sends_no_more_still_hears() {
    let mut m = Machine::new(Version::Modern);
    m.greet();
    let mut client = m.connect(0);
    m.expect(0, event::PORT_OPEN, 1);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(m.input[0].receive(&m.g), b"question");
    m.send(0, b"answer");
    assert_eq!(read(&mut client, 6), b"answer");
    drop(client);
    m.expect(0, event::PORT_OPEN, 0);
}

#[test]
fn what_a_client_sends_waits_until_the_guest_has_opened_the_port_and_has_room() {
    let mut m = Machine::new(Version::Modern);
    let mut client = m.connect(1);
    let sent = pattern(700_000);
    let text = sent.clone();
    let sender = std::thread::spawn(move || {
        client.write_all(&text).unwrap();
        client
    });
    m.greet();
    // The client was there first; the order of the two is free.
    m.expect(1, event::PORT_OPEN, 1);
    assert!(m.input[1].receive_all(&m.g, sent.len()) == sent);
    sender.join().unwrap();
    m.expect(1, event::PORT_OPEN, 0);
}

#[test]
fn a_client_that_leaves_before_anybody_reads_is_forgotten() {
    let mut m = Machine::new(Version::Modern);
    m.connect(0).write_all(b"nobody hears").unwrap();
    let mut client = m.connect(0);
    // Once this one hears something the first one is out.
    client.set_nonblocking(true).unwrap();
    m.g.wait_for("character", || {
        m.g.write(m.g.registers.device + 8, 4, u64::from(b'a'));
        client.read(&mut [0; 64]).is_ok_and(|len| len > 0)
    });
    m.greet();
    m.expect(0, event::PORT_OPEN, 1);
    client.write_all(b"heard").unwrap();
    assert_eq!(m.input[0].receive(&m.g), b"heard");
}

#[test]
fn what_the_guest_sends_waits_for_the_client_and_a_reset_does_not() {
    for version in VERSIONS {
        let mut m = Machine::new(version);
        m.greet();
        let mut client = m.connect(0);
        m.expect(0, event::PORT_OPEN, 1);
        let text = pattern(100_000);
        let at = m.g.room_with(&text);
        let mut sent = 0;
        // No socket has room for all of these.
        for _ in 0..60 {
            m.output[0].send(&m.g, &[out(at, text.len() as u32)]);
            sent += text.len();
        }
        // The other port isn't held up, nor are messages.
        let mut other = m.connect(1);
        m.expect(1, event::PORT_OPEN, 1);
        m.send(1, b"free");
        assert_eq!(read(&mut other, 4), b"free");
        assert!(m.output[0].used_index(&m.g) < 60);
        let got = read(&mut client, sent);
        assert!(got.chunks(text.len()).all(|chunk| chunk == text));
        for _ in 0..60 {
            m.output[0].receive(&m.g);
        }
        for _ in 0..60 {
            m.output[0].send(&m.g, &[out(at, text.len() as u32)]);
        }
        let mut m = m.restart();
        m.greet();
        // Both are still there, and the first hears what it can of the old driver.
        m.expect(0, event::PORT_OPEN, 1);
        m.expect(1, event::PORT_OPEN, 1);
        other.write_all(b"still here").unwrap();
        assert_eq!(m.input[1].receive(&m.g), b"still here");
        drop(client);
        m.expect(0, event::PORT_OPEN, 0);
        m.send(0, &text);
    }
}

#[test]
fn one_request_may_be_larger_than_what_is_kept() {
    let mut m = Machine::new(Version::Modern);
    m.greet();
    let text = pattern(500_000);
    let at = m.g.room_with(&text);
    let mut client = m.connect(0);
    m.expect(0, event::PORT_OPEN, 1);
    let parts = [out(at, 300_000), out(Gpa(at.0 + 300_000), 200_000)];
    m.output[0].send(&m.g, &parts);
    assert!(read(&mut client, text.len()) == text);
    m.output[0].receive(&m.g);
    m.send(0, b"and on");
    assert_eq!(read(&mut client, 6), b"and on");
}

#[test]
fn output_without_a_client_goes_nowhere() {
    let mut m = Machine::new(Version::Legacy);
    m.send(0, b"before anybody has opened anything");
    m.greet();
    for _ in 0..200 {
        m.send(1, b"nobody");
    }
    let mut client = m.connect(1);
    m.expect(1, event::PORT_OPEN, 1);
    m.send(1, b"somebody");
    assert_eq!(read(&mut client, 8), b"somebody");
    drop(client);
    m.send(1, b"nobody again");
    m.expect(1, event::PORT_OPEN, 0);
}

#[test]
fn a_driver_that_knows_one_port_needs_no_messages() {
    for version in VERSIONS {
        let m = Machine::new(version);
        let mut client = m.connect(0);
        let Machine { g, directory, .. } = m;
        let mut m = Machine::start(g, directory, 0);
        client.write_all(b"login").unwrap();
        assert_eq!(m.input[0].receive(&m.g), b"login");
        m.send(0, b"password");
        assert_eq!(read(&mut client, 8), b"password");
        assert!(m.news.is_empty(&m.g));
    }
}

#[test]
fn a_port_can_be_a_terminal() {
    let directory = Directory::new();
    let path = directory.file("0").display().to_string();
    let g = Guest::with_variables(
        Version::Modern,
        device("virtio-console"),
        &[
            ("port.0.name", "tty"),
            ("port.0.path", &path),
            ("port.0.console", "true"),
        ],
    );
    let mut m = Machine::start(g.unwrap(), directory, feature::MULTIPORT);
    m.order(u32::MAX, event::DEVICE_READY, 1);
    m.expect(0, event::PORT_ADD, 1);
    m.order(0, event::PORT_READY, 1);
    m.expect(0, event::CONSOLE_PORT, 1);
    assert_eq!(m.hear().1, b"tty");
}

#[test]
fn single_characters_come_by_the_configuration_space() {
    let m = Machine::new(Version::Modern);
    assert_eq!(
        (
            m.g.read(m.g.registers.device, 4),
            m.g.read(m.g.registers.device + 4, 4)
        ),
        (25 << 16 | 80, 16),
        "window and ports"
    );
    assert_eq!(m.g.offered() & 7, 7);
    let mut client = m.connect(0);
    let mut told = Vec::new();
    client.set_nonblocking(true).unwrap();
    // The client is there when it hears something.
    m.g.wait_for("character", || {
        m.g.write(m.g.registers.device + 8, 4, u64::from(b'a'));
        let mut bytes = [0; 64];
        match client.read(&mut bytes) {
            Ok(len) => told.extend(&bytes[..len]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        !told.is_empty()
    });
    m.g.set_legacy(28, Width::Byte, b'b'.into());
    m.g.wait_for("character", || {
        let mut bytes = [0; 64];
        if let Ok(len) = client.read(&mut bytes) {
            told.extend(&bytes[..len]);
        }
        told.contains(&b'b')
    });
    assert!(told.iter().all(|byte| b"ab".contains(byte)));
}

#[test]
fn the_device_looks_as_in_bhyve() {
    let m = Machine::new(Version::Modern);
    assert_eq!(m.g.config32(0), 0x1003_1af4);
    assert_eq!(m.g.config32(8) >> 16, 0x0780);
    assert_eq!(m.g.config32(0x2c), 0x0003_1af4);
    assert_eq!(m.g.common(18, 2), 34, "queues");
    m.g.set_common(22, 2, 33);
    assert_eq!(m.g.common(24, 2), 64);
}

#[test]
fn sockets_are_there_as_long_as_the_device() {
    let m = Machine::new(Version::Modern);
    let paths = [m.path(0), m.path(1)];
    assert!(paths.iter().all(|path| path.exists()));
    let mut client = m.connect(0);
    let Machine { g, directory, .. } = m;
    drop(g);
    assert!(!paths.iter().any(|path| path.exists()));
    // Whether it was let in or not.
    assert!(!client.read(&mut [0]).is_ok_and(|len| len > 0), "closed");
    let missing = directory.file("no/0").display().to_string();
    let error = Guest::try_new(
        Version::Modern,
        device("virtio-console"),
        &format!("a={missing}"),
        false,
    );
    let error = error.err().unwrap();
    assert!(
        error.contains("pci.0.3.0.port.0.path: ") && error.contains("no such directory"),
        "{error}"
    );
}

#[test]
fn a_device_ends_however_busy_it_is() {
    for _ in 0..300 {
        let g = Guest::new(Version::Modern, device("virtio-console"), "");
        g.set_status(0);
        g.notify_queue(3);
        drop(g);
    }
}

#[test]
fn a_client_that_vanishes_in_the_middle_hurts_nobody() {
    let mut m = Machine::new(Version::Modern);
    m.greet();
    let text = pattern(65_536);
    let at = m.g.room_with(&text);
    for _ in 0..10 {
        let mut client = m.connect(0);
        m.expect(0, event::PORT_OPEN, 1);
        client.write_all(b"hello").unwrap();
        assert_eq!(m.input[0].receive(&m.g), b"hello");
        for _ in 0..20 {
            m.output[0].send(&m.g, &[out(at, text.len() as u32)]);
        }
        read(&mut client, 1000);
        drop(client);
        m.expect(0, event::PORT_OPEN, 0);
        // The rest is dropped.
        for _ in 0..20 {
            m.output[0].receive(&m.g);
        }
    }
}

/// A descriptor with values that are wrong now and then.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let gpa = prop_oneof![8 => 0x30_0000_u64..0x30_1000, 1 => any::<u64>()];
    let len = prop_oneof![4 => Just(8_u32), 4 => 0_u32..40, 1 => any::<u32>()];
    let flags = prop_oneof![8 => 0_u16..4, 1 => 4_u16..8, 1 => any::<u16>()];
    (
        gpa,
        len,
        flags,
        prop_oneof![8 => 0_u16..8, 1 => any::<u16>()],
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_driver_breaks_a_console(
        modern: bool,
        features: u64,
        descriptors in proptest::collection::vec(descriptor(), 8),
        contents in proptest::collection::vec(prop_oneof![4 => 0_u8..8, 1 => any::<u8>()], 512),
        kicks in proptest::collection::vec((0_usize..6, 0_u16..9), 1..60),
    ) {
        let version = if modern { Version::Modern } else { Version::Legacy };
        let Machine { g, directory, .. } = Machine::new(version);
        let mut clients = [0, 1].map(|port: usize| {
            let client = UnixStream::connect(directory.file(&port.to_string())).unwrap();
            client.set_nonblocking(true).unwrap();
            client
        });
        let wanted = EVENT_IDX | INDIRECT_DESC | feature::MULTIPORT | feature::SIZE;
        let mut rings = g.start_queues(features & wanted, 6);
        g.memory.copy_to(Gpa(0x30_0000), &contents).unwrap();
        for ring in &rings {
            for (n, (gpa, len, flags, next)) in descriptors.iter().enumerate() {
                let part = Part { gpa: Gpa(*gpa), len: *len, writable: false };
                ring.set_descriptor(&g, n as u16, part, *flags, *next);
                write_descriptor(&g, Gpa(0x30_0400), n as u16, part, *flags, *next);
            }
        }
        for (queue, head) in kicks {
            rings[queue].publish(&g, head);
            g.notify_queue(queue as u16);
            // A client in the middle of it.
            let _ = clients[queue % 2].write(&[queue as u8]);
            let _ = clients[queue % 2].read(&mut [0; 100]);
        }
        drop(clients);
        let mut m = Machine::start(g, directory, feature::MULTIPORT);
        m.greet();
        let mut client = m.connect(1);
        client.write_all(b"works").unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"works") {
            got.extend(m.input[1].receive(&m.g));
        }
        m.send(1, b"again");
        m.g.wait_for("answer", || {
            let mut bytes = [0; 5];
            client.read_exact(&mut bytes).is_ok() && bytes == *b"again"
        });
        prop_assert_eq!(m.g.status() & status::NEEDS_RESET, 0);
    }

    #[test]
    fn messages_of_any_kind_leave_the_ports_working(
        said in proptest::collection::vec(
            (
                prop_oneof![6 => 0_u32..3, 1 => any::<u32>()],
                prop_oneof![6 => 0_u16..9, 1 => any::<u16>()],
                prop_oneof![6 => 0_u16..2, 1 => any::<u16>()],
                prop_oneof![6 => Just(8_u32), 1 => 0_u32..20],
            ),
            0..80,
        ),
    ) {
        let mut m = Machine::new(Version::Modern);
        let mut client = m.connect(0);
        for (id, event, value, len) in said {
            let mut bytes = Message { id, event, value }.to_bytes().to_vec();
            bytes.resize(20, 0);
            let at = m.g.room_with(&bytes);
            m.orders.request(&m.g, &[out(at, len)]);
        }
        // What it has to say hasn't grown with what it heard: 16 messages of four buffers.
        m.order(0, event::PORT_READY, 1);
        m.order(0, event::PORT_OPEN, 1);
        client.write_all(b"x").unwrap();
        prop_assert_eq!(m.input[0].receive(&m.g), b"x");
        let mut heard = 0;
        while !m.news.is_empty(&m.g) {
            m.news.receive(&m.g);
            heard += 1;
        }
        prop_assert!(heard < 250);
    }
}

#[test]
fn queues_are_numbered_as_the_standard_has_it() {
    let queues: Vec<usize> = (0..3).map(super::input_queue).collect();
    assert_eq!(queues, [0, 4, 6]);
    assert_eq!(
        (CONTROL_IN, CONTROL_OUT, super::output_queue(15)),
        (2, 3, 33)
    );
}
