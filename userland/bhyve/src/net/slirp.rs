//! User networking (bhyve(8), "slirp"): libslirp in a thread of its own, with a queue of
//! frames in each direction. The guest is 10.0.2.15 by DHCP, the host 10.0.2.2, the name
//! server 10.0.2.3. Without `open` the guest reaches nothing outside, but what the host
//! forwards by `hostfwd` reaches the guest.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::{NetBackend, NetError, Received};
use crate::platform::slirp::{self, HostForward, Slirp};

/// So many frames wait for the guest; further ones are lost, and TCP sends them again.
const TO_GUEST: usize = 1024;
/// So many frames of the guest wait for the thread; then its sending waits.
const FROM_GUEST: usize = 256;

/// What the card's variables say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The guest reaches the outside.
    pub open: bool,
    /// The rules with their texts.
    pub forwards: Vec<(String, HostForward)>,
    /// Of what the guest receives.
    pub mtu: u16,
}

/// The variable `hostfwd`: rules with semicolons between them.
pub fn forwards(text: Option<&str>) -> Result<Vec<(String, HostForward)>, NetError> {
    let rules = text.into_iter().flat_map(|text| text.split(';'));
    rules
        .map(|rule| {
            let forward = forward(rule).map_err(|why| NetError::Rule {
                rule: rule.to_owned(),
                why,
            })?;
            Ok((rule.to_owned(), forward))
        })
        .collect()
}

/// `proto:hostaddr:hostport-guestaddr:guestport`, where an address may be empty.
fn forward(rule: &str) -> Result<HostForward, &'static str> {
    let (protocol, rest) = rule.split_once(':').ok_or("has no protocol")?;
    let udp = match protocol {
        "tcp" | "" => false,
        "udp" => true,
        _ => return Err("has a protocol that is neither tcp nor udp"),
    };
    let (host, guest) = rest.split_once('-').ok_or("has no guest's address")?;
    Ok(HostForward {
        udp,
        host: address(host)?,
        guest: address(guest)?,
    })
}

fn address(text: &str) -> Result<SocketAddrV4, &'static str> {
    let (address, port) = text
        .split_once(':')
        .ok_or("has an address without a port")?;
    let address = match address {
        "" => Ipv4Addr::UNSPECIFIED,
        text => text
            .parse()
            .map_err(|_| "has an address that is no IPv4 address")?,
    };
    let port = match port {
        "" => 0,
        text => text
            .parse()
            .map_err(|_| "has a port that is no number up to 65535")?,
    };
    Ok(SocketAddrV4::new(address, port))
}

/// The frames on their way, and whether there will be any more.
#[derive(Default)]
struct Queues {
    from_guest: VecDeque<Vec<u8>>,
    to_guest: VecDeque<Vec<u8>>,
    /// The card wants no more frames.
    stopped: bool,
    /// The thread has to end.
    closing: bool,
    /// The thread has ended by itself.
    failed: Option<String>,
}

#[derive(Default)]
struct Shared {
    queues: Mutex<Queues>,
    /// There is room in `from_guest`, or nobody makes any.
    room: Condvar,
    /// There is a frame in `to_guest`, or there won't be any.
    arrived: Condvar,
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, frame: &[u8]) {
        let mut queues = self.queues();
        if queues.to_guest.len() < TO_GUEST && !queues.stopped {
            queues.to_guest.push_back(frame.to_vec());
            self.arrived.notify_one();
        }
    }

    /// The guest's frames so far.
    fn take(&self) -> VecDeque<Vec<u8>> {
        let frames = std::mem::take(&mut self.queues().from_guest);
        self.room.notify_all();
        frames
    }
}

/// A running stack. It ends when this is dropped.
pub struct UserNet {
    shared: Arc<Shared>,
    /// A byte on it wakes the thread.
    waker: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl UserNet {
    pub fn start(settings: Settings, threads: &str) -> Result<Self, NetError> {
        let mtu = u32::from(settings.mtu);
        if !(slirp::MIN_MTU..=slirp::MAX_MTU).contains(&mtu) {
            return Err(NetError::SlirpMtu(settings.mtu));
        }
        let shared = Arc::new(Shared::default());
        let receiver = Arc::clone(&shared);
        let stack = slirp::Settings {
            restricted: !settings.open,
            mtu,
        };
        let deliver = Box::new(move |frame: &[u8]| receiver.deliver(frame));
        let mut stack = Slirp::new(stack, deliver)
            .map_err(NetError::Library)?
            .ok_or(NetError::Slirp)?;
        for (rule, forward) in &settings.forwards {
            stack.forward(forward).map_err(|error| NetError::Listen {
                rule: rule.clone(),
                error,
            })?;
        }
        let (woken, waker) = UnixStream::pair().map_err(NetError::Io)?;
        woken.set_nonblocking(true).map_err(NetError::Io)?;
        waker.set_nonblocking(true).map_err(NetError::Io)?;
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("{threads} slirp"))
            .spawn(move || {
                if let Err(error) = serve(stack, &of_thread, &woken) {
                    let why = format!("slirp has ended: {}", cli::io_error(&error));
                    of_thread.queues().failed = Some(why);
                }
                of_thread.arrived.notify_all();
                of_thread.room.notify_all();
            })
            .map_err(NetError::Io)?;
        Ok(Self {
            shared,
            waker,
            thread: Some(thread),
        })
    }

    fn wake(&self) {
        // One that is full has bytes that nobody has read: the thread will wake.
        let _ = (&self.waker).write(&[1]);
    }
}

/// The thread's life.
fn serve(mut stack: Slirp, shared: &Shared, mut woken: &UnixStream) -> io::Result<()> {
    let mut bytes = [0; 64];
    while !shared.queues().closing {
        for frame in shared.take() {
            stack.input(&frame);
        }
        if stack.run(woken.as_fd())? {
            match woken.read(&mut bytes) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

impl NetBackend for UserNet {
    fn send(&self, frame: &[u8]) {
        let mut queues = self.shared.queues();
        while queues.from_guest.len() >= FROM_GUEST && queues.failed.is_none() && !queues.stopped {
            queues = self
                .shared
                .room
                .wait(queues)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if queues.failed.is_some() || queues.stopped {
            return;
        }
        queues.from_guest.push_back(frame.to_vec());
        let first = queues.from_guest.len() == 1;
        drop(queues);
        if first {
            self.wake();
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> Received {
        let mut queues = self.shared.queues();
        loop {
            if queues.stopped {
                return Received::Stopped;
            }
            if let Some(frame) = queues.to_guest.pop_front() {
                // The stack's frames are no longer than its MTU says.
                let len = frame.len().min(buffer.len());
                buffer[..len].copy_from_slice(&frame[..len]);
                return Received::Frame(len);
            }
            if let Some(why) = &queues.failed {
                return Received::Gone(why.clone());
            }
            queues = self
                .shared
                .arrived
                .wait(queues)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        let mut queues = self.shared.queues();
        queues.stopped = true;
        queues.from_guest.clear();
        queues.to_guest.clear();
        drop(queues);
        self.shared.arrived.notify_all();
        self.shared.room.notify_all();
    }
}

impl Drop for UserNet {
    fn drop(&mut self) {
        self.shared.queues().closing = true;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}
