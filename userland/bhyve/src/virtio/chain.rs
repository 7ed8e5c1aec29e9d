//! Chains of descriptors (virtio 1.2, 2.7.5): a request as it lies in guest memory. Each
//! descriptor is read once and checked whole; what comes out are pieces of memory that
//! exist. A chain that breaks a rule is an error that says which one.

#![forbid(unsafe_code)]

use std::fmt;

use vmmapi::{Gpa, GuestMemory, GuestRange};

pub use crate::buffers::Buffers;

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
