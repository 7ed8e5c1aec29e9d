//! virtio devices (OASIS virtio 1.2) on PCI, transitional: a driver finds the registers of
//! virtio 0.9.5 in an I/O BAR, as FreeBSD's bhyve has them, and those of 1.x in a memory BAR.
//! In reading order: rings in guest memory ([`queue`]) with chains of descriptors
//! ([`chain`]); what a device is ([`device`]); what drivers of either version set up
//! ([`state`]), the threads that serve the rings ([`transport`]), and rings that a device
//! serves by itself ([`queues`]); the two register layouts ([`legacy`],
//! [`modern`]) and the PCI function that has both ([`function`]); then the devices: disks
//! ([`block`]), network cards ([`net`]), ports between programs ([`console`]) and random
//! numbers ([`rnd`]).
//!
//! The rings are our own and not rust-vmm's virtio-queue: its iterator over a chain ends
//! without a word at a descriptor that makes no sense, so that a device can't tell a broken
//! chain from a short one; and vm-memory 0.18, which it works on, doesn't build its
//! mappings for FreeBSD.

#![forbid(unsafe_code)]

pub mod block;
pub mod chain;
pub mod console;
pub mod device;
pub mod function;
pub mod legacy;
pub mod modern;
pub mod net;
pub mod queue;
pub mod queues;
pub mod rnd;
mod state;
pub mod transport;

#[cfg(test)]
pub mod tests;

/// Feature bits that belong to rings and transport (6).
pub mod feature {
    /// A request may be divided into descriptors in any way (2.7.4.3, legacy drivers).
    pub const ANY_LAYOUT: u64 = 1 << 27;
    /// VIRTIO_F_INDIRECT_DESC.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// VIRTIO_F_EVENT_IDX.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// VIRTIO_F_VERSION_1.
    pub const VERSION_1: u64 = 1 << 32;
}
