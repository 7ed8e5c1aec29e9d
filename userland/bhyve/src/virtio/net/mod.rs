//! virtio-net (virtio 1.2, 5.1), a network card with one pair of queues, and here its
//! frames: those of the guest are served as requests, those for it come from a thread that
//! waits for the [`NetBackend`]. A frame lies behind a [`header`], which says nothing: the
//! card offers no checksums and no segmentation.

#![forbid(unsafe_code)]

pub mod config;
pub mod header;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use config::{Config, Settings};
use header::MAX_LEN;

use super::chain::{Buffers, Chain, ChainError};
use super::device::{Identity, VirtioDevice};
use super::function::VirtioFunction;
use super::queues::{Batch, DeviceQueues, Stopped, Wait};
use crate::config::View;
use crate::net::{self, MAX_FRAME, MIN_FRAME, NetBackend, Received};
use crate::pci::{DeviceContext, DeviceError, PciDevice};

/// Feature bits (5.1.3).
pub mod feature {
    pub const MTU: u64 = 1 << 3;
    pub const MAC: u64 = 1 << 5;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
}

/// As in bhyve(8).
pub const QUEUE_SIZE: u16 = 1024;

/// The queue of what the guest receives, and that of what it sends (5.1.2).
pub const RECEIVE: usize = 0;
pub const TRANSMIT: usize = 1;

/// The card.
pub struct Net {
    name: String,
    threads: String,
    backend: Option<Arc<dyn NetBackend>>,
    settings: Settings,
    /// What drivers read; a legacy one may give the card another address.
    config: Arc<Mutex<Config>>,
    queues: Mutex<Option<DeviceQueues>>,
    receiver: Mutex<Option<JoinHandle<()>>>,
}

impl Net {
    /// `name` is for messages, and what its threads' names begin with is the last.
    pub fn new(
        settings: Settings,
        backend: Option<Arc<dyn NetBackend>>,
        name: &str,
        threads: &str,
    ) -> Self {
        Self {
            name: name.to_owned(),
            threads: threads.to_owned(),
            config: Arc::new(Mutex::new(Config::new(&settings, backend.is_some()))),
            backend,
            settings,
            queues: Mutex::new(None),
            receiver: Mutex::new(None),
        }
    }

    /// The frame of a chain, behind its header; `None` if there is none that could be sent.
    fn frame(readable: Buffers, features: u64) -> Option<Vec<u8>> {
        let (_, data) = readable.split_at(header::len(features) as u64)?;
        let len = usize::try_from(data.len()).ok()?;
        if !(MIN_FRAME..=MAX_FRAME).contains(&len) {
            return None;
        }
        let mut frame = vec![0; len];
        // Memory that was there when the chain was read stays.
        let copied = data.copy_from(&mut frame).ok()?;
        (copied == len).then_some(frame)
    }
}

impl VirtioDevice for Net {
    fn identity(&self) -> Identity {
        Identity {
            device_type: 1,
            pci_device: 0x1000,
            // Network, Ethernet.
            class: 2,
            subclass: 0,
        }
    }

    fn features(&self) -> u64 {
        let mtu = self.settings.mtu.map_or(0, |_| feature::MTU);
        feature::MAC | feature::STATUS | feature::MRG_RXBUF | mtu
    }

