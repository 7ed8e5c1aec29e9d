//! Capabilities of a vcpu (VM_GET_CAPABILITY, VM_SET_CAPABILITY): which controls they turn,
//! and whether the CPU has them. Where bhyve's vmm answers ENOENT on Intel, so does this,
//! with one exception: RFLAGS.TF steps where the monitor trap flag is missing.

use vmm_core::types::{Errno, Vector};
use vmm_core::vcpu::Capability;
use vmm_core::vmx::caps::Features;
use vmm_core::vmx::controls::{Proc2Controls, ProcControls};
use vmm_core::vmx::field;

use super::backend::Backend;
use super::vcpu::{Blocking, Vcpu, VtxVcpu};
use super::vmcs::LoadedVmcs;

const RFLAGS_TF: u64 = 1 << 8;

/// What a capability is made of.
enum Means {
    /// A primary processor-based control.
    Proc(ProcControls),
    /// A secondary processor-based control.
    Proc2(Proc2Controls),
    /// A bit of the exception bitmap.
    Exception(Vector),
    /// RFLAGS.TF with #DB exiting.
    TrapFlag,
    /// The capability's bit in the vcpu is all there is to it.
    Flag,
}

/// ENOENT if this CPU or VT-x as such has it not.
fn means(backend: &Backend, cap: Capability) -> Result<Means, Errno> {
    let needs = |feature, means| {
        if backend.caps.has(feature) {
            Ok(means)
        } else {
            Err(Errno::ENOENT)
        }
    };
    match cap {
        // HLT always exits, and the vcpu sleeps in the kernel: what bhyve's -H asks for.
        Capability::HaltExit => Ok(Means::Flag),
        Capability::MtrapExit => needs(
            Features::MONITOR_TRAP_FLAG,
            Means::Proc(ProcControls::MONITOR_TRAP_FLAG),
        ),
        Capability::PauseExit => needs(
            Features::PAUSE_EXITING,
            Means::Proc(ProcControls::PAUSE_EXITING),
        ),
        Capability::UnrestrictedGuest => Ok(Means::Proc2(Proc2Controls::UNRESTRICTED_GUEST)),
        Capability::EnableInvpcid => needs(
            Features::INVPCID,
            Means::Proc2(Proc2Controls::ENABLE_INVPCID),
        ),
        Capability::BptExit => Ok(Means::Exception(Vector::BP)),
        Capability::Rdpid if backend.rdpid => Ok(Means::Flag),
        Capability::Rdtscp if backend.rdtscp => Ok(Means::Flag),
        Capability::Rdpid | Capability::Rdtscp => Err(Errno::ENOENT),
        Capability::IpiExit | Capability::MaskHwintr => Ok(Means::Flag),
        // A PUSHF that is stepped shows the flag: VT-x has no exit for it, as AMD has.
        Capability::RflagsTf => Ok(Means::TrapFlag),
    }
}

/// Whether it is on.
pub fn vmx_getcap(vcpu: &Vcpu, cap: Capability) -> Result<bool, Errno> {
    if cap == Capability::MaskHwintr {
        return Err(Errno::ENOENT); // can only be set
    }
    means(&vcpu.vm.backend, cap)?;
    Ok(vcpu.capability(cap))
}

/// Turns it on or off.
pub fn vmx_setcap(this: &mut VtxVcpu, cap: Capability, on: bool) -> Result<(), Errno> {
    if matches!(cap, Capability::Rdpid | Capability::Rdtscp) {
        return Err(Errno::ENOENT); // as the CPU has them, for all vcpus
    }
    let means = means(&this.vcpu.vm.backend, cap)?;
    this.with_vmcs(|vmcs, vcpu| {
        let controls = &mut vcpu.controls;
        match means {
            Means::Proc(control) => {
                controls.proc.set(control, on);
                vmcs.write(
                    field::PRIMARY_PROCESSOR_BASED_CONTROLS,
                    controls.proc.bits(),
                );
            }
            Means::Proc2(control) => {
                controls.proc2.set(control, on);
                vmcs.write(
                    field::SECONDARY_PROCESSOR_BASED_CONTROLS,
                    controls.proc2.bits(),
                );
            }
            Means::Exception(vector) => {
                let bit = 1 << vector.0;
                controls.exception_bitmap =
                    controls.exception_bitmap & !bit | if on { bit } else { 0 };
                vmcs.write(field::EXCEPTION_BITMAP, controls.exception_bitmap);
            }
            Means::TrapFlag => set_trap_flag(vmcs, vcpu, on),
            Means::Flag => {}
        }
        // Whether interrupts are held back depends on it.
        vcpu.interrupts.look = true;
        let bit = 1 << cap as u32;
        vcpu.capabilities = vcpu.capabilities & !bit | if on { bit } else { 0 };
    });
    Ok(())
}

/// Takes RFLAGS.TF from the guest, or gives it back what it had. The run decides about
/// #DB's bit in the exception bitmap (`Run::own_debug_regs`).
fn set_trap_flag(vmcs: &mut LoadedVmcs<'_>, vcpu: &mut Vcpu, on: bool) {
    let rflags = vmcs.read(field::GUEST_RFLAGS);
    let tf = match (on, vcpu.traced_tf) {
        (true, own) => {
            vcpu.traced_tf = own.or(Some(rflags & RFLAGS_TF != 0));
            true
        }
        (false, Some(own)) => {
            vcpu.traced_tf = None;
            own
        }
        (false, None) => return,
    };
    let rflags = rflags & !RFLAGS_TF | if tf { RFLAGS_TF } else { 0 };
    vmcs.write(field::GUEST_RFLAGS, rflags);
    // VM entry doesn't take TF in the shadow of STI or MOV SS, unless a trap is pending
    // (27.3.1.5), which would then come instead of a step.
    Blocking::clear_shadow(vmcs);
}
