//! What a driver has set up, and what is under way: the part of the transport that is
//! behind a lock. The threads of the transport and those of the device share it, and it
//! knows neither.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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
    pub isr: u8,
    /// The device's configuration space, and how many times it has changed (4.1.4.3).
    pub config: Vec<u8>,
    pub config_generation: u8,
    /// Requests that threads are at.
    pub in_flight: usize,
    /// How many vcpus wait until there are none; no thread begins another one meanwhile.
    pub draining: usize,
    pub closing: bool,
    /// How many times the device was reset: which driver this is, so to say.
    pub driver: u64,
}

/// One queue.
pub(super) struct Queue {
    /// The size that the device offers.
    pub max: u16,
    /// Whether the transport's threads take its chains.
    served: bool,
    /// Where the driver puts it, by and by.
    pub layout: Layout,
    pub vector: u16,
    /// There since the driver enabled the queue.
    pub ring: Option<Virtqueue>,
    /// The driver may have added something.
    kicked: bool,
}

impl Queue {
    fn new(max: u16, served: bool) -> Self {
        Self {
            max,
            served,
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
    fn new(device: &dyn VirtioDevice) -> Self {
        let queues = device.queues().iter().enumerate();
        Self {
            status: 0,
            features: 0,
            queues: queues
                .map(|(number, max)| Queue::new(*max, device.served(number)))
                .collect(),
            queue_select: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            config_vector: NO_VECTOR,
            isr: 0,
            config: device.config(),
            config_generation: 0,
            in_flight: 0,
            draining: 0,
            closing: false,
            driver: 0,
        }
    }

    /// Forgets the driver. Nothing must be in flight.
    pub fn reset(&mut self) {
        let queues = self.queues.iter();
        *self = Self {
            status: 0,
            features: 0,
            queues: queues.map(|old| Queue::new(old.max, old.served)).collect(),
            queue_select: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            config_vector: NO_VECTOR,
            isr: 0,
            config: std::mem::take(&mut self.config),
            config_generation: self.config_generation,
            in_flight: self.in_flight,
            draining: self.draining,
            closing: self.closing,
            driver: self.driver.wrapping_add(1),
        };
    }

    /// The queue that the selector names, if there is one of that number.
    pub fn selected(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(self.queue_select))
    }

    /// The driver says that it has added something. The answer is whether the transport's
    /// threads take it; `None` if there is no queue of that number.
    pub fn notified(&mut self, queue: usize) -> Option<bool> {
        let queue = self.queues.get_mut(queue)?;
        queue.kicked = true;
        Some(queue.served)
    }

    /// Whether the device may begin anything. A legacy driver needs no DRIVER_OK for
    /// that: FreeBSD's asked its disks for their serial before it (3.1.2).
    pub fn ready(&self) -> bool {
        let wanted = if self.features & feature::VERSION_1 != 0 {
            status::DRIVER_OK | status::FEATURES_OK
        } else {
            status::DRIVER
        };
        self.draining == 0
            && self.status & (status::NEEDS_RESET | status::FAILED) == 0
            && self.status & wanted == wanted
    }

    /// The ring of a queue, if the device may look at it.
    pub fn ring(&mut self, queue: usize) -> Option<&mut Virtqueue> {
        if self.ready() {
            self.queues.get_mut(queue)?.ring.as_mut()
        } else {
            None
        }
    }

    /// The next request of the served queues. An error says which queue can't go on.
    pub fn next(&mut self) -> Result<Option<(usize, Chain)>, (usize, QueueError)> {
        if !self.ready() {
            return Ok(None);
        }
        let features = self.features;
        for (number, queue) in self.queues.iter_mut().enumerate() {
            if let (Some(ring), true, true) = (&mut queue.ring, queue.kicked, queue.served) {
                ring.suppress_notifications(features);
                let mut taken = ring.take(features).map_err(|e| (number, e))?;
                if taken.is_none() {
                    queue.kicked = false;
                    if ring.want_notification(features, 1) {
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

/// An interrupt that the driver is to get, once the state isn't locked any more: it is a
/// system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(super) enum Signal {
    None,
    Msix(u16),
    /// By MSI, or the pin. The ISR says why.
    Isr,
}

/// The state, and what its threads wait for.
pub(super) struct Core {
    name: String,
    pub memory: GuestMemory,
    interrupts: Interrupts,
    state: Mutex<State>,
    /// There may be a request to take, or it is over.
    pub work: Condvar,
    /// The same for queues that the transport's threads don't serve.
    pub outside: Condvar,
    /// No request is in flight.
    pub idle: Condvar,
    /// Whoever holds it puts the interrupt pin where the ISR says.
    pin: Mutex<()>,
    /// That the driver made a mistake has been said.
    complained: AtomicBool,
}

impl Core {
    pub fn new(device: &dyn VirtioDevice, context: DeviceContext) -> Self {
        Self {
            name: context.name,
            memory: context.memory,
            interrupts: context.interrupts,
            state: Mutex::new(State::new(device)),
            work: Condvar::new(),
            outside: Condvar::new(),
            idle: Condvar::new(),
            pin: Mutex::new(()),
            complained: AtomicBool::new(false),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait<'a>(
        &self,
        condition: &Condvar,
        state: MutexGuard<'a, State>,
    ) -> MutexGuard<'a, State> {
        condition
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn msix_enabled(&self) -> bool {
        self.interrupts.msix_enabled()
    }

    /// Waits until no request is in flight.
    pub fn drain<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.draining += 1;
        while state.in_flight > 0 {
            state = self.wait(&self.idle, state);
        }
        state.draining -= 1;
        // Whoever looked meanwhile found nothing to do.
        self.work.notify_all();
        self.outside.notify_all();
        state
    }

    /// One less in flight.
    pub fn landed(&self, state: &mut State) {
        state.in_flight -= 1;
        if state.in_flight == 0 {
            self.idle.notify_all();
        }
    }

    /// What the driver is told after chains were given back.
    pub fn after_put(&self, state: &mut State, queue: usize) -> Signal {
        let features = state.features;
        let Some(queue) = state.queues.get_mut(queue) else {
            return Signal::None;
        };
        let vector = queue.vector;
        let ring = queue.ring.as_mut();
        if ring.is_some_and(|ring| ring.wants_interrupt(features)) {
            self.interrupt(state, vector, ISR_QUEUE)
        } else {
            Signal::None
        }
    }

    /// The driver has broken a rule: the device stops until it is reset (2.1.1).
    pub fn needs_reset(&self, state: &mut State, queue: usize, error: &QueueError) -> Signal {
        if !self.complained.swap(true, Ordering::Relaxed) {
            eprintln!(
                "bhyve: {}: queue {queue}: the driver gave {error}; the device waits for its \
                 reset\r",
                self.name
            );
        }
        state.status |= status::NEEDS_RESET;
        self.config_interrupt(state)
    }

    /// The configuration space has changed.
    pub fn config_interrupt(&self, state: &mut State) -> Signal {
        if state.status & status::DRIVER_OK == 0 {
            return Signal::None;
        }
        let vector = state.config_vector;
        self.interrupt(state, vector, ISR_CONFIG)
    }

    fn interrupt(&self, state: &mut State, vector: u16, isr: u8) -> Signal {
        if !self.interrupts.msix_enabled() {
            state.isr |= isr;
            Signal::Isr
        } else if vector == NO_VECTOR {
            Signal::None
        } else {
            Signal::Msix(vector)
        }
    }

    /// Interrupts the driver, with the state unlocked for the time that takes.
    pub fn send<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        signal: Signal,
    ) -> MutexGuard<'a, State> {
        if signal == Signal::None {
            return state;
        }
        drop(state);
        self.send_unlocked(signal);
        self.state()
    }

    /// Interrupts the driver. The caller doesn't hold the state.
    pub fn send_unlocked(&self, signal: Signal) {
        match signal {
            Signal::None => {}
            Signal::Msix(vector) => self.interrupts.send_msix(vector),
            Signal::Isr => {
                self.interrupts.send_msi(0);
                self.update_pin();
            }
        }
    }

    /// Puts the interrupt pin where the ISR says. Whoever comes last finds the ISR as it
    /// stays, so that the pin does, too.
    pub fn update_pin(&self) {
        let _pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        let asserted = self.state().isr != 0;
        if asserted {
            self.interrupts.assert_intx();
        } else {
            self.interrupts.deassert_intx();
        }
    }
}
