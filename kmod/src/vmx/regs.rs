//! Registers, descriptors: what VM_GET_REGISTER and its kin see and set while the vcpu does
//! not run. A register is where the guest would find it: CR0 and CR4 as it reads them
//! (through mask and shadow), the general registers in VmxCtx, the rest in the VMCS, which
//! is made current for the access.

use vmm_core::regs::{ModeRegs, Reg, SegDesc, SegReg};
use vmm_core::types::Errno;
use vmm_core::vmx::controls::EntryControls;
use vmm_core::vmx::field::{self, Field, Kind, Natural, VmcsField};
use vmm_core::vmx::segment::SegFields;

use super::cr;
use super::vcpu::{Blocking, Vcpu, VtxVcpu};
use super::vmcs::LoadedVmcs;

/// EFER.LMA.
const EFER_LMA: u64 = 1 << 10;

/// The value of a register that is in memory, not in the VMCS.
pub fn memory_register(vcpu: &Vcpu, reg: Reg) -> Option<u64> {
    let ctx = &vcpu.ctx;
    Some(match reg {
        Reg::Rax => ctx.guest_rax,
        Reg::Rbx => ctx.guest_rbx,
        Reg::Rcx => ctx.guest_rcx,
        Reg::Rdx => ctx.guest_rdx,
        Reg::Rsi => ctx.guest_rsi,
        Reg::Rdi => ctx.guest_rdi,
        Reg::Rbp => ctx.guest_rbp,
        Reg::R8 => ctx.guest_r8,
        Reg::R9 => ctx.guest_r9,
        Reg::R10 => ctx.guest_r10,
        Reg::R11 => ctx.guest_r11,
        Reg::R12 => ctx.guest_r12,
        Reg::R13 => ctx.guest_r13,
        Reg::R14 => ctx.guest_r14,
        Reg::R15 => ctx.guest_r15,
        Reg::Cr2 => ctx.guest_cr2,
        Reg::Dr0 => vcpu.debug_regs.dr[0],
        Reg::Dr1 => vcpu.debug_regs.dr[1],
        Reg::Dr2 => vcpu.debug_regs.dr[2],
        Reg::Dr3 => vcpu.debug_regs.dr[3],
        Reg::Dr6 => vcpu.debug_regs.dr6,
        Reg::KgsBase => vcpu.msrs.kernel_gs_base,
        _ => return None,
    })
}

/// A register that is in memory, not in the VMCS.
pub fn memory_register_mut(vcpu: &mut Vcpu, reg: Reg) -> Option<&mut u64> {
    let ctx = &mut vcpu.ctx;
    Some(match reg {
        Reg::Rax => &mut ctx.guest_rax,
        Reg::Rbx => &mut ctx.guest_rbx,
        Reg::Rcx => &mut ctx.guest_rcx,
        Reg::Rdx => &mut ctx.guest_rdx,
        Reg::Rsi => &mut ctx.guest_rsi,
        Reg::Rdi => &mut ctx.guest_rdi,
        Reg::Rbp => &mut ctx.guest_rbp,
        Reg::R8 => &mut ctx.guest_r8,
        Reg::R9 => &mut ctx.guest_r9,
        Reg::R10 => &mut ctx.guest_r10,
        Reg::R11 => &mut ctx.guest_r11,
        Reg::R12 => &mut ctx.guest_r12,
        Reg::R13 => &mut ctx.guest_r13,
        Reg::R14 => &mut ctx.guest_r14,
        Reg::R15 => &mut ctx.guest_r15,
        Reg::Cr2 => &mut ctx.guest_cr2,
        Reg::Dr0 => &mut vcpu.debug_regs.dr[0],
        Reg::Dr1 => &mut vcpu.debug_regs.dr[1],
        Reg::Dr2 => &mut vcpu.debug_regs.dr[2],
        Reg::Dr3 => &mut vcpu.debug_regs.dr[3],
        Reg::Dr6 => &mut vcpu.debug_regs.dr6,
        Reg::KgsBase => &mut vcpu.msrs.kernel_gs_base,
        _ => return None,
    })
}

