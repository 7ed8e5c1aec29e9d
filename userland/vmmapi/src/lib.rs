//! libvmmapi's calls as safe Rust: the only code of the userland that does ioctl(2) and
//! mmap(2) on /dev/vmm. The ABI is FreeBSD 15's (and 14's, where 15 changed it), so that
//! programs built on this crate run on vmm_rs.ko and on the stock vmm.ko.
//!
//! * [`Vm`] is one virtual machine: life ([`vm`]), memory ([`memory`] and
//!   [`memseg`]), interrupts and devices in the kernel ([`devices`]), passthrough
//!   ([`ppt`]), checkpoints ([`snapshot`]).
//! * [`Vcpu`] is one of its CPUs: registers, events, capabilities ([`vcpu`]), the state
//!   after power-on and at FreeBSD's entry points ([`setup`]), linear addresses ([`linear`]).
//! * [`VmExit`] is why [`Vcpu::run`] returned ([`exits`]).
//! * [`address_map`] says where in guest-physical memory a PC of bhyve has what.
//! * [`GuestRange`] is memory that the guest changes while we look: it is read and written
//!   by copies, never borrowed as a slice; files are read into it and written from it
//!   without a copy in between ([`io`]).
//!
//! Both handles are cheap to clone and can be used from several threads at once; what the
//! kernel refuses (a register of a running vcpu is EBUSY) is an [`Error`] with its errno.

pub mod address_map;
pub mod capability;
pub mod cpuset;
pub mod devices;
pub mod error;
pub mod exits;
pub mod io;
pub mod linear;
pub mod memory;
pub mod memseg;
pub mod memsize;
mod platform;
pub mod ppt;
pub mod range;
pub mod setup;
pub mod snapshot;
pub mod stats;
pub mod vcpu;
pub mod vm;

pub use capability::{capability_by_name, capability_name};
pub use cpuset::CpuSet;
pub use error::Error;
pub use exits::{Exit, VmExit};
pub use linear::Translation;
pub use memory::{MemDomain, MemFlags, MmapStyle};
pub use memseg::{Memmap, Memseg, NumaPolicy, Prot};
pub use memsize::parse_memsize;
pub use range::{GuestMemory, GuestRange, Word};
pub use stats::Stats;
pub use vcpu::Vcpu;
pub use vm::{CpuTopology, OpenFlags, Vm, destroy, list};

pub use vmm_core::exit::{Access, SuspendHow, TaskSwitchReason};
pub use vmm_core::regs::{CpuMode, GuestPaging, PagingMode, Reg, SegDesc, SegReg};
pub use vmm_core::types::{Gla, Gpa, VcpuId};
pub use vmm_core::vcpu::Capability;
