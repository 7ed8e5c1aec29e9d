//! Every request that /dev/vmm/NAME serves, with fields that can't be wrong.

use alloc::vec::Vec;

use crate::devices::lapic::Lvt;
use crate::devices::{ApicMessage, Drive, Trigger};
use crate::exit::{Access, SuspendHow};
use crate::regs::{GuestPaging, Reg, SegDesc, SegReg};
use crate::types::{Errno, Gla, Gpa, PAGE_SIZE, VcpuId, Vector};
use crate::vcpu::Capability;

/// How many vcpus a VM can have at most: VM_MAXCPU, which the capacity of a cpuset_t
/// (CPU_SETSIZE) limits. A decoded [`VcpuId`] is below it; the VM's own maximum is less.
pub const VM_MAXCPU: u16 = 1024;
/// The end of guest-physical address space, as in FreeBSD's vmm (VM_MAXUSER_ADDRESS_LA48).
pub const GPA_LIMIT: Gpa = Gpa(1 << 47);
/// Memory segments per VM: eight of system memory (VM_SYSMEM on), then the boot ROM, the
/// frame buffer and the PCI ROMs (VM_MAX_MEMSEGS).
pub const VM_MAX_MEMSEGS: usize = 11;
/// Mappings per VM (VM_MAX_MEMMAPS).
pub const VM_MAX_MEMMAPS: usize = VM_MAX_MEMSEGS * 2;
/// Statistics that one VM_STATS returns at most (MAX_VM_STATS).
pub const MAX_VM_STATS: usize = 64;

/// One request, decoded. Each variant says what its success answers with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Runs until an exit that userland is to handle; `struct vm_exit` goes to `exit`,
    /// and for an IPI exit the destinations to `cpuset`.
    Run {
        vcpu: VcpuId,
        exit: UserPtr,
        cpuset: UserPtr,
        cpuset_size: u64,
    },
    /// [`super::Reply::Run13`]
    Run13 {
        vcpu: VcpuId,
    },
    Suspend {
        how: SuspendHow,
    },
    Reinit,
    SetCapability {
        vcpu: VcpuId,
        cap: Capability,
        on: bool,
    },
    /// [`super::Reply::Capability`]
    GetCapability {
        vcpu: VcpuId,
        cap: Capability,
    },

    AllocMemseg(AllocMemseg),
    /// [`super::Reply::Memseg`]; ENAMETOOLONG if the name and its end are longer than
    /// `name_size`.
    GetMemseg {
        segid: SegId,
        name_size: usize,
    },
    MmapMemseg(Mapping),
    /// [`super::Reply::Mapping`]: the first mapping at `gpa` or above.
    MmapGetnext {
        gpa: u64,
    },
    MunmapMemseg {
        gpa: Gpa,
        len: u64,
    },
    /// [`super::Reply::GpaPmap`]
    GetGpaPmap {
        gpa: Gpa,
    },
    /// [`super::Reply::Gla2gpa`]; with `inject_fault` (VM_GLA2GPA) a page fault goes into
    /// the guest as well, and accessed and dirty bits are set.
    Gla2gpa {
        vcpu: VcpuId,
        paging: GuestPaging,
        gla: Gla,
        access: Access,
        inject_fault: bool,
    },

    /// [`super::Reply::Register`]
    GetRegister {
        vcpu: VcpuId,
        reg: Readable,
    },
    SetRegister {
        vcpu: VcpuId,
        reg: Reg,
        value: u64,
    },
    /// `count` ints at `regnums`, each through [`Readable::from_raw`]; as many u64 to
    /// `values`.
    GetRegisterSet(RegisterSet),
    /// `count` ints at `regnums`, each through [`writable`]; as many u64 at `values`.
    SetRegisterSet(RegisterSet),
    /// [`super::Reply::SegDesc`]
    GetSegDesc {
        vcpu: VcpuId,
        seg: SegReg,
    },
    SetSegDesc {
        vcpu: VcpuId,
        seg: SegReg,
        desc: SegDesc,
    },

    /// [`super::Reply::Intinfo`]
    GetIntinfo {
        vcpu: VcpuId,
    },
    /// For [`crate::vcpu::events::EventQueue::set_exit_intinfo`], which checks it.
    SetIntinfo {
        vcpu: VcpuId,
        info: u64,
    },
    InjectException {
        vcpu: VcpuId,
        vector: Vector,
        error_code: Option<u32>,
        restart: bool,
    },
    InjectNmi {
        vcpu: VcpuId,
    },
    RestartInstruction {
        vcpu: VcpuId,
    },

    /// An edge-triggered interrupt at a vcpu's local APIC.
    LapicIrq {
        vcpu: VcpuId,
        vector: Vector,
    },
    /// A local interrupt of one vcpu, or of all active ones.
    LapicLocalIrq {
        vcpu: Option<VcpuId>,
        lvt: Lvt,
    },
    LapicMsi(ApicMessage),
    /// The chipset knows which pins there are.
    IoapicIrq {
        irq: i32,
        drive: Drive,
    },
    /// [`super::Reply::IoapicPincount`]
    IoapicPincount,
    /// An interrupt that is wired to the 8259s, and to the I/O APIC unless that is -1.
    IsaIrq {
        atpic_irq: i32,
        ioapic_irq: i32,
        drive: Drive,
    },
    IsaSetIrqTrigger {
        atpic_irq: i32,
        trigger: Trigger,
    },
    /// A register of a device of the kernel as the guest would access it by MMIO.
    /// [`super::Reply::Kernemu`]
    GetKernemuDev {
        vcpu: VcpuId,
        gpa: Gpa,
        bytes: u8,
    },
    SetKernemuDev {
        vcpu: VcpuId,
        gpa: Gpa,
        bytes: u8,
        value: u64,
    },
    /// [`super::Reply::HpetCapabilities`]
    GetHpetCapabilities,
    /// [`super::Reply::RtcData`]
    RtcRead {
        offset: i32,
    },
    RtcWrite {
        offset: i32,
        value: u8,
    },
    /// [`super::Reply::RtcTime`]
    RtcGettime,
    /// Seconds since 1970, UTC.
    RtcSettime {
        seconds: i64,
    },

    /// [`super::Reply::Stats`]; `index` may be past the last statistic (ENOENT) or right
    /// behind it (none are returned).
    Stats {
        vcpu: VcpuId,
        index: usize,
    },
    /// [`super::Reply::Stats13`]
    Stats13 {
        vcpu: VcpuId,
    },
    /// [`super::Reply::StatDesc`]; EINVAL when there is no such statistic.
    StatDesc {
        index: usize,
    },

    SetX2apicState {
        vcpu: VcpuId,
        enabled: bool,
    },
    /// [`super::Reply::X2apicState`]
    GetX2apicState {
        vcpu: VcpuId,
    },
    SetTopology(Topology),
    /// [`super::Reply::Topology`]
    GetTopology,

    ActivateCpu {
        vcpu: VcpuId,
    },
    /// A bit mask of `size` bytes goes to `mask`; ERANGE when a set bit doesn't fit.
    GetCpus {
        which: CpuSetKind,
        mask: UserPtr,
        size: usize,
    },
    /// `None` is every active vcpu.
    SuspendCpu {
        vcpu: Option<VcpuId>,
    },
    ResumeCpu {
        vcpu: Option<VcpuId>,
    },
}

