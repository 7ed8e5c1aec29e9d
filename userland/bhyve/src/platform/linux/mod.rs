//! Linux: sched_setaffinity(2), disks ([`disk`]) and taps ([`tap`]).

pub mod disk;
pub mod tap;

use std::io;

use super::check;

/// How a person gets libslirp.
pub const SLIRP_PACKAGE: &str = "libslirp0, `apt install libslirp0` on Debian";
/// How a person gets a tap.
pub const TAP_HINT: &str = "`modprobe tun` loads the driver";

/// There is no such call; the VM's name is among the arguments.
pub fn set_process_title(_vm: &str) {}

/// Lets the calling thread run on these host CPUs only.
pub fn pin_thread(cpus: &[u32]) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus {
        // SAFETY: CPU_SET ignores numbers beyond the set.
        unsafe { libc::CPU_SET(*cpu as usize, &mut set) };
    }
    // SAFETY: the set is read for the size given; thread 0 is the calling one.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) })
}
