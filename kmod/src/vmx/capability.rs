//! Capabilities of a vcpu (VM_GET_CAPABILITY, VM_SET_CAPABILITY): which controls they turn,
//! and whether the CPU has them. Where bhyve's vmm answers ENOENT on Intel, so does this.

use vmm_core::types::{Errno, Vector};
use vmm_core::vcpu::Capability;
use vmm_core::vmx::caps::Features;
use vmm_core::vmx::controls::{Proc2Controls, ProcControls};
use vmm_core::vmx::field;

use super::backend::Backend;
use super::vcpu::{Vcpu, VtxVcpu};

/// What a capability is made of.
enum Means {
    /// A primary processor-based control.
    Proc(ProcControls),
    /// A secondary processor-based control.
    Proc2(Proc2Controls),
    /// A bit of the exception bitmap.
    Exception(Vector),
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
        // The debugger uses the monitor trap flag; hiding RFLAGS.TF would need exits on
        // PUSHF, which VT-x has not.
        Capability::RflagsTf => Err(Errno::ENOENT),
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
            Means::Flag => {}
        }
        let bit = 1 << cap as u32;
        vcpu.capabilities = vcpu.capabilities & !bit | if on { bit } else { 0 };
    });
    Ok(())
}
