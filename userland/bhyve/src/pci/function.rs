//! One function on the bus: its configuration space, put together from the header, the
//! interrupts' capabilities and the device's own.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bar::BarSpec;
use super::config::{CapabilityKind, ConfigSpace, SpecError};
use super::decode::{Decoder, Target};
use super::device::{Bdf, PciDevice};
use super::interrupts::{Interrupts, Message};
use super::intx::Line;
use super::msi::Msi;
use super::msix::Msix;
use crate::ports::Width;

/// A function with its device.
pub struct Function {
    pub at: Bdf,
    /// The device's name in `-s`.
    pub kind: &'static str,
    pub name: String,
    pub uses_intx: bool,
    device: Arc<dyn PciDevice>,
    interrupts: Interrupts,
    decoder: Arc<Decoder>,
    targets: Vec<(BarSpec, Arc<Target>)>,
    config: Mutex<ConfigSpace>,
}

impl Function {
    /// As after reset: nothing is decoded.
    pub fn new(
        at: Bdf,
        kind: &'static str,
        name: String,
        device: Arc<dyn PciDevice>,
        interrupts: Interrupts,
        decoder: Arc<Decoder>,
    ) -> Result<Self, SpecError> {
        let spec = device.spec();
        let config = ConfigSpace::new(&spec)?;
        interrupts.configure(|state| {
            state.msi = spec.msi.map(Msi::new);
            state.msix = spec.msix.map(|msix| Msix::new(msix.bar, msix.vectors));
            Vec::new()
        });
        let target = |bar: BarSpec| {
            if spec.msix.is_some_and(|msix| msix.bar == bar.index) {
                return Target::Msix(interrupts.clone());
            }
            Target::Device {
                device: Arc::clone(&device),
                bar: bar.index,
            }
        };
        let targets = config
            .bars()
            .map(|bar| (bar, Arc::new(target(bar))))
            .collect();
        Ok(Self {
            at,
            kind,
            name,
            uses_intx: spec.intx,
            device,
            interrupts,
            decoder,
            targets,
            config: Mutex::new(config),
        })
    }

    /// The BARs that need a place.
    pub fn bars(&self) -> Vec<BarSpec> {
        self.config().bars().collect()
    }

    /// Puts a BAR there.
    pub fn place_bar(&self, bar: BarSpec, address: u64) {
        self.config().set_bar(bar, address);
    }

    /// Connects the interrupt pin (1 is INTA#).
    pub fn connect_intx(&self, pin: u8, interrupt_line: u8, line: Line) {
        self.config().set_interrupt(pin, interrupt_line);
        self.interrupts.configure(|state| {
            state.intx.connect(line);
            Vec::new()
        });
    }

    pub fn set_multi_function(&self) {
        self.config().set_multi_function();
    }

    /// Begins to decode, as firmware leaves it.
    pub fn enable(&self) {
        let mut config = self.config();
        config.enable();
        self.update_decoding(&config);
    }

    /// Software reads a register.
    pub fn read(&self, register: u8, width: Width) -> u32 {
        if u16::from(register) % width.bytes() != 0 {
            return bytes_of(register, width).rev().fold(0, |value, at| {
                value << 8 | at.map_or(0xff, |at| self.read(at, Width::Byte))
            });
        }
        let mut config = self.config();
        let at = usize::from(register);
        if let Some((CapabilityKind::Device(index), contents)) = config.capability_at(at) {
            let offset = at - contents.start;
            let bytes = config.contents_mut(contents);
            self.device.capability_read(index, offset, width, bytes);
        }
        let bytes = at..at + usize::from(width.bytes());
        bytes.rev().fold(0, |value, at| {
            value << 8 | u32::from(self.byte(&config, at))
        })
    }

    /// Software writes a register.
    pub fn write(&self, register: u8, width: Width, value: u32) {
        if u16::from(register) % width.bytes() != 0 {
            for (n, at) in bytes_of(register, width).enumerate() {
                if let Some(at) = at {
                    self.write(at, Width::Byte, value >> (8 * n));
                }
            }
            return;
        }
        let mut config = self.config();
        let start = usize::from(register);
        let bytes = start..start + usize::from(width.bytes());
        let mut messages = Vec::new();
        for (at, byte) in bytes.clone().zip(value.to_le_bytes()) {
            messages.extend(self.write_byte(&mut config, at, byte));
        }
        if let Some((CapabilityKind::Device(index), contents)) = config.capability_at(start) {
            let offset = start - contents.start;
            let bytes = config.contents_mut(contents);
            self.device.capability_written(index, offset, width, bytes);
        }
        if bytes.clone().any(ConfigSpace::changes_decoding) {
            self.update_decoding(&config);
        }
        let intx_disabled = config.intx_disabled();
        self.interrupts.configure(|state| {
            state.intx.disabled = intx_disabled;
            messages
        });
    }

    fn byte(&self, config: &ConfigSpace, at: usize) -> u8 {
        if ConfigSpace::is_status_low(at) {
            let level = self.interrupts.inspect(|state| state.intx.status());
            return config.status_low(level);
        }
        let offset = |contents: Range<usize>| at - contents.start;
        match config.capability_at(at) {
            Some((CapabilityKind::Msi, contents)) => {
                let msi = |msi: &Msi| msi.read(offset(contents));
                self.interrupts
                    .inspect(|state| state.msi.as_ref().map_or(0, msi))
            }
            Some((CapabilityKind::Msix, contents)) => {
                let msix = |msix: &Msix| msix.read(offset(contents));
                self.interrupts
                    .inspect(|state| state.msix.as_ref().map_or(0, msix))
            }
            Some((CapabilityKind::Device(_), _)) => config.byte(at),
            None if config.is_device_specific(at) => {
                let answer = self.device.config_read(at as u8);
                answer.unwrap_or_else(|| config.byte(at))
            }
            None => config.byte(at),
        }
    }

    /// Writes a byte. The answer is what thereby can be sent.
    fn write_byte(&self, config: &mut ConfigSpace, at: usize, value: u8) -> Vec<Message> {
        let mut messages = Vec::new();
        match config.capability_at(at) {
            Some((CapabilityKind::Msi, contents)) => self.interrupts.configure(|state| {
                if let Some(msi) = &mut state.msi {
                    msi.write(at - contents.start, value);
                }
                Vec::new()
            }),
            Some((CapabilityKind::Msix, contents)) => self.interrupts.configure(|state| {
                if let Some(msix) = &mut state.msix {
                    messages = msix.write(at - contents.start, value);
                }
                Vec::new()
            }),
            Some((CapabilityKind::Device(_), _)) => config.write(at, value),
            None if config.is_device_specific(at) => {
                if let Some(stored) = self.device.config_write(at as u8, value) {
                    config.store(at, stored);
                }
            }
            None => config.write(at, value),
        }
        messages
    }

    fn update_decoding(&self, config: &ConfigSpace) {
        for (bar, target) in &self.targets {
            let range = config.decoded(*bar);
            self.decoder
                .set((self.at, bar.index), &self.name, range, target);
        }
    }

    fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registers of an access; `None` for those beyond the last one.
fn bytes_of(
    register: u8,
    width: Width,
) -> impl DoubleEndedIterator<Item = Option<u8>> + ExactSizeIterator {
    let bytes = width.bytes() as u8;
    (0..bytes).map(move |n| register.checked_add(n))
}
