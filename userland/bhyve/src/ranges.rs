//! Ranges of addresses and who owns them: what the bus of ports and the bus of
//! memory-mapped devices have in common. Ranges never overlap.

#![forbid(unsafe_code)]

use std::sync::Arc;

struct Range<T: ?Sized> {
    first: u64,
    /// Its last address, so that a range can end with the address space.
    last: u64,
    name: String,
    owner: Arc<T>,
}

/// Ranges by their first address: a sorted array, because they are looked up with every
/// access and seldom change.
pub struct RangeMap<T: ?Sized> {
    ranges: Vec<Range<T>>,
}

impl<T: ?Sized> Default for RangeMap<T> {
    fn default() -> Self {
        Self { ranges: Vec::new() }
    }
}

/// An address of the new range has an owner already, or it has no address at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Overlap {
    Taken {
        name: String,
        by: String,
        at: u64,
    },
    /// Empty, or beyond the last address.
    NoAddress {
        name: String,
    },
}

impl<T: ?Sized> RangeMap<T> {
    /// Gives `len` addresses from `first` on to an owner.
    pub fn insert(
        &mut self,
        name: String,
        first: u64,
        len: u64,
        owner: Arc<T>,
    ) -> Result<(), Overlap> {
        let Some(last) = len.checked_sub(1).and_then(|more| first.checked_add(more)) else {
            return Err(Overlap::NoAddress { name });
        };
        // Ranges don't overlap each other, so that the last one to begin before the new
        // one's end is the last one to end, too.
        if let Some(range) = self.last_before(last) {
            if range.last >= first {
                return Err(Overlap::Taken {
                    name,
                    by: range.name.clone(),
                    at: first.max(range.first),
                });
            }
        }
        let range = Range {
            first,
            last,
            name,
            owner,
        };
        let at = self.ranges.partition_point(|range| range.first < first);
        self.ranges.insert(at, range);
        Ok(())
    }

    /// Takes back the range that begins there; whether there was one.
    pub fn remove(&mut self, first: u64) -> bool {
        let at = self
            .ranges
            .binary_search_by_key(&first, |range| range.first);
        at.map(|at| self.ranges.remove(at)).is_ok()
    }

    /// Who owns all `len` addresses from `at` on, and how far into the range they are.
    pub fn find(&self, at: u64, len: u64) -> Option<(&Arc<T>, u64)> {
        let last = at.checked_add(len.checked_sub(1)?)?;
        let range = self.last_before(at)?;
        (last <= range.last).then(|| (&range.owner, at - range.first))
    }

    /// The last range that begins at `at` or before.
    fn last_before(&self, at: u64) -> Option<&Range<T>> {
        let behind = self.ranges.partition_point(|range| range.first <= at);
        self.ranges[..behind].last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[(u64, u64)]) -> RangeMap<u64> {
        let mut map = RangeMap::default();
        for (first, len) in ranges {
            map.insert(format!("{first:#x}"), *first, *len, Arc::new(*first))
                .unwrap();
        }
        map
    }

    #[test]
    fn owners_are_found_by_any_of_their_addresses() {
        let map = map(&[(0x10, 0x10), (0x20, 8), (u64::MAX - 3, 4)]);
        let find = |at, len| map.find(at, len).map(|(owner, offset)| (**owner, offset));
        assert_eq!(find(0x1f, 1), Some((0x10, 0xf)));
        assert_eq!(find(0x20, 8), Some((0x20, 0)));
        assert_eq!(find(0x1f, 2), None, "two owners");
        assert_eq!(find(0x28, 1), None);
        assert_eq!(find(0xf, 1), None);
        assert_eq!(find(u64::MAX, 1), Some((u64::MAX - 3, 3)));
        assert_eq!(find(u64::MAX, 2), None);
        assert_eq!(find(0x10, 0), None);
    }

    #[test]
    fn overlaps_are_refused_by_name() {
        let mut map = map(&[(0x10, 0x10), (0x30, 0x10)]);
        for (first, len, by, at) in [
            (0x1f, 2, "0x10", 0x1f),
            (0, 0x11, "0x10", 0x10),
            (0, 0x100, "0x30", 0x30),
            (0x38, 1, "0x30", 0x38),
        ] {
            let refused = map.insert("new".into(), first, len, Arc::new(0));
            let (name, by) = ("new".into(), by.into());
            assert_eq!(refused, Err(Overlap::Taken { name, by, at }));
        }
        for (first, len) in [(0, 0), (u64::MAX, 2)] {
            let refused = map.insert("new".into(), first, len, Arc::new(0));
            assert_eq!(refused, Err(Overlap::NoAddress { name: "new".into() }));
        }
        map.insert("between".into(), 0x20, 0x10, Arc::new(0))
            .unwrap();
        assert!(map.remove(0x10));
        assert!(!map.remove(0x11), "in the middle of one");
        assert!(map.remove(0x20));
        map.insert("before".into(), 0, 0x30, Arc::new(0)).unwrap();
    }
}
