//! An access to what is not memory: its instruction is executed here if the devices are the
//! kernel's (`vmm_core::cpu::emulate`), else it goes to userland, described as FreeBSD's
//! module would (VM_EXITCODE_INST_EMUL).

use vmm_core::cpu::emulate::{
    DecodeError, Instruction, Machine, Outcome, Translation, decode, execute, vie,
};
use vmm_core::cpu::paging::{AccessBy, Flags, PagingRegs, WalkError, translate};
use vmm_core::exit::{Access, ExitKind, InstEmul, VmExit};
use vmm_core::regs::{GuestPaging, Reg, SegDesc, SegReg};
use vmm_core::types::{Errno, Gla, Gpa, Vector};

use super::Vm;
use super::mmio::{self, Device};
use super::platform;
use super::vcpu::Frozen;

/// DR6.BS: a single step (SDM vol. 3B, 18.2.3).
const DR6_BS: u64 = 1 << 14;

/// Executes the instruction of `emul`, at which `exit` happened. `None`: the guest goes on;
/// else userland gets the exit.
pub fn emulate(
    vm: &Vm,
    frozen: &mut Frozen<'_>,
    exit: VmExit,
    emul: InstEmul,
    regs: &PagingRegs,
) -> Result<Option<VmExit>, Errno> {
    let bytes = &emul.inst.bytes[..usize::from(emul.inst.len)];
    let inst = match decode(bytes, emul.paging.cpu_mode, emul.cs_d) {
        Ok(inst) => inst,
        // The CPU would not have come to the access: the bytes have changed since.
        Err(DecodeError::Invalid) => return fault(frozen, Vector::UD, None, None),
        Err(DecodeError::TooLong) => return fault(frozen, Vector::GP, Some(0), None),
        Err(DecodeError::Truncated | DecodeError::Unsupported) => {
            return Ok(Some(to_userland(frozen, exit, emul, None)));
        }
    };
    if Device::at(emul.gpa).is_none() {
        return Ok(Some(to_userland(frozen, exit, emul, Some(&inst))));
    }
    let mut machine = VcpuMachine {
        vm,
        frozen: &mut *frozen,
        paging: emul.paging,
        regs,
        exit: None,
    };
    let outcome = execute(&inst, &mut machine);
    let left = machine.exit.take();
    match outcome {
        Err(Stop::Userland) => Ok(Some(to_userland(frozen, exit, emul, Some(&inst)))),
        Err(Stop::Errno(error)) => Err(error),
        Ok(Outcome::Fault {
            vector,
            error_code,
            cr2,
        }) => fault(frozen, vector, error_code, cr2),
        // No translation of ours does that.
        Ok(Outcome::Injected) => Err(Errno::EFAULT),
        Ok(Outcome::Repeat { trap }) => {
            if trap {
                single_step(frozen)?;
            }
            Ok(None)
        }
        Ok(Outcome::Done { len, trap }) => {
            frozen.contents.next_rip = next_rip(exit.rip, len, &emul);
            if trap {
                single_step(frozen)?;
            }
            let Some(kind) = left else { return Ok(None) };
            let exit = VmExit {
                inst_length: len,
                kind,
                ..exit
            };
            platform::ipi(vm, frozen, exit)
        }
    }
}

/// Userland does it. Where stock bhyve can, it gets the decoded instruction, and the guest
/// goes on behind it; else it decodes the bytes itself and says where.
fn to_userland(
    frozen: &mut Frozen<'_>,
    exit: VmExit,
    emul: InstEmul,
    inst: Option<&Instruction>,
) -> VmExit {
    let known = inst.filter(|inst| vie::of(inst, emul.paging.cpu_mode).is_some());
    let inst_length = known.map_or(0, |inst| inst.len);
    if inst_length != 0 {
        frozen.contents.next_rip = next_rip(exit.rip, inst_length, &emul);
    }
    VmExit {
        inst_length,
        kind: ExitKind::InstEmul(emul),
        ..exit
    }
}

/// Behind the instruction; EIP wraps.
fn next_rip(rip: u64, len: u8, emul: &InstEmul) -> u64 {
    let next = rip.wrapping_add(len.into());
    if emul.paging.cpu_mode == vmm_core::regs::CpuMode::Long64 {
        next
    } else {
        next & 0xffff_ffff
    }
}

