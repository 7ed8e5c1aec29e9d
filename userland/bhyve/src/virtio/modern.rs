//! The registers of virtio 1.x in a memory BAR (virtio 1.2, 4.1.4): common configuration,
//! ISR status, device configuration and notifications, each on a page of its own, found
//! by vendor-specific capabilities. A fifth capability reaches the BARs from
//! configuration space, for drivers that can't map them.

#![forbid(unsafe_code)]

use vmmapi::Gpa;

use super::legacy::pick;
use super::state::{NO_VECTOR, State, status};
use super::transport::Transport;
use crate::pci::Capability;
use crate::ports::Width;

/// The BAR's size, and what lies where in it.
pub(super) const LEN: u64 = 0x4000;
const COMMON: u64 = 0;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const PAGE: u64 = 0x1000;

/// PCI's ID of a vendor-specific capability.
const VENDOR_SPECIFIC: u8 = 9;
/// Types of virtio's capabilities (4.1.4).
const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_ISR: u8 = 3;
const TYPE_DEVICE: u8 = 4;
const TYPE_PCI: u8 = 5;

/// Bytes of a virtio capability from its length on, as it stands behind ID and next.
const CAP_LEN: usize = 14;

/// A queue's place among the notification registers is its number times this (4.1.4.4).
const NOTIFY_MULTIPLIER: u32 = 4;

/// The common configuration's registers (4.1.4.3).
const COMMON_LEN: usize = 56;
const DEVICE_FEATURE_SELECT: u64 = 0;
const DRIVER_FEATURE_SELECT: u64 = 8;
const DRIVER_FEATURE: u64 = 12;
const CONFIG_VECTOR: u64 = 16;
const DEVICE_STATUS: u64 = 20;
const QUEUE_SELECT: u64 = 22;
const QUEUE_SIZE: u64 = 24;
const QUEUE_VECTOR: u64 = 26;
const QUEUE_ENABLE: u64 = 28;
const QUEUE_DESC: u64 = 32;
const QUEUE_DRIVER: u64 = 40;
const QUEUE_DEVICE: u64 = 48;

/// The capabilities. The one of type [`TYPE_PCI`] comes last.
pub(super) fn capabilities(bar: u8, transport: &Transport) -> Vec<Capability> {
    let capability = |kind: u8, offset: u64, len: u64, more: &[u8]| {
        let mut contents = vec![0; CAP_LEN];
        // The whole length counts ID and next, too.
        contents[0] = (2 + CAP_LEN + more.len()) as u8;
        contents[1] = kind;
        contents[2] = bar;
        contents[6..10].copy_from_slice(&(offset as u32).to_le_bytes());
        contents[10..14].copy_from_slice(&(len as u32).to_le_bytes());
        contents.extend_from_slice(more);
        Capability {
            id: VENDOR_SPECIFIC,
            contents,
            writable: Vec::new(),
        }
    };
    let notify_len = transport.device.queues().len() as u64 * u64::from(NOTIFY_MULTIPLIER);
    let multiplier = NOTIFY_MULTIPLIER.to_le_bytes();
    let mut all = vec![
        capability(TYPE_COMMON, COMMON, COMMON_LEN as u64, &[]),
        capability(TYPE_NOTIFY, NOTIFY, notify_len, &multiplier),
        capability(TYPE_ISR, ISR, 1, &[]),
    ];
    let config = transport.state().config.len() as u64;
    if config > 0 {
        all.push(capability(TYPE_DEVICE, DEVICE, config, &[]));
    }
    let mut window = capability(TYPE_PCI, 0, 0, &[0; 4]);
    window.contents[2] = 0;
    window.writable = vec![0; window.contents.len()];
    window.writable[2] = 0xff;
    window.writable[6..].fill(0xff);
    all.push(window);
    all
}

/// The window in configuration space (4.1.4.9), by its capability's contents.
pub(super) struct Window {
    pub bar: u8,
    pub offset: u64,
    pub width: Width,
}

/// Where the window's data are in its contents.
pub(super) const WINDOW_DATA: usize = CAP_LEN;

impl Window {
    /// Where the driver has put it; `None` if it is no access that a BAR could have.
    pub fn of(contents: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let bytes = contents.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let offset = u64::from(word(6)?);
        let width = Width::from_bytes(u8::try_from(word(10)?).ok()?)?;
        (offset % u64::from(width.bytes()) == 0).then_some(Self {
            bar: *contents.get(2)?,
            offset,
            width,
        })
    }
}

impl Transport {
    pub(super) fn modern_read(&self, offset: u64, width: Width) -> u32 {
        let register = offset % PAGE;
        match offset - register {
            COMMON => pick(&self.common(), register, width),
            ISR if register == 0 => u32::from(self.take_isr()),
            DEVICE => pick(&self.state().config, register, width),
            // Notification registers can't be read, the rest is empty.
            _ => 0,
        }
    }

