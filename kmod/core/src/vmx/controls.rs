//! VM-execution, VM-exit and VM-entry controls (SDM vol. 3C, 25.6 to 25.8), what vmm_rs
//! wants of each and why, and how the capability MSRs decide about it (vol. 3D, A.2 to A.5).
//!
//! A capability MSR has two halves: a 1 in bits 31:0 (allowed 0-settings) means that the
//! control must be 1, a 0 in bits 63:32 (allowed 1-settings) that it must be 0. The TRUE
//! variants, present when IA32_VMX_BASIC bit 55 is set, allow 0 for some of the bits that
//! the plain MSRs report as default1.

use bitflags::bitflags;
use core::fmt;

use super::caps::{CapabilityMsrs, LoadError};

bitflags! {
    /// Pin-based VM-execution controls (table 25-5).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct PinControls: u32 {
        const EXTERNAL_INTERRUPT_EXITING = 1 << 0;
        const NMI_EXITING = 1 << 3;
        const VIRTUAL_NMIS = 1 << 5;
        const ACTIVATE_VMX_PREEMPTION_TIMER = 1 << 6;
        const PROCESS_POSTED_INTERRUPTS = 1 << 7;
        const _ = !0;
    }

    /// Primary processor-based VM-execution controls (table 25-6).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct ProcControls: u32 {
        const INTERRUPT_WINDOW_EXITING = 1 << 2;
        const USE_TSC_OFFSETTING = 1 << 3;
        const HLT_EXITING = 1 << 7;
        const INVLPG_EXITING = 1 << 9;
        const MWAIT_EXITING = 1 << 10;
        const RDPMC_EXITING = 1 << 11;
        const RDTSC_EXITING = 1 << 12;
        const CR3_LOAD_EXITING = 1 << 15;
        const CR3_STORE_EXITING = 1 << 16;
        const ACTIVATE_TERTIARY_CONTROLS = 1 << 17;
        const CR8_LOAD_EXITING = 1 << 19;
        const CR8_STORE_EXITING = 1 << 20;
        const USE_TPR_SHADOW = 1 << 21;
        const NMI_WINDOW_EXITING = 1 << 22;
        const MOV_DR_EXITING = 1 << 23;
        const UNCONDITIONAL_IO_EXITING = 1 << 24;
        const USE_IO_BITMAPS = 1 << 25;
        const MONITOR_TRAP_FLAG = 1 << 27;
        const USE_MSR_BITMAPS = 1 << 28;
        const MONITOR_EXITING = 1 << 29;
        const PAUSE_EXITING = 1 << 30;
        const ACTIVATE_SECONDARY_CONTROLS = 1 << 31;
        const _ = !0;
    }

    /// Secondary processor-based VM-execution controls (table 25-7).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Proc2Controls: u32 {
        const VIRTUALIZE_APIC_ACCESSES = 1 << 0;
        const ENABLE_EPT = 1 << 1;
        const DESCRIPTOR_TABLE_EXITING = 1 << 2;
        const ENABLE_RDTSCP = 1 << 3;
        const VIRTUALIZE_X2APIC_MODE = 1 << 4;
        const ENABLE_VPID = 1 << 5;
        const WBINVD_EXITING = 1 << 6;
        const UNRESTRICTED_GUEST = 1 << 7;
        const APIC_REGISTER_VIRTUALIZATION = 1 << 8;
        const VIRTUAL_INTERRUPT_DELIVERY = 1 << 9;
        const PAUSE_LOOP_EXITING = 1 << 10;
        const RDRAND_EXITING = 1 << 11;
        const ENABLE_INVPCID = 1 << 12;
        const ENABLE_VM_FUNCTIONS = 1 << 13;
        const VMCS_SHADOWING = 1 << 14;
        const ENABLE_ENCLS_EXITING = 1 << 15;
        const RDSEED_EXITING = 1 << 16;
        const ENABLE_PML = 1 << 17;
        const EPT_VIOLATION_VE = 1 << 18;
        const CONCEAL_VMX_FROM_PT = 1 << 19;
        const ENABLE_XSAVES = 1 << 20;
        const PASID_TRANSLATION = 1 << 21;
        const MODE_BASED_EXECUTE_CONTROL = 1 << 22;
        const SUB_PAGE_WRITE_PERMISSIONS = 1 << 23;
        const PT_USES_GUEST_PHYSICAL_ADDRESSES = 1 << 24;
        const USE_TSC_SCALING = 1 << 25;
        const ENABLE_USER_WAIT_AND_PAUSE = 1 << 26;
        const ENABLE_PCONFIG = 1 << 27;
        const ENABLE_ENCLV_EXITING = 1 << 28;
        const BUS_LOCK_DETECTION = 1 << 30;
        const INSTRUCTION_TIMEOUT = 1 << 31;
        const _ = !0;
    }

    /// Primary VM-exit controls (table 25-13).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct ExitControls: u32 {
        const SAVE_DEBUG_CONTROLS = 1 << 2;
        const HOST_ADDRESS_SPACE_SIZE = 1 << 9;
        const LOAD_IA32_PERF_GLOBAL_CTRL = 1 << 12;
        const ACKNOWLEDGE_INTERRUPT_ON_EXIT = 1 << 15;
        const SAVE_IA32_PAT = 1 << 18;
        const LOAD_IA32_PAT = 1 << 19;
        const SAVE_IA32_EFER = 1 << 20;
        const LOAD_IA32_EFER = 1 << 21;
        const SAVE_VMX_PREEMPTION_TIMER_VALUE = 1 << 22;
        const CLEAR_IA32_BNDCFGS = 1 << 23;
        const CONCEAL_VMX_FROM_PT = 1 << 24;
        const CLEAR_IA32_RTIT_CTL = 1 << 25;
        const CLEAR_IA32_LBR_CTL = 1 << 26;
        const CLEAR_UINV = 1 << 27;
        const LOAD_CET_STATE = 1 << 28;
        const LOAD_PKRS = 1 << 29;
        const SAVE_IA32_PERF_GLOBAL_CTRL = 1 << 30;
        const ACTIVATE_SECONDARY_CONTROLS = 1 << 31;
        const _ = !0;
    }

    /// VM-entry controls (table 25-16).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct EntryControls: u32 {
        const LOAD_DEBUG_CONTROLS = 1 << 2;
        const IA32E_MODE_GUEST = 1 << 9;
        const ENTRY_TO_SMM = 1 << 10;
        const DEACTIVATE_DUAL_MONITOR_TREATMENT = 1 << 11;
        const LOAD_IA32_PERF_GLOBAL_CTRL = 1 << 13;
        const LOAD_IA32_PAT = 1 << 14;
        const LOAD_IA32_EFER = 1 << 15;
        const LOAD_IA32_BNDCFGS = 1 << 16;
        const CONCEAL_VMX_FROM_PT = 1 << 17;
        const LOAD_IA32_RTIT_CTL = 1 << 18;
        const LOAD_UINV = 1 << 19;
        const LOAD_CET_STATE = 1 << 20;
        const LOAD_IA32_LBR_CTL = 1 << 21;
        const LOAD_PKRS = 1 << 22;
        const _ = !0;
    }
}

