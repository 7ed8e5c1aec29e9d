//! VT-x. Reading order: `percpu` and `backend` (load: VMX operation on every CPU), `vminit`
//! (a VM and its vcpus), `vcpu`, `run` (the loop), `switch` (the world switch in assembly),
//! `inject` (what an entry delivers), `exit` and its families, `apicv` (the local APIC in the CPU), `regs` and `capability` (what ioctls see of a vcpu at rest),
//! `fail` (why an entry failed). Below them: `vmcs`, `instr`, `cpu`.
//!
//! SDM chapters are those of the edition of 2023 and later, as in `vmm_core::vmx`.

#![allow(unsafe_code)]

mod apicv;
mod backend;
mod capability;
mod cpu;
mod cr;
mod debug;
mod exit;
mod exit_cr;
mod exit_event;
mod exit_io;
mod exit_memory;
mod exit_msr;
mod fail;
mod fpu;
mod host_state;
mod inject;
mod instr;
mod l1d;
mod msrs;
mod percpu;
mod regs;
mod run;
mod switch;
mod vcpu;
mod vmcs;
mod vminit;
mod vpid;

use alloc::boxed::Box;
use alloc::sync::Arc;

use vmm_core::cpu::cpuid::CpuidPolicy;
use vmm_core::types::Errno;

use crate::vm::ops::{EptSpace, Info, VmOps, VmmOps};

/// The backend's table (the seed's `vmm_ops_intel`).
pub static VMM_OPS_INTEL: VmmOpsIntel = VmmOpsIntel;

/// VT-x behind [`VmmOps`].
pub struct VmmOpsIntel;

impl VmmOps for VmmOpsIntel {
    fn name(&self) -> &'static str {
        "VT-x"
    }
    fn modinit(&self) -> Result<(), Errno> {
        backend::vmx_init()
    }
    fn modcleanup(&self) {
        backend::vmx_cleanup();
    }
    fn cpu_suspend(&self) {
        if let Ok(backend) = backend::backend() {
            backend.cpus.suspend();
        }
    }
    fn cpu_resume(&self) -> Result<(), Errno> {
        backend::backend()?.cpus.resume()
    }
    fn usable(&self) -> bool {
        !percpu::is_lost()
    }
    fn info(&self, index: usize) -> Option<Info> {
        backend::info(index)
    }
    fn cpuid_policy(&self) -> CpuidPolicy {
        backend::cpuid_policy()
    }
    fn vminit(&self, ept: Arc<EptSpace>) -> Result<Box<dyn VmOps>, Errno> {
        vminit::vmx_vminit(ept)
    }
}
