//! One virtual machine: create, open and destroy, reset and power off, its topology and
//! the sets of its vcpus.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Arc, RwLock};

use vmm_sys::ioctl as req;
use vmm_sys::ioctl::Ioctl;

use crate::memory::Layout;
use crate::platform::{self, Control, Errno, Plain};
use crate::{CpuSet, Error, SuspendHow, Vcpu, VcpuId};

/// A virtual machine that is open. Clones are the same VM.
#[derive(Clone, Debug)]
pub struct Vm {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) device: OwnedFd,
    control: Control,
    /// What setup_memory() and map_memory() mapped.
    pub(crate) layout: RwLock<Layout>,
    /// MemFlags.
    pub(crate) memflags: AtomicU8,
    /// The kernel takes FreeBSD 14's memory segments.
    pub(crate) memseg_14: AtomicBool,
}

/// How [`Vm::open_with`] opens (VMMAPI_OPEN_*).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenFlags {
    /// Create the VM if there is none of that name.
    pub create: bool,
    /// A VM that is created goes with its last handle, however the process ends; one that
    /// was there before doesn't (VMMAPI_OPEN_CREATE_DESTROY_ON_CLOSE). FreeBSD 15's own
    /// module refuses this with EINVAL.
    pub destroy_on_close: bool,
    /// Reset it (VM_REINIT) if it was there before.
    pub reinit: bool,
}

/// Sockets, cores per socket, threads per core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuTopology {
    pub sockets: u16,
    pub cores: u16,
    pub threads: u16,
    /// The most vcpus the VM can have; 0 when setting it leaves it as it is.
    pub maxcpus: u16,
}

impl Vm {
    /// Creates a VM and opens it. EEXIST when there is one of that name.
    pub fn create(name: &str) -> Result<Self, Error> {
        let control = control()?;
        create(&control, name, OpenFlags::default())?;
        Self::open_created(control, name)
    }

    /// Opens a VM. ENOENT when there is none of that name.
    pub fn open(name: &str) -> Result<Self, Error> {
        Self::open_with(name, OpenFlags::default())
    }

    /// Opens a VM as the flags say. What fails after it was created destroys it again.
    pub fn open_with(name: &str, flags: OpenFlags) -> Result<Self, Error> {
        valid_name(name)?;
        let control = control()?;
        match platform::open_vm(name) {
            Ok(device) => {
                let vm = Self::new(name, device, control);
                if flags.reinit {
                    vm.reinit()?;
                }
                Ok(vm)
            }
            Err(libc::ENOENT) if flags.create => {
                create(&control, name, flags)?;
                Self::open_created(control, name)
            }
            Err(errno) => Err(open_error(name, errno)),
        }
    }

    fn open_created(control: Control, name: &str) -> Result<Self, Error> {
        match platform::open_vm(name) {
            Ok(device) => Ok(Self::new(name, device, control)),
            Err(errno) => {
                // The open's error is the one to report.
                let _ = destroy_by(&control, name);
                Err(open_error(name, errno))
            }
        }
    }

