//! poll(2): waiting for one of several files.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// A file to wait for, and what for. That its other side has gone is always told.
#[repr(transparent)]
pub struct PollFd<'a> {
    raw: libc::pollfd,
    file: PhantomData<BorrowedFd<'a>>,
}

impl<'a> PollFd<'a> {
    pub fn new(file: BorrowedFd<'a>, read: bool, write: bool) -> Self {
        let mut events = 0;
        if read {
            events |= libc::POLLIN;
        }
        if write {
            events |= libc::POLLOUT;
        }
        Self {
            raw: libc::pollfd {
                fd: file.as_raw_fd(),
                events,
                revents: 0,
            },
            file: PhantomData,
        }
    }

    /// Reading does not block: there is something, or the end.
    pub fn readable(&self) -> bool {
        self.raw.revents & libc::POLLIN != 0
    }

    pub fn writable(&self) -> bool {
        self.raw.revents & libc::POLLOUT != 0
    }

    /// The other side has gone, or the file is in error. There may be something to read.
    pub fn hung_up(&self) -> bool {
        self.raw.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }
}

/// Waits until something happens to a file, or for that long.
pub fn poll(files: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<()> {
    // Rounded up, so that nobody waits for less than he wants.
    let timeout = limit.map_or(-1, |limit| {
        libc::c_int::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
    });
    let count = libc::nfds_t::try_from(files.len()).map_err(io::Error::other)?;
    loop {
        // SAFETY: a PollFd is a pollfd (repr(transparent)), there are `count` of them, and
        // each holds a file that stays open as long as it is borrowed.
        let result = unsafe { libc::poll(files.as_mut_ptr().cast(), count, timeout) };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Waits until a file can be read without blocking, or has ended or failed (which reading
/// it then tells). The answer says of which files that is so: of none when the time is up.
pub fn readable<const N: usize>(
    files: [BorrowedFd<'_>; N],
    limit: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut files = files.map(|file| PollFd::new(file, true, false));
    poll(&mut files, limit)?;
    Ok(files.map(|file| file.readable() || file.hung_up()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn look(file: &UnixStream, write: bool) -> (bool, bool, bool) {
        let mut files = [PollFd::new(file.as_fd(), true, write)];
        poll(&mut files, Some(Duration::ZERO)).unwrap();
        let [file] = files;
        (file.readable(), file.writable(), file.hung_up())
    }

    #[test]
    fn what_happens_to_a_file_is_told() {
        let (mut ours, mut other) = UnixStream::pair().unwrap();
        assert_eq!(look(&ours, false), (false, false, false));
        assert_eq!(look(&ours, true), (false, true, false));
        other.write_all(b"x").unwrap();
        assert_eq!(look(&ours, true), (true, true, false));
        ours.read_exact(&mut [0]).unwrap();
        assert_eq!(look(&ours, false), (false, false, false));
        drop(other);
        let (readable, _, hung_up) = look(&ours, false);
        assert!(readable && hung_up);
        let (other, _keep) = UnixStream::pair().unwrap();
        let both = super::readable([other.as_fd(), ours.as_fd()], None).unwrap();
        assert_eq!(both, [false, true]);
        poll(&mut [], Some(Duration::from_micros(1))).unwrap();
    }
}
