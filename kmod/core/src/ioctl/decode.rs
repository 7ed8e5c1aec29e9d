//! From a parameter structure to a checked [`Request`].
//!
//! The errno are FreeBSD's. Where several arguments are wrong at once FreeBSD may name
//! another of them first: it checks some behind the locks, here all of them come before.

use vmm_sys as sys;

use super::fields::{get, get_chars, get_ptr};
use super::name::SegName;
use super::request::{
    AllocMemseg, CpuSetKind, GPA_LIMIT, Mapping, Numa, Prot, Readable, RegisterSet, Request, SegId,
    Topology, UserPtr, VM_MAXCPU, whole_pages, writable,
};
use super::table::{Availability, Command, Entry};
use crate::exit::{Access, SuspendHow};
use crate::regs::{CpuMode, GuestPaging, PagingMode, Reg, SegDesc, SegReg};
use crate::types::{Errno, Gla, Gpa, VcpuId, Vector};
use crate::vcpu::Capability;

/// The request in `data`, the structure that `entry.ioctl` copies in. The privilege that
/// `entry` wants is checked before; what depends on the VM (does this vcpu, this segment
/// exist) is checked behind, by whoever has it locked.
pub fn decode(entry: &Entry, data: &[u8]) -> Result<Request, Errno> {
    if let Availability::Absent(errno) = entry.availability {
        return Err(errno);
    }
    if data.len() < entry.ioctl.size {
        return Err(Errno::EINVAL);
    }
    Ok(match entry.command {
        Command::Run => Request::Run {
            vcpu: vcpu(get!(data, sys::vm_run, cpuid: i32))?,
            exit: get_ptr!(data, sys::vm_run, vm_exit),
            cpuset: get_ptr!(data, sys::vm_run, cpuset),
            cpuset_size: get!(data, sys::vm_run, cpusetsize: usize) as u64,
        },
        Command::Run13 => Request::Run13 {
            vcpu: vcpu(get!(data, sys::vm_run_13, cpuid: i32))?,
        },
        Command::SetCapability => {
            let (vcpu, cap) = capability(data)?;
            Request::SetCapability {
                vcpu,
                cap,
                on: get!(data, sys::vm_capability, capval: i32) != 0,
            }
        }
        Command::GetCapability => {
            let (vcpu, cap) = capability(data)?;
            Request::GetCapability { vcpu, cap }
        }
        Command::Suspend => Request::Suspend {
            how: SuspendHow::from_raw(get!(data, sys::vm_suspend, how: u32))
                .ok_or(Errno::EINVAL)?,
        },
        Command::Reinit => Request::Reinit,

        Command::AllocMemseg => Request::AllocMemseg(alloc_memseg(data)?),
        Command::AllocMemseg12 => Request::AllocMemseg(memseg(
            segid_14(get!(data, sys::vm_memseg_12, segid: i32)),
            get!(data, sys::vm_memseg_12, len: usize) as u64,
            &get_chars!(data, sys::vm_memseg_12, name: NAME_SIZE_12),
            None,
        )?),
        Command::AllocMemseg14 => Request::AllocMemseg(memseg(
            segid_14(get!(data, sys::vm_memseg_14, segid: i32)),
            get!(data, sys::vm_memseg_14, len: usize) as u64,
            &get_chars!(data, sys::vm_memseg_14, name: NAME_SIZE),
            None,
        )?),
        Command::GetMemseg => Request::GetMemseg {
            segid: SegId::from_raw(get!(data, sys::vm_memseg, segid: i32))?,
            name_size: NAME_SIZE,
        },
        Command::GetMemseg12 => Request::GetMemseg {
            segid: segid_14(get!(data, sys::vm_memseg_12, segid: i32))?,
            name_size: NAME_SIZE_12,
        },
        Command::GetMemseg14 => Request::GetMemseg {
            segid: segid_14(get!(data, sys::vm_memseg_14, segid: i32))?,
            name_size: NAME_SIZE,
        },
        Command::MmapMemseg => Request::MmapMemseg(mapping(data)?),
        Command::MmapGetnext => Request::MmapGetnext {
            gpa: get!(data, sys::vm_memmap, gpa: u64),
        },
        Command::MunmapMemseg => {
            let gpa = get!(data, sys::vm_munmap, gpa: u64);
            let len = get!(data, sys::vm_munmap, len: usize) as u64;
            if !whole_pages(gpa, len, GPA_LIMIT.0) {
                return Err(Errno::EINVAL);
            }
            Request::MunmapMemseg { gpa: Gpa(gpa), len }
        }
        Command::GetGpaPmap => Request::GetGpaPmap {
            gpa: Gpa(get!(data, sys::vm_gpa_pte, gpa: u64)),
        },
        Command::Gla2gpa => gla2gpa(data, true)?,
        Command::Gla2gpaNofault => gla2gpa(data, false)?,

        Command::GetRegister => Request::GetRegister {
            vcpu: vcpu(get!(data, sys::vm_register, cpuid: i32))?,
            reg: Readable::from_raw(get!(data, sys::vm_register, regnum: i32))?,
        },
        Command::SetRegister => Request::SetRegister {
            vcpu: vcpu(get!(data, sys::vm_register, cpuid: i32))?,
            reg: writable(get!(data, sys::vm_register, regnum: i32))?,
            value: get!(data, sys::vm_register, regval: u64),
        },
        Command::GetRegisterSet => Request::GetRegisterSet(register_set(data)?),
        Command::SetRegisterSet => Request::SetRegisterSet(register_set(data)?),
        Command::GetSegDesc => {
            let (vcpu, seg) = segment(data)?;
            Request::GetSegDesc { vcpu, seg }
        }
        Command::SetSegDesc => {
            let (vcpu, seg) = segment(data)?;
            let desc = SegDesc {
                base: get!(data, sys::vm_seg_desc, desc.base: u64),
                limit: get!(data, sys::vm_seg_desc, desc.limit: u32),
                access: get!(data, sys::vm_seg_desc, desc.access: u32),
            };
            Request::SetSegDesc { vcpu, seg, desc }
        }

        Command::GetIntinfo => Request::GetIntinfo {
            vcpu: vcpu(get!(data, sys::vm_intinfo, vcpuid: i32))?,
        },
        Command::SetIntinfo => Request::SetIntinfo {
            vcpu: vcpu(get!(data, sys::vm_intinfo, vcpuid: i32))?,
            info: get!(data, sys::vm_intinfo, info1: u64),
        },
        Command::InjectException => inject_exception(data)?,
        Command::InjectNmi => Request::InjectNmi {
            vcpu: vcpu(get!(data, sys::vm_nmi, cpuid: i32))?,
        },
        Command::RestartInstruction => Request::RestartInstruction {
            vcpu: vcpu(i32::from_ne_bytes(super::fields::array(data, 0)))?,
        },

        Command::LapicIrq
        | Command::LapicLocalIrq
        | Command::LapicMsi
        | Command::IoapicAssertIrq
        | Command::IoapicDeassertIrq
        | Command::IoapicPulseIrq
        | Command::IoapicPincount
        | Command::IsaAssertIrq
        | Command::IsaDeassertIrq
        | Command::IsaPulseIrq
        | Command::IsaSetIrqTrigger
        | Command::GetKernemuDev
        | Command::SetKernemuDev
        | Command::GetHpetCapabilities
        | Command::RtcRead
        | Command::RtcWrite
        | Command::RtcSettime
        | Command::RtcGettime => super::interrupt::decode(entry.command, data)?,

        Command::Stats => Request::Stats {
            vcpu: vcpu(get!(data, sys::vm_stats, cpuid: i32))?,
            index: index(get!(data, sys::vm_stats, index: i32))?,
        },
        Command::Stats13 => Request::Stats13 {
            vcpu: vcpu(get!(data, sys::vm_stats_13, cpuid: i32))?,
        },
        Command::StatDesc => Request::StatDesc {
            index: index(get!(data, sys::vm_stat_desc, index: i32))?,
        },

        Command::SetX2apicState => Request::SetX2apicState {
            vcpu: vcpu(get!(data, sys::vm_x2apic, cpuid: i32))?,
            enabled: match get!(data, sys::vm_x2apic, state: u32) {
                sys::X2APIC_DISABLED => false,
                sys::X2APIC_ENABLED => true,
                _ => return Err(Errno::EINVAL),
            },
        },
        Command::GetX2apicState => Request::GetX2apicState {
            vcpu: vcpu(get!(data, sys::vm_x2apic, cpuid: i32))?,
        },
        Command::SetTopology => Request::SetTopology(topology(data)?),
        Command::GetTopology => Request::GetTopology,

        Command::ActivateCpu => Request::ActivateCpu {
            vcpu: vcpu(get!(data, sys::vm_activate_cpu, vcpuid: i32))?,
        },
        Command::GetCpus => get_cpus(data)?,
        Command::SuspendCpu => Request::SuspendCpu {
            vcpu: vcpu_or_all(data)?,
        },
        Command::ResumeCpu => Request::ResumeCpu {
            vcpu: vcpu_or_all(data)?,
        },

        // The table says Absent for each of these; serving one begins here.
        Command::BindPptdev
        | Command::UnbindPptdev
        | Command::MapPptdevMmio
        | Command::UnmapPptdevMmio
        | Command::PptdevMsi
        | Command::PptdevMsix
        | Command::PptdevDisableMsix
        | Command::SnapshotReq
        | Command::RestoreTime => return Err(Errno::ENOTTY),
    })
}

