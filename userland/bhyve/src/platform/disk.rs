//! The host's calls about disks that std has no form of: holes in files, the sizes of disk
//! devices, their caches. What a host hasn't got is EOPNOTSUPP.

use std::io;

#[cfg(test)]
pub use super::host::disk::unwritten_pages;
pub use super::host::disk::{
    DEVICES_DELETE_TO_ZEROS, DEVICES_WANT_ONE_PIECE, can_deallocate, deallocate, device_geometry,
    flush_device, zero_range,
};

/// What a disk device says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Bytes.
    pub size: u64,
    /// Bytes of a logical sector.
    pub sector: u32,
    /// Bytes of a physical sector (a stripe), and where the first one begins; 0 if unknown.
    pub physical: u64,
    pub physical_offset: u64,
    pub can_delete: bool,
}

/// Whether an error says that the host or the file system can't do this at all.
pub fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| {
        // ENOTSUP is the same number as EOPNOTSUPP on both hosts.
        errno == libc::EOPNOTSUPP || errno == libc::ENOSYS || errno == libc::ENOTTY
    })
}

pub(super) fn unsupported() -> io::Error {
    io::Error::from_raw_os_error(libc::EOPNOTSUPP)
}

pub(super) fn to_off_t(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}
