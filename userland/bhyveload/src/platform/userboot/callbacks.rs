//! The functions that userboot.so calls, in the layout of struct loader_callbacks: each takes
//! C's arguments apart and calls the [`Loader`](super::Loader).

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};

use super::{Errno, Whence, with};

/// struct stat of FreeBSD 12 and later: userboot.so is FreeBSD's, whatever the host is.
#[repr(C)]
struct FreeBsdStat {
    dev: u64,
    ino: u64,
    nlink: u64,
    mode: u16,
    bsdflags: i16,
    uid: u32,
    gid: u32,
    padding: i32,
    rdev: u64,
    atime: [i64; 2],
    mtime: [i64; 2],
    ctime: [i64; 2],
    birthtime: [i64; 2],
    size: i64,
    blocks: i64,
    blksize: i32,
    flags: u32,
    generation: u64,
    filerev: u64,
    spare: [u64; 9],
}

const _: () = assert!(size_of::<FreeBsdStat>() == 224);

/// struct loader_callbacks.
#[repr(C)]
pub(super) struct Callbacks {
    getc: extern "C" fn(*mut c_void) -> c_int,
    putc: extern "C" fn(*mut c_void, c_int),
    poll: extern "C" fn(*mut c_void) -> c_int,
    open: unsafe extern "C" fn(*mut c_void, *const c_char, *mut *mut c_void) -> c_int,
    close: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
    isdir: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
    read: unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void, usize, *mut usize) -> c_int,
    readdir: unsafe extern "C" fn(
        *mut c_void,
        *mut c_void,
        *mut u32,
        *mut u8,
        *mut usize,
        *mut c_char,
    ) -> c_int,
    seek: extern "C" fn(*mut c_void, *mut c_void, u64, c_int) -> c_int,
    stat: unsafe extern "C" fn(*mut c_void, *mut c_void, *mut FreeBsdStat) -> c_int,
    diskread:
        unsafe extern "C" fn(*mut c_void, c_int, u64, *mut c_void, usize, *mut usize) -> c_int,
    diskwrite:
        unsafe extern "C" fn(*mut c_void, c_int, u64, *const c_void, usize, *mut usize) -> c_int,
    copyin: unsafe extern "C" fn(*mut c_void, *const c_void, u64, usize) -> c_int,
    copyout: unsafe extern "C" fn(*mut c_void, u64, *mut c_void, usize) -> c_int,
    setreg: extern "C" fn(*mut c_void, c_int, u64),
    setmsr: extern "C" fn(*mut c_void, c_int, u64),
    setcr: extern "C" fn(*mut c_void, c_int, u64),
    setgdt: extern "C" fn(*mut c_void, u64, usize),
    exec: extern "C" fn(*mut c_void, u64),
    delay: extern "C" fn(*mut c_void, c_int),
    exit: extern "C" fn(*mut c_void, c_int),
    getmem: unsafe extern "C" fn(*mut c_void, *mut u64, *mut u64),
    diskioctl: unsafe extern "C" fn(*mut c_void, c_int, c_ulong, *mut c_void) -> c_int,
    getenv: extern "C" fn(*mut c_void, c_int) -> *const c_char,
    vm_set_register: extern "C" fn(*mut c_void, c_int, c_int, u64) -> c_int,
    vm_set_desc: extern "C" fn(*mut c_void, c_int, c_int, u64, c_uint, c_uint) -> c_int,
    swap_interpreter: unsafe extern "C" fn(*mut c_void, *const c_char),
}

pub(super) static CALLBACKS: Callbacks = Callbacks {
    getc,
    putc,
    poll,
    open,
    close,
    isdir,
    read,
    readdir,
    seek,
    stat,
    diskread,
    diskwrite,
    copyin,
    copyout,
    setreg,
    setmsr,
    setcr,
    setgdt,
    exec,
    delay,
    exit,
    getmem,
    diskioctl,
    getenv,
    vm_set_register,
    vm_set_desc,
    swap_interpreter,
};

/// Errors as their number, success as 0.
fn status(result: Result<(), Errno>) -> c_int {
    result.err().unwrap_or(0)
}

/// A handle is the file's number and one, so that none is NULL.
fn number(handle: *mut c_void) -> usize {
    (handle as usize).wrapping_sub(1)
}

/// # Safety
///
/// `ptr` points to `size` bytes that nobody else uses during the call, or `size` is 0.
unsafe fn bytes_mut<'a>(ptr: *mut c_void, size: usize) -> &'a mut [u8] {
    if size == 0 || ptr.is_null() {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(ptr.cast(), size) }
}

/// # Safety
///
/// `ptr` points to `size` bytes that nobody changes during the call, or `size` is 0.
unsafe fn bytes<'a>(ptr: *const c_void, size: usize) -> &'a [u8] {
    if size == 0 || ptr.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(ptr.cast(), size) }
}

/// # Safety
///
/// `text` is NULL or a C string.
unsafe fn text<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return b"";
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

