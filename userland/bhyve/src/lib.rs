//! bhyve(8): runs a guest. In reading order: the command line ([`options`], [`usage`])
//! and the configuration that comes of it ([`config`]), what that says about the machine as a
//! whole ([`settings`], [`topology`], [`not_yet`]),
//! the start ([`start`]), the [`machine`] with its [`board`] of [`devices`] on the buses of
//! [`ports`] and of memory-mapped devices ([`mmio`]), [`pci`] with the [`virtio`] and [`ahci`] devices and their disks ([`block`], [`buffers`]),
//! the tables that describe all that to the guest ([`firmware`]),
//! the loop of each vcpu ([`run`]), what is done about an exit ([`vmexit`], [`inout_str`],
//! [`inst_emul`], [`msr`], [`spinup_ap`], [`task_switch`](mod@task_switch)), and what a
//! person is told when it ends badly
//! ([`report`]). [`platform`] has the few calls of the host that need unsafe code.

pub mod ahci;
pub mod backend;
pub mod block;
pub mod board;
pub mod buffers;
pub mod config;
pub mod controllers;
pub mod devices;
pub mod firmware;
pub mod inout_str;
pub mod inst_emul;
pub mod linear;
pub mod machine;
pub mod mmio;
pub mod msr;
pub mod net;
pub mod not_yet;
pub mod options;
pub mod pci;
pub mod platform;
pub mod ports;
pub mod ranges;
pub mod report;
pub mod run;
pub mod settings;
pub mod signals;
pub mod spinup_ap;
pub mod start;
pub mod task_switch;
pub mod topology;
pub mod unix_socket;
pub mod usage;
pub mod virtio;
pub mod vmexit;

pub use vmm_core::cpu::segment;
