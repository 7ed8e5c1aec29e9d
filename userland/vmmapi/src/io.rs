//! Files read into guest memory and written from it (preadv(2), pwritev(2)), without a
//! copy in this process. What the guest does to that memory meanwhile is its own loss.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::GuestRange;

/// The most ranges that one call takes; more are left for the next one. POSIX' IOV_MAX is
/// at least that on both hosts.
pub const MAX_RANGES: usize = 1024;

/// Reads from `offset` of a file into the ranges, one after the other. The answer is how
/// many bytes there were; fewer than wanted is no error.
pub fn read_at(file: BorrowedFd<'_>, offset: u64, to: &[GuestRange]) -> io::Result<usize> {
    let (offset, iov) = prepare(offset, to)?;
    // SAFETY: prepare() made each iovec of a range that `to` keeps mapped during the call,
    // and the kernel may write to guest memory at any moment, as the guest may.
    let result = unsafe { libc::preadv(file.as_raw_fd(), iov.as_ptr(), iov.len() as _, offset) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Writes the ranges, one after the other, to `offset` of a file. The answer is how many
/// bytes it took.
pub fn write_at(file: BorrowedFd<'_>, offset: u64, from: &[GuestRange]) -> io::Result<usize> {
    let (offset, iov) = prepare(offset, from)?;
    // SAFETY: as in read_at(); the memory is only read.
    let result = unsafe { libc::pwritev(file.as_raw_fd(), iov.as_ptr(), iov.len() as _, offset) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn prepare(offset: u64, ranges: &[GuestRange]) -> io::Result<(libc::off_t, Vec<libc::iovec>)> {
    let offset =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let iov = ranges.iter().take(MAX_RANGES).map(|range| libc::iovec {
        iov_base: range.as_ptr().cast(),
        iov_len: range.len(),
    });
    Ok((offset, iov.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gpa, GuestMemory};
    use std::os::fd::AsFd;

    #[test]
    fn bytes_go_through_scattered_ranges_in_order() {
        let path = std::env::temp_dir().join(format!("vmmapi-io-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        let memory = GuestMemory::anonymous(&[(Gpa(0), 4096)]).unwrap();
        let parts = [
            memory.slice(Gpa(100), 3).unwrap(),
            memory.slice(Gpa(0), 2).unwrap(),
        ];
        assert_eq!(read_at(file.as_fd(), 4, &parts).unwrap(), 5);
        assert_eq!(parts[0].to_vec(), b"456");
        assert_eq!(parts[1].to_vec(), b"78");
        assert_eq!(read_at(file.as_fd(), 9, &parts).unwrap(), 1, "the end");
        assert_eq!(write_at(file.as_fd(), 8, &parts).unwrap(), 5);
        let mut all = [0; 13];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut all, 0).unwrap();
        assert_eq!(&all, b"0123456795678");
        assert!(read_at(file.as_fd(), u64::MAX, &parts).is_err());
    }
}
