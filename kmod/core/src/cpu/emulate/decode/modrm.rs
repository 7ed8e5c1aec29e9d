//! ModRM, SIB, displacement and immediate (SDM vol. 2, 2.1.3 to 2.1.5 and 2.2.1.2), and the
//! numbers of registers.

use super::{DecodeError, Decoder};
use crate::cpu::emulate::encoding::{REX_B, REX_R, REX_X};
use crate::cpu::emulate::instruction::{Address, Register, Size, Source};
use crate::regs::{Reg, SegReg};

impl Decoder<'_> {
    pub(super) fn immediate(&mut self, size: Size) -> Result<Source, DecodeError> {
        let value = self.signed(size)?;
        self.encoding.immediate = value;
        self.encoding.immediate_bytes = size.bytes();
        Ok(Source::Immediate(value))
    }

    /// The ModRM byte, SIB and displacement of a memory operand.
    pub(super) fn memory(&mut self, addr: Size) -> Result<Address, DecodeError> {
        let modrm = self.byte()?;
        self.encoding.modrm = Some(modrm);
        let (mode, rm) = (modrm >> 6, modrm & 7);
        if mode == 3 {
            return Err(DecodeError::Unsupported);
        }
        let (mut base, mut index, mut scale) = (None, None, 1);
        let mut displacement = match (mode, addr) {
            (0, _) => None,
            (1, _) => Some(Size::Byte),
            (_, Size::Word) => Some(Size::Word),
            (_, _) => Some(Size::Dword),
        };
        if addr == Size::Word {
            (base, index) = operands_16(rm);
            if mode == 0 && rm == 6 {
                base = None;
                displacement = Some(Size::Word);
            }
        } else if rm == 4 {
            let sib = self.byte()?;
            self.encoding.sib = Some(sib);
            scale = 1 << (sib >> 6);
            let number = self.extended(REX_X, sib >> 3 & 7);
            // Number 4 is no index, 12 is R12.
            index = (number != 4).then(|| Reg::general(number));
            if sib & 7 == 5 && mode == 0 {
                displacement = Some(Size::Dword);
            } else {
                base = Some(Reg::general(self.extended(REX_B, sib & 7)));
            }
        } else if rm == 5 && mode == 0 {
            displacement = Some(Size::Dword);
            base = self.long.then_some(Reg::Rip);
        } else {
            base = Some(Reg::general(self.extended(REX_B, rm)));
        }
        if let Some(size) = displacement {
            self.encoding.displacement = self.signed(size)?;
            self.encoding.displacement_bytes = size.bytes();
        }
        let default = match base {
            Some(Reg::Rsp | Reg::Rbp) => SegReg::Ss,
            _ => SegReg::Ds,
        };
        Ok(Address {
            segment: self.segment_or(default),
            base,
            index,
            scale,
            displacement: self.encoding.displacement,
            size: addr,
        })
    }

    pub(super) fn segment_or(&self, default: SegReg) -> SegReg {
        self.segment.unwrap_or(default)
    }

    /// The reg field of the ModRM byte, as an extension of the opcode.
    pub(super) fn modrm_reg(&self) -> u8 {
        self.encoding.modrm.unwrap_or(0) >> 3 & 7
    }

    fn extended(&self, rex_bit: u8, number: u8) -> u8 {
        number | u8::from(self.encoding.rex_bit(rex_bit)) << 3
    }

    /// The register that the ModRM byte's reg field names. Without REX the byte registers
    /// 4 to 7 are AH, CH, DH and BH.
    pub(super) fn register(&self, size: Size) -> Register {
        let number = self.extended(REX_R, self.modrm_reg());
        let high = size == Size::Byte && self.encoding.rex.is_none() && number >= 4;
        Register {
            reg: Reg::general(if high { number - 4 } else { number }),
            size,
            high,
        }
    }
}

/// SDM vol. 2, table 2-1.
fn operands_16(rm: u8) -> (Option<Reg>, Option<Reg>) {
    match rm {
        0 => (Some(Reg::Rbx), Some(Reg::Rsi)),
        1 => (Some(Reg::Rbx), Some(Reg::Rdi)),
        2 => (Some(Reg::Rbp), Some(Reg::Rsi)),
        3 => (Some(Reg::Rbp), Some(Reg::Rdi)),
        4 => (Some(Reg::Rsi), None),
        5 => (Some(Reg::Rdi), None),
        6 => (Some(Reg::Rbp), None),
        _ => (Some(Reg::Rbx), None),
    }
}
