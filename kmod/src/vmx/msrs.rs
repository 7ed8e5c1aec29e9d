//! The MSRs that neither the VMCS switches nor the guest may share with the host: those
//! of SYSCALL and SWAPGS, and TSC_AUX. The guest reads and writes them without an exit
//! (the MSR bitmap lets it; TSC_AUX only through RDTSCP and RDPID, its writes exit); they are exchanged once per run, not per exit, since the
//! host's kernel uses none of them before it returns to userland.

use core::sync::atomic::{AtomicU64, Ordering};

use super::cpu::{self, msr};

/// The host's SYSCALL MSRs on one CPU: set at boot and constant since.
#[derive(Default)]
pub struct HostSyscallMsrs {
    star: AtomicU64,
    lstar: AtomicU64,
    cstar: AtomicU64,
    fmask: AtomicU64,
}

impl HostSyscallMsrs {
    /// Reads this CPU's.
    pub fn capture(&self) {
        // SAFETY: every 64-bit CPU has these MSRs.
        unsafe {
            self.star
                .store(cpu::rdmsr(msr::IA32_STAR), Ordering::Relaxed);
            self.lstar
                .store(cpu::rdmsr(msr::IA32_LSTAR), Ordering::Relaxed);
            self.cstar
                .store(cpu::rdmsr(msr::IA32_CSTAR), Ordering::Relaxed);
            self.fmask
                .store(cpu::rdmsr(msr::IA32_FMASK), Ordering::Relaxed);
        }
    }

    fn restore(&self) {
        // SAFETY: these are the values that this CPU had.
        unsafe {
            cpu::wrmsr(msr::IA32_STAR, self.star.load(Ordering::Relaxed));
            cpu::wrmsr(msr::IA32_LSTAR, self.lstar.load(Ordering::Relaxed));
            cpu::wrmsr(msr::IA32_CSTAR, self.cstar.load(Ordering::Relaxed));
            cpu::wrmsr(msr::IA32_FMASK, self.fmask.load(Ordering::Relaxed));
        }
    }
}

/// The guest's values while it doesn't run.
#[derive(Clone, Copy, Default)]
pub struct GuestMsrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
}

/// The host thread's own, for the time of a run.
pub struct SavedMsrs {
    tsc_aux: Option<u64>,
}

impl GuestMsrs {
    /// The guest's values into the CPU; `tsc_aux` if it has RDTSCP or RDPID.
    pub fn enter(&self, tsc_aux: Option<u32>) -> SavedMsrs {
        // SAFETY: the values were in these MSRs when the guest left, or are 0, or a
        // canonical address (set_register checks); the host's come back in leave().
        unsafe {
            cpu::wrmsr(msr::IA32_STAR, self.star);
            cpu::wrmsr(msr::IA32_LSTAR, self.lstar);
            cpu::wrmsr(msr::IA32_CSTAR, self.cstar);
            cpu::wrmsr(msr::IA32_FMASK, self.fmask);
            cpu::wrmsr(msr::IA32_KERNEL_GSBASE, self.kernel_gs_base);
            let host = tsc_aux.map(|guest| {
                let host = cpu::rdmsr(msr::IA32_TSC_AUX);
                cpu::wrmsr(msr::IA32_TSC_AUX, u64::from(guest));
                host
            });
            SavedMsrs { tsc_aux: host }
        }
    }

    /// The guest's values out of the CPU, the host's into it. IA32_KERNEL_GS_BASE, which is
    /// the host's userland's, is restored by `host_world_end`.
    pub fn leave(&mut self, saved: &SavedMsrs, host: &HostSyscallMsrs) {
        // SAFETY: every 64-bit CPU has these MSRs, TSC_AUX if enter() used it; the values
        // written are the host's.
        unsafe {
            self.star = cpu::rdmsr(msr::IA32_STAR);
            self.lstar = cpu::rdmsr(msr::IA32_LSTAR);
            self.cstar = cpu::rdmsr(msr::IA32_CSTAR);
            self.fmask = cpu::rdmsr(msr::IA32_FMASK);
            self.kernel_gs_base = cpu::rdmsr(msr::IA32_KERNEL_GSBASE);
            if let Some(tsc_aux) = saved.tsc_aux {
                cpu::wrmsr(msr::IA32_TSC_AUX, tsc_aux);
            }
        }
        host.restore();
    }
}
