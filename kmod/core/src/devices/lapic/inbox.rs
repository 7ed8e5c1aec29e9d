//! How others reach a vcpu's local APIC: a posted-interrupt descriptor in software (SDM
//! vol. 3C, 30.6). Anybody posts without a lock, in any context, and then notifies the
//! vcpu; the vcpu takes everything before its next VM entry ([`super::LocalApic::accept`]).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Lvt;
use crate::devices::Trigger;
use crate::types::Vector;

/// What waits for one local APIC, and what senders must know of it.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Posted vectors, a bit each.
    vectors: [AtomicU64; 4],
    /// Of a posted vector: it came level-triggered.
    level: [AtomicU64; 4],
    signals: AtomicU32,
    /// [`super::Address`], packed by the owner.
    address: AtomicU64,
}

/// A signal besides vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// A vector was posted.
    Vector,
    /// The timer that the owner had armed has gone off.
    Timer,
    /// An ExtINT message: take a vector from the 8259s.
    ExtInt,
    /// An INIT IPI: the local APIC resets.
    Init,
    /// A local interrupt: its LVT entry says what it does.
    Local(Lvt),
}

impl Signal {
    const fn bit(self) -> u32 {
        match self {
            Self::Vector => 1 << 0,
            Self::Timer => 1 << 1,
            Self::ExtInt => 1 << 2,
            Self::Init => 1 << 3,
            Self::Local(lvt) => 1 << (8 + lvt as u32),
        }
    }
}

/// What [`Inbox::take_signals`] took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signals(u32);

impl Signals {
    pub const fn has(self, signal: Signal) -> bool {
        self.0 & signal.bit() != 0
    }
}

impl Inbox {
    pub const fn new() -> Self {
        Self {
            vectors: [const { AtomicU64::new(0) }; 4],
            level: [const { AtomicU64::new(0) }; 4],
            signals: AtomicU32::new(0),
            address: AtomicU64::new(0),
        }
    }

    /// Posts a vector. Notify the vcpu afterwards. Context: any.
    pub fn post(&self, vector: Vector, trigger: Trigger) {
        let (word, bit) = (usize::from(vector.0 / 64), 1 << (vector.0 % 64));
        match trigger {
            Trigger::Level => self.level[word].fetch_or(bit, Ordering::SeqCst),
            Trigger::Edge => self.level[word].fetch_and(!bit, Ordering::SeqCst),
        };
        self.vectors[word].fetch_or(bit, Ordering::SeqCst);
        self.signal(Signal::Vector);
    }

    /// Notify the vcpu afterwards. Context: any.
    pub fn signal(&self, signal: Signal) {
        self.signals.fetch_or(signal.bit(), Ordering::SeqCst);
    }

    /// Whether anything waits: a HLT is to look. Context: any.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.signals.load(Ordering::SeqCst) == 0
    }

    /// The owner takes the signals; posted vectors afterwards with [`Self::take_vectors`].
    pub(super) fn take_signals(&self) -> Signals {
        Signals(self.signals.swap(0, Ordering::SeqCst))
    }

    /// The posted vectors 64 × `word` and up, and which of them are level-triggered.
    pub(super) fn take_vectors(&self, word: usize) -> (u64, u64) {
        let vectors = self.vectors[word].swap(0, Ordering::SeqCst);
        (vectors, self.level[word].load(Ordering::SeqCst) & vectors)
    }

    pub(super) fn publish_address(&self, packed: u64) {
        self.address.store(packed, Ordering::SeqCst);
    }

    pub(super) fn packed_address(&self) -> u64 {
        self.address.load(Ordering::SeqCst)
    }

    /// Forgets what waits (VM_REINIT).
    pub fn clear(&self) {
        self.signals.store(0, Ordering::SeqCst);
        for word in &self.vectors {
            word.store(0, Ordering::SeqCst);
        }
    }
}
