//! Character devices and whoever owns them.

use core::ffi::{CStr, c_void};
use core::ptr::NonNull;

use vmm_core::limits::Payer;
use vmm_core::types::Errno;

use super::ffi;

/// A hold on the credential of whoever created a VM.
pub struct Cred {
    raw: NonNull<ffi::host_cred>,
}

// SAFETY: the host's credentials are reference-counted and immutable.
unsafe impl Send for Cred {}
// SAFETY: as Send.
unsafe impl Sync for Cred {}

impl Cred {
    /// The current thread's. ENOMEM when the host can't.
    pub fn current() -> Result<Self, Errno> {
        // SAFETY: called in thread context.
        let raw = NonNull::new(unsafe { ffi::host_cred_hold_current() });
        Ok(Self {
            raw: raw.ok_or(Errno::ENOMEM)?,
        })
    }

    /// May the current thread see what this credential owns?
    pub fn visible(&self) -> bool {
        // SAFETY: the credential is held.
        unsafe { ffi::host_cred_visible(self.raw.as_ptr()) }
    }

    /// EPERM unless the current thread, which sees what this credential owns, may end it:
    /// the same user in the same jail, or a privileged one.
    pub fn check_destroy(&self) -> Result<(), Errno> {
        // SAFETY: the credential is held.
        Errno::check(unsafe { ffi::host_cred_may_destroy(self.raw.as_ptr()) })
    }

    /// Whom limits count.
    pub fn payer(&self) -> Payer {
        let raw = self.raw.as_ptr();
        // SAFETY: the credential is held.
        unsafe {
            Payer {
                ruid: ffi::host_cred_ruid(raw),
                host_root: ffi::host_cred_is_host_root(raw),
            }
        }
    }
}

impl Drop for Cred {
    fn drop(&mut self) {
        // SAFETY: this value is one hold.
        unsafe { ffi::host_cred_release(self.raw.as_ptr()) }
    }
}

/// What was opened once of /dev/vmmctl, however many descriptors it has: its address in the
/// host, which is compared and never read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CtlFile(usize);

impl CtlFile {
    pub fn from_raw(raw: *const ffi::host_file) -> Self {
        Self(raw.addr())
    }
}

/// Which of the module's devices a node is.
#[derive(Clone, Copy)]
pub enum Kind {
    Ctl,
    Vm,
    Mem,
}

/// A device node; dropping it removes the node and waits for operations under way.
pub struct Cdev {
    raw: NonNull<ffi::host_cdev>,
}

// SAFETY: the host's device nodes may be destroyed from any thread.
unsafe impl Send for Cdev {}
// SAFETY: a shared reference gives nothing to call.
unsafe impl Sync for Cdev {}

impl Cdev {
    /// Makes /dev/`path`. EEXIST and so on are the host's.
    ///
    /// # Safety
    /// `arg` is what the vmm_rs_* functions of this kind take, and stays valid until the
    /// value has been dropped.
    pub unsafe fn new(
        path: &CStr,
        kind: Kind,
        arg: *mut c_void,
        owner: Option<&Cred>,
    ) -> Result<Self, Errno> {
        let kind = match kind {
            Kind::Ctl => ffi::HOST_CDEV_CTL,
            Kind::Vm => ffi::HOST_CDEV_VM,
            Kind::Mem => ffi::HOST_CDEV_MEM,
        };
        let owner = owner.map_or(core::ptr::null(), |c| c.raw.as_ptr().cast_const());
        let mut raw = core::ptr::null_mut();
        // SAFETY: path is a C string, owner NULL or held, raw a place for the answer; arg
        // is the caller's promise.
        Errno::check(unsafe {
            ffi::host_cdev_create(path.as_ptr(), kind, arg, owner, &raw mut raw)
        })?;
        Ok(Self {
            raw: NonNull::new(raw).ok_or(Errno::ENOMEM)?,
        })
    }
}

impl Drop for Cdev {
    fn drop(&mut self) {
        // SAFETY: created in new, destroyed once.
        unsafe { ffi::host_cdev_destroy(self.raw.as_ptr()) }
    }
}
