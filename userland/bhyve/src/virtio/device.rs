//! What makes a virtio device a disk or a source of random numbers: its identity, its
//! features and configuration space, and what it does with a request. All else is the
//! transport's.

#![forbid(unsafe_code)]

use super::chain::{Chain, ChainError};

/// How a device is found on PCI (virtio 1.2, 4.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The type of device (5), which a legacy driver finds as PCI subsystem.
    pub device_type: u16,
    /// The PCI device ID of the transitional device.
    pub pci_device: u16,
    /// PCI class and subclass.
    pub class: u8,
    pub subclass: u8,
}

/// A device. Its requests are handled by threads of the transport, several at once if it
/// wants several threads.
pub trait VirtioDevice: Send + Sync {
    fn identity(&self) -> Identity;

    /// The device's own feature bits (0 to 23, 50 and up); those of the rings are added.
    fn features(&self) -> u64;

    /// The size of each queue, powers of two.
    fn queues(&self) -> &[u16];

    /// The device's configuration space, which drivers only read. Empty if it has none.
    fn config(&self) -> &[u8];

    /// How many requests are handled at once.
    fn threads(&self) -> usize;

    /// Does what a request asks for. The answer is how many bytes were written to
    /// [`Chain::writable`]; an error is one that no status in the chain can tell, after
    /// which the driver has to reset the device.
    fn handle(&self, queue: usize, chain: Chain, features: u64) -> Result<u32, ChainError>;
}
