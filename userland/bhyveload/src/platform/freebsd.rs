//! FreeBSD: O_RESOLVE_BENEATH of open(2), and the system's own loader.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, Result};

/// The system comes with /boot/userboot.so.
pub const HAS_USERBOOT: bool = true;

/// Opens what `path` names, if that is beneath the directory.
pub fn open_beneath(dir: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd> {
    openat(dir, path, flags | OFlags::RESOLVE_BENEATH, Mode::empty())
}

/// Whether [`open_beneath`] has failed because it is not beneath it.
pub fn is_outside(error: Errno) -> bool {
    error == Errno::NOTCAPABLE
}
