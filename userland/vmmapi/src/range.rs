//! Guest memory as this process sees it. The guest writes to it at any moment, so nothing
//! here hands out a reference into it: single words are read and written as such (aligned
//! ones in one access), longer runs are copied.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::platform::Mapping;
use crate::{Error, Gpa};

/// A run of mapped guest memory. It stays mapped as long as a clone of it lives, also
/// after the VM is closed or destroyed.
#[derive(Clone, Debug)]
pub struct GuestRange {
    mapping: Arc<Mapping>,
    /// Of this range in the mapping; `offset + len` is within it.
    offset: usize,
    len: usize,
}

impl GuestRange {
    /// `len` bytes of a mapping from `offset` on; `None` if it has fewer.
    pub(crate) fn new(mapping: Arc<Mapping>, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= mapping.len()).then_some(Self {
            mapping,
            offset,
            len,
        })
    }

    /// Bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of it.
    pub fn slice(&self, offset: usize, len: usize) -> Result<Self, Error> {
        self.check(offset, len)?;
        Ok(Self {
            mapping: Arc::clone(&self.mapping),
            offset: self.offset + offset,
            len,
        })
    }

    /// The word at an offset, little-endian. An aligned one is read in one access.
    pub fn read<T: Word>(&self, offset: usize) -> Result<T, Error> {
        let at = self.at(offset, size_of::<T>())?;
        // SAFETY: at() found size_of::<T>() bytes of the mapping there, which live as long
        // as the Arc in self.
        Ok(unsafe { T::load(at) })
    }

    /// Writes the word at an offset, little-endian. An aligned one in one access.
    pub fn write<T: Word>(&self, offset: usize, value: T) -> Result<(), Error> {
        let at = self.at(offset, size_of::<T>())?;
        // SAFETY: as in read().
        unsafe { T::store(at, value) };
        Ok(())
    }

    /// Copies bytes of the guest to `to`.
    pub fn copy_from(&self, offset: usize, to: &mut [u8]) -> Result<(), Error> {
        let at = self.at(offset, to.len())?;
        // SAFETY: as in read(), for to.len() bytes; `to` is memory of ours, which no guest
        // mapping overlaps. The guest may write meanwhile: then old and new bytes mix.
        unsafe {
            std::ptr::copy_nonoverlapping(at.as_ptr().cast_const(), to.as_mut_ptr(), to.len())
        };
        Ok(())
    }

    /// Copies bytes to the guest.
    pub fn copy_to(&self, offset: usize, from: &[u8]) -> Result<(), Error> {
        let at = self.at(offset, from.len())?;
        // SAFETY: as in copy_from(), the other way round.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), at.as_ptr(), from.len()) };
        Ok(())
    }

    /// Sets bytes of the guest.
    pub fn fill(&self, offset: usize, len: usize, byte: u8) -> Result<(), Error> {
        let at = self.at(offset, len)?;
        // SAFETY: as in read(), for `len` bytes.
        unsafe { std::ptr::write_bytes(at.as_ptr(), byte, len) };
        Ok(())
    }

    /// A copy of it all.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        // The range has exactly that many bytes.
        self.copy_from(0, &mut bytes)
            .map_or_else(|_| Vec::new(), |()| bytes)
    }

    /// The address of the first byte, for iovecs of readv(2) and the like. It is valid as
    /// long as a clone of the range lives; the guest changes what is there.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.base().as_ptr().wrapping_add(self.offset)
    }

    fn at(&self, offset: usize, len: usize) -> Result<NonNull<u8>, Error> {
        self.check(offset, len)?;
        // SAFETY: self.offset + offset (+ len) is within the mapping: new() checked the
        // range, check() the offset in it.
        Ok(unsafe { self.mapping.base().add(self.offset + offset) })
    }

    fn check(&self, offset: usize, len: usize) -> Result<(), Error> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(Error::OutOfRange {
                offset: offset as u64,
                len: len as u64,
                size: self.len as u64,
            }),
        }
    }
}

