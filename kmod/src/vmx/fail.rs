//! Why a VM entry failed: the CPU's number in words, and the rules behind it as the software
//! entry check (`vmm_core::vmx::entry_check`) finds them in the VMCS. One run fails at most
//! once, so that a guest can't flood the log faster than userland lets it.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use vmm_core::exit::{EntryInst, ExitKind, VmExit, VmFail, VmxExit};
use vmm_core::vcpu::events::EventQueue;
use vmm_core::vmx::entry_check::{self, VmcsView};
use vmm_core::vmx::field::{self, VmcsField};
use vmm_core::vmx::instruction_error::{EntryFailure, InstructionError};
use vmm_core::vmx::reason::ExitReasonField;

use super::run::Run;
use super::switch::{VM_FAIL_INVALID, VMX_RETURN_LONGJMP, VMX_RETURN_VMLAUNCH};
use super::vcpu::VtxVcpu;
use super::vmcs::LoadedVmcs;
use crate::log_err;
use crate::vm::ops::RunEnv;

/// Broken rules that are logged; the first is usually the cause of the others.
const LOGGED: usize = 4;

/// A VM-instruction error in words.
pub fn write_instruction_error(f: &mut fmt::Formatter<'_>, raw: u32) -> fmt::Result {
    match InstructionError::from_raw(raw) {
        Ok(error) => write!(f, "{error}"),
        Err(unknown) => write!(f, "{unknown}"),
    }
}

/// Says in the log what the CPU said, and makes it an exit for userland. Context: critical.
pub fn entry_failure(run: &Run<'_, '_>, entered: u32, reason: ExitReasonField) -> VmxExit {
    if entered == VMX_RETURN_LONGJMP {
        state_failure(run, reason)
    } else {
        instruction_failure(run, entered)
    }
}

/// The entry failed while it loaded the guest (27.8): an exit with bit 31.
fn state_failure(run: &Run<'_, '_>, reason: ExitReasonField) -> VmxExit {
    let qualification = run.vmcs.read(field::EXIT_QUALIFICATION);
    let id = run.vcpu.id.0;
    match reason
        .basic()
        .ok()
        .and_then(|r| EntryFailure::decode(r, qualification))
    {
        Some(failure) => {
            log_err!("vcpu {id}: {reason}, qualification {qualification:#x}: {failure}")
        }
        None => log_err!("vcpu {id}: {reason}, qualification {qualification:#x}"),
    }
    VmxExit::Exit {
        reason: reason.0,
        qualification,
    }
}

/// VMLAUNCH or VMRESUME failed: controls, host state, or the VMCS itself.
fn instruction_failure(run: &Run<'_, '_>, entered: u32) -> VmxExit {
    let (inst, name) = if entered == VMX_RETURN_VMLAUNCH {
        (EntryInst::Vmlaunch, "VMLAUNCH")
    } else {
        (EntryInst::Vmresume, "VMRESUME")
    };
    let id = run.vcpu.id.0;
    let status = if run.vcpu.ctx.inst_fail_status == VM_FAIL_INVALID {
        log_err!("vcpu {id}: {name} failed: VMfailInvalid, there is no current VMCS");
        VmFail::Invalid
    } else {
        let error = run.vmcs.read(field::VM_INSTRUCTION_ERROR);
        match InstructionError::from_raw(error) {
            Ok(error) => log_err!("vcpu {id}: {name} failed: {error}"),
            Err(unknown) => log_err!("vcpu {id}: {name} failed: {unknown}"),
        }
        VmFail::Valid(error)
    };
    VmxExit::EntryFailed { inst, status }
}

/// What a failed entry did not deliver waits for the next one.
pub fn keep_event(vmcs: &mut LoadedVmcs<'_>, events: &mut EventQueue) {
    let info = vmcs.read(field::ENTRY_INTERRUPTION_INFO);
    vmcs.write(field::ENTRY_INTERRUPTION_INFO, 0);
    let code = vmcs.read(field::ENTRY_EXCEPTION_ERROR_CODE);
    let raw = u64::from(info) | u64::from(code) << 32;
    // An event that no CPU delivers may be why the entry failed: it is dropped.
    let _ = events.set_exit_intinfo(raw);
}

/// Whether no guest ran.
pub fn is_entry_failure(exit: &VmExit) -> bool {
    match exit.kind {
        ExitKind::Vmx(VmxExit::EntryFailed { .. }) => true,
        ExitKind::Vmx(VmxExit::Exit { reason, .. }) => ExitReasonField(reason).entry_failure(),
        _ => false,
    }
}

/// A VMCS as it was, to be checked where memory can be allocated.
struct Snapshot(Vec<u64>);

impl VmcsView for Snapshot {
    fn read(&self, field: VmcsField) -> u64 {
        VmcsField::ALL
            .binary_search(&field)
            .map_or(0, |at| self.0[at])
    }
}

/// Names the rules that the VMCS of a failed entry breaks, in the log. Context: thread.
pub fn explain(this: &mut VtxVcpu, env: &mut RunEnv<'_>) {
    let mut values = vec![0; VmcsField::ALL.len()];
    this.with_vmcs(|vmcs, _| {
        for (value, &field) in values.iter_mut().zip(VmcsField::ALL) {
            *value = vmcs.read_any(field).unwrap_or(0);
        }
        keep_event(vmcs, env.events);
    });
    let id = this.vcpu.id.0;
    let broken = entry_check::check(&Snapshot(values), &this.vcpu.vm.backend.caps);
    for violation in broken.iter().take(LOGGED) {
        log_err!("vcpu {id}: {violation}");
    }
    match broken.len() {
        0 => log_err!("vcpu {id}: the entry check in software finds no rule broken"),
        n if n > LOGGED => log_err!("vcpu {id}: and {} more rules", n - LOGGED),
        _ => {}
    }
}
