//! What lies before each frame in a chain (virtio 1.2, 5.1.6): flags and sizes for
//! checksums and segmentation, which this card leaves to the guest and so are all zero, and
//! in how many buffers the frame is.

#![forbid(unsafe_code)]

use super::feature;
use crate::virtio::feature::VERSION_1;

/// With the number of buffers.
pub const MAX_LEN: usize = 12;
const LEGACY_LEN: usize = 10;
const NUM_BUFFERS: usize = 10;

/// Bytes of the header: a legacy driver has the number of buffers only if it has agreed to
/// several (5.1.6.1).
pub fn len(features: u64) -> usize {
    if features & (VERSION_1 | feature::MRG_RXBUF) != 0 {
        MAX_LEN
    } else {
        LEGACY_LEN
    }
}

/// Writes the header into the first [`MAX_LEN`] bytes. The answer is what goes to the
/// guest: the header, which begins at `start`, and the frame.
pub fn put(buffer: &mut [u8], start: usize, buffers: u16) -> Option<&[u8]> {
    let header = buffer.get_mut(..MAX_LEN)?;
    header.fill(0);
    if start == 0 {
        header
            .get_mut(NUM_BUFFERS..)?
            .copy_from_slice(&buffers.to_le_bytes());
    }
    buffer.get(start..)
}
