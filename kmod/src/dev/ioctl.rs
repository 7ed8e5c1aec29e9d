//! ioctl(2) on /dev/vmmctl and /dev/vmm/NAME. `vmm_core::ioctl` has the table, the
//! decoding and the encoding; here is who locks what, and what each request does.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use vmm_core::devices::Trigger;
use vmm_core::devices::chipset::{Chipset, IOAPIC_PINS};
use vmm_core::exit::ExitKind;
use vmm_core::ioctl::{
    self as abi, CtlRequest, Numa, Privilege, Readable, RegisterSet, Reply, Request, Timeval,
    UserPtr, VcpuLock,
};
use vmm_core::stats::Stat;
use vmm_core::types::Errno;

use super::registry::{Module, VmDevice};
use crate::host::cdev::CtlFile;
use crate::host::memobj::NumaPolicy;
use crate::host::user::{copyin, copyout};
use crate::host::{thread, time};
use crate::vm::cpuset::CpuSet;
use crate::vm::vcpu::Frozen;
use crate::vm::{AllFrozen, Vm, fetch, mmio, run};

/// VMMCTL_VM_CREATE and VMMCTL_VM_DESTROY.
pub fn ctl(file: CtlFile, cmd: u64, data: &[u8]) -> Result<(), Errno> {
    match abi::decode_ctl(cmd, data)? {
        CtlRequest::Create {
            name,
            destroy_on_close,
        } => Module::get()?.create(name, destroy_on_close.then_some(file)),
        CtlRequest::Destroy(name) => Module::get()?.destroy(&name),
    }
}

/// A request on a VM; the answer goes into `data`.
pub fn vm(device: &VmDevice, cmd: u64, data: &mut [u8]) -> Result<(), Errno> {
    let entry = abi::lookup(cmd).ok_or(Errno::ENOTTY)?;
    match entry.privilege {
        Privilege::None => {}
        Privilege::PptDev => thread::check_ppt_privilege()?,
    }
    if !device.usable() {
        return Err(Errno::ENXIO);
    }
    let request = abi::decode(entry, data)?;
    let vm = &device.vm;
    let mut reply = |reply: Reply<'_>| abi::encode(&reply, data);
    match entry.vcpus {
        VcpuLock::None => serve(device, &mut Locked::None, &request, &mut reply),
        VcpuLock::Maybe => {
            if let Some(id) = request.vcpu() {
                vm.vcpu(id)?;
            }
            serve(device, &mut Locked::None, &request, &mut reply)
        }
        VcpuLock::One => {
            let vcpu = vm.vcpu(request.vcpu().ok_or(Errno::EINVAL)?)?;
            serve(device, &mut Locked::One(vcpu.lock()), &request, &mut reply)
        }
        VcpuLock::All => {
            vm.lock_all(|all| serve(device, &mut Locked::All(all), &request, &mut reply))
        }
    }
}

/// What the request's row of the table had locked.
enum Locked<'a, 'b> {
    None,
    One(Frozen<'a>),
    All(&'b mut AllFrozen<'a>),
}

impl<'a> Locked<'a, '_> {
    fn vcpu(&mut self) -> &mut Frozen<'a> {
        match self {
            Self::One(frozen) => frozen,
            Self::None | Self::All(_) => panic!("the ioctl table locks no vcpu for this request"),
        }
    }

    fn all(&mut self) -> &mut AllFrozen<'a> {
        match self {
            Self::All(all) => all,
            Self::None | Self::One(_) => {
                panic!("the ioctl table doesn't lock all vcpus for this request")
            }
        }
    }
}

