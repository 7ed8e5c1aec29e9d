//! `struct vm_exit` of machine/vmm.h, byte for byte, from a [`VmExit`].

use core::mem::offset_of;

use vmm_sys as sys;

use super::fields::store;
use crate::cpu::emulate::decode;
use crate::cpu::emulate::vie::{self, Vie};
use crate::exit::{
    Access, EntryInst, ExitKind, Inout, InoutStr, InstEmul, TaskSwitch, VmExit, VmFail, VmxExit,
};
use crate::regs::{GuestPaging, Reg, SegDesc, SegReg};

/// Stores into a field of the structure at the writer's place, with its C type.
macro_rules! put_at {
    ($writer:expr, $ty:ty, $field:ident : $int:ty = $value:expr) => {{
        const _: fn(&$ty) -> &$int = |s| &s.$field;
        let value: $int = $value;
        $writer.store(offset_of!($ty, $field), &value.to_ne_bytes());
    }};
}

/// Bytes of `struct vm_exit`.
pub const VM_EXIT_SIZE: usize = size_of::<sys::vm_exit>();

/// How much of it means something for an exit of that kind: the rest is a union's.
pub fn exit_len(kind: &ExitKind) -> usize {
    match kind {
        // Most exits are these.
        ExitKind::Inout(_) => {
            offset_of!(sys::vm_exit, u) + size_of::<sys::vm_inout>().next_multiple_of(8)
        }
        _ => VM_EXIT_SIZE,
    }
}

/// What VM_RUN copies out. Bytes that this exit doesn't use are 0.
pub fn encode_exit(exit: &VmExit) -> [u8; VM_EXIT_SIZE] {
    let mut bytes = [0; VM_EXIT_SIZE];
    {
        let mut whole = Writer {
            bytes: &mut bytes,
            base: 0,
        };
        put_at!(whole, sys::vm_exit, exitcode: u32 = exitcode(&exit.kind));
        put_at!(whole, sys::vm_exit, inst_length: i32 = exit.inst_length.into());
        put_at!(whole, sys::vm_exit, rip: u64 = exit.rip);
    }
    let mut u = Writer {
        bytes: &mut bytes,
        base: offset_of!(sys::vm_exit, u),
    };
    payload(&mut u, exit);
    bytes
}

/// The place of one structure in the buffer.
struct Writer<'a> {
    bytes: &'a mut [u8; VM_EXIT_SIZE],
    base: usize,
}

impl Writer<'_> {
    /// A structure within this one.
    fn at(&mut self, offset: usize) -> Writer<'_> {
        Writer {
            bytes: self.bytes,
            base: self.base + offset,
        }
    }

    // Inlined all are moves of a register; as calls they are most of an exit's encoding.
    #[inline(always)]
    fn store(&mut self, offset: usize, field: &[u8]) {
        store(self.bytes, self.base + offset, field);
    }
}

/// enum vm_exitcode
fn exitcode(kind: &ExitKind) -> sys::vm_exitcode {
    match kind {
        ExitKind::Inout(_) => sys::VM_EXITCODE_INOUT,
        ExitKind::Vmx(_) => sys::VM_EXITCODE_VMX,
        ExitKind::Bogus => sys::VM_EXITCODE_BOGUS,
        ExitKind::Rdmsr { .. } => sys::VM_EXITCODE_RDMSR,
        ExitKind::Wrmsr { .. } => sys::VM_EXITCODE_WRMSR,
        ExitKind::Hlt { .. } => sys::VM_EXITCODE_HLT,
        ExitKind::Mtrap => sys::VM_EXITCODE_MTRAP,
        ExitKind::Pause => sys::VM_EXITCODE_PAUSE,
        ExitKind::Paging { .. } => sys::VM_EXITCODE_PAGING,
        ExitKind::InstEmul(_) => sys::VM_EXITCODE_INST_EMUL,
        ExitKind::SpinupAp { .. } => sys::VM_EXITCODE_SPINUP_AP,
        ExitKind::Rendezvous => sys::VM_EXITCODE_RENDEZVOUS,
        ExitKind::IoapicEoi { .. } => sys::VM_EXITCODE_IOAPIC_EOI,
        ExitKind::Suspended(_) => sys::VM_EXITCODE_SUSPENDED,
        ExitKind::InoutStr(_) => sys::VM_EXITCODE_INOUT_STR,
        ExitKind::TaskSwitch(_) => sys::VM_EXITCODE_TASK_SWITCH,
        ExitKind::Monitor => sys::VM_EXITCODE_MONITOR,
        ExitKind::Mwait => sys::VM_EXITCODE_MWAIT,
        ExitKind::Reqidle => sys::VM_EXITCODE_REQIDLE,
        ExitKind::Debug => sys::VM_EXITCODE_DEBUG,
        ExitKind::Vminsn => sys::VM_EXITCODE_VMINSN,
        ExitKind::Bpt { .. } => sys::VM_EXITCODE_BPT,
        ExitKind::Ipi { .. } => sys::VM_EXITCODE_IPI,
        ExitKind::Db { .. } => sys::VM_EXITCODE_DB,
    }
}

