//! /dev/vmmctl and /dev/vmm/NAME: the module's face to userland. [`entry`] is what the
//! shim calls, [`registry`] makes and destroys VMs, [`ioctl`] serves requests on one.

#![allow(unsafe_code)]

mod entry;
mod ioctl;
mod memory;
mod registry;
