//! Guest memory objects: zero-filled pages that belong to one VM, which userland may map
//! too. The guest and userland change them at any time, so they are read and written by
//! copies of bytes or atomic words, never through references.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use vmm_core::types::{Errno, Hpa, PAGE_SIZE};

use super::ffi;
use super::mem::phys_to_virt;

/// Bytes in a 2 MiB page.
pub const LARGE_PAGE_SIZE: u64 = PAGE_SIZE << ffi::HOST_LARGE_ORDER;

/// One hold on a memory object.
pub struct MemObj {
    raw: NonNull<ffi::host_memobj>,
    len: u64,
}

// SAFETY: the host's objects are reference-counted and locked by the host.
unsafe impl Send for MemObj {}
// SAFETY: as Send; the methods take no exclusive access for granted.
unsafe impl Sync for MemObj {}

/// A resident, wired page of an object.
#[derive(Clone, Copy, Debug)]
pub struct ObjPage {
    /// Of the 4 KiB page, or of the 2 MiB page around it.
    pub hpa: Hpa,
    pub large: bool,
    /// It was not resident before.
    pub fresh: bool,
}

/// Whether the host's limit for guests leaves room for `len` bytes more.
pub fn has_room_for(len: u64) -> bool {
    // SAFETY: no precondition.
    unsafe { ffi::host_memobj_room(len / PAGE_SIZE) }
}

/// Where the pages of an object come from (the NUMA fields of VM_ALLOC_MEMSEG).
pub struct NumaPolicy<'a> {
    pub policy: i32,
    pub mask: &'a [u8],
}

impl MemObj {
    /// An object of `len` bytes (whole pages), no page of it allocated yet.
    pub fn new(len: u64, numa: Option<&NumaPolicy<'_>>) -> Result<Self, Errno> {
        let raw_numa = numa.map(|n| ffi::host_numa {
            policy: n.policy,
            mask: n.mask.as_ptr(),
            mask_size: n.mask.len(),
        });
        let numa_ptr = raw_numa
            .as_ref()
            .map_or(core::ptr::null(), core::ptr::from_ref);
        let mut raw = core::ptr::null_mut();
        // SAFETY: numa_ptr is NULL or points to a host_numa whose mask is valid for the
        // call; raw is a valid place for the answer.
        Errno::check(unsafe { ffi::host_memobj_create(len, numa_ptr, &raw mut raw) })?;
        let raw = NonNull::new(raw).ok_or(Errno::ENOMEM)?;
        Ok(Self { raw, len })
    }

    /// Bytes in the object.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The page at byte `offset`, made resident and wired; with `want_large` maybe the
    /// 2 MiB page around it. EFAULT beyond the end, ENOMEM at the host's limit for guests.
    /// Context: thread.
    pub fn page(&self, offset: u64, want_large: bool) -> Result<ObjPage, Errno> {
        if offset >= self.len {
            return Err(Errno::EFAULT);
        }
        let mut page = ffi::host_page {
            hpa: 0,
            order: 0,
            fresh: false,
        };
        // SAFETY: self.raw is held; page is a valid place for the answer.
        Errno::check(unsafe {
            ffi::host_memobj_page(
                self.raw.as_ptr(),
                offset / PAGE_SIZE,
                want_large,
                &raw mut page,
            )
        })?;
        Ok(ObjPage {
            hpa: Hpa(page.hpa),
            large: page.order != 0,
            fresh: page.fresh,
        })
    }

    /// Gives wired pages back to the host's pager: `len` bytes at `offset`, whole pages. They
    /// keep their contents.
    ///
    /// No page table of a guest has them any more, and the caller sees to it that nothing
    /// else is asked of the object meanwhile (its VM's layout is locked).
    pub fn unwire(&self, offset: u64, len: u64) {
        // SAFETY: self.raw is held; the caller's promise.
        unsafe { ffi::host_memobj_unwire(self.raw.as_ptr(), offset / PAGE_SIZE, len / PAGE_SIZE) }
    }

