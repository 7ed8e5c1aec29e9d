//! The host's calls that std has no safe form of, and all that differs between hosts: raw
//! terminals, pinning a thread, waiting for signals, in [`disk`] what disks need, in [`tap`]
//! and [`slirp`] what networks need, and in [`wait`] waiting for files. The only unsafe code
//! of this crate.
//!
//! What one host has in its own way is in the folder of its name. Both folders have the same
//! functions and constants; nothing outside of here asks which host it is.

pub mod disk;
pub mod slirp;
pub mod tap;
pub mod wait;

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
use freebsd as host;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as host;

pub use host::{SLIRP_PACKAGE, TAP_HINT, pin_thread, set_process_title};

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// Terminals in raw mode, with the settings they had before.
static RAW_TERMINALS: Mutex<Vec<(OwnedFd, libc::termios)>> = Mutex::new(Vec::new());

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Puts a terminal into raw mode: each byte passes as it is, also those that would be
/// signals. [`restore_terminals`] puts it back.
pub fn make_raw(terminal: BorrowedFd<'_>) -> io::Result<()> {
    let keep = terminal.try_clone_to_owned()?;
    let mut settings = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: tcgetattr fills the whole structure when it returns 0, which is checked
    // before it is taken as initialized.
    let before = unsafe {
        check(libc::tcgetattr(keep.as_raw_fd(), settings.as_mut_ptr()))?;
        settings.assume_init()
    };
    let mut raw = before;
    // SAFETY: both get a valid structure; tcsetattr only reads it.
    unsafe {
        libc::cfmakeraw(&mut raw);
        raw.c_cflag |= libc::CLOCAL;
        check(libc::tcsetattr(keep.as_raw_fd(), libc::TCSANOW, &raw))?;
    }
    RAW_TERMINALS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((keep, before));
    Ok(())
}

/// Gives each terminal the settings that it had before [`make_raw`]. For the end of the
/// program, whichever way it ends.
pub fn restore_terminals() {
    let mut terminals = RAW_TERMINALS.lock().unwrap_or_else(PoisonError::into_inner);
    for (terminal, before) in terminals.drain(..).rev() {
        // SAFETY: a valid structure that is only read. A terminal that is gone needs no
        // settings, so that the result doesn't matter.
        unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &before) };
    }
}

/// The signals that end the guest or ask about it.
const SIGNALS: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1];

/// A set of [`SIGNALS`].
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks them in this thread and all threads it starts from now on, so that they wait
    /// for [`Signals::wait`].
    pub fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initializes the set that the other calls then work on; the
        // old mask is not asked for.
        unsafe {
            check(libc::sigemptyset(set.as_mut_ptr()))?;
            let mut set = set.assume_init();
            for signal in SIGNALS {
                check(libc::sigaddset(&mut set, signal))?;
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
                0 => Ok(Self(set)),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }

    /// Waits for the next of them.
    pub fn wait(&self) -> io::Result<libc::c_int> {
        let mut signal = 0;
        // SAFETY: an initialized set, and a place for the number.
        match unsafe { libc::sigwait(&self.0, &mut signal) } {
            0 => Ok(signal),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// How many host CPUs a set can name.
pub const MAX_HOST_CPUS: u32 = 1024;

/// A host CPU that this program may run on: the one that it runs on now.
pub fn current_cpu() -> io::Result<u32> {
    // SAFETY: no arguments.
    let cpu = unsafe { libc::sched_getcpu() };
    u32::try_from(cpu).map_err(|_| io::Error::last_os_error())
}

/// How many seconds the host's local time is ahead of UTC now.
pub fn utc_offset() -> i64 {
    let mut local = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: time() gets no place to store to; localtime_r() reads its result and fills
    // `local`, which is valid all zero too, for the case that it fails.
    unsafe {
        let now = libc::time(std::ptr::null_mut());
        libc::localtime_r(&now, local.as_mut_ptr());
        local.assume_init().tm_gmtoff
    }
}

/// The host's name; empty if it has none that can be read.
pub fn hostname() -> String {
    let mut name = [0_u8; 256];
    // SAFETY: the buffer is as long as told; its last byte is kept back, so that a name
    // that was cut off still ends.
    let result = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    if result != 0 {
        return String::new();
    }
    let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned_to_a_cpu_it_may_use_and_to_no_other() {
        std::thread::spawn(|| {
            // Some CPU of the first 1024 must be allowed; nobody has this many.
            assert!((0..MAX_HOST_CPUS).any(|cpu| pin_thread(&[cpu]).is_ok()));
            assert!(pin_thread(&[MAX_HOST_CPUS - 1]).is_err());
            assert!(pin_thread(&[]).is_err());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_is_no_terminal_stays_as_it_is() {
        use std::os::fd::AsFd;
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(make_raw(file.as_fd()).is_err());
        restore_terminals();
    }
}
