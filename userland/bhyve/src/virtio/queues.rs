//! Queues that a device serves by itself, because what they are about comes from outside
//! and not from the driver: frames that arrive, text that somebody types. The device has
//! threads of its own; here is how they wait for a driver's chains ([`DeviceQueues::wait`])
//! and how they use them ([`DeviceQueues::produce`]).
//!
//! A thread holds chains only for as long as it takes to copy: a driver's reset waits for
//! that, and must never wait for the network.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::chain::Chain;
use super::queue::QueueError;
use super::state::{Core, State};

/// The queues of a device, for its threads. Clones are the same queues. They don't keep
/// the device alive.
#[derive(Clone)]
pub struct DeviceQueues {
    core: Arc<Core>,
    /// Of each queue: held by the thread that has chains of it.
    producers: Arc<[Mutex<()>]>,
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// The chains are there, or the driver has filled its ring.
    Available,
    /// The driver has reset the device.
    Reset,
    /// The device is being dropped.
    Closed,
}

/// Why there are no chains now. The device forgets what it has, or waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// The driver hasn't set up the queue, has made a mistake, or resets the device.
    NotReady,
    /// The device is being dropped.
    Closed,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "the driver isn't ready",
            Self::Closed => "the device is closed",
        })
    }
}

impl DeviceQueues {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let queues = core.state().queues.len();
        Self {
            core,
            producers: (0..queues).map(|_| Mutex::new(())).collect(),
        }
    }

    /// The features that the driver has accepted.
    pub fn features(&self) -> u64 {
        self.core.state().features
    }

    /// A number that changes whenever the driver resets the device.
    pub fn driver(&self) -> u64 {
        self.core.state().driver
    }

    /// Waits until `chains` chains are available in a queue at once; a ring that hasn't so
    /// many is available when it is full.
    pub fn wait(&self, queue: usize, chains: u16) -> Wait {
        let mut state = self.core.state();
        let driver = state.driver;
        loop {
            if state.closing {
                return Wait::Closed;
            }
            if state.driver != driver {
                return Wait::Reset;
            }
            match available(&mut state, queue, chains) {
                Ok(true) => return Wait::Available,
                Ok(false) => state = self.core.wait(&self.core.outside, state),
                Err(error) => {
                    let signal = self.core.needs_reset(&mut state, queue, &error);
                    state = self.core.send(state, signal);
                }
            }
        }
    }

    /// Whether so many chains are available, as [`DeviceQueues::wait`] has it, for threads
    /// that wait for other things, too. If not, the driver is asked for a notification, and
    /// [`VirtioDevice::notified`](super::device::VirtioDevice::notified) or
    /// [`ready`](super::device::VirtioDevice::ready) is called when it is worth another
    /// look.
    pub fn available(&self, queue: usize, chains: u16) -> bool {
        let mut state = self.core.state();
        match available(&mut state, queue, chains) {
            Ok(there) => there,
            Err(error) => {
                let signal = self.core.needs_reset(&mut state, queue, &error);
                drop(state);
                self.core.send_unlocked(signal);
                false
            }
        }
    }

    /// Lets `fill` use chains of a queue. What it has committed is the driver's at the end,
    /// with one interrupt at most; chains that it has taken and not committed are available
    /// as before. `fill` must not block, and not produce into the same queue; while it runs
    /// the driver can't reset the device.
    ///
    /// For each queue one thread at a time is in here, and others wait.
    pub fn produce<T>(
        &self,
        queue: usize,
        fill: impl FnOnce(&mut Batch<'_>) -> T,
    ) -> Result<T, Stopped> {
        let producer = self.producers.get(queue).ok_or(Stopped::NotReady)?;
        let _producer = producer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.core.state();
        if state.closing {
            return Err(Stopped::Closed);
        }
        let size = state.ring(queue).ok_or(Stopped::NotReady)?.size();
        state.in_flight += 1;
        let mut batch = Batch {
            core: &self.core,
            queue,
            features: state.features,
            driver: state.driver,
            size,
            taken: 0,
            open: Vec::new(),
            committed: false,
        };
        drop(state);
        Ok(fill(&mut batch))
    }

    /// The configuration space has other contents from now on, as many bytes as before. The
    /// driver is told.
    pub fn config_changed(&self, config: &[u8]) {
        let mut state = self.core.state();
        debug_assert_eq!(state.config.len(), config.len(), "its length is fixed");
        for (to, from) in state.config.iter_mut().zip(config) {
            *to = *from;
        }
        state.config_generation = state.config_generation.wrapping_add(1);
        let signal = self.core.config_interrupt(&mut state);
        drop(state);
        self.core.send_unlocked(signal);
    }
}

