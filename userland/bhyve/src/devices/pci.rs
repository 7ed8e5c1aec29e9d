//! PCI configuration mechanism #1 (PCI Local Bus 3.0, 3.2.2.3.2): the address register at
//! 0xCF8 and the data window at 0xCFC, with the two bridges that have no function beyond
//! their configuration header. Byte 0xCF9 between them is the reset control register of
//! the PIIX south bridge, which lies inside the address register's ports.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use vmmapi::SuspendHow;

use super::Suspend;
pub use crate::pci::device::Bdf;
use crate::ports::{PortDevice, Width};

/// Address register, reset control and data window.
pub const PORT: u16 = 0xcf8;
pub const PORTS: u16 = 8;
/// The reset control register.
pub const RESET_PORT: u16 = PORT + RESET_CONTROL;

const RESET_CONTROL: u16 = 1;
const DATA: u16 = 4;
const ADDRESS_ENABLE: u32 = 1 << 31;
/// Reserved bits and the two lowest read as zero.
const ADDRESS_MASK: u32 = 0x80ff_fffc;
const RESET_CPU: u8 = 1 << 2;

const HEADER_COMMAND: usize = 0x04;
const HEADER_INTERRUPT_LINE: usize = 0x3c;

/// What a function shows in its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub vendor: u16,
    pub device: u16,
    pub class: u8,
    pub subclass: u8,
}

/// bhyve's host bridge.
pub const HOSTBRIDGE: Identity = Identity {
    vendor: 0x1275,
    device: 0x1275,
    class: 6,
    subclass: 0,
};
/// The same as AMD's, for guests that look at the vendor.
pub const AMD_HOSTBRIDGE: Identity = Identity {
    vendor: 0x1022,
    device: 0x7432,
    class: 6,
    subclass: 0,
};
/// The PIIX3's PCI-ISA bridge.
pub const LPC: Identity = Identity {
    vendor: 0x8086,
    device: 0x7000,
    class: 6,
    subclass: 1,
};

/// The configuration space of one function, and which of its bits can be written.
struct Function {
    config: [u8; 256],
    writable: [u8; 256],
}

impl Function {
    fn new(identity: Identity) -> Self {
        let mut config = [0; 256];
        config[0..2].copy_from_slice(&identity.vendor.to_le_bytes());
        config[2..4].copy_from_slice(&identity.device.to_le_bytes());
        config[0x0a] = identity.subclass;
        config[0x0b] = identity.class;
        let mut writable = [0; 256];
        // I/O, memory and bus master enable; INTx disable.
        writable[HEADER_COMMAND] = 0x07;
        writable[HEADER_COMMAND + 1] = 0x04;
        writable[HEADER_INTERRUPT_LINE] = 0xff;
        Self { config, writable }
    }

    fn read(&self, register: usize, width: Width) -> u32 {
        let bytes = self
            .config
            .iter()
            .skip(register)
            .take(usize::from(width.bytes()));
        bytes
            .rev()
            .fold(0, |value, byte| value << 8 | u32::from(*byte))
    }

    fn write(&mut self, register: usize, width: Width, value: u32) {
        for n in 0..usize::from(width.bytes()) {
            let byte = (value >> (8 * n)) as u8;
            if let (Some(old), Some(mask)) = (
                self.config.get_mut(register + n),
                self.writable.get(register + n),
            ) {
                *old = *old & !mask | byte & mask;
            }
        }
    }
}

#[derive(Default)]
struct State {
    address: u32,
    reset_control: u8,
    functions: BTreeMap<Bdf, Function>,
}

/// The bus with its configuration ports.
pub struct PciBus {
    state: Mutex<State>,
    suspend: Suspend,
}

impl PciBus {
    pub fn new(suspend: Suspend) -> Self {
        Self {
            state: Mutex::default(),
            suspend,
        }
    }

