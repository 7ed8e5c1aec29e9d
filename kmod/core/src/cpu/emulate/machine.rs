//! What executing an instruction touches: registers, segments, and memory that may be a
//! device. `kmod/src/vm/emulate.rs` is one over a vcpu of the module, bhyve's
//! `inst_emul.rs` one over libvmmapi.

use crate::cpu::paging::AccessBy;
use crate::regs::{GuestPaging, Reg, SegDesc, SegReg};
use crate::types::{Gla, Gpa};

/// A vcpu at the instruction: its registers are those before it.
pub trait Machine {
    /// Why it can't go on, with nothing to tell the guest.
    type Error;

    /// Mode, privilege level and paging of the vcpu.
    fn paging(&self) -> GuestPaging;
    fn register(&mut self, reg: Reg) -> Result<u64, Self::Error>;
    fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), Self::Error>;
    fn segment(&mut self, seg: SegReg) -> Result<SegDesc, Self::Error>;
    /// Translates for an access within one page, and sets accessed and dirty flags. All
    /// operands are translated before the first is loaded or stored, so that a machine that
    /// can't access what is there says so here and nothing has happened yet.
    fn translate(&mut self, gla: Gla, by: AccessBy) -> Result<Translation, Self::Error>;
    /// Reads 1 to 8 bytes within one page.
    fn load(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Self::Error>;
    /// Writes 1 to 8 bytes within one page.
    fn store(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// What [`Machine::translate`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Translation {
    Gpa(Gpa),
    /// #PF with this error code; #GP(0) can't be, for addresses are checked before.
    PageFault {
        error_code: u32,
    },
    /// The access faults, and the exception is in the guest already.
    Injected,
}