/// The five 32-bit control fields of a VMCS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Controls {
    pub pin: PinControls,
    pub proc: ProcControls,
    pub proc2: Proc2Controls,
    pub exit: ExitControls,
    pub entry: EntryControls,
}

/// Which of the five.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlKind {
    Pin,
    Proc,
    Proc2,
    Exit,
    Entry,
}

impl ControlKind {
    pub const ALL: [Self; 5] = [Self::Pin, Self::Proc, Self::Proc2, Self::Exit, Self::Entry];

    /// "pin-based VM-execution controls"
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pin => "pin-based VM-execution controls",
            Self::Proc => "primary processor-based VM-execution controls",
            Self::Proc2 => "secondary processor-based VM-execution controls",
            Self::Exit => "VM-exit controls",
            Self::Entry => "VM-entry controls",
        }
    }

    /// The capability MSR that decides about it.
    pub const fn msr_name(self, true_variant: bool) -> &'static str {
        match (self, true_variant) {
            (Self::Pin, false) => "IA32_VMX_PINBASED_CTLS",
            (Self::Pin, true) => "IA32_VMX_TRUE_PINBASED_CTLS",
            (Self::Proc, false) => "IA32_VMX_PROCBASED_CTLS",
            (Self::Proc, true) => "IA32_VMX_TRUE_PROCBASED_CTLS",
            (Self::Proc2, _) => "IA32_VMX_PROCBASED_CTLS2",
            (Self::Exit, false) => "IA32_VMX_EXIT_CTLS",
            (Self::Exit, true) => "IA32_VMX_TRUE_EXIT_CTLS",
            (Self::Entry, false) => "IA32_VMX_ENTRY_CTLS",
            (Self::Entry, true) => "IA32_VMX_TRUE_ENTRY_CTLS",
        }
    }

    /// The SDM's name of one control, as the flag is called here; `None` for a reserved bit.
    pub fn bit_name(self, bit: u8) -> Option<&'static str> {
        let mask = 1u32.checked_shl(u32::from(bit))?;
        match self {
            Self::Pin => flag_name::<PinControls>(mask),
            Self::Proc => flag_name::<ProcControls>(mask),
            Self::Proc2 => flag_name::<Proc2Controls>(mask),
            Self::Exit => flag_name::<ExitControls>(mask),
            Self::Entry => flag_name::<EntryControls>(mask),
        }
    }
}

