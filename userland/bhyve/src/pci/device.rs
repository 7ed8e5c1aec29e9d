//! What a PCI function is made of: a description of its configuration space
//! ([`FunctionSpec`]), and the device behind it ([`PciDevice`]), which answers accesses to
//! its BARs. The bus does the rest: header, BAR placement and decoding, MSI, MSI-X with
//! its table, INTx.
//!
//! A device is made by its [`Constructor`] from its node of the configuration, and from a
//! [`DeviceContext`], whose parts can be cloned into worker threads. The text behind its
//! name in `-s` becomes variables of that node first, by its [`OptionParser`].

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use vmmapi::GuestMemory;

use super::bar::BarSpec;
use super::interrupts::Interrupts;
use super::pirq::PirqRouter;
use crate::config::{ConfigError, NodeMut, View};
use crate::devices::fwcfg::BootOrder;
use crate::ports::Width;

/// Bus, device and function numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bdf {
    pub bus: u8,
    pub slot: u8,
    pub function: u8,
}

impl Bdf {
    /// The node of the configuration that describes what is there: "pci.0.3.0".
    pub fn node(self) -> String {
        let Self {
            bus,
            slot,
            function,
        } = self;
        format!("pci.{bus}.{slot}.{function}")
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.bus, self.slot, self.function)
    }
}

/// The registers of a type 0 header that identify a function (6.2.1, 6.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Header {
    pub vendor: u16,
    pub device: u16,
    pub class: u8,
    pub subclass: u8,
    pub prog_if: u8,
    pub revision: u8,
    pub subsystem_vendor: u16,
    pub subsystem: u16,
}

/// A capability beyond MSI and MSI-X (6.7), vendor-specific ones for example.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capability {
    pub id: u8,
    /// What follows ID and next pointer, so that its first byte is the capability's byte 2.
    pub contents: Vec<u8>,
    /// The bits of `contents` that software can write; shorter means read-only from there.
    pub writable: Vec<u8>,
}

/// MSI-X (6.8.2): the table and the pending bits get a 32-bit memory BAR of their own,
/// which the device never sees accesses to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsixSpec {
    pub bar: usize,
    /// 1 to 2048.
    pub vectors: u16,
}

/// The configuration space of a function, as its device wants it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct FunctionSpec {
    pub header: Header,
    pub bars: Vec<BarSpec>,
    /// How many MSI messages; a power of two up to 32.
    pub msi: Option<u8>,
    pub msix: Option<MsixSpec>,
    /// Whether it uses an interrupt pin.
    pub intx: bool,
    /// In the order in which they are linked, after MSI-X and MSI.
    pub capabilities: Vec<Capability>,
}

/// A device. It is shared by all vcpus and by its own threads, and keeps its own locks.
/// None of these methods may access the function's configuration space through the bus.
pub trait PciDevice: Send + Sync {
    /// Asked once, right after the device was made.
    fn spec(&self) -> FunctionSpec;

    /// The guest reads at `offset` of a BAR. The access lies within the BAR, but may be
    /// unaligned; one of 8 bytes comes as two of 4, the lower half first.
    fn bar_read(&self, bar: usize, offset: u64, width: Width) -> u32;

    /// The guest writes at `offset` of a BAR, as in [`PciDevice::bar_read`].
    fn bar_write(&self, bar: usize, offset: u64, width: Width, value: u32);

    /// The guest is about to read the capability at `index` of
    /// [`FunctionSpec::capabilities`], `width` bytes at `offset` of `contents` (which
    /// counts as [`Capability::contents`] does). What is put into `contents` is read. Of an
    /// access that begins at ID or next pointer the device isn't told.
    fn capability_read(&self, _index: usize, _offset: usize, _width: Width, _contents: &mut [u8]) {}

    /// The guest has written its writable bits of the capability at `index`, `width` bytes
    /// at `offset` of `contents`.
    fn capability_written(
        &self,
        _index: usize,
        _offset: usize,
        _width: Width,
        _contents: &mut [u8],
    ) {
    }

    /// The guest reads a byte of configuration space that no header field or capability
    /// has. `None`: it is as it was written by [`PciDevice::config_write`], zero at first.
    fn config_read(&self, _register: u8) -> Option<u8> {
        None
    }

    /// The guest writes a byte of configuration space that no header field or capability
    /// has. The answer is what is stored; `None` leaves the old value.
    fn config_write(&self, _register: u8, _value: u8) -> Option<u8> {
        None
    }
}

/// What a device gets to work with.
#[derive(Clone)]
pub struct DeviceContext {
    pub at: Bdf,
    /// "virtio-blk@pci.0.3.0", for messages.
    pub name: String,
    /// The guest's memory by guest-physical address, every access checked.
    pub memory: GuestMemory,
    /// The function's interrupts, for use from any thread. They do nothing until the
    /// guest has enabled them.
    pub interrupts: Interrupts,
    /// -W: a device with a choice offers MSI instead of MSI-X.
    pub prefer_msi: bool,
    /// Where a device to boot from says so.
    pub boot_order: Arc<BootOrder>,
    /// For the bridge that the router is in.
    pub router: Arc<PirqRouter>,
}

#[cfg(test)]
impl DeviceContext {
    /// Of a device in slot 3 without memory, whose interrupts go nowhere.
    pub fn of_test(name: &str) -> Self {
        use super::interrupts::tests::Recorder;

        let recorder = Arc::new(Recorder::default());
        Self {
            at: Bdf {
                bus: 0,
                slot: 3,
                function: 0,
            },
            name: name.to_owned(),
            memory: GuestMemory::default(),
            interrupts: Interrupts::new(recorder.clone()),
            prefer_msi: false,
            boot_order: Arc::default(),
            router: Arc::new(PirqRouter::new(recorder, 32)),
        }
    }
}

/// Why a device can't be made, as a sentence for the person who typed the option.
pub type DeviceError = Box<dyn Error + Send + Sync>;

/// Makes a device from its node. It reads each variable that it knows, whether it needs it
/// or not: one that isn't read is refused as unknown.
pub type Constructor = fn(&View<'_>, DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError>;

/// Turns what follows a device's name in `-s` (`None` if nothing does) into variables.
pub type OptionParser = fn(&mut NodeMut<'_>, Option<&str>) -> Result<(), DeviceError>;

/// A register's value as the node `pcireg` may have it, in hexadecimal.
pub fn pcireg(config: &View<'_>, name: &str) -> Result<Option<u16>, ConfigError> {
    let Some(registers) = config.node("pcireg") else {
        return Ok(None);
    };
    let Some(value) = registers.get(name) else {
        return Ok(None);
    };
    let digits = value.strip_prefix("0x").unwrap_or(&value);
    match u16::from_str_radix(digits, 16) {
        Ok(number) if !digits.starts_with('+') => Ok(Some(number)),
        _ => Err(ConfigError::Number {
            path: registers.path_of(name),
            value,
            min: 0,
            max: 0xffff,
        }),
    }
}

/// The parser for devices whose options are `name[=value],…`.
pub fn plain_options(node: &mut NodeMut<'_>, text: Option<&str>) -> Result<(), DeviceError> {
    Ok(node.set_options(text.unwrap_or_default())?)
}
