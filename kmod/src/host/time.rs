//! Clocks, one-shot timers and boot-time settings.

use alloc::boxed::Box;
use core::ffi::{CStr, c_void};
use core::ops::Deref;
use core::sync::atomic::{AtomicPtr, Ordering};

use vmm_core::devices::Nanos;
use vmm_core::types::Errno;

use super::ffi;

/// Monotonic nanoseconds since the host's boot. Context: any.
pub fn uptime_ns() -> u64 {
    // SAFETY: no preconditions.
    unsafe { ffi::host_uptime_ns() }
}

/// [`uptime_ns`] as the devices' clock.
pub fn now() -> Nanos {
    Nanos(uptime_ns())
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

/// What a timer does when it goes off; it may arm it again. Context: critical.
type Callback = dyn Fn(&Alarm) + Send + Sync;

/// A one-shot timer.
pub struct Timer {
    // On the heap: the host has its address.
    shared: Box<Shared>,
}

struct Shared {
    alarm: Alarm,
    callback: Box<Callback>,
}

/// The timer as its users set it.
pub struct Alarm(AtomicPtr<ffi::host_timer>);

impl Timer {
    pub fn new(callback: Box<Callback>) -> Result<Self, Errno> {
        unsafe extern "C" fn call(arg: *mut c_void) {
            // SAFETY: arg is the address of the Shared, freed only after the timer's end.
            let shared = unsafe { &*arg.cast::<Shared>() };
            (shared.callback)(&shared.alarm);
        }
        let shared = Box::new(Shared {
            alarm: Alarm(AtomicPtr::new(core::ptr::null_mut())),
            callback,
        });
        let arg = (&raw const *shared).cast_mut().cast();
        // SAFETY: call takes what the argument is.
        let raw = unsafe { ffi::host_timer_create(Some(call), arg) };
        if raw.is_null() {
            return Err(Errno::ENOMEM);
        }
        // Nobody has armed it yet.
        shared.alarm.0.store(raw, Ordering::Release);
        Ok(Self { shared })
    }
}

impl Deref for Timer {
    type Target = Alarm;
    fn deref(&self) -> &Alarm {
        &self.shared.alarm
    }
}

impl Alarm {
    /// Fires once at or after `deadline_ns` of [`uptime_ns`]; replaces an earlier arming.
    /// Context: any.
    pub fn arm(&self, deadline_ns: u64) {
        // SAFETY: the host's timer lives as long as the Timer that has self.
        unsafe { ffi::host_timer_arm(self.0.load(Ordering::Acquire), deadline_ns) }
    }

    /// The callback will not start; it may be running. Context: any.
    pub fn cancel(&self) {
        // SAFETY: as arm.
        unsafe { ffi::host_timer_cancel(self.0.load(Ordering::Acquire)) }
    }

    /// Arms it for that time, or cancels it.
    pub fn set(&self, deadline: Option<Nanos>) {
        match deadline {
            Some(deadline) => self.arm(deadline.0),
            None => self.cancel(),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let raw = self.shared.alarm.0.load(Ordering::Acquire);
        // SAFETY: destroy waits until the callback isn't running and never will.
        unsafe { ffi::host_timer_destroy(raw) };
    }
}
