//! Results and flags of the arithmetic and logical instructions (SDM vol. 1, 3.4.3.1 and
//! appendix A). Flags that the SDM leaves undefined are as Intel's CPUs have them: logical
//! operations clear AF, the BT group leaves OF, SF, AF and PF as they were.

use super::instruction::{BinaryOp, BitOp, Size, UnaryOp};

pub const CF: u64 = 1 << 0;
pub const PF: u64 = 1 << 2;
pub const AF: u64 = 1 << 4;
pub const ZF: u64 = 1 << 6;
pub const SF: u64 = 1 << 7;
pub const OF: u64 = 1 << 11;
/// The status flags, all of them.
pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// A result of the operand's size, and RFLAGS after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Computed {
    pub value: u64,
    pub rflags: u64,
}

/// `a op b`, of which CMP and TEST keep the flags only; their value is `a`.
pub fn binary(op: BinaryOp, size: Size, a: u64, b: u64, rflags: u64) -> Computed {
    let (a, b) = (a & size.mask(), b & size.mask());
    let carry = rflags & CF;
    let (value, flags) = match op {
        BinaryOp::Add => add(size, a, b, 0),
        BinaryOp::Adc => add(size, a, b, carry),
        BinaryOp::Sub => subtract(size, a, b, 0),
        BinaryOp::Sbb => subtract(size, a, b, carry),
        BinaryOp::Cmp => (a, subtract(size, a, b, 0).1),
        BinaryOp::Or => logical(size, a | b),
        BinaryOp::And => logical(size, a & b),
        BinaryOp::Xor => logical(size, a ^ b),
        BinaryOp::Test => (a, logical(size, a & b).1),
    };
    Computed {
        value,
        rflags: rflags & !STATUS | flags,
    }
}

pub fn unary(op: UnaryOp, size: Size, a: u64, rflags: u64) -> Computed {
    let a = a & size.mask();
    // INC and DEC leave CF.
    let all_but_cf = |(value, flags): (u64, u64)| Computed {
        value,
        rflags: rflags & !(STATUS & !CF) | flags & !CF,
    };
    match op {
        UnaryOp::Inc => all_but_cf(add(size, a, 1, 0)),
        UnaryOp::Dec => all_but_cf(subtract(size, a, 1, 0)),
        UnaryOp::Not => Computed {
            value: !a & size.mask(),
            rflags,
        },
        UnaryOp::Neg => {
            let (value, flags) = subtract(size, 0, a, 0);
            Computed {
                value,
                rflags: rflags & !STATUS | flags,
            }
        }
    }
}

/// Bit number `bit`, below the operand's size.
pub fn bit(op: BitOp, a: u64, bit: u32, rflags: u64) -> Computed {
    let selected = 1u64 << bit;
    let value = match op {
        BitOp::Bt => a,
        BitOp::Bts => a | selected,
        BitOp::Btr => a & !selected,
        BitOp::Btc => a ^ selected,
    };
    Computed {
        value,
        rflags: rflags & !CF | (a >> bit & 1),
    }
}

/// The conditions of Jcc, SETcc and CMOVcc by their number (SDM vol. 1, table B-1).
pub fn condition(number: u8, rflags: u64) -> bool {
    let is = |flag| rflags & flag != 0;
    let holds = match number >> 1 & 7 {
        0 => is(OF),
        1 => is(CF),
        2 => is(ZF),
        3 => is(CF | ZF),
        4 => is(SF),
        5 => is(PF),
        6 => is(SF) != is(OF),
        _ => is(ZF) || is(SF) != is(OF),
    };
    holds != (number & 1 != 0)
}

fn add(size: Size, a: u64, b: u64, carry: u64) -> (u64, u64) {
    let value = a.wrapping_add(b).wrapping_add(carry) & size.mask();
    // Where a carry leaves each bit.
    let carries = a & b | (a | b) & !value;
    let overflow = (a ^ value) & (b ^ value);
    (
        value,
        result_flags(size, value) | carry_flags(size, carries, a ^ b ^ value, overflow),
    )
}

fn subtract(size: Size, a: u64, b: u64, borrow: u64) -> (u64, u64) {
    let value = a.wrapping_sub(b).wrapping_sub(borrow) & size.mask();
    let borrows = !a & b | (!a | b) & value;
    let overflow = (a ^ b) & (a ^ value);
    (
        value,
        result_flags(size, value) | carry_flags(size, borrows, a ^ b ^ value, overflow),
    )
}

fn logical(size: Size, value: u64) -> (u64, u64) {
    (value, result_flags(size, value))
}

/// CF, AF and OF: the carry out of the top, the carry into bit 4, and the sign's.
fn carry_flags(size: Size, carries: u64, carried_in: u64, overflow: u64) -> u64 {
    let flag = |set: bool, flag| if set { flag } else { 0 };
    flag(carries & size.sign_bit() != 0, CF)
        | flag(carried_in & 1 << 4 != 0, AF)
        | flag(overflow & size.sign_bit() != 0, OF)
}

/// SF, ZF and PF, the latter of the lowest byte.
fn result_flags(size: Size, value: u64) -> u64 {
    let flag = |set: bool, flag| if set { flag } else { 0 };
    flag(value & size.sign_bit() != 0, SF)
        | flag(value == 0, ZF)
        | flag((value as u8).count_ones() % 2 == 0, PF)
}
