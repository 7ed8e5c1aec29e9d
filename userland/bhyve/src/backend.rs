//! Where a console's bytes go and come from: standard input and output, a file of the host
//! (a terminal device, one end of nmdm(4), a pipe, a plain file for output only), or a
//! connection ([`tcp`]). A terminal is put into raw mode; a dead backend loses output, with
//! one line about it, and so does a terminal or a pipe as long as nobody reads at its other end.

#![forbid(unsafe_code)]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::tcp::TcpServer;
use crate::platform::{self, wait};

pub mod tcp;

/// Takes everything and gives nothing.
const NOBODY: &str = "/dev/null";

/// A guest waits for so long until somebody reads from the terminal or pipe that it writes
/// to, who may have stopped or gone.
const PATIENCE: Duration = Duration::from_secs(1);

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
    /// The guest waits for so long until somebody reads what it writes; for ever without.
    patience: Option<Duration>,
    /// For the input and for the output, if they don't block and had to be waited for.
    readable: Mutex<Option<wait::Files>>,
    writable: Mutex<Option<wait::Files>>,
    /// Nobody reads what is written. Until somebody does it goes nowhere.
    stuck: AtomicBool,
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
            // A terminal must not become bhyve's controlling one, and the open of an nmdm(4)
            // mustn't wait until somebody opens the other end.
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
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
        let files = Files::new(spec, input, file, Some(PATIENCE));
        Ok(Self(Kind::Files(files)))
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
        let files = Files::new("stdio", Some(input.into()), output.into(), None);
        Ok(Self(Kind::Files(files)))
    }

    /// From a descriptor that is open for both.
    pub fn of_stream(name: &str, stream: OwnedFd) -> Self {
        let output = File::from(stream);
        let input = output.try_clone().ok();
        Self(Kind::Files(Files::new(name, input, output, None)))
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
    /// From a descriptor for both, or one for each.
    fn new(name: &str, input: Option<File>, output: File, patience: Option<Duration>) -> Self {
        Self {
            name: name.to_owned(),
            input,
            output,
            patience,
            readable: Mutex::default(),
            writable: Mutex::default(),
            stuck: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        }
    }

    fn read(&self, buffer: &mut [u8]) -> usize {
        let Some(mut input) = self.input.as_ref() else {
            return 0;
        };
        loop {
            let why = match input.read(buffer) {
                Ok(bytes) => return bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    match wait(&self.readable, None, |files| {
                        files.add_input(input.as_fd(), 0)
                    }) {
                        Ok(_) => continue,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let (name, why) = (&self.name, cli::io_error(&why));
            eprintln!("bhyve: {name}: no more input: {why}\r");
            return 0;
        }
    }

    fn write(&self, mut bytes: &[u8]) {
        let mut output = &self.output;
        while !bytes.is_empty() {
            let why = match output.write(bytes) {
                Ok(0) => return self.output_lost("it takes no more"),
                Ok(written) => {
                    self.stuck.store(false, Ordering::Relaxed);
                    bytes = &bytes[written..];
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.stuck.load(Ordering::Relaxed) {
                        return;
                    }
                    match wait(&self.writable, self.patience, |files| {
                        files.add_output(output.as_fd(), 0)
                    }) {
                        // Nobody reads it. The guest waits once, not for each byte.
                        Ok(false) if self.patience.is_some() => {
                            self.stuck.store(true, Ordering::Relaxed);
                            continue;
                        }
                        Ok(_) => continue,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            return self.output_lost(cli::io_error(&why));
        }
    }

    fn output_lost(&self, why: impl fmt::Display) {
        if !self.broken.swap(true, Ordering::Relaxed) {
            eprintln!("bhyve: {}: output is lost: {why}\r", self.name);
        }
    }
}

/// Waits for a file that has just said EWOULDBLOCK; the first time, `add` names it. False:
/// the time is up.
fn wait(
    place: &Mutex<Option<wait::Files>>,
    limit: Option<Duration>,
    add: impl FnOnce(&wait::Files) -> io::Result<()>,
) -> io::Result<bool> {
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    let files = match &mut *place {
        Some(files) => files,
        empty => {
            let files = wait::Files::new()?;
            add(&files)?;
            empty.insert(files)
        }
    };
    Ok(files.wait(limit)?.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

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

    /// A backend that doesn't block, and its other end.
    fn of_terminal(patience: Duration) -> (Backend, UnixStream) {
        let (ours, other) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let output = File::from(OwnedFd::from(ours));
        let input = output.try_clone().unwrap();
        let files = Files::new("terminal", Some(input), output, Some(patience));
        (Backend(Kind::Files(files)), other)
    }

    #[test]
    fn input_is_waited_for() {
        let (backend, mut other) = of_terminal(PATIENCE);
        for round in 0..3 {
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let mut byte = [0];
                    (backend.read(&mut byte), byte)
                });
                other.write_all(&[round]).unwrap();
                assert_eq!(reader.join().unwrap(), (1, [round]));
            });
        }
        drop(other);
        assert_eq!(backend.read(&mut [0]), 0);
    }

    #[test]
    fn a_guest_waits_for_a_reader_but_not_for_ever() {
        let (backend, mut other) = of_terminal(Duration::from_millis(20));
        let line = [b'x'; 4096];
        // More than any socket holds: the guest goes on without a reader.
        for _ in 0..4096 {
            backend.write(&line);
        }
        // One who comes later gets what is written from then on.
        other.set_nonblocking(true).unwrap();
        let mut old = vec![0; 1 << 20];
        while other.read(&mut old).is_ok() {}
        backend.write(b"y");
        let mut byte = [0];
        other.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"y");
        // Who is slow gets all of it.
        let (backend, mut other) = of_terminal(Duration::from_secs(60));
        std::thread::scope(|scope| {
            scope.spawn(|| (0..256).for_each(|_| backend.write(&line)));
            let mut all = vec![0; 256 * line.len()];
            other.read_exact(&mut all).unwrap();
            assert!(all.iter().all(|byte| *byte == b'x'));
        });
    }
}
