//! Opening a tap interface of the host, a network card whose cable ends in a file: each
//! read is a frame that the host sent, each write one that it receives. FreeBSD has a device
//! node for each (tap(4)), Linux one for all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use super::host::tap::{HAS_NETGRAPH, open};

/// What went wrong.
#[derive(Debug)]
pub enum TapError {
    Open {
        path: PathBuf,
        error: io::Error,
    },
    /// No interface can have that name.
    Name,
    /// Of Linux: the node is there, but not the interface.
    Attach(io::Error),
    Up(io::Error),
}

pub(super) fn open_node(path: &Path) -> Result<File, TapError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| TapError::Open {
            path: path.to_owned(),
            error,
        })
}
