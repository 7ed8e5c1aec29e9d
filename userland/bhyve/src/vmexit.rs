//! What is done about each exit (steps (21) and (22)). The handler table is one match
//! without a wildcard: an exit that the kernel may report is answered here, or ends the
//! run with a report.

#![forbid(unsafe_code)]

use std::time::Duration;

use vmm_core::exit::{Inout, InoutStr, InstEmul, VmxExit};
use vmmapi::{CpuSet, Error, Exit, Gla, Prot, Reg, SuspendHow, VmExit};

use crate::inout_str::{self, ElementMemory, Stop};
use crate::inst_emul::{self, Emulated};
use crate::linear;
use crate::machine::{Counter, Cpu, Machine};
use crate::msr;
use crate::ports::Width;
use crate::report;
use crate::segment::{self, Operation, SegmentFault};
use crate::spinup_ap::spinup_ap;
use crate::task_switch::task_switch;

/// What a handler answers (step (23)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The next instruction.
    Continue,
    /// The same instruction again.
    Restart,
    /// Another vcpu's turn on this host CPU, then the next instruction.
    Switch,
    /// The guest asked for a reset: the run ends.
    Reset,
    /// The VM ended otherwise.
    End(SuspendHow),
    /// The run can't go on; why.
    Abort(String),
}

const VECTOR_BP: u8 = 3;
const VECTOR_UD: u8 = 6;
const VECTOR_SS: u8 = 12;
const VECTOR_GP: u8 = 13;
const VECTOR_AC: u8 = 17;

/// Delivery modes of an IPI as the kernel reports them (SDM vol. 3A, figure 11-12).
const DELIVERY_INIT: u32 = 5 << 8;
const DELIVERY_STARTUP: u32 = 6 << 8;

/// How long a stopped vcpu's thread waits before it asks the kernel again.
const STOPPED: Duration = Duration::from_millis(20);

/// Answers an exit. An error is that of a call that must work; it ends the run.
pub fn handle(machine: &Machine, cpu: &Cpu, exit: &VmExit) -> Result<Answer, Error> {
    cpu.counters.count(counter(&exit.exit));
    match &exit.exit {
        Exit::Inout(io) => vmexit_inout(machine, cpu, exit, io),
        Exit::InoutStr(io) => vmexit_inout_str(machine, cpu, exit, io),
        Exit::Vmx(vmx) => Ok(vmexit_vmx(vmx)),
        // The end of a time slice, where the vcpus take turns.
        Exit::Bogus if machine.mux => Ok(Answer::Switch),
        Exit::Bogus | Exit::Reqidle | Exit::Rendezvous => Ok(Answer::Continue),
        Exit::Rdmsr { code } => vmexit_rdmsr(machine, cpu, exit, *code),
        Exit::Wrmsr { code, value } => vmexit_wrmsr(machine, cpu, exit, *code, *value),
        // Without a debugger nobody waits for the step.
        Exit::Mtrap => Ok(Answer::Continue),
        // The kernel sends these to userland so that the host CPU gets something else to do.
        Exit::Hlt { .. } | Exit::Pause => Ok(Answer::Switch),
        Exit::Paging { gpa, access } => Ok(Answer::Abort(format!(
            "{} guest-physical {gpa:#x}, which no memory answers",
            report::access_text(*access)
        ))),
        Exit::InstEmul(emul) => vmexit_inst_emul(machine, cpu, exit, emul),
        Exit::SpinupAp { vcpu, rip } => spinup_ap(machine, *vcpu, *rip),
        Exit::Suspended(SuspendHow::Reset) => Ok(Answer::Reset),
        Exit::Suspended(how) => Ok(Answer::End(*how)),
        Exit::Debug => {
            // Stopped: an application processor before its start, or by a debugger.
            cpu.gate.wait(STOPPED);
            Ok(Answer::Continue)
        }
        Exit::Bpt { inst_length } => vmexit_bpt(cpu, *inst_length),
        Exit::Ipi { mode, vector, dest } => vmexit_ipi(machine, *mode, *vector, dest),
        // Instructions that the guest's CPUID doesn't offer.
        Exit::Monitor | Exit::Mwait | Exit::Vminsn => inject_fault(cpu, VECTOR_UD, None),
        Exit::TaskSwitch(task) => {
            let next_ip = exit.rip.wrapping_add(exit.inst_length.into()) as u32;
            task_switch(&mut &cpu.vcpu, task, next_ip)?;
            Ok(Answer::Continue)
        }
        Exit::Db { .. } => Ok(Answer::Abort(
            "a single step without a debugger: the capability rflags_tf is on (bhyvectl \
             --capname=rflags_tf --setcap=0 turns it off)"
                .to_owned(),
        )),
        Exit::IoapicEoi { vector } => Ok(Answer::Abort(format!(
            "an EOI of vector {vector:#x} for the I/O APIC, which the kernel should have handled"
        ))),
        Exit::Svm {
            exitcode,
            exitinfo1,
            exitinfo2,
        } => Ok(Answer::Abort(format!(
            "an exit of AMD SVM that the kernel doesn't handle: exitcode {exitcode:#x}, \
             exitinfo1 {exitinfo1:#x}, exitinfo2 {exitinfo2:#x}"
        ))),
        Exit::Deprecated1 => Ok(Answer::Abort(
            "an exit code that is no longer in use (12)".to_owned(),
        )),
        Exit::Unknown { exitcode } => Ok(Answer::Abort(format!(
            "an exit code unknown to this program ({exitcode})"
        ))),
    }
}

