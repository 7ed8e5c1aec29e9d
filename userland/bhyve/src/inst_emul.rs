//! VM_EXITCODE_INST_EMUL: an instruction that accesses what is not memory is executed here,
//! by the same code that the kernel module has for its own devices
//! (`vmm_core::cpu::emulate`). A call into the kernel costs more than all the rest, so each
//! register is fetched once, and those that change go back together; the other operand may
//! be memory, which the kernel translates.

#![forbid(unsafe_code)]

use vmm_core::cpu::emulate::{
    DecodeError, Machine, Operation, Outcome, Translation, decode, execute,
};
use vmm_core::cpu::paging::AccessBy;
use vmm_core::exit::InstEmul;
use vmmapi::{
    Access, CpuMode, Error, Gla, Gpa, GuestPaging, Prot, Reg, SegDesc, SegReg, Vcpu, VmExit,
};

use crate::mmio::MmioBus;

const VECTOR_DB: u8 = 1;
const VECTOR_UD: u8 = 6;
const VECTOR_GP: u8 = 13;
/// DR6.BS: a single step (SDM vol. 3B, 18.2.3).
const DR6_BS: u64 = 1 << 14;

/// The kernel's devices (FreeBSD's vmm: local APIC, I/O APIC, HPET), which it lets others
/// access for instructions that need one of them and one of ours.
const KERNEL_DEVICES: [(u64, u64); 3] = [
    (0xfee0_0000, 0x1000),
    (0xfec0_0000, 0x1000),
    (0xfed0_0000, 0x400),
];

/// What became of the instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Emulated {
    /// Executed, or its fault is on the way: the guest goes on.
    Done,
    /// Not finished (REP): this instruction again.
    Repeat,
    /// Executed like [`Emulated::Done`], but this access found neither memory nor a device:
    /// it read all ones, or was lost.
    Unclaimed(Unclaimed),
    /// Not an instruction that is executed here.
    Unsupported(DecodeError),
}

/// An access that nobody answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unclaimed {
    pub gpa: Gpa,
    /// In bytes.
    pub size: u8,
    pub write: bool,
    /// Whether the instruction has to be executed again for what is left of it (REP).
    pub repeat: bool,
}

/// Executes the instruction of an exit.
pub fn emulate(
    vcpu: &Vcpu,
    exit: &VmExit,
    emul: &InstEmul,
    bus: &dyn MmioBus,
) -> Result<Emulated, Error> {
    let bytes = &emul.inst.bytes[..usize::from(emul.inst.len)];
    let inst = match decode(bytes, emul.paging.cpu_mode, emul.cs_d) {
        Ok(inst) => inst,
        // The CPU would not have come to the access: the bytes have changed since.
        Err(DecodeError::Invalid) => {
            vcpu.inject_exception(VECTOR_UD, None, true)?;
            return Ok(Emulated::Done);
        }
        Err(DecodeError::TooLong) => {
            vcpu.inject_exception(VECTOR_GP, Some(0), true)?;
            return Ok(Emulated::Done);
        }
        Err(error @ (DecodeError::Truncated | DecodeError::Unsupported)) => {
            return Ok(Emulated::Unsupported(error));
        }
    };
    // With one memory operand, it is the one that the CPU has translated already.
    let translated = !matches!(
        inst.operation,
        Operation::String(_) | Operation::Push | Operation::Pop
    );
    let mut machine = Guest {
        vcpu,
        bus,
        emul,
        rip: exit.rip,
        fetched: Vec::new(),
        changed: Vec::new(),
        known: translated.then_some((emul.gla, emul.gpa)),
        pages: Vec::new(),
        unclaimed: None,
    };
    let outcome = execute(&inst, &mut machine)?;
    match *machine.changed {
        [] => {}
        [(reg, value)] => vcpu.set_register(reg, value)?,
        ref several => vcpu.set_registers(several)?,
    }
    let (repeat, trap) = match outcome {
        Outcome::Done { len, trap } => {
            // A kernel that has decoded it as well goes on behind it by itself.
            if exit.inst_length != u32::from(len) {
                vcpu.set_register(Reg::Rip, next_rip(exit.rip, len, emul))?;
            }
            (false, trap)
        }
        Outcome::Repeat { trap } => (true, trap),
        Outcome::Injected => return Ok(Emulated::Done),
        Outcome::Fault {
            vector, error_code, ..
        } => {
            // Page faults are the kernel's to find: this is #GP, #SS or #AC.
            vcpu.inject_exception(vector.0, error_code, true)?;
            return Ok(Emulated::Done);
        }
    };
    if trap {
        vcpu.set_register(Reg::Dr6, vcpu.register(Reg::Dr6)? | DR6_BS)?;
        vcpu.inject_exception(VECTOR_DB, None, false)?;
    }
    Ok(match machine.unclaimed {
        Some(unclaimed) => Emulated::Unclaimed(Unclaimed {
            repeat,
            ..unclaimed
        }),
        None if repeat => Emulated::Repeat,
        None => Emulated::Done,
    })
}

