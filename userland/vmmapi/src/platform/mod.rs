//! The system calls themselves: opening the devices, creating and destroying VMs, ioctl(2)
//! and mmap(2). FreeBSD 15 and Linux have /dev/vmmctl; FreeBSD 14 has the sysctls
//! hw.vmm.create and hw.vmm.destroy instead. What else differs between the two hosts is in
//! `freebsd` and `linux`, which have the same functions and constants.
//!
//! Functions here fail with a bare errno; the callers know what they were about.

use std::ffi::{CStr, CString, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use vmm_sys::ioctl::{Dir, Ioctl, VMMCTL_VM_CREATE, VMMCTL_VM_DESTROY};

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
use freebsd as host;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as host;

pub(crate) use host::LOAD_HINT;

/// An errno in the host's numbers.
pub(crate) type Errno = i32;

fn last_errno() -> Errno {
    std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

/// Parameter structures without pointers, in which each bit pattern is a value.
///
/// # Safety
///
/// That is what an implementation promises: the kernel may read and write any byte of it
/// and finds no address there.
pub(crate) unsafe trait Plain {}

macro_rules! plain {
    ($($name:ident)*) => {
        // SAFETY: structures of machine/vmm_dev.h made of integers only.
        $(unsafe impl Plain for vmm_sys::$name {})*
    };
}

plain! {
    vm_activate_cpu vm_capability vm_cpu_topology vm_exception vm_gla2gpa vm_gpa_pte vm_hpet_cap
    vm_intinfo vm_ioapic_irq vm_isa_irq vm_isa_irq_trigger vm_lapic_irq vm_lapic_msi vm_memmap
    vm_memseg_14 vm_munmap vm_nmi vm_pptdev vm_pptdev_mmio vm_pptdev_msi vm_pptdev_msix
    vm_readwrite_kernemu_device vm_register vm_rtc_data vm_rtc_time vm_seg_desc vm_stat_desc
    vm_stats vm_suspend vm_x2apic vmmctl_vm_create vmmctl_vm_destroy
}

// SAFETY: an integer.
unsafe impl Plain for i32 {}

/// ioctl(2) with a structure that has no pointers.
///
/// # Panics
///
/// If the structure isn't the request's: its size differs.
pub(crate) fn ioctl<T: Plain>(fd: &OwnedFd, request: Ioctl, param: &mut T) -> Result<(), Errno> {
    // SAFETY: T is Plain, and ioctl_ptr() compares the sizes.
    unsafe { ioctl_ptr(fd, request, param) }
}

/// ioctl(2) without a parameter (`_IO`).
pub(crate) fn ioctl_void(fd: &OwnedFd, request: Ioctl) -> Result<(), Errno> {
    assert_eq!((request.dir, request.size), (Dir::Void, 0));
    // SAFETY: the request has no parameter: the kernel ignores the pointer.
    unsafe { ioctl_raw(fd, request, std::ptr::null_mut()) }
}

/// ioctl(2) with a structure that has pointers.
///
/// # Safety
///
/// Each pointer in `param` is valid for what the kernel does with it for this request.
///
/// # Panics
///
/// If the structure isn't the request's: its size differs.
pub(crate) unsafe fn ioctl_ptr<T>(
    fd: &OwnedFd,
    request: Ioctl,
    param: &mut T,
) -> Result<(), Errno> {
    assert_eq!(request.size, size_of::<T>(), "{request:?}");
    // SAFETY: the kernel reads and writes `request.size` bytes at the parameter, which is
    // all of T; the caller vouches for the pointers in it.
    unsafe { ioctl_raw(fd, request, std::ptr::from_mut(param).cast()) }
}

/// # Safety
///
/// As [`ioctl_ptr`], for the structure that `param` points to.
unsafe fn ioctl_raw(fd: &OwnedFd, request: Ioctl, param: *mut c_void) -> Result<(), Errno> {
    // SAFETY: the caller's promise. The type of the request differs between C libraries.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request.code() as _, param) };
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

fn open(path: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: a file descriptor that was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a file below /dev. A NUL in the name is ENOENT: there is no such file.
fn open_device(path: String) -> Result<OwnedFd, Errno> {
    open(&CString::new(path).map_err(|_| libc::ENOENT)?)
}

/// Opens /dev/vmm/`name`.
pub(crate) fn open_vm(name: &str) -> Result<OwnedFd, Errno> {
    open_device(format!("/dev/vmm/{name}"))
}

/// Opens the device of a named memory segment.
pub(crate) fn open_devmem(vm: &str, segment: &str) -> Result<OwnedFd, Errno> {
    open_device(format!("/dev/vmm.io/{vm}.{segment}"))
}

/// The way to create and destroy VMs.
#[derive(Debug)]
pub(crate) enum Control {
    /// /dev/vmmctl.
    Device(OwnedFd),
    /// What a host has that has no such device.
    Other(host::Control),
}

impl Control {
    /// Finds the module; on FreeBSD it loads `vmm` when no module of that name is there,
    /// as libvmmapi does. `None`: no module.
    pub(crate) fn open() -> Result<Option<Self>, Errno> {
        host::load_module();
        match open(c"/dev/vmmctl") {
            Ok(fd) => Ok(Some(Self::Device(fd))),
            Err(libc::ENOENT | libc::ENXIO | libc::ENODEV) => {
                Ok(host::Control::find().map(Self::Other))
            }
            Err(errno) => Err(errno),
        }
    }

    /// With `destroy_on_close` the VM goes when this is dropped, or its process ends.
    /// EINVAL where the kernel doesn't know that (FreeBSD 15), ENOTSUP without /dev/vmmctl.
    pub(crate) fn create(&self, name: &CStr, destroy_on_close: bool) -> Result<(), Errno> {
        match self {
            Self::Device(fd) => {
                let mut param = vmm_sys::vmmctl_vm_create {
                    name: name_field(name)?,
                    flags: match destroy_on_close {
                        true => vmm_sys::VMMCTL_CREATE_DESTROY_ON_CLOSE,
                        false => 0,
                    },
                    ..Default::default()
                };
                ioctl(fd, VMMCTL_VM_CREATE, &mut param)
            }
            Self::Other(_) if destroy_on_close => Err(libc::ENOTSUP),
            Self::Other(control) => control.create(name),
        }
    }

    pub(crate) fn destroy(&self, name: &CStr) -> Result<(), Errno> {
        match self {
            Self::Device(fd) => {
                let mut param = vmm_sys::vmmctl_vm_destroy {
                    name: name_field(name)?,
                    ..Default::default()
                };
                ioctl(fd, VMMCTL_VM_DESTROY, &mut param)
            }
            Self::Other(control) => control.destroy(name),
        }
    }
}

/// A name in the fixed array of a structure, NUL-terminated.
pub(crate) fn name_field<const N: usize>(name: &CStr) -> Result<[i8; N], Errno> {
    let bytes = name.to_bytes_with_nul();
    if bytes.len() > N {
        return Err(libc::ENAMETOOLONG);
    }
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = *from as i8;
    }
    Ok(field)
}

/// The text of a NUL-terminated array; all of it if there is no NUL.
pub(crate) fn field_name(field: &[i8]) -> String {
    let bytes: Vec<u8> = field
        .iter()
        .map(|c| *c as u8)
        .take_while(|c| *c != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Inaccessible bytes before and after each mapping: an access that runs out of guest
/// memory faults instead of finding something else of this process.
const GUARD: usize = 4 << 20;

/// A mapping of guest memory into this process, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

/// One piece of a mapping: `len` bytes of the device at `offset`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) len: usize,
}

// SAFETY: the mapping belongs to this value alone, is accessed by copies only (range.rs),
// and mmap(2) and munmap(2) may be called from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared reference gives nothing but the address and the length.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps pieces of a device behind each other, readable and writable. With `core` they
    /// are part of a core dump. The lengths are multiples of a page.
    pub(crate) fn new(fd: &OwnedFd, pieces: &[Piece], core: bool) -> Result<Self, Errno> {
        let len = pieces
            .iter()
            .try_fold(0_usize, |sum, piece| sum.checked_add(piece.len));
        let mapping = Self::reserve(len.ok_or(libc::ENOMEM)?)?;
        let mut done = 0;
        for piece in pieces {
            mapping.map_piece(fd, done, *piece, core)?;
            done += piece.len;
        }
        Ok(mapping)
    }

    /// Addresses for `len` bytes and the guards around them.
    fn reserve(len: usize) -> Result<Self, Errno> {
        let total = len.checked_add(2 * GUARD).ok_or(libc::ENOMEM)?;
        // SAFETY: a new mapping at an address of the kernel's choice, not accessible.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                total,
                libc::PROT_NONE,
                host::RESERVE_FLAGS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(last_errno());
        }
        // SAFETY: GUARD is within the mapping, whose address isn't 0.
        let base = unsafe { NonNull::new_unchecked(base.cast::<u8>().add(GUARD)) };
        Ok(Self { base, len })
    }

    /// Maps a piece at `at` in the reservation; at + piece.len is within it.
    fn map_piece(&self, fd: &OwnedFd, at: usize, piece: Piece, core: bool) -> Result<(), Errno> {
        let offset = libc::off_t::try_from(piece.offset).map_err(|_| libc::EINVAL)?;
        // SAFETY: replaces addresses of our own reservation, which nobody uses yet.
        let result = unsafe {
            libc::mmap(
                self.base.as_ptr().add(at).cast(),
                piece.len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED | host::core_flag(core),
                fd.as_raw_fd(),
                offset,
            )
        };
        if result == libc::MAP_FAILED {
            return Err(last_errno());
        }
        if !core {
            // SAFETY: the piece that was just mapped.
            unsafe { host::leave_out_of_core(result, piece.len) };
        }
        Ok(())
    }

    /// The first byte.
    pub(crate) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Zeroed memory of this process in the place of a guest's.
    pub(crate) fn anonymous(len: usize) -> Result<Self, Errno> {
        let mapping = Self::reserve(len)?;
        // SAFETY: replaces addresses of our own reservation, which nobody uses yet.
        let result = unsafe {
            libc::mmap(
                mapping.base.as_ptr().cast(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if result == libc::MAP_FAILED {
            return Err(last_errno());
        }
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the reservation that reserve() made, guards included; whoever holds an
        // address in it holds this value alive.
        unsafe { libc::munmap(self.base.as_ptr().sub(GUARD).cast(), self.len + 2 * GUARD) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fills_its_field_only_with_its_nul() {
        assert_eq!(name_field::<4>(c"abc"), Ok([97, 98, 99, 0]));
        assert_eq!(name_field::<4>(c"abcd"), Err(libc::ENAMETOOLONG));
        assert_eq!(field_name(&[97, 98, 0, 99]), "ab");
        assert_eq!(field_name(&[97, 98]), "ab");
    }
}
