//! How a command ends, and what has to be done until it does.

#![forbid(unsafe_code)]

use super::fis::{Command, Registers};
use super::registers::ata;
use super::sense::Sense;

/// What the device reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u8,
    pub error: u8,
    pub registers: Registers,
    /// A PIO setup FIS comes before the data: whether to the host, and how many bytes.
    pub pio: Option<(bool, u32)>,
    /// More data than the driver has room for.
    pub overflow: bool,
    /// What REQUEST SENSE tells then; ATAPI only.
    pub sense: Option<Sense>,
}

impl Answer {
    /// All went well.
    pub const fn good(command: &Command) -> Self {
        Self {
            status: ata::GOOD,
            error: 0,
            registers: command.registers(),
            pio: None,
            overflow: false,
            sense: None,
        }
    }

    /// An error of an ATA command.
    pub const fn error(command: &Command, error: u8) -> Self {
        Self {
            status: ata::BAD,
            error,
            ..Self::good(command)
        }
    }

    pub const fn failed(&self) -> bool {
        self.status & ata::ERR != 0
    }
}

/// What a command needs beyond its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Work {
    Nothing,
    /// These bytes for the driver, as many as it has room for.
    Reply(Vec<u8>),
    /// Bytes of the medium.
    Read {
        offset: u64,
        len: u64,
    },
    /// `through`: on stable storage before the answer.
    Write {
        offset: u64,
        len: u64,
        through: bool,
    },
    Flush,
    /// Ranges that the driver has a block of.
    Trim,
}

/// A command, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub work: Work,
    /// If the work succeeds.
    pub answer: Answer,
}

impl Plan {
    /// Nothing is left to do.
    pub const fn done(answer: Answer) -> Self {
        Self {
            work: Work::Nothing,
            answer,
        }
    }

    /// A command that the device doesn't know, or can't do with these registers.
    pub const fn abort(command: &Command) -> Self {
        Self::done(Answer::error(command, ata::ABRT))
    }

    /// Data by PIO.
    pub fn pio(command: &Command, bytes: Vec<u8>) -> Self {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self {
            work: Work::Reply(bytes),
            answer: Answer {
                pio: Some((true, len)),
                ..Answer::good(command)
            },
        }
    }
}
