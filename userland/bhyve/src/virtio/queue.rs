//! A split virtqueue (virtio 1.2, 2.7): descriptor table, available ring and used ring, all
//! three in guest memory. Where they lie is checked once, when the driver has said it; the
//! indices that the driver writes are checked each time.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::{Ordering, fence};

use vmmapi::{Error, Gpa, GuestMemory, GuestRange};

use super::chain::{Chain, ChainError, DESCRIPTOR_LEN};
use super::feature;

/// The largest ring there can be (2.7).
pub const MAX_SIZE: u16 = 1 << 15;

/// Of the available ring: the driver wants no interrupts.
const AVAIL_F_NO_INTERRUPT: u16 = 1;
/// Of the used ring: the device wants no notifications.
const USED_F_NO_NOTIFY: u16 = 1;

/// Offsets in both rings.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const RING: usize = 4;
/// Bytes of an element of the used ring.
const USED_ELEMENT: usize = 8;

/// The boundary that the used ring of a legacy queue lies on (2.7.2).
const LEGACY_ALIGN: u64 = 4096;

/// Where the driver has put a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Entries, a power of two.
    pub size: u16,
    pub descriptors: Gpa,
    pub available: Gpa,
    pub used: Gpa,
}

impl Layout {
    /// A legacy driver's queue, which is one piece of memory (2.7.2).
    pub fn legacy(base: Gpa, size: u16) -> Option<Self> {
        let entries = u64::from(size);
        let available = base.checked_add(entries * DESCRIPTOR_LEN as u64)?;
        let end = available.checked_add(available_len(size) as u64)?;
        let used = end.0.checked_next_multiple_of(LEGACY_ALIGN)?;
        Some(Self {
            size,
            descriptors: base,
            available,
            used: Gpa(used),
        })
    }
}

/// Flags, index, ring, and the event index behind it.
fn available_len(size: u16) -> usize {
    RING + 2 * usize::from(size) + 2
}

fn used_len(size: u16) -> usize {
    RING + USED_ELEMENT * usize::from(size) + 2
}

/// Why a queue can't be used, or not any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueueError {
    Size(u16),
    /// One of the three parts isn't on its boundary or not in memory.
    Part {
        part: &'static str,
        gpa: u64,
    },
    /// The driver's index is further ahead than the ring is long.
    Index {
        available: u16,
        taken: u16,
    },
    Chain(ChainError),
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "a size of {size} entries"),
            Self::Part { part, gpa } => write!(
                f,
                "a {part} at {gpa:#x}, which is not aligned or not all memory"
            ),
            Self::Index { available, taken } => write!(
                f,
                "an available index of {available} where {taken} were taken: more than the \
                 ring holds"
            ),
            Self::Chain(error) => error.fmt(f),
        }
    }
}

impl From<ChainError> for QueueError {
    fn from(error: ChainError) -> Self {
        Self::Chain(error)
    }
}

/// A queue that is set up.
#[derive(Debug)]
pub struct Virtqueue {
    memory: GuestMemory,
    size: u16,
    descriptors: GuestRange,
    available: GuestRange,
    used: GuestRange,
    /// Of the available ring, the next chain to take.
    next_available: u16,
    /// Of the used ring, the next element to fill.
    next_used: u16,
    /// [`Virtqueue::next_used`] when the driver was last considered for an interrupt.
    signalled: u16,
}

impl Virtqueue {
    /// Checks where the queue lies.
    pub fn new(memory: &GuestMemory, layout: &Layout) -> Result<Self, QueueError> {
        let size = layout.size;
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(QueueError::Size(size));
        }
        let part = |part, gpa: Gpa, align, len| match memory.slice(gpa, len) {
            Ok(range) if gpa.0 % align == 0 => Ok(range),
            _ => Err(QueueError::Part { part, gpa: gpa.0 }),
        };
        let table = usize::from(size) * DESCRIPTOR_LEN;
        Ok(Self {
            memory: memory.clone(),
            size,
            descriptors: part("descriptor table", layout.descriptors, 16, table)?,
            available: part("available ring", layout.available, 2, available_len(size))?,
            used: part("used ring", layout.used, 4, used_len(size))?,
            next_available: 0,
            next_used: 0,
            signalled: 0,
        })
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// How many chains there are to take. After an error the queue can't go on.
    pub fn available(&self) -> Result<u16, QueueError> {
        let index: u16 = word(&self.available, INDEX);
        let waiting = index.wrapping_sub(self.next_available);
        if waiting > self.size {
            return Err(QueueError::Index {
                available: index,
                taken: self.next_available,
            });
        }
        Ok(waiting)
    }

