//! MOVS, CMPS, STOS, LODS and SCAS with their repeat prefixes (SDM vol. 1, 7.3.9.1; vol.
//! 2, REP). Each iteration stands for itself: what was done before a fault is done.

use super::alu;
use super::execute::merge;
use super::instruction::{BinaryOp, Instruction, Register, Rep, StringOp};
use super::machine::Machine;
use super::operand::{Place, Stop, locate, read_register, write_register};
use crate::exit::Access;
use crate::regs::{Reg, SegReg};

/// Iterations in one go; then the guest may take an interrupt.
const BATCH: u32 = 64;
const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_DF: u64 = 1 << 10;

/// RSI, RDI and RCX on the way.
struct Strings<'a> {
    inst: &'a Instruction,
    op: StringOp,
    source: u64,
    destination: u64,
    count: u64,
    rflags: u64,
    /// Something has been done.
    moved: bool,
}

/// Whether it is finished.
pub fn run<M: Machine>(
    inst: &Instruction,
    op: StringOp,
    rflags: u64,
    machine: &mut M,
) -> Result<bool, Stop<M::Error>> {
    let mut strings = Strings {
        inst,
        op,
        source: machine.register(Reg::Rsi)?,
        destination: machine.register(Reg::Rdi)?,
        count: machine.register(Reg::Rcx)?,
        rflags,
        moved: false,
    };
    let result = strings.batch(machine);
    strings.write_back(machine)?;
    result
}

impl Strings<'_> {
    fn batch<M: Machine>(&mut self, machine: &mut M) -> Result<bool, Stop<M::Error>> {
        let addr = self.inst.address.size;
        if self.inst.rep == Rep::None {
            self.element(machine)?;
            return Ok(true);
        }
        // A single step is one iteration.
        let batch = if self.rflags & RFLAGS_TF != 0 {
            1
        } else {
            BATCH
        };
        for _ in 0..batch {
            if self.count & addr.mask() == 0 {
                return Ok(true);
            }
            self.element(machine)?;
            self.count = merge(self.count, self.count.wrapping_sub(1), addr);
            if self.compares() {
                let equal = self.rflags & alu::ZF != 0;
                if equal != (self.inst.rep == Rep::Repe) {
                    return Ok(true);
                }
            }
        }
        Ok(self.count & addr.mask() == 0)
    }

    fn compares(&self) -> bool {
        matches!(self.op, StringOp::Cmps | StringOp::Scas)
    }

    /// One iteration.
    fn element<M: Machine>(&mut self, machine: &mut M) -> Result<(), Stop<M::Error>> {
        let size = self.inst.size;
        let accumulator = Register {
            reg: Reg::Rax,
            size,
            high: false,
        };
        match self.op {
            StringOp::Movs => {
                let from = self.source(machine)?;
                let to = self.destination(machine, Access::Write)?;
                let value = from.load(machine)?;
                to.store(machine, value)?;
                self.step_source();
                self.step_destination();
            }
            StringOp::Cmps => {
                let first = self.source(machine)?;
                let second = self.destination(machine, Access::Read)?;
                let (first, second) = (first.load(machine)?, second.load(machine)?);
                self.compare(first, second);
                self.step_source();
                self.step_destination();
            }
            StringOp::Stos => {
                let to = self.destination(machine, Access::Write)?;
                let value = read_register(machine, accumulator)?;
                to.store(machine, value)?;
                self.step_destination();
            }
            StringOp::Lods => {
                let value = self.source(machine)?.load(machine)?;
                write_register(machine, accumulator, value)?;
                self.step_source();
            }
            StringOp::Scas => {
                let second = self.destination(machine, Access::Read)?.load(machine)?;
                let first = read_register(machine, accumulator)?;
                self.compare(first, second);
                self.step_destination();
            }
        }
        self.moved = true;
        Ok(())
    }

    fn compare(&mut self, first: u64, second: u64) {
        self.rflags = alu::binary(BinaryOp::Cmp, self.inst.size, first, second, self.rflags).rflags;
    }

    /// DS:RSI, or another segment's.
    fn source<M: Machine>(&self, machine: &mut M) -> Result<Place, Stop<M::Error>> {
        let (seg, addr) = (self.inst.address.segment, self.inst.address.size);
        locate(
            machine,
            seg,
            self.source,
            addr,
            self.inst.size,
            Access::Read,
        )
    }

    /// ES:RDI, whatever the prefixes.
    fn destination<M: Machine>(
        &self,
        machine: &mut M,
        access: Access,
    ) -> Result<Place, Stop<M::Error>> {
        let addr = self.inst.address.size;
        locate(
            machine,
            SegReg::Es,
            self.destination,
            addr,
            self.inst.size,
            access,
        )
    }

    fn step_source(&mut self) {
        self.source = self.step(self.source);
    }

    fn step_destination(&mut self) {
        self.destination = self.step(self.destination);
    }

    fn step(&self, pointer: u64) -> u64 {
        let bytes = u64::from(self.inst.size.bytes());
        let new = if self.rflags & RFLAGS_DF != 0 {
            pointer.wrapping_sub(bytes)
        } else {
            pointer.wrapping_add(bytes)
        };
        merge(pointer, new, self.inst.address.size)
    }

    /// Writes the registers that this operation moves.
    fn write_back<M: Machine>(&self, machine: &mut M) -> Result<(), M::Error> {
        if !self.moved {
            return Ok(());
        }
        if !matches!(self.op, StringOp::Stos | StringOp::Scas) {
            machine.set_register(Reg::Rsi, self.source)?;
        }
        if self.op != StringOp::Lods {
            machine.set_register(Reg::Rdi, self.destination)?;
        }
        if self.inst.rep != Rep::None {
            machine.set_register(Reg::Rcx, self.count)?;
        }
        if self.compares() {
            machine.set_register(Reg::Rflags, self.rflags)?;
        }
        Ok(())
    }
}
