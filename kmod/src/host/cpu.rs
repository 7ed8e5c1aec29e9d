//! The host's CPUs: staying on one, reaching the others.

use core::ffi::c_void;
use core::marker::PhantomData;

use vmm_core::types::HostCpu;

use super::ffi;

/// No preemption and no migration while it lives (host_critical_enter). It nests.
pub struct Critical {
    // A critical section belongs to the thread that entered it.
    _thread: PhantomData<*mut ()>,
}

/// Begins a critical section.
pub fn critical() -> Critical {
    // SAFETY: paired with the exit in Drop, on the same thread since Critical is !Send.
    unsafe { ffi::host_critical_enter() };
    Critical {
        _thread: PhantomData,
    }
}

impl Critical {
    /// The CPU this thread is on, and stays on.
    pub fn cpu(&self) -> HostCpu {
        // SAFETY: no preconditions.
        HostCpu(unsafe { ffi::host_curcpu() })
    }
}

impl Drop for Critical {
    fn drop(&mut self) {
        // SAFETY: paired with the enter in critical().
        unsafe { ffi::host_critical_exit() }
    }
}

/// The bracket of host_world_begin/end: this CPU is prepared for running a guest.
pub struct World<'a> {
    _critical: &'a Critical,
}

impl<'a> World<'a> {
    /// The host thread's FPU state is saved and the FPU is ours; see host.h.
    pub fn begin(critical: &'a Critical) -> Self {
        // SAFETY: we are in a critical section for as long as the value lives.
        unsafe { ffi::host_world_begin() };
        Self {
            _critical: critical,
        }
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        // SAFETY: paired with begin, on the same CPU.
        unsafe { ffi::host_world_end() }
    }
}

/// CPU ids are below it.
pub fn ncpus() -> u32 {
    // SAFETY: no preconditions.
    unsafe { ffi::host_ncpus() }
}

/// The CPU this runs on; stable only in spin context (in functions run by
/// [`run_on_all_cpus`]) — elsewhere use [`Critical::cpu`].
pub fn current() -> HostCpu {
    // SAFETY: no preconditions.
    HostCpu(unsafe { ffi::host_curcpu() })
}

/// Runs `f` on every CPU with interrupts off, all done on return. Context: thread.
pub fn run_on_all_cpus(f: &(dyn Fn() + Sync)) {
    unsafe extern "C" fn call(arg: *mut c_void) {
        // SAFETY: arg is the address of f below, which outlives the rendezvous.
        let f = unsafe { &*arg.cast::<&(dyn Fn() + Sync)>() };
        f();
    }
    let arg = (&raw const f).cast_mut().cast::<c_void>();
    // SAFETY: call takes what arg is; f is Sync, so every CPU may call it.
    unsafe { ffi::host_run_on_all_cpus(Some(call), arg) }
}

/// Makes `cpu` take an interrupt, so that a guest running there exits. Context: any.
pub fn kick(cpu: HostCpu) {
    // SAFETY: no preconditions.
    unsafe { ffi::host_kick_cpu(cpu.0) }
}

/// The host was told to do without what the CPUs' flaws cost, all of it.
pub fn mitigations_off() -> bool {
    // SAFETY: no preconditions.
    unsafe { ffi::host_mitigations_off() }
}

/// CR4 = (CR4 | set) & !clear on this CPU. Context: spin.
///
/// # Safety
/// The bits must keep the host kernel working: this module changes only CR4.VMXE.
pub unsafe fn change_cr4(set: u64, clear: u64) {
    // SAFETY: the caller's promise.
    unsafe { ffi::host_cr4_change(set, clear) }
}
