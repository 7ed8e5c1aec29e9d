//! virtio-rnd (virtio 1.2, 5.4), random numbers from the host's kernel.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::chain::{Chain, ChainError};
use super::device::{Identity, VirtioDevice};
use super::function::VirtioFunction;
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

    fn config(&self) -> &[u8] {
        &[]
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
pub fn virtio_rnd(text: &str, context: DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError> {
    if !text.is_empty() {
        return Err(format!("virtio-rnd has no options, and so not \"{text}\"").into());
    }
    let threads = format!("rnd-{}:{}", context.at.slot, context.at.function);
    Ok(VirtioFunction::new(Box::new(Random), context, &threads)?)
}
