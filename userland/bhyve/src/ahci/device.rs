//! A device behind a port: a disk, or a CD drive with or without a medium. What never
//! changes is in [`Device`], which threads share; the rest in [`DeviceState`], which the
//! port has. A command is understood first ([`Device::plan`], quickly), and then worked on
//! ([`Device::perform`], by a thread that holds no lock).

#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use vmmapi::GuestMemory;

use super::answer::{Answer, Plan, Work};
use super::command::{Issued, NoMemory};
use super::fis::Command;
use super::identify::Identity;
use super::registers::ata;
use super::sense::Sense;
use super::trim;
use super::{ata as disk_commands, atapi};
use crate::block::{Disk, HostErrors};
use crate::platform::disk::is_unsupported;

/// What is behind a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Disk,
    Cd,
}

impl Kind {
    /// PxSIG (ATA8-ACS, 9.12).
    pub const fn signature(self) -> u32 {
        match self {
            Self::Disk => 0x0000_0101,
            Self::Cd => 0xeb14_0101,
        }
    }

    pub const fn status_after_reset(self) -> u8 {
        match self {
            Self::Disk => ata::GOOD,
            // A packet device isn't ready before its first command.
            Self::Cd => ata::DSC,
        }
    }
}

/// Transfer mode after reset: Ultra DMA 6.
const UDMA6: u8 = 0x46;
/// Sectors of a READ MULTIPLE: at first, and at most.
pub const MULTIPLE: u8 = 128;

/// What changes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DeviceState {
    /// 1 to 3, of the link.
    pub speed: u8,
    pub transfer_mode: u8,
    pub multiple: u8,
    pub write_cache: bool,
    pub look_ahead: bool,
    pub smart: bool,
    /// Between the two halves of a software reset.
    pub in_reset: bool,
    /// The first 20 bytes of the NCQ command error log.
    pub last_error: [u8; 20],
    pub tray: atapi::Tray,
    pub sense: Sense,
}

impl DeviceState {
    pub fn reset(&mut self, speed: u8) {
        *self = Self {
            speed,
            transfer_mode: UDMA6,
            multiple: MULTIPLE,
            write_cache: true,
            look_ahead: true,
            smart: true,
            in_reset: false,
            last_error: [0; 20],
            // A tray that is out stays out.
            tray: self.tray,
            sense: Sense::default(),
        };
    }

    /// A command has failed; a queued one in that slot.
    pub fn note_error(&mut self, slot: Option<u8>, answer: &Answer) {
        const NOT_QUEUED: u8 = 1 << 7;
        self.last_error = [0; 20];
        self.last_error[0] = slot.unwrap_or(NOT_QUEUED);
        self.last_error[2] = answer.status;
        self.last_error[3] = answer.error;
        self.last_error[4..14].copy_from_slice(&answer.registers.bytes());
        self.sense = answer.sense.unwrap_or_default();
    }
}

/// What doesn't change.
#[derive(Debug)]
pub struct Device {
    pub kind: Kind,
    /// A CD drive may be empty.
    pub medium: Option<Disk>,
    pub identity: Identity,
    pub errors: HostErrors,
}

/// How a command's work fails.
enum Failure {
    /// What the host says about doing what.
    Host(Task, io::Error),
    /// The driver has less room than the command has data.
    Overflow,
    /// The driver's addresses are not in memory.
    NoMemory(NoMemory),
    /// A range that the medium hasn't got.
    Range,
}

/// What a failed call of the host was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    Read { sector: u64 },
    Write { sector: u64 },
    Flush,
    Trim,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { sector } => write!(f, "a read at sector {sector}"),
            Self::Write { sector } => write!(f, "a write at sector {sector}"),
            Self::Flush => f.write_str("a flush"),
            Self::Trim => f.write_str("a discard"),
        }
    }
}

impl From<NoMemory> for Failure {
    fn from(error: NoMemory) -> Self {
        Self::NoMemory(error)
    }
}

impl Device {
    /// Whether a command is queued by the device.
    pub fn is_queued(&self, command: &Command) -> bool {
        self.kind == Kind::Disk && disk_commands::is_queued(command.code())
    }

    /// What a command asks for.
    pub fn plan(&self, command: &Command, issued: &Issued, state: &mut DeviceState) -> Plan {
        match (self.kind, &self.medium) {
            (Kind::Disk, Some(disk)) => disk_commands::plan(command, disk, &self.identity, state),
            // There is no disk without a medium.
            (Kind::Disk, None) => Plan::abort(command),
            (Kind::Cd, medium) => atapi::plan(
                command,
                &issued.packet,
                medium.as_ref(),
                &self.identity,
                state,
            ),
        }
    }