/// The guest's memory by guest-physical address: a snapshot of what the VM has mapped,
/// cheap to clone and free of locks.
#[derive(Clone, Debug, Default)]
pub struct GuestMemory {
    regions: Arc<Vec<Region>>,
}

#[derive(Clone, Debug)]
struct Region {
    gpa: Gpa,
    range: GuestRange,
}

impl GuestMemory {
    /// Zeroed memory of this process, a region at each gpa: what devices work on where
    /// there is no VM, in tests above all. Lengths are multiples of a page.
    pub fn anonymous(regions: &[(Gpa, usize)]) -> Result<Self, Error> {
        let mut memory = Self::default();
        for (gpa, len) in regions {
            let mapping = Mapping::anonymous(*len).map_err(|errno| Error::Call {
                call: "mmap",
                thing: format!("{len} bytes of memory"),
                errno,
            })?;
            let range = GuestRange {
                mapping: Arc::new(mapping),
                offset: 0,
                len: *len,
            };
            memory = memory.with(*gpa, range);
        }
        Ok(memory)
    }

    /// `len` bytes at `gpa`, all in one region of memory.
    pub fn slice(&self, gpa: Gpa, len: usize) -> Result<GuestRange, Error> {
        let (region, offset) = self.find(gpa, len)?;
        region.range.slice(offset, len)
    }

    /// The word at `gpa`, little-endian. An aligned one is read in one access.
    pub fn read<T: Word>(&self, gpa: Gpa) -> Result<T, Error> {
        let (region, offset) = self.find(gpa, size_of::<T>())?;
        region.range.read(offset)
    }

    /// Writes the word at `gpa`, little-endian. An aligned one in one access.
    pub fn write<T: Word>(&self, gpa: Gpa, value: T) -> Result<(), Error> {
        let (region, offset) = self.find(gpa, size_of::<T>())?;
        region.range.write(offset, value)
    }

    /// Copies bytes of the guest to `to`.
    pub fn copy_from(&self, gpa: Gpa, to: &mut [u8]) -> Result<(), Error> {
        let (region, offset) = self.find(gpa, to.len())?;
        region.range.copy_from(offset, to)
    }

    /// Copies bytes to the guest.
    pub fn copy_to(&self, gpa: Gpa, from: &[u8]) -> Result<(), Error> {
        let (region, offset) = self.find(gpa, from.len())?;
        region.range.copy_to(offset, from)
    }

    /// The same memory and one region more.
    #[must_use]
    pub(crate) fn with(&self, gpa: Gpa, range: GuestRange) -> Self {
        let mut regions = Vec::clone(&self.regions);
        regions.push(Region { gpa, range });
        Self {
            regions: Arc::new(regions),
        }
    }

    fn find(&self, gpa: Gpa, len: usize) -> Result<(&Region, usize), Error> {
        self.regions
            .iter()
            .find_map(|region| {
                let offset = usize::try_from(gpa.0.checked_sub(region.gpa.0)?).ok()?;
                let end = offset.checked_add(len)?;
                (offset < region.range.len() && end <= region.range.len())
                    .then_some((region, offset))
            })
            .ok_or(Error::NotMemory {
                gpa,
                len: len as u64,
            })
    }
}

/// The integers that guest memory is read and written as.
pub trait Word: Copy + sealed::Access {}

mod sealed {
    use std::ptr::NonNull;

    pub trait Access: Copy {
        /// # Safety
        ///
        /// `at` is valid for reads of this size.
        unsafe fn load(at: NonNull<u8>) -> Self;
        /// # Safety
        ///
        /// `at` is valid for writes of this size.
        unsafe fn store(at: NonNull<u8>, value: Self);
    }
}

