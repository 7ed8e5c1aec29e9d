//! DATA SET MANAGEMENT with TRIM (ATA8-ACS, 7.10): a block of ranges that the guest doesn't
//! need any more.

#![forbid(unsafe_code)]

use crate::block::Disk;
use crate::buffers::Buffers;

/// Bytes of a block of ranges. A command has one.
pub const BLOCK: usize = 512;
/// Bytes of a range: 48 bits of address, 16 of sectors.
const RANGE: usize = 8;

/// The ranges of a block in bytes, all of them within the disk.
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// `None`: a range isn't on the disk.
    pub fn read(data: &Buffers, disk: &Disk) -> Option<Self> {
        let mut block = [0; BLOCK];
        // Ranges of memory that exists.
        data.copy_from(&mut block).ok()?;
        let sector = u64::from(disk.sector());
        let mut ranges = Vec::new();
        for entry in block.chunks_exact(RANGE) {
            let &[l0, l1, l2, l3, l4, l5, n0, n1] = entry else {
                return None;
            };
            let lba = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, 0, 0]);
            let sectors = u64::from(u16::from_le_bytes([n0, n1]));
            // One of no sectors is padding.
            if sectors > 0 {
                let (offset, len) = (lba.checked_mul(sector)?, sectors * sector);
                if offset.checked_add(len)? > disk.size() {
                    return None;
                }
                ranges.push((offset, len));
            }
        }
        Some(Self(ranges))
    }

    /// Offset and length of each.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }
}
