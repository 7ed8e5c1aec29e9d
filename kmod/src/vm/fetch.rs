//! Linear addresses of a vcpu that is not running: which paging its registers select,
//! translation for VM_GLA2GPA, and fetching the instruction at an exit.

use vmm_core::cpu::cpuid::CpuidPolicy;
use vmm_core::cpu::paging::{AccessBy, ControlRegs, Flags, PagingRegs, WalkError, translate};
use vmm_core::exit::{Access, InstBytes};
use vmm_core::regs::{CpuMode, GuestPaging, ModeRegs, Reg};
use vmm_core::types::{Errno, Gla, Gpa, PAGE_SIZE, Vector};

use super::memory::GuestMemory;
use super::vcpu::Frozen;

/// CS.D of the access rights (SDM table 25-2).
const ACCESS_DEFAULT_BIG: u32 = 1 << 14;

/// What fetching an instruction depends on.
pub struct CodeContext {
    pub paging: GuestPaging,
    pub cs_base: u64,
    pub cs_d: bool,
    pub regs: PagingRegs,
}

/// A fetch that the guest's paging refuses: #PF.
pub struct FetchFault {
    pub gla: Gla,
    pub error_code: u32,
}

impl CodeContext {
    pub fn of(frozen: &mut Frozen<'_>, cpuid: &CpuidPolicy) -> Self {
        let (cs, mode) = frozen.contents.backend.get_code_state();
        let control = control_regs(&mode);
        let paging = GuestPaging::new(&mode);
        // In 64-bit mode CS has no base (SDM vol. 3A, 3.4.4).
        let cs_base = if paging.cpu_mode == CpuMode::Long64 {
            0
        } else {
            cs.base
        };
        Self {
            paging,
            cs_base,
            cs_d: cs.access & ACCESS_DEFAULT_BIG != 0,
            regs: PagingRegs::new(&paging, &control, cpuid.maxphyaddr(), cpuid.page1gb()),
        }
    }
}

/// The bytes at `rip`, up to 15 or to the first page that isn't there. The instruction has
/// executed as far as its exit, so its own bytes are; if not even the first is, because the
/// guest has changed its page tables meanwhile, that is the guest's page fault.
pub fn instruction(
    memory: &GuestMemory,
    code: &CodeContext,
    rip: u64,
) -> Result<InstBytes, FetchFault> {
    let mut inst = InstBytes::default();
    let by = AccessBy::at_cpl(Access::Execute, code.paging.cpl);
    while usize::from(inst.len) < inst.bytes.len() {
        let done = usize::from(inst.len);
        let mut gla = code.cs_base.wrapping_add(rip).wrapping_add(done as u64);
        if code.paging.cpu_mode != CpuMode::Long64 {
            gla &= 0xffff_ffff;
        }
        let gpa = match translate(&mut &*memory, &code.regs, Gla(gla), by, Flags::Leave) {
            Ok(gpa) => gpa,
            Err(WalkError::PageFault { error_code }) if done == 0 => {
                return Err(FetchFault {
                    gla: Gla(gla),
                    error_code,
                });
            }
            Err(_) => break,
        };
        let n = (PAGE_SIZE - gpa.page_offset()).min((inst.bytes.len() - done) as u64) as usize;
        if memory.read(gpa, &mut inst.bytes[done..done + n]).is_err() {
            break;
        }
        inst.len += n as u8; // at most 15 in all
    }
    Ok(inst)
}

/// VM_GLA2GPA and VM_GLA2GPA_NOFAULT: `None` when translation faults; with `inject` the
/// fault goes into the guest as well, and accessed and dirty flags are set.
pub fn gla2gpa(
    memory: &GuestMemory,
    cpuid: &CpuidPolicy,
    frozen: &mut Frozen<'_>,
    paging: &GuestPaging,
    gla: Gla,
    access: Access,
    inject: bool,
) -> Result<Option<Gpa>, Errno> {
    let (_, mode) = frozen.contents.backend.get_code_state();
    let control = control_regs(&mode);
    let regs = PagingRegs::new(paging, &control, cpuid.maxphyaddr(), cpuid.page1gb());
    let by = AccessBy::at_cpl(access, paging.cpl);
    let flags = if inject { Flags::Update } else { Flags::Leave };
    let (vector, error_code) = match translate(&mut &*memory, &regs, gla, by, flags) {
        Ok(gpa) => return Ok(Some(gpa)),
        Err(WalkError::NoMemory(_)) => return Err(Errno::EFAULT),
        Err(WalkError::NonCanonical) => (Vector::GP, 0),
        Err(WalkError::PageFault { error_code }) => (Vector::PF, error_code),
    };
    if inject {
        if vector == Vector::PF {
            frozen.contents.backend.set_register(Reg::Cr2, gla.get())?;
        }
        frozen.inject_fault(vector, Some(error_code))?;
    }
    Ok(None)
}

fn control_regs(mode: &ModeRegs) -> ControlRegs {
    ControlRegs {
        cr0: mode.cr0,
        cr4: mode.cr4,
        efer: mode.efer,
        rflags: mode.rflags,
        // Protection keys are not shown to guests.
        pkru: 0,
    }
}
