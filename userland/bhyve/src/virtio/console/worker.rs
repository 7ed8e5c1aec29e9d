//! The thread of a console. It takes turns: in each it moves what can be moved now, a
//! bounded amount for each port, and then waits for sockets and for the driver at once.
//! What a client sends stays in its socket until the guest has room for it; what the guest
//! sends stays in its queue until the client has, and goes nowhere while there is no client.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::control::{MESSAGE_LEN, Message, PortTalk};
use super::options::PortOptions;
use super::{CONTROL_IN, CONTROL_OUT, MAX_PORTS, feature, input_queue, output_queue};
use crate::platform::wait::{Files, Waker};
use crate::unix_socket::Listener;
use crate::virtio::queues::{Batch, DeviceQueues, Stopped};

/// So many bytes of output wait for a client outside the guest's memory.
const UNSENT: usize = 64 << 10;
/// So many bytes of input are read at once.
const INPUT: usize = 16 << 10;
/// So many characters are kept that came by the configuration space.
const EMERGENCY: usize = 4 << 10;
/// Among the files that are waited for, ports' sockets come first, then their clients.
const CLIENTS: usize = MAX_PORTS;
/// After a host's error that may pass.
const PAUSE: Duration = Duration::from_secs(1);

/// What the device and its thread share.
pub(super) struct Shared {
    name: String,
    quit: AtomicBool,
    /// The thread has been woken and hasn't looked yet.
    woken: AtomicBool,
    waker: Waker,
    emergency: Mutex<Vec<u8>>,
}

impl Shared {
    pub fn new(name: &str, waker: Waker) -> Self {
        Self {
            name: name.to_owned(),
            quit: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            waker,
            emergency: Mutex::default(),
        }
    }

    /// Another turn, even if no socket has anything.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    pub fn quit(&self) {
        self.quit.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// A character for the first port.
    pub fn emergency(&self, byte: u8) {
        let mut waiting = self.lock_emergency();
        if waiting.len() < EMERGENCY {
            waiting.push(byte);
        }
        drop(waiting);
        self.wake();
    }

    fn lock_emergency(&self) -> MutexGuard<'_, Vec<u8>> {
        self.emergency
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port.
pub(super) struct Port {
    number: usize,
    talk: PortTalk,
    listener: Listener,
    /// Somebody may want to be let in.
    knocked: bool,
    client: Option<Client>,
    /// Of the first chain that the guest has sent: so many bytes were taken already.
    taken: u64,
    /// An error of accept(2) was told.
    told_error: bool,
}

/// Who is at the host's end.
struct Client {
    stream: UnixStream,
    /// There may be something to read.
    readable: bool,
    /// It sends no more.
    finished: bool,
    /// It has gone. What it sent before may still be there.
    gone: bool,
    /// What it hasn't taken of the guest's output.
    unsent: Vec<u8>,
}

impl Port {
    pub fn new(options: &PortOptions, listener: Listener) -> Self {
        Self {
            number: options.number,
            talk: PortTalk::new(options.number, &options.name, options.console),
            listener,
            knocked: true,
            client: None,
            taken: 0,
            told_error: false,
        }
    }

    /// Whether the guest wants what the client sends.
    fn guest_open(&self, features: u64) -> bool {
        self.talk.guest_open() || self.number == 0 && features & feature::MULTIPORT == 0
    }
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            readable: true,
            finished: false,
            gone: false,
            unsent: Vec::new(),
        }
    }

    /// It has gone. What it sent before may still be there.
    fn leave(&mut self) {
        self.gone = true;
        self.readable = true;
    }

    /// Sends what it takes now.
    fn flush(&mut self) {
        let mut sent = 0;
        while let Some(rest @ [_, ..]) = self.unsent.get(sent..) {
            match self.stream.write(rest) {
                Ok(0) => break,
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.leave();
                    break;
                }
            }
        }
        if self.gone {
            self.unsent.clear();
        } else {
            self.unsent.drain(..sent);
        }
    }

    /// Reads what has come; 0 if there is nothing now.
    fn read(&mut self, to: &mut [u8]) -> usize {
        match self.stream.read(to) {
            Ok(0) => {
                self.finished = true;
                0
            }
            Ok(len) => len,
            Err(error) => {
                match error.kind() {
                    io::ErrorKind::Interrupted => return 0,
                    io::ErrorKind::WouldBlock => {}
                    _ => {
                        self.finished = true;
                        self.gone = true;
                    }
                }
                self.readable = false;
                0
            }
        }
    }
}

