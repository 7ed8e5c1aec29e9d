//! AHCI controllers (Serial ATA AHCI 1.3.1) with disks and CD drives: `ahci`, `ahci-hd`,
//! `ahci-cd`. In reading order: the [`options`], the [`registers`] by name, the [`hba`] with
//! its interrupts and threads, a [`port`], how a [`command`] lies in memory and what
//! [`fis`]es say; the [`device`] behind a port with the [`answer`]s that it gives; a disk's
//! commands ([`ata`], [`identify`], [`logs`], [`trim`]); a CD drive's ([`atapi`],
//! [`cd_info`], [`sense`]). Here is the PCI function.

#![forbid(unsafe_code)]

pub mod answer;
pub mod ata;
pub mod atapi;
pub mod cd_info;
pub mod command;
pub mod device;
pub mod fis;
pub mod hba;
pub mod identify;
pub mod logs;
pub mod options;
pub mod port;
pub mod registers;
pub mod sense;
pub mod trim;

use std::sync::Arc;

use hba::{Hba, Threads};

use crate::config::View;
use crate::pci::bar::{BarKind, BarSpec};
use crate::pci::{DeviceContext, DeviceError, FunctionSpec, Header, PciDevice};
use crate::ports::Width;

/// Intel's ICH8 in AHCI mode, as in bhyve(8).
const HEADER: Header = Header {
    vendor: 0x8086,
    device: 0x2821,
    // Mass storage, SATA, AHCI 1.0.
    class: 1,
    subclass: 6,
    prog_if: 1,
    revision: 0,
    subsystem_vendor: 0,
    subsystem: 0,
};

/// ABAR.
const BAR: usize = 5;

/// The function.
pub struct Ahci {
    hba: Arc<Hba>,
    _threads: Threads,
}

impl PciDevice for Ahci {
    fn spec(&self) -> FunctionSpec {
        FunctionSpec {
            header: HEADER,
            bars: vec![BarSpec {
                index: BAR,
                kind: BarKind::Memory32,
                size: self.hba.registers_len(),
            }],
            msi: Some(self.hba.messages()),
            intx: true,
            ..FunctionSpec::default()
        }
    }

    /// Any part of one register.
    fn bar_read(&self, _bar: usize, offset: u64, width: Width) -> u32 {
        let value = self.hba.read(offset & !3);
        value >> (8 * (offset & 3)) & width.mask()
    }

    /// Whole registers only (AHCI 1.3.1, 3).
    fn bar_write(&self, _bar: usize, offset: u64, width: Width, value: u32) {
        if width == Width::Dword && offset % 4 == 0 {
            self.hba.write(offset, value);
        }
    }
}

/// A controller from its node.
pub fn ahci(config: &View<'_>, context: DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError> {
    let devices = options::open(config, &context)?;
    let hba = Hba::new(devices, &context);
    let threads = hba
        .start(&format!("blk-{}:{}", context.at.slot, context.at.function))
        .map_err(|error| format!("a thread can't be started: {error}"))?;
    Ok(Arc::new(Ahci {
        hba,
        _threads: threads,
    }))
}

#[cfg(test)]
mod tests;
