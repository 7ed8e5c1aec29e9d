//! poll(2): waiting for one of several files.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Waits until a file can be read without blocking, or has ended or failed (which reading
/// it then tells). The answer says of which files that is so: of none when the time is up.
pub fn readable<const N: usize>(
    files: [BorrowedFd<'_>; N],
    limit: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled = files.map(|file| libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    let timeout = limit.map_or(-1, |limit| {
        libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX)
    });
    loop {
        // SAFETY: an array of valid structures, as many as said.
        let result = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, timeout) };
        if result >= 0 {
            return Ok(polled.map(|file| file.revents != 0));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
