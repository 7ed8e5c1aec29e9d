//! The VMs there are, by name, and the life of the module around them: a VM is created by
//! VMMCTL_VM_CREATE or hw.vmm.create, appears as /dev/vmm/NAME, and is gone after
//! VMMCTL_VM_DESTROY or hw.vmm.destroy, whoever still has it open.

use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ffi::CStr;

use vmm_core::ioctl::{SegId, SegName, VmName};
use vmm_core::limits::{self, VmLimit};
use vmm_core::types::Errno;

use crate::host::cdev::{Cdev, Cred, CtlFile, Kind};
use crate::host::memobj::{MemObj, NumaPolicy};
use crate::host::sync::{SpinLock, SxLock};
use crate::host::{cpu, thread, time};
use crate::log_warn;
use crate::vm::Vm;
use crate::vm::ops::{Info, InfoValue, VmmOps};

/// The loaded module.
static MODULE: SpinLock<Option<Arc<Module>>> = SpinLock::new(None);

pub struct Module {
    backend: &'static dyn VmmOps,
    /// hw.vmm.maxcpu
    max_vcpus: u16,
    /// hw.vmm.halt_detection
    halt_detection: bool,
    /// hw.vmm.maxvmms
    limit: SpinLock<VmLimit>,
    vms: SxLock<Vms>,
    /// Dropped by unload before the backend is turned off.
    ctl: SpinLock<Option<Cdev>>,
}

struct Vms {
    list: Vec<Registered>,
    /// Unloading has begun: whoever still has /dev/vmmctl open creates no VM any more.
    unloading: bool,
}

struct Registered {
    device: Arc<VmDevice>,
    /// `None` while the VM is being destroyed.
    node: Option<Cdev>,
}

/// What /dev/vmm/NAME is: the shim passes its address to the vmm_rs_vm_* functions.
pub struct VmDevice {
    pub vm: Vm,
    backend: &'static dyn VmmOps,
    owner: Cred,
    /// The VM goes when this is closed.
    goes_with: Option<CtlFile>,
    /// Held by whoever destroys it: a second one waits until it is gone.
    ending: SxLock<()>,
    /// The nodes of the device memory segments, /dev/vmm.io/NAME.SEG.
    segments: SxLock<Vec<SegmentNode>>,
}

/// The fields drop in order: the node first, so that nothing uses the object any more.
struct SegmentNode {
    _node: Cdev,
    _object: Box<MemObj>,
}

impl Module {
    /// Turns the backend on and makes /dev/vmmctl.
    pub fn load(backend: &'static dyn VmmOps) -> Result<(), Errno> {
        let vms = SxLock::new(
            c"vmm vms",
            Vms {
                list: Vec::new(),
                unloading: false,
            },
        )?;
        backend.modinit()?;
        // SAFETY: vmmctl's functions take no argument.
        let ctl = match unsafe { Cdev::new(c"vmmctl", Kind::Ctl, core::ptr::null_mut(), None) } {
            Ok(ctl) => ctl,
            Err(error) => {
                backend.modcleanup();
                log_warn!(
                    "cannot create /dev/vmmctl (errno {}): is another vmm loaded?",
                    error.raw()
                );
                return Err(error);
            }
        };
        let module = Arc::new(Self {
            backend,
            max_vcpus: max_vcpus(),
            halt_detection: time::tunable(c"halt_detection", 1) != 0,
            limit: SpinLock::new(vm_limit()),
            vms,
            ctl: SpinLock::new(Some(ctl)),
        });
        *MODULE.lock() = Some(module);
        Ok(())
    }

    /// The loaded module; ENXIO before load has finished and after unload.
    pub fn get() -> Result<Arc<Self>, Errno> {
        MODULE.lock().clone().ok_or(Errno::ENXIO)
    }

    /// Undoes load. EBUSY while a VM exists.
    pub fn unload() -> Result<(), Errno> {
        let module = Self::get()?;
        {
            let mut vms = module.vms.write();
            if !vms.list.is_empty() {
                log_warn!(
                    "cannot unload: {} VM(s) exist; destroy them with bhyvectl --vm=NAME --destroy",
                    vms.list.len()
                );
                return Err(Errno::EBUSY);
            }
            vms.unloading = true;
        }
        // Waits for requests, and closes what is still open of it: without the lock, which
        // both may want.
        let ctl = module.ctl.lock().take();
        drop(ctl);
        module.backend.modcleanup();
        // Two steps: the module must not be dropped under the spin lock.
        let last = MODULE.lock().take();
        drop(last);
        Ok(())
    }

