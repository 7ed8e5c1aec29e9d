//! The current thread: whether it should leave the kernel.

use vmm_core::types::Errno;

use super::ffi;

/// A signal, an AST or a reschedule is pending. Context: any.
pub fn should_yield() -> bool {
    // SAFETY: no preconditions.
    unsafe { ffi::host_should_yield() }
}

/// Gives the CPU up if it is wanted; EINTR if the thread must go back to userland first.
/// Context: thread.
pub fn yield_now() -> Result<(), Errno> {
    // SAFETY: called in thread context only.
    Errno::check(unsafe { ffi::host_yield() })
}

/// Lets other threads that want this CPU have it first. Context: thread.
pub fn relinquish() {
    // SAFETY: called in thread context only.
    unsafe { ffi::host_relinquish() }
}

/// Whether the current thread may use vmm at all (a jail needs allow.vmm).
pub fn check_vmm_privilege() -> Result<(), Errno> {
    // SAFETY: called in thread context only.
    Errno::check(unsafe { ffi::host_priv_vmm() })
}

/// Whether the current thread may give the host's devices to guests (a jail needs
/// allow.vmm_ppt).
pub fn check_ppt_privilege() -> Result<(), Errno> {
    // SAFETY: called in thread context only.
    Errno::check(unsafe { ffi::host_priv_ppt() })
}