/// A register of natural width that is a VMCS field as it is.
fn natural_field(reg: Reg) -> Option<Field<Natural>> {
    Some(match reg {
        Reg::Cr3 => field::GUEST_CR3,
        Reg::Dr7 => field::GUEST_DR7,
        Reg::Rsp => field::GUEST_RSP,
        Reg::Rip => field::GUEST_RIP,
        Reg::Rflags => field::GUEST_RFLAGS,
        Reg::FsBase => field::GUEST_FS_BASE,
        Reg::GsBase => field::GUEST_GS_BASE,
        _ => return None,
    })
}

fn pdpte_field(reg: Reg) -> Option<Field<u64>> {
    Some(match reg {
        Reg::Pdpte0 => field::GUEST_PDPTE0,
        Reg::Pdpte1 => field::GUEST_PDPTE1,
        Reg::Pdpte2 => field::GUEST_PDPTE2,
        Reg::Pdpte3 => field::GUEST_PDPTE3,
        _ => return None,
    })
}

/// The descriptor of a segment in the current VMCS; GDTR and IDTR have no access rights.
pub fn read_desc(vmcs: &LoadedVmcs<'_>, seg: SegReg) -> SegDesc {
    let fields = SegFields::of(seg);
    SegDesc {
        base: vmcs.read(fields.base),
        limit: vmcs.read(fields.limit),
        access: fields.access.map_or(0, |access| vmcs.read(access)),
    }
}

fn write_desc(vmcs: &mut LoadedVmcs<'_>, seg: SegReg, desc: SegDesc) {
    let fields = SegFields::of(seg);
    vmcs.write(fields.base, desc.base);
    vmcs.write(fields.limit, desc.limit);
    if let Some(access) = fields.access {
        vmcs.write(access, desc.access);
    }
}

fn selector_field(reg: Reg) -> Option<Field<u16>> {
    SegFields::of(reg.segment()?).selector
}

/// EINVAL for GDTR and IDTR, which are descriptors only, and for TPR, which is the local
/// APIC's.
pub fn vmx_getreg(this: &mut VtxVcpu, reg: Reg) -> Result<u64, Errno> {
    if let Some(value) = memory_register(&this.vcpu, reg) {
        return Ok(value);
    }
    this.with_vmcs(|vmcs, _| {
        if let Some(field) = natural_field(reg) {
            return Ok(vmcs.read(field));
        }
        if let Some(field) = pdpte_field(reg) {
            return Ok(vmcs.read(field));
        }
        if let Some(field) = selector_field(reg) {
            return Ok(u64::from(vmcs.read(field)));
        }
        match reg {
            Reg::Cr0 => Ok(cr::guest_cr0(vmcs)),
            Reg::Cr4 => Ok(cr::guest_cr4(vmcs)),
            Reg::Efer => Ok(vmcs.read(field::GUEST_IA32_EFER)),
            Reg::IntrShadow => Ok(u64::from(Blocking::read(vmcs).shadow())),
            Reg::EntryInstLength => Ok(u64::from(vmcs.read(field::ENTRY_INSTRUCTION_LENGTH))),
            _ => Err(Errno::EINVAL),
        }
    })
}

