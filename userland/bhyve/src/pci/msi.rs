//! The MSI capability (PCI Local Bus 3.0, 6.8.1): 64-bit address, several messages, no
//! masks for single ones.

#![forbid(unsafe_code)]

use super::interrupts::Message;

/// Capability ID.
pub const ID: u8 = 0x05;
/// The most messages of a function.
pub const MAX_MESSAGES: u8 = 32;
/// Of the whole capability.
pub const LEN: usize = 14;

const CONTROL_ENABLE: u16 = 1 << 0;
const CONTROL_CAPABLE_SHIFT: u32 = 1;
const CONTROL_ENABLED_SHIFT: u32 = 4;
const CONTROL_ENABLED: u16 = 7 << CONTROL_ENABLED_SHIFT;
const CONTROL_64_BIT: u16 = 1 << 7;
const CONTROL_WRITABLE: u16 = CONTROL_ENABLE | CONTROL_ENABLED;
/// 6 and 7 are reserved.
const MOST_ENABLED: u16 = 5;

/// Its registers behind ID and next pointer: control, address, data.
#[derive(Clone, Debug)]
pub struct Msi {
    registers: [u8; LEN - 2],
}

impl Msi {
    /// For that many messages, a power of two up to 32.
    pub fn new(messages: u8) -> Self {
        debug_assert!(messages.is_power_of_two() && messages <= MAX_MESSAGES);
        let capable = (messages.trailing_zeros() as u16) << CONTROL_CAPABLE_SHIFT;
        let mut registers = [0; LEN - 2];
        registers[..2].copy_from_slice(&(CONTROL_64_BIT | capable).to_le_bytes());
        Self { registers }
    }

    /// The byte at an offset behind the capability's two first ones.
    pub fn read(&self, offset: usize) -> u8 {
        self.registers.get(offset).copied().unwrap_or(0)
    }

    pub fn write(&mut self, offset: usize, value: u8) {
        let [control_low, control_high] = CONTROL_WRITABLE.to_le_bytes();
        let writable = match offset {
            0 => control_low,
            1 => control_high,
            // An address of a double word.
            2 => 0xfc,
            _ => 0xff,
        };
        if let Some(register) = self.registers.get_mut(offset) {
            *register = *register & !writable | value & writable;
        }
    }

    pub fn enabled(&self) -> bool {
        self.control() & CONTROL_ENABLE != 0
    }

    /// How many messages the guest allows; none while MSI is off.
    pub fn messages(&self) -> u8 {
        if self.enabled() {
            // 32 at most.
            1 << self.enabled_log2()
        } else {
            0
        }
    }

    /// The message of that number, if MSI is on and the guest allowed that many.
    pub fn raise(&self, number: u8) -> Option<Message> {
        let messages = 1_u32 << self.enabled_log2();
        let number = u32::from(number);
        if !self.enabled() || number >= messages {
            return None;
        }
        let [_, _, a0, a1, a2, a3, a4, a5, a6, a7, d0, d1] = self.registers;
        let data = u32::from(u16::from_le_bytes([d0, d1]));
        Some(Message {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            // The function changes only the lowest bits (6.8.1.4).
            data: data & !(messages - 1) | number,
        })
    }

    fn control(&self) -> u16 {
        u16::from_le_bytes([self.registers[0], self.registers[1]])
    }

    /// How many messages the guest allowed, but never more than there are.
    fn enabled_log2(&self) -> u16 {
        let capable = self.control() >> CONTROL_CAPABLE_SHIFT & 7;
        let enabled = (self.control() & CONTROL_ENABLED) >> CONTROL_ENABLED_SHIFT;
        enabled.min(MOST_ENABLED).min(capable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_up(msi: &mut Msi, control: u8) {
        for (offset, value) in [control, 0, 0x07, 0x10, 0xe0, 0xfe, 1, 0, 0, 0, 0x47, 0x40]
            .into_iter()
            .enumerate()
        {
            msi.write(offset, value);
        }
    }

    #[test]
    fn messages_go_to_the_address_with_their_number_in_the_data() {
        let mut msi = Msi::new(4);
        set_up(&mut msi, 2 << 4 | 1);
        let address = 0x1_fee0_1004;
        let data = 0x4044;
        let expected = |number: u32| Message {
            address,
            data: data + number,
        };
        assert_eq!(msi.raise(0), Some(expected(0)));
        assert_eq!(msi.raise(3), Some(expected(3)));
        assert_eq!(msi.raise(4), None);
        assert_eq!(msi.messages(), 4);
    }

    #[test]
    fn one_message_keeps_all_of_the_data() {
        let mut msi = Msi::new(1);
        set_up(&mut msi, 5 << 4 | 1);
        assert_eq!(msi.raise(0).map(|message| message.data), Some(0x4047));
        assert_eq!(msi.raise(1), None, "no more than the function has");
    }

    #[test]
    fn only_enable_and_the_number_of_messages_can_be_written() {
        let mut msi = Msi::new(8);
        assert_eq!((msi.read(0), msi.read(1)), (0x80 | 3 << 1, 0));
        msi.write(0, 0xff);
        msi.write(1, 0xff);
        assert_eq!((msi.read(0), msi.read(1)), (0x80 | 7 << 4 | 3 << 1 | 1, 0));
        assert!(msi.raise(7).is_some(), "the reserved number 7 is capped");
        assert!(msi.raise(8).is_none());
        msi.write(0, 0);
        assert!(!msi.enabled());
        assert_eq!(msi.messages(), 0);
        assert_eq!(msi.raise(0), None);
    }
}
