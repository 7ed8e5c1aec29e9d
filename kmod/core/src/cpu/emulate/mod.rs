//! Instructions that the CPU left to us because one of their memory operands is a device:
//! decoded ([`decode`], SDM vol. 2, chapter 2 and appendix A) and executed ([`execute`]) as
//! the CPU would have, with the checks of segmentation and paging and the flags of the SDM's
//! pages for each instruction. The module runs its own devices with it, bhyve those of
//! userland.
//!
//! In reading order: what an instruction is (`instruction`), how bytes become one
//! (`decode`), what execution touches ([`Machine`]), where operands are (`operand`), what is
//! done with them (`execute`, `alu`, `string`), and struct vie for stock bhyve ([`vie`]).
//!
//! The decoder is written here, although there are libraries: iced-x86 builds its tables on
//! the heap at first use, yaxpeax-x86 brings three decoders with unsafe code into the kernel,
//! and neither keeps the raw ModRM and SIB fields that struct vie wants. What a device can be
//! accessed with is a small part of the instruction set. iced-x86 is the tests' oracle.

mod alu;
mod decode;
mod encoding;
mod execute;
mod instruction;
mod machine;
mod operand;
mod string;
#[cfg(test)]
mod tests;
pub mod vie;

pub use decode::{DecodeError, decode};
pub use encoding::Encoding;
pub use execute::{Outcome, execute};
pub use instruction::{
    Address, BinaryOp, BitOp, Extend, Instruction, Operation, Register, Rep, Size, Source,
    StringOp, Target, UnaryOp,
};
pub use machine::{Machine, Translation};
