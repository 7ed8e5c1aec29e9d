//! A card's variables, and its configuration space (virtio 1.2, 5.1.4).

#![forbid(unsafe_code)]

use crate::config::View;
use crate::net::mac::MacAddress;
use crate::net::{ETHERMTU, MAX_MTU, MIN_MTU};
use crate::pci::{Bdf, DeviceError};

/// VIRTIO_NET_S_LINK_UP.
const LINK_UP: u16 = 1;
const MAC_LEN: usize = 6;

/// What the variables say of the card itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    pub mac: MacAddress,
    /// What the driver is to use, if it is told.
    pub mtu: Option<u16>,
}

impl Settings {
    pub fn read(config: &View<'_>, at: Bdf) -> Result<Self, DeviceError> {
        let mac = match config.get("mac") {
            Some(text) => MacAddress::parse(&text).map_err(|error| error.to_string())?,
            None => {
                let vm = config.global("name").unwrap_or_default();
                MacAddress::generate(at.slot, at.function, &vm)
            }
        };
        let mtu = config.number("mtu", MIN_MTU, MAX_MTU)?;
        Ok(Self {
            mac,
            // Within MAX_MTU.
            mtu: mtu.map(|mtu| mtu as u16),
        })
    }
}

/// The configuration space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    mac: [u8; MAC_LEN],
    status: u16,
    mtu: u16,
}

impl Config {
    pub fn new(settings: &Settings, link: bool) -> Self {
        Self {
            mac: settings.mac.bytes(),
            status: if link { LINK_UP } else { 0 },
            mtu: settings.mtu.unwrap_or(ETHERMTU),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let one_pair = 1_u16.to_le_bytes();
        [
            &self.mac[..],
            &self.status.to_le_bytes(),
            &one_pair,
            &self.mtu.to_le_bytes(),
        ]
        .concat()
    }

    /// A driver writes. True: the address has changed, as bhyve(8) lets it.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let end = offset.saturating_add(bytes.len());
        match self.mac.get_mut(offset..end) {
            Some(part) => {
                part.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }

    pub fn link_down(&mut self) {
        self.status = 0;
    }
}
