//! The command line of bhyve(8): FreeBSD 15's options, and 2013's where their form tells
//! them apart (a slot after -S, no colon in -p, options that are gone today). An option
//! whose feature isn't there is refused by name. -A and -I of 2013 mean nothing any more:
//! ACPI tables are always built, and whether there is an I/O APIC is the kernel's matter.

#![forbid(unsafe_code)]

use std::fmt;

use cli::getopt::{self, Getopt};
use cli::number::parse_within;
use cli::size::{SizeError, parse_memsize};

use crate::config::Config;
use crate::firmware::smbios::{Uuid, UuidError};
use crate::not_yet;
use crate::pci::registry::{self, DeviceType};
use crate::pci::{Bdf, DeviceError};
use crate::topology::{CpuError, Pinning, TopologySpec};

/// FreeBSD 15's option string, then what only 2013's bhyve had.
const OPTSTRING: &str = "aehuwxACDHIPSWYk:f:o:p:G:c:s:m:n:l:K:U:r:bBg:M:z:";

/// Where the APIC starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApicMode {
    /// As the kernel makes it: xAPIC.
    Default,
    /// -a.
    XApic,
    /// -x.
    X2Apic,
}

/// A com port and its backend's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ComPort {
    /// 0 is com1.
    pub index: usize,
    pub backend: String,
}

/// A PCI device and its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PciSlot {
    pub at: Bdf,
    pub device: &'static DeviceType,
}

/// What the command line says.
#[derive(PartialEq, Eq, Debug)]
pub struct Options {
    pub vm: String,
    /// -m in bytes.
    pub memory: Option<u64>,
    pub topology: TopologySpec,
    pub pinning: Pinning,
    /// -S without a slot.
    pub wired: bool,
    /// -C.
    pub in_core: bool,
    /// -D.
    pub destroy_on_poweroff: bool,
    /// -e.
    pub strict_io: bool,
    /// Without -w.
    pub strict_msr: bool,
    /// -H.
    pub exit_on_hlt: bool,
    /// -P.
    pub exit_on_pause: bool,
    pub apic: ApicMode,
    /// 2013's -b.
    pub bvm_console: bool,
    pub slots: Vec<PciSlot>,
    /// The devices' variables.
    pub config: Config,
    pub com_ports: Vec<ComPort>,
    /// -W.
    pub virtio_msi: bool,
    /// Without -Y.
    pub mptable: bool,
    /// -U.
    pub uuid: Option<Uuid>,
    /// -u.
    pub utc: bool,
}

/// What the command line asks for.
#[derive(PartialEq, Eq, Debug)]
pub enum Answer {
    Run(Box<Options>),
    Help,
    PciDevices,
    LpcDevices,
}

/// Why it makes no sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionError {
    /// The message of getopt, and the usage.
    Getopt(String),
    /// The usage alone: there is no VM name, or there are two.
    Usage,
    MemSize {
        text: String,
        error: SizeError,
    },
    Cpu(CpuError),
    Uuid(String),
    Slot {
        text: String,
        why: &'static str,
    },
    SlotTaken(Bdf),
    UnknownDevice {
        name: String,
        option: &'static str,
    },
    ComTaken(usize),
    Device {
        text: String,
        error: String,
    },
    NotYet {
        option: String,
        what: &'static str,
    },
}

impl OptionError {
    /// The exit code that bhyve(8) has for it: 1 with the usage, 4 for a device, EX_USAGE else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Getopt(_) | Self::Usage => 1,
            Self::Slot { .. } | Self::SlotTaken(_) | Self::UnknownDevice { .. } => 4,
            Self::ComTaken(_) | Self::Device { .. } | Self::NotYet { .. } => 4,
            Self::Uuid(_) => 4,
            Self::MemSize { .. } | Self::Cpu(_) => 64,
        }
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Getopt(message) => f.write_str(message),
            Self::Usage => f.write_str("one VM name is wanted after the options"),
            Self::MemSize { text, error } => write!(f, "invalid memsize '{text}': {error}"),
            Self::Cpu(error) => error.fmt(f),
            Self::Uuid(text) => write!(f, "-U: '{text}': {UuidError}"),
            Self::Slot { text, why } => write!(f, "invalid PCI slot info field \"{text}\": {why}"),
            Self::SlotTaken(at) => write!(f, "PCI slot {at} is occupied already"),
            Self::UnknownDevice { name, option } => {
                write!(
                    f,
                    "{option}: unknown device \"{name}\" ({option} help lists those there are)"
                )
            }
            Self::ComTaken(index) => write!(f, "com{} is configured twice", index + 1),
            Self::Device { text, error } => write!(f, "-s {text}: {error}"),
            Self::NotYet { option, what } => {
                write!(f, "{option}: {what} is not part of this version")
            }
        }
    }
}

