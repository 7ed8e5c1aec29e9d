//! struct vie of machine/vmm.h: the decoded instruction as FreeBSD's module hands it to
//! bhyve with VM_EXITCODE_INST_EMUL. Stock bhyve's vmm_emulate_instruction() executes from
//! these fields if `decoded` says that they are there, and otherwise decodes the bytes by
//! itself (but then REP goes wrong: it can't go back to the instruction). `op` is said to be
//! opaque; kernel and userland share the numbers of sys/amd64/vmm/vmm_instruction_emul.c.
//!
//! Only what stock bhyve executes is described so; for all else there are the bytes.

use super::encoding::{Encoding, REX_B, REX_R, REX_W, REX_X};
use super::instruction::{Instruction, Size};
use crate::regs::{CpuMode, Reg, SegReg};

/// The fields, by their C names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vie {
    pub num_processed: u8,
    /// Bytes: `addrsize`, `opsize`.
    pub addrsize: u8,
    pub opsize: u8,
    pub rex_w: bool,
    pub rex_r: bool,
    pub rex_x: bool,
    pub rex_b: bool,
    pub rex_present: bool,
    pub repz_present: bool,
    pub repnz_present: bool,
    pub opsize_override: bool,
    pub addrsize_override: bool,
    pub segment_override: bool,
    pub modrm_mod: u8,
    pub reg: u8,
    pub rm: u8,
    pub ss: u8,
    pub index: u8,
    pub base: u8,
    pub disp_bytes: u8,
    pub imm_bytes: u8,
    pub scale: u8,
    /// `None` is VM_REG_LAST.
    pub base_register: Option<Reg>,
    pub index_register: Option<Reg>,
    pub segment_register: Option<SegReg>,
    pub displacement: i64,
    pub immediate: i64,
    pub op: VieOp,
}

/// struct vie_op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VieOp {
    pub op_byte: u8,
    pub op_type: u8,
    pub op_flags: u16,
}

/// VIE_OP_TYPE_*
const MOV: u8 = 1;
const MOVSX: u8 = 2;
const MOVZX: u8 = 3;
const AND: u8 = 4;
const OR: u8 = 5;
const SUB: u8 = 6;
const PUSH: u8 = 8;
const CMP: u8 = 9;
const POP: u8 = 10;
const MOVS: u8 = 11;
const GROUP1: u8 = 12;
const STOS: u8 = 13;
const BITTEST: u8 = 14;
const TWOB_GRP15: u8 = 15;
const ADD: u8 = 16;
const TEST: u8 = 17;

/// VIE_OP_F_*
const IMM: u16 = 1 << 0;
const IMM8: u16 = 1 << 1;
const MOFFSET: u16 = 1 << 2;
const NO_MODRM: u16 = 1 << 3;
const NO_GLA_VERIFICATION: u16 = 1 << 4;
const STRING: u16 = NO_MODRM | NO_GLA_VERIFICATION;

/// Opcode, type and flags; the two-byte opcodes behind 0F.
const ONE_BYTE: [(u8, u8, u16); 25] = [
    (0x03, ADD, 0),
    (0x0b, OR, 0),
    (0x23, AND, 0),
    (0x2b, SUB, 0),
    (0x39, CMP, 0),
    (0x3b, CMP, 0),
    (0x80, GROUP1, IMM8),
    (0x81, GROUP1, IMM),
    (0x83, GROUP1, IMM8),
    (0x88, MOV, 0),
    (0x89, MOV, 0),
    (0x8a, MOV, 0),
    (0x8b, MOV, 0),
    (0x8f, POP, 0),
    (0xa1, MOV, MOFFSET | NO_MODRM),
    (0xa3, MOV, MOFFSET | NO_MODRM),
    (0xa4, MOVS, STRING),
    (0xa5, MOVS, STRING),
    (0xaa, STOS, STRING),
    (0xab, STOS, STRING),
    (0xc6, MOV, IMM8),
    (0xc7, MOV, IMM),
    (0xf6, TEST, IMM8),
    (0xf7, TEST, IMM),
    (0xff, PUSH, 0),
];
const TWO_BYTE: [(u8, u8, u16); 5] = [
    (0xae, TWOB_GRP15, 0),
    (0xb6, MOVZX, 0),
    (0xb7, MOVZX, 0),
    (0xba, BITTEST, IMM8),
    (0xbe, MOVSX, 0),
];

