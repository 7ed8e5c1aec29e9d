//! The PCI devices there are, by the names that `-s` knows them under.

#![forbid(unsafe_code)]

use super::device::Constructor;

/// A kind of device.
pub struct DeviceType {
    pub name: &'static str,
    pub new: Constructor,
}

/// All of them, as `-s help` lists them.
pub const DEVICES: &[DeviceType] = &[];
