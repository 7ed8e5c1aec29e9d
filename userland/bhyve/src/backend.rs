//! Where a console's bytes go and come from: standard input and output, a file of the host
//! (a terminal device, one end of nmdm(4), a pipe, a plain file for output only), or a
//! connection ([`tcp`]). A terminal is put into raw mode; a dead backend loses output, with
//! one line about it.

#![forbid(unsafe_code)]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::tcp::TcpServer;
use crate::platform;

pub mod tcp;

/// Takes everything and gives nothing.
const NOBODY: &str = "/dev/null";

/// Why a backend can't be opened.
#[derive(Debug)]
pub enum BackendError {
    TcpAddress(String),
    NotAPath(String),
    StdioTaken,
    Io { path: String, error: io::Error },
}

impl std::error::Error for BackendError {}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TcpAddress(text) => write!(
                f,
                "'{text}' is no address to listen at: tcp=address:port is wanted, both as \
                 numbers, an IPv6 address in brackets"
            ),
            Self::NotAPath(text) => {
                write!(
                    f,
                    "'{text}' is neither stdio, tcp=address:port nor the absolute path of a \
                     terminal or file"
                )
            }
            Self::StdioTaken => f.write_str("stdio is used by another console already"),
            Self::Io { path, error } => write!(f, "{path}: {}", cli::io_error(error)),
        }
    }
}

/// One open backend. Reading and writing go on in parallel.
pub struct Backend(Kind);

enum Kind {
    Files(Files),
    Tcp(Arc<TcpServer>),
}

struct Files {
    name: String,
    input: Option<File>,
    output: File,
    /// Output was lost, and that has been said.
    broken: AtomicBool,
}

static STDIO_TAKEN: AtomicBool = AtomicBool::new(false);

impl Backend {
    /// From a device option's text: `stdio`, `tcp=address:port` or a path.
    pub fn open(spec: &str) -> Result<Self, BackendError> {
        if spec == "stdio" {
            return Self::stdio();
        }
        if let Some(address) = spec.strip_prefix("tcp=") {
            return Self::tcp(address);
        }
        if !spec.starts_with('/') {
            return Err(BackendError::NotAPath(spec.to_owned()));
        }
        let failed = |error| BackendError::Io {
            path: spec.to_owned(),
            error,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            // A terminal must not become bhyve's controlling one.
            .custom_flags(libc::O_NOCTTY)
            .open(spec)
            .map_err(failed)?;
        // Nothing comes from a plain file: it is a log.
        let input = if file.metadata().map_err(failed)?.is_file() {
            None
        } else {
            Some(file.try_clone().map_err(failed)?)
        };
        if file.is_terminal() {
            platform::make_raw(file.as_fd()).map_err(failed)?;
        }
        Ok(Self(Kind::Files(Files {
            name: spec.to_owned(),
            input,
            output: file,
            broken: AtomicBool::new(false),
        })))
    }

    /// As [`Backend::open`]; without a text, one that talks to nobody.
    pub fn open_or_nobody(spec: Option<&str>) -> Result<Self, BackendError> {
        Self::open(spec.filter(|spec| !spec.is_empty()).unwrap_or(NOBODY))
    }

    fn tcp(address: &str) -> Result<Self, BackendError> {
        let address = address
            .parse()
            .map_err(|_| BackendError::TcpAddress(address.to_owned()))?;
        let failed = |error| BackendError::Io {
            path: format!("tcp={address}"),
            error,
        };
        let (server, _) = TcpServer::start(address).map_err(failed)?;
        Ok(Self(Kind::Tcp(server)))
    }

    fn stdio() -> Result<Self, BackendError> {
        if STDIO_TAKEN.swap(true, Ordering::Relaxed) {
            return Err(BackendError::StdioTaken);
        }
        let failed = |error| BackendError::Io {
            path: "stdio".to_owned(),
            error,
        };
        let (stdin, stdout) = (io::stdin(), io::stdout());
        if stdin.is_terminal() {
            platform::make_raw(stdin.as_fd()).map_err(failed)?;
        }
        // Duplicates, past the buffers of std: what the guest sends is out at once.
        let input = stdin.as_fd().try_clone_to_owned().map_err(failed)?;
        let output = stdout.as_fd().try_clone_to_owned().map_err(failed)?;
        Ok(Self(Kind::Files(Files {
            name: "stdio".to_owned(),
            input: Some(input.into()),
            output: output.into(),
            broken: AtomicBool::new(false),
        })))
    }

    /// From a descriptor that is open for both.
    pub fn of_stream(name: &str, stream: OwnedFd) -> Self {
        let output = File::from(stream);
        let input = output.try_clone().ok();
        Self(Kind::Files(Files {
            name: name.to_owned(),
            input,
            output,
            broken: AtomicBool::new(false),
        }))
    }

    /// Waits for input. 0 at its end, or when it fails.
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        match &self.0 {
            Kind::Files(files) => files.read(buffer),
            Kind::Tcp(server) => server.read(buffer),
        }
    }

    /// Writes all of it, unless the backend is dead.
    pub fn write(&self, bytes: &[u8]) {
        match &self.0 {
            Kind::Files(files) => files.write(bytes),
            Kind::Tcp(server) => server.write(bytes),
        }
    }
}

impl Files {
    fn read(&self, buffer: &mut [u8]) -> usize {
        let Some(mut input) = self.input.as_ref() else {
            return 0;
        };
        loop {
            match input.read(buffer) {
                Ok(bytes) => return bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => pause(),
                Err(error) => {
                    eprintln!("bhyve: {}: no more input: {error}\r", self.name);
                    return 0;
                }
            }
        }
    }

    fn write(&self, mut bytes: &[u8]) {
        let mut output = &self.output;
        while !bytes.is_empty() {
            match output.write(bytes) {
                Ok(0) => return self.output_lost("it takes no more"),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => pause(),
                Err(error) => return self.output_lost(error),
            }
        }
    }

    fn output_lost(&self, why: impl fmt::Display) {
        if !self.broken.swap(true, Ordering::Relaxed) {
            eprintln!("bhyve: {}: output is lost: {why}\r", self.name);
        }
    }
}

/// Between two tries on a descriptor that somebody else made non-blocking.
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(spec: &str) -> String {
        match Backend::open(spec) {
            Ok(_) => panic!("{spec} is open"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        for address in [
            "tcp=localhost:5000",
            "tcp=127.0.0.1",
            "tcp=::1:5000",
            "tcp=",
        ] {
            assert!(
                refusal(address).contains("no address to listen at"),
                "{address}"
            );
        }
        assert!(refusal("guest.log").contains("'guest.log'"));
        assert!(refusal("/nonexistent/tty").starts_with("/nonexistent/tty: "));
    }

    #[test]
    fn a_plain_file_takes_output_and_gives_no_input() {
        let path = std::env::temp_dir().join(format!("bhyve-backend-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        let backend = Backend::open(path.to_str().unwrap()).unwrap();
        backend.write(b"Hello");
        assert_eq!(backend.read(&mut [0; 4]), 0);
        assert_eq!(std::fs::read(&path).unwrap(), b"Hello");
        std::fs::remove_file(&path).unwrap();
    }
}