impl From<getopt::Error> for OptionError {
    fn from(error: getopt::Error) -> Self {
        Self::Getopt(error.to_string())
    }
}

impl From<CpuError> for OptionError {
    fn from(error: CpuError) -> Self {
        Self::Cpu(error)
    }
}

/// The devices that `-l help` lists.
pub const LPC_DEVICES: [&str; 4] = ["com1", "com2", "com3", "com4"];

/// Takes the arguments (without `argv[0]`) apart.
pub fn parse(args: &[String]) -> Result<Answer, OptionError> {
    let mut options = Options {
        vm: String::new(),
        memory: None,
        topology: TopologySpec::default(),
        pinning: Pinning::default(),
        wired: false,
        in_core: false,
        destroy_on_poweroff: false,
        strict_io: false,
        strict_msr: true,
        exit_on_hlt: false,
        exit_on_pause: false,
        apic: ApicMode::Default,
        bvm_console: false,
        slots: Vec::new(),
        config: Config::default(),
        com_ports: Vec::new(),
        virtio_msi: false,
        mptable: true,
        uuid: None,
        utc: false,
    };
    let mut getopt = Getopt::new(args, OPTSTRING);
    while let Some(option) = getopt.next() {
        let option = option?;
        let arg = option.arg.unwrap_or_default();
        match option.name {
            'a' => options.apic = ApicMode::XApic,
            'A' | 'I' => {}
            'b' => options.bvm_console = true,
            'c' => options.topology.add(arg)?,
            'C' => options.in_core = true,
            'D' => options.destroy_on_poweroff = true,
            'e' => options.strict_io = true,
            'h' => return Ok(Answer::Help),
            'H' => options.exit_on_hlt = true,
            'l' if is_help(arg) => return Ok(Answer::LpcDevices),
            'l' => options.add_lpc_device(arg)?,
            'm' => {
                let size = parse_memsize(arg).map_err(|error| OptionError::MemSize {
                    text: arg.to_owned(),
                    error,
                })?;
                options.memory = Some(size);
            }
            'p' => options.pinning.add(arg)?,
            'P' => options.exit_on_pause = true,
            's' if is_help(arg) => return Ok(Answer::PciDevices),
            's' => options.add_pci_device(arg)?,
            'S' => match getopt.take_if(is_slot) {
                Some(slot) => options.add_legacy_device(slot)?,
                None => options.wired = true,
            },
            'u' => options.utc = true,
            'U' => {
                let uuid = Uuid::parse(arg).map_err(|_| OptionError::Uuid(arg.to_owned()))?;
                options.uuid = Some(uuid);
            }
            'w' => options.strict_msr = false,
            'W' => options.virtio_msi = true,
            'x' => options.apic = ApicMode::X2Apic,
            'Y' => options.mptable = false,
            name => {
                let what = not_yet::option(name).ok_or(OptionError::Usage)?;
                return Err(OptionError::NotYet {
                    option: format!("-{name}"),
                    what,
                });
            }
        }
    }
    let [vm] = getopt.operands() else {
        return Err(OptionError::Usage);
    };
    options.vm.clone_from(vm);
    Ok(Answer::Run(Box::new(options)))
}

/// Any beginning of "help", as bhyve compares it.
fn is_help(arg: &str) -> bool {
    !arg.is_empty() && "help".starts_with(arg)
}

