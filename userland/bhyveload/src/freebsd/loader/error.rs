//! What can be wrong between a volume and a kernel in memory.

#![forbid(unsafe_code)]

use std::fmt;

use super::super::image::ElfError;
use crate::fs::FsError;

/// Why there is no kernel to start, or not in the way that was asked for.
#[derive(Debug)]
pub enum FreeBsdError {
    Fs(FsError),
    Elf {
        path: String,
        error: ElfError,
    },
    /// Where a kernel was looked for.
    NoKernel {
        volume: String,
        tried: Vec<String>,
    },
    /// What has to be there for the system to have a root.
    Missing(String),
    /// A file or what tells the kernel of them all.
    NoRoom {
        what: String,
        len: u64,
        limit: u64,
    },
}

impl fmt::Display for FreeBsdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fs(error) => error.fmt(f),
            Self::Elf { path, error } => write!(f, "{path}: {error}"),
            Self::NoKernel { volume, tried } => {
                write!(
                    f,
                    "{volume} has no kernel: there is no {}",
                    tried.join(", ")
                )
            }
            Self::Missing(what) => f.write_str(what),
            Self::NoRoom { what, len, limit } => write!(
                f,
                "no room for {what} ({len} bytes): what is loaded has to lie below {limit:#x} \
                 (the guest's memory, 1 GiB at most)"
            ),
        }
    }
}

impl From<FsError> for FreeBsdError {
    fn from(error: FsError) -> Self {
        Self::Fs(error)
    }
}

/// Why a module is not loaded: something is damaged or can't be read, or it isn't there.
pub(super) enum Refused {
    Error(FreeBsdError),
    Why(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Why(why) => f.write_str(why),
        }
    }
}

impl From<FreeBsdError> for Refused {
    fn from(error: FreeBsdError) -> Self {
        Self::Error(error)
    }
}
