//! What CPUID shows the guest (SDM vol. 2A, CPUID; vol. 3C, 26.1.2: it always exits).
//!
//! The policy is taken once per VM from a host CPU, so that a guest sees the same on every
//! CPU it runs on; what depends on the vcpu at the moment comes with each call. Which bits
//! of which leaf get through, and why, is the table in [`policy`].

pub mod policy;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::ioctl::Topology;
use crate::types::VcpuId;

/// The CPU whose CPUID a policy starts from.
pub trait HostCpuid {
    /// The CPUID instruction itself.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidRegs;
    /// XCR0 as the host kernel uses it; 0 when CR4.OSXSAVE is clear.
    fn xcr0(&self) -> u64;
    /// Whether the TSC is invariant and in step on all CPUs of the host.
    fn tsc_invariant(&self) -> bool;
}

/// The four registers of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuidRegs {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// What an answer depends on besides the policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidContext {
    /// Its number is its APIC id.
    pub vcpu: VcpuId,
    /// CR4.OSXSAVE as the guest set it.
    pub cr4_osxsave: bool,
    /// The guest's XCR0.
    pub xcr0: u64,
    /// VM_SET_X2APIC_STATE.
    pub x2apic: bool,
    /// Capabilities that are on for the vcpu.
    pub invpcid: bool,
    pub rdpid: bool,
    pub rdtscp: bool,
}
