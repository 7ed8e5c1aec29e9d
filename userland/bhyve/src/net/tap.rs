//! A tap interface of the host (tap(4), vmnet(4); on Linux drivers/net/tun.c): what the
//! guest sends arrives there, and what the host sends there arrives at the guest.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{NetBackend, NetError, Received};
use crate::platform;
use crate::platform::wait::{Files, Waker};

/// How long until an interface that is down is looked at again.
const DOWN: Duration = Duration::from_millis(500);

/// An open interface.
pub struct Tap {
    /// The interface's name.
    interface: String,
    file: File,
    files: Mutex<Files>,
    stopper: Waker,
    stopped: AtomicBool,
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

    /// From a file that doesn't block.
    pub(super) fn new(file: File, interface: &str) -> io::Result<Self> {
        let files = Files::new()?;
        files.add_input(file.as_fd(), 0)?;
        Ok(Self {
            interface: interface.to_owned(),
            file,
            stopper: files.waker()?,
            files: Mutex::new(files),
            stopped: AtomicBool::new(false),
        })
    }

    /// Waits until there is something new to read, or until the time is up.
    fn wait(&self, limit: Option<Duration>) -> io::Result<()> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.wait(limit).map(drop)
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
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return Received::Stopped;
            }
            let limit = match (&self.file).read(buffer) {
                Ok(0) => return Received::Gone(format!("{} has ended", self.interface)),
                Ok(len) => return Received::Frame(len),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) if passes(&error) => Some(DOWN),
                Err(error) => {
                    return Received::Gone(format!(
                        "{}: {}",
                        self.interface,
                        cli::io_error(&error)
                    ));
                }
            };
            if let Err(error) = self.wait(limit) {
                return Received::Gone(cli::io_error(&error));
            }
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.stopper.wake();
    }
}
