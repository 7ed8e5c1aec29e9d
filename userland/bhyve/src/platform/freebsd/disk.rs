//! Disks of FreeBSD: fspacectl(2), and the requests of disk devices (sys/disk.h).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;

use super::super::check;
use super::super::disk::{Geometry, is_unsupported, to_off_t, unsupported};

/// A device reads and writes one piece of memory at a time.
pub const DEVICES_WANT_ONE_PIECE: bool = true;
/// What a device has deleted reads as anything.
pub const DEVICES_DELETE_TO_ZEROS: bool = false;

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
        check(unsafe { fspacectl(file.as_raw_fd(), SPACECTL_DEALLOC, &wanted, 0, &mut range) })?;
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
    match check(unsafe { libc::ioctl(fd, DIOCGSECTORSIZE, &mut sector) }) {
        // Another kind of device doesn't know the request.
        Err(error) if is_unsupported(&error) => return Ok(None),
        other => other?,
    }
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

/// FreeBSD doesn't tell how many pages of a file wait to be written.
#[cfg(test)]
pub fn unwritten_pages(_file: &File) -> Option<u64> {
    None
}
