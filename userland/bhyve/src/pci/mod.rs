//! PCI (init_pci() of bhyve, step (9)): PCI Local Bus 3.0, and of PCI Express the enhanced
//! configuration access. In reading order: what a device is ([`device`]) and which there
//! are ([`registry`]) and where ([`slots`]), its interrupts ([`interrupts`]: [`msi`], [`msix`], [`intx`] and the
//! router [`pirq`]), its configuration space ([`config`]) with base addresses ([`bar`]),
//! what answers behind them ([`decode`]), a [`function`] of all that, the [`bus`], how
//! software gets there ([`access`]), and the two bridges ([`hostbridge`], [`lpc`]).

#![forbid(unsafe_code)]

pub mod access;
pub mod bar;
pub mod bus;
pub mod config;
pub mod decode;
pub mod device;
pub mod function;
pub mod hostbridge;
pub mod interrupts;
pub mod intx;
pub mod lpc;
pub mod msi;
pub mod msix;
pub mod pirq;
pub mod registry;
pub mod slots;
pub mod uart;

pub use device::{
    Bdf, Capability, Constructor, DeviceContext, DeviceError, FunctionSpec, Header, MsixSpec,
    PciDevice,
};
pub use interrupts::{InterruptController, Interrupts};
