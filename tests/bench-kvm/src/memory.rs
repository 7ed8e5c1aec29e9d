//! Guest memory, filled on first touch: by single pages in the first half, where the program
//! measures pages, and by chunks of 2 MiB in the second, where the host can.

use std::io::Error;
use std::ptr;

/// The address alignment that chunks of 2 MiB need.
const CHUNK: usize = 2 << 20;

pub struct Memory {
    mapping: *mut u8,
    mapped: usize,
    start: *mut u8,
    len: usize,
}

impl Memory {
    pub fn new(len: usize) -> Result<Memory, String> {
        let failed = |what| move || format!("{what}: {}", Error::last_os_error());
        let mapped = len + CHUNK;
        // SAFETY: a new mapping, nothing is replaced.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(failed("guest memory")());
        }
        let mapping: *mut u8 = mapping.cast();
        let start = mapping.wrapping_add(mapping.align_offset(CHUNK));
        let half = len / 2;
        for (from, advice) in [(0, libc::MADV_NOHUGEPAGE), (half, libc::MADV_HUGEPAGE)] {
            // SAFETY: inside the mapping. A kernel without huge pages may refuse; then all
            // of it is single pages.
            unsafe { libc::madvise(start.wrapping_add(from).cast(), half, advice) };
        }
        Ok(Memory {
            mapping,
            mapped,
            start,
            len,
        })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn address(&self) -> u64 {
        self.start as u64
    }

    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), String> {
        let start = usize::try_from(address).ok();
        let end = start.and_then(|start| start.checked_add(bytes.len()));
        match (start, end) {
            (Some(start), Some(end)) if end <= self.len => {
                // SAFETY: inside the mapping, and the guest isn't running.
                unsafe {
                    ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(start), bytes.len());
                }
                Ok(())
            }
            _ => Err(format!(
                "a segment at {address:#x} lies outside of the memory"
            )),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our mapping; nothing points into it any more.
        unsafe { libc::munmap(self.mapping.cast(), self.mapped) };
    }
}