/// The thread's own.
pub(super) struct Worker {
    shared: Arc<Shared>,
    queues: DeviceQueues,
    /// The driver that all this is about.
    driver: u64,
    features: u64,
    ports: Vec<Port>,
    input: Vec<u8>,
    /// The sockets, by the port's place.
    files: Files,
}

impl Worker {
    pub fn new(
        shared: Arc<Shared>,
        queues: DeviceQueues,
        ports: Vec<Port>,
        files: Files,
    ) -> io::Result<Self> {
        for (at, port) in ports.iter().enumerate() {
            files.add_input(port.listener.as_fd(), at)?;
        }
        Ok(Self {
            driver: queues.driver(),
            features: 0,
            shared,
            queues,
            ports,
            input: vec![0; INPUT],
            files,
        })
    }

    /// Until the device is dropped.
    pub fn run(&mut self) {
        loop {
            // First of all: who finds the flag set wakes nobody, and is seen in this turn.
            self.shared.woken.store(false, Ordering::SeqCst);
            if self.shared.quit.load(Ordering::SeqCst) {
                return;
            }
            let again = self.turn();
            if let Err(error) = self.wait(again) {
                let (name, why) = (&self.shared.name, cli::io_error(&error));
                eprintln!("bhyve: {name}: its sockets can't be waited for: {why}; it stops\r");
                return;
            }
        }
    }

    /// Moves what can be moved. True: there may be more.
    fn turn(&mut self) -> bool {
        let driver = self.queues.driver();
        if driver != self.driver {
            self.driver = driver;
            for port in &mut self.ports {
                port.talk.reset();
                port.taken = 0;
            }
        }
        self.features = self.queues.features();
        self.emergency();
        let mut again = self.hear();
        for number in 0..self.ports.len() {
            again |= self.output(number);
            again |= self.input(number);
            again |= self.come_and_go(number);
        }
        again | self.tell()
    }

    /// Characters by the configuration space go to the first port's client, if there is one
    /// and it takes them.
    fn emergency(&mut self) {
        let bytes = std::mem::take(&mut *self.shared.lock_emergency());
        let first = self.ports.first_mut().filter(|port| port.number == 0);
        if let Some(client) = first.and_then(|port| port.client.as_mut()) {
            let room = UNSENT.saturating_sub(client.unsent.len());
            client.unsent.extend(bytes.into_iter().take(room));
            client.flush();
        }
    }