/// The arrays for a segment's name: FreeBSD 15's and 14's, and 12's.
const NAME_SIZE: usize = sys::VM_MAX_SUFFIXLEN as usize + 1;
const NAME_SIZE_12: usize = SegName::MAX_LEN + 1;

/// A vcpu's number; EINVAL for -1 and what no VM can have.
pub(super) fn vcpu(raw: i32) -> Result<VcpuId, Errno> {
    match u16::try_from(raw) {
        Ok(id) if id < VM_MAXCPU => Ok(VcpuId(id)),
        _ => Err(Errno::EINVAL),
    }
}

fn vcpu_or_all(data: &[u8]) -> Result<Option<VcpuId>, Errno> {
    match get!(data, sys::vm_activate_cpu, vcpuid: i32) {
        -1 => Ok(None),
        raw => vcpu(raw).map(Some),
    }
}

fn index(raw: i32) -> Result<usize, Errno> {
    usize::try_from(raw).map_err(|_| Errno::EINVAL)
}

fn capability(data: &[u8]) -> Result<(VcpuId, Capability), Errno> {
    let id = vcpu(get!(data, sys::vm_capability, cpuid: i32))?;
    let cap = Capability::from_raw(get!(data, sys::vm_capability, captype: u32));
    Ok((id, cap.ok_or(Errno::EINVAL)?))
}

