//! A disk's configuration space (virtio 1.2, 5.2.4): size, sectors, limits of requests.

#![forbid(unsafe_code)]

use super::QUEUE_SIZE;
use crate::block::Disk;

/// Up to and with the limits of write-zeroes requests.
pub const CONFIG_LEN: usize = 60;

/// The unit of sizes and positions, whatever the disk's sectors are (5.2.4).
pub const SECTOR: u64 = 512;

/// The most ranges of a discard or write-zeroes request.
pub const MAX_RANGES: u32 = 32;
/// And the most sectors of a range: 16 MiB, as in bhyve(8), so that no request takes long.
pub const MAX_RANGE_SECTORS: u32 = (16 << 20) / SECTOR as u32;

/// Of the made-up geometry.
const HEADS: u8 = 16;
const SECTORS_PER_TRACK: u8 = 63;

/// What a driver reads.
pub fn config(disk: &Disk) -> [u8; CONFIG_LEN] {
    let sectors = disk.size() / SECTOR;
    let cylinder = u64::from(HEADS) * u64::from(SECTORS_PER_TRACK);
    let cylinders = u16::try_from(sectors / cylinder).unwrap_or(u16::MAX);
    let logical = u64::from(disk.sector());
    let (physical, physical_offset) = disk.physical();
    // A size that is no power of two can't be told.
    let per_physical = physical.checked_div(logical).unwrap_or(0).max(1);
    let exponent = if per_physical.is_power_of_two() {
        per_physical.trailing_zeros() as u8
    } else {
        0
    };
    // How many logical sectors come before the first physical one.
    let aligned_at = if physical_offset == 0 || physical_offset >= physical {
        0
    } else {
        u8::try_from((physical - physical_offset) / logical).unwrap_or(0)
    };
    let discard_alignment = u32::try_from(physical.max(logical) / SECTOR).unwrap_or(1);
    // Two descriptors of a chain are header and status.
    let segments = u32::from(QUEUE_SIZE) - 2;
    let (range, ranges) = (MAX_RANGE_SECTORS.to_le_bytes(), MAX_RANGES.to_le_bytes());

    let mut config = [0; CONFIG_LEN];
    let fields: [(usize, &[u8]); 14] = [
        (0, &sectors.to_le_bytes()),
        (12, &segments.to_le_bytes()),
        (16, &cylinders.to_le_bytes()),
        (18, &[HEADS, SECTORS_PER_TRACK]),
        (20, &disk.sector().to_le_bytes()),
        (24, &[exponent]),
        (25, &[aligned_at]),
        (34, &1_u16.to_le_bytes()),
        (36, &range),
        (40, &ranges),
        (44, &discard_alignment.to_le_bytes()),
        (48, &range),
        (52, &ranges),
        // Write-zeroes with the flag may give space back.
        (56, &[u8::from(disk.can_discard())]),
    ];
    for (at, bytes) in fields {
        config[at..at + bytes.len()].copy_from_slice(bytes);
    }
    config
}
