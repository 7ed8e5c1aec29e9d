//! The state between a driver and a device, whichever register layout the driver uses:
//! status and features (virtio 1.2, 2.1 and 2.2, 3.1), where the queues lie, interrupts
//! (2.3, 4.1.5.1), and the threads that take requests from the rings.
//!
//! A ring is the only list of requests there is: each thread takes one chain, handles it,
//! gives it back. A guest that fills its rings anew all the time keeps those threads busy,
//! and no vcpu.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use vmmapi::{Gpa, GuestMemory};

use super::chain::Chain;
use super::device::VirtioDevice;
use super::feature;
use super::queue::{Layout, QueueError, Virtqueue};
use crate::pci::{DeviceContext, Interrupts};

/// Device status bits (2.1).
pub mod status {
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
    pub const FAILED: u8 = 128;
}

/// ISR status bits (4.1.4.5).
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// No MSI-X vector for this event (4.1.4.3).
pub const NO_VECTOR: u16 = 0xffff;

/// The feature bits that each device has here.
const RING_FEATURES: u64 = feature::INDIRECT_DESC | feature::EVENT_IDX;

/// What the driver has set up.
pub(super) struct State {
    pub status: u8,
    /// The features that the driver has accepted.
    pub features: u64,
    pub queues: Vec<Queue>,
    /// Selectors of registers that exist once for each queue, or for 32 features.
    pub queue_select: u16,
    pub device_feature_select: u32,
    pub driver_feature_select: u32,
    pub config_vector: u16,
    isr: u8,
    /// Requests that threads are at.
    in_flight: usize,
    /// How many vcpus wait until there are none; no thread begins another one meanwhile.
    draining: usize,
    closing: bool,
}

/// One queue.
pub(super) struct Queue {
    /// The size that the device offers.
    pub max: u16,
    /// Where the driver puts it, by and by.
    pub layout: Layout,
    pub vector: u16,
    /// There since the driver enabled the queue.
    pub ring: Option<Virtqueue>,
    /// The driver may have added something.
    kicked: bool,
}

impl Queue {
    fn new(max: u16) -> Self {
        Self {
            max,
            layout: Layout {
                size: max,
                descriptors: Gpa(0),
                available: Gpa(0),
                used: Gpa(0),
            },
            vector: NO_VECTOR,
            ring: None,
            kicked: false,
        }
    }
}

impl State {
    fn new(queues: &[u16]) -> Self {
        Self {
            status: 0,
            features: 0,
            queues: queues.iter().map(|max| Queue::new(*max)).collect(),
            queue_select: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            config_vector: NO_VECTOR,
            isr: 0,
            in_flight: 0,
            draining: 0,
            closing: false,
        }
    }

    /// The queue that the selector names, if there is one of that number.
    pub fn selected(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(self.queue_select))
    }

    /// Whether the device may look at its rings. A legacy driver needs no DRIVER_OK for
    /// that: FreeBSD's asked its disks for their serial before it (3.1.2).
    fn live(&self) -> bool {
        let wanted = if self.features & feature::VERSION_1 != 0 {
            status::DRIVER_OK | status::FEATURES_OK
        } else {
            status::DRIVER
        };
        self.status & (status::NEEDS_RESET | status::FAILED) == 0 && self.status & wanted == wanted
    }

    /// The next request of any queue. An error says which queue can't go on.
    fn next(&mut self) -> Result<Option<(usize, Chain)>, (usize, QueueError)> {
        if self.draining > 0 || !self.live() {
            return Ok(None);
        }
        let features = self.features;
        for (number, queue) in self.queues.iter_mut().enumerate() {
            if let (Some(ring), true) = (&mut queue.ring, queue.kicked) {
                ring.suppress_notifications(features);
                let mut taken = ring.take(features).map_err(|e| (number, e))?;
                if taken.is_none() {
                    queue.kicked = false;
                    if ring.want_notification(features) {
                        // It came in between. If it is gone again the driver plays with
                        // its index, and may notify.
                        taken = ring.take(features).map_err(|e| (number, e))?;
                        queue.kicked = taken.is_some();
                    }
                }
                if let Some(chain) = taken {
                    return Ok(Some((number, chain)));
                }
            }
        }
        Ok(None)
    }
}

/// The transport of one device.
pub struct Transport {
    pub(super) device: Box<dyn VirtioDevice>,
    name: String,
    memory: GuestMemory,
    interrupts: Interrupts,
    state: Mutex<State>,
    /// There may be a request to take, or it is over.
    work: Condvar,
    /// No request is in flight.
    idle: Condvar,
    /// That the driver made a mistake has been said.
    complained: AtomicBool,
}