fn alloc_memseg(data: &[u8]) -> Result<AllocMemseg, Errno> {
    let policy = get!(data, sys::vm_memseg, ds_policy: i32);
    let mask = get_ptr!(data, sys::vm_memseg, ds_mask);
    let mask_size = get!(data, sys::vm_memseg, ds_mask_size: usize);
    let numa = if policy == sys::DOMAINSET_POLICY_INVALID as i32 || mask == UserPtr(0) {
        None
    } else {
        // A GENERIC kernel's own domainset_t has MAXMEMDOM (8) bits, in one long.
        const MIN: usize = 8;
        const MAX: usize = sys::DOMAINSET_MAXSIZE as usize / 8;
        if !(MIN..=MAX).contains(&mask_size) {
            return Err(Errno::ERANGE);
        }
        Some(Numa {
            policy,
            mask,
            mask_size,
        })
    };
    memseg(
        SegId::from_raw(get!(data, sys::vm_memseg, segid: i32)),
        get!(data, sys::vm_memseg, len: usize) as u64,
        &get_chars!(data, sys::vm_memseg, name: NAME_SIZE),
        numa,
    )
}

fn memseg(
    segid: Result<SegId, Errno>,
    len: u64,
    name: &[u8],
    numa: Option<Numa>,
) -> Result<AllocMemseg, Errno> {
    let name = SegName::from_chars(name)?;
    // An offset in a segment is a vm_ooffset_t: 63 bits.
    if !whole_pages(0, len, 1 << 63) {
        return Err(Errno::EINVAL);
    }
    Ok(AllocMemseg {
        segid: segid?,
        len,
        name,
        numa,
    })
}

