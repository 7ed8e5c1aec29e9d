//! A decoded instruction: an operation with one memory operand, or a string operation.

use super::encoding::Encoding;
use crate::regs::{Reg, SegReg};

/// One instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// In bytes, with all prefixes: 1 to 15.
    pub len: u8,
    pub operation: Operation,
    /// The memory operand's (of a string operation: the element's) size.
    pub size: Size,
    /// The memory operand; of a string operation only the source's segment and the width
    /// of its addresses count.
    pub address: Address,
    /// A repeat prefix, which only string operations obey.
    pub rep: Rep,
    /// A LOCK prefix. Devices have no atomic accesses; it matters for memory.
    pub lock: bool,
    /// The fields of its bytes.
    pub encoding: Encoding,
}

/// Bytes of an operand or of an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Size {
    Byte = 1,
    Word = 2,
    Dword = 4,
    Qword = 8,
}

/// What is done. The memory operand is not named in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// MOV r,m; MOVZX; MOVSX; MOVSXD.
    Load {
        to: Register,
        extend: Extend,
    },
    /// MOV m,r; MOV m,imm; MOV m,Sreg; MOVNTI.
    Store {
        from: Source,
    },
    /// `op m, source`, or `op r, m`.
    Binary {
        op: BinaryOp,
        target: Target,
    },
    Unary(UnaryOp),
    /// BT and its kin. A register's index reaches beyond the operand.
    Bit {
        op: BitOp,
        index: Source,
    },
    /// CMOVcc r,m, with the condition's number.
    Cmov {
        to: Register,
        condition: u8,
    },
    /// SETcc m.
    Set {
        condition: u8,
    },
    Xchg {
        with: Register,
    },
    Xadd {
        with: Register,
    },
    Cmpxchg {
        new: Register,
    },
    Push,
    Pop,
    /// CLFLUSH, CLFLUSHOPT, CLWB: accesses like a load of a byte, and does nothing else.
    CacheLine,
    String(StringOp),
}

/// How a load fills a wider register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extend {
    Zero,
    Sign,
}

/// Which operand is the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Memory, with this second operand.
    Memory(Source),
    Register(Register),
}

/// Numbered as in opcodes 00 to 3F and in group 1; TEST stands beside them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BinaryOp {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
    Test,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnaryOp {
    Inc,
    Dec,
    Not,
    Neg,
}

/// Numbered as in group 8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BitOp {
    Bt,
    Bts,
    Btr,
    Btc,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StringOp {
    Movs,
    Cmps,
    Stos,
    Lods,
    Scas,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rep {
    None,
    /// F3: REP, or REPE for CMPS and SCAS.
    Repe,
    /// F2: REPNE; like REP for MOVS, STOS and LODS.
    Repne,
}

/// An operand that is not memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Register(Register),
    /// Sign-extended to 64 bits.
    Immediate(i64),
}

/// A general register, or a segment's selector, as an operand names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Register {
    pub reg: Reg,
    pub size: Size,
    /// AH, CH, DH or BH: bits 15:8.
    pub high: bool,
}

/// base + index * scale + displacement, in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    pub segment: SegReg,
    /// RIP stands for the next instruction's.
    pub base: Option<Reg>,
    pub index: Option<Reg>,
    /// 1, 2, 4 or 8.
    pub scale: u8,
    pub displacement: i64,
    /// The sum wraps at this size.
    pub size: Size,
}

impl Size {
    pub const fn bytes(self) -> u8 {
        self as u8
    }

    pub const fn bits(self) -> u32 {
        self as u32 * 8
    }

    /// All bits that a value of this size may have.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The most significant one.
    pub const fn sign_bit(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// A value of this size as a signed number of 64 bits.
    pub const fn sign_extend(self, value: u64) -> u64 {
        let unused = 64 - self.bits();
        ((value << unused) as i64 >> unused) as u64
    }
}
