//! The fields of an instruction's bytes (SDM vol. 2, figure 2-1), as struct vie wants them.

use crate::regs::SegReg;

/// Everything but the meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Encoding {
    /// Two-byte opcodes: the byte after 0F.
    pub two_byte: bool,
    pub opcode: u8,
    /// The REX prefix, 40 to 4F.
    pub rex: Option<u8>,
    /// 66 and 67.
    pub operand_size_prefix: bool,
    pub address_size_prefix: bool,
    /// F3 and F2; both may be there, the last one counts.
    pub repe_prefix: bool,
    pub repne_prefix: bool,
    /// The last segment override, even if it does not count in 64-bit mode.
    pub segment_prefix: Option<SegReg>,
    /// The operand size, in bytes, that prefixes and mode select (also for byte opcodes).
    pub operand_bytes: u8,
    pub modrm: Option<u8>,
    pub sib: Option<u8>,
    pub displacement_bytes: u8,
    pub immediate_bytes: u8,
    /// Sign-extended; the whole address of a MOV with a memory offset.
    pub displacement: i64,
    pub immediate: i64,
}

impl Encoding {
    /// W, R, X and B of the REX prefix, false without one.
    pub const fn rex_bit(&self, bit: u8) -> bool {
        match self.rex {
            Some(rex) => rex >> bit & 1 != 0,
            None => false,
        }
    }
}

/// Bits of a REX prefix.
pub const REX_B: u8 = 0;
pub const REX_X: u8 = 1;
pub const REX_R: u8 = 2;
pub const REX_W: u8 = 3;