    fn new(name: &str, device: OwnedFd, control: Control) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.to_owned(),
                device,
                control,
                layout: RwLock::default(),
                memflags: AtomicU8::new(0),
                memseg_14: AtomicBool::new(false),
            }),
        }
    }

    /// Closes this handle; the VM lives on, unless it was created to go with its last one.
    /// The device closes with the last handle.
    pub fn close(self) {}

    /// Destroys the VM. Other handles get errors from then on, and guest memory that is
    /// mapped stays readable until its last [`GuestRange`](crate::GuestRange) goes.
    pub fn destroy(self) -> Result<(), Error> {
        destroy_by(&self.shared.control, &self.shared.name)
    }

    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// A vcpu of it. The kernel makes the vcpu when it is first used.
    pub fn vcpu(&self, id: VcpuId) -> Vcpu {
        Vcpu::new(self.clone(), id)
    }

    /// Back to the state after creation, memory contents aside (VM_REINIT).
    pub fn reinit(&self) -> Result<(), Error> {
        platform::ioctl_void(self.device(), req::VM_REINIT)
            .map_err(|e| self.error(req::VM_REINIT, e))
    }

    /// Makes every vcpu leave with [`Exit::Suspended`](crate::Exit::Suspended). EALREADY when that is under way.
    pub fn suspend(&self, how: SuspendHow) -> Result<(), Error> {
        self.ioctl(
            req::VM_SUSPEND,
            &mut vmm_sys::vm_suspend { how: how as u32 },
        )
    }

    pub fn topology(&self) -> Result<CpuTopology, Error> {
        let mut t = vmm_sys::vm_cpu_topology::default();
        self.ioctl(req::VM_GET_TOPOLOGY, &mut t)?;
        Ok(CpuTopology {
            sockets: t.sockets,
            cores: t.cores,
            threads: t.threads,
            maxcpus: t.maxcpus,
        })
    }

    pub fn set_topology(&self, t: CpuTopology) -> Result<(), Error> {
        let CpuTopology {
            sockets,
            cores,
            threads,
            maxcpus,
        } = t;
        self.ioctl(
            req::VM_SET_TOPOLOGY,
            &mut vmm_sys::vm_cpu_topology {
                sockets,
                cores,
                threads,
                maxcpus,
            },
        )
    }

    /// The vcpus that were activated.
    pub fn active_cpus(&self) -> Result<CpuSet, Error> {
        self.cpus(vmm_sys::VM_ACTIVE_CPUS)
    }

    /// The vcpus that a suspend of the VM has stopped.
    pub fn suspended_cpus(&self) -> Result<CpuSet, Error> {
        self.cpus(vmm_sys::VM_SUSPENDED_CPUS)
    }

    /// The vcpus that are stopped for a debugger.
    pub fn debug_cpus(&self) -> Result<CpuSet, Error> {
        self.cpus(vmm_sys::VM_DEBUG_CPUS)
    }

    fn cpus(&self, which: u32) -> Result<CpuSet, Error> {
        let mut set = CpuSet::default();
        let mut param = vmm_sys::vm_cpuset {
            which: which as i32,
            cpusetsize: CpuSet::SIZE as i32,
            cpus: &mut set.0,
        };
        // SAFETY: `cpus` points to `cpusetsize` writable bytes.
        unsafe { self.ioctl_ptr(req::VM_GET_CPUS, &mut param) }?;
        Ok(set)
    }

    /// Stops all vcpus for a debugger.
    pub fn suspend_all_cpus(&self) -> Result<(), Error> {
        self.ioctl(
            req::VM_SUSPEND_CPU,
            &mut vmm_sys::vm_activate_cpu { vcpuid: -1 },
        )
    }

    /// Lets all vcpus go on that were stopped for a debugger.
    pub fn resume_all_cpus(&self) -> Result<(), Error> {
        self.ioctl(
            req::VM_RESUME_CPU,
            &mut vmm_sys::vm_activate_cpu { vcpuid: -1 },
        )
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn device(&self) -> &OwnedFd {
        &self.shared.device
    }

    /// The error of a request about the VM as a whole.
    pub(crate) fn error(&self, request: Ioctl, errno: Errno) -> Error {
        self.error_of(request, "", errno)
    }

    /// The error of a request about something in the VM.
    pub(crate) fn error_of(&self, request: Ioctl, thing: &str, errno: Errno) -> Error {
        let of = if thing.is_empty() { "" } else { " of " };
        Error::Call {
            call: request.name().unwrap_or("ioctl"),
            thing: format!("{thing}{of}{}", self.name()),
            errno,
        }
    }

    pub(crate) fn ioctl<T: Plain>(&self, request: Ioctl, param: &mut T) -> Result<(), Error> {
        platform::ioctl(self.device(), request, param).map_err(|e| self.error(request, e))
    }

    /// # Safety
    ///
    /// Each pointer in `param` is valid for what the kernel does with it for this request.
    pub(crate) unsafe fn ioctl_ptr<T>(&self, request: Ioctl, param: &mut T) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { platform::ioctl_ptr(self.device(), request, param) }
            .map_err(|e| self.error(request, e))
    }
}

