//! FreeBSD: the module is loaded when it isn't there, and FreeBSD 14 makes VMs by sysctl(3).

use std::ffi::{CStr, c_char, c_int, c_void};

use super::{Errno, last_errno};

/// How a person loads the module.
pub(crate) const LOAD_HINT: &str = "kldload ./vmm_rs.ko";

/// Addresses without memory behind them, at a place for large pages.
pub(super) const RESERVE_FLAGS: c_int = libc::MAP_GUARD | libc::MAP_ALIGNED_SUPER;

unsafe extern "C" {
    fn modfind(name: *const c_char) -> c_int;
    fn kldload(file: *const c_char) -> c_int;
}

/// Loads the host's `vmm` unless a module of that name is there. A failure shows when the
/// device is opened.
pub(super) fn load_module() {
    // SAFETY: both take a NUL-terminated name.
    unsafe {
        if modfind(c"vmm".as_ptr()) < 0 {
            kldload(c"vmm".as_ptr());
        }
    }
}

/// FreeBSD 14's sysctls.
#[derive(Debug)]
pub(crate) struct Control;

impl Control {
    /// hw.vmm.create exists without a device.
    pub(super) fn find() -> Option<Self> {
        let mut len = 0;
        // SAFETY: asks for the length only.
        let result = unsafe {
            libc::sysctlbyname(
                c"hw.vmm.create".as_ptr(),
                std::ptr::null_mut(),
                &mut len,
                std::ptr::null(),
                0,
            )
        };
        (result == 0).then_some(Self)
    }

    pub(super) fn create(&self, name: &CStr) -> Result<(), Errno> {
        sysctl_write(c"hw.vmm.create", name)
    }

    pub(super) fn destroy(&self, name: &CStr) -> Result<(), Errno> {
        sysctl_write(c"hw.vmm.destroy", name)
    }
}

fn sysctl_write(sysctl: &CStr, value: &CStr) -> Result<(), Errno> {
    let value = value.to_bytes();
    // SAFETY: the kernel reads value.len() bytes at value.
    let result = unsafe {
        libc::sysctlbyname(
            sysctl.as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            value.as_ptr().cast(),
            value.len(),
        )
    };
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

/// Whether a mapping is part of a core dump.
pub(super) const fn core_flag(core: bool) -> c_int {
    if core { 0 } else { libc::MAP_NOCORE }
}

/// [`core_flag`] has said it already.
///
/// # Safety
///
/// None is needed: nothing is done.
pub(super) unsafe fn leave_out_of_core(_at: *mut c_void, _len: usize) {}
