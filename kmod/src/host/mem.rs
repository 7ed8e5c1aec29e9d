//! Kernel memory: the global allocator behind `alloc`, physically contiguous pages for
//! what the CPU addresses physically (VMCS, VMXON region, MSR bitmap), and the pages of
//! the EPT's tables.

use core::alloc::{GlobalAlloc, Layout};
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

use vmm_core::devices::lapic::ApicPage;
use vmm_core::ept::TableMemory;
use vmm_core::types::{Errno, Hpa, PAGE_SIZE};

use super::ffi;

struct HostAllocator;

// SAFETY: host_alloc returns memory of the asked size and alignment that nobody else has,
// or NULL; host_free takes it back with the same size and alignment.
unsafe impl GlobalAlloc for HostAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: a plain allocation; the caller is in thread context (host.h), which
        // holds because the core allocates neither in critical nor in spin sections.
        unsafe { ffi::host_alloc(layout.size(), layout.align()).cast() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as alloc; host_alloc's memory is zeroed already.
        unsafe { self.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller got ptr from alloc with this layout (GlobalAlloc's contract).
        unsafe { ffi::host_free(ptr.cast(), layout.size(), layout.align()) }
    }
}

#[global_allocator]
static ALLOCATOR: HostAllocator = HostAllocator;

/// Physically contiguous, zeroed, page-aligned memory of our own.
pub struct Pages {
    va: NonNull<u8>,
    hpa: Hpa,
    count: u32,
}

// SAFETY: the pages are plain memory owned by this value; no thread is special to them.
unsafe impl Send for Pages {}
// SAFETY: through a shared reference only the address can be taken.
unsafe impl Sync for Pages {}

impl Pages {
    /// `count` pages of 4 KiB. ENOMEM when the host has no such run. Context: thread.
    pub fn new(count: u32) -> Result<Self, Errno> {
        let mut hpa = 0;
        // SAFETY: hpa is a valid place for the answer.
        let va = unsafe { ffi::host_pages_alloc(count, &raw mut hpa) };
        let va = NonNull::new(va.cast()).ok_or(Errno::ENOMEM)?;
        Ok(Self {
            va,
            hpa: Hpa(hpa),
            count,
        })
    }

    /// Where the CPU finds it.
    pub fn hpa(&self) -> Hpa {
        self.hpa
    }

    /// The bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: va points to count pages that are initialized (zeroed at allocation)
        // and owned by self, which is borrowed exclusively.
        unsafe {
            core::slice::from_raw_parts_mut(
                self.va.as_ptr(),
                self.count as usize * PAGE_SIZE as usize,
            )
        }
    }

    /// The address, for assembly and for memory that the CPU writes behind Rust's back.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.va.as_ptr()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: va and count are those of host_pages_alloc, freed once, here.
        unsafe { ffi::host_pages_free(self.va.as_ptr().cast(), self.count) }
    }
}

/// A value in a page of its own, whose physical address the CPU knows too.
pub struct PageBox<T> {
    pages: Pages,
    value: PhantomData<T>,
}

/// What may live in a [`PageBox`].
///
/// # Safety
/// All-zero bytes are a valid value, it fits a page and may be as aligned as one, and the
/// CPU may change it at any time (so that it consists of atomics).
pub unsafe trait PagePlain: Send + Sync {}

// SAFETY: 1024 atomic words of 32 bits.
unsafe impl PagePlain for ApicPage {}

impl<T: PagePlain> PageBox<T> {
    /// A zeroed one. Context: thread.
    pub fn new() -> Result<Self, Errno> {
        const { assert!(size_of::<T>() <= PAGE_SIZE as usize && align_of::<T>() <= PAGE_SIZE as usize) };
        Ok(Self {
            pages: Pages::new(1)?,
            value: PhantomData,
        })
    }

    /// Where the CPU finds it.
    pub fn hpa(&self) -> Hpa {
        self.pages.hpa()
    }
}

impl<T: PagePlain> Deref for PageBox<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the page is zeroed at first, which is a T (PagePlain), big and aligned
        // enough (new), and lives as long as self.
        unsafe { &*self.pages.as_mut_ptr().cast() }
    }
}

/// The kernel's address of a physical page that the core owns (see host.h). Context: any.
pub fn phys_to_virt(hpa: Hpa) -> *mut u8 {
    // SAFETY: the function computes an address; using it is the caller's matter.
    unsafe { ffi::host_phys_to_virt(hpa.get()).cast() }
}

/// Pages for the tables of an EPT, one at a time.
#[derive(Default)]
pub struct TablePages;

impl TableMemory for TablePages {
    fn alloc(&mut self) -> Result<Hpa, Errno> {
        let page = Pages::new(1)?;
        let hpa = page.hpa();
        core::mem::forget(page); // it comes back in free()
        Ok(hpa)
    }

    fn free(&mut self, table: Hpa) {
        // SAFETY: Ept frees only what alloc gave it, once: one page, whose kernel address
        // is the direct map's.
        unsafe { ffi::host_pages_free(phys_to_virt(table).cast(), 1) }
    }

    fn read(&self, table: Hpa, index: usize) -> u64 {
        assert!(index < 512);
        // SAFETY: table is a page from alloc that has not been freed, index is within it.
        // The CPU sets accessed and dirty bits concurrently, hence volatile.
        unsafe { phys_to_virt(table).cast::<u64>().add(index).read_volatile() }
    }

    fn write(&mut self, table: Hpa, index: usize, entry: u64) {
        assert!(index < 512);
        // SAFETY: as read; an aligned 64-bit store is seen whole by the CPU's walker.
        unsafe {
            phys_to_virt(table)
                .cast::<u64>()
                .add(index)
                .write_volatile(entry)
        }
    }
}
