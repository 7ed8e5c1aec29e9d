//! The PCI function of a virtio device: transitional, with the registers of virtio 0.9.5 in
//! BAR 0 (I/O), the MSI-X table in BAR 1, and the registers of virtio 1.x in BAR 2.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::device::VirtioDevice;
use super::modern::{self, WINDOW_DATA, Window};
use super::transport::{Threads, Transport};
use crate::pci::bar::{BarKind, BarSpec};
use crate::pci::device::MsixSpec;
use crate::pci::{DeviceContext, DeviceError, FunctionSpec, Header, PciDevice};
use crate::ports::Width;

const VENDOR: u16 = 0x1af4;

const LEGACY_BAR: usize = 0;
const MSIX_BAR: usize = 1;
const MODERN_BAR: usize = 2;

/// The function.
pub struct VirtioFunction {
    transport: Arc<Transport>,
    prefer_msi: bool,
    _threads: Threads,
}

impl VirtioFunction {
    /// With its threads running, named after `thread_name`.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        context: DeviceContext,
        thread_name: &str,
    ) -> Result<Arc<Self>, DeviceError> {
        let prefer_msi = context.prefer_msi;
        let transport = Transport::new(device, context);
        let threads = transport
            .start(thread_name)
            .map_err(|error| format!("a thread can't be started: {error}"))?;
        Ok(Arc::new(Self {
            transport,
            prefer_msi,
            _threads: threads,
        }))
    }

    /// The length of a BAR that the window of configuration space reaches.
    fn bar_len(&self, bar: u8) -> u64 {
        match usize::from(bar) {
            LEGACY_BAR => self.transport.legacy_len(),
            MODERN_BAR => modern::LEN,
            _ => 0,
        }
    }

    /// The access that the window makes, if these bytes of its capability make one: those
    /// of its data.
    fn window(&self, index: usize, offset: usize, width: Width, contents: &[u8]) -> Option<Window> {
        let last = offset + usize::from(width.bytes());
        if index + 1 != self.spec().capabilities.len() || last <= WINDOW_DATA {
            return None;
        }
        let window = Window::of(contents)?;
        let end = window.offset + u64::from(window.width.bytes());
        (end <= self.bar_len(window.bar)).then_some(window)
    }
}

impl PciDevice for VirtioFunction {
    fn spec(&self) -> FunctionSpec {
        let identity = self.transport.device.identity();
        let bar = |index, kind, size| BarSpec { index, kind, size };
        FunctionSpec {
            header: Header {
                vendor: VENDOR,
                device: identity.pci_device,
                class: identity.class,
                subclass: identity.subclass,
                subsystem_vendor: VENDOR,
                subsystem: identity.device_type,
                ..Header::default()
            },
            bars: vec![
                bar(LEGACY_BAR, BarKind::Io, self.transport.legacy_len()),
                bar(MODERN_BAR, BarKind::Memory32, modern::LEN),
            ],
            msi: Some(1),
            msix: (!self.prefer_msi).then_some(MsixSpec {
                bar: MSIX_BAR,
                vectors: self.transport.vectors(),
            }),
            intx: true,
            capabilities: modern::capabilities(MODERN_BAR as u8, &self.transport),
        }
    }

    fn bar_read(&self, bar: usize, offset: u64, width: Width) -> u32 {
        match bar {
            LEGACY_BAR => self.transport.legacy_read(offset, width),
            MODERN_BAR => self.transport.modern_read(offset, width),
            _ => u32::MAX,
        }
    }

    fn bar_write(&self, bar: usize, offset: u64, width: Width, value: u32) {
        match bar {
            LEGACY_BAR => self.transport.legacy_write(offset, width, value),
            MODERN_BAR => self.transport.modern_write(offset, width, value),
            _ => {}
        }
    }

    fn capability_read(&self, index: usize, offset: usize, width: Width, contents: &mut [u8]) {
        if let Some(window) = self.window(index, offset, width, contents) {
            let value = self.bar_read(usize::from(window.bar), window.offset, window.width);
            if let Some(data) = contents.get_mut(WINDOW_DATA..) {
                for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
                    *to = from;
                }
            }
        }
    }

    fn capability_written(&self, index: usize, offset: usize, width: Width, contents: &mut [u8]) {
        if let Some(window) = self.window(index, offset, width, contents) {
            let mut value = [0; 4];
            for (to, from) in value.iter_mut().zip(contents.iter().skip(WINDOW_DATA)) {
                *to = *from;
            }
            let value = u32::from_le_bytes(value) & window.width.mask();
            self.bar_write(usize::from(window.bar), window.offset, window.width, value);
        }
    }
}
