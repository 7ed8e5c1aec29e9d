//! Where things lie in guest memory: the image's own parts at the addresses it asks for,
//! the loader's (page tables, GDT, boot information) in what is left. Two things never
//! share a byte, and nothing lies where there is no RAM.

#![forbid(unsafe_code)]

use std::fmt;

use vmmapi::address_map::{CONVENTIONAL_END, EXTENDED_BASE};
use vmmapi::memory::{HIGHMEM_BASE, LOWMEM_LIMIT};

/// The real-mode interrupt table and BIOS data area stay free.
const CONVENTIONAL_START: u64 = 0x1000;

/// Why something has no place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LayoutError {
    OutsideMemory {
        what: String,
        start: u64,
        len: u64,
        memory: u64,
    },
    Overlap {
        what: String,
        other: String,
        at: u64,
    },
    NoRoom {
        what: String,
        len: u64,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideMemory {
                what,
                start,
                len,
                memory,
            } => write!(
                f,
                "{what}: {len:#x} bytes at {start:#x} lie outside the guest's {} (a larger -m \
                 may help)",
                cli::size::memsize(*memory)
            ),
            Self::Overlap { what, other, at } => write!(f, "{what} overlaps {other} at {at:#x}"),
            Self::NoRoom { what, len } => {
                write!(
                    f,
                    "no room for {what} ({len:#x} bytes) in the guest's memory"
                )
            }
        }
    }
}

struct Used {
    start: u64,
    end: u64,
    what: String,
}

/// The guest's RAM, and what of it is taken.
pub struct Layout {
    memory: u64,
    used: Vec<Used>,
}

impl Layout {
    /// For a guest with `memory` bytes of RAM.
    pub fn new(memory: u64) -> Self {
        Self {
            memory,
            used: Vec::new(),
        }
    }

    /// Bytes of RAM from address 0 on.
    pub fn lowmem(&self) -> u64 {
        self.memory.min(LOWMEM_LIMIT)
    }

    /// Bytes of RAM from 4 GiB on.
    pub fn highmem(&self) -> u64 {
        self.memory - self.lowmem()
    }

    /// Takes exactly this range.
    pub fn reserve(&mut self, what: &str, start: u64, len: u64) -> Result<(), LayoutError> {
        let outside = || LayoutError::OutsideMemory {
            what: what.to_owned(),
            start,
            len,
            memory: self.memory,
        };
        let end = start.checked_add(len).ok_or_else(outside)?;
        let in_low = end <= self.lowmem();
        let in_high = start >= HIGHMEM_BASE && end - HIGHMEM_BASE <= self.highmem();
        if !in_low && !in_high {
            return Err(outside());
        }
        if let Some(used) = self.collision(start, end) {
            return Err(LayoutError::Overlap {
                what: what.to_owned(),
                other: used.what.clone(),
                at: start.max(used.start),
            });
        }
        self.used.push(Used {
            start,
            end,
            what: what.to_owned(),
        });
        Ok(())
    }

    /// Takes `len` bytes below 3 GiB, at or above `from`, aligned to `align` (a power of
    /// two): in conventional memory if there is room, else above 1 MiB.
    pub fn allocate(
        &mut self,
        what: &str,
        len: u64,
        align: u64,
        from: u64,
    ) -> Result<u64, LayoutError> {
        let areas = [
            (
                from.max(CONVENTIONAL_START),
                CONVENTIONAL_END.min(self.lowmem()),
            ),
            (from.max(EXTENDED_BASE), self.lowmem()),
        ];
        for (start, end) in areas {
            if let Some(gpa) = self.first_fit(start, end, len, align) {
                self.used.push(Used {
                    start: gpa,
                    end: gpa + len,
                    what: what.to_owned(),
                });
                return Ok(gpa);
            }
        }
        Err(LayoutError::NoRoom {
            what: what.to_owned(),
            len,
        })
    }

    /// Takes `len` bytes between 1 MiB and 3 GiB, as high as possible below `limit`.
    pub fn allocate_high(
        &mut self,
        what: &str,
        len: u64,
        align: u64,
        limit: u64,
    ) -> Result<u64, LayoutError> {
        let no_room = || LayoutError::NoRoom {
            what: what.to_owned(),
            len,
        };
        let mut end = limit.min(self.lowmem());
        loop {
            let start = end.checked_sub(len).ok_or_else(no_room)?;
            let start = start - start % align;
            if start < EXTENDED_BASE {
                return Err(no_room());
            }
            match self.collision(start, start + len) {
                Some(used) => end = used.start,
                None => {
                    self.reserve(what, start, len)?;
                    return Ok(start);
                }
            }
        }
    }

