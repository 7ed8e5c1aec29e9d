//! Execution of one instruction. All its operands are translated and checked first, then
//! memory is read and written, registers and flags come last: a fault leaves everything as
//! it was (SDM vol. 3A, 6.5). RIP is left to the caller.

use super::alu;
use super::instruction::{
    Address, BinaryOp, BitOp, Extend, Instruction, Operation, Register, Size, Source, Target,
};
use super::machine::Machine;
use super::operand::{Place, Stop, effective, locate, read_register, read_source, write_register};
use super::string;
use crate::exit::Access;
use crate::regs::{CpuMode, Reg, SegReg};
use crate::types::{Gla, Vector};

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Executed: the guest goes on `len` bytes further, after a #DB if RFLAGS.TF was set
    /// (`trap`; with DR6.BS).
    Done { len: u8, trap: bool },
    /// A string operation that is not finished: the same instruction again, once the guest
    /// had a chance to take interrupts.
    Repeat { trap: bool },
    /// This exception, at the instruction.
    Fault {
        vector: Vector,
        error_code: Option<u32>,
        /// The address of a page fault.
        cr2: Option<Gla>,
    },
    /// A fault that [`Machine::translate`] has given to the guest already.
    Injected,
}

const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_RF: u64 = 1 << 16;
/// SS.B in the access rights (SDM table 25-2): the stack pointer is ESP, not SP.
const ACCESS_BIG: u32 = 1 << 14;

/// Executes `inst` on `machine`, whose RIP is at it. An error is the machine's; what of a
/// string operation was done before it stays done.
pub fn execute<M: Machine>(inst: &Instruction, machine: &mut M) -> Result<Outcome, M::Error> {
    let rflags = machine.register(Reg::Rflags)?;
    let trap = rflags & RFLAGS_TF != 0;
    let finished = match operate(inst, rflags, machine) {
        Ok(finished) => finished,
        Err(Stop::Outcome(outcome)) => return Ok(outcome),
        Err(Stop::Machine(error)) => return Err(error),
    };
    if !finished {
        return Ok(Outcome::Repeat { trap });
    }
    if rflags & RFLAGS_RF != 0 {
        // RF covers one instruction (SDM vol. 3B, 18.3.1.1).
        let rflags = machine.register(Reg::Rflags)?;
        machine.set_register(Reg::Rflags, rflags & !RFLAGS_RF)?;
    }
    Ok(Outcome::Done {
        len: inst.len,
        trap,
    })
}

/// Whether the instruction is finished: a string operation may not be.
fn operate<M: Machine>(
    inst: &Instruction,
    rflags: u64,
    machine: &mut M,
) -> Result<bool, Stop<M::Error>> {
    let size = inst.size;
    match inst.operation {
        Operation::Load { to, extend } => {
            let value = memory(inst, machine, Access::Read)?.load(machine)?;
            let value = match extend {
                Extend::Zero => value,
                Extend::Sign => size.sign_extend(value),
            };
            write_register(machine, to, value)?;
        }
        Operation::Store { from } => {
            let value = read_source(machine, from)?;
            memory(inst, machine, Access::Write)?.store(machine, value)?;
        }
        Operation::Binary { op, target } => binary(inst, op, target, rflags, machine)?,
        Operation::Unary(op) => {
            let place = memory(inst, machine, Access::Write)?;
            let old = place.load(machine)?;
            let new = alu::unary(op, size, old, rflags);
            place.store(machine, new.value)?;
            machine.set_register(Reg::Rflags, new.rflags)?;
        }
        Operation::Bit { op, index } => bit(inst, op, index, rflags, machine)?,
        Operation::Cmov { to, condition } => {
            let value = memory(inst, machine, Access::Read)?.load(machine)?;
            let value = if alu::condition(condition, rflags) {
                value
            } else {
                // Writing it back clears the upper half of a 32-bit register all the same.
                read_register(machine, to)?
            };
            write_register(machine, to, value)?;
        }
        Operation::Set { condition } => {
            let value = alu::condition(condition, rflags);
            memory(inst, machine, Access::Write)?.store(machine, value.into())?;
        }
        Operation::Xchg { with } => {
            let place = memory(inst, machine, Access::Write)?;
            let new = read_register(machine, with)?;
            let old = place.load(machine)?;
            place.store(machine, new)?;
            write_register(machine, with, old)?;
        }
        Operation::Xadd { with } => {
            let place = memory(inst, machine, Access::Write)?;
            let addend = read_register(machine, with)?;
            let old = place.load(machine)?;
            let sum = alu::binary(BinaryOp::Add, size, old, addend, rflags);
            place.store(machine, sum.value)?;
            write_register(machine, with, old)?;
            machine.set_register(Reg::Rflags, sum.rflags)?;
        }
        Operation::Cmpxchg { new } => cmpxchg(inst, new, rflags, machine)?,
        Operation::Push => push(inst, machine)?,
        Operation::Pop => pop(inst, machine)?,
        Operation::CacheLine => {
            memory(inst, machine, Access::Read)?;
        }
        Operation::String(op) => return string::run(inst, op, rflags, machine),
    }
    Ok(true)
}

/// The memory operand.
fn memory<M: Machine>(
    inst: &Instruction,
    machine: &mut M,
    access: Access,
) -> Result<Place, Stop<M::Error>> {
    let Address { segment, size, .. } = inst.address;
    let offset = effective(machine, &inst.address, inst.len)?;
    locate(machine, segment, offset, size, inst.size, access)
}

