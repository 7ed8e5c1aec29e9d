//! Bytes to an [`Instruction`] (SDM vol. 2, chapter 2 for prefixes, ModRM and SIB;
//! appendix A for the opcode maps). Only forms with a memory operand are decoded.

use super::encoding::{Encoding, REX_B, REX_R, REX_W, REX_X};
use super::instruction::{
    Address, BinaryOp, BitOp, Extend, Instruction, Operation, Register, Rep, Size, Source,
    StringOp, Target, UnaryOp,
};
use crate::regs::{CpuMode, Reg, SegReg};

/// Why bytes are not an instruction to execute here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// The instruction goes on behind the given bytes.
    Truncated,
    /// More than 15 bytes: #GP(0).
    TooLong,
    /// Not one of those that are executed here; it may be valid.
    Unsupported,
    /// #UD.
    Invalid,
}

/// The longest instruction (SDM vol. 2, 2.3.11).
const MAX_LEN: usize = 15;

/// Decodes the instruction that `bytes` begin with. `cs_d` is CS.D, the default size
/// outside 64-bit mode.
pub fn decode(bytes: &[u8], mode: CpuMode, cs_d: bool) -> Result<Instruction, DecodeError> {
    let mut decoder = Decoder {
        bytes,
        at: 0,
        long: mode == CpuMode::Long64,
        operand: Size::Dword,
        segment: None,
        encoding: Encoding::default(),
        lock: false,
        rep: Rep::None,
    };
    decoder.prefixes()?;
    let address = decoder.sizes(cs_d);
    let opcode = decoder.byte()?;
    decoder.encoding.opcode = opcode;
    let form = if opcode == 0x0f {
        let opcode = decoder.byte()?;
        decoder.encoding.two_byte = true;
        decoder.encoding.opcode = opcode;
        decoder.two_byte(opcode, address)?
    } else {
        decoder.one_byte(opcode, address)?
    };
    if decoder.lock && !form.lockable() {
        return Err(DecodeError::Invalid);
    }
    Ok(Instruction {
        len: decoder.at as u8, // at most MAX_LEN
        operation: form.operation,
        size: form.size,
        address: form.address,
        rep: if matches!(form.operation, Operation::String(_)) {
            decoder.rep
        } else {
            Rep::None
        },
        lock: decoder.lock,
        encoding: decoder.encoding,
    })
}

/// What an opcode is.
struct Form {
    operation: Operation,
    size: Size,
    address: Address,
}

impl Form {
    /// The instructions that LOCK may precede, with memory as their destination (SDM vol.
    /// 2, LOCK).
    fn lockable(&self) -> bool {
        match self.operation {
            Operation::Binary { op, target } => {
                !matches!(op, BinaryOp::Cmp | BinaryOp::Test) && matches!(target, Target::Memory(_))
            }
            Operation::Bit { op, .. } => op != BitOp::Bt,
            Operation::Unary(_)
            | Operation::Xchg { .. }
            | Operation::Xadd { .. }
            | Operation::Cmpxchg { .. } => true,
            Operation::Load { .. }
            | Operation::Store { .. }
            | Operation::Cmov { .. }
            | Operation::Set { .. }
            | Operation::Push
            | Operation::Pop
            | Operation::CacheLine
            | Operation::String(_) => false,
        }
    }
}

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    /// 64-bit mode.
    long: bool,
    /// The operand size of all but byte operations.
    operand: Size,
    /// The segment override that counts.
    segment: Option<SegReg>,
    encoding: Encoding,
    lock: bool,
    rep: Rep,
}

