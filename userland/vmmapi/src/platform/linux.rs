//! Linux, the lab's host: the module is loaded by hand, and it always has /dev/vmmctl.

use std::convert::Infallible;
use std::ffi::{CStr, c_int, c_void};

use super::Errno;

/// How a person loads the module.
pub(crate) const LOAD_HINT: &str = "insmod vmm_rs.ko";

/// Addresses without memory behind them.
pub(super) const RESERVE_FLAGS: c_int = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;

pub(super) fn load_module() {}

/// Nothing but the device makes VMs.
#[derive(Debug)]
pub(crate) struct Control(Infallible);

impl Control {
    pub(super) const fn find() -> Option<Self> {
        None
    }

    pub(super) fn create(&self, _name: &CStr) -> Result<(), Errno> {
        match self.0 {}
    }

    pub(super) fn destroy(&self, _name: &CStr) -> Result<(), Errno> {
        match self.0 {}
    }
}

/// Whether a mapping is part of a core dump is said after it was made.
pub(super) const fn core_flag(_core: bool) -> c_int {
    0
}

/// A failure only makes a core dump larger.
///
/// # Safety
///
/// The bytes are a mapping of the caller's.
pub(super) unsafe fn leave_out_of_core(at: *mut c_void, len: usize) {
    // SAFETY: advice about a mapping of the caller's.
    unsafe { libc::madvise(at, len, libc::MADV_DONTDUMP) };
}
