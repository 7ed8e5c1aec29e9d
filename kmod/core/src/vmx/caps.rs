//! What VT-x the CPU has (SDM vol. 3D, appendix A), and whether it is enough: the check
//! at load time. [`CapabilityMsrs`] are the raw values, read through a
//! [`CapabilitySource`]; [`VmxCaps::check`] makes them into what the rest of the module
//! asks for, or into a [`LoadError`] that names what is missing.

use super::controls::{Allowed, ControlKind, Controls, Proc2Controls, ProcControls, Setting};
pub use super::features::Features;
use super::features::ept_vpid;
pub use super::load_error::LoadError;

/// MSR numbers (SDM vol. 4, table 2-2).
pub mod msr {
    pub const IA32_FEATURE_CONTROL: u32 = 0x3a;
    pub const IA32_VMX_BASIC: u32 = 0x480;
    pub const IA32_VMX_PINBASED_CTLS: u32 = 0x481;
    pub const IA32_VMX_PROCBASED_CTLS: u32 = 0x482;
    pub const IA32_VMX_EXIT_CTLS: u32 = 0x483;
    pub const IA32_VMX_ENTRY_CTLS: u32 = 0x484;
    pub const IA32_VMX_MISC: u32 = 0x485;
    pub const IA32_VMX_CR0_FIXED0: u32 = 0x486;
    pub const IA32_VMX_CR0_FIXED1: u32 = 0x487;
    pub const IA32_VMX_CR4_FIXED0: u32 = 0x488;
    pub const IA32_VMX_CR4_FIXED1: u32 = 0x489;
    pub const IA32_VMX_VMCS_ENUM: u32 = 0x48a;
    pub const IA32_VMX_PROCBASED_CTLS2: u32 = 0x48b;
    pub const IA32_VMX_EPT_VPID_CAP: u32 = 0x48c;
    pub const IA32_VMX_TRUE_PINBASED_CTLS: u32 = 0x48d;
    pub const IA32_VMX_TRUE_PROCBASED_CTLS: u32 = 0x48e;
    pub const IA32_VMX_TRUE_EXIT_CTLS: u32 = 0x48f;
    pub const IA32_VMX_TRUE_ENTRY_CTLS: u32 = 0x490;
    pub const IA32_VMX_VMFUNC: u32 = 0x491;
}

/// IA32_FEATURE_CONTROL bits.
const FEATURE_CONTROL_LOCK: u64 = 1 << 0;
const FEATURE_CONTROL_VMX_OUTSIDE_SMX: u64 = 1 << 2;
/// CPUID.1:ECX.VMX.
const CPUID_1_ECX_VMX: u32 = 1 << 5;
/// CR4.VMXE.
pub const CR4_VMXE: u64 = 1 << 13;

/// The CPU that [`CapabilityMsrs::read`] asks. All calls are about the CPU that executes.
pub trait CapabilitySource {
    fn rdmsr(&self, msr: u32) -> u64;
    /// ECX of CPUID leaf 1.
    fn cpuid_1_ecx(&self) -> u32;
    /// MAXPHYADDR: EAX bits 7:0 of CPUID leaf 8000_0008H.
    fn max_phys_addr_width(&self) -> u8;
    fn cr0(&self) -> u64;
    fn cr4(&self) -> u64;
}

/// The raw values of one CPU. An MSR that the CPU does not have is 0 here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CapabilityMsrs {
    pub cpuid_1_ecx: u32,
    pub max_phys_addr_width: u8,
    /// The host's CR0 and CR4 as they are, to be compared with the fixed bits.
    pub cr0: u64,
    pub cr4: u64,
    pub feature_control: u64,
    pub basic: u64,
    pub pinbased: u64,
    pub procbased: u64,
    pub exit: u64,
    pub entry: u64,
    pub misc: u64,
    pub cr0_fixed0: u64,
    pub cr0_fixed1: u64,
    pub cr4_fixed0: u64,
    pub cr4_fixed1: u64,
    pub vmcs_enum: u64,
    pub procbased2: u64,
    pub ept_vpid_cap: u64,
    pub true_pinbased: u64,
    pub true_procbased: u64,
    pub true_exit: u64,
    pub true_entry: u64,
    pub vmfunc: u64,
}

