//! What can be wrong with a command line.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use cli::getopt;

use crate::config::ConfigError;
use crate::pci::Bdf;

/// Why a command line makes no sense.
#[derive(Debug)]
pub enum OptionError {
    /// The message of getopt(3), and the usage.
    Getopt(String),
    /// The usage alone: there is no VM name, or there are two.
    Usage,
    /// "invalid ‹what› '‹text›'".
    Invalid {
        what: &'static str,
        text: String,
        why: Option<String>,
    },
    /// A value of -n that is none.
    Value {
        key: &'static str,
        text: String,
    },
    /// -n without ACPI.
    NumaWithoutAcpi,
    /// The part before the device in -s.
    Slot {
        text: String,
        why: &'static str,
    },
    SlotTaken(Bdf),
    UnknownDevice {
        at: Bdf,
        name: String,
    },
    /// What stands behind the device in -s.
    Device {
        text: String,
        error: String,
    },
    Config(ConfigError),
    /// A configuration file that can't be read.
    File {
        path: String,
        error: io::Error,
    },
    /// A line of one.
    Line {
        path: String,
        line: usize,
        text: String,
        why: String,
    },
    /// [`VARIABLE`](super::compat::VARIABLE) in the environment.
    Year {
        place: String,
        text: String,
    },
    NotYet(&'static str),
}

impl OptionError {
    /// The exit code that bhyve(8) has for it: 1 with the usage, EX_USAGE for options that
    /// are malformed, 4 else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Getopt(_) | Self::Usage => 1,
            Self::Invalid { .. } | Self::NumaWithoutAcpi | Self::Year { .. } => 64,
            Self::Value { .. }
            | Self::Slot { .. }
            | Self::SlotTaken(_)
            | Self::UnknownDevice { .. }
            | Self::Device { .. }
            | Self::Config(_)
            | Self::File { .. }
            | Self::Line { .. }
            | Self::NotYet(_) => 4,
        }
    }

    /// Whether the usage follows the message.
    pub fn shows_usage(&self) -> bool {
        matches!(self, Self::Getopt(_) | Self::Usage)
    }
}

impl std::error::Error for OptionError {}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Getopt(message) => f.write_str(message),
            Self::Usage => f.write_str(
                "one VM name is wanted, behind the options or as the variable name (-k, -o)",
            ),
            Self::Invalid { what, text, why } => {
                write!(f, "invalid {what} '{text}'")?;
                why.iter().try_for_each(|why| write!(f, ": {why}"))
            }
            Self::Value { key, text } => write!(f, "Invalid value for {key}: '{text}'"),
            Self::NumaWithoutAcpi => f.write_str("NUMA emulation requires ACPI"),
            Self::Slot { text, why } => write!(f, "Invalid PCI slot info field \"{text}\": {why}"),
            Self::SlotTaken(at) => write!(f, "pci slot {at} already occupied!"),
            Self::UnknownDevice { at, name } => write!(
                f,
                "pci slot {at}: unknown device \"{name}\" (-s help lists those there are)"
            ),
            Self::Device { text, error } => write!(f, "-s {text}: {error}"),
            Self::Config(error) => error.fmt(f),
            Self::File { path, error } => write!(
                f,
                "Failed to open configuration file {path}: {}",
                cli::io_error(error)
            ),
            Self::Line {
                path,
                line,
                text,
                why,
            } => write!(
                f,
                "{path} line {line}: invalid config option '{text}': {why}"
            ),
            Self::Year { place, text } => write!(
                f,
                "{place}={text}: the year whose options are meant is 2013 or 2025"
            ),
            Self::NotYet(what) => write!(f, "{what} is not part of this version"),
        }
    }
}

impl From<getopt::Error> for OptionError {
    fn from(error: getopt::Error) -> Self {
        Self::Getopt(error.to_string())
    }
}

impl From<ConfigError> for OptionError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
