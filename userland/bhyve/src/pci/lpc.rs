//! The PCI-ISA bridge (the PIIX3's identity, as in bhyve): of its configuration registers
//! there are those of the interrupt router, PIRQA to PIRQD at 0x60 and PIRQE to PIRQH at
//! 0x68 (ICH10 datasheet, 13.1.17). The devices behind it have fixed ports and are on the
//! port bus.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::device::{DeviceContext, DeviceError, FunctionSpec, Header, PciDevice, pcireg};
use super::pirq::PirqRouter;
use crate::config::{ConfigError, View};
use crate::ports::Width;

/// Its name in `-s`.
pub const NAME: &str = "lpc";

const CLASS_BRIDGE: u8 = 6;
const SUBCLASS_ISA: u8 = 1;
const PIRQA_ROUT: u8 = 0x60;
const PIRQE_ROUT: u8 = 0x68;

struct Lpc {
    header: Header,
    router: Arc<PirqRouter>,
}

/// `lpc`. It is on bus 0, as its DSDT object covers the ISA bus' ports there. `pcireg` may
/// give it another identity.
pub fn new(config: &View<'_>, context: DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError> {
    if context.at.bus != 0 {
        return Err("the LPC bridge can be on bus 0 only".into());
    }
    let id = |name, default| -> Result<u16, ConfigError> {
        Ok(pcireg(config, name)?.unwrap_or(default))
    };
    Ok(Arc::new(Lpc {
        header: Header {
            vendor: id("vendor", 0x8086)?,
            device: id("device", 0x7000)?,
            class: CLASS_BRIDGE,
            subclass: SUBCLASS_ISA,
            revision: id("revid", 0)? as u8,
            subsystem_vendor: id("subvendor", 0)?,
            subsystem: id("subdevice", 0)?,
            ..Header::default()
        },
        router: context.router,
    }))
}

/// The router's input that a register is of.
fn pirq(register: u8) -> Option<u8> {
    match register {
        PIRQA_ROUT..0x64 => Some(register - PIRQA_ROUT),
        PIRQE_ROUT..0x6c => Some(register - PIRQE_ROUT + 4),
        _ => None,
    }
}

impl PciDevice for Lpc {
    fn spec(&self) -> FunctionSpec {
        FunctionSpec {
            header: self.header,
            ..FunctionSpec::default()
        }
    }

    fn bar_read(&self, _bar: usize, _offset: u64, width: Width) -> u32 {
        width.mask()
    }

    fn bar_write(&self, _bar: usize, _offset: u64, _width: Width, _value: u32) {}

    fn config_read(&self, register: u8) -> Option<u8> {
        pirq(register).map(|pirq| self.router.read(pirq))
    }

    fn config_write(&self, register: u8, value: u8) -> Option<u8> {
        self.router.write(pirq(register)?, value);
        None
    }
}