/// The file descriptor of /dev/vmm/NAME, for ioctls outside this crate and for poll(2).
impl AsFd for Vm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.device.as_fd()
    }
}

/// Destroys a VM without opening it first, which works on one that can't be opened.
pub fn destroy(name: &str) -> Result<(), Error> {
    valid_name(name)?;
    destroy_by(&control()?, name)
}

/// The names of the VMs under /dev/vmm, sorted.
pub fn list() -> Result<Vec<String>, Error> {
    let error = |e: io::Error| Error::Call {
        call: "readdir",
        thing: "/dev/vmm".to_owned(),
        errno: e.raw_os_error().unwrap_or(libc::EIO),
    };
    let entries = match std::fs::read_dir("/dev/vmm") {
        // The directory comes with the first VM.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(error)?,
    };
    let mut names = entries
        .map(|entry| {
            Ok(entry
                .map_err(error)?
                .file_name()
                .to_string_lossy()
                .into_owned())
        })
        .collect::<Result<Vec<_>, Error>>()?;
    names.sort();
    Ok(names)
}

fn control() -> Result<Control, Error> {
    match Control::open() {
        Ok(Some(control)) => Ok(control),
        Ok(None) => Err(Error::NoModule),
        Err(errno) => Err(Error::Call {
            call: "open",
            thing: "/dev/vmmctl".to_owned(),
            errno,
        }),
    }
}

fn create(control: &Control, name: &str, flags: OpenFlags) -> Result<(), Error> {
    control
        .create(&valid_name(name)?, flags.destroy_on_close)
        .map_err(|errno| {
            let hint = match errno {
                libc::ENOMEM => {
                    " (short of memory, or as many VMs as hw.vmm.maxvmms allows a user)"
                }
                _ => "",
            };
            ctl_error("VMMCTL_VM_CREATE", name, hint, errno)
        })
}

fn destroy_by(control: &Control, name: &str) -> Result<(), Error> {
    control.destroy(&valid_name(name)?).map_err(|errno| {
        let hint = match errno {
            libc::EPERM => " (another user's)",
            _ => "",
        };
        ctl_error("VMMCTL_VM_DESTROY", name, hint, errno)
    })
}

fn ctl_error(call: &'static str, name: &str, hint: &str, errno: Errno) -> Error {
    Error::Call {
        call,
        thing: format!("{name}{hint}"),
        errno,
    }
}

fn open_error(name: &str, errno: Errno) -> Error {
    Error::Call {
        call: "open",
        thing: format!("/dev/vmm/{name}"),
        errno,
    }
}

/// A name that can be a file's below /dev/vmm; the kernel may refuse more.
fn valid_name(name: &str) -> Result<CString, Error> {
    let bad = |why| Error::BadName {
        name: name.to_owned(),
        why,
    };
    if name.is_empty() {
        return Err(bad("it is empty"));
    }
    if name.contains('/') {
        return Err(bad("it has a slash"));
    }
    if name.len() > vmm_sys::VM_MAX_NAMELEN as usize {
        return Err(bad("it is longer than 229 bytes"));
    }
    CString::new(name).map_err(|_| bad("it has a NUL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_file_below_dev_vmm_are_refused_before_any_call() {
        let long = "x".repeat(230);
        for name in ["", "../null", "a/b", "a\0b", &long] {
            assert!(
                matches!(Vm::open(name), Err(Error::BadName { .. })),
                "{name:?}"
            );
            assert!(
                matches!(destroy(name), Err(Error::BadName { .. })),
                "{name:?}"
            );
        }
        assert!(valid_name(&long[..229]).is_ok());
        assert_eq!(vmm_sys::VM_MAX_NAMELEN, 229);
    }
}
