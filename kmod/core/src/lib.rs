//! `vmm_core`: the half of vmm_rs that needs no `unsafe` and no host kernel. It is built
//! into the module and tested on the build machine with plain `cargo test`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod cpu;
pub mod devices;
pub mod ept;
pub mod exit;
pub mod ioctl;
pub mod limits;
pub mod regs;
pub mod stats;
pub mod types;
pub mod vcpu;
pub mod vmx;
