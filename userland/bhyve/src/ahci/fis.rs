//! Frame information structures (Serial ATA 3.0, 10.3): what a command is sent in, and what
//! the device answers with. The HBA puts answers into guest memory (AHCI 1.3.1, 4.2.1).

#![forbid(unsafe_code)]

use super::registers::ata;

const TYPE_H2D: u8 = 0x27;
const TYPE_D2H: u8 = 0x34;
const TYPE_SET_BITS: u8 = 0xa1;
const TYPE_PIO_SETUP: u8 = 0x5f;

/// Byte 1: it carries a command and not the control register.
const COMMAND: u8 = 1 << 7;
/// Byte 1: an interrupt is wanted; data goes to the host.
const INTERRUPT: u8 = 1 << 6;
const TO_HOST: u8 = 1 << 5;
/// Control register: software reset.
const SRST: u8 = 1 << 2;

/// Bytes of a command's FIS; the last ones are the auxiliary field.
pub const COMMAND_LEN: usize = 20;

/// A register FIS from host to device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command([u8; COMMAND_LEN]);

/// What a FIS of the host is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FromHost {
    Command(Command),
    /// The control register: software reset begins or ends.
    Control {
        reset: bool,
    },
    /// Something that a host doesn't send.
    Unknown(u8),
}

impl FromHost {
    pub fn parse(bytes: [u8; COMMAND_LEN]) -> Self {
        match bytes[0] {
            TYPE_H2D if bytes[1] & COMMAND != 0 => Self::Command(Command(bytes)),
            TYPE_H2D => Self::Control {
                reset: bytes[15] & SRST != 0,
            },
            other => Self::Unknown(other),
        }
    }
}

impl Command {
    pub const fn code(&self) -> u8 {
        self.0[2]
    }

    /// Features, 16 bits.
    pub const fn features(&self) -> u16 {
        u16::from_le_bytes([self.0[3], self.0[11]])
    }

    /// The sector count, 16 bits.
    pub const fn count(&self) -> u16 {
        u16::from_le_bytes([self.0[12], self.0[13]])
    }

    pub const fn lba48(&self) -> u64 {
        let fis = &self.0;
        u64::from_le_bytes([fis[4], fis[5], fis[6], fis[8], fis[9], fis[10], 0, 0])
    }

    pub const fn lba28(&self) -> u64 {
        let fis = &self.0;
        u64::from_le_bytes([fis[4], fis[5], fis[6], fis[7] & 0xf, 0, 0, 0, 0])
    }

    pub const fn device(&self) -> u8 {
        self.0[7]
    }

    pub const fn auxiliary(&self) -> u8 {
        self.0[16]
    }

    /// Address, device and count, as they were sent.
    pub const fn registers(&self) -> Registers {
        Registers {
            lba: self.lba48(),
            device: self.device(),
            count: self.count(),
        }
    }
}

/// The registers that an answer carries besides status and error.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Registers {
    pub lba: u64,
    pub device: u8,
    pub count: u16,
}

impl Registers {
    /// Bytes 4 to 13 of a FIS.
    pub fn bytes(&self) -> [u8; 10] {
        let [l0, l1, l2, l3, l4, l5, ..] = self.lba.to_le_bytes();
        let [c0, c1] = self.count.to_le_bytes();
        [l0, l1, l2, self.device, l3, l4, l5, 0, c0, c1]
    }
}

/// A register FIS from device to host. A driver sees status and error in PxTFD, too.
pub fn d2h(interrupt: bool, status: u8, error: u8, registers: &Registers) -> [u8; 20] {
    let mut fis = [0; 20];
    fis[0] = TYPE_D2H;
    fis[1] = if interrupt { INTERRUPT } else { 0 };
    fis[2] = status;
    fis[3] = error;
    fis[4..14].copy_from_slice(&registers.bytes());
    fis
}

/// What comes before the data of a PIO command, with the status behind the data.
pub fn pio_setup(to_host: bool, len: u32, after: u8, registers: &Registers) -> [u8; 20] {
    let mut fis = [0; 20];
    fis[0] = TYPE_PIO_SETUP;
    fis[1] = if to_host { TO_HOST } else { 0 };
    fis[2] = ata::DRDY | ata::DSC | ata::DRQ;
    fis[4..14].copy_from_slice(&registers.bytes());
    fis[15] = after;
    let len = u16::try_from(len).unwrap_or(u16::MAX);
    fis[16..18].copy_from_slice(&len.to_le_bytes());
    fis
}

/// Set device bits: the queued commands that are done, or an error of one. BSY and DRQ are
/// not carried.
pub fn set_bits(status: u8, error: u8, done: u32) -> [u8; 8] {
    let [d0, d1, d2, d3] = done.to_le_bytes();
    [
        TYPE_SET_BITS,
        INTERRUPT,
        status & SET_BITS_STATUS,
        error,
        d0,
        d1,
        d2,
        d3,
    ]
}

/// The status bits that set device bits changes.
pub const SET_BITS_STATUS: u8 = 0x77;

#[cfg(test)]
mod tests {
    use super::*;

    fn fis() -> [u8; COMMAND_LEN] {
        std::array::from_fn(|n| match n {
            0 => TYPE_H2D,
            1 => COMMAND,
            n => (n as u8).wrapping_mul(0x11),
        })
    }

    #[test]
    fn a_commands_registers_are_where_serial_ata_has_them() {
        let FromHost::Command(command) = FromHost::parse(fis()) else {
            panic!("it is a command");
        };
        assert_eq!(command.code(), 0x22);
        assert_eq!(command.features(), 0xbb33);
        assert_eq!(command.count(), 0xddcc);
        assert_eq!(command.lba48(), 0xaa99_8866_5544);
        assert_eq!(command.lba28(), 0x0766_5544);
        let answer = d2h(true, ata::BAD, ata::ABRT, &command.registers());
        assert_eq!(answer[..4], [0x34, 0x40, 0x41, 0x04]);
        assert_eq!(answer[4..11], fis()[4..11]);
        assert_eq!(answer[12..14], fis()[12..14]);
        assert_eq!((answer[11], &answer[14..]), (0, &[0; 6][..]));
    }

    #[test]
    fn what_is_no_command_is_control_or_unknown() {
        let mut bytes = fis();
        bytes[1] = 0;
        bytes[15] = SRST;
        assert_eq!(FromHost::parse(bytes), FromHost::Control { reset: true });
        bytes[15] = 0;
        assert_eq!(FromHost::parse(bytes), FromHost::Control { reset: false });
        bytes[0] = 0x46;
        assert_eq!(FromHost::parse(bytes), FromHost::Unknown(0x46));
    }
}
