//! Sense data (SPC-3, 4.5): why a packet command has failed.

#![forbid(unsafe_code)]

/// Key, additional code and its qualifier.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sense {
    pub key: u8,
    pub code: u8,
    pub qualifier: u8,
}

impl Sense {
    pub const NO_MEDIUM: Self = Self::new(0x2, 0x3a, 0x00);
    pub const UNRECOVERED_READ: Self = Self::new(0x3, 0x11, 0x00);
    pub const INVALID_OPCODE: Self = Self::new(0x5, 0x20, 0x00);
    pub const OUT_OF_RANGE: Self = Self::new(0x5, 0x21, 0x00);
    pub const INVALID_FIELD: Self = Self::new(0x5, 0x24, 0x00);
    pub const NO_SAVED_PARAMETERS: Self = Self::new(0x5, 0x39, 0x00);
    pub const REMOVAL_PREVENTED: Self = Self::new(0x5, 0x53, 0x02);
    pub const MEDIUM_CHANGED: Self = Self::new(0x6, 0x28, 0x00);
    /// The data did not fit.
    pub const DATA_PHASE: Self = Self::new(0xb, 0x4b, 0x00);

    const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Self {
            key,
            code,
            qualifier,
        }
    }

    /// In fixed format, for the current error.
    pub fn bytes(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[0] = 0x70;
        bytes[2] = self.key;
        // How many come behind this one.
        bytes[7] = 10;
        bytes[12] = self.code;
        bytes[13] = self.qualifier;
        bytes
    }

    /// The error register of the packet command.
    pub const fn error(self) -> u8 {
        self.key << 4
    }
}
