//! Why a card's backend can't be opened, as sentences that say what to do.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::io;

use crate::platform::slirp::{LibraryError, MAX_MTU, MIN_MTU};
use crate::platform::tap::TapError;
use crate::platform::{SLIRP_PACKAGE, TAP_HINT};

#[derive(Debug)]
pub enum NetError {
    /// A kind of bhyve's that isn't here.
    NotPart(&'static str),
    /// No kind at all.
    Unknown(String),
    Tap {
        name: String,
        error: TapError,
    },
    /// libslirp can't be opened.
    Library(LibraryError),
    /// libslirp can't have that MTU.
    SlirpMtu(u16),
    /// libslirp has refused its settings.
    Slirp,
    /// A rule of hostfwd that isn't one.
    Rule {
        rule: String,
        why: &'static str,
    },
    /// The host's port can't be listened at.
    Listen {
        rule: String,
        error: io::Error,
    },
    /// A thread or a socket for it.
    Io(io::Error),
}

impl Error for NetError {}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPart(kind) => write!(
                f,
                "the network backend {kind} is not part of this version; there are tapN, \
                 vmnetN and slirp"
            ),
            Self::Unknown(kind) => write!(
                f,
                "'{kind}' is no network backend: tapN, vmnetN or slirp is wanted"
            ),
            Self::Tap { name, error } => tap(f, name, error),
            Self::Library(error) => write!(
                f,
                "slirp needs the library libslirp.so.0 (install {SLIRP_PACKAGE}): {error}"
            ),
            Self::SlirpMtu(mtu) => write!(
                f,
                "mtu={mtu}: slirp wants a number from {MIN_MTU} to {MAX_MTU}"
            ),
            Self::Slirp => f.write_str("libslirp has refused its settings"),
            Self::Rule { rule, why } => write!(
                f,
                "hostfwd: '{rule}' {why}; tcp:127.0.0.1:2222-:22 forwards the host's port 2222 \
                 to the guest's 22"
            ),
            Self::Listen { rule, error } => {
                write!(f, "hostfwd: '{rule}': {}", cli::io_error(error))
            }
            Self::Io(error) => write!(
                f,
                "the network backend can't be started: {}",
                cli::io_error(error)
            ),
        }
    }
}

fn tap(f: &mut fmt::Formatter<'_>, name: &str, error: &TapError) -> fmt::Result {
    let why = |error: &io::Error| match error.raw_os_error() {
        Some(libc::EBUSY) => format!("{}: another program has it open", cli::io_error(error)),
        Some(libc::EPERM | libc::EACCES) => format!(
            "{}: root may use it, and whom root has given it to",
            cli::io_error(error)
        ),
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            format!("{}: {TAP_HINT}", cli::io_error(error))
        }
        _ => cli::io_error(error),
    };
    match error {
        TapError::Open { path, error } => write!(f, "{}: {}", path.display(), why(error)),
        TapError::Name => write!(f, "no interface can have the name '{name}'"),
        TapError::Attach(error) => write!(f, "the interface {name}: {}", why(error)),
        TapError::Up(error) => {
            write!(
                f,
                "the interface {name} can't be brought up: {}",
                why(error)
            )
        }
    }
}
