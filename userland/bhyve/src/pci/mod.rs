//! PCI (init_pci() of bhyve, step (9)): PCI Local Bus 3.0, and of PCI Express the enhanced
//! configuration access. In reading order: what a device is ([`device`]), its
//! interrupts ([`interrupts`]: [`msi`], [`msix`], [`intx`]), base addresses
//! ([`bar`]), which devices there are ([`registry`]).

#![forbid(unsafe_code)]

pub mod bar;
pub mod device;
pub mod interrupts;
pub mod intx;
pub mod msi;
pub mod msix;
pub mod registry;

pub use device::{
    Capability, Constructor, DeviceContext, DeviceError, FunctionSpec, Header, PciDevice,
};
pub use interrupts::{InterruptController, Interrupts};