    /// Does it. An error: the driver gave addresses where there is no memory.
    pub fn perform(
        &self,
        memory: &GuestMemory,
        command: &Command,
        issued: &Issued,
        plan: Plan,
    ) -> Result<Answer, NoMemory> {
        match self.work(memory, issued, plan.work) {
            Ok(transferred) => {
                if let Some(bytes) = transferred {
                    issued.set_transferred(memory, bytes);
                }
                Ok(plan.answer)
            }
            Err(Failure::NoMemory(error)) => Err(error),
            Err(failure) => Ok(self.answer_to(&failure, command)),
        }
    }

    /// How many bytes were transferred, if the work is to transfer some.
    fn work(
        &self,
        memory: &GuestMemory,
        issued: &Issued,
        work: Work,
    ) -> Result<Option<u32>, Failure> {
        let all_of = |len| {
            let data = issued.data(memory, len)?;
            if data.len() < len {
                return Err(Failure::Overflow);
            }
            Ok(data)
        };
        let Some(disk) = &self.medium else {
            return self.reply(memory, issued, work);
        };
        let sector = |offset: u64| offset / u64::from(disk.sector());
        match work {
            Work::Nothing | Work::Reply(_) => return self.reply(memory, issued, work),
            Work::Read { offset, len } => {
                let task = Task::Read {
                    sector: sector(offset),
                };
                disk.read(offset, all_of(len)?)
                    .map_err(|error| Failure::Host(task, error))?;
                return Ok(Some(transferred(len)));
            }
            Work::Write {
                offset,
                len,
                through,
            } => {
                let task = Task::Write {
                    sector: sector(offset),
                };
                disk.write(offset, all_of(len)?)
                    .map_err(|error| Failure::Host(task, error))?;
                if through {
                    flush(disk)?;
                }
                return Ok(Some(transferred(len)));
            }
            Work::Flush => flush(disk)?,
            Work::Trim => {
                let data = all_of(trim::BLOCK as u64)?;
                let ranges = trim::Ranges::read(&data, disk).ok_or(Failure::Range)?;
                for (offset, len) in ranges.iter() {
                    disk.discard(offset, len)
                        .map_err(|error| Failure::Host(Task::Trim, error))?;
                }
                return Ok(Some(trim::BLOCK as u32));
            }
        }
        Ok(None)
    }

    fn reply(
        &self,
        memory: &GuestMemory,
        issued: &Issued,
        work: Work,
    ) -> Result<Option<u32>, Failure> {
        let Work::Reply(bytes) = work else {
            return Ok(None);
        };
        let data = issued.data(memory, bytes.len() as u64)?;
        // The ranges were all found in memory.
        let copied = data.copy_to(&bytes).unwrap_or(0);
        Ok(Some(transferred(copied as u64)))
    }

    fn answer_to(&self, failure: &Failure, command: &Command) -> Answer {
        if let Failure::Host(task, error) = failure {
            // A host that can't discard isn't broken.
            if *task != Task::Trim || !is_unsupported(error) {
                self.errors.tell(task, error);
            }
        }
        let overflow = matches!(failure, Failure::Overflow);
        let answer = match self.kind {
            Kind::Cd => atapi::failed(command, sense_of(failure)),
            Kind::Disk => Answer::error(command, error_of(failure)),
        };
        Answer { overflow, ..answer }
    }
}

fn flush(disk: &Disk) -> Result<(), Failure> {
    disk.flush()
        .map_err(|error| Failure::Host(Task::Flush, error))
}

fn transferred(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The error register.
const fn error_of(failure: &Failure) -> u8 {
    match failure {
        Failure::Host(Task::Read { .. }, _) => ata::UNC,
        Failure::Range => ata::IDNF,
        Failure::Host(..) | Failure::Overflow | Failure::NoMemory(_) => ata::ABRT,
    }
}

const fn sense_of(failure: &Failure) -> Sense {
    match failure {
        Failure::Host(..) | Failure::NoMemory(_) => Sense::UNRECOVERED_READ,
        Failure::Overflow => Sense::DATA_PHASE,
        Failure::Range => Sense::OUT_OF_RANGE,
    }
}
