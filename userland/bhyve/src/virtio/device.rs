//! What makes a virtio device a disk or a source of random numbers: its identity, its
//! features and configuration space, and what it does with a request. All else is the
//! transport's.

#![forbid(unsafe_code)]

use std::io;

use super::chain::{Chain, ChainError};
use super::queues::DeviceQueues;

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

/// A device. Requests are handled by threads of the transport, several at once if it wants
/// several threads. Queues for what comes from outside are the device's own business: it
/// gets all of them by [`VirtioDevice::attach`].
///
/// None of these methods is called with a lock of the transport held, except
/// [`VirtioDevice::ready`] and [`VirtioDevice::reset`], which come one after the other.
pub trait VirtioDevice: Send + Sync {
    fn identity(&self) -> Identity;

    /// The device's own feature bits (0 to 23, 50 and up); those of the rings are added.
    fn features(&self) -> u64;

    /// The size of each queue, powers of two.
    fn queues(&self) -> &[u16];

    /// The device's configuration space as it is at first; empty if it has none. Asked
    /// once: [`DeviceQueues::config_changed`] changes it.
    fn config(&self) -> Vec<u8>;

    /// The driver has written to the configuration space, all of it within. What it reads
    /// there is as before.
    fn config_write(&self, _offset: usize, _bytes: &[u8]) {}

    /// How many requests are handled at once.
    fn threads(&self) -> usize;

    /// Whether the transport's threads take the requests of this queue. Asked once.
    fn served(&self, _queue: usize) -> bool {
        true
    }

    /// Does what a request asks for. The answer is how many bytes were written to
    /// [`Chain::writable`]; an error is one that no status in the chain can tell, after
    /// which the driver has to reset the device.
    fn handle(&self, queue: usize, chain: Chain, features: u64) -> Result<u32, ChainError>;

    /// Called once, before any driver. Threads that the device starts must end when it is
    /// dropped; before that [`DeviceQueues::wait`] ends with `Closed`.
    fn attach(&self, _queues: DeviceQueues) -> io::Result<()> {
        Ok(())
    }

    /// The driver has added something to a queue that isn't served, it says. A vcpu waits
    /// for the answer.
    fn notified(&self, _queue: usize) {}

    /// The driver is ready (DRIVER_OK), with these features. One of before virtio 1.0 may
    /// have used queues earlier.
    fn ready(&self, _features: u64) {}

    /// The driver has reset the device. Nothing is in flight, and nothing begins before
    /// this returns.
    fn reset(&self) {}
}
