//! The host kernel's services as safe Rust. This is the only module that imports C
//! functions: kmod/shim/host.h, bound by bindgen as [`ffi`]. The contexts (thread,
//! critical, spin, any) that its comments name are those of host.h.

#![allow(unsafe_code)]

pub mod cdev;
pub mod cpu;
pub mod log;
pub mod mem;
pub mod memobj;
mod panic;
pub mod sync;
pub mod thread;
pub mod time;
pub mod user;

/// kmod/shim/host.h as bindgen reads it.
pub use vmm_sys::host as ffi;
