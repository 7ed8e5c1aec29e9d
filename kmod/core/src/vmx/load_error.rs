//! Why the module refuses to load: what [`super::caps::VmxCaps::check`] found missing, each
//! as one sentence for the log that names it and, where there is one, the remedy.

use core::fmt;

use super::controls::{ControlKind, Setting};

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
