//! `vmm_rs`: the kernel module's Rust core, a staticlib for FreeBSD's and Linux's kernels.
//! Reading order: [`dev`] (what userland calls), [`vm`] (a VM, its vcpus and memory),
//! [`vmx`] (VT-x itself), [`host`] (what the host kernel gives). All that needs no
//! `unsafe` and no host is in the crate `vmm_core`.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

pub mod dev;
pub mod host;
pub mod vm;
pub mod vmx;
