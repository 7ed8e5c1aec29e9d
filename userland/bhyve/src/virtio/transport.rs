//! The transport between a driver and a device, whichever register layout the driver uses:
//! status and features (virtio 1.2, 2.1 and 2.2, 3.1), where the queues lie, interrupts
//! (2.3, 4.1.5.1), and the threads that take requests from the rings.
//!
//! A ring is the only list of requests there is: each thread takes one chain, handles it,
//! gives it back. A guest that fills its rings anew all the time keeps those threads busy,
//! and no vcpu. Queues that the device serves by itself are in [`super::queues`].

#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::chain::Chain;
use super::device::VirtioDevice;
use super::feature;
use super::queue::Virtqueue;
use super::queues::DeviceQueues;
use super::state::{Core, Signal, State};
pub use super::state::{NO_VECTOR, status};
use crate::pci::DeviceContext;

/// The feature bits that each device has here.
const RING_FEATURES: u64 = feature::INDIRECT_DESC | feature::EVENT_IDX;

/// The transport of one device.
pub struct Transport {
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) core: Arc<Core>,
    /// Held while the status changes and the device is told.
    status_writes: Mutex<()>,
    vectors: u16,
}

/// The threads of a transport; they end when this is dropped.
pub struct Threads {
    transport: Arc<Transport>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        let core = &self.transport.core;
        core.state().closing = true;
        core.work.notify_all();
        core.outside.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Transport {
    pub fn new(device: Box<dyn VirtioDevice>, context: DeviceContext) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::new(Core::new(&*device, context)),
            status_writes: Mutex::new(()),
            // A device has no more than some dozens of queues.
            vectors: device.queues().len() as u16 + 1,
            device,
        })
    }

    /// Gives the device its queues, and starts the threads that handle requests.
    pub fn start(self: &Arc<Self>, name: &str) -> io::Result<Threads> {
        let mut threads = Threads {
            transport: Arc::clone(self),
            threads: Vec::new(),
        };
        self.device
            .attach(DeviceQueues::new(Arc::clone(&self.core)))?;
        let count = self.device.threads();
        for n in 0..count {
            let transport = Arc::clone(self);
            let name = match count {
                1 => name.to_owned(),
                _ => format!("{name}-{n}"),
            };
            let thread = thread::Builder::new()
                .name(name)
                .spawn(move || transport.serve())?;
            threads.threads.push(thread);
        }
        Ok(threads)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.core.state()
    }

    /// How many MSI-X vectors drivers can use: one for each queue, one for changes of the
    /// configuration.
    pub(super) fn vectors(&self) -> u16 {
        self.vectors
    }

    pub(super) fn msix_enabled(&self) -> bool {
        self.core.msix_enabled()
    }

    /// What a legacy driver is offered: the lower half of these.
    pub(super) fn legacy_features(&self) -> u32 {
        (self.device.features() | RING_FEATURES | feature::ANY_LAYOUT) as u32
    }

    /// What a driver of virtio 1.x is offered.
    pub(super) fn features(&self) -> u64 {
        self.device.features() | RING_FEATURES | feature::VERSION_1
    }

    /// A vector as the register keeps it: none if there is none of that number.
    pub(super) fn vector(&self, wanted: u16) -> u16 {
        if wanted < self.vectors() {
            wanted
        } else {
            NO_VECTOR
        }
    }

    /// The driver writes the device status. Zero resets the device, and this returns when
    /// it has: when no request is in flight any more.
    pub(super) fn set_status(&self, value: u8) {
        // In order, also for the device.
        let _order = self
            .status_writes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        if value == 0 {
            state = self.core.drain(state);
            state.reset();
            drop(state);
            self.core.update_pin();
            self.core.outside.notify_all();
            self.device.reset();
            return;
        }
        let mut new = value & !status::NEEDS_RESET | state.status & status::NEEDS_RESET;
        let modern = state.features & feature::VERSION_1 != 0;
        if new & status::FEATURES_OK != 0 && state.features & !self.features() != 0 {
            new &= !status::FEATURES_OK;
        }
        if new & status::FEATURES_OK != 0 && !modern {
            new &= !status::FEATURES_OK;
        }
        if modern && new & status::FEATURES_OK == 0 {
            new &= !status::DRIVER_OK;
        }
        let begins = new & !state.status & status::DRIVER_OK != 0;
        let features = state.features;
        state.status = new;
        drop(state);
        // What was notified before is looked at now.
        self.core.work.notify_all();
        self.core.outside.notify_all();
        if begins {
            self.device.ready(features);
        }
    }

    /// The driver has added something to a queue, it says.
    pub(super) fn notify(&self, queue: usize) {
        let served = self.state().notified(queue);
        match served {
            Some(true) => self.core.work.notify_one(),
            Some(false) => {
                self.core.outside.notify_all();
                self.device.notified(queue);
            }
            None => {}
        }
    }

    /// The driver writes to the configuration space. What lies behind its end is cut off.
    pub(super) fn config_write(&self, offset: u64, bytes: &[u8]) {
        let len = self.state().config.len();
        let Ok(offset) = usize::try_from(offset) else {
            return;
        };
        let room = len.saturating_sub(offset).min(bytes.len());
        if let Some(bytes @ [_, ..]) = bytes.get(..room) {
            self.device.config_write(offset, bytes);
        }
    }

    /// Reads the ISR status, which clears it and lowers the interrupt pin.
    pub(super) fn take_isr(&self) -> u8 {
        let isr = std::mem::take(&mut self.state().isr);
        if isr != 0 {
            self.core.update_pin();
        }
        isr
    }

    /// The selected queue is where its layout says, from now on.
    pub(super) fn enable_queue(&self, mut state: MutexGuard<'_, State>) {
        let number = state.queue_select;
        let Some(queue) = state.selected() else {
            return;
        };
        let signal = match Virtqueue::new(&self.core.memory, &queue.layout) {
            Ok(ring) => {
                queue.ring = Some(ring);
                Signal::None
            }
            Err(error) => self
                .core
                .needs_reset(&mut state, usize::from(number), &error),
        };
        drop(state);
        self.core.outside.notify_all();
        self.core.send_unlocked(signal);
    }

    /// A thread's life.
    fn serve(&self) {
        let core = &self.core;
        let mut state = core.state();
        while !state.closing {
            state = match state.next() {
                Ok(Some((queue, chain))) => self.handle(state, queue, chain),
                Ok(None) => core.wait(&core.work, state),
                Err((queue, error)) => {
                    let signal = core.needs_reset(&mut state, queue, &error);
                    core.send(state, signal)
                }
            };
        }
    }

    fn handle<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        queue: usize,
        chain: Chain,
    ) -> MutexGuard<'a, State> {
        let core = &self.core;
        let features = state.features;
        let head = chain.head;
        state.in_flight += 1;
        drop(state);
        // There may be more, for another thread.
        core.work.notify_one();
        let result = self.device.handle(queue, chain, features);

        let mut state = core.state();
        let signal = match result {
            Ok(written) => {
                if let Some(ring) = state.queues.get_mut(queue).and_then(|q| q.ring.as_mut()) {
                    ring.put(&[(head, written)]);
                }
                core.after_put(&mut state, queue)
            }
            Err(error) => core.needs_reset(&mut state, queue, &error.into()),
        };
        // The driver's reset waits for its interrupt, too.
        let mut state = core.send(state, signal);
        core.landed(&mut state);
        state
    }
}
