//! The registers of virtio 0.9.5 in an I/O BAR (virtio 1.2, 4.1.4.10): what FreeBSD's bhyve
//! offers, and what a driver without virtio 1.x uses.

#![forbid(unsafe_code)]

use vmmapi::Gpa;

use super::queue::Layout;
use super::transport::{NO_VECTOR, Transport, status};
use crate::ports::Width;

const DRIVER_FEATURES: u64 = 4;
const QUEUE_PFN: u64 = 8;
const QUEUE_SELECT: u64 = 14;
const QUEUE_NOTIFY: u64 = 16;
const STATUS: u64 = 18;
const ISR: u64 = 19;
const CONFIG_VECTOR: u64 = 20;
const QUEUE_VECTOR: u64 = 22;
/// The end of the registers, where the device's configuration space begins: earlier
/// without MSI-X.
const END: u64 = 20;
const END_WITH_MSIX: u64 = 24;

/// Queues are given by the number of their first page.
const PAGE_SHIFT: u32 = 12;

impl Transport {
    /// How large the BAR is.
    pub(super) fn legacy_len(&self) -> u64 {
        END_WITH_MSIX + self.state().config.len() as u64
    }

    pub(super) fn legacy_read(&self, offset: u64, width: Width) -> u32 {
        let end = self.legacy_end();
        if offset >= end {
            return pick(&self.state().config, offset - end, width);
        }
        if offset == ISR {
            return u32::from(self.take_isr());
        }
        pick(&self.legacy_registers()[..end as usize], offset, width)
    }

    pub(super) fn legacy_write(&self, offset: u64, width: Width, value: u32) {
        if let Some(offset) = offset.checked_sub(self.legacy_end()) {
            let bytes = value.to_le_bytes();
            self.config_write(offset, &bytes[..usize::from(width.bytes())]);
            return;
        }
        let mut state = self.state();
        match (offset, width) {
            (DRIVER_FEATURES, Width::Dword) if state.status & status::DRIVER_OK == 0 => {
                state.features = u64::from(value & self.legacy_features());
            }
            (QUEUE_PFN, Width::Dword) => {
                state = self.core.drain(state);
                let Some(queue) = state.selected() else {
                    return;
                };
                queue.ring = None;
                let base = Gpa(u64::from(value) << PAGE_SHIFT);
                // No page number is so high that its queue would end beyond 64 bits.
                if let (Some(layout), true) = (Layout::legacy(base, queue.max), value != 0) {
                    queue.layout = layout;
                    self.enable_queue(state);
                }
            }
            (QUEUE_SELECT, Width::Word) => state.queue_select = value as u16,
            (QUEUE_NOTIFY, Width::Word) => {
                drop(state);
                self.notify(value as usize);
            }
            (STATUS, Width::Byte) => {
                drop(state);
                self.set_status(value as u8);
            }
            (CONFIG_VECTOR, Width::Word) => state.config_vector = self.vector(value as u16),
            (QUEUE_VECTOR, Width::Word) => {
                let vector = self.vector(value as u16);
                if let Some(queue) = state.selected() {
                    queue.vector = vector;
                }
            }
            // The rest is read-only, or no register.
            _ => {}
        }
    }

    fn legacy_end(&self) -> u64 {
        if self.msix_enabled() {
            END_WITH_MSIX
        } else {
            END
        }
    }

    /// All registers as they read, but for the ISR.
    fn legacy_registers(&self) -> [u8; END_WITH_MSIX as usize] {
        let mut state = self.state();
        let (features, select) = (state.features as u32, state.queue_select);
        let (status, config_vector) = (state.status, state.config_vector);
        let (mut pfn, mut size, mut vector) = (0, 0, NO_VECTOR);
        if let Some(queue) = state.selected() {
            if queue.ring.is_some() {
                pfn = (queue.layout.descriptors.0 >> PAGE_SHIFT) as u32;
            }
            (size, vector) = (queue.max, queue.vector);
        }
        drop(state);

        let mut registers = [0; END_WITH_MSIX as usize];
        let fields: [(usize, &[u8]); 8] = [
            (0, &self.legacy_features().to_le_bytes()),
            (DRIVER_FEATURES as usize, &features.to_le_bytes()),
            (QUEUE_PFN as usize, &pfn.to_le_bytes()),
            (12, &size.to_le_bytes()),
            (QUEUE_SELECT as usize, &select.to_le_bytes()),
            (STATUS as usize, &[status]),
            (CONFIG_VECTOR as usize, &config_vector.to_le_bytes()),
            (QUEUE_VECTOR as usize, &vector.to_le_bytes()),
        ];
        for (at, bytes) in fields {
            registers[at..at + bytes.len()].copy_from_slice(bytes);
        }
        registers
    }
}

/// The value at an offset of some registers, zero beyond their end.
pub(super) fn pick(registers: &[u8], offset: u64, width: Width) -> u32 {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let mut value = [0; 4];
    let there = registers.iter().skip(offset);
    for (to, from) in value.iter_mut().zip(there.take(usize::from(width.bytes()))) {
        *to = *from;
    }
    u32::from_le_bytes(value)
}
