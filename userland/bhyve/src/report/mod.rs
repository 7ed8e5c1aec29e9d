//! What a person gets when a run ends abnormally: the exit by name with its fields
//! ([`exits`]), where the guest was, the [`instruction`] there, registers, what the run loop
//! counted, and which option would help, if one would.

#![forbid(unsafe_code)]

mod exits;
mod instruction;

use std::fmt::Write;

use vmmapi::{Access, Reg, SegReg, Vcpu, VmExit};

pub use self::exits::vmx_text;
use crate::machine::{Counters, Machine};

/// "a read of", for sentences.
pub fn access_text(access: Access) -> &'static str {
    match access {
        Access::Read => "a read of",
        Access::Write => "a write to",
        Access::Execute => "an instruction fetch from",
    }
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
        let _ = writeln!(text, "  {}", instruction::describe(vcpu, exit.rip));
    }
    add_state(&mut text, vcpu, counters);
    text
}

/// Registers, and what the run loop counted.
fn add_state(text: &mut String, vcpu: &Vcpu, counters: &Counters) {
    match registers(vcpu) {
        Ok(registers) => text.push_str(&registers),
        Err(error) => {
            let _ = writeln!(text, "  registers: {error}");
        }
    }
    let _ = writeln!(text, "  exits to userland: {counters}");
}

/// The report of a triple fault: of each vcpu, for the kernel doesn't say whose it was.
pub fn triple_fault(machine: &Machine) -> String {
    let mut text = format!("{}: the guest ended by a triple fault\n", machine.vm.name());
    for cpu in &machine.cpus {
        let id = cpu.vcpu.id().0;
        match cpu.vcpu.register(Reg::Rip) {
            Ok(rip) => {
                let _ = writeln!(text, "vcpu {id}: rip {rip:#018x}");
                let _ = writeln!(text, "  {}", instruction::describe(&cpu.vcpu, rip));
            }
            Err(error) => {
                let _ = writeln!(text, "vcpu {id}: {error}");
                continue;
            }
        }
        add_state(&mut text, &cpu.vcpu, &cpu.counters);
    }
    let hint = if machine.strict_msr && machine.has_unknown_msrs() {
        "the guest got #GP for an MSR unknown here (see above), which it may not have expected: \
         -w lets such accesses pass"
    } else {
        "an exception that the guest had no handler for, such as a page fault before its \
         interrupt table is there; a kernel loaded in another format than its own does that, too \
         (bhyveload --format)"
    };
    let _ = writeln!(text, "  hint: {hint}");
    text
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