impl CapabilityMsrs {
    /// Reads them. An MSR is read only after another value said that it exists: RDMSR of a
    /// missing one is a #GP in the host's kernel.
    pub fn read(cpu: &dyn CapabilitySource) -> Self {
        let mut m = Self {
            cpuid_1_ecx: cpu.cpuid_1_ecx(),
            max_phys_addr_width: cpu.max_phys_addr_width(),
            cr0: cpu.cr0(),
            cr4: cpu.cr4(),
            ..Self::default()
        };
        if m.cpuid_1_ecx & CPUID_1_ECX_VMX == 0 {
            return m;
        }
        m.feature_control = cpu.rdmsr(msr::IA32_FEATURE_CONTROL);
        m.basic = cpu.rdmsr(msr::IA32_VMX_BASIC);
        m.pinbased = cpu.rdmsr(msr::IA32_VMX_PINBASED_CTLS);
        m.procbased = cpu.rdmsr(msr::IA32_VMX_PROCBASED_CTLS);
        m.exit = cpu.rdmsr(msr::IA32_VMX_EXIT_CTLS);
        m.entry = cpu.rdmsr(msr::IA32_VMX_ENTRY_CTLS);
        m.misc = cpu.rdmsr(msr::IA32_VMX_MISC);
        m.cr0_fixed0 = cpu.rdmsr(msr::IA32_VMX_CR0_FIXED0);
        m.cr0_fixed1 = cpu.rdmsr(msr::IA32_VMX_CR0_FIXED1);
        m.cr4_fixed0 = cpu.rdmsr(msr::IA32_VMX_CR4_FIXED0);
        m.cr4_fixed1 = cpu.rdmsr(msr::IA32_VMX_CR4_FIXED1);
        m.vmcs_enum = cpu.rdmsr(msr::IA32_VMX_VMCS_ENUM);
        if m.has_true_controls() {
            m.true_pinbased = cpu.rdmsr(msr::IA32_VMX_TRUE_PINBASED_CTLS);
            m.true_procbased = cpu.rdmsr(msr::IA32_VMX_TRUE_PROCBASED_CTLS);
            m.true_exit = cpu.rdmsr(msr::IA32_VMX_TRUE_EXIT_CTLS);
            m.true_entry = cpu.rdmsr(msr::IA32_VMX_TRUE_ENTRY_CTLS);
        }
        let proc = m.allowed(ControlKind::Proc);
        if proc.can_set(ProcControls::ACTIVATE_SECONDARY_CONTROLS.bits()) {
            m.procbased2 = cpu.rdmsr(msr::IA32_VMX_PROCBASED_CTLS2);
        }
        let proc2 = m.allowed(ControlKind::Proc2);
        if proc2.can_set(Proc2Controls::ENABLE_EPT.bits())
            || proc2.can_set(Proc2Controls::ENABLE_VPID.bits())
        {
            m.ept_vpid_cap = cpu.rdmsr(msr::IA32_VMX_EPT_VPID_CAP);
        }
        if proc2.can_set(Proc2Controls::ENABLE_VM_FUNCTIONS.bits()) {
            m.vmfunc = cpu.rdmsr(msr::IA32_VMX_VMFUNC);
        }
        m
    }

    /// IA32_VMX_BASIC bit 55: the TRUE variants exist and decide.
    pub const fn has_true_controls(&self) -> bool {
        self.basic & 1 << 55 != 0
    }

    /// What the CPU allows for one kind of controls, by the TRUE MSR if there is one.
    pub const fn allowed(&self, kind: ControlKind) -> Allowed {
        let t = self.has_true_controls();
        let msr = match (kind, t) {
            (ControlKind::Pin, false) => self.pinbased,
            (ControlKind::Pin, true) => self.true_pinbased,
            (ControlKind::Proc, false) => self.procbased,
            (ControlKind::Proc, true) => self.true_procbased,
            (ControlKind::Proc2, _) => self.procbased2,
            (ControlKind::Exit, false) => self.exit,
            (ControlKind::Exit, true) => self.true_exit,
            (ControlKind::Entry, false) => self.entry,
            (ControlKind::Entry, true) => self.true_entry,
        };
        Allowed {
            msr,
            true_variant: t,
        }
    }
}

