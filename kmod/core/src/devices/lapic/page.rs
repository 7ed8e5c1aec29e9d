//! The local APIC's registers in the layout that the CPU uses for them: the virtual-APIC
//! page (SDM vol. 3C, 30.1.1), register N at byte offset N.

use core::ops::Deref;
use core::sync::atomic::{AtomicU32, Ordering};

/// The 4 KiB page. Atomic, because a CPU with APIC virtualization writes it while the
/// guest runs. Register accesses of software are by whole 32-bit registers.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct ApicPage([AtomicU32; 1024]);

impl ApicPage {
    pub const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; 1024])
    }

    /// The register at that byte offset, a multiple of 4 below 4096.
    #[inline(always)]
    pub fn get(&self, offset: u16) -> u32 {
        self.0[usize::from(offset / 4)].load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub fn set(&self, offset: u16, value: u32) {
        self.0[usize::from(offset / 4)].store(value, Ordering::Relaxed);
    }
}

impl Default for ApicPage {
    fn default() -> Self {
        Self::new()
    }
}

/// Whoever holds the page: a box in tests, a page of its own in the module.
pub trait ApicMemory: Deref<Target = ApicPage> + Send + Sync {}
impl<T: Deref<Target = ApicPage> + Send + Sync> ApicMemory for T {}
