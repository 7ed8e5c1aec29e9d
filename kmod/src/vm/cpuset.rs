//! A set of vcpus that several threads change and read at once: FreeBSD's cpuset_t with
//! atomic bits (VM_GET_CPUS copies it out).

use core::sync::atomic::{AtomicU64, Ordering};

use vmm_core::types::VcpuId;

/// CPU_SETSIZE of FreeBSD 15, which bounds the vcpus of a VM.
pub const CPU_SETSIZE: usize = 1024;

const WORDS: usize = CPU_SETSIZE / 64;

/// One bit per vcpu.
pub struct CpuSet {
    words: [AtomicU64; WORDS],
}

impl CpuSet {
    pub const fn new() -> Self {
        Self {
            words: [const { AtomicU64::new(0) }; WORDS],
        }
    }

    pub fn contains(&self, id: VcpuId) -> bool {
        self.words[id.index() / 64].load(Ordering::SeqCst) & bit(id) != 0
    }

    /// Whether it was absent before.
    pub fn insert(&self, id: VcpuId) -> bool {
        self.words[id.index() / 64].fetch_or(bit(id), Ordering::SeqCst) & bit(id) == 0
    }

    /// Whether it was present before.
    pub fn remove(&self, id: VcpuId) -> bool {
        self.words[id.index() / 64].fetch_and(!bit(id), Ordering::SeqCst) & bit(id) != 0
    }

    pub fn clear(&self) {
        for word in &self.words {
            word.store(0, Ordering::SeqCst);
        }
    }

    /// Becomes what `other` is.
    pub fn copy_from(&self, other: &Self) {
        for (to, from) in self.words.iter().zip(&other.words) {
            to.store(from.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    /// Whether both hold the same vcpus.
    pub fn same_as(&self, other: &Self) -> bool {
        self.words
            .iter()
            .zip(&other.words)
            .all(|(a, b)| a.load(Ordering::SeqCst) == b.load(Ordering::SeqCst))
    }

    /// The bytes of a cpuset_t.
    pub fn to_bytes(&self) -> [u8; CPU_SETSIZE / 8] {
        let mut bytes = [0; CPU_SETSIZE / 8];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(&self.words) {
            chunk.copy_from_slice(&word.load(Ordering::SeqCst).to_le_bytes());
        }
        bytes
    }
}

impl Default for CpuSet {
    fn default() -> Self {
        Self::new()
    }
}

fn bit(id: VcpuId) -> u64 {
    1 << (id.index() % 64)
}
