//! What `state` needs of the host: CPUs, the base of GS, and a watchpoint in a child by
//! ptrace(2). For Linux and FreeBSD.

use std::io;

/// DR7: a write of eight bytes at DR0's address, enabled.
const WATCH_WRITES: u64 = 1 | 1 << 16 | 2 << 18;

/// The last error of the C library.
pub fn error(what: &str) -> String {
    format!("state: {what}: {}", io::Error::last_os_error())
}

fn check(what: &str, result: i64) -> Result<(), String> {
    if result == -1 {
        Err(error(what))
    } else {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod os {
    use super::{WATCH_WRITES, check};

    const ARCH_SET_GS: i32 = 0x1001;

    /// The CPUs that this program may run on.
    pub fn cpus() -> Result<Vec<usize>, String> {
        // SAFETY: a set of bits, all zero; the call fills it.
        let set = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let result = libc::sched_getaffinity(0, size_of_val(&set), &raw mut set);
            check("sched_getaffinity", result.into())?;
            set
        };
        // SAFETY: looks at a bit within the set.
        let is_set = |&cpu: &usize| unsafe { libc::CPU_ISSET(cpu, &set) };
        Ok((0..libc::CPU_SETSIZE as usize).filter(is_set).collect())
    }

    /// This thread stays on that CPU.
    pub fn pin(cpu: usize) -> Result<(), String> {
        // SAFETY: a set of bits with one bit within it set.
        let result = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
        };
        check("sched_setaffinity", result.into())
    }

    pub fn set_gs_base(base: u64) -> Result<(), String> {
        // SAFETY: nothing here is addressed by GS but what the caller does.
        let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, base) };
        check("arch_prctl", result)
    }

    pub fn trace_me() {
        // SAFETY: the parent is told of this process' signals.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    }

    pub fn resume(child: libc::pid_t) -> Result<(), String> {
        // SAFETY: a stopped child of ours goes on.
        check("PTRACE_CONT", unsafe {
            libc::ptrace(libc::PTRACE_CONT, child, 0, 0)
        })
    }

    pub fn kill(child: libc::pid_t) {
        // SAFETY: our own child.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }

    pub fn set_watchpoint(child: libc::pid_t, address: u64) -> Result<(), String> {
        let register = |n: usize| std::mem::offset_of!(libc::user, u_debugreg) + n * 8;
        for (n, value) in [(0, address), (7, WATCH_WRITES)] {
            // SAFETY: a register of a stopped child of ours.
            check("PTRACE_POKEUSER", unsafe {
                libc::ptrace(libc::PTRACE_POKEUSER, child, register(n), value)
            })?;
        }
        Ok(())
    }
}

#[cfg(target_os = "freebsd")]
mod os {
    use super::{WATCH_WRITES, check};

    /// machine/sysarch.h
    const AMD64_SET_GSBASE: i32 = 131;

    unsafe extern "C" {
        fn sysarch(number: i32, arguments: *mut libc::c_void) -> i32;
    }

    const THIS_THREAD: libc::id_t = -1;

    /// The CPUs that this program may run on.
    pub fn cpus() -> Result<Vec<usize>, String> {
        // SAFETY: a set of bits, all zero; the call fills it.
        let set = unsafe {
            let mut set: libc::cpuset_t = std::mem::zeroed();
            let result = libc::cpuset_getaffinity(
                libc::CPU_LEVEL_WHICH,
                libc::CPU_WHICH_TID,
                THIS_THREAD,
                size_of_val(&set),
                &raw mut set,
            );
            check("cpuset_getaffinity", result.into())?;
            set
        };
        // SAFETY: looks at a bit within the set.
        let is_set = |&cpu: &usize| unsafe { libc::CPU_ISSET(cpu, &set) };
        Ok((0..libc::CPU_SETSIZE as usize).filter(is_set).collect())
    }

    /// This thread stays on that CPU.
    pub fn pin(cpu: usize) -> Result<(), String> {
        // SAFETY: a set of bits with one bit within it set.
        let result = unsafe {
            let mut set: libc::cpuset_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            libc::cpuset_setaffinity(
                libc::CPU_LEVEL_WHICH,
                libc::CPU_WHICH_TID,
                THIS_THREAD,
                size_of_val(&set),
                &raw const set,
            )
        };
        check("cpuset_setaffinity", result.into())
    }

    pub fn set_gs_base(mut base: u64) -> Result<(), String> {
        // SAFETY: nothing here is addressed by GS but what the caller does.
        let result = unsafe { sysarch(AMD64_SET_GSBASE, (&raw mut base).cast()) };
        check("sysarch", result.into())
    }

    fn ptrace(
        what: &str,
        request: i32,
        pid: libc::pid_t,
        address: *mut libc::c_char,
    ) -> Result<(), String> {
        // SAFETY: a stopped child of ours, or this process; the address is what the request
        // asks for.
        check(
            what,
            unsafe { libc::ptrace(request, pid, address, 0) }.into(),
        )
    }

    pub fn trace_me() {
        let _ = ptrace("PT_TRACE_ME", libc::PT_TRACE_ME, 0, std::ptr::null_mut());
    }

    pub fn resume(child: libc::pid_t) -> Result<(), String> {
        // From where it stopped.
        let here = std::ptr::without_provenance_mut(1);
        ptrace("PT_CONTINUE", libc::PT_CONTINUE, child, here)
    }

    /// A signal would wait until the child goes on.
    pub fn kill(child: libc::pid_t) {
        let _ = ptrace("PT_KILL", libc::PT_KILL, child, std::ptr::null_mut());
    }

    pub fn set_watchpoint(child: libc::pid_t, address: u64) -> Result<(), String> {
        // struct dbreg of machine/reg.h.
        let mut registers = [0u64; 16];
        (registers[0], registers[7]) = (address, WATCH_WRITES);
        let registers = (&raw mut registers).cast();
        ptrace("PT_SETDBREGS", libc::PT_SETDBREGS, child, registers)
    }
}

pub use os::{cpus, kill, pin, resume, set_gs_base, set_watchpoint, trace_me};
