//! What VT-x the CPU has (SDM vol. 3D, appendix A), and whether it is enough: the check
//! at load time. [`CapabilityMsrs`] are the raw values, read through a
//! [`CapabilitySource`]; [`VmxCaps::check`] makes them into what the rest of the module
//! asks for, or into a [`LoadError`] that names what is missing.

use bitflags::bitflags;
use core::fmt;

use super::controls::{Allowed, ControlKind, Controls, Setting};
use super::controls::{PinControls, Proc2Controls, ProcControls};

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

/// Why the module refuses to load. Each displays as one sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// CPUID.1:ECX.VMX is clear.
    NoVmx,
    /// IA32_FEATURE_CONTROL is locked with VMX off.
    DisabledByFirmware {
        feature_control: u64,
    },
    /// CR4.VMXE is set.
    AlreadyInVmxOperation,
    /// IA32_VMX_BASIC gives a VMCS size outside 1..=4096.
    VmcsRegionSize {
        bytes: u32,
    },
    /// IA32_VMX_BASIC does not give write-back for the VMCS.
    VmcsMemoryType {
        memory_type: u8,
    },
    NoEpt,
    NoUnrestrictedGuest,
    NoEptWalkLength4,
    NoEptWriteBack,
    /// A single-context or all-context INVEPT.
    NoInvept,
    /// A control that [`super::controls::POLICY`] requires.
    MissingControl {
        kind: ControlKind,
        bit: u8,
        true_msr: bool,
        setting: Setting,
    },
    /// The host's CR0 has a bit that VMX operation does not allow as it is.
    Cr0Fixed {
        bit: u8,
        must_be: Setting,
    },
    /// The host's CR4 has a bit that VMX operation does not allow as it is.
    Cr4Fixed {
        bit: u8,
        must_be: Setting,
    },
    /// Two CPUs of the host differ in a capability MSR.
    CpusDiffer {
        msr: &'static str,
        first: u64,
        this: u64,
    },
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