    /// Takes the next chain. After an error the queue can't go on.
    pub fn take(&mut self, features: u64) -> Result<Option<Chain>, QueueError> {
        if self.available()? == 0 {
            return Ok(None);
        }
        // The entry was written before the index.
        fence(Ordering::Acquire);
        let head: u16 = word(&self.available, RING + 2 * self.slot(self.next_available));
        self.next_available = self.next_available.wrapping_add(1);
        let indirect = features & feature::INDIRECT_DESC != 0;
        let chain = Chain::read(&self.memory, &self.descriptors, head, indirect)?;
        Ok(Some(chain))
    }

    /// Takes back that the last `count` chains were taken. None of them was given back.
    pub fn put_back(&mut self, count: u16) {
        self.next_available = self.next_available.wrapping_sub(count);
    }

    /// Tells the driver that it needn't notify: the device looks at the ring by itself.
    pub fn suppress_notifications(&mut self, features: u64) {
        // With event indices that is so as long as the event index stays where it is.
        if features & feature::EVENT_IDX == 0 {
            set_word(&self.used, FLAGS, USED_F_NO_NOTIFY);
        }
    }

    /// Asks for a notification when `chains` chains are there to take, or sooner. True:
    /// something is there already, for which no notification may come.
    pub fn want_notification(&mut self, features: u64, chains: u16) -> bool {
        if features & feature::EVENT_IDX == 0 {
            set_word(&self.used, FLAGS, 0_u16);
        } else {
            let event = RING + USED_ELEMENT * usize::from(self.size);
            let last = self.next_available.wrapping_add(chains.saturating_sub(1));
            set_word(&self.used, event, last);
        }
        // The wish must be visible before the index is read (2.7.10.1).
        fence(Ordering::SeqCst);
        let index: u16 = word(&self.available, INDEX);
        index != self.next_available
    }

    /// Gives chains back, by their heads, with so many bytes in their writable parts. The
    /// driver sees all of them or none (5.1.6.4 wants that).
    pub fn put(&mut self, used: &[(u16, u32)]) {
        for (head, written) in used {
            let element = RING + USED_ELEMENT * self.slot(self.next_used);
            set_word(&self.used, element, u32::from(*head));
            set_word(&self.used, element + 4, *written);
            self.next_used = self.next_used.wrapping_add(1);
        }
        // The elements before the index.
        fence(Ordering::Release);
        set_word(&self.used, INDEX, self.next_used);
    }

    /// Whether the driver wants an interrupt for what was given back since the last call
    /// (2.7.7.2).
    pub fn wants_interrupt(&mut self, features: u64) -> bool {
        let before = std::mem::replace(&mut self.signalled, self.next_used);
        let new = self.next_used.wrapping_sub(before);
        // The used index must be visible before the driver's wish is read.
        fence(Ordering::SeqCst);
        if features & feature::EVENT_IDX == 0 {
            let flags: u16 = word(&self.available, FLAGS);
            return new != 0 && flags & AVAIL_F_NO_INTERRUPT == 0;
        }
        let event: u16 = word(&self.available, RING + 2 * usize::from(self.size));
        self.next_used.wrapping_sub(event).wrapping_sub(1) < new
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }
}

/// A word of a part whose length was checked to have it.
fn word<T: vmmapi::Word + Default>(part: &GuestRange, offset: usize) -> T {
    expect_within(part.read(offset))
}

fn set_word<T: vmmapi::Word>(part: &GuestRange, offset: usize, value: T) {
    expect_within(part.write(offset, value));
}

/// The parts were made as long as their offsets reach: an error is a mistake of this file.
fn expect_within<T: Default>(result: Result<T, Error>) -> T {
    debug_assert!(result.is_ok(), "a part is shorter than its queue");
    result.unwrap_or_default()
}