    /// The driver's messages.
    fn hear(&mut self) -> bool {
        let ports = &mut self.ports;
        let hear = |batch: &mut Batch<'_>| {
            while let Some(chain) = batch.take()? {
                let mut bytes = [0; MESSAGE_LEN];
                // A shorter one says nothing.
                if chain.readable.copy_from(&mut bytes) == Ok(MESSAGE_LEN) {
                    let message = Message::from_bytes(bytes);
                    ports.iter_mut().for_each(|port| port.talk.hear(message));
                }
                batch.commit(&[]);
            }
            Ok(())
        };
        produce(&self.queues, self.driver, CONTROL_OUT, hear);
        self.queues.available(CONTROL_OUT, 1)
    }

    /// Our messages. One that is longer than the driver's buffer is cut.
    fn tell(&mut self) -> bool {
        if !self.ports.iter().any(|port| port.talk.has_news()) {
            return false;
        }
        let ports = &mut self.ports;
        let tell = |batch: &mut Batch<'_>| {
            for port in ports {
                while port.talk.has_news() {
                    let Some(chain) = batch.take()? else {
                        return Ok(());
                    };
                    let message = port.talk.tell().unwrap_or_default();
                    let written = chain.writable.copy_to(&message).unwrap_or(0);
                    batch.commit(&[written as u32]);
                }
            }
            Ok(())
        };
        produce(&self.queues, self.driver, CONTROL_IN, tell);
        let more = self.ports.iter().any(|port| port.talk.has_news());
        more && self.queues.available(CONTROL_IN, 1)
    }

    /// What the guest sends: to the client, as fast as it takes it, or nowhere.
    fn output(&mut self, at: usize) -> bool {
        let Some(port) = self.ports.get_mut(at) else {
            return false;
        };
        let queue = output_queue(port.number);
        let (client, taken) = (&mut port.client, &mut port.taken);
        if let Some(client) = client {
            client.flush();
        }
        let send = |batch: &mut Batch<'_>| {
            loop {
                let unsent = match client {
                    Some(client) if client.gone => None,
                    Some(client) if client.unsent.len() >= UNSENT => return Ok(()),
                    Some(client) => Some(&mut client.unsent),
                    None => None,
                };
                let Some(chain) = batch.take()? else {
                    return Ok(());
                };
                // What is not there any more was taken.
                let rest = chain.readable.split_at(*taken);
                if let (Some(unsent), Some((_, rest))) = (unsent, rest) {
                    let before = unsent.len();
                    let room = UNSENT - before;
                    let len = usize::try_from(rest.len()).map_or(room, |len| len.min(room));
                    unsent.resize(before + len, 0);
                    let copied = rest.copy_from(&mut unsent[before..]).unwrap_or(0);
                    unsent.truncate(before + copied);
                    if copied > 0 && (copied as u64) < rest.len() {
                        *taken += copied as u64;
                        return Ok(());
                    }
                }
                *taken = 0;
                batch.commit(&[]);
            }
        };
        produce(&self.queues, self.driver, queue, send);
        if let Some(client) = &mut port.client {
            client.flush();
            if client.unsent.len() >= UNSENT {
                // The socket says when it takes more.
                return false;
            }
        }
        self.queues.available(queue, 1)
    }

    /// What the client sends: to the guest, if somebody there reads it, as fast as he does.
    fn input(&mut self, at: usize) -> bool {
        let Some(port) = self.ports.get_mut(at) else {
            return false;
        };
        let queue = input_queue(port.number);
        let guest_open = port.guest_open(self.features);
        let Some(client) = &mut port.client else {
            return false;
        };
        if client.finished || !client.readable || !guest_open {
            return false;
        }
        let input = &mut self.input;
        let read = |batch: &mut Batch<'_>| {
            while let Some(chain) = batch.take()? {
                let len = usize::try_from(chain.writable.len()).map_or(INPUT, |l| l.min(INPUT));
                if len == 0 {
                    batch.commit(&[]);
                    continue;
                }
                let bytes = &mut input[..len];
                let len = client.read(bytes);
                if len == 0 {
                    return Ok(());
                }
                let written = chain.writable.copy_to(&bytes[..len]).unwrap_or(0);
                batch.commit(&[written as u32]);
            }
            Ok(())
        };
        produce(&self.queues, self.driver, queue, read);
        client.readable && !client.finished && self.queues.available(queue, 1)
    }

    /// Lets a client leave that has gone, and the next one come.
    fn come_and_go(&mut self, at: usize) -> bool {
        let features = self.features;
        let clients = CLIENTS + at;
        let Some(port) = self.ports.get_mut(at) else {
            return false;
        };
        // What it has sent before it went is read to its end, if anybody does.
        let guest_open = port.guest_open(features);
        let left = |client: &Client| client.gone && (client.finished || !guest_open);
        if port.client.as_ref().is_some_and(left) {
            port.client = None;
            port.talk.set_host_open(false);
        }
        if port.client.is_some() || !port.knocked {
            return false;
        }
        let accepted = port.listener.accept().and_then(|stream| {
            if let Some(stream) = &stream {
                self.files.add(stream.as_fd(), clients)?;
            }
            Ok(stream)
        });
        match accepted {
            Ok(Some(stream)) => {
                port.client = Some(Client::new(stream));
                port.talk.set_host_open(true);
                port.told_error = false;
                // It may have sent something already.
                return true;
            }
            Ok(None) => {
                port.knocked = false;
                port.told_error = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut port.told_error, true) {
                    let (name, why) = (&self.shared.name, cli::io_error(&error));
                    let number = port.number;
                    eprintln!(
                        "bhyve: {name}: port {number}: a connection can't be accepted: {why}\r"
                    );
                }
            }
        }
        false
    }

    /// Waits until there is something for the next turn.
    fn wait(&mut self, again: bool) -> io::Result<()> {
        let refused = |port: &Port| port.told_error && port.client.is_none();
        let limit = if again {
            Some(Duration::ZERO)
        } else {
            self.ports.iter().any(refused).then_some(PAUSE)
        };
        for change in self.files.wait(limit)? {
            if let Some(port) = self.ports.get_mut(change.key) {
                port.knocked = true;
                continue;
            }
            let port = change.key.checked_sub(CLIENTS);
            let port = port.and_then(|at| self.ports.get_mut(at));
            if let Some(client) = port.and_then(|port| port.client.as_mut()) {
                client.readable |= change.readable;
                if change.gone {
                    client.leave();
                }
            }
        }
        Ok(())
    }
}

/// Uses chains of a queue, if the driver is still the same one.
fn produce(
    queues: &DeviceQueues,
    driver: u64,
    queue: usize,
    fill: impl FnOnce(&mut Batch<'_>) -> Result<(), Stopped>,
) {
    // What stops it wakes the thread when it is over.
    let _ = queues.produce(queue, |batch| {
        if batch.driver() == driver {
            fill(batch)
        } else {
            Ok(())
        }
    });
}
