//! What can be wrong with a file system, a disk or a path.

use std::fmt;
use std::io;

#[derive(Debug)]
pub enum FsError {
    /// The host can't read it.
    Io {
        what: String,
        error: io::Error,
    },
    /// Its own bytes contradict each other: `what` is a file ("disk0p2:/boot/loader.conf"),
    /// a partition or a disk.
    Damaged {
        what: String,
        why: String,
    },
    /// A directory, a device …: not what can be read as a file.
    NotAFile {
        path: String,
    },
    /// Not what can be listed.
    NotADirectory {
        path: String,
    },
    TooLarge {
        path: String,
        size: u64,
        limit: u64,
    },
    /// A path or a symbolic link leads out of the host's directory.
    Outside {
        path: String,
        root: String,
    },
    /// More symbolic links than any path needs.
    Symlinks {
        path: String,
    },
    /// A disk without a file system that can be read here; what is there instead.
    NoFileSystem {
        disk: String,
        found: Vec<String>,
    },
}

impl FsError {
    pub(crate) fn io(what: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self::Io {
            what: what.into(),
            error: error.into(),
        }
    }

    pub(crate) fn damaged(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Damaged {
            what: what.into(),
            why: why.into(),
        }
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, error } => write!(f, "{what}: {}", cli::io_error(error)),
            Self::Damaged { what, why } => write!(f, "{what} is damaged: {why}"),
            Self::NotAFile { path } => write!(f, "{path} is not a regular file"),
            Self::NotADirectory { path } => write!(f, "{path} is not a directory"),
            Self::TooLarge { path, size, limit } => {
                write!(f, "{path} has {size} bytes, more than the {limit} that fit")
            }
            Self::Outside { path, root } => {
                write!(f, "{path} leads out of {root}; nothing outside is read")
            }
            Self::Symlinks { path } => write!(f, "{path}: too many symbolic links"),
            Self::NoFileSystem { disk, found } => {
                let found = found.join("; ");
                write!(f, "{disk} has neither UFS nor ISO 9660: {found}")?;
                if found.to_ascii_lowercase().contains("zfs") {
                    f.write_str(" (ZFS is read by FreeBSD's own loader only: -l userboot.so)")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for FsError {}
