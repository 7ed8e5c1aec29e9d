//! Tests of the devices through their registers, as a guest's driver uses them: on a real
//! PCI bus, with rings in (anonymous) guest memory.

pub mod guest;
mod interrupts;
mod produce;
mod random;
mod rings;
mod setup;