/// FreeBSD 12 to 14 numbered the segments 0 (system memory), 1 (boot ROM), 2 and 3; since 15
/// there are eight of system memory before the boot ROM.
fn segid_14(raw: i32) -> Result<SegId, Errno> {
    SegId::from_raw(match raw {
        0 => 0,
        _ => raw.checked_add(7).ok_or(Errno::EINVAL)?,
    })
}

fn mapping(data: &[u8]) -> Result<Mapping, Errno> {
    let prot = get!(data, sys::vm_memmap, prot: i32);
    let prot = u8::try_from(prot).ok().and_then(Prot::from_bits);
    let prot = prot.filter(|prot| !prot.is_empty()).ok_or(Errno::EINVAL)?;
    let wired = match get!(data, sys::vm_memmap, flags: i32) as u32 {
        0 => false,
        sys::VM_MEMMAP_F_WIRED => true,
        _ => return Err(Errno::EINVAL),
    };
    let segid = SegId::from_raw(get!(data, sys::vm_memmap, segid: i32))?;
    let gpa = get!(data, sys::vm_memmap, gpa: u64);
    let segoff = get!(data, sys::vm_memmap, segoff: u64);
    let len = get!(data, sys::vm_memmap, len: usize) as u64;
    if !whole_pages(segoff, len, 1 << 63) || !whole_pages(gpa, len, 1 << 63) {
        return Err(Errno::EINVAL);
    }
    // Behind the guest's address space there is no room to map anything.
    if !whole_pages(gpa, len, GPA_LIMIT.0) {
        return Err(Errno::ENOMEM);
    }
    Ok(Mapping {
        gpa: Gpa(gpa),
        segid,
        segoff,
        len,
        prot,
        wired,
    })
}

fn gla2gpa(data: &[u8], inject_fault: bool) -> Result<Request, Errno> {
    let access = match u8::try_from(get!(data, sys::vm_gla2gpa, prot: i32))
        .ok()
        .and_then(Prot::from_bits)
    {
        Some(prot) if prot.contains(Prot::WRITE | Prot::EXEC) => return Err(Errno::EINVAL),
        Some(prot) if prot.contains(Prot::WRITE) => Access::Write,
        Some(prot) if prot.contains(Prot::EXEC) => Access::Execute,
        Some(_) => Access::Read,
        None => return Err(Errno::EINVAL),
    };
    let cpl = match get!(data, sys::vm_gla2gpa, paging.cpl: i32) {
        cpl @ 0..=3 => cpl as u8,
        _ => return Err(Errno::EINVAL),
    };
    let cpu_mode = match get!(data, sys::vm_gla2gpa, paging.cpu_mode: u32) {
        sys::CPU_MODE_REAL => CpuMode::Real,
        sys::CPU_MODE_PROTECTED => CpuMode::Protected,
        sys::CPU_MODE_COMPATIBILITY => CpuMode::Compatibility,
        sys::CPU_MODE_64BIT => CpuMode::Long64,
        _ => return Err(Errno::EINVAL),
    };
    let paging_mode = match get!(data, sys::vm_gla2gpa, paging.paging_mode: u32) {
        sys::PAGING_MODE_FLAT => PagingMode::Flat,
        sys::PAGING_MODE_32 => PagingMode::Bits32,
        sys::PAGING_MODE_PAE => PagingMode::Pae,
        sys::PAGING_MODE_64 => PagingMode::Level4,
        sys::PAGING_MODE_64_LA57 => PagingMode::Level5,
        _ => return Err(Errno::EINVAL),
    };
    Ok(Request::Gla2gpa {
        vcpu: vcpu(get!(data, sys::vm_gla2gpa, vcpuid: i32))?,
        paging: GuestPaging {
            cr3: get!(data, sys::vm_gla2gpa, paging.cr3: u64),
            cpl,
            cpu_mode,
            paging_mode,
        },
        gla: Gla(get!(data, sys::vm_gla2gpa, gla: u64)),
        access,
        inject_fault,
    })
}