/// Whether `chains` are available. If not, the driver is asked to notify.
fn available(state: &mut State, queue: usize, chains: u16) -> Result<bool, QueueError> {
    let features = state.features;
    let Some(ring) = state.ring(queue) else {
        return Ok(false);
    };
    let chains = chains.min(ring.size());
    let there = ring.available()? >= chains || {
        // It may come in between.
        ring.want_notification(features, chains) && ring.available()? >= chains
    };
    if there {
        ring.suppress_notifications(features);
    }
    Ok(there)
}

/// Chains of one queue that a device is at.
pub struct Batch<'a> {
    core: &'a Core,
    queue: usize,
    features: u64,
    driver: u64,
    size: u16,
    /// How many were taken in all.
    taken: u16,
    /// The heads of those that aren't committed.
    open: Vec<u16>,
    committed: bool,
}

impl Batch<'_> {
    /// The features that the driver has accepted.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// What [`DeviceQueues::driver`] is until the batch ends.
    pub fn driver(&self) -> u64 {
        self.driver
    }

    /// How many chains the ring can hold: as many can be taken.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Takes the next chain. `None`: there is none, or the batch has had as many as the
    /// ring can hold.
    pub fn take(&mut self) -> Result<Option<Chain>, Stopped> {
        if self.taken == self.size {
            return Ok(None);
        }
        let mut state = self.core.state();
        if state.closing {
            return Err(Stopped::Closed);
        }
        let features = self.features;
        match state
            .ring(self.queue)
            .ok_or(Stopped::NotReady)?
            .take(features)
        {
            Ok(Some(chain)) => {
                self.taken += 1;
                self.open.push(chain.head);
                Ok(Some(chain))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                let signal = self.core.needs_reset(&mut state, self.queue, &error);
                drop(state);
                self.core.send_unlocked(signal);
                Err(Stopped::NotReady)
            }
        }
    }

    /// Gives the chains that were taken since the last commit back, all at once, with
    /// `written` bytes written to them in the order in which they were taken; to those
    /// without a number nothing was written.
    pub fn commit(&mut self, written: &[u32]) {
        debug_assert!(written.len() <= self.open.len(), "more than were taken");
        let lengths = written.iter().copied().chain(std::iter::repeat(0));
        let used: Vec<(u16, u32)> = self.open.drain(..).zip(lengths).collect();
        if used.is_empty() {
            return;
        }
        self.committed = true;
        let mut state = self.core.state();
        // The ring stays while something is in flight. A driver that has made a mistake
        // meanwhile gets them all the same.
        let queue = state.queues.get_mut(self.queue);
        if let Some(ring) = queue.and_then(|queue| queue.ring.as_mut()) {
            ring.put(&used);
        }
    }

    /// Makes the chains that were taken since the last commit available again.
    pub fn put_back(&mut self) {
        if self.open.is_empty() {
            return;
        }
        // No more than the ring can hold.
        let count = self.open.len() as u16;
        self.open.clear();
        self.taken -= count;
        let mut state = self.core.state();
        let queue = state.queues.get_mut(self.queue);
        if let Some(ring) = queue.and_then(|queue| queue.ring.as_mut()) {
            ring.put_back(count);
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.put_back();
        let mut state = self.core.state();
        if self.committed {
            let signal = self.core.after_put(&mut state, self.queue);
            state = self.core.send(state, signal);
        }
        self.core.landed(&mut state);
    }
}
