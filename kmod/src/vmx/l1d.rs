//! The L1 terminal fault (Intel, "Deep Dive: L1 Terminal Fault"): on CPUs that have it a
//! guest can read, by way of page-table entries of its own that are not present, whatever the
//! host has left in the L1 data cache. So the cache is emptied before each VM entry.
//!
//! Microcode since August 2018 has a command for that, IA32_FLUSH_CMD. Without it the cache
//! is filled with other data, which costs a thousand loads for each entry.

use core::arch::asm;
use core::cell::UnsafeCell;

use super::cpu;
use crate::host::cpu::mitigations_off;
use crate::host::time::tunable;

/// What is done before each VM entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L1dFlush {
    Nothing,
    /// IA32_FLUSH_CMD
    Command,
    /// Reading [`FILL`].
    Fill,
}

const IA32_ARCH_CAPABILITIES: u32 = 0x10a;
/// The CPU doesn't have the fault, or a VM entry need not flush.
const RDCL_NO: u64 = 1 << 0;
const SKIP_L1DFL_VMENTRY: u64 = 1 << 3;
const IA32_FLUSH_CMD: u32 = 0x10b;
const L1D_FLUSH: u64 = 1 << 0;

/// Twice the size of the largest cache with the fault, as Intel's guidance has it.
const FILL_SIZE: usize = 64 << 10;

#[repr(C, align(4096))]
struct Filling(UnsafeCell<[u8; FILL_SIZE]>);

// SAFETY: nobody writes it.
unsafe impl Sync for Filling {}

/// Not a constant, whose pages the compiler might think it knows.
static FILL: Filling = Filling(UnsafeCell::new([0; FILL_SIZE]));

impl L1dFlush {
    /// What this CPU needs, and the tunables leave of it.
    pub fn choose() -> Self {
        let leaf_7 = if cpu::cpuid(0, 0).eax >= 7 {
            cpu::cpuid(7, 0).edx
        } else {
            0
        };
        let has_capabilities = leaf_7 & 1 << 29 != 0;
        let has_command = leaf_7 & 1 << 28 != 0;
        let capabilities = if has_capabilities {
            // SAFETY: CPUID shows the MSR.
            unsafe { cpu::rdmsr(IA32_ARCH_CAPABILITIES) }
        } else {
            0
        };
        let affected = capabilities & (RDCL_NO | SKIP_L1DFL_VMENTRY) == 0;
        let wanted = affected && !mitigations_off();
        if tunable(c"vmx.l1d_flush", wanted.into()) == 0 {
            Self::Nothing
        } else if tunable(c"vmx.l1d_flush_sw", (!has_command).into()) != 0 {
            Self::Fill
        } else if has_command {
            Self::Command
        } else {
            Self::Nothing
        }
    }

    /// Interrupts are off, and a VM entry follows.
    #[inline(always)]
    pub fn run(self) {
        match self {
            Self::Nothing => {}
            // SAFETY: CPUID shows the MSR (choose); the data are in memory as well.
            Self::Command => unsafe { cpu::wrmsr(IA32_FLUSH_CMD, L1D_FLUSH) },
            Self::Fill => fill(),
        }
    }
}

/// First a load from each page, for the TLB, and then one from each line.
#[cold]
fn fill() {
    // SAFETY: reads the whole of FILL and nothing else.
    unsafe {
        asm!(
            "xor {at:e}, {at:e}",
            "2: movzx {byte:e}, byte ptr [{fill} + {at}]",
            "add {at:e}, 4096",
            "cmp {at:e}, {size}",
            "jne 2b",
            "lfence",
            "xor {at:e}, {at:e}",
            "3: movzx {byte:e}, byte ptr [{fill} + {at}]",
            "add {at:e}, 64",
            "cmp {at:e}, {size}",
            "jne 3b",
            "lfence",
            fill = in(reg) FILL.0.get(),
            at = out(reg) _,
            byte = out(reg) _,
            size = const FILL_SIZE,
            options(nostack, readonly),
        );
    }
}
