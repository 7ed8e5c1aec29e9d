//! A tap interface of the host (tap(4), vmnet(4); on Linux drivers/net/tun.c): what the
//! guest sends arrives there, and what the host sends there arrives at the guest.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{NetBackend, NetError, Received};
use crate::platform::{self, poll};

/// How long until an interface that is down is looked at again.
const DOWN: Duration = Duration::from_millis(500);

/// An open interface.
pub struct Tap {
    /// The interface's name.
    interface: String,
    file: File,
    /// Of these two, the first one ends when the second one is shut down.
    stopped: UnixStream,
    stopper: UnixStream,
}

impl Tap {
    /// Opens the interface, and brings it up if `up`.
    pub fn open(interface: &str, up: bool) -> Result<Self, NetError> {
        let file = platform::tap::open(interface, up).map_err(|error| NetError::Tap {
            name: interface.to_owned(),
            error,
        })?;
        Self::new(file, interface).map_err(NetError::Io)
    }

    pub(super) fn new(file: File, interface: &str) -> io::Result<Self> {
        let (stopped, stopper) = UnixStream::pair()?;
        Ok(Self {
            interface: interface.to_owned(),
            file,
            stopped,
            stopper,
        })
    }

    /// Waits until there is something to read, or until the time is up. True: stopped.
    fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        // An interface that is down can be read all the time.
        let file = if limit.is_some() {
            self.stopped.as_fd()
        } else {
            self.file.as_fd()
        };
        let [stopped, _] = poll::readable([self.stopped.as_fd(), file], limit)?;
        Ok(stopped)
    }
}

/// Errors of an interface that may work again: somebody has set it down, or the host has no
/// memory now.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EHOSTDOWN | libc::ENETDOWN | libc::ENOBUFS | libc::ENOMEM)
    )
}

impl NetBackend for Tap {
    fn send(&self, frame: &[u8]) {
        // It goes as a whole or not at all. That the interface is gone is told by the
        // thread that receives.
        let _ = (&self.file).write(frame);
    }

    fn receive(&self, buffer: &mut [u8]) -> Received {
        let mut limit = None;
        loop {
            match self.wait(limit) {
                Ok(true) => return Received::Stopped,
                Ok(false) => {}
                Err(error) => return Received::Gone(cli::io_error(&error)),
            }
            limit = match (&self.file).read(buffer) {
                Ok(0) => return Received::Gone(format!("{} has ended", self.interface)),
                Ok(len) => return Received::Frame(len),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    None
                }
                Err(error) if passes(&error) => Some(DOWN),
                Err(error) => {
                    return Received::Gone(format!(
                        "{}: {}",
                        self.interface,
                        cli::io_error(&error)
                    ));
                }
            };
        }
    }

    fn stop(&self) {
        // There is nothing that could fail with a pair of our own.
        let _ = self.stopper.shutdown(std::net::Shutdown::Both);
    }
}