fn counter(exit: &Exit) -> Counter {
    match exit {
        Exit::Inout(_) => Counter::Inout,
        Exit::InoutStr(_) => Counter::InoutString,
        Exit::Rdmsr { .. } => Counter::Rdmsr,
        Exit::Wrmsr { .. } => Counter::Wrmsr,
        Exit::Bogus => Counter::Bogus,
        Exit::Reqidle => Counter::Reqidle,
        Exit::Hlt { .. } => Counter::Hlt,
        Exit::Pause => Counter::Pause,
        Exit::Mtrap => Counter::Mtrap,
        Exit::Debug => Counter::Debug,
        Exit::Ipi { .. } => Counter::Ipi,
        Exit::InstEmul(_) => Counter::InstEmul,
        Exit::Vmx(_)
        | Exit::Paging { .. }
        | Exit::SpinupAp { .. }
        | Exit::Deprecated1
        | Exit::Rendezvous
        | Exit::IoapicEoi { .. }
        | Exit::Suspended(_)
        | Exit::TaskSwitch(_)
        | Exit::Monitor
        | Exit::Mwait
        | Exit::Svm { .. }
        | Exit::Vminsn
        | Exit::Bpt { .. }
        | Exit::Db { .. }
        | Exit::Unknown { .. } => Counter::Other,
    }
}

/// A fault at the instruction of the exit.
fn inject_fault(cpu: &Cpu, vector: u8, error_code: Option<u32>) -> Result<Answer, Error> {
    cpu.vcpu.inject_exception(vector, error_code, true)?;
    Ok(Answer::Continue)
}

// ---- I/O ports -------------------------------------------------------------------------

fn vmexit_inout(machine: &Machine, cpu: &Cpu, exit: &VmExit, io: &Inout) -> Result<Answer, Error> {
    let Some(width) = Width::from_bytes(io.bytes) else {
        return Ok(Answer::Abort(format!(
            "an I/O access of {} bytes",
            io.bytes
        )));
    };
    if !io.input {
        let handled = machine
            .board
            .ports
            .write(io.port, width, io.eax & width.mask());
        return Ok(unhandled(machine, handled, io, exit).unwrap_or(Answer::Continue));
    }
    let value = machine.board.ports.read(io.port, width);
    if let Some(abort) = unhandled(machine, value.is_some(), io, exit) {
        return Ok(abort);
    }
    let value = value.unwrap_or(width.mask());
    cpu.vcpu.set_register(
        Reg::Rax,
        merge_rax(width, value, || cpu.vcpu.register(Reg::Rax))?,
    )?;
    Ok(Answer::Continue)
}

/// RAX after an IN: EAX replaces all of it, AL and AX only their bits. The exit has no more
/// than EAX, so that the rest is read only when it stays.
fn merge_rax(
    width: Width,
    value: u32,
    rax: impl FnOnce() -> Result<u64, Error>,
) -> Result<u64, Error> {
    match width {
        Width::Dword => Ok(value.into()),
        Width::Byte | Width::Word => {
            let mask = u64::from(width.mask());
            Ok(rax()? & !mask | u64::from(value) & mask)
        }
    }
}

