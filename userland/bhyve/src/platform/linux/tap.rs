//! Taps of Linux: one device node for all of them (drivers/net/tun.c).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::super::check;
use super::super::tap::{TapError, open_node};

pub const HAS_NETGRAPH: bool = false;

/// struct ifreq of linux/if.h, of whose union the flags are used.
#[repr(C)]
struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Attaches to the interface, which is made if there is none of that name, and brings
/// it up if `up`.
pub fn open(name: &str, up: bool) -> Result<File, TapError> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(TapError::Name);
    }
    let mut request = IfReq {
        name: [0; libc::IFNAMSIZ],
        flags: (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short,
        rest: [0; 22],
    };
    for (to, from) in request.name.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let file = open_node(Path::new("/dev/net/tun"))?;
    // SAFETY: reads and writes a struct ifreq, of which `request` has the size.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })
        .map_err(TapError::Attach)?;
    if up {
        bring_up(&mut request).map_err(TapError::Up)?;
    }
    Ok(file)
}

fn bring_up(request: &mut IfReq) -> io::Result<()> {
    // SAFETY: integers only; a new descriptor, which nobody else owns.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(fd)?;
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: both requests work on a struct ifreq.
    unsafe {
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCGIFFLAGS as _,
            &mut *request,
        ))?;
        let up = libc::IFF_UP as libc::c_short;
        if request.flags & up != 0 {
            return Ok(());
        }
        request.flags |= up;
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &mut *request,
        ))
    }
}
