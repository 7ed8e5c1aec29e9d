//! The opcode maps (SDM vol. 2, appendix A), as far as they have instructions that are
//! executed here.

use super::{DecodeError, Decoder, Form};
use crate::cpu::emulate::instruction::{
    Address, BinaryOp, BitOp, Extend, Operation, Register, Rep, Size, Source, StringOp, Target,
    UnaryOp,
};
use crate::regs::{Reg, SegReg};

impl Decoder<'_> {
    pub(super) fn one_byte(&mut self, opcode: u8, addr: Size) -> Result<Form, DecodeError> {
        let size = self.width(opcode);
        match opcode {
            0x00..=0x3f if opcode & 7 < 4 => {
                let op = binary_op(opcode >> 3);
                self.with_register(addr, size, |register| Operation::Binary {
                    op,
                    target: if opcode & 2 == 0 {
                        Target::Memory(Source::Register(register))
                    } else {
                        Target::Register(register)
                    },
                })
            }
            // MOVSXD; ARPL outside 64-bit mode.
            0x63 if self.long => {
                let size = self.operand.min(Size::Dword);
                let to = self.operand;
                self.extending(addr, size, to, Extend::Sign)
            }
            0x80..=0x83 => {
                if opcode == 0x82 && self.long {
                    return Err(DecodeError::Invalid);
                }
                let immediate = if opcode == 0x81 {
                    self.operand.min(Size::Dword)
                } else {
                    Size::Byte
                };
                let address = self.memory(addr)?;
                let op = binary_op(self.modrm_reg());
                let source = self.immediate(immediate)?;
                let target = Target::Memory(source);
                self.form(Operation::Binary { op, target }, size, address)
            }
            0x84 | 0x85 => self.with_register(addr, size, |register| Operation::Binary {
                op: BinaryOp::Test,
                target: Target::Memory(Source::Register(register)),
            }),
            0x86 | 0x87 => self.with_register(addr, size, |with| Operation::Xchg { with }),
            0x88 | 0x89 => self.with_register(addr, size, |register| Operation::Store {
                from: Source::Register(register),
            }),
            0x8a | 0x8b => self.with_register(addr, size, load),
            0x8c => {
                let address = self.memory(addr)?;
                let reg = match self.modrm_reg() {
                    0 => Reg::Es,
                    1 => Reg::Cs,
                    2 => Reg::Ss,
                    3 => Reg::Ds,
                    4 => Reg::Fs,
                    5 => Reg::Gs,
                    _ => return Err(DecodeError::Invalid),
                };
                let selector = Register {
                    reg,
                    size: Size::Word,
                    high: false,
                };
                let from = Source::Register(selector);
                self.form(Operation::Store { from }, Size::Word, address)
            }
            0x8f => {
                let address = self.memory(addr)?;
                match self.modrm_reg() {
                    0 => self.form(Operation::Pop, self.stack_operand(), address),
                    // XOP begins so.
                    _ => Err(DecodeError::Unsupported),
                }
            }
            0xa0..=0xa3 => self.memory_offset(opcode, size, addr),
            0xa4 | 0xa5 => self.string(StringOp::Movs, size, addr),
            0xa6 | 0xa7 => self.string(StringOp::Cmps, size, addr),
            0xaa | 0xab => self.string(StringOp::Stos, size, addr),
            0xac | 0xad => self.string(StringOp::Lods, size, addr),
            0xae | 0xaf => self.string(StringOp::Scas, size, addr),
            0xc6 | 0xc7 => {
                let address = self.memory(addr)?;
                if self.modrm_reg() != 0 {
                    return Err(DecodeError::Invalid);
                }
                let from = self.immediate(size.min(Size::Dword))?;
                self.form(Operation::Store { from }, size, address)
            }
            0xf6 | 0xf7 => {
                let address = self.memory(addr)?;
                let operation = match self.modrm_reg() {
                    0 | 1 => Operation::Binary {
                        op: BinaryOp::Test,
                        target: Target::Memory(self.immediate(size.min(Size::Dword))?),
                    },
                    2 => Operation::Unary(UnaryOp::Not),
                    3 => Operation::Unary(UnaryOp::Neg),
                    // MUL, IMUL, DIV, IDIV
                    _ => return Err(DecodeError::Unsupported),
                };
                self.form(operation, size, address)
            }
            0xfe | 0xff => {
                let address = self.memory(addr)?;
                let (operation, size) = match (self.modrm_reg(), opcode) {
                    (0, _) => (Operation::Unary(UnaryOp::Inc), size),
                    (1, _) => (Operation::Unary(UnaryOp::Dec), size),
                    (6, 0xff) => (Operation::Push, self.stack_operand()),
                    // CALL and JMP
                    (2..=5, 0xff) => return Err(DecodeError::Unsupported),
                    _ => return Err(DecodeError::Invalid),
                };
                self.form(operation, size, address)
            }
            _ => Err(DecodeError::Unsupported),
        }
    }

    pub(super) fn two_byte(&mut self, opcode: u8, addr: Size) -> Result<Form, DecodeError> {
        let size = self.width(opcode);
        match opcode {
            0x40..=0x4f => self.with_register(addr, self.operand, |to| Operation::Cmov {
                to,
                condition: opcode & 0xf,
            }),
            0x90..=0x9f => {
                let address = self.memory(addr)?;
                let condition = opcode & 0xf;
                self.form(Operation::Set { condition }, Size::Byte, address)
            }
            0xa3 | 0xab | 0xb3 | 0xbb => {
                let op = bit_op(opcode >> 3);
                self.with_register(addr, self.operand, |register| Operation::Bit {
                    op,
                    index: Source::Register(register),
                })
            }
            0xae => self.cache_line(addr),
            0xb0 | 0xb1 => self.with_register(addr, size, |new| Operation::Cmpxchg { new }),
            0xb6 | 0xb7 => self.extending(addr, small(opcode), self.operand, Extend::Zero),
            0xba => {
                let address = self.memory(addr)?;
                let reg = self.modrm_reg();
                if reg < 4 {
                    return Err(DecodeError::Invalid);
                }
                let index = self.immediate(Size::Byte)?;
                let op = bit_op(reg);
                self.form(Operation::Bit { op, index }, self.operand, address)
            }
            0xbe | 0xbf => self.extending(addr, small(opcode), self.operand, Extend::Sign),
            0xc0 | 0xc1 => self.with_register(addr, size, |with| Operation::Xadd { with }),
            // MOVNTI, of 32 or 64 bits; its opcode takes no prefixes that select others.
            0xc3 => {
                if self.has_mandatory_prefix() {
                    return Err(DecodeError::Invalid);
                }
                self.with_register(addr, self.operand.max(Size::Dword), |register| {
                    Operation::Store {
                        from: Source::Register(register),
                    }
                })
            }
            _ => Err(DecodeError::Unsupported),
        }
    }

    /// Group 15's flushes: CLFLUSH, with 66 CLFLUSHOPT and CLWB.
    fn cache_line(&mut self, addr: Size) -> Result<Form, DecodeError> {
        let address = self.memory(addr)?;
        let only_66 = self.encoding.operand_size_prefix && self.rep == Rep::None;
        match self.modrm_reg() {
            7 if only_66 || !self.has_mandatory_prefix() => {}
            6 if only_66 => {}
            _ => return Err(DecodeError::Unsupported),
        }
        self.form(Operation::CacheLine, Size::Byte, address)
    }

    fn has_mandatory_prefix(&self) -> bool {
        self.encoding.operand_size_prefix || self.rep != Rep::None
    }

    fn form(
        &self,
        operation: Operation,
        size: Size,
        address: Address,
    ) -> Result<Form, DecodeError> {
        Ok(Form {
            operation,
            size,
            address,
        })
    }

    /// `op m, r` or `op r, m`, both of one size.
    fn with_register(
        &mut self,
        addr: Size,
        size: Size,
        operation: impl Fn(Register) -> Operation,
    ) -> Result<Form, DecodeError> {
        let address = self.memory(addr)?;
        let register = self.register(size);
        self.form(operation(register), size, address)
    }

    /// A load of `size` into a register of size `to`.
    fn extending(
        &mut self,
        addr: Size,
        size: Size,
        to: Size,
        extend: Extend,
    ) -> Result<Form, DecodeError> {
        let address = self.memory(addr)?;
        let to = self.register(to);
        self.form(Operation::Load { to, extend }, size, address)
    }

    /// MOV between the accumulator and an address that stands in the instruction.
    fn memory_offset(&mut self, opcode: u8, size: Size, addr: Size) -> Result<Form, DecodeError> {
        let mut offset = self.signed(addr)?;
        if addr != Size::Qword {
            offset = (offset as u64 & addr.mask()) as i64;
        }
        self.encoding.displacement = offset;
        let address = Address {
            segment: self.segment_or(SegReg::Ds),
            base: None,
            index: None,
            scale: 1,
            displacement: offset,
            size: addr,
        };
        let accumulator = Register {
            reg: Reg::Rax,
            size,
            high: false,
        };
        let operation = if opcode & 2 == 0 {
            load(accumulator)
        } else {
            Operation::Store {
                from: Source::Register(accumulator),
            }
        };
        self.form(operation, size, address)
    }

    fn string(&mut self, op: StringOp, size: Size, addr: Size) -> Result<Form, DecodeError> {
        let address = Address {
            segment: self.segment_or(SegReg::Ds),
            base: None,
            index: None,
            scale: 1,
            displacement: 0,
            size: addr,
        };
        self.form(Operation::String(op), size, address)
    }

    /// Of most opcodes bit 0 says whether the operand is wider than a byte.
    fn width(&self, opcode: u8) -> Size {
        if opcode & 1 == 0 {
            Size::Byte
        } else {
            self.operand
        }
    }

    /// PUSH and POP have no operands of 32 bits in 64-bit mode.
    fn stack_operand(&self) -> Size {
        match self.operand {
            Size::Dword if self.long => Size::Qword,
            size => size,
        }
    }
}

fn load(to: Register) -> Operation {
    Operation::Load {
        to,
        extend: Extend::Zero,
    }
}

/// MOVZX and MOVSX: the size of the memory operand.
fn small(opcode: u8) -> Size {
    if opcode & 1 == 0 {
        Size::Byte
    } else {
        Size::Word
    }
}

fn binary_op(number: u8) -> BinaryOp {
    match number & 7 {
        0 => BinaryOp::Add,
        1 => BinaryOp::Or,
        2 => BinaryOp::Adc,
        3 => BinaryOp::Sbb,
        4 => BinaryOp::And,
        5 => BinaryOp::Sub,
        6 => BinaryOp::Xor,
        _ => BinaryOp::Cmp,
    }
}

fn bit_op(number: u8) -> BitOp {
    match number & 3 {
        0 => BitOp::Bt,
        1 => BitOp::Bts,
        2 => BitOp::Btr,
        _ => BitOp::Btc,
    }
}