/// What stock bhyve would have decoded, if it executes such an instruction.
pub fn of(inst: &Instruction, mode: CpuMode) -> Option<Vie> {
    let e = &inst.encoding;
    let op = op(e)?;
    if e.modrm.is_some() && (mode == CpuMode::Real || inst.address.size == Size::Word) {
        // It knows no 16-bit ModRM.
        return None;
    }
    let modrm_reg = e.modrm.unwrap_or(0) >> 3 & 7;
    let executed = match (e.two_byte, e.opcode) {
        (false, 0xc6 | 0xc7 | 0xf6 | 0xf7) => modrm_reg == 0,
        (false, 0xff) => modrm_reg == 6,
        _ => true,
    };
    if !executed {
        return None;
    }
    let mut vie = Vie {
        num_processed: inst.len,
        addrsize: inst.address.size.bytes(),
        opsize: e.operand_bytes,
        rex_w: e.rex_bit(REX_W),
        rex_r: e.rex_bit(REX_R),
        rex_x: e.rex_bit(REX_X),
        rex_b: e.rex_bit(REX_B),
        rex_present: e.rex.is_some(),
        repz_present: e.repe_prefix,
        repnz_present: e.repne_prefix,
        opsize_override: e.operand_size_prefix,
        addrsize_override: e.address_size_prefix,
        segment_override: e.segment_prefix.is_some(),
        modrm_mod: 0,
        reg: 0,
        rm: 0,
        ss: 0,
        index: 0,
        base: 0,
        disp_bytes: e.displacement_bytes,
        imm_bytes: e.immediate_bytes,
        scale: 0,
        base_register: None,
        index_register: None,
        segment_register: e.segment_prefix,
        displacement: e.displacement,
        immediate: e.immediate,
        op,
    };
    if let Some(modrm) = e.modrm {
        vie.modrm(modrm, mode);
    }
    if let Some(sib) = e.sib {
        vie.sib(sib);
    }
    Some(vie)
}

fn op(e: &Encoding) -> Option<VieOp> {
    let table = if e.two_byte { &TWO_BYTE[..] } else { &ONE_BYTE };
    let &(op_byte, op_type, op_flags) = table.iter().find(|(byte, ..)| *byte == e.opcode)?;
    Some(VieOp {
        op_byte,
        op_type,
        op_flags,
    })
}

impl Vie {
    /// The fields with their REX bits, and the registers that they name. (An address
    /// without a base leaves R13 unused too, whose SIB number is RBP's.)
    fn modrm(&mut self, modrm: u8, mode: CpuMode) {
        self.modrm_mod = modrm >> 6;
        self.reg = modrm >> 3 & 7 | u8::from(self.rex_r) << 3;
        self.rm = modrm & 7;
        let no_base = self.modrm_mod == 0 && self.rm == 5;
        if no_base {
            self.base_register = (mode == CpuMode::Long64).then_some(Reg::Rip);
        } else if self.rm != 4 {
            self.rm |= u8::from(self.rex_b) << 3;
            self.base_register = Some(Reg::general(self.rm));
        }
    }

    fn sib(&mut self, sib: u8) {
        self.ss = sib >> 6;
        self.index = sib >> 3 & 7 | u8::from(self.rex_x) << 3;
        self.base = sib & 7 | u8::from(self.rex_b) << 3;
        if self.modrm_mod != 0 || sib & 7 != 5 {
            self.base_register = Some(Reg::general(self.base));
        }
        if self.index != 4 {
            self.index_register = Some(Reg::general(self.index));
            self.scale = 1 << self.ss;
        }
    }
}