    fn first_fit(&self, start: u64, end: u64, len: u64, align: u64) -> Option<u64> {
        let mut at = start.checked_next_multiple_of(align)?;
        loop {
            let last = at.checked_add(len)?;
            if last > end {
                return None;
            }
            match self.collision(at, last) {
                None => return Some(at),
                Some(used) => at = used.end.checked_next_multiple_of(align)?,
            }
        }
    }

    fn collision(&self, start: u64, end: u64) -> Option<&Used> {
        self.used
            .iter()
            .find(|used| used.start < end && start < used.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn memory_is_split_at_three_gigabytes() {
        let layout = Layout::new(5 << 30);
        assert_eq!((layout.lowmem(), layout.highmem()), (3 << 30, 2 << 30));
        let layout = Layout::new(256 * MB);
        assert_eq!((layout.lowmem(), layout.highmem()), (256 * MB, 0));
    }

    #[test]
    fn what_is_outside_memory_is_refused() {
        let mut layout = Layout::new(5 << 30);
        for (start, len) in [
            ((3 << 30) - 1, 2),
            (3 << 30, 1),
            ((6 << 30) - 1, 2),
            (u64::MAX, 2),
            (u64::MAX - 1, 1),
        ] {
            let error = layout.reserve("x", start, len).unwrap_err();
            assert!(
                matches!(error, LayoutError::OutsideMemory { .. }),
                "{start:#x}"
            );
        }
        layout.reserve("low", (3 << 30) - 1, 1).unwrap();
        layout.reserve("high", (6 << 30) - 1, 1).unwrap();
    }

    #[test]
    fn overlaps_are_named() {
        let mut layout = Layout::new(256 * MB);
        layout.reserve("a", 0x1000, 0x1000).unwrap();
        layout.reserve("b", 0x2000, 0x1000).unwrap();
        let error = layout.reserve("c", 0x1fff, 1).unwrap_err();
        assert_eq!(error.to_string(), "c overlaps a at 0x1fff");
    }

    #[test]
    fn allocation_prefers_conventional_memory_and_then_goes_above_one_megabyte() {
        let mut layout = Layout::new(256 * MB);
        layout.reserve("boot sector", 0x7c00, 0x200).unwrap();
        assert_eq!(layout.allocate("a", 0x6000, 0x1000, 0), Ok(0x1000));
        assert_eq!(layout.allocate("b", 0x2000, 0x1000, 0), Ok(0x8000));
        assert_eq!(layout.allocate("c", MB, 0x1000, 0), Ok(MB));
        assert_eq!(layout.allocate("d", 1, 1, 0), Ok(0x7000));
        assert!(layout.allocate("e", 256 * MB, 1, 0).is_err());
        assert_eq!(
            Layout::new(0x2000).allocate("tiny", 0x2000, 1, 0).ok(),
            None
        );
    }

    #[test]
    fn high_allocation_goes_below_the_limit_and_around_what_is_there() {
        let mut layout = Layout::new(256 * MB);
        assert_eq!(
            layout.allocate_high("a", 5, 4096, u64::MAX),
            Ok(256 * MB - 4096)
        );
        assert_eq!(layout.allocate_high("b", MB, 4096, 128 * MB), Ok(127 * MB));
        layout.reserve("c", 100 * MB, 27 * MB - 1).unwrap();
        assert_eq!(layout.allocate_high("d", MB, 4096, 128 * MB), Ok(99 * MB));
        assert!(layout.allocate_high("e", 99 * MB, 4096, 128 * MB).is_err());
        assert_eq!(layout.allocate_high("f", 98 * MB, 4096, 128 * MB), Ok(MB));
        assert!(layout.allocate_high("g", 1, 1, 0x8_0000).is_err());
        assert!(layout.allocate_high("h", u64::MAX, 1, u64::MAX).is_err());
        let mut large = Layout::new(5 << 30);
        let top = (3 << 30) - 4096;
        assert_eq!(large.allocate_high("i", 4096, 4096, u64::MAX), Ok(top));
    }

    proptest! {
        #[test]
        fn nothing_ever_overlaps(
            requests in proptest::collection::vec(
                (0..3, 0u64..(20 << 20), 1u64..(2 << 20), 0u32..22), 1..20),
        ) {
            let mut layout = Layout::new(16 * MB);
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (how, at, len, shift) in requests {
                let got = match how {
                    0 => layout.reserve("r", at, len).ok().map(|()| at),
                    1 => layout.allocate("a", len, 1 << shift, at).ok(),
                    _ => layout.allocate_high("h", len, 1 << shift, at).ok(),
                };
                if let Some(start) = got {
                    prop_assert!(start + len <= 16 * MB);
                    prop_assert!(taken.iter().all(|(s, e)| start + len <= *s || *e <= start));
                    taken.push((start, start + len));
                }
            }
        }
    }
}
