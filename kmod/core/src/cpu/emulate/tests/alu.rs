//! Results and flags against arithmetic in wider numbers (SDM vol. 1, 3.4.3.1).

use proptest::prelude::*;

use crate::cpu::emulate::alu::{self, AF, CF, Computed, OF, PF, SF, STATUS, ZF};
use crate::cpu::emulate::{BinaryOp, BitOp, Size, UnaryOp};

const SIZES: [Size; 4] = [Size::Byte, Size::Word, Size::Dword, Size::Qword];

/// Numbers around which carries and signs happen, and others.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        prop::sample::select(&[0u64, 1, 0xf, 0x10, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff][..]),
        prop::sample::select(
            &[
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
                i64::MAX as u64,
                1 << 63,
                u64::MAX
            ][..]
        ),
    ]
}

/// The flags by their definitions: the unsigned and the signed result fit or don't.
fn expected(size: Size, unsigned: i128, signed: i128, low: i128) -> (u64, u64) {
    let value = unsigned as u64 & size.mask();
    let signed_value = i128::from(size.sign_extend(value) as i64);
    let flag = |set, flag| if set { flag } else { 0 };
    let flags = flag(unsigned != i128::from(value), CF)
        | flag(signed != signed_value, OF)
        | flag(!(0..16).contains(&low), AF)
        | flag(value == 0, ZF)
        | flag(signed_value < 0, SF)
        | flag((value & 0xff).count_ones() % 2 == 0, PF);
    (value, flags)
}

proptest! {
    #[test]
    fn sums_and_differences(a in number(), b in number(), carry: bool, other in 0u64..2) {
        for size in SIZES {
            let (a, b) = (a & size.mask(), b & size.mask());
            let rflags = u64::from(carry) | other << 9 | 2;
            let signed = |x| i128::from(size.sign_extend(x) as i64);
            for (op, sign, c) in [
                (BinaryOp::Add, 1, false),
                (BinaryOp::Adc, 1, carry),
                (BinaryOp::Sub, -1, false),
                (BinaryOp::Sbb, -1, carry),
                (BinaryOp::Cmp, -1, false),
            ] {
                let combine = |x: i128, y: i128| x + sign * (y + i128::from(c));
                let (value, flags) = expected(
                    size,
                    combine(a.into(), b.into()),
                    combine(signed(a), signed(b)),
                    combine(i128::from(a & 0xf), i128::from(b & 0xf)),
                );
                let value = if op == BinaryOp::Cmp { a } else { value };
                prop_assert_eq!(
                    alu::binary(op, size, a, b, rflags),
                    Computed { value, rflags: rflags & !STATUS | flags },
                    "{:?} {:?} {:#x} {:#x}", op, size, a, b
                );
            }
            let (value, flags) = expected(size, -i128::from(a), -signed(a), -i128::from(a & 0xf));
            prop_assert_eq!(
                alu::unary(UnaryOp::Neg, size, a, rflags),
                Computed { value, rflags: rflags & !STATUS | flags }
            );
            for (op, step) in [(UnaryOp::Inc, 1), (UnaryOp::Dec, -1)] {
                let low = i128::from(a & 0xf) + step;
                let (value, flags) = expected(size, i128::from(a) + step, signed(a) + step, low);
                // CF stays.
                let rflags = rflags & !STATUS | flags & !CF | rflags & CF;
                prop_assert_eq!(alu::unary(op, size, a, rflags), Computed { value, rflags });
            }
        }
    }

    #[test]
    fn logic(a in number(), b in number(), rflags in 0u64..0x1000) {
        for size in SIZES {
            for (op, value) in [
                (BinaryOp::And, a & b),
                (BinaryOp::Test, a & b),
                (BinaryOp::Or, a | b),
                (BinaryOp::Xor, a ^ b),
            ] {
                let value = value & size.mask();
                let (_, flags) = expected(size, value.into(), i128::from(size.sign_extend(value) as i64), 0);
                let result = alu::binary(op, size, a, b, rflags);
                prop_assert_eq!(result.rflags, rflags & !STATUS | flags);
                let kept = if op == BinaryOp::Test { a & size.mask() } else { value };
                prop_assert_eq!(result.value, kept);
            }
            let not = alu::unary(UnaryOp::Not, size, a, rflags);
            prop_assert_eq!(not, Computed { value: !a & size.mask(), rflags });
        }
    }

    #[test]
    fn bits(a: u64, bit in 0u32..64, rflags in 0u64..0x1000) {
        let one = 1u64 << bit;
        for (op, value) in [
            (BitOp::Bt, a),
            (BitOp::Bts, a | one),
            (BitOp::Btr, a & !one),
            (BitOp::Btc, a ^ one),
        ] {
            let rflags = rflags & !CF | u64::from(a & one != 0);
            prop_assert_eq!(alu::bit(op, a, bit, rflags), Computed { value, rflags });
        }
    }
}

#[test]
fn conditions_are_those_of_the_table() {
    // Each condition with flags for which it holds; the odd ones are their opposites.
    for (number, holds, fails) in [
        (0x0, OF, CF | ZF | SF | PF),
        (0x2, CF, OF | ZF | SF | PF),
        (0x4, ZF, OF | CF | SF | PF),
        (0x6, CF, OF | SF | PF),
        (0x6, ZF, OF | SF | PF),
        (0x8, SF, OF | CF | ZF | PF),
        (0xa, PF, OF | CF | ZF | SF),
        (0xc, SF, SF | OF | ZF),
        (0xc, OF, CF | PF),
        (0xe, ZF, SF | OF),
        (0xe, SF, CF | PF),
    ] {
        assert!(alu::condition(number, holds), "{number:#x}");
        assert!(!alu::condition(number, fails), "{number:#x}");
        assert!(!alu::condition(number | 1, holds), "{number:#x}");
        assert!(alu::condition(number | 1, fails), "{number:#x}");
    }
}
