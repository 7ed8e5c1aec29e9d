//! What a PC's firmware would leave in memory for the operating system: the MP table
//! ([`mptable`]), SMBIOS ([`smbios`]) and the ACPI tables ([`acpi`], with the DSDT's objects
//! in [`aml`]), all in the BIOS area. They describe the machine as it is: interrupt
//! controllers and timers are the kernel's, and where the kernel has none ([`ioapic`]), no
//! table names any; the addresses and interrupts of PCI are those that the bus has given.
//! Which memory there is, the loader tells ([`vmmapi::address_map`]). The real-time clock
//! ([`rtc`]) gets the date.

#![forbid(unsafe_code)]

pub mod acpi;
pub mod aml;
pub mod ioapic;
pub mod mptable;
pub mod rtc;
pub mod smbios;

use std::fmt;
use std::ops::Range;

use vmmapi::address_map::{EXTENDED_BASE, MPTABLE_BASE, RSDP_BASE, SMBIOS_BASE};
use vmmapi::{CpuTopology, Gpa, Vm};

use self::ioapic::IoApic;
use self::smbios::Uuid;
use crate::config::Config;
use crate::pci::bus::PciBus;

/// The local APIC of each vcpu that has one (SDM vol. 3A, 12.4.1).
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// bhyve's only I/O APIC. Its ID is 0.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The interrupt of ACPI events, level-triggered and active low.
pub const SCI: u8 = 9;
/// The I/O APIC's pin that the 8254 is wired to.
pub const TIMER_PIN: u8 = 2;

/// Each table's part of the BIOS area. What is variable in length and can't go behind its
/// pointer comes last.
const MP_POINTER: Range<u64> = MPTABLE_BASE.0..SMBIOS_BASE.0;
const SMBIOS: Range<u64> = SMBIOS_BASE.0..RSDP_BASE.0;
const ACPI: Range<u64> = RSDP_BASE.0..MP_CONFIGURATION.start;
const MP_CONFIGURATION: Range<u64> = 0xf_c000..EXTENDED_BASE;

/// The machine to describe.
pub struct Description<'a> {
    pub name: &'a str,
    /// For the texts of SMBIOS.
    pub config: &'a Config,
    /// -U.
    pub uuid: Option<Uuid>,
    pub cpus: u16,
    pub topology: CpuTopology,
    pub ioapic: Option<IoApic>,
    /// 0 is com1.
    pub com_ports: &'a [usize],
    pub pci: &'a PciBus,
    /// Without -Y.
    pub mptable: bool,
    pub acpi_tables: bool,
    /// -u.
    pub utc: bool,
    /// QEMU's firmware configuration device is there.
    pub fwcfg: bool,
}

/// Sets the clock and builds the tables that are wanted (steps (13) and (14)).
pub fn build(vm: &Vm, machine: &Description<'_>) -> Result<(), FirmwareError> {
    rtc::rtc_init(vm, machine.utc)?;
    if machine.mptable {
        mptable::mptable_build(vm, machine)?;
    }
    smbios::smbios_build(vm, machine)?;
    if machine.acpi_tables {
        acpi::acpi_build(vm, machine)?;
    }
    Ok(())
}

/// Why a table can't be built.
#[derive(Debug)]
pub enum FirmwareError {
    /// The kernel doesn't say what it has.
    Kernel(vmmapi::Error),
    /// There is no memory where the table belongs.
    Memory {
        table: &'static str,
        at: Gpa,
        len: usize,
        error: vmmapi::Error,
    },
    /// An APIC ID has eight bits here, and 255 means all of them.
    TooManyCpus { table: &'static str, cpus: u16 },
    /// It is longer than the place that it has.
    TooLong {
        table: &'static str,
        len: usize,
        most: u64,
    },
    /// The MP table knows one PCI bus.
    PciBus(u8),
}

impl fmt::Display for FirmwareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => error.fmt(f),
            Self::Memory {
                table,
                at,
                len,
                error,
            } => write!(
                f,
                "the {table} ({len} bytes at {:#x}) can't be written, the guest needs at least \
                 1 MiB of memory: {error}",
                at.0
            ),
            Self::TooManyCpus { table, cpus } => {
                write!(
                    f,
                    "the {table} can't describe {cpus} vCPUs, 255 are the most (see -c)"
                )
            }
            Self::TooLong { table, len, most } => write!(
                f,
                "the {table} would have {len} bytes, {most} are the most: the machine has too \
                 many vCPUs or devices, or texts that are too long"
            ),
            Self::PciBus(number) => write!(
                f,
                "the MP table can't describe PCI bus {number}, only bus 0: use -Y to start \
                 without an MP table"
            ),
        }
    }
}

/// The byte that makes a table's sum zero.
fn checksum(bytes: &[u8]) -> u8 {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    sum.wrapping_neg()
}

/// The number of vcpus, as the tables can hold it.
fn cpu_count(table: &'static str, cpus: u16) -> Result<u8, FirmwareError> {
    u8::try_from(cpus).map_err(|_| FirmwareError::TooManyCpus { table, cpus })
}

/// Puts a table into the guest's memory, at the beginning of its place.
fn install(
    vm: &Vm,
    table: &'static str,
    place: Range<u64>,
    bytes: &[u8],
) -> Result<(), FirmwareError> {
    let len = bytes.len();
    let most = place.end - place.start;
    if len as u64 > most {
        return Err(FirmwareError::TooLong { table, len, most });
    }
    let at = Gpa(place.start);
    vm.map_gpa(at, len)
        .and_then(|range| range.copy_to(0, bytes))
        .map_err(|error| FirmwareError::Memory {
            table,
            at,
            len,
            error,
        })
}
