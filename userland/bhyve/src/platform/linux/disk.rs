//! Disks of Linux: fallocate(2), and the requests of block devices (linux/fs.h).

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;

use super::super::check;
use super::super::disk::{Geometry, to_off_t, unsupported};

/// A device reads and writes any pieces of memory.
pub const DEVICES_WANT_ONE_PIECE: bool = false;
/// What a device has deleted reads as zeros.
pub const DEVICES_DELETE_TO_ZEROS: bool = true;

const BLKSSZGET: libc::c_ulong = 0x1268;
const BLKPBSZGET: libc::c_ulong = 0x127b;

fn fallocate(file: &File, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (to_off_t(offset)?, to_off_t(len)?);
    let mode = mode | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: integers only.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) })
}

/// Gives the space of a run of bytes back; it reads as zeros then.
pub fn deallocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
    fallocate(file, libc::FALLOC_FL_PUNCH_HOLE, offset, len)
}

/// Makes a run of bytes read as zeros, with its space kept.
pub fn zero_range(file: &File, offset: u64, len: u64) -> io::Result<()> {
    fallocate(file, libc::FALLOC_FL_ZERO_RANGE, offset, len)
}

/// Whether [`deallocate`] works on a plain file that is open for writing, which is
/// `size` bytes long: tried behind its end, where there is nothing to lose.
pub fn can_deallocate(file: &File, size: u64) -> bool {
    size.checked_next_multiple_of(4096)
        .is_some_and(|end| deallocate(file, end, 4096).is_ok())
}

/// Of a block device; `None` if the file is something else.
pub fn device_geometry(file: &File) -> io::Result<Option<Geometry>> {
    if !file.metadata()?.file_type().is_block_device() {
        return Ok(None);
    }
    let size = (&mut &*file).seek(SeekFrom::End(0))?;
    let number = |request: libc::c_ulong| {
        let mut number: libc::c_int = 0;
        // SAFETY: both requests store an int.
        check(unsafe { libc::ioctl(file.as_raw_fd(), request as _, &mut number) })?;
        u32::try_from(number).map_err(|_| unsupported())
    };
    Ok(Some(Geometry {
        size,
        sector: number(BLKSSZGET)?,
        physical: number(BLKPBSZGET).map_or(0, u64::from),
        physical_offset: 0,
        // The device's answer to the first request tells.
        can_delete: true,
    }))
}

/// fdatasync(2) empties a device's cache, too.
pub fn flush_device(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// How many pages of a file wait to be written to the disk; `None` before Linux 6.5.
#[cfg(test)]
pub fn unwritten_pages(file: &File) -> Option<u64> {
    /// cachestat(2), the same on all architectures.
    const SYS_CACHESTAT: libc::c_long = 451;
    let range = [0_u64; 2];
    // struct cachestat: cached, dirty, under writeback, evicted, recently evicted.
    let mut pages = [0_u64; 5];
    // SAFETY: reads two integers, stores five.
    let result = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            range.as_ptr(),
            pages.as_mut_ptr(),
            0,
        )
    };
    let [_, dirty, writeback, ..] = pages;
    (result == 0).then_some(dirty + writeback)
}