fn serve(
    device: &VmDevice,
    locked: &mut Locked<'_, '_>,
    request: &Request,
    reply: &mut dyn FnMut(Reply<'_>),
) -> Result<(), Errno> {
    let vm = &device.vm;
    match *request {
        Request::Run {
            exit,
            cpuset,
            cpuset_size,
            ..
        } => {
            let frozen = locked.vcpu();
            let vm_exit = run::run(vm, frozen)?;
            let bytes = abi::encode_exit(&vm_exit);
            copyout(&bytes[..abi::exit_len(&vm_exit.kind)], exit)?;
            if let ExitKind::Ipi { .. } = vm_exit.kind {
                copyout_cpuset(&frozen.vcpu.ipi_targets, cpuset, cpuset_size)?;
            }
        }
        Request::Run13 { .. } => {
            let frozen = locked.vcpu();
            let vm_exit = run::run(vm, frozen)?;
            let targets = frozen.vcpu.ipi_targets.to_bytes();
            let ipi = matches!(vm_exit.kind, ExitKind::Ipi { .. });
            reply(Reply::Run13 {
                exit: &abi::encode_exit(&vm_exit),
                ipi_targets: ipi.then_some(&targets),
            });
        }
        Request::Suspend { how } => vm.suspend(how)?,
        Request::Reinit => vm.reinit(locked.all())?,
        Request::SetCapability { cap, on, .. } => {
            locked.vcpu().contents.backend.set_capability(cap, on)?;
        }
        Request::GetCapability { cap, .. } => {
            reply(Reply::Capability(
                locked.vcpu().contents.backend.get_capability(cap)?,
            ));
        }

        Request::AllocMemseg(ref seg) => {
            let mask = seg.numa.map(|n| numa_mask(&n)).transpose()?;
            let numa = seg.numa.zip(mask.as_deref()).map(|(n, mask)| NumaPolicy {
                policy: n.policy,
                mask,
            });
            device.alloc_segment(seg.segid, seg.len, seg.name.clone(), numa.as_ref())?;
        }
        Request::GetMemseg { segid, name_size } => {
            let layout = vm.memory.layout();
            let (len, name) = match layout.segment(segid) {
                Some(segment) => (segment.object.len(), segment.name.as_ref()),
                None => (0, None),
            };
            let name = name.map_or("", |n| n.as_str());
            if name.len() >= name_size {
                return Err(Errno::ENAMETOOLONG);
            }
            reply(Reply::Memseg {
                len,
                name,
                name_size,
            });
        }
        Request::MmapMemseg(mapping) => vm.memory.map(mapping)?,
        Request::MmapGetnext { gpa } => {
            let layout = vm.memory.layout();
            reply(Reply::Mapping(*layout.next_map(gpa).ok_or(Errno::ENOENT)?));
        }
        Request::MunmapMemseg { gpa, len } => vm.memory.unmap(gpa, len)?,
        Request::GetGpaPmap { gpa } => {
            let (entries, n) = vm.memory.walk(gpa);
            reply(Reply::GpaPmap(&entries[..n]));
        }
        Request::Gla2gpa {
            paging,
            gla,
            access,
            inject_fault,
            ..
        } => {
            let gpa = fetch::gla2gpa(
                &vm.memory,
                &vm.cpuid(),
                locked.vcpu(),
                &paging,
                gla,
                access,
                inject_fault,
            )?;
            reply(Reply::Gla2gpa(gpa));
        }

        Request::GetRegister { reg, .. } => {
            reply(Reply::Register(read_register(locked.vcpu(), reg)?))
        }
        Request::SetRegister { reg, value, .. } => locked.vcpu().set_register(reg, value)?,
        Request::GetRegisterSet(set) => get_register_set(locked.vcpu(), &set)?,
        Request::SetRegisterSet(set) => set_register_set(locked.vcpu(), &set)?,
        Request::GetSegDesc { seg, .. } => {
            reply(Reply::SegDesc(
                locked.vcpu().contents.backend.get_desc(seg)?,
            ));
        }
        Request::SetSegDesc { seg, desc, .. } => {
            locked.vcpu().contents.backend.set_desc(seg, desc)?
        }

        Request::GetIntinfo { .. } => {
            let (info1, info2) = locked.vcpu().contents.events.intinfo();
            reply(Reply::Intinfo(info1, info2));
        }
        Request::SetIntinfo { info, .. } => locked.vcpu().contents.events.set_exit_intinfo(info)?,
        Request::InjectException {
            vector,
            error_code,
            restart,
            ..
        } => {
            locked
                .vcpu()
                .inject_exception(vector, error_code, restart)?;
        }
        Request::InjectNmi { .. } => locked
            .vcpu()
            .vcpu
            .requests
            .nmi
            .store(true, Ordering::SeqCst),
        Request::RestartInstruction { .. } => {
            let contents = &mut *locked.vcpu().contents;
            contents.next_rip = contents.backend.get_register(vmm_core::regs::Reg::Rip)?;
        }

        Request::Stats { index, .. } => {
            if index >= Stat::ALL.len() {
                return Err(Errno::ENOENT);
            }
            let mut values = [0; abi::MAX_VM_STATS];
            let values = statistics(vm, locked.vcpu(), index, &mut values);
            let now = Timeval::from_ns(time::wallclock_ns());
            reply(Reply::Stats { now, values });
        }
        Request::Stats13 { .. } => {
            let mut values = [0; abi::MAX_VM_STATS];
            let values = statistics(vm, locked.vcpu(), 0, &mut values);
            let now = Timeval::from_ns(time::wallclock_ns());
            reply(Reply::Stats13 { now, values });
        }
        Request::StatDesc { index } => {
            reply(Reply::StatDesc(
                Stat::ALL.get(index).ok_or(Errno::EINVAL)?.desc(),
            ));
        }

        Request::LapicIrq { vector, .. } => {
            locked.vcpu().vcpu.inbox.post(vector, Trigger::Edge);
        }
        Request::LapicLocalIrq { vcpu, lvt } => vm.devices.local_interrupt(vcpu, lvt),
        Request::LapicMsi(ref message) => vm.devices.deliver(message, None),
        Request::IoapicIrq { irq, drive } => vm
            .devices
            .access(|chipset, _, wires| chipset.ioapic_irq(irq, drive, wires))?,
        Request::IoapicPincount => reply(Reply::IoapicPincount(IOAPIC_PINS)),
        Request::IsaIrq {
            atpic_irq,
            ioapic_irq,
            drive,
        } => vm
            .devices
            .access(|chipset, _, wires| chipset.isa_irq(atpic_irq, ioapic_irq, drive, wires))?,
        Request::IsaSetIrqTrigger { atpic_irq, trigger } => {
            vm.devices
                .access(|chipset, _, wires| chipset.isa_set_trigger(atpic_irq, trigger, wires))?;
        }
        Request::GetKernemuDev { gpa, bytes, .. } => {
            reply(Reply::Kernemu(mmio::get(vm, locked.vcpu(), gpa, bytes)?));
        }
        Request::SetKernemuDev {
            gpa, bytes, value, ..
        } => mmio::set(vm, locked.vcpu(), gpa, bytes, value)?,
        Request::GetHpetCapabilities => {
            reply(Reply::HpetCapabilities(Chipset::hpet_capabilities() as u32));
        }
        Request::RtcRead { offset } => {
            let value = vm
                .devices
                .access(|chipset, now, _| chipset.rtc_read(offset, now))?;
            reply(Reply::RtcData(value));
        }
        Request::RtcWrite { offset, value } => vm
            .devices
            .access(|chipset, _, _| chipset.rtc_write(offset, value))?,
        Request::RtcGettime => {
            let seconds = vm
                .devices
                .access(|chipset, now, _| chipset.rtc_gettime(now));
            reply(Reply::RtcTime(seconds));
        }
        Request::RtcSettime { seconds } => vm
            .devices
            .access(|chipset, now, wires| chipset.rtc_settime(seconds, now, wires))?,

        Request::SetX2apicState { enabled, .. } => {
            locked.vcpu().contents.apic.allow_x2apic(enabled);
        }
        Request::GetX2apicState { .. } => reply(Reply::X2apicState(
            locked.vcpu().contents.apic.x2apic_allowed(),
        )),
        Request::SetTopology(topology) => vm.set_topology(topology)?,
        Request::GetTopology => reply(Reply::Topology(vm.topology())),

        Request::ActivateCpu { vcpu } => vm.activate(vcpu)?,
        Request::GetCpus { which, mask, size } => get_cpus(vm, which, mask, size)?,
        Request::SuspendCpu { vcpu } => vm.debug_stop(vcpu)?,
        Request::ResumeCpu { vcpu } => vm.debug_resume(vcpu)?,
    }
    Ok(())
}

/// The vcpu's statistics from `index` on, as many as there are and fit.
fn statistics<'v>(
    vm: &Vm,
    frozen: &Frozen<'_>,
    index: usize,
    values: &'v mut [u64; abi::MAX_VM_STATS],
) -> &'v [u64] {
    let stats = &frozen.vcpu.stats;
    if frozen.vcpu.id.index() == 0 {
        let resident = vm.memory.mapped_bytes();
        stats.set(Stat::ResidentMemory, resident);
        // Every page that a VM has is wired until the VM ends.
        stats.set(Stat::WiredMemory, resident);
    }
    let n = stats.copy_from(index, values);
    &values[..n]
}