/// Behind the instruction; EIP wraps.
fn next_rip(rip: u64, len: u8, emul: &InstEmul) -> u64 {
    let next = rip.wrapping_add(len.into());
    if emul.paging.cpu_mode == CpuMode::Long64 {
        next
    } else {
        next & u64::from(u32::MAX)
    }
}

/// The vcpu at the instruction.
struct Guest<'a> {
    vcpu: &'a Vcpu,
    bus: &'a dyn MmioBus,
    emul: &'a InstEmul,
    rip: u64,
    fetched: Vec<(Reg, u64)>,
    /// In the order of the first writes.
    changed: Vec<(Reg, u64)>,
    /// The access of the exit, which passed the CPU's checks.
    known: Option<(Gla, Gpa)>,
    /// Pages translated for this instruction.
    pages: Vec<(Gla, Access, Gpa)>,
    unclaimed: Option<Unclaimed>,
}

impl Machine for Guest<'_> {
    type Error = Error;

    fn paging(&self) -> GuestPaging {
        self.emul.paging
    }

    fn register(&mut self, reg: Reg) -> Result<u64, Error> {
        if reg == Reg::Rip {
            return Ok(self.rip);
        }
        let mut known = self.changed.iter().chain(&self.fetched);
        if let Some((_, value)) = known.find(|(known, _)| *known == reg) {
            return Ok(*value);
        }
        let value = self.vcpu.register(reg)?;
        self.fetched.push((reg, value));
        Ok(value)
    }

    fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), Error> {
        match self.changed.iter_mut().find(|(changed, _)| *changed == reg) {
            Some(changed) => changed.1 = value,
            None => self.changed.push((reg, value)),
        }
        Ok(())
    }

    fn segment(&mut self, seg: SegReg) -> Result<SegDesc, Error> {
        let long = self.emul.paging.cpu_mode == CpuMode::Long64;
        if long && !matches!(seg, SegReg::Fs | SegReg::Gs) {
            // Neither base nor limit nor rights count.
            return Ok(SegDesc::default());
        }
        self.vcpu.desc(seg)
    }

    fn translate(&mut self, gla: Gla, by: AccessBy) -> Result<Translation, Error> {
        if let Some((_, gpa)) = self.known.filter(|(known, _)| *known == gla) {
            return Ok(Translation::Gpa(gpa));
        }
        let in_page = |page: Gpa| Translation::Gpa(Gpa(page.get() | gla.page_offset()));
        let (page, access) = (gla.page_base(), by.access);
        let mut known = self.pages.iter();
        if let Some((.., gpa)) = known.find(|(at, how, _)| *at == page && *how == access) {
            return Ok(in_page(*gpa));
        }
        let prot = match access {
            Access::Read => Prot::READ,
            Access::Write => Prot::WRITE,
            Access::Execute => Prot::EXEC,
        };
        match self.vcpu.gla2gpa(&self.emul.paging, gla, prot)? {
            vmmapi::Translation::Fault => Ok(Translation::Injected),
            vmmapi::Translation::Gpa(gpa) => {
                self.pages.push((page, access, gpa.page_base()));
                Ok(in_page(gpa.page_base()))
            }
        }
    }

    fn load(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Error> {
        let size = bytes.len() as u8; // at most 8
        let value = match self.bus.read(gpa, size) {
            Some(value) => value,
            None => match self.vcpu.vm().map_gpa(gpa, bytes.len()) {
                Ok(memory) => return memory.copy_from(0, bytes),
                Err(Error::NotMemory { .. }) if is_kernels(gpa, size) => {
                    self.vcpu.read_kernemu_device(gpa, size)?
                }
                Err(Error::NotMemory { .. }) => {
                    self.nobody(gpa, size, false);
                    u64::MAX
                }
                Err(error) => return Err(error),
            },
        };
        bytes.copy_from_slice(&value.to_le_bytes()[..bytes.len()]);
        Ok(())
    }

    fn store(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), Error> {
        let size = bytes.len() as u8; // at most 8
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        let value = u64::from_le_bytes(value);
        if self.bus.write(gpa, size, value) {
            return Ok(());
        }
        // Memory at the address of the exit refused the write: it is a ROM.
        if gpa.page_base() != self.emul.gpa.page_base() {
            match self.vcpu.vm().map_gpa(gpa, bytes.len()) {
                Ok(memory) => return memory.copy_to(0, bytes),
                Err(Error::NotMemory { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if is_kernels(gpa, size) {
            return self.vcpu.write_kernemu_device(gpa, size, value);
        }
        self.nobody(gpa, size, true);
        Ok(())
    }
}

impl Guest<'_> {
    /// The first one is told.
    fn nobody(&mut self, gpa: Gpa, size: u8, write: bool) {
        self.unclaimed.get_or_insert(Unclaimed {
            gpa,
            size,
            write,
            repeat: false,
        });
    }
}

fn is_kernels(gpa: Gpa, size: u8) -> bool {
    matches!(size, 1 | 2 | 4 | 8)
        && KERNEL_DEVICES
            .iter()
            .any(|(base, len)| gpa.get() >= *base && gpa.get() - base < *len)
}
