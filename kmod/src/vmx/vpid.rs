//! Virtual-processor identifiers (SDM vol. 3C, 29.1): 1 to 65535, unique on the host while
//! in use. A vcpu that gets none runs without (VPID 0, the control clear): each of its VM
//! entries and exits then flushes, which is slower and as correct.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const WORDS: usize = 65536 / 64;

/// A bit per VPID in use. Bit 0 stays unused: VPID 0 is the host's.
static IN_USE: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
/// How many vcpus have gone without.
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// A VPID of one vcpu.
pub struct Vpid(u16);

impl Vpid {
    /// The lowest free one.
    pub fn alloc() -> Option<Self> {
        for (index, word) in IN_USE.iter().enumerate() {
            let reserved = u64::from(index == 0);
            let mut bits = word.load(Ordering::Relaxed) | reserved;
            while bits != u64::MAX {
                let bit = bits.trailing_ones();
                let before = word.fetch_or(1 << bit, Ordering::Relaxed);
                if before & 1 << bit == 0 {
                    return Some(Self((index * 64) as u16 + bit as u16));
                }
                bits = before | reserved;
            }
        }
        FAILED.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// The number.
    pub fn get(&self) -> u16 {
        self.0
    }

    /// How many calls of [`Self::alloc`] found none.
    pub fn failures() -> usize {
        FAILED.load(Ordering::Relaxed)
    }
}

impl Drop for Vpid {
    fn drop(&mut self) {
        // Translations may stay cached under the number; whoever gets it next executes
        // INVVPID on each CPU where it runs for the first time.
        IN_USE[usize::from(self.0) / 64].fetch_and(!(1 << (self.0 % 64)), Ordering::Relaxed);
    }
}
