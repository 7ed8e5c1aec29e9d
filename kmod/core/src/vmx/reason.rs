//! Basic exit reasons (SDM vol. 3D, appendix C) and the exit-reason field around them
//! (vol. 3C, 25.9.1, table 25-18).
//!
//! [`ExitReason`] is closed on purpose: the run loop matches it without a wildcard, so
//! that a reason added here makes every place that must answer it stop compiling.

use core::fmt;

macro_rules! exit_reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why a VM exit happened, or why a VM entry failed.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum ExitReason {
            $($(#[$doc])* $variant = $number,)*
        }

        impl ExitReason {
            /// All of them, by ascending number.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The reason with that number (bits 15:0 of the exit-reason field).
            pub const fn from_raw(raw: u16) -> Result<Self, UnknownReason> {
                match raw {
                    $($number => Ok(Self::$variant),)*
                    _ => Err(UnknownReason(raw)),
                }
            }

            /// The SDM's name, short.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

exit_reasons! {
    /// An exception that the exception bitmap selects, or an NMI.
    ExceptionOrNmi = 0, "exception or NMI";
    ExternalInterrupt = 1, "external interrupt";
    TripleFault = 2, "triple fault";
    InitSignal = 3, "INIT signal";
    StartupIpi = 4, "start-up IPI";
    IoSmi = 5, "I/O SMI";
    OtherSmi = 6, "other SMI";
    InterruptWindow = 7, "interrupt window";
    NmiWindow = 8, "NMI window";
    TaskSwitch = 9, "task switch";
    Cpuid = 10, "CPUID";
    Getsec = 11, "GETSEC";
    Hlt = 12, "HLT";
    Invd = 13, "INVD";
    Invlpg = 14, "INVLPG";
    Rdpmc = 15, "RDPMC";
    Rdtsc = 16, "RDTSC";
    Rsm = 17, "RSM";
    Vmcall = 18, "VMCALL";
    Vmclear = 19, "VMCLEAR";
    Vmlaunch = 20, "VMLAUNCH";
    Vmptrld = 21, "VMPTRLD";
    Vmptrst = 22, "VMPTRST";
    Vmread = 23, "VMREAD";
    Vmresume = 24, "VMRESUME";
    Vmwrite = 25, "VMWRITE";
    Vmxoff = 26, "VMXOFF";
    Vmxon = 27, "VMXON";
    /// MOV CR, CLTS or LMSW.
    CrAccess = 28, "control-register access";
    MovDr = 29, "MOV DR";
    /// IN, INS, OUT, OUTS.
    IoInstruction = 30, "I/O instruction";
    Rdmsr = 31, "RDMSR";
    Wrmsr = 32, "WRMSR";
    /// A VM entry failed one of the checks of 27.3.1.
    EntryFailureGuestState = 33, "VM-entry failure due to invalid guest state";
    /// A VM entry failed while loading MSRs (27.4).
    EntryFailureMsrLoading = 34, "VM-entry failure due to MSR loading";
    Mwait = 36, "MWAIT";
    MonitorTrapFlag = 37, "monitor trap flag";
    Monitor = 39, "MONITOR";
    Pause = 40, "PAUSE";
    /// A machine check came during a VM entry.
    EntryFailureMachineCheck = 41, "VM-entry failure due to machine-check event";
    TprBelowThreshold = 43, "TPR below threshold";
    ApicAccess = 44, "APIC access";
    VirtualizedEoi = 45, "virtualized EOI";
    /// LGDT, LIDT, SGDT, SIDT.
    GdtrIdtrAccess = 46, "access to GDTR or IDTR";
    /// LLDT, LTR, SLDT, STR.
    LdtrTrAccess = 47, "access to LDTR or TR";
    EptViolation = 48, "EPT violation";
    EptMisconfiguration = 49, "EPT misconfiguration";
    Invept = 50, "INVEPT";
    Rdtscp = 51, "RDTSCP";
    PreemptionTimer = 52, "VMX-preemption timer expired";
    Invvpid = 53, "INVVPID";
    Wbinvd = 54, "WBINVD or WBNOINVD";
    Xsetbv = 55, "XSETBV";
    ApicWrite = 56, "APIC write";
    Rdrand = 57, "RDRAND";
    Invpcid = 58, "INVPCID";
    Vmfunc = 59, "VMFUNC";
    Encls = 60, "ENCLS";
    Rdseed = 61, "RDSEED";
    PageModificationLogFull = 62, "page-modification log full";
    Xsaves = 63, "XSAVES";
    Xrstors = 64, "XRSTORS";
    Pconfig = 65, "PCONFIG";
    SppEvent = 66, "SPP-related event";
    Umwait = 67, "UMWAIT";
    Tpause = 68, "TPAUSE";
    Loadiwkey = 69, "LOADIWKEY";
    Enclv = 70, "ENCLV";
    EnqcmdPasid = 72, "ENQCMD PASID translation failure";
    EnqcmdsPasid = 73, "ENQCMDS PASID translation failure";
    BusLock = 74, "bus lock";
    InstructionTimeout = 75, "instruction timeout";
    Seamcall = 76, "SEAMCALL";
    Tdcall = 77, "TDCALL";
    Rdmsrlist = 78, "RDMSRLIST";
    Wrmsrlist = 79, "WRMSRLIST";
    Urdmsr = 80, "URDMSR";
    Uwrmsr = 81, "UWRMSR";
    RdmsrImmediate = 84, "RDMSR with an immediate";
    WrmsrnsImmediate = 85, "WRMSRNS with an immediate";
}

impl ExitReason {
    /// The number of appendix C.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// One of the VMX instructions, which all exit unconditionally in VMX non-root
    /// operation (26.1.2); the guest's CPUID has no VMX, so each must answer #UD. VMCALL is
    /// among them, VMFUNC too (it only exits when a VM function is allowed and fails).
    pub const fn is_vmx_instruction(self) -> bool {
        matches!(
            self,
            Self::Vmcall
                | Self::Vmclear
                | Self::Vmlaunch
                | Self::Vmptrld
                | Self::Vmptrst
                | Self::Vmread
                | Self::Vmresume
                | Self::Vmwrite
                | Self::Vmxoff
                | Self::Vmxon
                | Self::Invept
                | Self::Invvpid
                | Self::Vmfunc
        )
    }

    /// A VM entry that failed after the host state was checked: it comes back as a VM exit.
    pub const fn is_entry_failure(self) -> bool {
        matches!(
            self,
            Self::EntryFailureGuestState
                | Self::EntryFailureMsrLoading
                | Self::EntryFailureMachineCheck
        )
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A basic exit reason that the SDM did not define when this was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownReason(pub u16);

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown basic exit reason {}", self.0)
    }
}

/// The whole exit-reason field ([`super::field::EXIT_REASON`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitReasonField(pub u32);

impl ExitReasonField {
    /// Bits 15:0, decoded.
    pub const fn basic(self) -> Result<ExitReason, UnknownReason> {
        ExitReason::from_raw(self.0 as u16)
    }

    /// Bit 25: the guest's shadow stack was prematurely busy at the exit.
    pub const fn shadow_stack_busy(self) -> bool {
        self.0 & 1 << 25 != 0
    }

    /// Bit 26: a bus lock was detected too ("VMM bus-lock detection").
    pub const fn bus_lock(self) -> bool {
        self.0 & 1 << 26 != 0
    }

    /// Bit 27: the exit came in enclave mode.
    pub const fn enclave(self) -> bool {
        self.0 & 1 << 27 != 0
    }

    /// Bit 28: an MTF exit was pending (only with SMM VM exits).
    pub const fn pending_mtf(self) -> bool {
        self.0 & 1 << 28 != 0
    }

    /// Bit 29: the exit came from VMX root operation (only with SMM VM exits).
    pub const fn from_vmx_root(self) -> bool {
        self.0 & 1 << 29 != 0
    }

    /// Bit 31: no guest ran, the VM entry failed.
    pub const fn entry_failure(self) -> bool {
        self.0 & 1 << 31 != 0
    }
}

impl fmt::Display for ExitReasonField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.basic() {
            Ok(reason) => write!(f, "{} ({})", reason.name(), reason.number())?,
            Err(unknown) => write!(f, "{unknown}")?,
        }
        let flags = [
            (self.shadow_stack_busy(), "shadow stack busy"),
            (self.bus_lock(), "bus lock"),
            (self.enclave(), "enclave mode"),
            (self.pending_mtf(), "pending MTF"),
            (self.from_vmx_root(), "from VMX root operation"),
            (self.entry_failure(), "VM entry failed"),
        ];
        for (_, text) in flags.iter().filter(|(set, _)| *set) {
            write!(f, ", {text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn numbers_of_appendix_c() {
        // One of each neighbourhood of a gap in the numbering.
        for (number, reason) in [
            (0, ExitReason::ExceptionOrNmi),
            (12, ExitReason::Hlt),
            (30, ExitReason::IoInstruction),
            (34, ExitReason::EntryFailureMsrLoading),
            (36, ExitReason::Mwait),
            (37, ExitReason::MonitorTrapFlag),
            (39, ExitReason::Monitor),
            (41, ExitReason::EntryFailureMachineCheck),
            (43, ExitReason::TprBelowThreshold),
            (48, ExitReason::EptViolation),
            (55, ExitReason::Xsetbv),
            (58, ExitReason::Invpcid),
            (70, ExitReason::Enclv),
            (72, ExitReason::EnqcmdPasid),
            (77, ExitReason::Tdcall),
        ] {
            assert_eq!(ExitReason::from_raw(number), Ok(reason));
            assert_eq!(reason.number(), number);
        }
        for gap in [35, 38, 42, 71, 82, 83, 86, 0xffff] {
            assert_eq!(ExitReason::from_raw(gap), Err(UnknownReason(gap)));
        }
    }

    #[test]
    fn every_reason_comes_back_from_its_number() {
        for &reason in ExitReason::ALL {
            assert_eq!(ExitReason::from_raw(reason.number()), Ok(reason));
        }
    }

    #[test]
    fn a_failed_entry_says_so() {
        let field = ExitReasonField(0x8000_0021);
        assert!(field.entry_failure());
        assert_eq!(field.basic(), Ok(ExitReason::EntryFailureGuestState));
        assert_eq!(
            field.to_string(),
            "VM-entry failure due to invalid guest state (33), VM entry failed"
        );
        assert_eq!(
            ExitReasonField(35).to_string(),
            "unknown basic exit reason 35"
        );
    }
}