fn binary<M: Machine>(
    inst: &Instruction,
    op: BinaryOp,
    target: Target,
    rflags: u64,
    machine: &mut M,
) -> Result<(), Stop<M::Error>> {
    let flags_only = matches!(op, BinaryOp::Cmp | BinaryOp::Test);
    let computed = match target {
        Target::Memory(source) => {
            let access = if flags_only {
                Access::Read
            } else {
                Access::Write
            };
            let place = memory(inst, machine, access)?;
            let source = read_source(machine, source)?;
            let old = place.load(machine)?;
            let computed = alu::binary(op, inst.size, old, source, rflags);
            if !flags_only {
                place.store(machine, computed.value)?;
            }
            computed
        }
        Target::Register(register) => {
            let source = memory(inst, machine, Access::Read)?.load(machine)?;
            let old = read_register(machine, register)?;
            let computed = alu::binary(op, inst.size, old, source, rflags);
            if !flags_only {
                write_register(machine, register, computed.value)?;
            }
            computed
        }
    };
    machine.set_register(Reg::Rflags, computed.rflags)?;
    Ok(())
}

/// A register's bit number is signed and selects, beyond the operand, another one of its
/// size in the bit string that begins at the address (SDM vol. 1, 3.1.1.9 of vol. 2).
fn bit<M: Machine>(
    inst: &Instruction,
    op: BitOp,
    index: Source,
    rflags: u64,
    machine: &mut M,
) -> Result<(), Stop<M::Error>> {
    let size = inst.size;
    let number = read_source(machine, index)?;
    let away = match index {
        Source::Register(_) => {
            let operands = size.sign_extend(number) as i64 / i64::from(size.bits());
            let rest = size.sign_extend(number) as i64 % i64::from(size.bits());
            // Rounded down.
            let operands = if rest < 0 { operands - 1 } else { operands };
            operands * i64::from(size.bytes())
        }
        Source::Immediate(_) => 0,
    };
    let offset = effective(machine, &inst.address, inst.len)?.wrapping_add(away as u64);
    let access = if op == BitOp::Bt {
        Access::Read
    } else {
        Access::Write
    };
    let Address {
        segment,
        size: address_size,
        ..
    } = inst.address;
    let place = locate(machine, segment, offset, address_size, size, access)?;
    let old = place.load(machine)?;
    let bit = (number & u64::from(size.bits() - 1)) as u32;
    let new = alu::bit(op, old, bit, rflags);
    if op != BitOp::Bt {
        place.store(machine, new.value)?;
    }
    machine.set_register(Reg::Rflags, new.rflags)?;
    Ok(())
}

/// Memory is written in either case, with its old value if it differs.
fn cmpxchg<M: Machine>(
    inst: &Instruction,
    new: Register,
    rflags: u64,
    machine: &mut M,
) -> Result<(), Stop<M::Error>> {
    let accumulator = Register {
        reg: Reg::Rax,
        size: inst.size,
        high: false,
    };
    let place = memory(inst, machine, Access::Write)?;
    let expected = read_register(machine, accumulator)?;
    let new = read_register(machine, new)?;
    let old = place.load(machine)?;
    let compared = alu::binary(BinaryOp::Cmp, inst.size, expected, old, rflags);
    if expected == old {
        place.store(machine, new)?;
    } else {
        place.store(machine, old)?;
        write_register(machine, accumulator, old)?;
    }
    machine.set_register(Reg::Rflags, compared.rflags)?;
    Ok(())
}

/// PUSH m: the operand's address is that of before the push.
fn push<M: Machine>(inst: &Instruction, machine: &mut M) -> Result<(), Stop<M::Error>> {
    let width = stack_width(machine)?;
    let source = memory(inst, machine, Access::Read)?;
    let rsp = machine.register(Reg::Rsp)?;
    let new = merge(rsp, rsp.wrapping_sub(inst.size.bytes().into()), width);
    let stack = locate(machine, SegReg::Ss, new, width, inst.size, Access::Write)?;
    let value = source.load(machine)?;
    stack.store(machine, value)?;
    machine.set_register(Reg::Rsp, new)?;
    Ok(())
}

/// POP m: an address by RSP is that of after the pop.
fn pop<M: Machine>(inst: &Instruction, machine: &mut M) -> Result<(), Stop<M::Error>> {
    let width = stack_width(machine)?;
    let rsp = machine.register(Reg::Rsp)?;
    let stack = locate(machine, SegReg::Ss, rsp, width, inst.size, Access::Read)?;
    let popped = u64::from(inst.size.bytes());
    let mut offset = effective(machine, &inst.address, inst.len)?;
    if inst.address.base == Some(Reg::Rsp) {
        offset = offset.wrapping_add(popped);
    }
    let Address { segment, size, .. } = inst.address;
    let target = locate(machine, segment, offset, size, inst.size, Access::Write)?;
    let value = stack.load(machine)?;
    target.store(machine, value)?;
    machine.set_register(Reg::Rsp, merge(rsp, rsp.wrapping_add(popped), width))?;
    Ok(())
}

/// The part of RSP that is the stack pointer (SDM vol. 1, 6.2.3).
fn stack_width<M: Machine>(machine: &mut M) -> Result<Size, M::Error> {
    if machine.paging().cpu_mode == CpuMode::Long64 {
        return Ok(Size::Qword);
    }
    let big = machine.segment(SegReg::Ss)?.access & ACCESS_BIG != 0;
    Ok(if big { Size::Dword } else { Size::Word })
}

/// `old` with the low bits of `new`; 32 bits clear the upper half.
pub(super) fn merge(old: u64, new: u64, size: Size) -> u64 {
    match size {
        Size::Qword => new,
        Size::Dword => new & size.mask(),
        Size::Word | Size::Byte => old & !size.mask() | new & size.mask(),
    }
}
