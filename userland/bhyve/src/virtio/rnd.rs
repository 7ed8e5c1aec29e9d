//! virtio-rnd (virtio 1.2, 5.4), random numbers from the host's kernel.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::chain::{Chain, ChainError};
use super::device::{Identity, VirtioDevice};
use super::function::VirtioFunction;
use crate::config::View;
use crate::pci::{DeviceContext, DeviceError, PciDevice};

/// As in bhyve(8).
pub const QUEUE_SIZE: u16 = 64;

/// The most bytes that one request gets. A driver asks again for what it misses.
pub const MOST: usize = 64 << 10;

/// The device.
pub struct Random;

impl VirtioDevice for Random {
    fn identity(&self) -> Identity {
        Identity {
            device_type: 4,
            pci_device: 0x1005,
            // Encryption, of a kind of its own.
            class: 0x10,
            subclass: 0,
        }
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn threads(&self) -> usize {
        1
    }

    fn handle(&self, _queue: usize, chain: Chain, _features: u64) -> Result<u32, ChainError> {
        if chain.writable.is_empty() || !chain.readable.is_empty() {
            return Err(ChainError::Shape(
                "a request for random numbers that isn't made of buffers to write alone",
            ));
        }
        let len = usize::try_from(chain.writable.len()).map_or(MOST, |len| len.min(MOST));
        let mut bytes = vec![0; len];
        // A host without random numbers gives none, rather than some that aren't.
        if getrandom::fill(&mut bytes).is_err() {
            return Ok(0);
        }
        Ok(chain.writable.copy_to(&bytes).map_or(0, |len| len as u32))
    }
}

/// `virtio-rnd`.
pub fn virtio_rnd(_: &View<'_>, context: DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError> {
    let threads = format!("vtrnd-{}:{}", context.at.slot, context.at.function);
    Ok(VirtioFunction::new(Box::new(Random), context, &threads)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::tests::guest::{Guest, Version, device, into, out};

    #[test]
    fn each_request_gets_other_numbers_up_to_a_limit() {
        for version in [Version::Legacy, Version::Modern] {
            let g = Guest::new(version, device("virtio-rnd"), "");
            let mut ring = g.start(0);
            let (a, b) = (g.room(32, 1), g.room(32, 1));
            assert_eq!(ring.request(&g, &[into(a, 16), into(b, 16)]), 32);
            let first = [g.bytes(a, 16), g.bytes(b, 16)];
            assert_eq!(ring.request(&g, &[into(a, 32)]), 32);
            assert_ne!(g.bytes(a, 16), first[0]);
            assert_ne!(first[0], first[1]);
            let large = g.room(1 << 20, 1);
            assert_eq!(ring.request(&g, &[into(large, 1 << 20)]), MOST as u32);
        }
    }

    #[test]
    fn a_request_with_something_to_read_or_nothing_to_write_is_a_mistake() {
        let g = Guest::new(Version::Modern, device("virtio-rnd"), "");
        let at = g.room(8, 1);
        for parts in [
            &[out(at, 8)][..],
            &[out(at, 4), into(at, 4)],
            &[into(at, 0)],
        ] {
            let mut ring = g.start(0);
            ring.send(&g, parts);
            g.wait_for_needs_reset();
        }
    }
}
