//! External interrupts: each is counted, its place in the order noted, and its EOI given.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::apic;

static COUNTS: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
/// The vectors that came, a byte each, the latest in the lowest.
static ORDER: AtomicU64 = AtomicU64::new(0);
/// Where the last one interrupted.
static RIP: AtomicU64 = AtomicU64::new(0);
/// ISR held the vector when its handler began, for every one of them.
static IN_SERVICE: AtomicU32 = AtomicU32::new(1);

/// Vectors of the 8259s; their EOI is another.
pub const PIC_BASE: u8 = 0x20;
pub const PIC_VECTORS: u8 = 16;

/// Called by the stubs.
pub fn arrived(vector: u8, rip: u64) {
    COUNTS[usize::from(vector)].fetch_add(1, Ordering::Relaxed);
    let order = ORDER.load(Ordering::Relaxed) << 8 | u64::from(vector);
    ORDER.store(order, Ordering::Relaxed);
    RIP.store(rip, Ordering::Relaxed);
    if vector.wrapping_sub(PIC_BASE) < PIC_VECTORS {
        if vector >= PIC_BASE + 8 {
            crate::cpu::outb(0xa0, 0x20);
        }
        crate::cpu::outb(0x20, 0x20);
        return;
    }
    if !apic::in_service(vector) {
        IN_SERVICE.store(0, Ordering::Relaxed);
    }
    apic::write(apic::EOI, 0);
}

/// How often the vector has come.
pub fn count(vector: u8) -> u32 {
    COUNTS[usize::from(vector)].load(Ordering::Relaxed)
}

/// The last eight vectors, the latest in the lowest byte; and forgets them.
pub fn take_order() -> u64 {
    ORDER.swap(0, Ordering::Relaxed)
}

pub fn last_rip() -> u64 {
    RIP.load(Ordering::Relaxed)
}

pub fn all_were_in_service() -> bool {
    IN_SERVICE.load(Ordering::Relaxed) != 0
}