/// The union's member; each starts where the union does. Not inlined: the compiler would
/// carry all of the union's bytes through all of the arms.
#[inline(never)]
fn payload(u: &mut Writer<'_>, exit: &VmExit) {
    match exit.kind {
        ExitKind::Inout(inout) => write_inout(u, &inout),
        ExitKind::Vmx(vmx) => write_vmx(u, &vmx),
        ExitKind::Rdmsr { code } => put_at!(u, sys::vm_exit_msr, code: u32 = code),
        ExitKind::Wrmsr { code, value } => {
            put_at!(u, sys::vm_exit_msr, code: u32 = code);
            put_at!(u, sys::vm_exit_msr, wval: u64 = value);
        }
        ExitKind::Hlt {
            rflags,
            intr_status,
        } => {
            put_at!(u, sys::vm_exit_hlt, rflags: u64 = rflags);
            put_at!(u, sys::vm_exit_hlt, intr_status: u64 = intr_status);
        }
        ExitKind::Paging { gpa, access, .. } => {
            // VM_PROT_*
            let fault_type = match access {
                Access::Read => 1,
                Access::Write => 2,
                Access::Execute => 4,
            };
            put_at!(u, sys::vm_exit_paging, gpa: u64 = gpa.0);
            put_at!(u, sys::vm_exit_paging, fault_type: i32 = fault_type);
        }
        ExitKind::InstEmul(emul) => write_inst_emul(u, &emul, exit.inst_length),
        ExitKind::SpinupAp { vcpu, rip } => {
            put_at!(u, sys::vm_exit_spinup_ap, vcpu: i32 = vcpu.0.into());
            put_at!(u, sys::vm_exit_spinup_ap, rip: u64 = rip);
        }
        ExitKind::IoapicEoi { vector } => {
            put_at!(u, sys::vm_exit_ioapic_eoi, vector: i32 = vector.into());
        }
        ExitKind::Suspended(how) => put_at!(u, sys::vm_exit_suspended, how: u32 = how as u32),
        ExitKind::InoutStr(inout_str) => write_inout_str(u, &inout_str),
        ExitKind::TaskSwitch(task_switch) => write_task_switch(u, &task_switch),
        ExitKind::Bpt { inst_length } => {
            put_at!(u, sys::vm_exit_bpt, inst_length: i32 = inst_length.into());
        }
        ExitKind::Ipi { mode, vector } => {
            put_at!(u, sys::vm_exit_ipi, mode: u32 = mode);
            put_at!(u, sys::vm_exit_ipi, vector: u8 = vector);
        }
        ExitKind::Db {
            trace_trap,
            pushf_intercept,
            tf_shadow,
            paging,
        } => {
            put_at!(u, sys::vm_exit_dbg, trace_trap: i32 = trace_trap.into());
            put_at!(u, sys::vm_exit_dbg, pushf_intercept: i32 = pushf_intercept.into());
            put_at!(u, sys::vm_exit_dbg, tf_shadow_val: i32 = tf_shadow.into());
            write_paging(&mut u.at(offset_of!(sys::vm_exit_dbg, paging)), &paging);
        }
        ExitKind::Bogus
        | ExitKind::Mtrap
        | ExitKind::Pause
        | ExitKind::Rendezvous
        | ExitKind::Monitor
        | ExitKind::Mwait
        | ExitKind::Reqidle
        | ExitKind::Debug
        | ExitKind::Vminsn => {}
    }
}