/// IA32_FEATURE_CONTROL (SDM vol. 3C, 24.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FeatureControl {
    /// Locked with VMX on: VMXON is possible.
    Enabled,
    /// Not locked: VMXON faults until this value is written to the MSR on that CPU. The
    /// module may do that; it stays so until the CPU is reset.
    Unlocked { write: u64 },
    /// Locked with VMX outside SMX off.
    DisabledByFirmware,
}

impl FeatureControl {
    /// From the MSR's value.
    pub const fn decode(raw: u64) -> Self {
        let vmx = raw & FEATURE_CONTROL_VMX_OUTSIDE_SMX != 0;
        if raw & FEATURE_CONTROL_LOCK == 0 {
            Self::Unlocked {
                write: raw | FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX_OUTSIDE_SMX,
            }
        } else if vmx {
            Self::Enabled
        } else {
            Self::DisabledByFirmware
        }
    }
}

/// What the module knows about the CPU once it is good enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmxCaps {
    /// First word of a VMXON region and of each VMCS (IA32_VMX_BASIC bits 30:0).
    pub revision_id: u32,
    /// Bytes of a VMXON region and of a VMCS, at most 4096.
    pub region_size: u32,
    /// IA32_VMX_BASIC bit 48: VMXON region, VMCS and what they point to must lie below 4 GiB.
    pub addresses_32bit: bool,
    pub feature_control: FeatureControl,
    pub features: Features,
    /// The control fields of a new vcpu.
    pub controls: Controls,
    /// IA32_VMX_MISC bits 4:0: the preemption timer counts once per 2^n TSC ticks.
    pub preemption_timer_shift: u8,
    /// IA32_VMX_MISC bits 24:16.
    pub cr3_target_values: u16,
    /// MAXPHYADDR.
    pub max_phys_addr_width: u8,
    /// The raw values, for the entry checker and for logs.
    pub msrs: CapabilityMsrs,
}

impl VmxCaps {
    /// Whether the CPU has all of `features`.
    pub const fn has(&self, features: Features) -> bool {
        self.features.contains(features)
    }
}

impl VmxCaps {
    /// Decides whether vmm_rs can run on the CPU that `m` was read from.
    pub fn check(m: &CapabilityMsrs) -> Result<Self, LoadError> {
        if m.cpuid_1_ecx & CPUID_1_ECX_VMX == 0 {
            return Err(LoadError::NoVmx);
        }
        let feature_control = FeatureControl::decode(m.feature_control);
        if feature_control == FeatureControl::DisabledByFirmware {
            return Err(LoadError::DisabledByFirmware {
                feature_control: m.feature_control,
            });
        }
        if m.cr4 & CR4_VMXE != 0 {
            return Err(LoadError::AlreadyInVmxOperation);
        }
        let region_size = (m.basic >> 32) as u32 & 0x1fff;
        if region_size == 0 || region_size > 4096 {
            return Err(LoadError::VmcsRegionSize { bytes: region_size });
        }
        let memory_type = (m.basic >> 50) as u8 & 0xf;
        if memory_type != MEMORY_TYPE_WB {
            return Err(LoadError::VmcsMemoryType { memory_type });
        }
        check_ept(m)?;
        let controls = Controls::compute(m)?;
        check_fixed_bits(m)?;
        Ok(Self {
            revision_id: m.basic as u32 & 0x7fff_ffff,
            region_size,
            addresses_32bit: m.basic & 1 << 48 != 0,
            feature_control,
            features: Features::of(m),
            controls,
            preemption_timer_shift: m.misc as u8 & 0x1f,
            cr3_target_values: (m.misc >> 16) as u16 & 0x1ff,
            max_phys_addr_width: m.max_phys_addr_width,
            msrs: *m,
        })
    }

    /// Checks that another CPU of the host offers the same: vcpus move between CPUs with
    /// the VMCS that was computed for the first.
    pub fn check_same(&self, this: &CapabilityMsrs) -> Result<(), LoadError> {
        if this.cr4 & CR4_VMXE != 0 {
            return Err(LoadError::AlreadyInVmxOperation);
        }
        if FeatureControl::decode(this.feature_control) == FeatureControl::DisabledByFirmware {
            return Err(LoadError::DisabledByFirmware {
                feature_control: this.feature_control,
            });
        }
        for ((msr, first), (_, this)) in comparable(&self.msrs).into_iter().zip(comparable(this)) {
            if first != this {
                return Err(LoadError::CpusDiffer { msr, first, this });
            }
        }
        check_fixed_bits(this)
    }
}