    /// Copies bytes out of the object, making its pages resident.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.for_each_piece(offset, buf.len(), |addr, at, n| {
            let piece = &mut buf[at..at + n];
            // SAFETY: addr is valid for n bytes (for_each_piece); the guest may write
            // there meanwhile, so this is a copy of bytes of any value into our buffer.
            unsafe { core::ptr::copy_nonoverlapping(addr, piece.as_mut_ptr(), n) }
        })
    }

    /// Copies bytes into the object, making its pages resident.
    pub fn write(&self, offset: u64, buf: &[u8]) -> Result<(), Errno> {
        self.for_each_piece(offset, buf.len(), |addr, at, n| {
            let piece = &buf[at..at + n];
            // SAFETY: addr is valid for n bytes (for_each_piece) and no Rust reference to
            // guest memory exists anywhere.
            unsafe { core::ptr::copy_nonoverlapping(piece.as_ptr(), addr, n) }
        })
    }

    /// The aligned 64-bit word at `offset`, in one access.
    pub fn load_u64(&self, offset: u64) -> Result<u64, Errno> {
        self.word::<AtomicU64, _>(offset, |w| w.load(Ordering::Acquire))
    }

    /// The aligned 32-bit word at `offset`, in one access.
    pub fn load_u32(&self, offset: u64) -> Result<u32, Errno> {
        self.word::<AtomicU32, _>(offset, |w| w.load(Ordering::Acquire))
    }

    /// Replaces the aligned word at `offset` if it still is `old`; tells whether it was.
    pub fn cas_u64(&self, offset: u64, old: u64, new: u64) -> Result<bool, Errno> {
        self.word::<AtomicU64, _>(offset, |w| {
            w.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        })
    }

    /// As [`Self::cas_u64`] for 32 bits.
    pub fn cas_u32(&self, offset: u64, old: u32, new: u32) -> Result<bool, Errno> {
        self.word::<AtomicU32, _>(offset, |w| {
            w.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        })
    }

    /// Gives this hold to the host kernel (an mmap's, released by its unmapping).
    pub fn into_raw(self) -> *mut ffi::host_memobj {
        let raw = self.raw.as_ptr();
        core::mem::forget(self);
        raw
    }

    fn word<A, R>(&self, offset: u64, f: impl FnOnce(&A) -> R) -> Result<R, Errno> {
        let size = size_of::<A>() as u64;
        if offset % size != 0 {
            return Err(Errno::EINVAL);
        }
        let addr = self.address(offset)?;
        // SAFETY: addr is a resident byte of the object, aligned for A and with A's bytes
        // in the same page; A is an atomic, so the guest may write there meanwhile.
        Ok(f(unsafe { &*addr.cast::<A>() }))
    }

    fn for_each_piece(
        &self,
        offset: u64,
        len: usize,
        mut f: impl FnMut(*mut u8, usize, usize),
    ) -> Result<(), Errno> {
        let end = offset.checked_add(len as u64).ok_or(Errno::EFAULT)?;
        if end > self.len {
            return Err(Errno::EFAULT);
        }
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let n = (len - done).min((PAGE_SIZE - at % PAGE_SIZE) as usize);
            f(self.address(at)?, done, n);
            done += n;
        }
        Ok(())
    }

    /// The kernel's address of the byte at `offset`, valid up to the end of its page.
    fn address(&self, offset: u64) -> Result<*mut u8, Errno> {
        let page = self.page(offset, true)?;
        let size = if page.large {
            LARGE_PAGE_SIZE
        } else {
            PAGE_SIZE
        };
        Ok(phys_to_virt(page.hpa).wrapping_add((offset % size) as usize))
    }
}

impl Clone for MemObj {
    fn clone(&self) -> Self {
        // SAFETY: self.raw is held, so it may be held once more.
        unsafe { ffi::host_memobj_hold(self.raw.as_ptr()) };
        Self {
            raw: self.raw,
            len: self.len,
        }
    }
}

impl Drop for MemObj {
    fn drop(&mut self) {
        // SAFETY: this value is one hold, released once.
        unsafe { ffi::host_memobj_release(self.raw.as_ptr()) }
    }
}