fn write_inout(w: &mut Writer<'_>, inout: &Inout) {
    // bytes:3, in:1, string:1, rep:1, from the lowest bit.
    let bits = u16::from(inout.bytes & 7)
        | u16::from(inout.input) << 3
        | u16::from(inout.string) << 4
        | u16::from(inout.rep) << 5;
    w.store(0, &bits.to_ne_bytes());
    put_at!(w, sys::vm_inout, port: u16 = inout.port);
    put_at!(w, sys::vm_inout, eax: u32 = inout.eax);
}

fn write_inout_str(w: &mut Writer<'_>, s: &InoutStr) {
    write_inout(&mut w.at(offset_of!(sys::vm_inout_str, inout)), &s.inout);
    write_paging(&mut w.at(offset_of!(sys::vm_inout_str, paging)), &s.paging);
    put_at!(w, sys::vm_inout_str, rflags: u64 = s.rflags);
    put_at!(w, sys::vm_inout_str, cr0: u64 = s.cr0);
    put_at!(w, sys::vm_inout_str, index: u64 = s.index);
    put_at!(w, sys::vm_inout_str, count: u64 = s.count);
    put_at!(w, sys::vm_inout_str, addrsize: i32 = s.addrsize.into());
    put_at!(w, sys::vm_inout_str, seg_name: u32 = s.seg as u32);
    write_desc(
        &mut w.at(offset_of!(sys::vm_inout_str, seg_desc)),
        &s.seg_desc,
    );
    put_at!(w, sys::vm_inout_str, cs_d: i32 = s.cs_d.into());
    put_at!(w, sys::vm_inout_str, cs_base: u64 = s.cs_base);
}

fn write_vmx(w: &mut Writer<'_>, vmx: &VmxExit) {
    match *vmx {
        VmxExit::Exit {
            reason,
            qualification,
        } => {
            // status 0: the instruction succeeded.
            // The basic reason, as FreeBSD's module gives it: the flags above are not for
            // userland, and reasons 33, 34 and 41 say by themselves that an entry failed.
            put_at!(w, sys::vm_exit_vmx, exit_reason: u32 = reason & 0xffff);
            put_at!(w, sys::vm_exit_vmx, exit_qualification: u64 = qualification);
        }
        VmxExit::EntryFailed { inst, status } => {
            let (status, error) = match status {
                VmFail::Invalid => (1, 0),
                VmFail::Valid(error) => (2, error as i32),
            };
            let inst = match inst {
                EntryInst::Vmresume => 1,
                EntryInst::Vmlaunch => 2,
            };
            put_at!(w, sys::vm_exit_vmx, status: i32 = status);
            put_at!(w, sys::vm_exit_vmx, inst_type: i32 = inst);
            put_at!(w, sys::vm_exit_vmx, inst_error: i32 = error);
        }
    }
}

/// With a length, the guest goes on behind the instruction: userland has to find it decoded.
fn write_inst_emul(w: &mut Writer<'_>, emul: &InstEmul, inst_length: u8) {
    put_at!(w, sys::vm_exit_inst_emul, gpa: u64 = emul.gpa.0);
    put_at!(w, sys::vm_exit_inst_emul, gla: u64 = emul.gla.0);
    put_at!(w, sys::vm_exit_inst_emul, cs_base: u64 = emul.cs_base);
    put_at!(w, sys::vm_exit_inst_emul, cs_d: i32 = emul.cs_d.into());
    write_paging(
        &mut w.at(offset_of!(sys::vm_exit_inst_emul, paging)),
        &emul.paging,
    );
    let mut w = w.at(offset_of!(sys::vm_exit_inst_emul, vie));
    w.store(offset_of!(sys::vie, inst), &emul.inst.bytes);
    put_at!(w, sys::vie, num_valid: u8 = emul.inst.len);
    let bytes = &emul.inst.bytes[..usize::from(emul.inst.len).min(emul.inst.bytes.len())];
    let decoded = (inst_length != 0)
        .then(|| decode(bytes, emul.paging.cpu_mode, emul.cs_d).ok())
        .flatten()
        .and_then(|inst| vie::of(&inst, emul.paging.cpu_mode));
    match decoded {
        Some(vie) => write_vie(&mut w, &vie),
        None => write_vie_registers(&mut w, None, None, None),
    }
}

