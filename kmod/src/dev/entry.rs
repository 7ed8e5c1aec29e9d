//! The functions of host.h that the shim calls: C's pointers become Rust's types here and
//! nowhere else.

use core::ffi::{CStr, c_char, c_int, c_void};

use vmm_core::ioctl::VmName;
use vmm_core::types::{Errno, Gpa};

use super::registry::{Module, VmDevice};
use super::{ioctl, memory};
use crate::host::cdev::CtlFile;
use crate::host::ffi;
use crate::host::memobj::MemObj;
use crate::host::user::Uio;
use crate::log_err;
use crate::vm::ops::InfoValue;
use crate::vmx::VMM_OPS_INTEL;

/// The size that BSD's ioctl numbers carry (IOCPARM_LEN of sys/ioccom.h).
const fn parameter_len(cmd: u64) -> usize {
    (cmd as usize >> 16) & 0x1fff
}

fn answer(result: Result<(), Errno>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(error) => error.raw(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn vmm_rs_load() -> c_int {
    answer(Module::load(&VMM_OPS_INTEL))
}

#[unsafe(no_mangle)]
extern "C" fn vmm_rs_unload() -> c_int {
    answer(Module::unload())
}

#[unsafe(no_mangle)]
extern "C" fn vmm_rs_cpu_suspend() {
    Module::cpu_suspend();
}

#[unsafe(no_mangle)]
extern "C" fn vmm_rs_cpu_resume() -> c_int {
    answer(Module::cpu_resume())
}

/// # Safety
/// `name` is a C string.
#[unsafe(no_mangle)]
unsafe extern "C" fn vmm_rs_create(name: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    answer(VmName::new(name.to_bytes()).and_then(|name| Module::get()?.create(name, None)))
}

/// # Safety
/// `name` is a C string.
#[unsafe(no_mangle)]
unsafe extern "C" fn vmm_rs_destroy(name: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    answer(VmName::new(name.to_bytes()).and_then(|name| Module::get()?.destroy(&name)))
}

/// # Safety
/// `out` is a place for the answer.
#[unsafe(no_mangle)]
unsafe extern "C" fn vmm_rs_info(index: u32, out: *mut ffi::vmm_rs_info) -> bool {
    let Some(info) = Module::get().ok().and_then(|m| m.info(index as usize)) else {
        return false;
    };
    let (type_, value) = match info.value {
        InfoValue::Int(value) => (ffi::VMM_RS_INT, i64::from(value) as u64),
        InfoValue::Uint(value) => (ffi::VMM_RS_UINT, value.into()),
        InfoValue::Ulong(value) => (ffi::VMM_RS_ULONG, value),
    };
    // SAFETY: the caller's promise; the strings are static.
    unsafe {
        out.write(ffi::vmm_rs_info {
            name: info.name.as_ptr(),
            descr: info.descr.as_ptr(),
            type_,
            value,
            writable: Module::is_writable(&info),
        })
    };
    true
}

#[unsafe(no_mangle)]
extern "C" fn vmm_rs_info_set(index: u32, value: u64) -> c_int {
    answer(Module::get().and_then(|m| m.set_info(index as usize, value)))
}

/// # Safety
/// `data` has the bytes that `cmd` tells.
#[unsafe(no_mangle)]
unsafe extern "C" fn vmm_rs_ctl_ioctl(
    file: *mut ffi::host_file,
    cmd: u64,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    let data = unsafe { parameter(cmd, data) };
    answer(ioctl::ctl(CtlFile::from_raw(file), cmd, data))
}

#[unsafe(no_mangle)]
extern "C" fn vmm_rs_ctl_close(file: *mut ffi::host_file) {
    if let Ok(module) = Module::get() {
        module.close(CtlFile::from_raw(file));
    }
}

/// # Safety
/// `arg` is that of a HOST_CDEV_VM node that still exists; `data` has the bytes that
/// `cmd` tells.
#[unsafe(no_mangle)]
unsafe extern "C" fn vmm_rs_vm_ioctl(arg: *mut c_void, cmd: u64, data: *mut c_void) -> c_int {
    // SAFETY: the registry keeps the device until its node is gone.
    let device = unsafe { &*arg.cast::<VmDevice>() };
    // SAFETY: the caller's promise.
    let data = unsafe { parameter(cmd, data) };
    answer(ioctl::vm(device, cmd, data))
}

/// # Safety
/// As for [`vmm_rs_vm_ioctl`]; `uio` is that of the read(2) or write(2) being served.
#[unsafe(no_mangle)]
unsafe extern "C" fn vmm_rs_vm_rw(
    arg: *mut c_void,
    uio: *mut ffi::host_uio,
    gpa: u64,
    len: u64,
    write: bool,
) -> c_int {
    // SAFETY: the registry keeps the device until its node is gone.
    let device = unsafe { &*arg.cast::<VmDevice>() };
    // SAFETY: the caller's promise.
    let Some(mut uio) = (unsafe { Uio::from_raw(uio) }) else {
        return Errno::EFAULT.raw();
    };
    answer(memory::read_write(
        &device.vm.memory,
        &mut uio,
        Gpa(gpa),
        len,
        write,
    ))
}

/// # Safety
/// As for [`vmm_rs_vm_ioctl`]; `objp` and `objoff` are places for the answer.
#[unsafe(no_mangle)]
unsafe extern "C" fn vmm_rs_vm_mmap(
    arg: *mut c_void,
    offset: u64,
    len: u64,
    prot: c_int,
    objp: *mut *mut ffi::host_memobj,
    objoff: *mut u64,
) -> c_int {
    // SAFETY: the registry keeps the device until its node is gone.
    let device = unsafe { &*arg.cast::<VmDevice>() };
    let mapping = memory::map_guest(&device.vm.memory, Gpa(offset), len, prot);
    // SAFETY: the caller's promise.
    unsafe { give_mapping(mapping, objp, objoff) }
}

/// # Safety
/// `arg` is that of a HOST_CDEV_MEM node that still exists; `objp` and `objoff` are places
/// for the answer.
#[unsafe(no_mangle)]
unsafe extern "C" fn vmm_rs_devmem_mmap(
    arg: *mut c_void,
    offset: u64,
    len: u64,
    prot: c_int,
    objp: *mut *mut ffi::host_memobj,
    objoff: *mut u64,
) -> c_int {
    // SAFETY: the device's SegmentNode keeps the object until its node is gone.
    let object = unsafe { &*arg.cast::<MemObj>() };
    let mapping = memory::map_device(object, offset, len, prot);
    // SAFETY: the caller's promise.
    unsafe { give_mapping(mapping, objp, objoff) }
}

/// # Safety
/// `data` points to as many bytes as `cmd` tells (it may be anything when that is 0), which
/// nobody else uses for as long as the slice is used.
unsafe fn parameter<'a>(cmd: u64, data: *mut c_void) -> &'a mut [u8] {
    match parameter_len(cmd) {
        0 => &mut [],
        // SAFETY: the caller's promise.
        len => unsafe { core::slice::from_raw_parts_mut(data.cast(), len) },
    }
}

/// # Safety
/// `objp` and `objoff` are places for the answer.
unsafe fn give_mapping(
    mapping: Result<(MemObj, u64), Errno>,
    objp: *mut *mut ffi::host_memobj,
    objoff: *mut u64,
) -> c_int {
    if objp.is_null() || objoff.is_null() {
        log_err!("mmap: the shim gave no place for the answer");
        return Errno::EFAULT.raw();
    }
    match mapping {
        Ok((object, offset)) => {
            // SAFETY: the caller's promise. The hold goes to the shim.
            unsafe {
                objp.write(object.into_raw());
                objoff.write(offset);
            }
            0
        }
        Err(error) => error.raw(),
    }
}