/// The threads of a transport; they end when this is dropped.
pub struct Threads {
    transport: Arc<Transport>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.transport.state().closing = true;
        self.transport.work.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Transport {
    pub fn new(device: Box<dyn VirtioDevice>, context: DeviceContext) -> Arc<Self> {
        let state = State::new(device.queues());
        Arc::new(Self {
            device,
            name: context.name,
            memory: context.memory,
            interrupts: context.interrupts,
            state: Mutex::new(state),
            work: Condvar::new(),
            idle: Condvar::new(),
            complained: AtomicBool::new(false),
        })
    }

    /// Starts the threads that handle requests.
    pub fn start(self: &Arc<Self>, name: &str) -> std::io::Result<Threads> {
        let mut threads = Threads {
            transport: Arc::clone(self),
            threads: Vec::new(),
        };
        for n in 0..self.device.threads() {
            let transport = Arc::clone(self);
            let thread = thread::Builder::new()
                .name(format!("{name}-{n}"))
                .spawn(move || transport.serve())?;
            threads.threads.push(thread);
        }
        Ok(threads)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many MSI-X vectors drivers can use: one for each queue, one for changes of the
    /// configuration.
    pub(super) fn vectors(&self) -> u16 {
        // A device has a handful of queues.
        self.device.queues().len() as u16 + 1
    }

    pub(super) fn msix_enabled(&self) -> bool {
        self.interrupts.msix_enabled()
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
        let mut state = self.state();
        if value == 0 {
            state = self.drain(state);
            let queues = self.device.queues();
            *state = State {
                draining: state.draining,
                closing: state.closing,
                ..State::new(queues)
            };
            self.interrupts.deassert_intx();
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
        state.status = new;
        drop(state);
        // What was notified before is looked at now.
        self.work.notify_all();
    }

    /// The driver has added something to a queue, it says.
    pub(super) fn notify(&self, queue: usize) {
        if let Some(queue) = self.state().queues.get_mut(queue) {
            queue.kicked = true;
        }
        self.work.notify_one();
    }

    /// Reads the ISR status, which clears it and lowers the interrupt pin.
    pub(super) fn take_isr(&self) -> u8 {
        let mut state = self.state();
        let isr = std::mem::take(&mut state.isr);
        if isr != 0 {
            self.interrupts.deassert_intx();
        }
        isr
    }

    /// The selected queue is where its layout says, from now on.
    pub(super) fn enable_queue(&self, mut state: MutexGuard<'_, State>) {
        let number = state.queue_select;
        let Some(queue) = state.selected() else {
            return;
        };
        match Virtqueue::new(&self.memory, &queue.layout) {
            Ok(ring) => queue.ring = Some(ring),
            Err(error) => self.needs_reset(&mut state, usize::from(number), &error),
        }
    }

    /// Waits until no request is in flight.
    pub(super) fn drain<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.draining += 1;
        while state.in_flight > 0 {
            state = self
                .idle
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.draining -= 1;
        state
    }

    /// A thread's life.
    fn serve(&self) {
        let mut state = self.state();
        while !state.closing {
            state = match state.next() {
                Ok(Some((queue, chain))) => self.handle(state, queue, chain),
                Ok(None) => self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Err((queue, error)) => {
                    self.needs_reset(&mut state, queue, &error);
                    state
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
        let features = state.features;
        let head = chain.head;
        state.in_flight += 1;
        drop(state);
        // There may be more, for another thread.
        self.work.notify_one();
        let result = self.device.handle(queue, chain, features);

        let mut state = self.state();
        state.in_flight -= 1;
        match result {
            Ok(written) => self.give_back(&mut state, queue, head, written),
            Err(error) => self.needs_reset(&mut state, queue, &error.into()),
        }
        if state.in_flight == 0 {
            self.idle.notify_all();
        }
        state
    }

    fn give_back(&self, state: &mut State, queue: usize, head: u16, written: u32) {
        let features = state.features;
        let Some(queue) = state.queues.get_mut(queue) else {
            return;
        };
        let Some(ring) = &mut queue.ring else {
            return;
        };
        ring.put(head, written);
        if ring.wants_interrupt(features) {
            let vector = queue.vector;
            self.interrupt(state, vector, ISR_QUEUE);
        }
    }

    /// The driver has broken a rule: the device stops until it is reset (2.1.1).
    fn needs_reset(&self, state: &mut State, queue: usize, error: &QueueError) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            eprintln!(
                "bhyve: {}: queue {queue}: the driver gave {error}; the device waits for its \
                 reset\r",
                self.name
            );
        }
        state.status |= status::NEEDS_RESET;
        if state.status & status::DRIVER_OK != 0 {
            let vector = state.config_vector;
            self.interrupt(state, vector, ISR_CONFIG);
        }
    }

    fn interrupt(&self, state: &mut State, vector: u16, isr: u8) {
        if self.interrupts.msix_enabled() {
            if vector != NO_VECTOR {
                self.interrupts.send_msix(vector);
            }
            return;
        }
        state.isr |= isr;
        self.interrupts.send_msi(0);
        self.interrupts.assert_intx();
    }
}
