//! The terminal of -c while userboot has it: raw, and set back before the program ends.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{ControlModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Input and output of the loader, in raw mode until it is dropped or [`restore`](Self::restore)d.
pub struct Terminal {
    input: File,
    output: File,
    /// What to set back; `None` if it is no terminal.
    before: Option<Termios>,
}

impl Terminal {
    pub fn new(input: OwnedFd, output: OwnedFd) -> Self {
        Self {
            input: input.into(),
            output: output.into(),
            before: None,
        }
    }

    /// Standard input and output.
    pub fn stdio() -> io::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::new(input, output))
    }

    /// cfmakeraw(3) and CLOCAL, if it is a terminal.
    pub fn make_raw(&mut self) {
        let Ok(before) = tcgetattr(&self.output) else {
            return;
        };
        let mut raw = before.clone();
        raw.make_raw();
        raw.control_modes |= ControlModes::CLOCAL;
        if tcsetattr(&self.output, OptionalActions::Flush, &raw).is_ok() {
            self.before = Some(before);
        }
    }

    pub fn restore(&mut self) {
        if let Some(before) = self.before.take() {
            // There is nothing to be done about a terminal that went away.
            let _ = tcsetattr(&self.output, OptionalActions::Flush, &before);
        }
    }

    /// A byte; a terminal that takes none is no reason not to load.
    pub fn put(&mut self, byte: u8) {
        let _ = self.output.write_all(&[byte]);
    }

    /// Waits for a byte; `None` at the end.
    pub fn get(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.input.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            _ => None,
        }
    }

    /// Whether there is one.
    pub fn poll(&self) -> bool {
        rustix::io::ioctl_fionread(&self.input).is_ok_and(|bytes| bytes > 0)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.restore();
    }
}