/// The vcpus that an IPI exit is about; what is behind a cpuset_t is cleared.
fn copyout_cpuset(set: &CpuSet, to: UserPtr, size: u64) -> Result<(), Errno> {
    let bytes = set.to_bytes();
    let fits = usize::try_from(size).map_or(bytes.len(), |size| size.min(bytes.len()));
    copyout(&bytes[..fits], to)?;
    let zeros = [0; 64];
    let mut at = fits as u64;
    while at < size {
        let n = (size - at).min(zeros.len() as u64);
        let to = to.0.checked_add(at).ok_or(Errno::EFAULT)?;
        copyout(&zeros[..n as usize], UserPtr(to))?;
        at += n;
    }
    Ok(())
}

/// VM_GET_CPUS. ERANGE when a vcpu of the set doesn't fit `size` bytes.
fn get_cpus(vm: &Vm, which: abi::CpuSetKind, mask: UserPtr, size: usize) -> Result<(), Errno> {
    let set = match which {
        abi::CpuSetKind::Active => &vm.active,
        abi::CpuSetKind::Suspended => &vm.suspended,
        abi::CpuSetKind::Debug => &vm.debug,
    };
    let bytes = set.to_bytes();
    let (fits, rest) = bytes.split_at(size.min(bytes.len()));
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Errno::ERANGE);
    }
    copyout(fits, mask)
}

