//! Guest memory through the device nodes: mmap(2), read(2) and write(2).

use vmm_core::types::{Errno, Gpa, PAGE_SIZE};

use crate::host::memobj::MemObj;
use crate::host::user::Uio;
use crate::vm::memory::GuestMemory;

/// PROT_EXEC of sys/mman.h: guest memory is never executable in userland.
const PROT_EXEC: i32 = 4;

/// mmap(2) of /dev/vmm/NAME: `len` bytes of system memory at a guest-physical address.
/// ENOENT unless one map holds them all, EINVAL if that is device memory.
pub fn map_guest(
    memory: &GuestMemory,
    gpa: Gpa,
    len: u64,
    prot: i32,
) -> Result<(MemObj, u64), Errno> {
    if prot & PROT_EXEC != 0 || !is_range(gpa.get(), len) {
        return Err(Errno::EINVAL);
    }
    let layout = memory.layout();
    let map = layout.map_of(gpa, len).ok_or(Errno::ENOENT)?;
    let segment = layout.segment(map.segid).ok_or(Errno::EINVAL)?;
    if !segment.is_sysmem() {
        return Err(Errno::EINVAL);
    }
    Ok((
        segment.object.clone(),
        map.segoff + (gpa.get() - map.gpa.get()),
    ))
}

/// mmap(2) of /dev/vmm.io/NAME.SEG: `len` bytes at an offset in the segment.
pub fn map_device(
    object: &MemObj,
    offset: u64,
    len: u64,
    prot: i32,
) -> Result<(MemObj, u64), Errno> {
    if prot & PROT_EXEC != 0 || !is_range(offset, len) || offset + len > object.len() {
        return Err(Errno::EINVAL);
    }
    Ok((object.clone(), offset))
}

/// Whether these are bytes: some, and none behind 2^64.
fn is_range(offset: u64, len: u64) -> bool {
    len != 0 && offset.checked_add(len).is_some()
}

/// read(2) and write(2) of /dev/vmm/NAME at a guest-physical address. Holes below the end
/// of system memory read as zeros, so that dd(1) can copy what is behind them; elsewhere
/// EFAULT.
pub fn read_write(
    memory: &GuestMemory,
    uio: &mut Uio,
    gpa: Gpa,
    len: u64,
    write: bool,
) -> Result<(), Errno> {
    let mut page = [0; 512];
    let mut done = 0;
    while done < len {
        let at = gpa.checked_add(done).ok_or(Errno::EFAULT)?;
        let in_page = PAGE_SIZE - at.page_offset();
        let n = (len - done).min(in_page).min(page.len() as u64);
        // n is at most the buffer's size.
        let piece = &mut page[..n as usize];
        if write {
            // Asked before the data is consumed.
            if !memory.is_writable(at, n) {
                return Err(Errno::EFAULT);
            }
            uio.transfer(piece)?;
            memory.write(at, piece)?;
        } else {
            if memory.read(at, piece).is_err() {
                if at >= memory.layout().max_sysmem() {
                    return Err(Errno::EFAULT);
                }
                piece.fill(0);
            }
            uio.transfer(piece)?;
        }
        done += n;
    }
    Ok(())
}
