//! The PCI devices there are, by the names that `-s` knows them under.

#![forbid(unsafe_code)]

use super::device::{Constructor, OptionParser, plain_options};
use super::{hostbridge, lpc, uart};
use crate::{ahci, block, net, virtio};

/// A kind of device. There is one of each, in [`DEVICES`].
#[derive(Debug)]
pub struct DeviceType {
    pub name: &'static str,
    /// The name that its variable `device` gets, where that is another one: `ahci-hd` is an
    /// `ahci` with a port.
    pub alias: Option<&'static str>,
    pub options: OptionParser,
    pub new: Constructor,
}

impl PartialEq for DeviceType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for DeviceType {}

/// All of them, as `-s help` lists them.
pub static DEVICES: &[DeviceType] = &[
    DeviceType {
        name: "ahci",
        alias: None,
        options: ahci::options::parse,
        new: ahci::ahci,
    },
    DeviceType {
        name: "ahci-cd",
        alias: Some("ahci"),
        options: ahci::options::parse_cd,
        new: ahci::ahci,
    },
    DeviceType {
        name: "ahci-hd",
        alias: Some("ahci"),
        options: ahci::options::parse_hd,
        new: ahci::ahci,
    },
    DeviceType {
        name: "amd_hostbridge",
        alias: Some("hostbridge"),
        options: hostbridge::amd_options,
        new: hostbridge::new,
    },
    DeviceType {
        name: "hostbridge",
        alias: None,
        options: plain_options,
        new: hostbridge::new,
    },
    DeviceType {
        name: lpc::NAME,
        alias: None,
        options: plain_options,
        new: lpc::new,
    },
    DeviceType {
        name: "uart",
        alias: None,
        options: uart::options,
        new: uart::new,
    },
    DeviceType {
        name: "virtio-blk",
        alias: None,
        options: block::options::parse,
        new: virtio::block::virtio_blk,
    },
    DeviceType {
        name: "virtio-console",
        alias: None,
        options: virtio::console::options::parse,
        new: virtio::console::virtio_console,
    },
    DeviceType {
        name: "virtio-net",
        alias: None,
        options: net::options,
        new: virtio::net::virtio_net,
    },
    DeviceType {
        name: "virtio-rnd",
        alias: None,
        options: plain_options,
        new: virtio::rnd::virtio_rnd,
    },
];

/// The device of that name.
pub fn find(name: &str) -> Option<&'static DeviceType> {
    DEVICES.iter().find(|device| device.name == name)
}