/// The end of a strict run (-e) at a port without a device.
fn unhandled(machine: &Machine, handled: bool, io: &Inout, exit: &VmExit) -> Option<Answer> {
    if handled || !machine.strict_io {
        return None;
    }
    let direction = if io.input { "in" } else { "out" };
    let suffix = match io.bytes {
        1 => 'b',
        2 => 'w',
        _ => 'l',
    };
    Some(Answer::Abort(format!(
        "unhandled {direction}{suffix} {:#06x} at {:#x}: no device is there, and -e ends the run",
        io.port, exit.rip
    )))
}

/// Linear memory of the vcpu that executes INS or OUTS.
struct Linear<'a> {
    cpu: &'a Cpu,
    io: &'a InoutStr,
}

impl ElementMemory for Linear<'_> {
    type Place = linear::Place;

    fn translate(
        &mut self,
        gla: Gla,
        len: usize,
        operation: Operation,
    ) -> Result<Option<Self::Place>, Error> {
        let prot = match operation {
            Operation::Read => Prot::READ,
            Operation::Write => Prot::WRITE,
        };
        linear::translate(&self.cpu.vcpu, &self.io.paging, gla, len, prot)
    }

    fn load(&mut self, place: &Self::Place, bytes: &mut [u8]) -> Result<(), Error> {
        linear::load(&self.cpu.vcpu, place, bytes)
    }

    fn store(&mut self, place: &Self::Place, bytes: &[u8]) -> Result<(), Error> {
        linear::store(&self.cpu.vcpu, place, bytes)
    }
}

fn vmexit_inout_str(
    machine: &Machine,
    cpu: &Cpu,
    exit: &VmExit,
    io: &InoutStr,
) -> Result<Answer, Error> {
    let Some(width) = Width::from_bytes(io.inout.bytes) else {
        return Ok(Answer::Abort(format!(
            "an I/O access of {} bytes",
            io.inout.bytes
        )));
    };
    let mut memory = Linear { cpu, io };
    let progress = inout_str::run(
        io,
        width,
        &machine.board.ports,
        machine.strict_io,
        &mut memory,
    )?;
    let index = if io.inout.input { Reg::Rdi } else { Reg::Rsi };
    set_addressed(cpu, index, progress.index, io.addrsize)?;
    if io.inout.rep {
        set_addressed(cpu, Reg::Rcx, progress.count, io.addrsize)?;
    }
    match progress.stop {
        Stop::Done | Stop::Faulted => Ok(Answer::Continue),
        Stop::More => Ok(Answer::Restart),
        Stop::Segment(SegmentFault::GeneralProtection) => inject_fault(cpu, VECTOR_GP, Some(0)),
        Stop::Segment(SegmentFault::Stack) => inject_fault(cpu, VECTOR_SS, Some(0)),
        Stop::Alignment => inject_fault(cpu, VECTOR_AC, Some(0)),
        Stop::Unhandled => {
            Ok(unhandled(machine, false, &io.inout, exit).unwrap_or(Answer::Continue))
        }
    }
}

/// Writes a register with an operand of the address size: 32 bits clear the upper half,
/// 16 bits leave the rest (SDM vol. 1, 3.4.1.1).
fn set_addressed(cpu: &Cpu, reg: Reg, value: u64, addrsize: u8) -> Result<(), Error> {
    let value = if addrsize == 2 {
        let mask = segment::address_mask(2);
        cpu.vcpu.register(reg)? & !mask | value & mask
    } else {
        value
    };
    cpu.vcpu.set_register(reg, value)
}

// ---- Memory-mapped devices -------------------------------------------------------------

/// Between memory and 4 GiB nobody needs to be: reads give all ones and writes are lost, as
/// on a PCI bus. Elsewhere the access is a mistake of the guest or of this program.
fn vmexit_inst_emul(
    machine: &Machine,
    cpu: &Cpu,
    exit: &VmExit,
    emul: &InstEmul,
) -> Result<Answer, Error> {
    Ok(
        match inst_emul::emulate(&cpu.vcpu, exit, emul, machine.board.mmio.as_ref())? {
            Emulated::Done => Answer::Continue,
            Emulated::Repeat => Answer::Restart,
            Emulated::Unclaimed(access) if machine.pci_hole().contains(&access.gpa.get()) => {
                if access.repeat {
                    Answer::Restart
                } else {
                    Answer::Continue
                }
            }
            Emulated::Unclaimed(access) => Answer::Abort(format!(
                "{} guest-physical {:#x} ({} bytes), where neither memory nor a device is (memory \
                 ends at {:#x}; -m gives more of it, -s adds devices)",
                if access.write {
                    "a write to"
                } else {
                    "a read of"
                },
                access.gpa,
                access.size,
                machine.memory_end(),
            )),
            Emulated::Unsupported(error) => Answer::Abort(format!(
                "the instruction at {:#x} accesses guest-physical {:#x}, where no memory is, and \
                 can't be emulated: {error:?}",
                exit.rip, emul.gpa
            )),
        },
    )
}

