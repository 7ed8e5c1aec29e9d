//! Operands: registers by their names in instructions, and memory from an address'
//! expression through segmentation (SDM vol. 3A, 3.4 and 5.3 to 5.5) and paging to one or
//! two runs of bytes.

use super::execute::Outcome;
use super::instruction::{Address, Register, Size, Source};
use super::machine::{Machine, Translation};
use crate::cpu::paging::AccessBy;
use crate::cpu::segment::{self, SegmentFault};
use crate::exit::Access;
use crate::regs::{Reg, SegReg};
use crate::types::{Gla, Gpa, PAGE_SIZE, Vector};

/// Why execution stops within an instruction.
pub enum Stop<E> {
    /// A fault of the instruction.
    Outcome(Outcome),
    Machine(E),
}

impl<E> From<E> for Stop<E> {
    fn from(error: E) -> Self {
        Self::Machine(error)
    }
}

/// A memory operand that may be accessed: its bytes are on one page or two.
#[derive(Clone, Copy)]
pub struct Place {
    first: Gpa,
    first_len: usize,
    /// Where the bytes behind `first_len` are.
    second: Gpa,
    size: Size,
}

impl Place {
    pub fn load<M: Machine>(&self, machine: &mut M) -> Result<u64, M::Error> {
        let mut bytes = [0; 8];
        let (first, second) = bytes[..self.len()].split_at_mut(self.first_len);
        machine.load(self.first, first)?;
        if !second.is_empty() {
            machine.load(self.second, second)?;
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Stores the low bytes of `value`.
    pub fn store<M: Machine>(&self, machine: &mut M, value: u64) -> Result<(), M::Error> {
        let bytes = value.to_le_bytes();
        let (first, second) = bytes[..self.len()].split_at(self.first_len);
        machine.store(self.first, first)?;
        if !second.is_empty() {
            machine.store(self.second, second)?;
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.size.bytes().into()
    }
}

/// The offset that an address' expression gives. `next` is the next instruction's RIP.
pub fn effective<M: Machine>(machine: &mut M, address: &Address, len: u8) -> Result<u64, M::Error> {
    let mut sum = address.displacement as u64;
    if let Some(base) = address.base {
        sum = sum.wrapping_add(machine.register(base)?);
        if base == Reg::Rip {
            sum = sum.wrapping_add(len.into());
        }
    }
    if let Some(index) = address.index {
        let index = machine.register(index)?;
        sum = sum.wrapping_add(index.wrapping_mul(address.scale.into()));
    }
    Ok(sum & address.size.mask())
}

/// Checks and translates `size` bytes at `offset` of a segment.
pub fn locate<M: Machine>(
    machine: &mut M,
    seg: SegReg,
    offset: u64,
    address_size: Size,
    size: Size,
    access: Access,
) -> Result<Place, Stop<M::Error>> {
    let paging = machine.paging();
    let desc = machine.segment(seg)?;
    let operation = match access {
        Access::Write => segment::Operation::Write,
        Access::Read | Access::Execute => segment::Operation::Read,
    };
    let len = u64::from(size.bytes());
    let bytes = address_size.bytes();
    let gla = segment::linear_address(&paging, seg, &desc, offset, len, bytes, operation).map_err(
        |fault| {
            let vector = match fault {
                SegmentFault::GeneralProtection => Vector::GP,
                SegmentFault::Stack => Vector::SS,
            };
            fault_of(vector, Some(0), None)
        },
    )?;
    let by = AccessBy::at_cpl(access, paging.cpl);
    let first_len = (PAGE_SIZE - gla.page_offset()).min(len);
    let first = translate(machine, gla, by)?;
    let second = if first_len < len {
        let gla = segment::linear_offset(&paging, gla, first_len);
        translate(machine, gla, by)?
    } else {
        first
    };
    // Page faults come first (SDM vol. 3A, table 6-2).
    if paging.cpl == 3 && gla.get() % len != 0 {
        let (cr0, rflags) = (machine.register(Reg::Cr0)?, machine.register(Reg::Rflags)?);
        if segment::alignment_fault(paging.cpl, cr0, rflags, gla, len) {
            return Err(fault_of(Vector::AC, Some(0), None));
        }
    }
    Ok(Place {
        first,
        first_len: first_len as usize, // at most 8
        second,
        size,
    })
}

fn translate<M: Machine>(machine: &mut M, gla: Gla, by: AccessBy) -> Result<Gpa, Stop<M::Error>> {
    match machine.translate(gla, by)? {
        Translation::Gpa(gpa) => Ok(gpa),
        Translation::PageFault { error_code } => {
            Err(fault_of(Vector::PF, Some(error_code), Some(gla)))
        }
        Translation::Injected => Err(Stop::Outcome(Outcome::Injected)),
    }
}

fn fault_of<E>(vector: Vector, error_code: Option<u32>, cr2: Option<Gla>) -> Stop<E> {
    Stop::Outcome(Outcome::Fault {
        vector,
        error_code,
        cr2,
    })
}

/// A register operand, without the bits that its name doesn't cover.
pub fn read_register<M: Machine>(machine: &mut M, from: Register) -> Result<u64, M::Error> {
    let value = machine.register(from.reg)?;
    Ok(if from.high { value >> 8 } else { value } & from.size.mask())
}

/// Writes a register operand: 32 bits clear the upper half, fewer leave the rest (SDM vol.
/// 1, 3.4.1.1).
pub fn write_register<M: Machine>(
    machine: &mut M,
    to: Register,
    value: u64,
) -> Result<(), M::Error> {
    let value = match to.size {
        Size::Qword | Size::Dword => value & to.size.mask(),
        Size::Word | Size::Byte => {
            let shift = if to.high { 8 } else { 0 };
            let mask = to.size.mask() << shift;
            machine.register(to.reg)? & !mask | (value << shift & mask)
        }
    };
    machine.set_register(to.reg, value)
}

/// An operand that is not memory.
pub fn read_source<M: Machine>(machine: &mut M, from: Source) -> Result<u64, M::Error> {
    match from {
        Source::Register(register) => read_register(machine, register),
        Source::Immediate(value) => Ok(value as u64),
    }
}