/// Everything but the bytes. Bit-fields are counted from the lowest bit of their unit.
fn write_vie(w: &mut Writer<'_>, vie: &Vie) {
    let flags = [
        vie.rex_w,
        vie.rex_r,
        vie.rex_x,
        vie.rex_b,
        vie.rex_present,
        vie.repz_present,
        vie.repnz_present,
        vie.opsize_override,
        vie.addrsize_override,
        vie.segment_override,
    ];
    let flags = flags
        .into_iter()
        .enumerate()
        .fold(0u16, |bits, (i, flag)| bits | u16::from(flag) << i);
    put_at!(w, sys::vie, num_processed: u8 = vie.num_processed);
    let bits = offset_of!(sys::vie, num_processed) + 1;
    // addrsize:4, opsize:4; the ten flags; mod:2, reg:4, rm:4; ss:2, vex_present:1,
    // vex_l:1, index:4, base:4. No field lies across bytes.
    let [flags_low, flags_high] = flags.to_le_bytes();
    w.store(
        bits,
        &[
            vie.addrsize & 0xf | vie.opsize << 4,
            flags_low,
            flags_high | vie.modrm_mod << 2 | vie.reg << 4,
            vie.rm | vie.ss << 4,
            vie.index | vie.base << 4,
        ],
    );
    put_at!(w, sys::vie, disp_bytes: u8 = vie.disp_bytes);
    put_at!(w, sys::vie, imm_bytes: u8 = vie.imm_bytes);
    put_at!(w, sys::vie, scale: u8 = vie.scale);
    write_vie_registers(
        w,
        vie.base_register,
        vie.index_register,
        vie.segment_register,
    );
    put_at!(w, sys::vie, displacement: i64 = vie.displacement);
    put_at!(w, sys::vie, immediate: i64 = vie.immediate);
    put_at!(w, sys::vie, decoded: u8 = 1);
    let mut w = w.at(offset_of!(sys::vie, op));
    put_at!(w, sys::vie_op, op_byte: u8 = vie.op.op_byte);
    put_at!(w, sys::vie_op, op_type: u8 = vie.op.op_type);
    put_at!(w, sys::vie_op, op_flags: u16 = vie.op.op_flags);
}

fn write_vie_registers(
    w: &mut Writer<'_>,
    base: Option<Reg>,
    index: Option<Reg>,
    segment: Option<SegReg>,
) {
    let last = sys::VM_REG_LAST as i32;
    let number = |reg: Option<Reg>| reg.map_or(last, |reg| reg as i32);
    put_at!(w, sys::vie, base_register: i32 = number(base));
    put_at!(w, sys::vie, index_register: i32 = number(index));
    put_at!(w, sys::vie, segment_register: i32 = segment.map_or(last, |seg| seg as i32));
}

fn write_task_switch(w: &mut Writer<'_>, ts: &TaskSwitch) {
    put_at!(w, sys::vm_task_switch, tsssel: u16 = ts.tss_selector);
    put_at!(w, sys::vm_task_switch, ext: i32 = ts.ext.into());
    put_at!(w, sys::vm_task_switch, errcode: u32 = ts.error_code.unwrap_or(0));
    put_at!(w, sys::vm_task_switch, errcode_valid: i32 = ts.error_code.is_some().into());
    put_at!(w, sys::vm_task_switch, reason: u32 = ts.reason as u32);
    write_paging(
        &mut w.at(offset_of!(sys::vm_task_switch, paging)),
        &ts.paging,
    );
}

fn write_paging(w: &mut Writer<'_>, paging: &GuestPaging) {
    put_at!(w, sys::vm_guest_paging, cr3: u64 = paging.cr3);
    put_at!(w, sys::vm_guest_paging, cpl: i32 = paging.cpl.into());
    put_at!(w, sys::vm_guest_paging, cpu_mode: u32 = paging.cpu_mode as u32);
    put_at!(w, sys::vm_guest_paging, paging_mode: u32 = paging.paging_mode as u32);
}

fn write_desc(w: &mut Writer<'_>, desc: &SegDesc) {
    put_at!(w, sys::seg_desc, base: u64 = desc.base);
    put_at!(w, sys::seg_desc, limit: u32 = desc.limit);
    put_at!(w, sys::seg_desc, access: u32 = desc.access);
}
