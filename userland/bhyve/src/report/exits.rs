//! VM exits that nobody handles, and VM entries that failed, by names (SDM vol. 3C, 28.2
//! and 31.4).

#![forbid(unsafe_code)]

use std::fmt::Write;

use vmm_core::exit::{EntryInst, VmFail, VmxExit};
use vmm_core::vmx::instruction_error::{EntryFailure, InstructionError};
use vmm_core::vmx::qualification::{
    CrAccess, DebugExceptions, DrAccess, EptViolation, IoQualification, TaskSwitchQualification,
};
use vmm_core::vmx::reason::{ExitReason, ExitReasonField};

/// Reason, qualification and what they say.
pub fn vmx_text(exit: &VmxExit) -> String {
    match exit {
        VmxExit::Exit {
            reason,
            qualification,
        } => {
            let field = ExitReasonField(*reason);
            let failed = field.basic().is_ok_and(ExitReason::is_entry_failure);
            let mut text = if failed {
                format!("the VM entry failed: {field}")
            } else {
                format!("an exit that the kernel doesn't handle: {field}")
            };
            let decoded = match field.basic() {
                Ok(reason) => qualification_text(reason, *qualification),
                Err(_) => None,
            };
            let _ = write!(text, "\n  qualification {qualification:#x}");
            if let Some(decoded) = decoded {
                let _ = write!(text, ": {decoded}");
            }
            text
        }
        VmxExit::EntryFailed { inst, status } => {
            let inst = match inst {
                EntryInst::Vmresume => "VMRESUME",
                EntryInst::Vmlaunch => "VMLAUNCH",
            };
            match status {
                VmFail::Invalid => {
                    format!("{inst} failed: there is no current VMCS (VMfailInvalid)")
                }
                VmFail::Valid(number) => match InstructionError::from_raw(*number) {
                    Ok(error) => format!("{inst} failed: {error}"),
                    Err(unknown) => format!("{inst} failed: {unknown}"),
                },
            }
        }
    }
}

/// The exit qualification by its fields; `None` for reasons that have none.
fn qualification_text(reason: ExitReason, qualification: u64) -> Option<String> {
    if let Some(failure) = EntryFailure::decode(reason, qualification) {
        return Some(failure.to_string());
    }
    Some(match reason {
        ExitReason::IoInstruction => format!("{:?}", IoQualification::from_raw(qualification)?),
        ExitReason::CrAccess => format!("{:?}", CrAccess::from_raw(qualification)),
        ExitReason::MovDr => format!("{:?}", DrAccess::from_raw(qualification)),
        ExitReason::EptViolation => {
            let bits = EptViolation::from_bits_retain(qualification);
            bits.iter_names()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
                .join(" | ")
        }
        ExitReason::ExceptionOrNmi if qualification != 0 => {
            let bits = DebugExceptions::from_bits_retain(qualification);
            bits.iter_names()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
                .join(" | ")
        }
        ExitReason::TaskSwitch => {
            format!("{:?}", TaskSwitchQualification::from_raw(qualification))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unhandled_exits_are_named_with_their_qualification() {
        let text = vmx_text(&VmxExit::Exit {
            reason: 48,
            qualification: 2,
        });
        assert!(text.contains("EPT violation (48)"), "{text}");
        assert!(text.contains("WRITE"), "{text}");
        let text = vmx_text(&VmxExit::Exit {
            reason: 10,
            qualification: 0,
        });
        assert!(
            text.contains("CPUID (10)") && text.ends_with("qualification 0x0"),
            "{text}"
        );
        let text = vmx_text(&VmxExit::Exit {
            reason: 999,
            qualification: 5,
        });
        assert!(text.contains("999") && text.contains("0x5"), "{text}");
    }

    #[test]
    fn failed_entries_are_named_with_reason_qualification_and_instruction_error() {
        let text = vmx_text(&VmxExit::Exit {
            reason: 33,
            qualification: 4,
        });
        assert!(text.starts_with("the VM entry failed"), "{text}");
        assert!(text.contains("link pointer"), "{text}");
        let failed = |status| {
            vmx_text(&VmxExit::EntryFailed {
                inst: EntryInst::Vmlaunch,
                status,
            })
        };
        let text = failed(VmFail::Valid(7));
        assert!(
            text.starts_with("VMLAUNCH failed: ") && text.contains('7'),
            "{text}"
        );
        assert!(failed(VmFail::Invalid).contains("no current VMCS"));
        assert!(failed(VmFail::Valid(12345)).contains("12345"));
    }
}
