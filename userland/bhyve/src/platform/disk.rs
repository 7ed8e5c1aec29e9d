//! The host's calls about disks that std has no form of: holes in files, the sizes of disk
//! devices, their caches. What a host hasn't got is EOPNOTSUPP.

use std::fs::File;
use std::io;

use super::check;

pub use host::{can_deallocate, deallocate, device_geometry, flush_device, zero_range};

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

fn unsupported() -> io::Error {
    io::Error::from_raw_os_error(libc::EOPNOTSUPP)
}

fn to_off_t(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

#[cfg(target_os = "linux")]
mod host {
    use super::{File, Geometry, check, io, to_off_t, unsupported};
    use std::io::{Seek, SeekFrom};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileTypeExt;

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
}

#[cfg(target_os = "freebsd")]
mod host {
    use super::{File, Geometry, check, io, to_off_t, unsupported};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileTypeExt;

    /// struct spacectl_range of sys/fcntl.h.
    #[repr(C)]
    struct SpacectlRange {
        offset: libc::off_t,
        len: libc::off_t,
    }

    /// struct diocgattr_arg of sys/disk.h.
    #[repr(C)]
    struct DiocgattrArg {
        name: [u8; 64],
        len: libc::c_int,
        /// A union, of which an int is read.
        value: [u64; 32],
    }

    const SPACECTL_DEALLOC: libc::c_int = 1;
    const PC_DEALLOC_PRESENT: libc::c_int = 65;

    const fn request(dir: u64, number: u64, size: usize) -> libc::c_ulong {
        dir | (size as u64) << 16 | (b'd' as u64) << 8 | number
    }
    const VOID: u64 = 0x2000_0000;
    const OUT: u64 = 0x4000_0000;
    const IN: u64 = 0x8000_0000;
    const DIOCGSECTORSIZE: libc::c_ulong = request(OUT, 128, size_of::<libc::c_uint>());
    const DIOCGMEDIASIZE: libc::c_ulong = request(OUT, 129, size_of::<libc::off_t>());
    const DIOCGFLUSH: libc::c_ulong = request(VOID, 135, 0);
    const DIOCGDELETE: libc::c_ulong = request(IN, 136, size_of::<[libc::off_t; 2]>());
    const DIOCGSTRIPESIZE: libc::c_ulong = request(OUT, 139, size_of::<libc::off_t>());
    const DIOCGSTRIPEOFFSET: libc::c_ulong = request(OUT, 140, size_of::<libc::off_t>());
    const DIOCGATTR: libc::c_ulong = request(IN | OUT, 142, size_of::<DiocgattrArg>());

    unsafe extern "C" {
        fn fspacectl(
            fd: libc::c_int,
            command: libc::c_int,
            range: *const SpacectlRange,
            flags: libc::c_int,
            rest: *mut SpacectlRange,
        ) -> libc::c_int;
    }

    fn is_device(file: &File) -> io::Result<bool> {
        Ok(file.metadata()?.file_type().is_char_device())
    }

    /// Gives the space of a run of bytes back. In a file it reads as zeros then, on a
    /// device as anything.
    pub fn deallocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
        let mut range = SpacectlRange {
            offset: to_off_t(offset)?,
            len: to_off_t(len)?,
        };
        if is_device(file)? {
            let mut run = [range.offset, range.len];
            // SAFETY: the request reads two off_t.
            return check(unsafe { libc::ioctl(file.as_raw_fd(), DIOCGDELETE, &mut run) });
        }
        while range.len > 0 {
            let wanted = SpacectlRange { ..range };
            // SAFETY: reads one range and stores what is left of it in the other one.
            check(unsafe {
                fspacectl(file.as_raw_fd(), SPACECTL_DEALLOC, &wanted, 0, &mut range)
            })?;
        }
        Ok(())
    }

    /// FreeBSD has nothing that keeps the space.
    pub fn zero_range(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
        Err(unsupported())
    }

    /// Whether the file system deallocates by itself, instead of writing zeros.
    pub fn can_deallocate(file: &File, _size: u64) -> bool {
        // SAFETY: integers only.
        unsafe { libc::fpathconf(file.as_raw_fd(), PC_DEALLOC_PRESENT) == 1 }
    }

    /// Of a disk device; `None` if the file is something else.
    pub fn device_geometry(file: &File) -> io::Result<Option<Geometry>> {
        if !is_device(file)? {
            return Ok(None);
        }
        let fd = file.as_raw_fd();
        let bytes = |request: libc::c_ulong| {
            let mut bytes: libc::off_t = 0;
            // SAFETY: the requests used with this store an off_t.
            check(unsafe { libc::ioctl(fd, request, &mut bytes) })?;
            u64::try_from(bytes).map_err(|_| unsupported())
        };
        let mut sector: libc::c_uint = 0;
        // SAFETY: the request stores an unsigned int.
        check(unsafe { libc::ioctl(fd, DIOCGSECTORSIZE, &mut sector) })?;
        Ok(Some(Geometry {
            size: bytes(DIOCGMEDIASIZE)?,
            sector,
            physical: bytes(DIOCGSTRIPESIZE).unwrap_or(0),
            physical_offset: bytes(DIOCGSTRIPEOFFSET).unwrap_or(0),
            can_delete: can_delete(fd),
        }))
    }

    fn can_delete(fd: libc::c_int) -> bool {
        let mut arg = DiocgattrArg {
            name: [0; 64],
            len: size_of::<libc::c_int>() as libc::c_int,
            value: [0; 32],
        };
        let name = b"GEOM::candelete";
        arg.name[..name.len()].copy_from_slice(name);
        // SAFETY: the request reads and stores the structure, whose size is in its number.
        let known = check(unsafe { libc::ioctl(fd, DIOCGATTR, &mut arg) }).is_ok();
        known && arg.value[0] as libc::c_int != 0
    }

    /// Empties the device's cache.
    pub fn flush_device(file: &File) -> io::Result<()> {
        // SAFETY: the request has no parameter.
        check(unsafe { libc::ioctl(file.as_raw_fd(), DIOCGFLUSH) })
    }
}

/// How many pages of a file wait to be written to the disk; `None` where the host doesn't
/// tell (Linux before 6.5, FreeBSD).
#[cfg(test)]
pub fn unwritten_pages(file: &File) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;

        /// The same on all architectures.
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
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        None
    }
}
