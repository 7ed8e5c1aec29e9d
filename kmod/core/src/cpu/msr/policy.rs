//! The table of MSRs: number, name, and where the guest's value lives. The backend makes
//! the MSR bitmap of it, [`super::MsrState`] the answers.

use crate::cpu::mtrr;

pub const IA32_TIME_STAMP_COUNTER: u32 = 0x10;
pub const IA32_PLATFORM_ID: u32 = 0x17;
pub const IA32_APIC_BASE: u32 = 0x1b;
pub const IA32_FEATURE_CONTROL: u32 = 0x3a;
pub const IA32_TSC_ADJUST: u32 = 0x3b;
pub const IA32_BIOS_UPDT_TRIG: u32 = 0x79;
pub const IA32_BIOS_SIGN_ID: u32 = 0x8b;
pub const MSR_PLATFORM_INFO: u32 = 0xce;
pub const MSR_MISC_FEATURES_ENABLES: u32 = 0x140;
pub const IA32_SYSENTER_CS: u32 = 0x174;
pub const IA32_SYSENTER_ESP: u32 = 0x175;
pub const IA32_SYSENTER_EIP: u32 = 0x176;
pub const IA32_MCG_CAP: u32 = 0x179;
pub const IA32_MCG_STATUS: u32 = 0x17a;
pub const IA32_MISC_ENABLE: u32 = 0x1a0;
pub const MSR_TURBO_RATIO_LIMIT: u32 = 0x1ad;
pub const MSR_TURBO_RATIO_LIMIT1: u32 = 0x1ae;
pub const IA32_PAT: u32 = 0x277;
pub const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// The registers of the local APIC in x2APIC mode.
pub const X2APIC_FIRST: u32 = 0x800;
pub const X2APIC_LAST: u32 = 0x8ff;
pub const IA32_EFER: u32 = 0xc000_0080;
pub const IA32_STAR: u32 = 0xc000_0081;
pub const IA32_LSTAR: u32 = 0xc000_0082;
pub const IA32_CSTAR: u32 = 0xc000_0083;
pub const IA32_FMASK: u32 = 0xc000_0084;
pub const IA32_FS_BASE: u32 = 0xc000_0100;
pub const IA32_GS_BASE: u32 = 0xc000_0101;
pub const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;
pub const IA32_TSC_AUX: u32 = 0xc000_0103;

/// Where an MSR of the guest lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the VMCS's guest-state area, loaded at VM entry and saved at VM exit: passed
    /// through.
    Vmcs,
    /// In the CPU's own MSR, which the backend switches around the guest: passed through.
    Switched,
    /// Reads come from the CPU (with the TSC offset); writes are emulated.
    ReadPassed,
    /// In [`super::MsrState`].
    Emulated,
    /// In `devices::lapic`.
    LocalApic,
    /// Not there, as CPUID says: #GP.
    Absent,
}

impl Place {
    /// Whether RDMSR runs without an exit (its read bit in the MSR bitmap is clear).
    pub const fn read_passes(self) -> bool {
        matches!(self, Self::Vmcs | Self::Switched | Self::ReadPassed)
    }

    /// Whether WRMSR runs without an exit.
    pub const fn write_passes(self) -> bool {
        matches!(self, Self::Vmcs | Self::Switched)
    }
}

/// One row: MSRs `first` to `last`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub first: u32,
    pub last: u32,
    pub place: Place,
    pub name: &'static str,
}

const fn one(code: u32, place: Place, name: &'static str) -> Row {
    Row {
        first: code,
        last: code,
        place,
        name,
    }
}

const fn range(first: u32, last: u32, place: Place, name: &'static str) -> Row {
    Row {
        first,
        last,
        place,
        name,
    }
}

use Place::{Absent, Emulated, LocalApic, ReadPassed, Switched, Vmcs};