    /// Before this CPU stops (vmm_rs_cpu_suspend). Context: spin.
    pub fn cpu_suspend() {
        if let Ok(module) = Self::get() {
            module.backend.cpu_suspend();
        }
    }

    /// After it came back (vmm_rs_cpu_resume). Context: spin.
    pub fn cpu_resume() -> Result<(), Errno> {
        Self::get()?.backend.cpu_resume()
    }

    /// hw.vmm.*: the backend's values, then our own.
    pub fn info(&self, index: usize) -> Option<Info> {
        let of_backend = (0..=index).take_while(|&i| self.backend.info(i).is_some());
        let of_backend = of_backend.count();
        if index < of_backend {
            return self.backend.info(index);
        }
        let (name, descr, value) = INFO.get(index - of_backend)?;
        Some(Info {
            name,
            descr,
            value: value(self),
        })
    }

    /// Changes one of them. EINVAL for what it can't be, EPERM for what can't be changed.
    pub fn set_info(&self, index: usize, value: u64) -> Result<(), Errno> {
        match self.info(index) {
            Some(info) if Self::is_writable(&info) => {
                let most = i64::try_from(value).map_err(|_| Errno::EINVAL)?;
                self.limit.lock().set(most)
            }
            _ => Err(Errno::EPERM),
        }
    }

    pub fn is_writable(info: &Info) -> bool {
        info.name == MAX_VMMS
    }

    /// Makes a VM and its node. EEXIST if the name is taken, ENOMEM if its user has as many
    /// as hw.vmm.maxvmms allows.
    pub fn create(&self, name: VmName, goes_with: Option<CtlFile>) -> Result<(), Errno> {
        thread::check_vmm_privilege()?;
        let path = CString::new(format!("vmm/{}", name.as_str())).map_err(|_| Errno::EINVAL)?;
        let mut vms = self.vms.write();
        if vms.unloading {
            return Err(Errno::ENXIO);
        }
        // Whoever it belongs to: the name is that of a file in /dev.
        if vms.list.iter().any(|r| r.device.vm.name == name) {
            return Err(Errno::EEXIST);
        }
        let owner = Cred::current()?;
        let limit = *self.limit.lock();
        if !limit.admits(
            owner.payer(),
            vms.list.iter().map(|r| r.device.owner.payer()),
        ) {
            return Err(Errno::ENOMEM);
        }
        let device = Arc::new(VmDevice {
            vm: Vm::new(name, self.backend, self.max_vcpus, self.halt_detection)?,
            backend: self.backend,
            owner,
            goes_with,
            ending: SxLock::new(c"vmm ending", ())?,
            segments: SxLock::new(c"vmm.io nodes", Vec::new())?,
        });
        let arg = Arc::as_ptr(&device).cast_mut().cast();
        // SAFETY: arg is a VmDevice, which `vms` keeps until its node has been dropped.
        let node = unsafe { Cdev::new(&path, Kind::Vm, arg, Some(&device.owner)) }?;
        vms.list.push(Registered {
            device,
            node: Some(node),
        });
        Ok(())
    }

    /// Ends a VM wherever it is and removes it. EINVAL if there is none that the caller
    /// may see, EPERM if that is another user's.
    pub fn destroy(&self, name: &VmName) -> Result<(), Errno> {
        thread::check_vmm_privilege()?;
        let device = {
            let vms = self.vms.read();
            let mut devices = vms.list.iter().map(|r| &r.device);
            let found = devices.find(|d| d.vm.name == *name && d.owner.visible());
            found.ok_or(Errno::EINVAL)?.clone()
        };
        device.owner.check_destroy()?;
        self.remove(&device)
    }

    /// Ends the VMs that go with what was closed; they are gone when it returns.
    pub fn close(&self, file: CtlFile) {
        loop {
            let device = {
                let vms = self.vms.read();
                let mut devices = vms.list.iter().map(|r| &r.device);
                devices.find(|d| d.goes_with == Some(file)).cloned()
            };
            let Some(device) = device else { return };
            // An error says that somebody else has removed it meanwhile.
            let _ = self.remove(&device);
        }
    }

    /// Ends a VM and takes it off the list. EINVAL if somebody else was faster; it is gone
    /// by then, too.
    fn remove(&self, device: &Arc<VmDevice>) -> Result<(), Errno> {
        // Outside of the registry's lock, which everybody else needs meanwhile.
        let _only_one = device.ending.write();
        let node = {
            let mut vms = self.vms.write();
            let mut all = vms.list.iter_mut();
            let registered = all.find(|r| Arc::ptr_eq(&r.device, device));
            registered
                .and_then(|r| r.node.take())
                .ok_or(Errno::EINVAL)?
        };
        device.vm.end_for_good();
        // Waits until no thread is in one of the device's functions.
        drop(node);
        device.segments.write().clear();
        self.vms
            .write()
            .list
            .retain(|r| !Arc::ptr_eq(&r.device, device));
        Ok(())
    }
}

