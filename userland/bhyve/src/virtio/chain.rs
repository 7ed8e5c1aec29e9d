//! Chains of descriptors (virtio 1.2, 2.7.5): a request as it lies in guest memory. Each
//! descriptor is read once and checked whole; what comes out are pieces of memory that
//! exist. A chain that breaks a rule is an error that says which one.

#![forbid(unsafe_code)]

use std::fmt;

use vmmapi::{Error, Gpa, GuestMemory, GuestRange};

/// The most descriptors of a chain, those of an indirect table included.
pub const MAX_DESCRIPTORS: usize = 1024;

/// Bytes of a descriptor.
pub const DESCRIPTOR_LEN: usize = 16;

const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;
const F_INDIRECT: u16 = 4;

/// Why a chain makes no sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChainError {
    /// A descriptor's number that its table hasn't got.
    Index { index: u16, entries: usize },
    /// More descriptors than a chain can have: they form a loop, most likely.
    TooLong { most: usize },
    /// A buffer where there is no memory.
    NoMemory { gpa: u64, len: u32 },
    /// The device may write to a buffer, but not to one behind it.
    ReadableBehindWritable,
    /// The driver hasn't negotiated indirect tables.
    IndirectNotNegotiated,
    /// A descriptor of an indirect table refers to an indirect table.
    IndirectTwice,
    /// A descriptor refers to an indirect table and to a next descriptor.
    IndirectAndNext,
    /// An indirect table whose length isn't that of some descriptors.
    IndirectLen(u32),
    /// What the device expects isn't in the chain.
    Shape(&'static str),
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index { index, entries } => {
                write!(f, "descriptor {index} of a table of {entries}")
            }
            Self::TooLong { most } => write!(f, "a chain of more than {most} descriptors"),
            Self::NoMemory { gpa, len } => {
                write!(
                    f,
                    "a buffer of {len} bytes at {gpa:#x}, where there is no memory"
                )
            }
            Self::ReadableBehindWritable => {
                f.write_str("a buffer to read behind one to write in the same chain")
            }
            Self::IndirectNotNegotiated => {
                f.write_str("an indirect descriptor, which was not negotiated")
            }
            Self::IndirectTwice => f.write_str("an indirect descriptor in an indirect table"),
            Self::IndirectAndNext => f.write_str("an indirect descriptor that has a next one"),
            Self::IndirectLen(len) => write!(f, "an indirect table of {len} bytes"),
            Self::Shape(what) => f.write_str(what),
        }
    }
}

/// Guest memory in several pieces, as one run of bytes.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Vec<GuestRange>);

impl Buffers {
    pub fn ranges(&self) -> &[GuestRange] {
        &self.0
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|range| range.len() as u64).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first `at` bytes and the rest; `None` if there are fewer.
    pub fn split_at(mut self, at: u64) -> Option<(Self, Self)> {
        let mut left = at;
        for n in 0..self.0.len() {
            let len = self.0[n].len() as u64;
            if left < len {
                let mut rest = self.0.split_off(n);
                // Smaller than the length of a range, which is a usize.
                let left = left as usize;
                if left > 0 {
                    self.0.push(rest[0].slice(0, left).ok()?);
                    rest[0] = rest[0].slice(left, rest[0].len() - left).ok()?;
                }
                return Some((self, Self(rest)));
            }
            left -= len;
        }
        (left == 0).then(|| (self, Self::default()))
    }

    /// Copies bytes of the guest to `to`, from the beginning on; as many as both have.
    pub fn copy_from(&self, mut to: &mut [u8]) -> Result<usize, Error> {
        let wanted = to.len();
        for range in &self.0 {
            let (now, later) = to.split_at_mut(range.len().min(to.len()));
            range.copy_from(0, now)?;
            to = later;
        }
        Ok(wanted - to.len())
    }

    /// Copies bytes to the guest, from the beginning on; as many as both have.
    pub fn copy_to(&self, mut from: &[u8]) -> Result<usize, Error> {
        let given = from.len();
        for range in &self.0 {
            let (now, later) = from.split_at(range.len().min(from.len()));
            range.copy_to(0, now)?;
            from = later;
        }
        Ok(given - from.len())
    }

    fn push(&mut self, range: GuestRange) {
        self.0.push(range);
    }
}

/// A request: what the device may read, and what it may write.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The number of the first descriptor, by which the driver gets the chain back.
    pub head: u16,
    pub readable: Buffers,
    pub writable: Buffers,
}