// ---- MSRs ------------------------------------------------------------------------------

fn vmexit_rdmsr(machine: &Machine, cpu: &Cpu, exit: &VmExit, code: u32) -> Result<Answer, Error> {
    let value = match msr::read(code) {
        Some(value) => value,
        None => {
            report_unknown_msr(machine, cpu, exit, false, code, "read as 0");
            if machine.strict_msr {
                return inject_fault(cpu, VECTOR_GP, Some(0));
            }
            0
        }
    };
    cpu.vcpu
        .set_register(Reg::Rax, value & u64::from(u32::MAX))?;
    cpu.vcpu.set_register(Reg::Rdx, value >> 32)?;
    Ok(Answer::Continue)
}

fn vmexit_wrmsr(
    machine: &Machine,
    cpu: &Cpu,
    exit: &VmExit,
    code: u32,
    value: u64,
) -> Result<Answer, Error> {
    if !msr::write_is_ignored(code) {
        report_unknown_msr(
            machine,
            cpu,
            exit,
            true,
            code,
            &format!("{value:#x}, ignored"),
        );
        if machine.strict_msr {
            return inject_fault(cpu, VECTOR_GP, Some(0));
        }
    }
    Ok(Answer::Continue)
}

/// One line for the first access of each kind to each MSR, or for all of them
/// (x86.verbosemsr).
fn report_unknown_msr(
    machine: &Machine,
    cpu: &Cpu,
    exit: &VmExit,
    write: bool,
    code: u32,
    lenient: &str,
) {
    if machine.first_unknown_msr(write, code) || machine.verbose_msr {
        let instruction = if write { "wrmsr" } else { "rdmsr" };
        let answer = if machine.strict_msr {
            "#GP (-w would let it pass)"
        } else {
            lenient
        };
        eprintln!(
            "bhyve: vcpu {}: {instruction} of unknown MSR {code:#x} at rip {:#x}: {answer}\r",
            cpu.vcpu.id().0,
            exit.rip
        );
    }
}

// ---- The rest --------------------------------------------------------------------------

fn vmexit_vmx(exit: &VmxExit) -> Answer {
    Answer::Abort(report::vmx_text(exit))
}

/// A breakpoint of the guest's own, seen because the capability bpt_exit is on: it gets its
/// #BP, a trap behind the INT3.
fn vmexit_bpt(cpu: &Cpu, inst_length: u32) -> Result<Answer, Error> {
    cpu.vcpu
        .set_register(Reg::EntryInstLength, inst_length.into())?;
    cpu.vcpu.inject_exception(VECTOR_BP, None, false)?;
    Ok(Answer::Continue)
}

/// An INIT stops the vcpus it is for, a STARTUP starts them at its vector's page.
fn vmexit_ipi(machine: &Machine, mode: u32, vector: u8, dest: &CpuSet) -> Result<Answer, Error> {
    match mode {
        DELIVERY_INIT => {
            for cpu in dest.iter().filter_map(|id| machine.cpu(id)) {
                // A vcpu that is stopped already stays so.
                match cpu.vcpu.suspend() {
                    Err(error) if !error.is(libc::EALREADY) => return Err(error),
                    _ => {}
                }
            }
        }
        DELIVERY_STARTUP => {
            for id in dest.iter() {
                spinup_ap(machine, id, u64::from(vector) << 12)?;
            }
        }
        _ => {
            return Ok(Answer::Abort(format!(
                "an IPI of delivery mode {mode:#x} (vector {vector:#x}), which only the kernel \
                 can deliver"
            )));
        }
    }
    Ok(Answer::Continue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_in_keeps_the_rest_of_rax_and_does_not_ask_for_it_otherwise() {
        let rax = || Ok(0x1122_3344_5566_7788);
        assert_eq!(merge_rax(Width::Byte, 0xff, rax), Ok(0x1122_3344_5566_77ff));
        assert_eq!(
            merge_rax(Width::Word, 0xabcd, rax),
            Ok(0x1122_3344_5566_abcd)
        );
        let unasked = || panic!("RAX was read");
        assert_eq!(
            merge_rax(Width::Dword, 0xffff_ffff, unasked),
            Ok(0xffff_ffff)
        );
    }
}