/// # Safety
///
/// `to` is NULL or points to a T that nobody else uses during the call.
unsafe fn store<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: the caller's promise; C may not have aligned it.
        unsafe { to.write_unaligned(value) };
    }
}

extern "C" fn getc(_: *mut c_void) -> c_int {
    with(|loader| loader.getc()).map_or(-1, c_int::from)
}

extern "C" fn putc(_: *mut c_void, ch: c_int) {
    with(|loader| loader.putc(ch as u8));
}

extern "C" fn poll(_: *mut c_void) -> c_int {
    with(|loader| loader.poll()).into()
}

/// # Safety
///
/// As the interface says: a path, and a place for the handle.
unsafe extern "C" fn open(_: *mut c_void, path: *const c_char, handle: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let path = unsafe { text(path) };
    match with(|loader| loader.open(path)) {
        Ok(file) => {
            // SAFETY: the caller's promise.
            unsafe {
                store(
                    handle,
                    std::ptr::without_provenance_mut(file.wrapping_add(1)),
                )
            };
            0
        }
        Err(errno) => errno,
    }
}

extern "C" fn close(_: *mut c_void, handle: *mut c_void) -> c_int {
    status(with(|loader| loader.close(number(handle))))
}

extern "C" fn isdir(_: *mut c_void, handle: *mut c_void) -> c_int {
    with(|loader| loader.is_directory(number(handle))).into()
}

/// # Safety
///
/// As the interface says: a buffer of `size` bytes, and a place for what is left of them.
unsafe extern "C" fn read(
    _: *mut c_void,
    handle: *mut c_void,
    buf: *mut c_void,
    size: usize,
    left: *mut usize,
) -> c_int {
    // SAFETY: the caller's promise.
    let buf = unsafe { bytes_mut(buf, size) };
    let result = with(|loader| loader.read(number(handle), buf));
    // SAFETY: the caller's promise.
    unsafe { transferred(result, size, left) }
}

/// The end of a transfer: what is left of `size` bytes.
///
/// # Safety
///
/// `left` is NULL or a place for it.
unsafe fn transferred(result: Result<usize, Errno>, size: usize, left: *mut usize) -> c_int {
    match result {
        Ok(done) => {
            // SAFETY: the caller's promise.
            unsafe { store(left, size.saturating_sub(done)) };
            0
        }
        Err(errno) => errno,
    }
}

/// # Safety
///
/// As the interface says: places for the fields, and PATH_MAX bytes for the name.
unsafe extern "C" fn readdir(
    _: *mut c_void,
    handle: *mut c_void,
    inode: *mut u32,
    kind: *mut u8,
    len: *mut usize,
    name: *mut c_char,
) -> c_int {
    let entry = match with(|loader| loader.read_directory(number(handle))) {
        Ok(entry) if entry.name.len() <= 255 => entry,
        Ok(_) => return libc::ENAMETOOLONG,
        Err(errno) => return errno,
    };
    // SAFETY: the caller's promise; the name and its NUL take 256 bytes at most.
    unsafe {
        store(inode, entry.inode);
        store(kind, entry.kind);
        store(len, entry.name.len());
        let to = bytes_mut(name.cast(), entry.name.len() + 1);
        if let Some((end, text)) = to.split_last_mut() {
            text.copy_from_slice(&entry.name);
            *end = 0;
        }
    }
    0
}

extern "C" fn seek(_: *mut c_void, handle: *mut c_void, offset: u64, whence: c_int) -> c_int {
    let whence = match whence {
        0 => Whence::Start,
        1 => Whence::Current,
        2 => Whence::End,
        _ => return libc::EINVAL,
    };
    status(with(|loader| {
        loader.seek(number(handle), offset as i64, whence)
    }))
}

/// # Safety
///
/// As the interface says: a place for a struct stat.
unsafe extern "C" fn stat(_: *mut c_void, handle: *mut c_void, to: *mut FreeBsdStat) -> c_int {
    let found = match with(|loader| loader.stat(number(handle))) {
        Ok(found) => found,
        Err(errno) => return errno,
    };
    let all = FreeBsdStat {
        dev: found.device,
        ino: found.inode,
        nlink: 0,
        // Types and permissions are 16 bits everywhere.
        mode: found.mode as u16,
        bsdflags: 0,
        uid: found.uid,
        gid: found.gid,
        padding: 0,
        rdev: 0,
        atime: [0; 2],
        mtime: [found.modified, 0],
        ctime: [0; 2],
        birthtime: [0; 2],
        size: found.size,
        blocks: 0,
        blksize: 0,
        flags: 0,
        generation: 0,
        filerev: 0,
        spare: [0; 9],
    };
    // SAFETY: the caller's promise.
    unsafe { store(to, all) };
    0
}

