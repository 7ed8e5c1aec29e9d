//! What each MSR does for a guest: one table ([`POLICY`]) for the MSR bitmap and for the
//! exits, and the values of those that are emulated ([`MsrState`]).
//!
//! An MSR that is not in the table goes to userland (VM_EXITCODE_RDMSR, _WRMSR), where
//! bhyve ignores it or injects #GP. Numbers and meanings: SDM vol. 4.

use crate::types::VcpuId;

/// What a RDMSR or WRMSR that exited comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MsrAnswer {
    /// Of a read: for EDX:EAX.
    Value(u64),
    /// Of a write: nothing more to do.
    Done,
    /// Of a write to the TSC or TSC_ADJUST: the vcpu's TSC offset (guest TSC = host TSC +
    /// offset, wrapping) becomes this.
    TscOffset(u64),
    /// #GP(0) into the guest.
    GeneralProtection,
    /// To userland.
    Userland,
    /// The MSR lives in the VMCS or in the CPU and the table passes it through, yet this
    /// access exited: read or write it where it is, with the checks of [`write_valid`].
    Hardware,
}

/// What the emulation depends on besides its own state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsrContext {
    pub vcpu: VcpuId,
    /// The guest's TSC now.
    pub guest_tsc: u64,
    /// Its TSC offset now.
    pub tsc_offset: u64,
    /// RDTSCP or RDPID is on for the vcpu: TSC_AUX exists.
    pub tsc_aux: bool,
}