impl Request {
    /// The vcpu that it is about, if it is about one.
    pub const fn vcpu(&self) -> Option<VcpuId> {
        match *self {
            Self::Run { vcpu, .. }
            | Self::Run13 { vcpu }
            | Self::SetCapability { vcpu, .. }
            | Self::GetCapability { vcpu, .. }
            | Self::Gla2gpa { vcpu, .. }
            | Self::GetRegister { vcpu, .. }
            | Self::SetRegister { vcpu, .. }
            | Self::GetRegisterSet(RegisterSet { vcpu, .. })
            | Self::SetRegisterSet(RegisterSet { vcpu, .. })
            | Self::GetSegDesc { vcpu, .. }
            | Self::SetSegDesc { vcpu, .. }
            | Self::GetIntinfo { vcpu }
            | Self::SetIntinfo { vcpu, .. }
            | Self::InjectException { vcpu, .. }
            | Self::InjectNmi { vcpu }
            | Self::RestartInstruction { vcpu }
            | Self::LapicIrq { vcpu, .. }
            | Self::GetKernemuDev { vcpu, .. }
            | Self::SetKernemuDev { vcpu, .. }
            | Self::Stats { vcpu, .. }
            | Self::Stats13 { vcpu }
            | Self::SetX2apicState { vcpu, .. }
            | Self::GetX2apicState { vcpu }
            | Self::ActivateCpu { vcpu } => Some(vcpu),
            Self::SuspendCpu { vcpu }
            | Self::ResumeCpu { vcpu }
            | Self::LapicLocalIrq { vcpu, .. } => vcpu,
            Self::Suspend { .. }
            | Self::Reinit
            | Self::AllocMemseg(_)
            | Self::GetMemseg { .. }
            | Self::MmapMemseg(_)
            | Self::MmapGetnext { .. }
            | Self::MunmapMemseg { .. }
            | Self::GetGpaPmap { .. }
            | Self::LapicMsi(_)
            | Self::IoapicIrq { .. }
            | Self::IoapicPincount
            | Self::IsaIrq { .. }
            | Self::IsaSetIrqTrigger { .. }
            | Self::GetHpetCapabilities
            | Self::RtcRead { .. }
            | Self::RtcWrite { .. }
            | Self::RtcGettime
            | Self::RtcSettime { .. }
            | Self::StatDesc { .. }
            | Self::SetTopology(_)
            | Self::GetTopology
            | Self::GetCpus { .. } => None,
        }
    }
}

/// An address in the caller's address space: for copyin and copyout only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct UserPtr(pub u64);

/// The number of a memory segment, below [`VM_MAX_MEMSEGS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegId(u8);

