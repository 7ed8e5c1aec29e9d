//! Bytes to an [`Instruction`]: prefixes and sizes here (SDM vol. 2, 2.1.1 and 2.2.1; vol. 1,
//! 3.6), then the opcode ([`opcode`]) and its operands ([`modrm`]). Only forms with a memory
//! operand are decoded.

mod modrm;
mod opcode;

use super::encoding::{Encoding, REX_W};
use super::instruction::{Address, BinaryOp, BitOp, Instruction, Operation, Rep, Size, Target};
use crate::regs::{CpuMode, SegReg};

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
}
