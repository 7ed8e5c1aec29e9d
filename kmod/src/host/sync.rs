//! Locks and sleeping.
//!
//! Lock order, outermost first: a VM's end, the registry of VMs (both `dev`), a VM's memory
//! lock, its vcpu table, a vcpu's contents ([`SxLock`]s); then the [`SpinLock`]s, none of which is held
//! while another is taken. No lock is held across a VM entry except a vcpu's contents.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_void};
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use vmm_core::types::Errno;

use super::ffi;

/// A spin lock that is safe against interrupts and preemption: the host's spin section
/// (interrupts off) around a lock of the `spin` crate. No allocation or sleep inside.
pub struct SpinLock<T> {
    inner: spin::Mutex<T>,
}

/// Access to a [`SpinLock`]'s contents. The fields drop in order: the lock is released
/// before interrupts come back.
pub struct SpinGuard<'a, T> {
    inner: spin::MutexGuard<'a, T>,
    _section: SpinSection,
}

struct SpinSection {
    cookie: u64,
    _cpu: PhantomData<*mut ()>,
}

impl<T> SpinLock<T> {
    pub const fn new(value: T) -> Self {
        Self {
            inner: spin::Mutex::new(value),
        }
    }

    /// Context: any.
    pub fn lock(&self) -> SpinGuard<'_, T> {
        // SAFETY: paired with the exit in SpinSection's Drop, on the same CPU.
        let cookie = unsafe { ffi::host_spin_enter() };
        let section = SpinSection {
            cookie,
            _cpu: PhantomData,
        };
        SpinGuard {
            inner: self.inner.lock(),
            _section: section,
        }
    }
}

impl Drop for SpinSection {
    fn drop(&mut self) {
        // SAFETY: the cookie is that of the matching enter.
        unsafe { ffi::host_spin_exit(self.cookie) }
    }
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// The host's sleepable shared/exclusive lock (sx(9), rw_semaphore). Context: thread.
pub struct SxLock<T> {
    raw: NonNull<ffi::host_sx>,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands T to one thread at a time for writing (Send) …
unsafe impl<T: Send> Send for SxLock<T> {}
// SAFETY: … and to several for reading (Sync).
unsafe impl<T: Send + Sync> Sync for SxLock<T> {}

impl<T> SxLock<T> {
    /// `name` is what the host's lock checker (WITNESS) shows. ENOMEM when the host can't.
    pub fn new(name: &'static CStr, value: T) -> Result<Self, Errno> {
        // SAFETY: the name is a static string.
        let raw = NonNull::new(unsafe { ffi::host_sx_create(name.as_ptr()) });
        Ok(Self {
            raw: raw.ok_or(Errno::ENOMEM)?,
            value: UnsafeCell::new(value),
        })
    }

    pub fn read(&self) -> SxReadGuard<'_, T> {
        // SAFETY: the lock lives as long as self; unlocked in the guard's Drop.
        unsafe { ffi::host_sx_slock(self.raw.as_ptr()) };
        SxReadGuard {
            lock: self,
            _thread: PhantomData,
        }
    }

    pub fn write(&self) -> SxWriteGuard<'_, T> {
        // SAFETY: as read.
        unsafe { ffi::host_sx_xlock(self.raw.as_ptr()) };
        SxWriteGuard {
            lock: self,
            _thread: PhantomData,
        }
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> Drop for SxLock<T> {
    fn drop(&mut self) {
        // SAFETY: nobody holds the lock: every guard borrows self.
        unsafe { ffi::host_sx_destroy(self.raw.as_ptr()) }
    }
}

pub struct SxReadGuard<'a, T> {
    lock: &'a SxLock<T>,
    _thread: PhantomData<*mut ()>,
}

impl<T> Deref for SxReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: held shared, so nobody has the value exclusively.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for SxReadGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: this guard is one shared hold of this thread.
        unsafe { ffi::host_sx_sunlock(self.lock.raw.as_ptr()) }
    }
}

pub struct SxWriteGuard<'a, T> {
    lock: &'a SxLock<T>,
    _thread: PhantomData<*mut ()>,
}

impl<T> Deref for SxWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: held exclusively by this guard.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for SxWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: held exclusively by this guard, which is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for SxWriteGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: this guard is the exclusive hold of this thread.
        unsafe { ffi::host_sx_xunlock(self.lock.raw.as_ptr()) }
    }
}

/// Where threads sleep until something is true.
pub struct WaitQueue {
    raw: NonNull<ffi::host_waitq>,
}

// SAFETY: the host's wait queues are made for being used from many threads.
unsafe impl Send for WaitQueue {}
// SAFETY: as Send.
unsafe impl Sync for WaitQueue {}

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitError {
    /// The thread has to go back to userland: a signal or another AST.
    Interrupted,
    TimedOut,
}

impl WaitQueue {
    /// `name` is the wait channel that ps(1) shows.
    pub fn new(name: &'static CStr) -> Result<Self, Errno> {
        // SAFETY: the name is a static string.
        let raw = NonNull::new(unsafe { ffi::host_waitq_create(name.as_ptr()) });
        Ok(Self {
            raw: raw.ok_or(Errno::ENOMEM)?,
        })
    }

    /// Sleeps until `ready()`; it runs under a spin lock of the host and only reads
    /// atomics. Context: thread.
    pub fn wait(&self, ready: &dyn Fn() -> bool) {
        // Without a timeout and uninterruptible there is nothing else to return.
        let _ = self.sleep(ready, 0, false);
    }

    /// As [`Self::wait`], but a signal ends it, and so does the timeout (0 is none).
    pub fn wait_interruptible(
        &self,
        ready: &dyn Fn() -> bool,
        timeout_ns: u64,
    ) -> Result<(), WaitError> {
        self.sleep(ready, timeout_ns, true)
    }

    /// Wakes all sleepers, who look again. Context: any.
    pub fn wake(&self) {
        // SAFETY: the queue lives as long as self.
        unsafe { ffi::host_waitq_wake(self.raw.as_ptr()) }
    }

    fn sleep(
        &self,
        ready: &dyn Fn() -> bool,
        timeout_ns: u64,
        interruptible: bool,
    ) -> Result<(), WaitError> {
        unsafe extern "C" fn call(arg: *mut c_void) -> bool {
            // SAFETY: arg is the address of `ready` below, which outlives the wait.
            let ready = unsafe { &*arg.cast::<&dyn Fn() -> bool>() };
            ready()
        }
        let arg = (&raw const ready).cast_mut().cast::<c_void>();
        // SAFETY: call takes what arg is; the queue lives as long as self.
        let error = unsafe {
            ffi::host_waitq_wait(
                self.raw.as_ptr(),
                Some(call),
                arg,
                timeout_ns,
                interruptible,
            )
        };
        match Errno::check(error) {
            Ok(()) => Ok(()),
            Err(Errno::ETIMEDOUT) => Err(WaitError::TimedOut),
            Err(_) => Err(WaitError::Interrupted),
        }
    }
}

impl Drop for WaitQueue {
    fn drop(&mut self) {
        // SAFETY: nobody sleeps on it: every wait borrows self.
        unsafe { ffi::host_waitq_destroy(self.raw.as_ptr()) }
    }
}