    fn queues(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config(&self) -> Vec<u8> {
        lock(&self.config).bytes()
    }

    fn config_write(&self, offset: usize, bytes: &[u8]) {
        let mut config = lock(&self.config);
        if config.write(offset, bytes) {
            if let Some(queues) = &*lock(&self.queues) {
                queues.config_changed(&config.bytes());
            }
        }
    }

    /// So that frames stay in order.
    fn threads(&self) -> usize {
        1
    }

    fn served(&self, queue: usize) -> bool {
        queue != RECEIVE
    }

    fn handle(&self, _queue: usize, chain: Chain, features: u64) -> Result<u32, ChainError> {
        // What is no frame is lost, as on a wire.
        if let (Some(backend), Some(frame)) = (&self.backend, Self::frame(chain.readable, features))
        {
            backend.send(&frame);
        }
        Ok(0)
    }

    fn attach(&self, queues: DeviceQueues) -> io::Result<()> {
        *lock(&self.queues) = Some(queues.clone());
        let Some(backend) = &self.backend else {
            return Ok(());
        };
        let receiver = Receiver {
            name: self.name.clone(),
            backend: Arc::clone(backend),
            config: Arc::clone(&self.config),
            queues,
        };
        let thread = thread::Builder::new()
            .name(format!("{} rx", self.threads))
            .spawn(move || receiver.run())?;
        *lock(&self.receiver) = Some(thread);
        Ok(())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(backend) = &self.backend {
            backend.stop();
        }
        if let Some(thread) = lock(&self.receiver).take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that waits for frames.
struct Receiver {
    name: String,
    backend: Arc<dyn NetBackend>,
    config: Arc<Mutex<Config>>,
    queues: DeviceQueues,
}

/// What has become of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Placed {
    /// The guest has it, or nobody will: the guest's buffers are too small for it.
    Done,
    /// So many chains are wanted for it at least, and not there.
    Wants(u16),
}

impl Receiver {
    fn run(self) {
        // The header goes before the frame.
        let mut buffer = vec![0; MAX_LEN + MAX_FRAME];
        loop {
            let Some(frame) = buffer.get_mut(MAX_LEN..) else {
                return;
            };
            match self.backend.receive(frame) {
                Received::Frame(len) => {
                    let end = (MAX_LEN + len).min(buffer.len());
                    if !self.pass_on(&mut buffer[..end]) {
                        return;
                    }
                }
                Received::Stopped => return,
                Received::Gone(why) => return self.link_down(&why),
            }
        }
    }

    /// Gives a frame to the guest, and waits until the guest has buffers for it. Without a
    /// driver it is lost. False: the device is being dropped.
    fn pass_on(&self, buffer: &mut [u8]) -> bool {
        loop {
            match self.queues.produce(RECEIVE, |batch| place(batch, buffer)) {
                Ok(Ok(Placed::Done)) => return true,
                Ok(Ok(Placed::Wants(chains))) => match self.queues.wait(RECEIVE, chains) {
                    Wait::Available => {}
                    Wait::Reset => return true,
                    Wait::Closed => return false,
                },
                Ok(Err(Stopped::NotReady)) | Err(Stopped::NotReady) => return true,
                Ok(Err(Stopped::Closed)) | Err(Stopped::Closed) => return false,
            }
        }
    }

    fn link_down(&self, why: &str) {
        eprintln!("bhyve: {}: {why}; the guest's link is down\r", self.name);
        let mut config = lock(&self.config);
        config.link_down();
        self.queues.config_changed(&config.bytes());
    }
}

/// Puts a frame, which begins at [`MAX_LEN`] of `buffer`, into the next chains.
fn place(batch: &mut Batch<'_>, buffer: &mut [u8]) -> Result<Placed, Stopped> {
    let features = batch.features();
    let start = MAX_LEN - header::len(features);
    let total = (buffer.len() - start) as u64;
    let most = if features & feature::MRG_RXBUF != 0 {
        batch.size()
    } else {
        1
    };
    let mut chains = Vec::new();
    let mut room = 0;
    while room < total {
        if chains.len() == usize::from(most) {
            // The frame is lost; dropping the batch makes the chains available again.
            return Ok(Placed::Done);
        }
        let Some(chain) = batch.take()? else {
            // No more than the ring can hold.
            return Ok(Placed::Wants(chains.len() as u16 + 1));
        };
        room += chain.writable.len();
        chains.push(chain.writable);
    }
    let Some(mut rest) = header::put(buffer, start, chains.len() as u16) else {
        return Ok(Placed::Done);
    };
    let mut written = Vec::with_capacity(chains.len());
    for chain in &chains {
        // Memory that was there when the chain was read stays.
        let copied = chain.copy_to(rest).unwrap_or(0);
        rest = rest.get(copied..).unwrap_or_default();
        written.push(copied as u32);
    }
    batch.commit(&written);
    Ok(Placed::Done)
}

/// `virtio-net[,backend[,option…]]`.
pub fn virtio_net(
    config: &View<'_>,
    context: DeviceContext,
) -> Result<Arc<dyn PciDevice>, DeviceError> {
    let settings = Settings::read(config, context.at)?;
    // As in bhyve(8).
    let threads = format!("vtnet-{}:{}", context.at.slot, context.at.function);
    let backend = net::open(config, &threads, settings.mtu)?;
    let card = Net::new(settings, backend, &context.name, &threads);
    let sender = format!("{threads} tx");
    Ok(VirtioFunction::new(Box::new(card), context, &sender)?)
}

#[cfg(test)]
mod tests;
