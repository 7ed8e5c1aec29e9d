//! What a person gets when a run ends abnormally: the exit by name with its fields, where
//! the guest was, the instruction's bytes, registers, and what the run loop counted.

#![forbid(unsafe_code)]

use std::fmt::Write;

use vmm_core::exit::{EntryInst, VmFail, VmxExit};
use vmm_core::vmx::instruction_error::{EntryFailure, InstructionError};
use vmm_core::vmx::qualification::{
    CrAccess, DebugExceptions, DrAccess, EptViolation, IoQualification, TaskSwitchQualification,
};
use vmm_core::vmx::reason::{ExitReason, ExitReasonField};
use vmmapi::{Access, Gla, GuestPaging, Prot, Reg, SegReg, Translation, Vcpu, VmExit};

use crate::machine::Counters;

/// The longest instruction.
const INSTRUCTION_MAX: u64 = 15;

/// "a read of", for sentences.
pub fn access_text(access: Access) -> &'static str {
    match access {
        Access::Read => "a read of",
        Access::Write => "a write to",
        Access::Execute => "an instruction fetch from",
    }
}

/// An exit that nobody handles or a VM entry that failed, by names (SDM vol. 3C, 28.2 and
/// 31.4).
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

/// The whole report. What can't be read of the vcpu is left out with the reason.
pub fn compose(vcpu: &Vcpu, exit: Option<&VmExit>, why: &str, counters: &Counters) -> String {
    let mut text = format!("vcpu {} of {}: {why}\n", vcpu.id().0, vcpu.vm().name());
    if let Some(exit) = exit {
        let _ = writeln!(
            text,
            "  rip {:#018x}, instruction length {}",
            exit.rip, exit.inst_length
        );
        match instruction_bytes(vcpu, exit.rip) {
            Ok(bytes) if bytes.is_empty() => {
                let _ = writeln!(text, "  instruction bytes: none, rip is not mapped");
            }
            Ok(bytes) => {
                let bytes: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
                let _ = writeln!(text, "  instruction bytes: {}", bytes.join(" "));
            }
            Err(error) => {
                let _ = writeln!(text, "  instruction bytes: {error}");
            }
        }
    }
    match registers(vcpu) {
        Ok(registers) => text.push_str(&registers),
        Err(error) => {
            let _ = writeln!(text, "  registers: {error}");
        }
    }
    let _ = writeln!(text, "  exits to userland: {counters}");
    text
}

/// Up to 15 bytes from RIP on, as far as they are mapped.
fn instruction_bytes(vcpu: &Vcpu, rip: u64) -> Result<Vec<u8>, vmmapi::Error> {
    let cs = vcpu.desc(SegReg::Cs)?;
    let cpl = (vcpu.desc(SegReg::Ss)?.access >> 5 & 3) as u8;
    let paging = vcpu.guest_paging(cpl)?;
    let base = if paging.cpu_mode == vmmapi::CpuMode::Long64 {
        0
    } else {
        cs.base
    };
    let start = base.wrapping_add(rip);
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < INSTRUCTION_MAX {
        let at = Gla(start.wrapping_add(bytes.len() as u64));
        let left = INSTRUCTION_MAX - bytes.len() as u64;
        let Some(mut part) = page_bytes(vcpu, &paging, at, left)? else {
            break;
        };
        bytes.append(&mut part);
    }
    Ok(bytes)
}

/// The bytes at a linear address up to the end of its page; `None` if nothing is there.
fn page_bytes(
    vcpu: &Vcpu,
    paging: &GuestPaging,
    at: Gla,
    max: u64,
) -> Result<Option<Vec<u8>>, vmmapi::Error> {
    let Translation::Gpa(gpa) = vcpu.gla2gpa_nofault(paging, at, Prot::EXEC)? else {
        return Ok(None);
    };
    let len = max.min(4096 - at.page_offset());
    // Outside of memory there is nothing to show.
    Ok(vcpu
        .vm()
        .map_gpa(gpa, len as usize)
        .ok()
        .map(|range| range.to_vec()))
}

fn registers(vcpu: &Vcpu) -> Result<String, vmmapi::Error> {
    const GENERAL: [(Reg, &str); 24] = [
        (Reg::Rax, "rax"),
        (Reg::Rbx, "rbx"),
        (Reg::Rcx, "rcx"),
        (Reg::Rdx, "rdx"),
        (Reg::Rsi, "rsi"),
        (Reg::Rdi, "rdi"),
        (Reg::Rbp, "rbp"),
        (Reg::Rsp, "rsp"),
        (Reg::R8, "r8"),
        (Reg::R9, "r9"),
        (Reg::R10, "r10"),
        (Reg::R11, "r11"),
        (Reg::R12, "r12"),
        (Reg::R13, "r13"),
        (Reg::R14, "r14"),
        (Reg::R15, "r15"),
        (Reg::Rip, "rip"),
        (Reg::Rflags, "rflags"),
        (Reg::Cr0, "cr0"),
        (Reg::Cr2, "cr2"),
        (Reg::Cr3, "cr3"),
        (Reg::Cr4, "cr4"),
        (Reg::Efer, "efer"),
        (Reg::Dr7, "dr7"),
    ];
    const SEGMENTS: [(Reg, SegReg, &str); 8] = [
        (Reg::Cs, SegReg::Cs, "cs"),
        (Reg::Ss, SegReg::Ss, "ss"),
        (Reg::Ds, SegReg::Ds, "ds"),
        (Reg::Es, SegReg::Es, "es"),
        (Reg::Fs, SegReg::Fs, "fs"),
        (Reg::Gs, SegReg::Gs, "gs"),
        (Reg::Tr, SegReg::Tr, "tr"),
        (Reg::Ldtr, SegReg::Ldtr, "ldtr"),
    ];
    let values = vcpu.registers(GENERAL.map(|(reg, _)| reg))?;
    let mut text = String::new();
    for (n, ((_, name), value)) in GENERAL.iter().zip(values).enumerate() {
        let end = if n % 4 == 3 { '\n' } else { ' ' };
        let _ = write!(text, "  {name:<6} {value:016x}{end}");
    }
    for (reg, seg, name) in SEGMENTS {
        let selector = vcpu.register(reg)?;
        let desc = vcpu.desc(seg)?;
        let _ = writeln!(
            text,
            "  {name:<6} {selector:04x} base {:016x} limit {:08x} access {:05x}",
            desc.base, desc.limit, desc.access
        );
    }
    Ok(text)
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
