//! What a PC's firmware would leave in memory for the operating system: the MP table
//! ([`mptable`]) and the ACPI tables ([`acpi`], with the DSDT's objects in [`aml`]). Both
//! describe the machine as it is: interrupt controllers and timers are the kernel's, and
//! where the kernel has none ([`ioapic`]), no table names any.

#![forbid(unsafe_code)]

pub mod acpi;
pub mod aml;
pub mod ioapic;
pub mod mptable;

use std::fmt;

use vmmapi::{Gpa, Vm};

use crate::pci::Bdf;

/// The local APIC of each vcpu that has one (SDM vol. 3A, 12.4.1).
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// bhyve's only I/O APIC. Its ID is 0.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The interrupt of ACPI events, level-triggered and active low.
pub const SCI: u8 = 9;
/// The I/O APIC's pin that the 8254 is wired to.
pub const TIMER_PIN: u8 = 2;

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
    /// The MP table knows one PCI bus.
    PciBus(Bdf),
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
            Self::PciBus(at) => write!(
                f,
                "the MP table can't describe the PCI device at {at}, since it is not on bus 0: \
                 use -Y to start without an MP table"
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

/// Puts a table into the guest's memory.
fn install(vm: &Vm, table: &'static str, at: Gpa, bytes: &[u8]) -> Result<(), FirmwareError> {
    let len = bytes.len();
    vm.map_gpa(at, len)
        .and_then(|range| range.copy_to(0, bytes))
        .map_err(|error| FirmwareError::Memory {
            table,
            at,
            len,
            error,
        })
}
