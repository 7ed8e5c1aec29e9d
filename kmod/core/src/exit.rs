//! A VM exit as the rest of the module sees it: what `struct vm_exit` of machine/vmm.h
//! carries, as one typed enum. The VT-x backend makes it, `vm::run` handles what the
//! kernel can handle, and what is left is encoded for userland (`ioctl::encode_exit`).

use crate::regs::{GuestPaging, SegDesc, SegReg};
use crate::types::{Gla, Gpa, VcpuId};

/// One exit: where the guest was, and why it stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmExit {
    /// RIP of the instruction that exited.
    pub rip: u64,
    /// Its length in bytes; the next run continues at `rip + inst_length`, so 0 restarts it.
    pub inst_length: u8,
    pub kind: ExitKind,
}

/// Why (enum vm_exitcode; in its order).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitKind {
    Inout(Inout),
    /// No better code describes it: a VM entry that failed or an exit nobody handles.
    Vmx(VmxExit),
    /// Nothing to do: a pending signal, AST or reschedule made the run loop leave.
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
    Mtrap,
    Pause,
    /// An EPT violation; `access` is what was tried, `gla` the linear address if the CPU
    /// gave one. `vm::run` answers it from guest memory or makes it an [`InstEmul`].
    Paging {
        gpa: Gpa,
        gla: Option<Gla>,
        access: Access,
    },
    InstEmul(InstEmul),
    SpinupAp {
        vcpu: VcpuId,
        rip: u64,
    },
    Rendezvous,
    IoapicEoi {
        vector: u8,
    },
    Suspended(SuspendHow),
    InoutStr(InoutStr),
    TaskSwitch(TaskSwitch),
    Monitor,
    Mwait,
    /// The vcpu is to go idle so that an ioctl can lock it.
    Reqidle,
    /// Stopped for a debugger (VM_SUSPEND_CPU).
    Debug,
    /// A VMX instruction in the guest: #UD.
    Vminsn,
    Bpt {
        inst_length: u8,
    },
    Ipi {
        mode: u32,
        vector: u8,
    },
    Db {
        trace_trap: bool,
        pushf_intercept: bool,
        tf_shadow: bool,
        paging: GuestPaging,
    },
}

/// IN or OUT without a string form (SDM table 28-5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inout {
    /// 1, 2 or 4.
    pub bytes: u8,
    pub input: bool,
    pub string: bool,
    pub rep: bool,
    pub port: u16,
    /// EAX at the exit; the value of an OUT in its low `bytes`.
    pub eax: u32,
}

/// INS or OUTS, described so fully that userland needs no instruction fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InoutStr {
    pub inout: Inout,
    pub paging: GuestPaging,
    pub rflags: u64,
    pub cr0: u64,
    /// RSI (OUTS) or RDI (INS), of the address size.
    pub index: u64,
    /// RCX, of the address size, with a REP prefix; else 1.
    pub count: u64,
    /// In bytes: 2, 4 or 8.
    pub addrsize: u8,
    pub seg: SegReg,
    pub seg_desc: SegDesc,
    pub cs_d: bool,
    pub cs_base: u64,
}

/// What an access wanted to do to a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// An access to something that is not memory, to be emulated by its instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstEmul {
    pub gpa: Gpa,
    pub gla: Gla,
    pub cs_base: u64,
    pub cs_d: bool,
    pub paging: GuestPaging,
    pub inst: InstBytes,
}

/// The instruction at the exit, as far as it could be fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InstBytes {
    pub bytes: [u8; 15],
    /// How many of them are valid; 0 when none could be fetched.
    pub len: u8,
}

/// What the CPU said (SDM vol. 3C, 28.2 and 31.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmxExit {
    /// A VM exit that nobody handles, or a VM entry that failed by its guest state or
    /// MSR loading (bit 31 of the reason is set then).
    Exit { reason: u32, qualification: u64 },
    /// VMLAUNCH or VMRESUME itself failed.
    EntryFailed { inst: EntryInst, status: VmFail },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryInst {
    Vmresume,
    Vmlaunch,
}

/// How a VMX instruction fails (SDM vol. 3C, 31.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmFail {
    /// VMfailInvalid: there is no current VMCS.
    Invalid,
    /// VMfailValid: the VM-instruction error field's number.
    Valid(u32),
}

/// How a VM ends (enum vm_suspend_how).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum SuspendHow {
    Reset = 1,
    Poweroff = 2,
    Halt = 3,
    TripleFault = 4,
    Destroy = 5,
}

impl SuspendHow {
    /// From its ABI number; `None` for VM_SUSPEND_NONE and numbers out of range.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::Reset,
            2 => Self::Poweroff,
            3 => Self::Halt,
            4 => Self::TripleFault,
            5 => Self::Destroy,
            _ => return None,
        })
    }
}

/// A hardware task switch (SDM vol. 3C, 26.4.2 and table 28-2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskSwitch {
    pub tss_selector: u16,
    /// Whether an external event or exception caused it.
    pub ext: bool,
    pub error_code: Option<u32>,
    pub reason: TaskSwitchReason,
    pub paging: GuestPaging,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum TaskSwitchReason {
    Call = 0,
    Iret = 1,
    Jmp = 2,
    IdtGate = 3,
}
