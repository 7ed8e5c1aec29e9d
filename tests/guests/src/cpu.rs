//! Instructions that exit, with counts of those that always do, so that a program can say
//! what the host's statistics must show.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// How often this program has executed what always exits.
pub static IO: AtomicU64 = AtomicU64::new(0);
pub static CPUID: AtomicU64 = AtomicU64::new(0);

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

macro_rules! port_access {
    ($in:ident, $out:ident, $ty:ty, $inst_in:literal, $inst_out:literal, $reg:tt) => {
        pub fn $in(port: u16) -> $ty {
            let value: $ty;
            count(&IO);
            // SAFETY: the guest owns its ports; reading one has no effect on memory.
            unsafe { asm!($inst_in, out($reg) value, in("dx") port, options(nomem, nostack)) };
            value
        }

        pub fn $out(port: u16, value: $ty) {
            count(&IO);
            // SAFETY: as for reading.
            unsafe { asm!($inst_out, in("dx") port, in($reg) value, options(nomem, nostack)) };
        }
    };
}

port_access!(inb, outb, u8, "in al, dx", "out dx, al", "al");
port_access!(inw, outw, u16, "in ax, dx", "out dx, ax", "ax");
port_access!(inl, outl, u32, "in eax, dx", "out dx, eax", "eax");

/// EAX, EBX, ECX, EDX.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    count(&CPUID);
    let r = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// # Safety
/// The MSR exists, or an exception is expected.
pub unsafe fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// # Safety
/// The MSR takes the value, and this program goes on with it; or an exception is expected.
pub unsafe fn wrmsr(msr: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack));
    }
}

pub fn rdtsc() -> u64 {
    // SAFETY: CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

pub fn halt() {
    // SAFETY: waits for an interrupt; nothing else happens.
    unsafe { asm!("hlt", options(nomem, nostack)) };
}

/// Interrupts on for one instruction: what waits is taken before this returns.
pub fn take_interrupts() {
    // SAFETY: the handlers of this program's interrupts may run at any point.
    unsafe { asm!("sti", "nop", "cli") };
}

/// Sleeps with interrupts on until one has been taken, and turns them off again.
pub fn wait_for_interrupt() {
    // SAFETY: as above; nothing comes between STI and HLT.
    unsafe { asm!("sti", "hlt", "cli") };
}
