//! The VMCS (SDM vol. 3C, chapter 25) as two types. A [`ClearVmcs`] is memory: its launch
//! state is "clear" and no CPU has it active. [`ClearVmcs::load`] makes it current on this
//! CPU for the life of a [`LoadedVmcs`], the only type with fields to read and write; it
//! can't leave its CPU, and VMCLEAR at its end writes it back. So no VMCS stays active on
//! a CPU that its vcpu has left, and none has to be called back from there (25.11.1).

use core::marker::PhantomData;

use vmm_core::types::{Errno, Hpa};
use vmm_core::vmx::field::{Field, FieldWidth, VmcsField};

use super::instr;
use super::percpu::{HostCpus, PerCpu};
use crate::host::cpu::{Critical, critical};
use crate::host::mem::Pages;

/// A VMCS that no CPU uses.
pub struct ClearVmcs {
    page: Pages,
}

impl ClearVmcs {
    /// A VMCS all of whose fields are still undefined. Context: thread.
    pub fn new(revision_id: u32) -> Result<Self, Errno> {
        let mut page = Pages::new(1)?;
        page.bytes_mut()[..4].copy_from_slice(&revision_id.to_le_bytes());
        let vmcs = Self { page };
        let _critical = critical();
        // SAFETY: the module is in VMX operation on every CPU while a Backend exists, and
        // only it makes these; the page is new, so no CPU has it active.
        unsafe { instr::vmclear(vmcs.hpa()) }.expect("VMCLEAR of a new VMCS");
        Ok(vmcs)
    }

    /// Makes it current on this CPU.
    pub fn load<'a>(&'a mut self, critical: &'a Critical, cpus: &'a HostCpus) -> LoadedVmcs<'a> {
        let cpu = cpus.get(critical.cpu());
        cpu.claim_vmcs(self.hpa());
        // SAFETY: in VMX operation (as in new); the VMCS is clear, so active nowhere, and
        // the revision id is at its start.
        unsafe { instr::vmptrld(self.hpa()) }.expect("VMPTRLD of a clear VMCS");
        LoadedVmcs {
            vmcs: self,
            cpu,
            launched: false,
            _cpu: PhantomData,
        }
    }

    fn hpa(&self) -> Hpa {
        self.page.hpa()
    }
}

/// The current VMCS of this CPU.
pub struct LoadedVmcs<'a> {
    vmcs: &'a mut ClearVmcs,
    cpu: &'a PerCpu,
    launched: bool,
    // Current on one CPU: it must not be sent to another.
    _cpu: PhantomData<*mut ()>,
}

impl LoadedVmcs<'_> {
    /// Reads a field that this CPU has.
    #[inline(always)]
    pub fn read<W: FieldWidth>(&self, field: Field<W>) -> W::Value {
        // SAFETY: this VMCS is current.
        unsafe { instr::vmread(field) }
    }

    /// Writes a field that this CPU has.
    ///
    /// Safe because what a field could break is checked by VM entry or undone by the run
    /// loop, with the exception of the host-state area and of addresses: those are written
    /// by `vminit` and `host_state` only.
    #[inline(always)]
    pub fn write<W: FieldWidth>(&mut self, field: Field<W>, value: W::Value) {
        // SAFETY: this VMCS is current.
        unsafe { instr::vmwrite(field, value) }
    }

    /// Writes a field whose width is known to a table only.
    pub fn write_any(&mut self, field: VmcsField, value: u64) {
        // SAFETY: this VMCS is current.
        unsafe { instr::vmwrite_any(field, value) }
    }

    /// Reads any field, for explanations; `None` if this CPU has it not.
    pub fn read_any(&self, field: VmcsField) -> Option<u64> {
        // SAFETY: this VMCS is current.
        unsafe { instr::vmread_any(field) }
    }

    /// Whether VMLAUNCH has succeeded since the load: VMRESUME is next then (25.11.3).
    #[inline(always)]
    pub fn launched(&self) -> bool {
        self.launched
    }

    /// VMLAUNCH has succeeded.
    #[inline(always)]
    pub fn set_launched(&mut self) {
        self.launched = true;
    }

    /// What the module keeps about the CPU it is current on.
    pub fn host_cpu(&self) -> &PerCpu {
        self.cpu
    }
}

impl Drop for LoadedVmcs<'_> {
    fn drop(&mut self) {
        // SAFETY: active on this CPU only, which is in VMX operation.
        unsafe { instr::vmclear(self.vmcs.hpa()) }.expect("VMCLEAR of the current VMCS");
        self.cpu.release_vmcs(self.vmcs.hpa());
    }
}