    /// Puts a function there; false if there is one already.
    pub fn add(&self, at: Bdf, identity: Identity) -> bool {
        let mut state = self.state();
        let free = !state.functions.contains_key(&at);
        if free {
            state.functions.insert(at, Function::new(identity));
        }
        free
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The function and register that the address register selects.
    fn selected(&mut self, offset: u16) -> Option<(&mut Function, usize)> {
        if self.address & ADDRESS_ENABLE == 0 {
            return None;
        }
        let at = Bdf {
            bus: (self.address >> 16) as u8,
            slot: (self.address >> 11) as u8 & 31,
            function: (self.address >> 8) as u8 & 7,
        };
        let register = (self.address & 0xfc) as usize + usize::from(offset - DATA);
        self.functions
            .get_mut(&at)
            .map(|function| (function, register))
    }
}

impl PortDevice for PciBus {
    fn widest(&self) -> Width {
        Width::Dword
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        let mut state = self.state();
        match (offset, width) {
            (0, Width::Dword) => state.address,
            (RESET_CONTROL, Width::Byte) => u32::from(state.reset_control),
            (DATA.., _) => match state.selected(offset) {
                Some((function, register)) => function.read(register, width),
                None => u32::MAX,
            },
            // The address register exists for whole double words only.
            _ => u32::MAX,
        }
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        let mut state = self.state();
        match (offset, width) {
            (0, Width::Dword) => state.address = value & ADDRESS_MASK,
            (RESET_CONTROL, Width::Byte) => {
                state.reset_control = value as u8;
                drop(state);
                if value as u8 & RESET_CPU != 0 {
                    (self.suspend)(SuspendHow::Reset);
                }
            }
            (DATA.., _) => {
                if let Some((function, register)) = state.selected(offset) {
                    function.write(register, width, value);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::PortBus;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn machine() -> (PortBus, Arc<Mutex<Vec<SuspendHow>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let pci = PciBus::new(Arc::new(move |how| log.lock().unwrap().push(how)));
        assert!(pci.add(
            Bdf {
                bus: 0,
                slot: 0,
                function: 0
            },
            HOSTBRIDGE
        ));
        assert!(pci.add(
            Bdf {
                bus: 0,
                slot: 31,
                function: 0
            },
            LPC
        ));
        assert!(!pci.add(
            Bdf {
                bus: 0,
                slot: 31,
                function: 0
            },
            LPC
        ));
        let bus = PortBus::default();
        bus.register("PCI", PORT, PORTS, Arc::new(pci)).unwrap();
        (bus, asked)
    }

    fn config(bus: &PortBus, slot: u32, register: u32) -> u32 {
        bus.write(0xcf8, Width::Dword, 1 << 31 | slot << 11 | register);
        bus.read(0xcfc, Width::Dword).unwrap()
    }

    #[test]
    fn bridges_are_found_and_empty_slots_are_all_ones() {
        let (bus, _) = machine();
        assert_eq!(config(&bus, 0, 0), 0x1275_1275);
        assert_eq!(config(&bus, 0, 8) >> 16, 0x0600);
        assert_eq!(config(&bus, 31, 0), 0x7000_8086);
        assert_eq!(config(&bus, 31, 8) >> 16, 0x0601);
        assert_eq!(config(&bus, 5, 0), u32::MAX);
        assert_eq!(bus.read(0xcfe, Width::Word), Some(0xffff));
        bus.write(0xcf8, Width::Dword, 0);
        assert_eq!(bus.read(0xcfc, Width::Dword), Some(u32::MAX), "not enabled");
    }

    #[test]
    fn only_writable_bits_change() {
        let (bus, _) = machine();
        config(&bus, 0, 4);
        bus.write(0xcfc, Width::Dword, u32::MAX);
        assert_eq!(config(&bus, 0, 4), 0x0407);
        config(&bus, 0, 0);
        bus.write(0xcfc, Width::Dword, 0);
        assert_eq!(config(&bus, 0, 0), 0x1275_1275);
        config(&bus, 0, 0x3c);
        bus.write(0xcfc, Width::Byte, 9);
        assert_eq!(config(&bus, 0, 0x3c), 9);
    }

    #[test]
    fn reset_control_lies_within_the_address_register() {
        let (bus, asked) = machine();
        config(&bus, 31, 0);
        bus.write(0xcf9, Width::Byte, 2);
        assert!(asked.lock().unwrap().is_empty());
        assert_eq!(bus.read(0xcf9, Width::Byte), Some(2));
        assert_eq!(
            bus.read(0xcf8, Width::Dword),
            Some(1 << 31 | 31 << 11),
            "untouched"
        );
        bus.write(0xcf9, Width::Byte, 6);
        assert_eq!(*asked.lock().unwrap(), [SuspendHow::Reset]);
    }

    proptest! {
        #[test]
        fn any_access_is_answered(address: u32, port in 0xcf8u16..0xd00, value: u32, n in 0usize..3) {
            let (bus, _) = machine();
            let width = [Width::Byte, Width::Word, Width::Dword][n];
            bus.write(0xcf8, Width::Dword, address | 1 << 31);
            bus.write(port, width, value);
            prop_assert!(bus.read(port, width).is_some());
        }
    }
}
