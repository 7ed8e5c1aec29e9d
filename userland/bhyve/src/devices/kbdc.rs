//! The one thing of the 8042 keyboard controller that every PC kernel may fall back on:
//! command 0xFE at port 0x64 pulses the reset line. There is no keyboard: the status
//! register says "output buffer empty, input buffer empty, self-test passed".

#![forbid(unsafe_code)]

use vmmapi::SuspendHow;

use super::Suspend;
use crate::ports::{PortDevice, Width};

/// Status when read, command when written.
pub const PORT: u16 = 0x64;

const STATUS_SYSTEM_FLAG: u32 = 1 << 2;
const COMMAND_PULSE_RESET: u32 = 0xfe;

pub struct KeyboardController {
    pub suspend: Suspend,
}

impl PortDevice for KeyboardController {
    fn read(&self, _offset: u16, _width: Width) -> u32 {
        STATUS_SYSTEM_FLAG
    }

    fn write(&self, _offset: u16, _width: Width, value: u32) {
        if value == COMMAND_PULSE_RESET {
            (self.suspend)(SuspendHow::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn only_the_reset_pulse_resets() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let kbdc = KeyboardController {
            suspend: Arc::new(move |how| log.lock().unwrap().push(how)),
        };
        kbdc.write(0, Width::Byte, 0xff);
        kbdc.write(0, Width::Byte, 0xae);
        assert!(asked.lock().unwrap().is_empty());
        kbdc.write(0, Width::Byte, 0xfe);
        assert_eq!(*asked.lock().unwrap(), [SuspendHow::Reset]);
        // No byte to read, ready for a command: a driver that probes doesn't hang.
        assert_eq!(kbdc.read(0, Width::Byte) & 0b11, 0);
    }
}