macro_rules! word {
    ($($ty:ty, $atomic:ty;)*) => {$(
        impl Word for $ty {}

        impl sealed::Access for $ty {
            unsafe fn load(at: NonNull<u8>) -> Self {
                let at = at.as_ptr().cast::<$ty>();
                let value = if at.is_aligned() {
                    // SAFETY: valid by the caller, aligned by the test; all accesses to
                    // guest memory are atomic, raw copies or the guest's.
                    unsafe { <$atomic>::from_ptr(at) }.load(Ordering::Relaxed)
                } else {
                    // SAFETY: valid by the caller; needs no alignment.
                    unsafe { at.read_unaligned() }
                };
                <$ty>::from_le(value)
            }

            unsafe fn store(at: NonNull<u8>, value: Self) {
                let at = at.as_ptr().cast::<$ty>();
                if at.is_aligned() {
                    // SAFETY: as in load().
                    unsafe { <$atomic>::from_ptr(at) }.store(value.to_le(), Ordering::Relaxed);
                } else {
                    // SAFETY: as in load().
                    unsafe { at.write_unaligned(value.to_le()) };
                }
            }
        }
    )*};
}

word! {
    u8, AtomicU8;
    u16, AtomicU16;
    u32, AtomicU32;
    u64, AtomicU64;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(gpas: &[(u64, usize)]) -> GuestMemory {
        let regions: Vec<_> = gpas.iter().map(|(gpa, len)| (Gpa(*gpa), *len)).collect();
        GuestMemory::anonymous(&regions).unwrap()
    }

    #[test]
    fn words_are_little_endian_at_any_alignment() {
        let memory = memory(&[(0, 4096)]);
        memory.write(Gpa(0x10), 0x1122_3344_5566_7788_u64).unwrap();
        assert_eq!(memory.read::<u8>(Gpa(0x10)).unwrap(), 0x88);
        assert_eq!(memory.read::<u32>(Gpa(0x13)).unwrap(), 0x2233_4455);
        memory.write(Gpa(0x11), 0xaabb_u16).unwrap();
        assert_eq!(
            memory.read::<u64>(Gpa(0x10)).unwrap(),
            0x1122_3344_55aa_bb88
        );
    }

    #[test]
    fn no_access_leaves_a_region_or_spans_two() {
        let memory = memory(&[(0, 4096), (4096, 4096), (0x1_0000_0000, 4096)]);
        let mut byte = [0];
        let mut two = [0; 2];
        assert!(memory.copy_from(Gpa(4095), &mut byte).is_ok());
        assert_eq!(
            memory.copy_from(Gpa(4095), &mut two),
            Err(Error::NotMemory {
                gpa: Gpa(4095),
                len: 2
            })
        );
        assert!(memory.copy_to(Gpa(0x1_0000_0fff), &byte).is_ok());
        for gpa in [8192, 0xffff_ffff, 0x1_0000_1000, u64::MAX] {
            assert!(memory.read::<u8>(Gpa(gpa)).is_err(), "{gpa:#x}");
            assert!(memory.slice(Gpa(gpa), 0).is_err(), "{gpa:#x}");
        }
        assert!(memory.slice(Gpa(1), usize::MAX).is_err());
        assert!(memory.read::<u64>(Gpa(0x1_0000_0ff9)).is_err());
    }

    #[test]
    fn a_part_of_a_range_sees_its_own_bytes_only() {
        let range = memory(&[(0, 4096)]).slice(Gpa(0), 4096).unwrap();
        let part = range.slice(100, 8).unwrap();
        part.copy_to(0, b"abcdefgh").unwrap();
        assert_eq!(range.read::<u8>(107).unwrap(), b'h');
        assert_eq!(part.to_vec(), b"abcdefgh");
        assert!(part.read::<u8>(8).is_err());
        assert!(part.slice(4, 5).is_err());
        assert!(part.fill(1, usize::MAX, 0).is_err());
        part.fill(0, 8, 7).unwrap();
        assert_eq!(range.slice(99, 3).unwrap().to_vec(), [0, 7, 7]);
    }

    #[test]
    fn a_range_outlives_the_memory_it_came_from() {
        let range = memory(&[(0, 4096)]).slice(Gpa(16), 16).unwrap();
        range.write(0, 5_u8).unwrap();
        assert_eq!(range.read::<u8>(0), Ok(5));
    }
}
