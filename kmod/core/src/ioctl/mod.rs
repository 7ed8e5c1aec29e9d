//! The ioctl ABI of /dev/vmm/NAME and /dev/vmmctl as typed values.
//!
//! A request goes through here in three steps, and the layers below never see a raw
//! integer of userland's:
//!
//! 1. [`lookup`] finds its row in the table: who may ask, what is locked meanwhile;
//! 2. [`decode`] turns the parameter structure into a [`Request`], whose fields are
//!    checked, or into the errno that FreeBSD gives;
//! 3. [`encode`] writes the [`Reply`] back into the structure.
//!
//! The numbers and layouts are FreeBSD 15's machine/vmm_dev.h, and those of FreeBSD 12 to
//! 14 that a GENERIC kernel's module still takes, by way of `vmm_sys`.

mod ctl;
mod decode;
mod encode;
mod exit;
mod fields;
mod interrupt;
mod name;
mod request;
mod table;
#[cfg(test)]
mod tests;

pub use ctl::{CtlRequest, decode_ctl};
pub use decode::decode;
pub use encode::{Reply, Timeval, encode};
pub use exit::{VM_EXIT_SIZE, encode_exit, exit_len};
pub use name::{SegName, VmName};
pub use request::*;
pub use table::{Availability, Command, Entry, Privilege, TABLE, VcpuLock, lookup};
