//! Taps of FreeBSD: each has a device node (tap(4), vmnet(4), ng_device(4)).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::super::check;
use super::super::tap::{TapError, open_node};

/// A node of netgraph(4) with a device is used as a tap is.
pub const HAS_NETGRAPH: bool = true;

/// `_IOWINT('V', 0)` of net/if_tap.h: the interface's flags.
const VMIO_SIOCSIFFLAGS: libc::c_ulong = 0x2004_5600;

/// Opens `/dev/name`, which makes the interface where the host lets it, and brings it
/// up if `up`.
pub fn open(name: &str, up: bool) -> Result<File, TapError> {
    let file = open_node(&Path::new("/dev").join(name))?;
    if up {
        // SAFETY: the request takes an int.
        check(unsafe { libc::ioctl(file.as_raw_fd(), VMIO_SIOCSIFFLAGS, libc::IFF_UP) })
            .map_err(TapError::Up)?;
    }
    Ok(file)
}