    pub(super) fn modern_write(&self, offset: u64, width: Width, value: u32) {
        let register = offset % PAGE;
        match offset - register {
            COMMON => self.write_common(register, width, value),
            NOTIFY if register % u64::from(NOTIFY_MULTIPLIER) == 0 => {
                self.notify((register / u64::from(NOTIFY_MULTIPLIER)) as usize);
            }
            DEVICE => {
                let bytes = value.to_le_bytes();
                self.config_write(register, &bytes[..usize::from(width.bytes())]);
            }
            // ISR status can't be written.
            _ => {}
        }
    }

    /// The common configuration as it reads.
    fn common(&self) -> [u8; COMMON_LEN] {
        let mut state = self.state();
        let offered = half(self.features(), state.device_feature_select);
        let accepted = half(state.features, state.driver_feature_select);
        let mut registers = [0; COMMON_LEN];
        let mut put = |at: u64, bytes: &[u8]| {
            registers[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        };
        put(
            DEVICE_FEATURE_SELECT,
            &state.device_feature_select.to_le_bytes(),
        );
        put(4, &offered.to_le_bytes());
        put(
            DRIVER_FEATURE_SELECT,
            &state.driver_feature_select.to_le_bytes(),
        );
        put(DRIVER_FEATURE, &accepted.to_le_bytes());
        put(CONFIG_VECTOR, &state.config_vector.to_le_bytes());
        put(18, &(state.queues.len() as u16).to_le_bytes());
        put(DEVICE_STATUS, &[state.status, state.config_generation]);
        put(QUEUE_SELECT, &state.queue_select.to_le_bytes());
        put(QUEUE_VECTOR, &NO_VECTOR.to_le_bytes());
        let number = state.queue_select;
        if let Some(queue) = state.selected() {
            put(QUEUE_SIZE, &queue.layout.size.to_le_bytes());
            put(QUEUE_VECTOR, &queue.vector.to_le_bytes());
            put(QUEUE_ENABLE, &u16::from(queue.ring.is_some()).to_le_bytes());
            put(30, &number.to_le_bytes());
            put(QUEUE_DESC, &queue.layout.descriptors.0.to_le_bytes());
            put(QUEUE_DRIVER, &queue.layout.available.0.to_le_bytes());
            put(QUEUE_DEVICE, &queue.layout.used.0.to_le_bytes());
        }
        registers
    }

    fn write_common(&self, register: u64, width: Width, value: u32) {
        let mut state = self.state();
        match (register, width) {
            (DEVICE_FEATURE_SELECT, Width::Dword) => state.device_feature_select = value,
            (DRIVER_FEATURE_SELECT, Width::Dword) => state.driver_feature_select = value,
            (DRIVER_FEATURE, Width::Dword) => accept_features(&mut state, value),
            (CONFIG_VECTOR, Width::Word) => state.config_vector = self.vector(value as u16),
            (DEVICE_STATUS, Width::Byte) => {
                drop(state);
                self.set_status(value as u8);
            }
            (QUEUE_SELECT, Width::Word) => state.queue_select = value as u16,
            (QUEUE_VECTOR, Width::Word) => {
                let vector = self.vector(value as u16);
                if let Some(queue) = state.selected() {
                    queue.vector = vector;
                }
            }
            (QUEUE_ENABLE, Width::Word)
                if value == 1 && state.selected().is_some_and(|queue| queue.ring.is_none()) =>
            {
                self.enable_queue(state);
            }
            (QUEUE_SIZE.., _) => place_queue(&mut state, register, width, value),
            // The rest is read-only, or no register.
            _ => {}
        }
    }
}

/// Features are the driver's choice until it says that they are complete. What it wasn't
/// offered keeps it from that.
fn accept_features(state: &mut State, value: u32) {
    if state.status & status::FEATURES_OK != 0 {
        return;
    }
    let shift = match state.driver_feature_select {
        0 => 0,
        1 => 32,
        _ => return,
    };
    let others = state.features & !(u64::from(u32::MAX) << shift);
    state.features = others | u64::from(value) << shift;
}

/// Size and addresses, which hold still from the queue's start on.
fn place_queue(state: &mut State, register: u64, width: Width, value: u32) {
    let Some(queue) = state.selected().filter(|queue| queue.ring.is_none()) else {
        return;
    };
    if (register, width) == (QUEUE_SIZE, Width::Word) {
        let size = value as u16;
        if size.is_power_of_two() && size <= queue.max {
            queue.layout.size = size;
        }
        return;
    }
    if width != Width::Dword {
        return;
    }
    let (address, upper) = match register & !4 {
        QUEUE_DESC => (&mut queue.layout.descriptors, register & 4 != 0),
        QUEUE_DRIVER => (&mut queue.layout.available, register & 4 != 0),
        QUEUE_DEVICE => (&mut queue.layout.used, register & 4 != 0),
        _ => return,
    };
    *address = Gpa(if upper {
        address.0 & u64::from(u32::MAX) | u64::from(value) << 32
    } else {
        address.0 & !u64::from(u32::MAX) | u64::from(value)
    });
}

/// 32 of the feature bits.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}