impl Chain {
    /// The chain that begins at `head` of a descriptor table.
    pub(super) fn read(
        memory: &GuestMemory,
        table: &GuestRange,
        head: u16,
        indirect: bool,
    ) -> Result<Self, ChainError> {
        let mut chain = Self {
            head,
            readable: Buffers::default(),
            writable: Buffers::default(),
        };
        let mut walk = Walk::new(table, head);
        while let Some(descriptor) = walk.next()? {
            if descriptor.flags & F_INDIRECT == 0 {
                chain.add(memory, &descriptor)?;
                continue;
            }
            if !indirect {
                return Err(ChainError::IndirectNotNegotiated);
            }
            if descriptor.flags & F_NEXT != 0 {
                return Err(ChainError::IndirectAndNext);
            }
            let len = descriptor.len;
            if len == 0 || len as usize % DESCRIPTOR_LEN != 0 {
                return Err(ChainError::IndirectLen(len));
            }
            let table = descriptor.memory(memory)?;
            let mut walk = Walk::new(&table, 0);
            while let Some(descriptor) = walk.next()? {
                if descriptor.flags & F_INDIRECT != 0 {
                    return Err(ChainError::IndirectTwice);
                }
                chain.add(memory, &descriptor)?;
            }
        }
        Ok(chain)
    }

    fn add(&mut self, memory: &GuestMemory, descriptor: &Descriptor) -> Result<(), ChainError> {
        let writable = descriptor.flags & F_WRITE != 0;
        if !writable && !self.writable.is_empty() {
            return Err(ChainError::ReadableBehindWritable);
        }
        // Without bytes it says nothing, wherever it points.
        if descriptor.len > 0 {
            let range = descriptor.memory(memory)?;
            if writable {
                self.writable.push(range);
            } else {
                self.readable.push(range);
            }
        }
        Ok(())
    }
}

/// A descriptor, as it was when it was read.
struct Descriptor {
    gpa: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn memory(&self, memory: &GuestMemory) -> Result<GuestRange, ChainError> {
        memory
            .slice(Gpa(self.gpa), self.len as usize)
            .map_err(|_| ChainError::NoMemory {
                gpa: self.gpa,
                len: self.len,
            })
    }
}

/// The way through one table.
struct Walk<'a> {
    table: &'a GuestRange,
    next: Option<u16>,
    /// How many descriptors may still come.
    left: usize,
}

impl<'a> Walk<'a> {
    fn new(table: &'a GuestRange, head: u16) -> Self {
        Self {
            table,
            next: Some(head),
            left: Self::most(table),
        }
    }

    /// A chain through a table is no longer than the table.
    fn most(table: &GuestRange) -> usize {
        (table.len() / DESCRIPTOR_LEN).min(MAX_DESCRIPTORS)
    }

    fn next(&mut self) -> Result<Option<Descriptor>, ChainError> {
        let Some(index) = self.next else {
            return Ok(None);
        };
        let mut bytes = [0; DESCRIPTOR_LEN];
        self.table
            .copy_from(usize::from(index) * DESCRIPTOR_LEN, &mut bytes)
            .map_err(|_| ChainError::Index {
                index,
                entries: self.table.len() / DESCRIPTOR_LEN,
            })?;
        self.left = self.left.checked_sub(1).ok_or(ChainError::TooLong {
            most: Self::most(self.table),
        })?;
        let [
            a0,
            a1,
            a2,
            a3,
            a4,
            a5,
            a6,
            a7,
            l0,
            l1,
            l2,
            l3,
            f0,
            f1,
            n0,
            n1,
        ] = bytes;
        let descriptor = Descriptor {
            gpa: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        };
        self.next = (descriptor.flags & F_NEXT != 0).then_some(descriptor.next);
        Ok(Some(descriptor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_split_anywhere() {
        let memory = GuestMemory::anonymous(&[(Gpa(0), 4096)]).unwrap();
        memory.copy_to(Gpa(0), b"abcdefgh").unwrap();
        let pieces = [(4, 1), (0, 3), (5, 2)];
        let buffers = || {
            Buffers(
                pieces
                    .map(|(at, len)| memory.slice(Gpa(at), len).unwrap())
                    .into(),
            )
        };
        let text = |buffers: Buffers| {
            let mut bytes = vec![0; buffers.len() as usize + 1];
            let copied = buffers.copy_from(&mut bytes).unwrap();
            bytes.truncate(copied);
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(text(buffers()), "eabcfg");
        for at in 0..=6 {
            let (left, right) = buffers().split_at(at).unwrap();
            let expected = "eabcfg".split_at(at as usize);
            assert_eq!((text(left).as_str(), text(right).as_str()), expected);
        }
        assert!(buffers().split_at(7).is_none());
        assert_eq!(buffers().copy_to(b"12345678").unwrap(), 6);
        let mut bytes = [0; 8];
        memory.copy_from(Gpa(0), &mut bytes).unwrap();
        assert_eq!(&bytes, b"234d156h");
    }
}
