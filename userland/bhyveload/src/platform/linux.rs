//! Linux: RESOLVE_BENEATH of openat2(2).

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, Result};

/// A loader must be named by -l.
pub const HAS_USERBOOT: bool = false;

/// Opens what `path` names, if that is beneath the directory.
pub fn open_beneath(dir: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(dir, path, flags, Mode::empty(), resolve)
}

/// Whether [`open_beneath`] has failed because it is not beneath it.
pub fn is_outside(error: Errno) -> bool {
    error == Errno::XDEV
}
