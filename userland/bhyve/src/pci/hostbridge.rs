//! The host bridge of bhyve: a function that only shows itself. Its PCI Express capability
//! tells guests that this is a machine on which message-signalled interrupts work.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::device::pcireg;
use super::device::{Capability, DeviceContext, DeviceError, FunctionSpec, Header, PciDevice};
use crate::config::{ConfigError, NodeMut, View};
use crate::ports::Width;

/// The bridge's IDs, both of them.
const NETAPP: u16 = 0x1275;
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
    let id = |name, register| -> Result<u16, ConfigError> {
        let from_register = pcireg(config, register)?;
        let id = config.number(name, 0, 0xffff)?.map(|id| id as u16);
        Ok(id.or(from_register).unwrap_or(NETAPP))
    };
    Ok(Arc::new(HostBridge {
        vendor: id("vendor", "vendor")?,
        device: id("devid", "device")?,
    }))
}

/// `amd_hostbridge`: the same with AMD's vendor ID, for guests that look at it.
pub fn amd_options(node: &mut NodeMut<'_>, _: Option<&str>) -> Result<(), DeviceError> {
    let mut registers = node.node("pcireg")?;
    registers.set("vendor", "0x1022")?;
    Ok(registers.set("device", "0x7432")?)
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
