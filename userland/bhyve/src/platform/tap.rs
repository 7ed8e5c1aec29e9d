//! Opening a tap interface of the host, a network card whose cable ends in a file: each
//! read is a frame that the host sent, each write one that it receives. FreeBSD has a device
//! node for each (tap(4)), Linux one for all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::check;

pub use host::open;

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

fn open_node(path: &Path) -> Result<File, TapError> {
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

#[cfg(target_os = "freebsd")]
mod host {
    use super::{AsRawFd, File, Path, TapError, check, open_node};

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
}

#[cfg(target_os = "linux")]
mod host {
    use super::{AsRawFd, File, Path, TapError, check, io, open_node};
    use std::os::fd::{FromRawFd, OwnedFd};

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
}
