//! FreeBSD: setproctitle(3), cpuset_setaffinity(2), disks ([`disk`]) and taps ([`tap`]).

pub mod disk;
pub mod tap;

use std::ffi::CString;
use std::io;

use super::check;

/// How a person gets libslirp.
pub const SLIRP_PACKAGE: &str = "`pkg install libslirp`";
/// How a person gets a tap.
pub const TAP_HINT: &str = "`kldload if_tuntap` and `ifconfig tap0 create` make one";

/// Calls the process "bhyve: NAME", by which front ends look for a VM's bhyve.
pub fn set_process_title(vm: &str) {
    if let Ok(name) = CString::new(vm) {
        // SAFETY: the format takes one string, and both are C strings; the title is copied.
        unsafe { libc::setproctitle(c"%s".as_ptr(), name.as_ptr()) };
    }
}

/// Lets the calling thread run on these host CPUs only.
pub fn pin_thread(cpus: &[u32]) -> io::Result<()> {
    // SAFETY: an all-zero cpuset_t is the empty set.
    let mut set: libc::cpuset_t = unsafe { std::mem::zeroed() };
    for cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as u32) {
        // SAFETY: the number is one of the set's.
        unsafe { libc::CPU_SET(*cpu as usize, &mut set) };
    }
    // SAFETY: the set is read for the size given; id -1 is the calling thread.
    check(unsafe {
        libc::cpuset_setaffinity(
            libc::CPU_LEVEL_WHICH,
            libc::CPU_WHICH_TID,
            -1,
            size_of_val(&set),
            &set,
        )
    })
}