/// # Safety
///
/// As for [`read`].
unsafe extern "C" fn diskread(
    _: *mut c_void,
    unit: c_int,
    offset: u64,
    buf: *mut c_void,
    size: usize,
    left: *mut usize,
) -> c_int {
    // SAFETY: the caller's promise.
    let buf = unsafe { bytes_mut(buf, size) };
    let result = with(|loader| loader.disk_read(unit, offset, buf));
    // SAFETY: the caller's promise.
    unsafe { transferred(result, size, left) }
}

/// # Safety
///
/// As for [`read`].
unsafe extern "C" fn diskwrite(
    _: *mut c_void,
    unit: c_int,
    offset: u64,
    buf: *const c_void,
    size: usize,
    left: *mut usize,
) -> c_int {
    // SAFETY: the caller's promise.
    let buf = unsafe { bytes(buf, size) };
    let result = with(|loader| loader.disk_write(unit, offset, buf));
    // SAFETY: the caller's promise.
    unsafe { transferred(result, size, left) }
}

/// # Safety
///
/// As the interface says: `size` bytes at `from`.
unsafe extern "C" fn copyin(_: *mut c_void, from: *const c_void, to: u64, size: usize) -> c_int {
    // SAFETY: the caller's promise.
    let from = unsafe { bytes(from, size) };
    status(with(|loader| loader.copy_in(from, to)))
}

/// # Safety
///
/// As the interface says: `size` bytes at `to`.
unsafe extern "C" fn copyout(_: *mut c_void, from: u64, to: *mut c_void, size: usize) -> c_int {
    // SAFETY: the caller's promise.
    let to = unsafe { bytes_mut(to, size) };
    status(with(|loader| loader.copy_out(from, to)))
}

extern "C" fn setreg(_: *mut c_void, number: c_int, value: u64) {
    with(|loader| loader.set_reg(number, value));
}

extern "C" fn setmsr(_: *mut c_void, number: c_int, value: u64) {
    with(|loader| loader.set_msr(number, value));
}

extern "C" fn setcr(_: *mut c_void, number: c_int, value: u64) {
    with(|loader| loader.set_cr(number, value));
}

extern "C" fn setgdt(_: *mut c_void, base: u64, size: usize) {
    with(|loader| loader.set_gdt(base, size as u64));
}

extern "C" fn exec(_: *mut c_void, entry: u64) {
    with(|loader| loader.exec(entry));
}

extern "C" fn delay(_: *mut c_void, microseconds: c_int) {
    with(|loader| loader.delay(u64::try_from(microseconds).unwrap_or(0)));
}

extern "C" fn exit(_: *mut c_void, code: c_int) {
    with(|loader| loader.exit(code));
}

/// # Safety
///
/// As the interface says: places for both sizes.
unsafe extern "C" fn getmem(_: *mut c_void, low: *mut u64, high: *mut u64) {
    let (lowmem, highmem) = with(|loader| loader.memory());
    // SAFETY: the caller's promise.
    unsafe {
        store(low, lowmem);
        store(high, highmem);
    }
}

/// DIOCGSECTORSIZE and DIOCGMEDIASIZE of FreeBSD's sys/disk.h.
const SECTOR_SIZE: c_ulong = 0x4004_6480;
const MEDIA_SIZE: c_ulong = 0x4008_6481;

/// # Safety
///
/// As the interface says: a place for what the request gives.
unsafe extern "C" fn diskioctl(
    _: *mut c_void,
    unit: c_int,
    request: c_ulong,
    data: *mut c_void,
) -> c_int {
    let size = match with(|loader| loader.disk_size(unit)) {
        Ok(size) => size,
        Err(errno) => return errno,
    };
    match request {
        // SAFETY: the caller's promise: a u_int.
        SECTOR_SIZE => unsafe { store(data.cast::<c_uint>(), 512) },
        // SAFETY: the caller's promise: an off_t.
        MEDIA_SIZE => unsafe { store(data.cast::<c_long>(), size as c_long) },
        _ => return libc::ENOTTY,
    }
    0
}

extern "C" fn getenv(_: *mut c_void, number: c_int) -> *const c_char {
    with(|loader| {
        let number = usize::try_from(number).ok();
        let variable = number.and_then(|number| loader.variable(number));
        variable.map_or(std::ptr::null(), CStr::as_ptr)
    })
}

extern "C" fn vm_set_register(_: *mut c_void, vcpu: c_int, number: c_int, value: u64) -> c_int {
    status(with(|loader| loader.set_register(vcpu, number, value)))
}

extern "C" fn vm_set_desc(
    _: *mut c_void,
    vcpu: c_int,
    number: c_int,
    base: u64,
    limit: c_uint,
    access: c_uint,
) -> c_int {
    status(with(|loader| {
        loader.set_desc(vcpu, number, base, limit, access)
    }))
}

/// # Safety
///
/// As the interface says: NULL or a name.
unsafe extern "C" fn swap_interpreter(_: *mut c_void, name: *const c_char) {
    // SAFETY: the caller's promise.
    let name = unsafe { text(name) };
    with(|loader| loader.swap_interpreter(name));
}
