//! Why a VMX instruction or a VM entry failed, in words: the VM-instruction error field
//! (SDM vol. 3C, 31.4, table 31-1) and the entries that fail after the host state was
//! checked, which come back as VM exits (27.8; exit reasons 33, 34 and 41).

use core::fmt;

use super::reason::ExitReason;

macro_rules! instruction_errors {
    ($($variant:ident = $number:literal, $text:literal;)*) => {
        /// The VM-instruction error numbers.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum InstructionError {
            $($variant = $number,)*
        }

        impl InstructionError {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// From the field.
            pub const fn from_raw(raw: u32) -> Result<Self, UnknownInstructionError> {
                match raw {
                    $($number => Ok(Self::$variant),)*
                    _ => Err(UnknownInstructionError(raw)),
                }
            }

            /// What went wrong.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

instruction_errors! {
    VmcallInRoot = 1, "VMCALL executed in VMX root operation";
    VmclearInvalidAddress = 2, "VMCLEAR with an invalid physical address";
    VmclearVmxonPointer = 3, "VMCLEAR of the VMXON region";
    VmlaunchNonClear = 4, "VMLAUNCH with a VMCS that is not clear";
    VmresumeNonLaunched = 5, "VMRESUME with a VMCS that was not launched";
    VmresumeAfterVmxoff = 6, "VMRESUME after VMXOFF";
    EntryInvalidControls = 7, "VM entry with invalid control fields";
    EntryInvalidHostState = 8, "VM entry with invalid host-state fields";
    VmptrldInvalidAddress = 9, "VMPTRLD with an invalid physical address";
    VmptrldVmxonPointer = 10, "VMPTRLD of the VMXON region";
    VmptrldWrongRevision = 11, "VMPTRLD with an incorrect VMCS revision identifier";
    UnsupportedField = 12, "VMREAD or VMWRITE of a VMCS field that this CPU does not have";
    VmwriteReadOnlyField = 13, "VMWRITE to a read-only VMCS field";
    VmxonInRoot = 15, "VMXON executed in VMX root operation";
    EntryInvalidExecutiveVmcs = 16, "VM entry with an invalid executive-VMCS pointer";
    EntryNonLaunchedExecutiveVmcs = 17, "VM entry with a non-launched executive VMCS";
    EntryExecutiveVmcsNotVmxon = 18,
        "VM entry with an executive-VMCS pointer that is not the VMXON pointer";
    VmcallNonClear = 19, "VMCALL with a VMCS that is not clear";
    VmcallInvalidExitControls = 20, "VMCALL with invalid VM-exit control fields";
    VmcallWrongMsegRevision = 22, "VMCALL with an incorrect MSEG revision identifier";
    VmxoffUnderDualMonitor = 23, "VMXOFF under dual-monitor treatment of SMIs and SMM";
    VmcallInvalidSmmMonitor = 24, "VMCALL with invalid SMM-monitor features";
    EntryInvalidExecutiveControls = 25,
        "VM entry with invalid VM-execution control fields in the executive VMCS";
    EntryEventsBlockedByMovSs = 26, "VM entry with events blocked by MOV SS";
    InvalidInveptInvvpidOperand = 28, "invalid operand to INVEPT or INVVPID";
}

impl InstructionError {
    /// The number of table 31-1.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether [`super::entry_check`] can name the rule behind it.
    pub const fn is_entry_check(self) -> bool {
        matches!(
            self,
            Self::EntryInvalidControls
                | Self::EntryInvalidHostState
                | Self::EntryEventsBlockedByMovSs
        )
    }
}

impl fmt::Display for InstructionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (VM-instruction error {})",
            self.text(),
            self.number()
        )
    }
}

/// A number that table 31-1 doesn't have (14, 21 and 27 among them).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownInstructionError(pub u32);

impl fmt::Display for UnknownInstructionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown VM-instruction error {}", self.0)
    }
}

/// A VM entry that failed with bit 31 of the exit reason set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryFailure {
    GuestState(GuestStateFailure),
    /// The 1-based number of the entry of the VM-entry MSR-load area.
    MsrLoading {
        entry: u64,
    },
    MachineCheck,
}

/// The exit qualification of reason 33 (27.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestStateFailure {
    /// 0: any of the checks without a number of its own.
    Other,
    /// 2.
    PdpteLoading,
    /// 3: an NMI can't be injected into a guest with blocking by STI.
    NmiWithStiBlocking,
    /// 4.
    VmcsLinkPointer,
    /// A number that the SDM doesn't define.
    Undefined(u64),
}

impl EntryFailure {
    /// `None` for a reason that is no entry failure.
    pub const fn decode(reason: ExitReason, qualification: u64) -> Option<Self> {
        Some(match reason {
            ExitReason::EntryFailureGuestState => Self::GuestState(match qualification {
                0 => GuestStateFailure::Other,
                2 => GuestStateFailure::PdpteLoading,
                3 => GuestStateFailure::NmiWithStiBlocking,
                4 => GuestStateFailure::VmcsLinkPointer,
                other => GuestStateFailure::Undefined(other),
            }),
            ExitReason::EntryFailureMsrLoading => Self::MsrLoading {
                entry: qualification,
            },
            ExitReason::EntryFailureMachineCheck => Self::MachineCheck,
            _ => return None,
        })
    }
}

impl fmt::Display for EntryFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GuestState(failure) => {
                f.write_str("invalid guest state: ")?;
                match failure {
                    GuestStateFailure::Other => f.write_str("a check without a code of its own"),
                    GuestStateFailure::PdpteLoading => {
                        f.write_str("a PDPTE has reserved bits set (2)")
                    }
                    GuestStateFailure::NmiWithStiBlocking => {
                        f.write_str("an NMI was to be injected under blocking by STI (3)")
                    }
                    GuestStateFailure::VmcsLinkPointer => {
                        f.write_str("the VMCS link pointer is invalid (4)")
                    }
                    GuestStateFailure::Undefined(code) => {
                        write!(f, "exit qualification {code}, which is not defined")
                    }
                }
            }
            Self::MsrLoading { entry } => {
                write!(
                    f,
                    "entry {entry} of the VM-entry MSR-load area could not be loaded"
                )
            }
            Self::MachineCheck => f.write_str("a machine check came during VM entry"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn numbers_of_table_31_1() {
        assert_eq!(
            InstructionError::from_raw(7),
            Ok(InstructionError::EntryInvalidControls)
        );
        assert_eq!(
            InstructionError::from_raw(12),
            Ok(InstructionError::UnsupportedField)
        );
        for gap in [0, 14, 21, 27, 29] {
            assert_eq!(
                InstructionError::from_raw(gap),
                Err(UnknownInstructionError(gap))
            );
        }
        assert_eq!(InstructionError::ALL.len(), 25);
        assert_eq!(
            InstructionError::EntryInvalidHostState.to_string(),
            "VM entry with invalid host-state fields (VM-instruction error 8)"
        );
    }

    #[test]
    fn failed_entries_by_qualification() {
        let decode = |q| EntryFailure::decode(ExitReason::EntryFailureGuestState, q).unwrap();
        assert_eq!(
            decode(4),
            EntryFailure::GuestState(GuestStateFailure::VmcsLinkPointer)
        );
        assert!(decode(1).to_string().contains("qualification 1"));
        let msr = EntryFailure::decode(ExitReason::EntryFailureMsrLoading, 2).unwrap();
        assert_eq!(
            msr.to_string(),
            "entry 2 of the VM-entry MSR-load area could not be loaded"
        );
        assert_eq!(EntryFailure::decode(ExitReason::Hlt, 0), None);
    }
}
