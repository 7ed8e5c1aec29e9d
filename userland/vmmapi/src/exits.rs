//! Why a run ended: `struct vm_exit` of machine/vmm.h decoded, once and for all, into a
//! typed enum. A code that the header doesn't define is [`Exit::Unknown`]; a payload with
//! a value outside its enum is an error, so that no handler sees half an exit.

pub use vmm_core::exit::{
    Access, EntryInst, Inout, InoutStr, InstBytes, InstEmul, SuspendHow, TaskSwitch,
    TaskSwitchReason, VmFail, VmxExit,
};
use vmm_core::regs::{CpuMode, GuestPaging, PagingMode, Reg, SegDesc};
use vmm_core::types::{Gla, Gpa, VcpuId};

use crate::{CpuSet, Error};

/// One exit: where the guest was, and why it stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmExit {
    /// RIP of the instruction that exited.
    pub rip: u64,
    /// Its length in bytes, by which the next run moves RIP on; 0 when it isn't known.
    pub inst_length: u32,
    pub exit: Exit,
}

/// Why (enum vm_exitcode, in its order).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// IN or OUT.
    Inout(Inout),
    /// A VM entry that failed, or a VM exit that the kernel doesn't handle.
    Vmx(VmxExit),
    /// Nothing to do: run again.
    Bogus,
    Rdmsr {
        code: u32,
    },
    Wrmsr {
        code: u32,
        value: u64,
    },
    Hlt {
        rflags: u64,
        intr_status: u64,
    },
    /// One instruction ran under the monitor trap flag.
    Mtrap,
    Pause,
    /// An access to guest memory that the kernel couldn't resolve.
    Paging {
        gpa: Gpa,
        access: Access,
    },
    /// An access to something that is no memory, to be emulated by its instruction.
    InstEmul(InstEmul),
    /// A startup IPI: start that vcpu at that RIP.
    SpinupAp {
        vcpu: VcpuId,
        rip: u64,
    },
    /// Once "spindown cpu"; no kernel of today has it.
    Deprecated1,
    Rendezvous,
    IoapicEoi {
        vector: u8,
    },
    /// The VM is at its end, or at a reset.
    Suspended(SuspendHow),
    /// INS or OUTS.
    InoutStr(InoutStr),
    TaskSwitch(TaskSwitch),
    Monitor,
    Mwait,
    /// AMD's exits; the stock module on such a host.
    Svm {
        exitcode: u64,
        exitinfo1: u64,
        exitinfo2: u64,
    },
    Reqidle,
    /// The vcpu is stopped for a debugger.
    Debug,
    /// A VMX or SVM instruction in the guest.
    Vminsn,
    Bpt {
        inst_length: u32,
    },
    /// An init or startup IPI for these vcpus.
    Ipi {
        mode: u32,
        vector: u8,
        dest: CpuSet,
    },
    Db {
        trace_trap: bool,
        pushf_intercept: bool,
        tf_shadow: bool,
        paging: GuestPaging,
    },
    /// A code that this program doesn't know.
    Unknown {
        exitcode: u32,
    },
}

impl VmExit {
    /// Decodes what VM_RUN filled in; `dest` is the set that came with it.
    pub fn decode(raw: &vmm_sys::vm_exit, dest: &CpuSet) -> Result<Self, Error> {
        let bad = |field, value| Error::BadExit {
            exitcode: raw.exitcode,
            field,
            value,
        };
        Ok(Self {
            rip: raw.rip,
            inst_length: u32::try_from(raw.inst_length)
                .map_err(|_| bad("inst_length", raw.inst_length as u64))?,
            exit: Decoder { raw }.exit(dest)?,
        })
    }
}

/// Reads the payload that belongs to the exit code.
struct Decoder<'a> {
    raw: &'a vmm_sys::vm_exit,
}

/// One member of the payload union.
macro_rules! payload {
    ($self:ident . $member:ident) => {
        // SAFETY: each member of the union is made of integers, for which all bytes are
        // values, and the union's bytes are all initialized: zeroed, then filled by the kernel.
        unsafe { $self.raw.u.$member }
    };
}

