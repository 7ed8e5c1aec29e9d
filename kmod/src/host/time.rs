//! Clocks, one-shot timers and boot-time settings.

use alloc::boxed::Box;
use core::ffi::{CStr, c_void};
use core::ptr::NonNull;

use vmm_core::types::Errno;

use super::ffi;

/// Monotonic nanoseconds since the host's boot. Context: any.
pub fn uptime_ns() -> u64 {
    // SAFETY: no preconditions.
    unsafe { ffi::host_uptime_ns() }
}

/// Nanoseconds since 1970, UTC. Context: any.
pub fn wallclock_ns() -> u64 {
    // SAFETY: no preconditions.
    unsafe { ffi::host_wallclock_ns() }
}

/// Ticks of the TSC in a second. Context: any.
pub fn tsc_hz() -> u64 {
    // SAFETY: no preconditions.
    unsafe { ffi::host_tsc_hz() }
}

/// The setting hw.vmm.`name`, or `default`.
pub fn tunable(name: &'static CStr, default: i64) -> i64 {
    // SAFETY: the name is a static string.
    unsafe { ffi::host_tunable(name.as_ptr(), default) }
}

type Callback = dyn Fn() + Send + Sync;

/// A one-shot timer. Its callback runs in critical context.
pub struct Timer {
    raw: NonNull<ffi::host_timer>,
    // Boxed twice: the outer box gives the host a thin pointer that stays where it is.
    callback: NonNull<Box<Callback>>,
}

// SAFETY: the host's timers may be used from any thread, and the callback is Send + Sync.
unsafe impl Send for Timer {}
// SAFETY: as Send.
unsafe impl Sync for Timer {}

impl Timer {
    pub fn new(callback: Box<Callback>) -> Result<Self, Errno> {
        unsafe extern "C" fn call(arg: *mut c_void) {
            // SAFETY: arg is the callback's address, freed only after the timer's end.
            let callback = unsafe { &*arg.cast::<Box<Callback>>() };
            callback();
        }
        let callback = NonNull::from(Box::leak(Box::new(callback)));
        // SAFETY: call takes what the argument is.
        let raw = unsafe { ffi::host_timer_create(Some(call), callback.as_ptr().cast()) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, callback }),
            None => {
                // SAFETY: leaked above and given to nobody.
                drop(unsafe { Box::from_raw(callback.as_ptr()) });
                Err(Errno::ENOMEM)
            }
        }
    }

    /// Fires once at or after `deadline_ns` of [`uptime_ns`]; replaces an earlier arming.
    pub fn arm(&self, deadline_ns: u64) {
        // SAFETY: the timer lives as long as self.
        unsafe { ffi::host_timer_arm(self.raw.as_ptr(), deadline_ns) }
    }

    /// The callback will not start; it may be running.
    pub fn cancel(&self) {
        // SAFETY: the timer lives as long as self.
        unsafe { ffi::host_timer_cancel(self.raw.as_ptr()) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: destroy waits until the callback isn't running and never will.
        unsafe { ffi::host_timer_destroy(self.raw.as_ptr()) };
        // SAFETY: leaked in new; the host has just let go of it.
        drop(unsafe { Box::from_raw(self.callback.as_ptr()) });
    }
}