/// The longest name of a device node in FreeBSD (sys/param.h). A VM's name leaves room for
/// all but the longest names of segments that FreeBSD 12's request can give.
const SPECNAMELEN: usize = 255;

/// The value that can be changed.
const MAX_VMMS: &CStr = c"maxvmms";

type Row = (&'static CStr, &'static CStr, fn(&Module) -> InfoValue);

/// What programs that know FreeBSD's module ask for, with the answer for this one.
const INFO: &[Row] = &[
    (c"maxcpu", c"Maximum number of vCPUs", |m| {
        InfoValue::Uint(m.max_vcpus.into())
    }),
    (MAX_VMMS, c"Maximum number of VMM instances per user", |m| {
        InfoValue::Uint(m.limit.lock().get())
    }),
    (
        c"halt_detection",
        c"Halt VM if all vcpus execute HLT with interrupts disabled",
        |m| m.halt_detection.into(),
    ),
    (
        c"trace_guest_exceptions",
        c"Trap into hypervisor on all guest exceptions and reflect them back",
        |_| false.into(),
    ),
    (
        c"topology.cpuid_leaf_b",
        c"CPUID leaf 0xb tells guests their topology",
        |_| true.into(),
    ),
    (
        c"vrtc.flag_broken_time",
        c"Stop guest when invalid RTC time is detected",
        |_| false.into(),
    ),
    (c"iommu.initialized", c"bhyve iommu initialized?", |_| {
        false.into()
    }),
    (
        c"iommu.enable",
        c"Enable use of I/O MMU (required for PCI passthrough).",
        |_| false.into(),
    ),
    (c"ppt.devices", c"number of pci passthru devices", |_| {
        false.into()
    }),
];

impl VmDevice {
    /// False after a CPU lost VT-x (vmm_rs_cpu_resume): the VM can be destroyed only.
    pub fn usable(&self) -> bool {
        self.backend.usable()
    }

    /// VM_ALLOC_MEMSEG: system memory, or device memory with a node of its own.
    pub fn alloc_segment(
        &self,
        id: SegId,
        len: u64,
        name: Option<SegName>,
        numa: Option<&NumaPolicy<'_>>,
    ) -> Result<(), Errno> {
        self.vm.memory.alloc_segment(id, len, name.clone(), numa)?;
        let Some(name) = name else { return Ok(()) };
        self.add_segment_node(id, &name)
            .inspect_err(|_| self.vm.memory.free_segment(id))
    }

    fn add_segment_node(&self, id: SegId, name: &SegName) -> Result<(), Errno> {
        let path = format!("vmm.io/{}.{}", self.vm.name.as_str(), name.as_str());
        if path.len() > SPECNAMELEN {
            return Err(Errno::ENAMETOOLONG);
        }
        let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
        let layout = self.vm.memory.layout();
        let object = Box::new(layout.segment(id).ok_or(Errno::EINVAL)?.object.clone());
        drop(layout);
        let arg = core::ptr::from_ref::<MemObj>(&object).cast_mut().cast();
        let mut nodes = self.segments.write();
        // SAFETY: arg is a MemObj in a box that the SegmentNode keeps longer than the node.
        let node = unsafe { Cdev::new(&path, Kind::Mem, arg, Some(&self.owner)) }?;
        nodes.push(SegmentNode {
            _node: node,
            _object: object,
        });
        Ok(())
    }
}

/// hw.vmm.maxcpu: as many as the host has CPUs unless the tunable says otherwise.
fn max_vcpus() -> u16 {
    let wanted = time::tunable(c"maxcpu", i64::from(cpu::ncpus()));
    let most = limits::max_vcpus(wanted);
    // FreeBSD says nothing about 0 either.
    if wanted != 0 && wanted != i64::from(most) {
        log_warn!("hw.vmm.maxcpu={wanted} cannot be: using {most}");
    }
    most
}

/// hw.vmm.maxvmms, as the tunable or the default says.
fn vm_limit() -> VmLimit {
    const UNSET: i64 = i64::MIN;
    let mut limit = VmLimit::new(cpu::ncpus());
    let wanted = time::tunable(c"maxvmms", UNSET);
    if wanted != UNSET && limit.set(wanted).is_err() {
        let default = limit.get();
        log_warn!("hw.vmm.maxvmms={wanted} is no number of VMs: using {default}");
    }
    limit
}