impl Decoder<'_> {
    fn exit(&self, dest: &CpuSet) -> Result<Exit, Error> {
        Ok(match self.raw.exitcode {
            vmm_sys::VM_EXITCODE_INOUT => Exit::Inout(self.inout(payload!(self.inout))?),
            vmm_sys::VM_EXITCODE_VMX => Exit::Vmx(self.vmx()?),
            vmm_sys::VM_EXITCODE_BOGUS => Exit::Bogus,
            vmm_sys::VM_EXITCODE_RDMSR => Exit::Rdmsr {
                code: payload!(self.msr).code,
            },
            vmm_sys::VM_EXITCODE_WRMSR => {
                let msr = payload!(self.msr);
                Exit::Wrmsr {
                    code: msr.code,
                    value: msr.wval,
                }
            }
            vmm_sys::VM_EXITCODE_HLT => {
                let hlt = payload!(self.hlt);
                Exit::Hlt {
                    rflags: hlt.rflags,
                    intr_status: hlt.intr_status,
                }
            }
            vmm_sys::VM_EXITCODE_MTRAP => Exit::Mtrap,
            vmm_sys::VM_EXITCODE_PAUSE => Exit::Pause,
            vmm_sys::VM_EXITCODE_PAGING => {
                let paging = payload!(self.paging);
                Exit::Paging {
                    gpa: Gpa(paging.gpa),
                    access: self.access(paging.fault_type)?,
                }
            }
            vmm_sys::VM_EXITCODE_INST_EMUL => Exit::InstEmul(self.inst_emul()?),
            vmm_sys::VM_EXITCODE_SPINUP_AP => {
                let ap = payload!(self.spinup_ap);
                Exit::SpinupAp {
                    vcpu: VcpuId(self.narrow("u.spinup_ap.vcpu", i64::from(ap.vcpu))?),
                    rip: ap.rip,
                }
            }
            vmm_sys::VM_EXITCODE_DEPRECATED1 => Exit::Deprecated1,
            vmm_sys::VM_EXITCODE_RENDEZVOUS => Exit::Rendezvous,
            vmm_sys::VM_EXITCODE_IOAPIC_EOI => {
                let vector = payload!(self.ioapic_eoi).vector;
                Exit::IoapicEoi {
                    vector: self.narrow("u.ioapic_eoi.vector", i64::from(vector))?,
                }
            }
            vmm_sys::VM_EXITCODE_SUSPENDED => {
                let how = payload!(self.suspended).how;
                Exit::Suspended(
                    SuspendHow::from_raw(how)
                        .ok_or_else(|| self.bad("u.suspended.how", u64::from(how)))?,
                )
            }
            vmm_sys::VM_EXITCODE_INOUT_STR => Exit::InoutStr(self.inout_str()?),
            vmm_sys::VM_EXITCODE_TASK_SWITCH => Exit::TaskSwitch(self.task_switch()?),
            vmm_sys::VM_EXITCODE_MONITOR => Exit::Monitor,
            vmm_sys::VM_EXITCODE_MWAIT => Exit::Mwait,
            vmm_sys::VM_EXITCODE_SVM => {
                let svm = payload!(self.svm);
                Exit::Svm {
                    exitcode: svm.exitcode,
                    exitinfo1: svm.exitinfo1,
                    exitinfo2: svm.exitinfo2,
                }
            }
            vmm_sys::VM_EXITCODE_REQIDLE => Exit::Reqidle,
            vmm_sys::VM_EXITCODE_DEBUG => Exit::Debug,
            vmm_sys::VM_EXITCODE_VMINSN => Exit::Vminsn,
            vmm_sys::VM_EXITCODE_BPT => {
                let len = payload!(self.bpt).inst_length;
                Exit::Bpt {
                    inst_length: self.narrow("u.bpt.inst_length", i64::from(len))?,
                }
            }
            vmm_sys::VM_EXITCODE_IPI => {
                let ipi = payload!(self.ipi);
                Exit::Ipi {
                    mode: ipi.mode,
                    vector: ipi.vector,
                    dest: *dest,
                }
            }
            vmm_sys::VM_EXITCODE_DB => {
                let dbg = payload!(self.dbg);
                Exit::Db {
                    trace_trap: dbg.trace_trap != 0,
                    pushf_intercept: dbg.pushf_intercept != 0,
                    tf_shadow: dbg.tf_shadow_val != 0,
                    paging: self.guest_paging(dbg.paging)?,
                }
            }
            exitcode => Exit::Unknown { exitcode },
        })
    }

    fn inout(&self, raw: vmm_sys::vm_inout) -> Result<Inout, Error> {
        let bytes = match raw.bytes() {
            1 => 1,
            2 => 2,
            4 => 4,
            other => return Err(self.bad("u.inout.bytes", u64::from(other))),
        };
        Ok(Inout {
            bytes,
            input: raw.in_() != 0,
            string: raw.string() != 0,
            rep: raw.rep() != 0,
            port: raw.port,
            eax: raw.eax,
        })
    }

    fn inout_str(&self) -> Result<InoutStr, Error> {
        let raw = payload!(self.inout_str);
        let addrsize = match raw.addrsize {
            2 => 2,
            4 => 4,
            8 => 8,
            other => return Err(self.bad("u.inout_str.addrsize", other as u64)),
        };
        let seg = i32::try_from(raw.seg_name)
            .ok()
            .and_then(Reg::from_raw)
            .and_then(Reg::segment)
            .ok_or_else(|| self.bad("u.inout_str.seg_name", u64::from(raw.seg_name)))?;
        Ok(InoutStr {
            inout: self.inout(raw.inout)?,
            paging: self.guest_paging(raw.paging)?,
            rflags: raw.rflags,
            cr0: raw.cr0,
            index: raw.index,
            count: raw.count,
            addrsize,
            seg,
            seg_desc: seg_desc(raw.seg_desc),
            cs_d: raw.cs_d != 0,
            cs_base: raw.cs_base,
        })
    }

    fn inst_emul(&self) -> Result<InstEmul, Error> {
        let raw = payload!(self.inst_emul);
        let inst = InstBytes {
            bytes: raw.vie.inst,
            len: raw.vie.num_valid,
        };
        if usize::from(inst.len) > inst.bytes.len() {
            return Err(self.bad("u.inst_emul.vie.num_valid", u64::from(inst.len)));
        }
        Ok(InstEmul {
            gpa: Gpa(raw.gpa),
            gla: Gla(raw.gla),
            cs_base: raw.cs_base,
            cs_d: raw.cs_d != 0,
            paging: self.guest_paging(raw.paging)?,
            inst,
        })
    }

    /// `status` is 0 (an exit), 1 (VMfailInvalid) or 2 (VMfailValid); `inst_type` is 1
    /// for VMRESUME and 2 for VMLAUNCH.
    fn vmx(&self) -> Result<VmxExit, Error> {
        let raw = payload!(self.vmx);
        let status = match raw.status {
            0 => {
                return Ok(VmxExit::Exit {
                    reason: raw.exit_reason,
                    qualification: raw.exit_qualification,
                });
            }
            1 => VmFail::Invalid,
            2 => VmFail::Valid(self.narrow("u.vmx.inst_error", i64::from(raw.inst_error))?),
            other => return Err(self.bad("u.vmx.status", other as u64)),
        };
        let inst = match raw.inst_type {
            1 => EntryInst::Vmresume,
            2 => EntryInst::Vmlaunch,
            other => return Err(self.bad("u.vmx.inst_type", other as u64)),
        };
        Ok(VmxExit::EntryFailed { inst, status })
    }

    fn task_switch(&self) -> Result<TaskSwitch, Error> {
        let raw = payload!(self.task_switch);
        let reason = match raw.reason {
            vmm_sys::TSR_CALL => TaskSwitchReason::Call,
            vmm_sys::TSR_IRET => TaskSwitchReason::Iret,
            vmm_sys::TSR_JMP => TaskSwitchReason::Jmp,
            vmm_sys::TSR_IDT_GATE => TaskSwitchReason::IdtGate,
            other => return Err(self.bad("u.task_switch.reason", u64::from(other))),
        };
        Ok(TaskSwitch {
            tss_selector: raw.tsssel,
            ext: raw.ext != 0,
            error_code: (raw.errcode_valid != 0).then_some(raw.errcode),
            reason,
            paging: self.guest_paging(raw.paging)?,
        })
    }

    fn guest_paging(&self, raw: vmm_sys::vm_guest_paging) -> Result<GuestPaging, Error> {
        let cpu_mode = match raw.cpu_mode {
            vmm_sys::CPU_MODE_REAL => CpuMode::Real,
            vmm_sys::CPU_MODE_PROTECTED => CpuMode::Protected,
            vmm_sys::CPU_MODE_COMPATIBILITY => CpuMode::Compatibility,
            vmm_sys::CPU_MODE_64BIT => CpuMode::Long64,
            other => return Err(self.bad("paging.cpu_mode", u64::from(other))),
        };
        let paging_mode = match raw.paging_mode {
            vmm_sys::PAGING_MODE_FLAT => PagingMode::Flat,
            vmm_sys::PAGING_MODE_32 => PagingMode::Bits32,
            vmm_sys::PAGING_MODE_PAE => PagingMode::Pae,
            vmm_sys::PAGING_MODE_64 => PagingMode::Level4,
            vmm_sys::PAGING_MODE_64_LA57 => PagingMode::Level5,
            other => return Err(self.bad("paging.paging_mode", u64::from(other))),
        };
        let cpl = self.narrow("paging.cpl", i64::from(raw.cpl))?;
        if cpl > 3 {
            return Err(self.bad("paging.cpl", u64::from(cpl)));
        }
        Ok(GuestPaging {
            cr3: raw.cr3,
            cpl,
            cpu_mode,
            paging_mode,
        })
    }

    /// VM_PROT_READ, VM_PROT_WRITE or VM_PROT_EXECUTE.
    fn access(&self, fault_type: i32) -> Result<Access, Error> {
        Ok(match fault_type {
            1 => Access::Read,
            2 => Access::Write,
            4 => Access::Execute,
            other => return Err(self.bad("u.paging.fault_type", other as u64)),
        })
    }

    /// An int of the ABI as the type that its meaning has.
    fn narrow<T: TryFrom<i64>>(&self, field: &'static str, value: i64) -> Result<T, Error> {
        T::try_from(value).map_err(|_| self.bad(field, value as u64))
    }

    const fn bad(&self, field: &'static str, value: u64) -> Error {
        Error::BadExit {
            exitcode: self.raw.exitcode,
            field,
            value,
        }
    }
}

const fn seg_desc(raw: vmm_sys::seg_desc) -> SegDesc {
    SegDesc {
        base: raw.base,
        limit: raw.limit,
        access: raw.access,
    }
}

#[cfg(test)]
mod tests;