/// The instruction faults.
fn fault(
    frozen: &mut Frozen<'_>,
    vector: Vector,
    error_code: Option<u32>,
    cr2: Option<Gla>,
) -> Result<Option<VmExit>, Errno> {
    if let Some(cr2) = cr2 {
        frozen.contents.backend.set_register(Reg::Cr2, cr2.get())?;
    }
    frozen.inject_fault(vector, error_code)?;
    Ok(None)
}

/// The trap behind an instruction, or an iteration of one, with RFLAGS.TF.
fn single_step(frozen: &mut Frozen<'_>) -> Result<(), Errno> {
    let dr6 = frozen.contents.backend.get_register(Reg::Dr6)?;
    frozen
        .contents
        .backend
        .set_register(Reg::Dr6, dr6 | DR6_BS)?;
    frozen.inject_exception(Vector::DB, None, false)
}

/// Why the instruction can't be executed here.
enum Stop {
    /// An operand is neither memory nor a device of the kernel.
    Userland,
    Errno(Errno),
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        Self::Errno(error)
    }
}

/// A stopped vcpu with its memory and the kernel's devices.
struct VcpuMachine<'m, 'f> {
    vm: &'m Vm,
    frozen: &'m mut Frozen<'f>,
    paging: GuestPaging,
    regs: &'m PagingRegs,
    /// What a write to the local APIC makes the vcpu leave for.
    exit: Option<ExitKind>,
}

impl Machine for VcpuMachine<'_, '_> {
    type Error = Stop;

    fn paging(&self) -> GuestPaging {
        self.paging
    }

    fn register(&mut self, reg: Reg) -> Result<u64, Stop> {
        Ok(self.frozen.contents.backend.get_register(reg)?)
    }

    fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), Stop> {
        Ok(self.frozen.contents.backend.set_register(reg, value)?)
    }

    fn segment(&mut self, seg: SegReg) -> Result<SegDesc, Stop> {
        Ok(self.frozen.contents.backend.get_desc(seg)?)
    }

    fn translate(&mut self, gla: Gla, by: AccessBy) -> Result<Translation, Stop> {
        let memory = &self.vm.memory;
        let gpa = match translate(&mut &*memory, self.regs, gla, by, Flags::Update) {
            Ok(gpa) => gpa,
            Err(WalkError::PageFault { error_code }) => {
                return Ok(Translation::PageFault { error_code });
            }
            // Page tables without memory: userland tells.
            Err(WalkError::NoMemory(_) | WalkError::NonCanonical) => return Err(Stop::Userland),
        };
        let ours = Device::at(gpa).is_some()
            || match by.access {
                Access::Write => memory.is_writable(gpa, 1),
                Access::Read | Access::Execute => memory.read(gpa, &mut [0]).is_ok(),
            };
        if ours {
            Ok(Translation::Gpa(gpa))
        } else {
            Err(Stop::Userland)
        }
    }

    fn load(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Stop> {
        let Some(device) = Device::at(gpa) else {
            return Ok(self.vm.memory.read(gpa, bytes)?);
        };
        if !bytes.len().is_power_of_two() {
            return each_byte(gpa, bytes.len())
                .zip(bytes)
                .try_for_each(|(at, byte)| self.load(at, core::slice::from_mut(byte)));
        }
        let len = bytes.len() as u8; // at most 8
        let value = mmio::read(self.vm, self.frozen, device, gpa, len);
        bytes.copy_from_slice(&value.to_le_bytes()[..bytes.len()]);
        Ok(())
    }

    fn store(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), Stop> {
        let Some(device) = Device::at(gpa) else {
            return Ok(self.vm.memory.write(gpa, bytes)?);
        };
        if !bytes.len().is_power_of_two() {
            return each_byte(gpa, bytes.len())
                .zip(bytes)
                .try_for_each(|(at, byte)| self.store(at, core::slice::from_ref(byte)));
        }
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        let value = u64::from_le_bytes(value);
        let exit = mmio::write(self.vm, self.frozen, device, gpa, bytes.len() as u8, value);
        self.exit = self.exit.take().or(exit);
        Ok(())
    }
}

/// The part of an operand on two pages may be 3, 5, 6 or 7 bytes long, which no device
/// takes at once.
fn each_byte(gpa: Gpa, len: usize) -> impl Iterator<Item = Gpa> {
    (0..len as u64).map(move |i| Gpa(gpa.get() + i))
}
