//! VT-x as data: what the SDM's tables say, in types, without one privileged instruction.
//! In reading order: `caps`, `features` and `controls` (what the CPU has, what we take of it),
//! `apic` (how much of a local APIC it does), `spin` (PAUSE loops), `field` (the VMCS), `segment`,
//! `reset` and `cr` (the guest's state), `entry_check` (what VM entry demands of all that),
//! then the way out: `reason`, `qualification`, `interruption`, `instruction_error`.
//!
//! Chapter and table numbers are those of the SDM of 2023 and later, where VMX begins at
//! chapter 24 of volume 3C.

pub mod apic;
pub mod caps;
pub mod controls;
pub mod cr;
pub mod entry_check;
pub mod features;
pub mod field;
pub mod instruction_error;
pub mod interruption;
pub mod load_error;
pub mod qualification;
pub mod reason;
pub mod reset;
pub mod segment;
pub mod spin;
#[cfg(test)]
mod testing;
