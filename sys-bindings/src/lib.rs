//! The ioctl ABI of FreeBSD's vmm (machine/vmm.h, machine/vmm_dev.h) and the kernel
//! interface kmod/shim/host.h, as the C compiler sees them: bindgen's output under its
//! C names, with layouts asserted at compile time.
//!
//! Enums are plain integers (`VM_REG_GUEST_RAX`, with `vm_reg_name` as their type): what
//! crosses the ABI can have any value, and the layers above turn it into closed types.
//! The requests themselves are in [`ioctl`].

#![no_std]

#[allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    unsafe_op_in_unsafe_fn,
    unnecessary_transmutes,
    unknown_lints,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod freebsd {
    include!(concat!(env!("OUT_DIR"), "/freebsd.rs"));
}

pub use freebsd::*;

/// kmod/shim/host.h: the host kernel's functions (`host_*`), and the core's (`vmm_rs_*`)
/// as the shim expects them.
#[allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    unsafe_op_in_unsafe_fn,
    unnecessary_transmutes,
    unknown_lints,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
pub mod host {
    include!(concat!(env!("OUT_DIR"), "/host.rs"));
}

pub mod ioctl;
mod unnamed;

pub use unnamed::*;