fn numa_mask(numa: &Numa) -> Result<Vec<u8>, Errno> {
    let mut mask = alloc::vec![0; numa.mask_size];
    copyin(numa.mask, &mut mask)?;
    Ok(mask)
}

fn read_register(frozen: &mut Frozen<'_>, reg: Readable) -> Result<u64, Errno> {
    match reg {
        Readable::Reg(reg) => frozen.get_register(reg),
        Readable::VmcsField(encoding) => frozen.contents.backend.get_vmcs_field(encoding),
    }
}

fn register_numbers(set: &RegisterSet) -> Result<Vec<i32>, Errno> {
    let mut raw = alloc::vec![0; set.count * 4];
    copyin(set.regnums, &mut raw)?;
    Ok(raw
        .chunks_exact(4)
        .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect())
}

fn get_register_set(frozen: &mut Frozen<'_>, set: &RegisterSet) -> Result<(), Errno> {
    let mut values = Vec::with_capacity(set.count * 8);
    for raw in register_numbers(set)? {
        let value = read_register(frozen, Readable::from_raw(raw)?)?;
        values.extend_from_slice(&value.to_le_bytes());
    }
    copyout(&values, set.values)
}

fn set_register_set(frozen: &mut Frozen<'_>, set: &RegisterSet) -> Result<(), Errno> {
    let numbers = register_numbers(set)?;
    let mut values = alloc::vec![0; set.count * 8];
    copyin(set.values, &mut values)?;
    for (raw, value) in numbers.into_iter().zip(values.chunks_exact(8)) {
        frozen.set_register(abi::writable(raw)?, read_u64(value))?;
    }
    Ok(())
}

fn read_u64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}