/// Memory type write-back, in IA32_VMX_BASIC and in EPTP alike.
const MEMORY_TYPE_WB: u8 = 6;

fn check_ept(m: &CapabilityMsrs) -> Result<(), LoadError> {
    let proc2 = m.allowed(ControlKind::Proc2);
    if !proc2.can_set(Proc2Controls::ENABLE_EPT.bits()) {
        return Err(LoadError::NoEpt);
    }
    if !proc2.can_set(Proc2Controls::UNRESTRICTED_GUEST.bits()) {
        return Err(LoadError::NoUnrestrictedGuest);
    }
    let cap = m.ept_vpid_cap;
    if cap & ept_vpid::WALK_LENGTH_4 == 0 {
        return Err(LoadError::NoEptWalkLength4);
    }
    if cap & ept_vpid::WRITE_BACK == 0 {
        return Err(LoadError::NoEptWriteBack);
    }
    if cap & ept_vpid::INVEPT == 0 || cap & (ept_vpid::INVEPT_SINGLE | ept_vpid::INVEPT_ALL) == 0 {
        return Err(LoadError::NoInvept);
    }
    Ok(())
}

/// VMXON requires CR0 and CR4 to agree with the fixed bits (24.8). VMXE is the one bit
/// that the module sets itself.
fn check_fixed_bits(m: &CapabilityMsrs) -> Result<(), LoadError> {
    if let Some((bit, must_be)) = fixed_violation(m.cr0, m.cr0_fixed0, m.cr0_fixed1) {
        return Err(LoadError::Cr0Fixed { bit, must_be });
    }
    if let Some((bit, must_be)) = fixed_violation(m.cr4 | CR4_VMXE, m.cr4_fixed0, m.cr4_fixed1) {
        return Err(LoadError::Cr4Fixed { bit, must_be });
    }
    Ok(())
}

/// The first bit of `value` that is 0 but fixed to 1, or 1 but fixed to 0.
fn fixed_violation(value: u64, fixed0: u64, fixed1: u64) -> Option<(u8, Setting)> {
    let zeros = fixed0 & !value;
    let ones = value & !fixed1;
    if zeros != 0 {
        Some((zeros.trailing_zeros() as u8, Setting::One))
    } else if ones != 0 {
        Some((ones.trailing_zeros() as u8, Setting::Zero))
    } else {
        None
    }
}

/// What must be the same on all CPUs. Not IA32_VMX_MISC bits that only describe SMM, and
/// not IA32_FEATURE_CONTROL, which is set CPU by CPU.
fn comparable(m: &CapabilityMsrs) -> [(&'static str, u64); 17] {
    [
        ("IA32_VMX_BASIC", m.basic),
        ("IA32_VMX_PINBASED_CTLS", m.pinbased),
        ("IA32_VMX_PROCBASED_CTLS", m.procbased),
        ("IA32_VMX_EXIT_CTLS", m.exit),
        ("IA32_VMX_ENTRY_CTLS", m.entry),
        ("IA32_VMX_MISC", m.misc),
        ("IA32_VMX_CR0_FIXED0", m.cr0_fixed0),
        ("IA32_VMX_CR0_FIXED1", m.cr0_fixed1),
        ("IA32_VMX_CR4_FIXED0", m.cr4_fixed0),
        ("IA32_VMX_CR4_FIXED1", m.cr4_fixed1),
        ("IA32_VMX_PROCBASED_CTLS2", m.procbased2),
        ("IA32_VMX_EPT_VPID_CAP", m.ept_vpid_cap),
        ("IA32_VMX_TRUE_PINBASED_CTLS", m.true_pinbased),
        ("IA32_VMX_TRUE_PROCBASED_CTLS", m.true_procbased),
        ("IA32_VMX_TRUE_EXIT_CTLS", m.true_exit),
        ("IA32_VMX_TRUE_ENTRY_CTLS", m.true_entry),
        ("IA32_VMX_VMFUNC", m.vmfunc),
    ]
}

#[cfg(test)]
#[path = "caps_tests.rs"]
mod tests;