impl Decoder<'_> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        if self.at >= MAX_LEN {
            return Err(DecodeError::TooLong);
        }
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// A signed little-endian number of 1, 2, 4 or 8 bytes.
    fn signed(&mut self, size: Size) -> Result<i64, DecodeError> {
        let mut value = 0;
        for i in 0..u32::from(size.bytes()) {
            value |= u64::from(self.byte()?) << (8 * i);
        }
        Ok(size.sign_extend(value) as i64)
    }

    /// Prefixes up to the opcode. A REX prefix counts only right before it.
    fn prefixes(&mut self) -> Result<(), DecodeError> {
        loop {
            let byte = self.byte()?;
            let encoding = &mut self.encoding;
            match byte {
                0x26 => self.override_segment(SegReg::Es),
                0x2e => self.override_segment(SegReg::Cs),
                0x36 => self.override_segment(SegReg::Ss),
                0x3e => self.override_segment(SegReg::Ds),
                0x64 => self.override_segment(SegReg::Fs),
                0x65 => self.override_segment(SegReg::Gs),
                0x66 => encoding.operand_size_prefix = true,
                0x67 => encoding.address_size_prefix = true,
                0xf0 => self.lock = true,
                0xf2 => {
                    encoding.repne_prefix = true;
                    self.rep = Rep::Repne;
                }
                0xf3 => {
                    encoding.repe_prefix = true;
                    self.rep = Rep::Repe;
                }
                0x40..=0x4f if self.long => {
                    encoding.rex = Some(byte);
                    continue;
                }
                _ => {
                    self.at -= 1;
                    return Ok(());
                }
            }
            self.encoding.rex = None;
        }
    }

    /// In 64-bit mode only FS and GS override; the others are as if they weren't there.
    fn override_segment(&mut self, segment: SegReg) {
        self.encoding.segment_prefix = Some(segment);
        if !self.long || matches!(segment, SegReg::Fs | SegReg::Gs) {
            self.segment = Some(segment);
        }
    }

    /// The operand size goes to `self.operand`, the address size is the result (SDM vol.
    /// 1, 3.6).
    fn sizes(&mut self, cs_d: bool) -> Size {
        let encoding = &self.encoding;
        let (operand, address) = if self.long {
            let operand = match (encoding.rex_bit(REX_W), encoding.operand_size_prefix) {
                (true, _) => Size::Qword,
                (false, true) => Size::Word,
                (false, false) => Size::Dword,
            };
            let address = if encoding.address_size_prefix {
                Size::Dword
            } else {
                Size::Qword
            };
            (operand, address)
        } else {
            let size = |big| if big { Size::Dword } else { Size::Word };
            (
                size(cs_d != encoding.operand_size_prefix),
                size(cs_d != encoding.address_size_prefix),
            )
        };
        self.operand = operand;
        self.encoding.operand_bytes = operand.bytes();
        address
    }

    fn one_byte(&mut self, opcode: u8, addr: Size) -> Result<Form, DecodeError> {
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

    fn two_byte(&mut self, opcode: u8, addr: Size) -> Result<Form, DecodeError> {
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

    fn immediate(&mut self, size: Size) -> Result<Source, DecodeError> {
        let value = self.signed(size)?;
        self.encoding.immediate = value;
        self.encoding.immediate_bytes = size.bytes();
        Ok(Source::Immediate(value))
    }

    /// The ModRM byte, SIB and displacement of a memory operand.
    fn memory(&mut self, addr: Size) -> Result<Address, DecodeError> {
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
            index = (number != 4).then(|| general(number));
            if sib & 7 == 5 && mode == 0 {
                displacement = Some(Size::Dword);
            } else {
                base = Some(general(self.extended(REX_B, sib & 7)));
            }
        } else if rm == 5 && mode == 0 {
            displacement = Some(Size::Dword);
            base = self.long.then_some(Reg::Rip);
        } else {
            base = Some(general(self.extended(REX_B, rm)));
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

    fn segment_or(&self, default: SegReg) -> SegReg {
        self.segment.unwrap_or(default)
    }

    /// The reg field of the ModRM byte, as an extension of the opcode.
    fn modrm_reg(&self) -> u8 {
        self.encoding.modrm.unwrap_or(0) >> 3 & 7
    }

    fn extended(&self, rex_bit: u8, number: u8) -> u8 {
        number | u8::from(self.encoding.rex_bit(rex_bit)) << 3
    }

    /// The register that the ModRM byte's reg field names. Without REX the byte registers
    /// 4 to 7 are AH, CH, DH and BH.
    fn register(&self, size: Size) -> Register {
        let number = self.extended(REX_R, self.modrm_reg());
        let high = size == Size::Byte && self.encoding.rex.is_none() && number >= 4;
        Register {
            reg: general(if high { number - 4 } else { number }),
            size,
            high,
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

/// The general register with that number in instructions.
pub(super) fn general(number: u8) -> Reg {
    const GENERAL: [Reg; 16] = [
        Reg::Rax,
        Reg::Rcx,
        Reg::Rdx,
        Reg::Rbx,
        Reg::Rsp,
        Reg::Rbp,
        Reg::Rsi,
        Reg::Rdi,
        Reg::R8,
        Reg::R9,
        Reg::R10,
        Reg::R11,
        Reg::R12,
        Reg::R13,
        Reg::R14,
        Reg::R15,
    ];
    GENERAL[usize::from(number & 15)]
}