/// Every MSR that is not userland's, by number.
#[rustfmt::skip] // One row, one line.
pub const POLICY: &[Row] = &[
    one(IA32_TIME_STAMP_COUNTER, ReadPassed, "IA32_TIME_STAMP_COUNTER"),
    // 0: no platform, no microcode update flags.
    one(IA32_PLATFORM_ID, Emulated, "IA32_PLATFORM_ID"),
    one(IA32_APIC_BASE, LocalApic, "IA32_APIC_BASE"),
    // Linux looks for it by the CPU's model, as for MSR_PPERF.
    one(0x34, Absent, "MSR_SMI_COUNT"),
    // Locked, with nothing on: Windows reads it though it has neither VMX nor SMX.
    one(IA32_FEATURE_CONTROL, Emulated, "IA32_FEATURE_CONTROL"),
    one(IA32_TSC_ADJUST, Emulated, "IA32_TSC_ADJUST"),
    range(0x48, 0x49, Absent, "IA32_SPEC_CTRL, IA32_PRED_CMD"),
    // The CPU's serial number is the host's. Linux looks for it by the CPU's model.
    range(0x4e, 0x4f, Absent, "MSR_PPIN_CTL, MSR_PPIN"),
    // Microcode is the host's: updates are dropped, the revision is 0.
    one(IA32_BIOS_UPDT_TRIG, Emulated, "IA32_BIOS_UPDT_TRIG"),
    one(IA32_BIOS_SIGN_ID, Emulated, "IA32_BIOS_SIGN_ID"),
    one(MSR_PLATFORM_INFO, Emulated, "MSR_PLATFORM_INFO"),
    one(0xcf, Absent, "IA32_CORE_CAPABILITIES"),
    one(mtrr::MTRRCAP, Emulated, "IA32_MTRRCAP"),
    one(0x10a, Absent, "IA32_ARCH_CAPABILITIES"),
    one(0x10b, Absent, "IA32_FLUSH_CMD"),
    // No CPUID faulting, no MONITOR outside of ring 0. Linux writes what it reads.
    one(MSR_MISC_FEATURES_ENABLES, Emulated, "MSR_MISC_FEATURES_ENABLES"),
    one(IA32_SYSENTER_CS, Vmcs, "IA32_SYSENTER_CS"),
    one(IA32_SYSENTER_ESP, Vmcs, "IA32_SYSENTER_ESP"),
    one(IA32_SYSENTER_EIP, Vmcs, "IA32_SYSENTER_EIP"),
    // There are no MCA banks.
    one(IA32_MCG_CAP, Emulated, "IA32_MCG_CAP"),
    one(IA32_MCG_STATUS, Emulated, "IA32_MCG_STATUS"),
    one(IA32_MISC_ENABLE, Emulated, "IA32_MISC_ENABLE"),
    range(MSR_TURBO_RATIO_LIMIT, MSR_TURBO_RATIO_LIMIT1, Emulated, "MSR_TURBO_RATIO_LIMIT"),
    range(mtrr::PHYSBASE0, mtrr::PHYSMASK9, Emulated, "IA32_MTRR_PHYSBASE0 to PHYSMASK9"),
    one(mtrr::FIX64K_00000, Emulated, "IA32_MTRR_FIX64K_00000"),
    range(mtrr::FIX16K_80000, mtrr::FIX16K_A0000, Emulated, "IA32_MTRR_FIX16K"),
    range(mtrr::FIX4K_C0000, mtrr::FIX4K_F8000, Emulated, "IA32_MTRR_FIX4K"),
    one(IA32_PAT, Vmcs, "IA32_PAT"),
    one(mtrr::DEF_TYPE, Emulated, "IA32_MTRR_DEF_TYPE"),
    range(0x480, 0x493, Absent, "IA32_VMX_*"),
    one(0x64e, Absent, "MSR_PPERF"),
    one(IA32_TSC_DEADLINE, LocalApic, "IA32_TSC_DEADLINE"),
    range(X2APIC_FIRST, X2APIC_LAST, LocalApic, "the local APIC in x2APIC mode"),
    one(0xd90, Absent, "IA32_BNDCFGS"),
    one(0xda0, Absent, "IA32_XSS"),
    one(IA32_EFER, Vmcs, "IA32_EFER"),
    one(IA32_STAR, Switched, "IA32_STAR"),
    one(IA32_LSTAR, Switched, "IA32_LSTAR"),
    one(IA32_CSTAR, Switched, "IA32_CSTAR"),
    one(IA32_FMASK, Switched, "IA32_FMASK"),
    one(IA32_FS_BASE, Vmcs, "IA32_FS_BASE"),
    one(IA32_GS_BASE, Vmcs, "IA32_GS_BASE"),
    one(IA32_KERNEL_GS_BASE, Switched, "IA32_KERNEL_GS_BASE"),
    // RDTSCP and RDPID read the CPU's: the backend loads MsrState::tsc_aux() there.
    one(IA32_TSC_AUX, Emulated, "IA32_TSC_AUX"),
    // Linux looks there for the state of AMD's LFENCE.
    one(0xc001_1029, Absent, "DE_CFG, an AMD MSR"),
];

/// Whether it is in a row of [`Place::LocalApic`]: the shortest way to where its EOI is.
#[inline]
pub const fn is_local_apic(code: u32) -> bool {
    matches!(
        code,
        IA32_APIC_BASE | IA32_TSC_DEADLINE | X2APIC_FIRST..=X2APIC_LAST
    )
}

/// Where that MSR lives; `None` for userland's.
pub fn place(code: u32) -> Option<Place> {
    let at = POLICY.partition_point(|row| row.last < code);
    POLICY
        .get(at)
        .filter(|row| row.first <= code)
        .map(|row| row.place)
}
