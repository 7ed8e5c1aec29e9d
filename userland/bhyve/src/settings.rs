//! What the configuration says about the machine as a whole; devices read their nodes
//! themselves. All of it is read before anything is opened, so that what is wrong is said
//! before a guest is touched.

#![forbid(unsafe_code)]

use std::fmt;

use cli::number::parse_within;
use cli::size::{SizeError, parse_memsize};
use vmmapi::CpuTopology;

use crate::config::{Config, ConfigError};
use crate::firmware::smbios::{Uuid, UuidError};
use crate::not_yet::{self, Refused};
use crate::options::{self, OptionError, Year};
use crate::topology::{self, CpuError, Pinning};

/// The machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    pub vm: String,
    /// Bytes. 2013's -M, which was for memory from 4 GiB on, adds to it, as in bhyveload.
    pub memory: u64,
    pub wired: bool,
    pub in_core: bool,
    pub cpus: u16,
    pub topology: CpuTopology,
    pub pinning: Pinning,
    /// All vcpus take turns on one host CPU: 2013's -x.
    pub mux: bool,
    pub exit_on_hlt: bool,
    pub exit_on_pause: bool,
    /// Whether the guest may have its APICs in x2APIC mode.
    pub x2apic: bool,
    pub strict_io: bool,
    pub strict_msr: bool,
    pub verbose_msr: bool,
    pub destroy_on_poweroff: bool,
    /// virtio devices have MSI instead of MSI-X.
    pub prefer_msi: bool,
    pub fwcfg: FirmwareInterface,
    /// `pc-testdev` is behind the LPC bridge.
    pub pctestdev: bool,
    /// BARs are decoded before the guest has enabled them.
    pub enable_bars: bool,
    /// ACPI tables in memory.
    pub acpi_tables: bool,
    pub mptable: bool,
    pub uuid: Option<Uuid>,
    pub utc: bool,
    /// The backend of 2013's console port 0x220 (-b).
    pub bvm_console: Option<String>,
    /// The TCP port of 2013's debug port 0x224 (-g).
    pub debug_port: Option<u16>,
}

/// Which interface firmware has at port 0x510.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirmwareInterface {
    /// bhyve's own, which only a boot ROM uses.
    Bhyve,
    Qemu,
}

/// Why there can't be such a machine.
#[derive(Debug)]
pub enum SettingsError {
    Config(ConfigError),
    Option(OptionError),
    NoName,
    MemSize {
        variable: &'static str,
        text: String,
        error: SizeError,
    },
    Cpu(CpuError),
    Uuid(String),
    Refused(Refused),
    FirmwareInterface(String),
}

impl SettingsError {
    /// bhyve(8)'s exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::MemSize { .. } => 64,
            _ => 4,
        }
    }
}

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Option(error) => error.fmt(f),
            Self::NoName => f.write_str("the VM has no name"),
            Self::MemSize {
                variable,
                text,
                error,
            } => write!(f, "invalid memsize '{text}': {error} ({variable})"),
            Self::Cpu(error) => error.fmt(f),
            Self::Uuid(text) => write!(f, "Invalid UUID '{text}': {UuidError}"),
            Self::Refused(refused) => refused.fmt(f),
            Self::FirmwareInterface(name) => {
                write!(f, "lpc.fwcfg={name}: bhyve or qemu is wanted")
            }
        }
    }
}

impl From<ConfigError> for SettingsError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<CpuError> for SettingsError {
    fn from(error: CpuError) -> Self {
        Self::Cpu(error)
    }
}

impl Settings {
    /// Reads the variables that are about the machine as a whole.
    pub fn read(config: &Config) -> Result<Self, SettingsError> {
        let on = |name| config.bool(name, false);
        let off = |name| config.bool(name, true).map(|on| !on);
        let old = options::year(config).map_err(SettingsError::Option)? == Year::Y2013;
        let (topology, cpus) = topology::read(config)?;
        let pinning = Pinning::read(config, cpus)?;
        let memory = memsize(config, "memory.size")?;
        let memory = memory.saturating_add(memsize(config, "compat.memory_high")?);
        let uuid = match config.get("uuid") {
            Some(text) => Some(Uuid::parse(&text).map_err(|_| SettingsError::Uuid(text))?),
            None => None,
        };
        if let Some(refused) = not_yet::variable(config) {
            return Err(SettingsError::Refused(refused));
        }
        // A single vcpu has nobody to take turns with.
        let mux = on("compat.mux")? && cpus > 1;
        // Without these exits a vcpu that waits would keep the host CPU.
        let exits = [on("x86.vmexit_on_hlt")?, on("x86.vmexit_on_pause")?];
        on("config.dump")?;
        // Tables that aren't in memory would be in QEMU's fw_cfg, for a boot ROM.
        let tables = config.bool("acpi_tables", true)?;
        let in_memory = config.bool("acpi_tables_in_memory", true)?;
        // The command line has said that these have no effect.
        config.get("compat.hz");
        config.get("keyboard.layout");
        Ok(Self {
            vm: config.get("name").ok_or(SettingsError::NoName)?,
            memory,
            wired: on("memory.wired")?,
            in_core: on("memory.guest_in_core")?,
            cpus,
            topology,
            pinning,
            mux,
            exit_on_hlt: exits[0] || mux,
            exit_on_pause: exits[1] || mux,
            x2apic: config.bool("x86.x2apic", old)?,
            strict_io: on("x86.strictio")?,
            strict_msr: on("x86.strictmsr")?,
            verbose_msr: on("x86.verbosemsr")?,
            destroy_on_poweroff: on("destroy_on_poweroff")?,
            prefer_msi: off("virtio_msix")?,
            fwcfg: firmware_interface(config)?,
            pctestdev: on("lpc.pc-testdev")?,
            enable_bars: config.bool("pci.enable_bars", true)?,
            acpi_tables: tables && in_memory,
            mptable: config.bool("x86.mptable", true)?,
            uuid,
            utc: off("rtc.use_localtime")?,
            bvm_console: config.get("compat.console"),
            debug_port: debug_port(config)?,
        })
    }
}

/// A size as -m has it; nothing if it isn't set.
fn memsize(config: &Config, variable: &'static str) -> Result<u64, SettingsError> {
    let Some(text) = config.get(variable) else {
        return Ok(0);
    };
    match parse_memsize(&text) {
        Ok(size) => Ok(size),
        Err(error) => Err(SettingsError::MemSize {
            variable,
            text,
            error,
        }),
    }
}

fn firmware_interface(config: &Config) -> Result<FirmwareInterface, SettingsError> {
    match config.get("lpc.fwcfg") {
        None => Ok(FirmwareInterface::Bhyve),
        Some(name) if name == "bhyve" => Ok(FirmwareInterface::Bhyve),
        Some(name) if name == "qemu" => Ok(FirmwareInterface::Qemu),
        Some(name) => Err(SettingsError::FirmwareInterface(name)),
    }
}

/// 2013's -g; 0 means none.
fn debug_port(config: &Config) -> Result<Option<u16>, ConfigError> {
    const VARIABLE: &str = "compat.debug_port";
    const MOST: u64 = 65_535;
    let Some(value) = config.get(VARIABLE) else {
        return Ok(None);
    };
    match parse_within(&value, 0, MOST) {
        Some(0) => Ok(None),
        Some(port) => Ok(Some(port as u16)),
        None => Err(ConfigError::Number {
            path: VARIABLE.to_owned(),
            value,
            min: 0,
            max: MOST,
        }),
    }
}
