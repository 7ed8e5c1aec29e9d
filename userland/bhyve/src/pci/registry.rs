//! The PCI devices there are, by the names that `-s` knows them under.

#![forbid(unsafe_code)]

use super::device::Constructor;
use super::{hostbridge, lpc};
use crate::virtio;

/// A kind of device. There is one of each, in [`DEVICES`].
#[derive(Debug)]
pub struct DeviceType {
    pub name: &'static str,
    pub new: Constructor,
}

impl PartialEq for DeviceType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for DeviceType {}

/// All of them, as `-s help` lists them.
pub static DEVICES: [DeviceType; 5] = [
    DeviceType {
        name: "amd_hostbridge",
        new: hostbridge::new_amd,
    },
    DeviceType {
        name: "hostbridge",
        new: hostbridge::new,
    },
    DeviceType {
        name: lpc::NAME,
        new: lpc::new,
    },
    DeviceType {
        name: "virtio-blk",
        new: virtio::block::virtio_blk,
    },
    DeviceType {
        name: "virtio-rnd",
        new: virtio::rnd::virtio_rnd,
    },
];

/// The device of that name.
pub fn find(name: &str) -> Option<&'static DeviceType> {
    DEVICES.iter().find(|device| device.name == name)
}