impl SegId {
    /// EINVAL unless there can be such a segment.
    pub const fn from_raw(raw: i32) -> Result<Self, Errno> {
        if raw < 0 || raw >= VM_MAX_MEMSEGS as i32 {
            return Err(Errno::EINVAL);
        }
        Ok(Self(raw as u8))
    }

    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// VM_ALLOC_MEMSEG.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllocMemseg {
    pub segid: SegId,
    /// Bytes; pages, and not 0.
    pub len: u64,
    /// A device memory segment, which userland maps through /dev/vmm.io; `None` is
    /// system memory.
    pub name: Option<super::SegName>,
    pub numa: Option<Numa>,
}

/// Where the pages of a segment come from: a domainset(9) policy, and a bit mask of
/// domains in the caller's memory. The host kernel checks both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numa {
    pub policy: i32,
    pub mask: UserPtr,
    /// Bytes: from 8, as many as the kernel's domainset_t has, to 32, a program's.
    pub mask_size: usize,
}

/// A part of a segment at a guest-physical address: all of it pages, not empty, and
/// neither end past the end of anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    pub gpa: Gpa,
    pub segid: SegId,
    /// Of the part, in the segment; below 2^63.
    pub segoff: u64,
    /// Bytes.
    pub len: u64,
    pub prot: Prot,
    /// VM_MEMMAP_F_WIRED: make all of it resident now.
    pub wired: bool,
}

impl Mapping {
    /// The first address behind it.
    pub const fn gpa_end(&self) -> Gpa {
        Gpa(self.gpa.0 + self.len)
    }

    /// The offset in the segment behind it.
    pub const fn segoff_end(&self) -> u64 {
        self.segoff + self.len
    }

    pub const fn overlaps(&self, other: &Self) -> bool {
        self.gpa.0 < other.gpa_end().0 && other.gpa.0 < self.gpa_end().0
    }

    /// The parts of the segment, as offset and length, that this map shows and none of
    /// `others` does.
    pub fn parts_only_here(&self, others: &[Self]) -> Vec<(u64, u64)> {
        let mut shown: Vec<&Self> = others.iter().filter(|o| o.segid == self.segid).collect();
        shown.sort_by_key(|other| other.segoff);
        let mut parts = Vec::new();
        let mut at = self.segoff;
        for other in shown {
            let end = other.segoff.min(self.segoff_end());
            if at < end {
                parts.push((at, end - at));
            }
            at = at.max(other.segoff_end());
        }
        if at < self.segoff_end() {
            parts.push((at, self.segoff_end() - at));
        }
        parts
    }
}

bitflags::bitflags! {
    /// PROT_*, of which at least one is set.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Prot: u8 {
        const READ = 1;
        const WRITE = 2;
        const EXEC = 4;
    }
}

/// What VM_GET_REGISTER can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readable {
    Reg(Reg),
    /// A VMCS field (bhyvectl's --get-vmcs-*): a negative number is its encoding with
    /// bit 31 set. The backend answers for fields of its own list only.
    VmcsField(u16),
}

impl Readable {
    /// EINVAL for a number that names nothing.
    pub fn from_raw(raw: i32) -> Result<Self, Errno> {
        if let Some(reg) = Reg::from_raw(raw) {
            return Ok(Self::Reg(reg));
        }
        // Bits 30:15 and 12 of an encoding are reserved (SDM vol. 3C, 25.11.2).
        let encoding = raw as u32 ^ 1 << 31;
        match u16::try_from(encoding) {
            Ok(encoding) if encoding & 0x9000 == 0 => Ok(Self::VmcsField(encoding)),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// The register that VM_SET_REGISTER names; never a VMCS field. EINVAL otherwise.
pub fn writable(raw: i32) -> Result<Reg, Errno> {
    Reg::from_raw(raw).ok_or(Errno::EINVAL)
}

/// VM_GET_REGISTER_SET and VM_SET_REGISTER_SET.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterSet {
    pub vcpu: VcpuId,
    /// At most VM_REG_LAST (49).
    pub count: usize,
    /// `int[count]`
    pub regnums: UserPtr,
    /// `uint64_t[count]`
    pub values: UserPtr,
}

/// How a VM's vcpus are packages, cores and threads. None of the three is 0; whether the
/// product fits the VM's maximum (EINVAL) is for the VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topology {
    pub sockets: u16,
    pub cores: u16,
    pub threads: u16,
    /// Ignored by VM_SET_TOPOLOGY.
    pub maxcpus: u16,
}

impl Topology {
    /// How many vcpus it places.
    pub const fn vcpus(&self) -> u64 {
        self.sockets as u64 * self.cores as u64 * self.threads as u64
    }
}

/// Which set VM_GET_CPUS asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum CpuSetKind {
    Active = 0,
    Suspended = 1,
    Debug = 2,
}

/// Whether `len` bytes at `start` are whole pages, not none, and end by `limit`.
pub(super) const fn whole_pages(start: u64, len: u64, limit: u64) -> bool {
    match start.checked_add(len) {
        Some(end) => (start | len) % PAGE_SIZE == 0 && len != 0 && end <= limit,
        None => false,
    }
}
