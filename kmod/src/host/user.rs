//! Userland's memory: copies in and out by address, and the data of a read(2) or write(2).

use core::ptr::NonNull;

use vmm_core::ioctl::UserPtr;
use vmm_core::types::Errno;

use super::ffi;

/// Copies `buf.len()` bytes from userland. EFAULT where nothing is mapped.
pub fn copyin(from: UserPtr, buf: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: buf is valid for the length; the host checks the user address.
    Errno::check(unsafe { ffi::host_copyin(from.0, buf.as_mut_ptr().cast(), buf.len()) })
}

/// Copies `buf` to userland. EFAULT where nothing is mapped or writable.
pub fn copyout(buf: &[u8], to: UserPtr) -> Result<(), Errno> {
    // SAFETY: buf is valid for the length; the host checks the user address.
    Errno::check(unsafe { ffi::host_copyout(buf.as_ptr().cast(), to.0, buf.len()) })
}

/// The data of one read(2) or write(2), consumed front to back.
pub struct Uio {
    raw: NonNull<ffi::host_uio>,
}

impl Uio {
    /// # Safety
    /// `raw` is the host's uio of the call that is being served, and outlives the value.
    pub unsafe fn from_raw(raw: *mut ffi::host_uio) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw })
    }

    /// Moves `buf.len()` bytes: into `buf` for a write(2), out of it for a read(2).
    pub fn transfer(&mut self, buf: &mut [u8]) -> Result<(), Errno> {
        // SAFETY: the uio is live (from_raw) and buf is valid for the length.
        Errno::check(unsafe {
            ffi::host_uiomove(self.raw.as_ptr(), buf.as_mut_ptr().cast(), buf.len())
        })
    }
}