/// EINVAL for GDTR, IDTR and TPR, for a value that the register can't have, and for an
/// interrupt shadow other than none.
pub fn vmx_setreg(this: &mut VtxVcpu, reg: Reg, value: u64) -> Result<(), Errno> {
    check_value(reg, value)?;
    if let Some(slot) = memory_register_mut(&mut this.vcpu, reg) {
        *slot = value;
        return Ok(());
    }
    this.with_vmcs(|vmcs, vcpu| {
        if let Some(field) = natural_field(reg) {
            vmcs.write(field, value);
        } else if let Some(field) = pdpte_field(reg) {
            vmcs.write(field, value);
        } else if let Some(field) = selector_field(reg) {
            vmcs.write(field, u16::try_from(value).map_err(|_| Errno::EINVAL)?);
        } else {
            match reg {
                Reg::Cr0 => cr::set_guest_cr0(vmcs, vcpu, value),
                Reg::Cr4 => cr::set_guest_cr4(vmcs, vcpu, value),
                Reg::Efer => set_efer(vmcs, value),
                Reg::IntrShadow => Blocking::clear_shadow(vmcs),
                Reg::EntryInstLength => {
                    let length = u32::try_from(value).map_err(|_| Errno::EINVAL)?;
                    vmcs.write(field::ENTRY_INSTRUCTION_LENGTH, length);
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        // What the TLB holds depends on these (SDM vol. 3A, 4.10.4.1).
        if matches!(reg, Reg::Cr0 | Reg::Cr3 | Reg::Cr4 | Reg::Efer) {
            vcpu.flush_vpid = true;
        }
        Ok(())
    })
}

/// Refuses what would fault in the host when the register is loaded, or means nothing.
/// Whatever is in the VMCS is checked by the next VM entry.
fn check_value(reg: Reg, value: u64) -> Result<(), Errno> {
    let fits = match reg {
        // MOV DR6 faults on the upper half (SDM vol. 3B, 18.2.6).
        Reg::Dr6 => value >> 32 == 0,
        // WRMSR faults on a non-canonical address.
        Reg::KgsBase => (value as i64) << 16 >> 16 == value as i64,
        // Forcing the vcpu into a shadow is not supported.
        Reg::IntrShadow => value == 0,
        _ => true,
    };
    if fits { Ok(()) } else { Err(Errno::EINVAL) }
}

/// EFER.LMA and the control "IA-32e mode guest" have to agree (27.3.1.1).
fn set_efer(vmcs: &mut LoadedVmcs<'_>, value: u64) {
    vmcs.write(field::GUEST_IA32_EFER, value);
    let mut entry = EntryControls::from_bits_retain(vmcs.read(field::ENTRY_CONTROLS));
    entry.set(EntryControls::IA32E_MODE_GUEST, value & EFER_LMA != 0);
    vmcs.write(field::ENTRY_CONTROLS, entry.bits());
}

/// A segment's hidden descriptor.
pub fn vmx_getdesc(this: &mut VtxVcpu, seg: SegReg) -> SegDesc {
    this.with_vmcs(|vmcs, _| read_desc(vmcs, seg))
}

/// CS, and the registers that say in which mode the guest executes.
pub fn vmx_code_state(this: &mut VtxVcpu) -> (SegDesc, ModeRegs) {
    this.with_vmcs(|vmcs, _| {
        let cs = read_desc(vmcs, SegReg::Cs);
        let mode = ModeRegs {
            cr0: cr::guest_cr0(vmcs),
            cr3: vmcs.read(field::GUEST_CR3),
            cr4: cr::guest_cr4(vmcs),
            efer: vmcs.read(field::GUEST_IA32_EFER),
            rflags: vmcs.read(field::GUEST_RFLAGS),
            cs_access: cs.access,
            ss_access: vmcs.read(field::GUEST_SS_ACCESS_RIGHTS),
        };
        (cs, mode)
    })
}

/// Sets a segment's hidden descriptor.
pub fn vmx_setdesc(this: &mut VtxVcpu, seg: SegReg, desc: SegDesc) {
    this.with_vmcs(|vmcs, _| write_desc(vmcs, seg, desc));
}

/// A VMCS field, for bhyvectl. Of the host-state area only what bhyvectl has options for:
/// the rest says where things are in the host's kernel. EINVAL for others and for fields
/// that the CPU has not.
pub fn vmx_get_vmcs_field(this: &mut VtxVcpu, encoding: u16) -> Result<u64, Errno> {
    const HOST_SHOWN: [VmcsField; 6] = [
        field::HOST_IA32_PAT.field(),
        field::HOST_CR0.field(),
        field::HOST_CR3.field(),
        field::HOST_CR4.field(),
        field::HOST_RSP.field(),
        field::HOST_RIP.field(),
    ];
    let shown = VmcsField::from_encoding(u64::from(encoding)).filter(|f| match f.kind() {
        Kind::Control | Kind::ExitInfo | Kind::Guest => true,
        Kind::Host => HOST_SHOWN.contains(f),
    });
    let field = shown.ok_or(Errno::EINVAL)?;
    this.with_vmcs(|vmcs, _| vmcs.read_any(field))
        .ok_or(Errno::EINVAL)
}