bitflags! {
    /// Features that vmm_rs can do without, each as one question.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Features: u64 {
        const VPID = 1 << 0;
        const EPT_ACCESSED_DIRTY = 1 << 1;
        const EPT_2M = 1 << 2;
        const EPT_1G = 1 << 3;
        const EPT_EXECUTE_ONLY = 1 << 4;
        const EPT_UNCACHEABLE = 1 << 5;
        /// EPT violations say whether the linear address was user-mode, writable, executable.
        const EPT_ADVANCED_EXIT_INFO = 1 << 6;
        const INVEPT_SINGLE_CONTEXT = 1 << 7;
        const INVEPT_ALL_CONTEXTS = 1 << 8;
        const INVVPID_INDIVIDUAL_ADDRESS = 1 << 9;
        const INVVPID_SINGLE_CONTEXT = 1 << 10;
        const INVVPID_ALL_CONTEXTS = 1 << 11;
        const INVVPID_SINGLE_RETAINING_GLOBALS = 1 << 12;
        const TPR_SHADOW = 1 << 13;
        const VIRTUALIZE_APIC_ACCESSES = 1 << 14;
        const VIRTUALIZE_X2APIC = 1 << 15;
        const APIC_REGISTER_VIRTUALIZATION = 1 << 16;
        const VIRTUAL_INTERRUPT_DELIVERY = 1 << 17;
        const POSTED_INTERRUPTS = 1 << 18;
        const PAUSE_EXITING = 1 << 19;
        const PAUSE_LOOP_EXITING = 1 << 20;
        const MONITOR_TRAP_FLAG = 1 << 21;
        const INVPCID = 1 << 22;
        /// RDTSCP; the same control also lets RDPID work.
        const RDTSCP = 1 << 23;
        const XSAVES = 1 << 24;
        const WBINVD_EXITING = 1 << 25;
        const PREEMPTION_TIMER = 1 << 26;
        const TSC_SCALING = 1 << 27;
        const PML = 1 << 28;
        const DESCRIPTOR_TABLE_EXITING = 1 << 29;
        const TRUE_CONTROLS = 1 << 30;
        /// INS and OUTS report their segment and address size (IA32_VMX_BASIC bit 54).
        const INS_OUTS_INFO = 1 << 31;
        /// VMWRITE to exit-information fields works (IA32_VMX_MISC bit 29).
        const VMWRITE_EXIT_INFO = 1 << 32;
        /// Software interrupts and exceptions of length 0 can be injected (IA32_VMX_MISC bit 30).
        const INJECT_LENGTH_0 = 1 << 33;
        /// Hardware exceptions can be injected with or without an error code, whatever
        /// their vector (IA32_VMX_BASIC bit 56).
        const INJECT_ANY_ERROR_CODE = 1 << 34;
        /// A shut-down or halted guest can be entered: activity states (IA32_VMX_MISC 6, 7, 8).
        const ACTIVITY_HLT = 1 << 35;
        const ACTIVITY_SHUTDOWN = 1 << 36;
        const ACTIVITY_WAIT_FOR_SIPI = 1 << 37;
        /// CR3-load and CR3-store exiting can be 0.
        const CR3_WITHOUT_EXITS = 1 << 38;
        /// INVLPG exiting can be 0.
        const INVLPG_WITHOUT_EXITS = 1 << 39;
        const MODE_BASED_EXECUTE_CONTROL = 1 << 40;
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
            features: features(m),
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

/// IA32_VMX_EPT_VPID_CAP (A.10).
mod ept_vpid {
    pub const EXECUTE_ONLY: u64 = 1 << 0;
    pub const WALK_LENGTH_4: u64 = 1 << 6;
    pub const UNCACHEABLE: u64 = 1 << 8;
    pub const WRITE_BACK: u64 = 1 << 14;
    pub const PAGE_2M: u64 = 1 << 16;
    pub const PAGE_1G: u64 = 1 << 17;
    pub const INVEPT: u64 = 1 << 20;
    pub const ACCESSED_DIRTY: u64 = 1 << 21;
    pub const ADVANCED_EXIT_INFO: u64 = 1 << 22;
    pub const INVEPT_SINGLE: u64 = 1 << 25;
    pub const INVEPT_ALL: u64 = 1 << 26;
    pub const INVVPID: u64 = 1 << 32;
    pub const INVVPID_ADDRESS: u64 = 1 << 40;
    pub const INVVPID_SINGLE: u64 = 1 << 41;
    pub const INVVPID_ALL: u64 = 1 << 42;
    pub const INVVPID_RETAINING_GLOBALS: u64 = 1 << 43;
}

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

fn features(m: &CapabilityMsrs) -> Features {
    use ControlKind::{Pin, Proc, Proc2};
    let pin = |c: PinControls| m.allowed(Pin).can_set(c.bits());
    let proc = |c: ProcControls| m.allowed(Proc).can_set(c.bits());
    let proc2 = |c: Proc2Controls| m.allowed(Proc2).can_set(c.bits());
    let proc_clear = |c: ProcControls| m.allowed(Proc).can_clear(c.bits());
    let cap = |bit: u64| m.ept_vpid_cap & bit != 0;
    let basic = |bit: u8| m.basic & 1 << bit != 0;
    let misc = |bit: u8| m.misc & 1 << bit != 0;

    let vpid = proc2(Proc2Controls::ENABLE_VPID) && cap(ept_vpid::INVVPID);
    let tpr_shadow = proc(ProcControls::USE_TPR_SHADOW);
    // Each of these needs the ones before it to be of use (27.2.1.1).
    let interrupt_delivery = tpr_shadow && proc2(Proc2Controls::VIRTUAL_INTERRUPT_DELIVERY);
    let posted = interrupt_delivery && pin(PinControls::PROCESS_POSTED_INTERRUPTS);
    let cr3 = ProcControls::CR3_LOAD_EXITING.union(ProcControls::CR3_STORE_EXITING);

    let table = [
        (Features::VPID, vpid),
        (Features::EPT_ACCESSED_DIRTY, cap(ept_vpid::ACCESSED_DIRTY)),
        (Features::EPT_2M, cap(ept_vpid::PAGE_2M)),
        (Features::EPT_1G, cap(ept_vpid::PAGE_1G)),
        (Features::EPT_EXECUTE_ONLY, cap(ept_vpid::EXECUTE_ONLY)),
        (Features::EPT_UNCACHEABLE, cap(ept_vpid::UNCACHEABLE)),
        (
            Features::EPT_ADVANCED_EXIT_INFO,
            cap(ept_vpid::ADVANCED_EXIT_INFO),
        ),
        (
            Features::INVEPT_SINGLE_CONTEXT,
            cap(ept_vpid::INVEPT_SINGLE),
        ),
        (Features::INVEPT_ALL_CONTEXTS, cap(ept_vpid::INVEPT_ALL)),
        (
            Features::INVVPID_INDIVIDUAL_ADDRESS,
            vpid && cap(ept_vpid::INVVPID_ADDRESS),
        ),
        (
            Features::INVVPID_SINGLE_CONTEXT,
            vpid && cap(ept_vpid::INVVPID_SINGLE),
        ),
        (
            Features::INVVPID_ALL_CONTEXTS,
            vpid && cap(ept_vpid::INVVPID_ALL),
        ),
        (
            Features::INVVPID_SINGLE_RETAINING_GLOBALS,
            vpid && cap(ept_vpid::INVVPID_RETAINING_GLOBALS),
        ),
        (Features::TPR_SHADOW, tpr_shadow),
        (
            Features::VIRTUALIZE_APIC_ACCESSES,
            tpr_shadow && proc2(Proc2Controls::VIRTUALIZE_APIC_ACCESSES),
        ),
        (
            Features::VIRTUALIZE_X2APIC,
            tpr_shadow && proc2(Proc2Controls::VIRTUALIZE_X2APIC_MODE),
        ),
        (
            Features::APIC_REGISTER_VIRTUALIZATION,
            tpr_shadow && proc2(Proc2Controls::APIC_REGISTER_VIRTUALIZATION),
        ),
        (Features::VIRTUAL_INTERRUPT_DELIVERY, interrupt_delivery),
        (Features::POSTED_INTERRUPTS, posted),
        (Features::PAUSE_EXITING, proc(ProcControls::PAUSE_EXITING)),
        (
            Features::PAUSE_LOOP_EXITING,
            proc2(Proc2Controls::PAUSE_LOOP_EXITING),
        ),
        (
            Features::MONITOR_TRAP_FLAG,
            proc(ProcControls::MONITOR_TRAP_FLAG),
        ),
        (Features::INVPCID, proc2(Proc2Controls::ENABLE_INVPCID)),
        (Features::RDTSCP, proc2(Proc2Controls::ENABLE_RDTSCP)),
        (Features::XSAVES, proc2(Proc2Controls::ENABLE_XSAVES)),
        (
            Features::WBINVD_EXITING,
            proc2(Proc2Controls::WBINVD_EXITING),
        ),
        (
            Features::PREEMPTION_TIMER,
            pin(PinControls::ACTIVATE_VMX_PREEMPTION_TIMER),
        ),
        (Features::TSC_SCALING, proc2(Proc2Controls::USE_TSC_SCALING)),
        (
            Features::PML,
            proc2(Proc2Controls::ENABLE_PML) && cap(ept_vpid::ACCESSED_DIRTY),
        ),
        (
            Features::DESCRIPTOR_TABLE_EXITING,
            proc2(Proc2Controls::DESCRIPTOR_TABLE_EXITING),
        ),
        (Features::TRUE_CONTROLS, m.has_true_controls()),
        (Features::INS_OUTS_INFO, basic(54)),
        (Features::VMWRITE_EXIT_INFO, misc(29)),
        (Features::INJECT_LENGTH_0, misc(30)),
        (Features::INJECT_ANY_ERROR_CODE, basic(56)),
        (Features::ACTIVITY_HLT, misc(6)),
        (Features::ACTIVITY_SHUTDOWN, misc(7)),
        (Features::ACTIVITY_WAIT_FOR_SIPI, misc(8)),
        (Features::CR3_WITHOUT_EXITS, proc_clear(cr3)),
        (
            Features::INVLPG_WITHOUT_EXITS,
            proc_clear(ProcControls::INVLPG_EXITING),
        ),
        (
            Features::MODE_BASED_EXECUTE_CONTROL,
            proc2(Proc2Controls::MODE_BASED_EXECUTE_CONTROL),
        ),
    ];
    table
        .iter()
        .filter(|(_, has)| *has)
        .map(|(feature, _)| *feature)
        .collect()
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

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoVmx => f.write_str("this CPU has no VT-x (CPUID.1:ECX.VMX is 0)"),
            Self::DisabledByFirmware { feature_control } => write!(
                f,
                "VT-x is disabled by the firmware (IA32_FEATURE_CONTROL is {feature_control:#x}, \
                 locked with VMX off); enable it in the firmware's setup"
            ),
            Self::AlreadyInVmxOperation => f.write_str(
                "another hypervisor on this host already uses VT-x (CR4.VMXE is 1); unload it first",
            ),
            Self::VmcsRegionSize { bytes } => write!(
                f,
                "the CPU's VMCS region size is {bytes} bytes, not 1 to 4096 (IA32_VMX_BASIC bits 44:32)"
            ),
            Self::VmcsMemoryType { memory_type } => write!(
                f,
                "the CPU wants memory type {memory_type} for a VMCS, not 6, write-back \
                 (IA32_VMX_BASIC bits 53:50)"
            ),
            Self::NoEpt => f.write_str(
                "this CPU has no EPT (IA32_VMX_PROCBASED_CTLS2 does not allow ENABLE_EPT, bit 1)",
            ),
            Self::NoUnrestrictedGuest => f.write_str(
                "this CPU has no unrestricted guest \
                 (IA32_VMX_PROCBASED_CTLS2 does not allow UNRESTRICTED_GUEST, bit 7)",
            ),
            Self::NoEptWalkLength4 => f.write_str(
                "this CPU's EPT has no page walk of length 4 (IA32_VMX_EPT_VPID_CAP bit 6 is 0)",
            ),
            Self::NoEptWriteBack => f.write_str(
                "this CPU's EPT has no write-back memory type for its tables \
                 (IA32_VMX_EPT_VPID_CAP bit 14 is 0)",
            ),
            Self::NoInvept => f.write_str(
                "this CPU has EPT but no INVEPT (IA32_VMX_EPT_VPID_CAP bits 20, 25 and 26)",
            ),
            Self::MissingControl { kind, bit, true_msr, setting } => write!(
                f,
                "this CPU cannot set {} to {setting} (bit {bit} of the {}, {})",
                kind.bit_name(bit).unwrap_or("a reserved control"),
                kind.name(),
                kind.msr_name(true_msr)
            ),
            Self::Cr0Fixed { bit, must_be } => write!(
                f,
                "VMX operation needs CR0 bit {bit} to be {must_be} (IA32_VMX_CR0_FIXED0/1), \
                 and this host runs with the opposite"
            ),
            Self::Cr4Fixed { bit, must_be } => write!(
                f,
                "VMX operation needs CR4 bit {bit} to be {must_be} (IA32_VMX_CR4_FIXED0/1), \
                 and this host runs with the opposite"
            ),
            Self::CpusDiffer { msr, first, this } => write!(
                f,
                "the CPUs of this host differ in {msr} ({first:#x} and {this:#x}), \
                 so a guest could not move between them"
            ),
        }
    }
}

#[cfg(test)]
#[path = "caps_tests.rs"]
mod tests;