fn flag_name<F: bitflags::Flags<Bits = u32>>(mask: u32) -> Option<&'static str> {
    F::FLAGS
        .iter()
        .find(|f| f.is_named() && f.value().bits() == mask)
        .map(|f| f.name())
}

/// What a CPU allows for one control field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowed {
    /// The capability MSR that was read; the TRUE one if there is one.
    pub msr: u64,
    pub true_variant: bool,
}

impl Allowed {
    /// Bits that must be 1.
    pub const fn must_be_one(self) -> u32 {
        self.msr as u32
    }
    /// Bits that may be 1.
    pub const fn may_be_one(self) -> u32 {
        (self.msr >> 32) as u32
    }
    /// Whether all of `bits` may be 1.
    pub const fn can_set(self, bits: u32) -> bool {
        bits & !self.may_be_one() == 0
    }
    /// Whether all of `bits` may be 0.
    pub const fn can_clear(self, bits: u32) -> bool {
        bits & self.must_be_one() == 0
    }
    /// Whether a control field of `value` passes the checks of 27.2.1.
    pub const fn permits(self, value: u32) -> bool {
        value & self.must_be_one() == self.must_be_one() && self.can_set(value)
    }
}

/// How much vmm_rs needs a control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Set; without it the module refuses to load.
    Required,
    /// Set where the CPU has it.
    Wanted,
    /// Clear at first; the run loop sets and clears it. Must be possible both ways.
    Switched,
    /// Clear at first; a capability or a mode of the VM may set it where the CPU has it.
    Optional,
}

/// One line of the policy: a control, how much it is needed, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    pub kind: ControlKind,
    /// One bit.
    pub bit: u32,
    pub need: Need,
    pub why: &'static str,
}

macro_rules! policy {
    ($($kind:ident $flags:ident { $($need:ident $bit:ident: $why:literal)* })*) => {
        /// The controls that vmm_rs knows a use for. Every other control stays 0, or at the
        /// value the CPU forces.
        pub const POLICY: &[Rule] = &[$($(
            Rule {
                kind: ControlKind::$kind,
                bit: $flags::$bit.bits(),
                need: Need::$need,
                why: $why,
            },
        )*)*];
    };
}

policy! {
    Pin PinControls {
        Required EXTERNAL_INTERRUPT_EXITING: "the host's interrupts are the host's, also while a guest runs"
        Required NMI_EXITING: "so are its NMIs"
        Required VIRTUAL_NMIS: "a guest's NMI blocking must not be the host's, and NMI-window exiting needs it"
        Optional PROCESS_POSTED_INTERRUPTS: "interrupts reach a running guest without an exit"
        Optional ACTIVATE_VMX_PREEMPTION_TIMER: "a time slice without a host timer"
    }
    Proc ProcControls {
        Required ACTIVATE_SECONDARY_CONTROLS: "EPT and unrestricted guest are secondary controls"
        Required USE_MSR_BITMAPS: "without the bitmap each RDMSR and WRMSR exits, the FS and GS bases too"
        Required UNCONDITIONAL_IO_EXITING: "no port of the host belongs to a guest"
        Required HLT_EXITING: "a guest's HLT would otherwise idle the host's CPU; VM_CAP_HALT_EXIT only decides who handles it"
        Required MWAIT_EXITING: "so would MWAIT, which the guest's CPUID does not have"
        Required MONITOR_EXITING: "as MWAIT"
        Required RDPMC_EXITING: "the performance counters are the host's"
        Switched INTERRUPT_WINDOW_EXITING: "set while an interrupt waits for the guest to become interruptible"
        Switched NMI_WINDOW_EXITING: "set while an NMI waits"
        Wanted USE_TSC_OFFSETTING: "a guest's TSC can be set; an offset of 0 costs nothing"
        Optional MONITOR_TRAP_FLAG: "VM_CAP_MTRAP_EXIT: one exit per instruction"
        Optional PAUSE_EXITING: "VM_CAP_PAUSE_EXIT"
        Optional USE_TPR_SHADOW: "MOV CR8 without an exit; the rest of APIC virtualization needs it"
        Optional CR8_LOAD_EXITING: "MOV to CR8 where there is no TPR shadow"
        Optional CR8_STORE_EXITING: "MOV from CR8 where there is no TPR shadow"
        Optional MOV_DR_EXITING: "debugging of a guest that uses the debug registers itself"
    }
    Proc2 Proc2Controls {
        Required ENABLE_EPT: "guest-physical memory is mapped by EPT only, there are no shadow page tables"
        Required UNRESTRICTED_GUEST: "guests start in real mode, without paging"
        Wanted ENABLE_VPID: "TLB entries of the guest survive exits"
        Wanted ENABLE_RDTSCP: "RDTSCP and RDPID work in the guest as its CPUID says"
        Wanted WBINVD_EXITING: "a guest must not be able to flush the host's caches at will"
        Optional ENABLE_INVPCID: "VM_CAP_ENABLE_INVPCID"
        Optional DESCRIPTOR_TABLE_EXITING: "debugging of a guest"
        Optional VIRTUALIZE_APIC_ACCESSES: "xAPIC mode: accesses to the APIC-access page are to the virtual-APIC page"
        Optional VIRTUALIZE_X2APIC_MODE: "x2APIC mode: so are accesses to the MSRs that the bitmap passes"
        Optional APIC_REGISTER_VIRTUALIZATION: "most registers are read without an exit, and writes exit when they are done"
        Optional VIRTUAL_INTERRUPT_DELIVERY: "TPR, EOI and self-IPI without an exit, and no exit for an interrupt window"
        Optional PAUSE_LOOP_EXITING: "spinning vcpus give way"
        Optional ENABLE_XSAVES: "XSAVES and XRSTORS in the guest"
        Optional USE_TSC_SCALING: "a guest's TSC can have a frequency of its own"
        Optional ENABLE_PML: "a log of written pages"
        Optional RDRAND_EXITING: "a guest's random numbers can be replayed"
        Optional RDSEED_EXITING: "as RDRAND"
    }
    Exit ExitControls {
        Required HOST_ADDRESS_SPACE_SIZE: "the host runs in 64-bit mode"
        Required SAVE_DEBUG_CONTROLS: "the guest's DR7 and IA32_DEBUGCTL must be read back"
        Required SAVE_IA32_EFER: "so must EFER, which the guest may write without an exit"
        Required LOAD_IA32_EFER: "the host continues with its own EFER"
        Required SAVE_IA32_PAT: "the guest may write its PAT without an exit"
        Required LOAD_IA32_PAT: "the host continues with its own PAT"
    }
    Entry EntryControls {
        Required LOAD_DEBUG_CONTROLS: "the guest runs with its DR7 and IA32_DEBUGCTL"
        Required LOAD_IA32_EFER: "the guest runs with its EFER"
        Required LOAD_IA32_PAT: "the guest runs with its PAT"
        Switched IA32E_MODE_GUEST: "follows EFER.LMA as the guest enters and leaves long mode"
    }
}

