//! The host bridge of bhyve: a function that only shows itself. Its PCI Express capability
//! tells guests that this is a machine on which message-signalled interrupts work.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::device::{Capability, DeviceContext, DeviceError, FunctionSpec, Header, PciDevice};
use crate::config::{ConfigError, View};
use crate::ports::Width;

const CLASS_BRIDGE: u8 = 6;
const SUBCLASS_HOST: u8 = 0;

/// The PCI Express capability (PCI Express Base 3.0, 7.8).
const EXPRESS: u8 = 0x10;
const EXPRESS_LEN: usize = 60;
const EXPRESS_VERSION: u16 = 2;
const EXPRESS_ROOT_PORT: u16 = 4 << 4;
/// Link capabilities and status: 2.5 GT/s, one lane, ASPM L0s.
const LINK_CAPABILITIES: u32 = 0x411;
const LINK_STATUS: u16 = 0x11;

struct HostBridge {
    vendor: u16,
    device: u16,
}

/// `hostbridge`.
pub fn new(config: &View<'_>, _: DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError> {
    bridge(config, 0x1275, 0x1275)
}

/// `amd_hostbridge`: the same with AMD's vendor ID, for guests that look at it.
pub fn new_amd(config: &View<'_>, _: DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError> {
    bridge(config, 0x1022, 0x7432)
}

fn bridge(config: &View<'_>, vendor: u16, device: u16) -> Result<Arc<dyn PciDevice>, DeviceError> {
    let id = |name, default| {
        let id = config.number(name, 0, 0xffff)?;
        Ok::<u16, ConfigError>(id.and_then(|id| id.try_into().ok()).unwrap_or(default))
    };
    Ok(Arc::new(HostBridge {
        vendor: id("vendor", vendor)?,
        device: id("devid", device)?,
    }))
}

impl PciDevice for HostBridge {
    fn spec(&self) -> FunctionSpec {
        FunctionSpec {
            header: Header {
                vendor: self.vendor,
                device: self.device,
                class: CLASS_BRIDGE,
                subclass: SUBCLASS_HOST,
                ..Header::default()
            },
            capabilities: vec![express()],
            ..FunctionSpec::default()
        }
    }

    fn bar_read(&self, _bar: usize, _offset: u64, width: Width) -> u32 {
        width.mask()
    }

    fn bar_write(&self, _bar: usize, _offset: u64, _width: Width, _value: u32) {}
}

fn express() -> Capability {
    // Offsets are those of the specification, less ID and next pointer.
    let mut contents = vec![0; EXPRESS_LEN - 2];
    let mut put =
        |at: usize, bytes: &[u8]| contents[at - 2..at - 2 + bytes.len()].copy_from_slice(bytes);
    put(2, &(EXPRESS_VERSION | EXPRESS_ROOT_PORT).to_le_bytes());
    put(0x0c, &LINK_CAPABILITIES.to_le_bytes());
    put(0x12, &LINK_STATUS.to_le_bytes());
    Capability {
        id: EXPRESS,
        contents,
        writable: Vec::new(),
    }
}