fn register_set(data: &[u8]) -> Result<RegisterSet, Errno> {
    let count = get!(data, sys::vm_register_set, count: u32) as usize;
    if count > Reg::ALL.len() {
        return Err(Errno::EINVAL);
    }
    Ok(RegisterSet {
        vcpu: vcpu(get!(data, sys::vm_register_set, cpuid: i32))?,
        count,
        regnums: get_ptr!(data, sys::vm_register_set, regnums),
        values: get_ptr!(data, sys::vm_register_set, regvals),
    })
}

fn segment(data: &[u8]) -> Result<(VcpuId, SegReg), Errno> {
    let id = vcpu(get!(data, sys::vm_seg_desc, cpuid: i32))?;
    let reg = Reg::from_raw(get!(data, sys::vm_seg_desc, regnum: i32));
    Ok((id, reg.and_then(Reg::segment).ok_or(Errno::EINVAL)?))
}

fn inject_exception(data: &[u8]) -> Result<Request, Errno> {
    let vector = match get!(data, sys::vm_exception, vector: i32) {
        vector @ 0..=31 if vector != i32::from(Vector::DF.0) => Vector(vector as u8),
        _ => return Err(Errno::EINVAL),
    };
    let error_code = get!(data, sys::vm_exception, error_code: u32);
    let valid = get!(data, sys::vm_exception, error_code_valid: i32) != 0;
    Ok(Request::InjectException {
        vcpu: vcpu(get!(data, sys::vm_exception, cpuid: i32))?,
        vector,
        error_code: valid.then_some(error_code),
        restart: get!(data, sys::vm_exception, restart_instruction: i32) != 0,
    })
}

fn topology(data: &[u8]) -> Result<Topology, Errno> {
    let topology = Topology {
        sockets: get!(data, sys::vm_cpu_topology, sockets: u16),
        cores: get!(data, sys::vm_cpu_topology, cores: u16),
        threads: get!(data, sys::vm_cpu_topology, threads: u16),
        maxcpus: get!(data, sys::vm_cpu_topology, maxcpus: u16),
    };
    // FreeBSD takes zeros too, and then shows a guest -1 cores.
    if topology.vcpus() == 0 || topology.vcpus() > u64::from(VM_MAXCPU) {
        return Err(Errno::EINVAL);
    }
    Ok(topology)
}

fn get_cpus(data: &[u8]) -> Result<Request, Errno> {
    const MAX: i32 = VM_MAXCPU as i32 / 8;
    let size = match get!(data, sys::vm_cpuset, cpusetsize: i32) {
        size @ 1..=MAX => size as usize,
        _ => return Err(Errno::ERANGE),
    };
    let which = match get!(data, sys::vm_cpuset, which: i32) as u32 {
        sys::VM_ACTIVE_CPUS => CpuSetKind::Active,
        sys::VM_SUSPENDED_CPUS => CpuSetKind::Suspended,
        sys::VM_DEBUG_CPUS => CpuSetKind::Debug,
        _ => return Err(Errno::EINVAL),
    };
    Ok(Request::GetCpus {
        which,
        mask: get_ptr!(data, sys::vm_cpuset, cpus),
        size,
    })
}