/// The value of one control field: `required` and, as far as the CPU has them, `wanted`
/// bits, plus those that the CPU forces to 1. An error names the first required bit that
/// the CPU doesn't have.
pub fn compute(
    kind: ControlKind,
    allowed: Allowed,
    required: u32,
    wanted: u32,
) -> Result<u32, LoadError> {
    let missing = required & !allowed.may_be_one();
    if missing != 0 {
        return Err(missing_control(kind, allowed, missing, Setting::One));
    }
    Ok(required | wanted & allowed.may_be_one() | allowed.must_be_one())
}

/// Which value of a control a CPU lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    Zero,
    One,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "0",
            Self::One => "1",
        })
    }
}

fn missing_control(kind: ControlKind, allowed: Allowed, bits: u32, setting: Setting) -> LoadError {
    LoadError::MissingControl {
        kind,
        bit: bits.trailing_zeros() as u8,
        true_msr: allowed.true_variant,
        setting,
    }
}

/// The bits of one kind with one need in [`POLICY`].
pub fn policy_bits(kind: ControlKind, need: Need) -> u32 {
    POLICY
        .iter()
        .filter(|r| r.kind == kind && r.need == need)
        .fold(0, |bits, r| bits | r.bit)
}

impl Controls {
    /// The controls of every new vcpu, by [`POLICY`].
    pub fn compute(msrs: &CapabilityMsrs) -> Result<Self, LoadError> {
        Ok(Self {
            pin: PinControls::from_bits_retain(by_policy(ControlKind::Pin, msrs)?),
            proc: ProcControls::from_bits_retain(by_policy(ControlKind::Proc, msrs)?),
            proc2: Proc2Controls::from_bits_retain(by_policy(ControlKind::Proc2, msrs)?),
            exit: ExitControls::from_bits_retain(by_policy(ControlKind::Exit, msrs)?),
            entry: EntryControls::from_bits_retain(by_policy(ControlKind::Entry, msrs)?),
        })
    }
}

fn by_policy(kind: ControlKind, msrs: &CapabilityMsrs) -> Result<u32, LoadError> {
    let allowed = msrs.allowed(kind);
    let switched = policy_bits(kind, Need::Switched);
    let required = policy_bits(kind, Need::Required);
    let bits = compute(
        kind,
        allowed,
        required | switched,
        policy_bits(kind, Need::Wanted),
    )?;
    let stuck = switched & allowed.must_be_one();
    if stuck != 0 {
        return Err(missing_control(kind, allowed, stuck, Setting::Zero));
    }
    Ok(bits & !switched)
}
