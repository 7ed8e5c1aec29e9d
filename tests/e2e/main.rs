//! End-to-end tests: the module, the userland and guests on the lab's hosts. One program, so
//! that all of them share the labs they boot; each test runs alone on its lab, from a host
//! without VMs to a host without VMs.
//!
//! Run with many test threads (`--test-threads=64`): a thread that waits for a lab costs
//! nothing, and labs that somebody waits for stay up.

mod apic;
mod bhyvectl;
mod console;
mod cpus;
mod disks;
mod dmesg;
mod dropin;
mod entry_failure;
mod freebsd;
mod guests;
mod host;
mod jails;
mod kill;
mod leaks;
mod life;
mod linux;
mod memory;
mod models;
mod network;
mod options;
mod refusal;
mod session;
mod several;