/// Whether an argument begins as a slot with a device: `31,uart…`, `0:0,…`, `0:31:0,…`.
fn is_slot(arg: &str) -> bool {
    let Some((slot, device)) = arg.split_once(',') else {
        return false;
    };
    !device.is_empty()
        && !slot.is_empty()
        && slot
            .split(':')
            .all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// `slot[:function]` or `bus:slot:function`.
fn parse_bdf(text: &str) -> Result<Bdf, OptionError> {
    let error = |why| OptionError::Slot {
        text: text.to_owned(),
        why,
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (bus, slot, function) = match parts[..] {
        [slot] => ("0", slot, "0"),
        [slot, function] => ("0", slot, function),
        [bus, slot, function] => (bus, slot, function),
        _ => return Err(error("slot, slot:function or bus:slot:function is wanted")),
    };
    let number = |text: &str, max, why| parse_within(text, 0, max).ok_or_else(|| error(why));
    Ok(Bdf {
        bus: number(bus, 255, "the bus is not a number from 0 to 255")? as u8,
        slot: number(slot, 31, "the slot is not a number from 0 to 31")? as u8,
        function: number(function, 7, "the function is not a number from 0 to 7")? as u8,
    })
}

impl Options {
    /// `-s slot,device[,configuration]`.
    fn add_pci_device(&mut self, text: &str) -> Result<(), OptionError> {
        let (at, name, config) = split_slot(text)?;
        let Some(device) = registry::find(name) else {
            return Err(unknown_device(name, text, "-s", &not_yet::PCI_DEVICES));
        };
        if self.slots.iter().any(|slot| slot.at == at) {
            return Err(OptionError::SlotTaken(at));
        }
        let error = |error: DeviceError| OptionError::Device {
            text: text.to_owned(),
            error: error.to_string(),
        };
        let mut node = self
            .config
            .node_mut(&at.node())
            .map_err(|e| error(e.into()))?;
        let device_name = device.alias.unwrap_or(device.name);
        node.set("device", device_name)
            .map_err(|e| error(e.into()))?;
        (device.options)(&mut node, config).map_err(error)?;
        self.slots.push(PciSlot { at, device });
        Ok(())
    }

    /// 2013's `-S slot,uart,backend`: the first one is com1, the second com2.
    fn add_legacy_device(&mut self, text: &str) -> Result<(), OptionError> {
        let (_, name, backend) = split_slot(text)?;
        let backend = backend.unwrap_or_default();
        if name != "uart" {
            return Err(unknown_device(name, text, "-S", &not_yet::PCI_DEVICES));
        }
        let free = (0..LPC_DEVICES.len()).find(|n| self.com_ports.iter().all(|c| c.index != *n));
        let index = free.ok_or(OptionError::ComTaken(0))?;
        self.com_ports.push(ComPort {
            index,
            backend: backend.to_owned(),
        });
        Ok(())
    }

    /// `-l device[,configuration]`.
    fn add_lpc_device(&mut self, text: &str) -> Result<(), OptionError> {
        let (name, config) = text.split_once(',').unwrap_or((text, ""));
        let Some(index) = LPC_DEVICES.iter().position(|known| *known == name) else {
            return Err(unknown_device(name, text, "-l", &not_yet::LPC_DEVICES));
        };
        if self.com_ports.iter().any(|port| port.index == index) {
            return Err(OptionError::ComTaken(index));
        }
        self.com_ports.push(ComPort {
            index,
            backend: config.to_owned(),
        });
        Ok(())
    }
}

fn split_slot(text: &str) -> Result<(Bdf, &str, Option<&str>), OptionError> {
    let Some((slot, rest)) = text.split_once(',') else {
        let why = "a device is wanted after the slot";
        return Err(OptionError::Slot {
            text: text.to_owned(),
            why,
        });
    };
    let (name, config) = match rest.split_once(',') {
        Some((name, config)) => (name, Some(config)),
        None => (rest, None),
    };
    Ok((parse_bdf(slot)?, name, config))
}

fn unknown_device(
    name: &str,
    text: &str,
    option: &'static str,
    refused: &[&'static str],
) -> OptionError {
    match refused.iter().find(|known| **known == name) {
        Some(known) => OptionError::NotYet {
            option: format!("{option} {text}"),
            what: known,
        },
        None => OptionError::UnknownDevice {
            name: name.to_owned(),
            option,
        },
    }
}

#[cfg(test)]
mod tests;
