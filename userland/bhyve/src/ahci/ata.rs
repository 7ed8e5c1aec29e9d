//! The commands of a disk (ATA8-ACS): what each one asks for, with its registers checked
//! against the disk. What is not here is aborted, as a device does.

#![forbid(unsafe_code)]

use super::answer::{Answer, Plan, Work};
use super::device::{DeviceState, Kind, MULTIPLE};
use super::fis::{Command, Registers};
use super::identify::{self, Identity};
use super::logs;
use super::registers::ata;
use crate::block::Disk;

/// Command codes (annex B).
pub mod code {
    pub const DATA_SET_MANAGEMENT: u8 = 0x06;
    pub const DEVICE_RESET: u8 = 0x08;
    pub const READ_SECTORS: u8 = 0x20;
    pub const READ_SECTORS_EXT: u8 = 0x24;
    pub const READ_DMA_EXT: u8 = 0x25;
    pub const READ_MULTIPLE_EXT: u8 = 0x29;
    pub const READ_LOG_EXT: u8 = 0x2f;
    pub const WRITE_SECTORS: u8 = 0x30;
    pub const WRITE_SECTORS_EXT: u8 = 0x34;
    pub const WRITE_DMA_EXT: u8 = 0x35;
    pub const WRITE_MULTIPLE_EXT: u8 = 0x39;
    pub const READ_VERIFY: u8 = 0x40;
    pub const READ_VERIFY_EXT: u8 = 0x42;
    pub const READ_LOG_DMA_EXT: u8 = 0x47;
    pub const READ_FPDMA_QUEUED: u8 = 0x60;
    pub const WRITE_FPDMA_QUEUED: u8 = 0x61;
    pub const SEND_FPDMA_QUEUED: u8 = 0x64;
    pub const EXECUTE_DEVICE_DIAGNOSTIC: u8 = 0x90;
    pub const PACKET: u8 = 0xa0;
    pub const IDENTIFY_PACKET_DEVICE: u8 = 0xa1;
    pub const SMART: u8 = 0xb0;
    pub const READ_MULTIPLE: u8 = 0xc4;
    pub const WRITE_MULTIPLE: u8 = 0xc5;
    pub const SET_MULTIPLE_MODE: u8 = 0xc6;
    pub const READ_DMA: u8 = 0xc8;
    pub const WRITE_DMA: u8 = 0xca;
    pub const STANDBY_IMMEDIATE: u8 = 0xe0;
    pub const IDLE_IMMEDIATE: u8 = 0xe1;
    pub const STANDBY: u8 = 0xe2;
    pub const IDLE: u8 = 0xe3;
    pub const CHECK_POWER_MODE: u8 = 0xe5;
    pub const SLEEP: u8 = 0xe6;
    pub const FLUSH_CACHE: u8 = 0xe7;
    pub const FLUSH_CACHE_EXT: u8 = 0xea;
    pub const IDENTIFY_DEVICE: u8 = 0xec;
    pub const SET_FEATURES: u8 = 0xef;
}

/// DATA SET MANAGEMENT's only function.
const TRIM: u8 = 1;
/// Device register of a queued write: to the medium before the answer.
const FUA: u8 = 1 << 7;
/// CHECK POWER MODE: active or idle.
const ACTIVE: u16 = 0xff;

/// Whether a command is one of those that a device queues.
pub const fn is_queued(command: u8) -> bool {
    matches!(
        command,
        code::READ_FPDMA_QUEUED | code::WRITE_FPDMA_QUEUED | code::SEND_FPDMA_QUEUED
    )
}

/// How data is transferred.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transfer {
    Pio,
    Dma,
}

/// What a command asks for.
pub fn plan(command: &Command, disk: &Disk, identity: &Identity, state: &mut DeviceState) -> Plan {
    let [features, _] = command.features().to_le_bytes();
    match command.code() {
        code::READ_FPDMA_QUEUED | code::WRITE_FPDMA_QUEUED => queued(command, disk, state),
        code::READ_DMA | code::WRITE_DMA => {
            access(command, disk, state, short(command), Transfer::Dma)
        }
        code::READ_DMA_EXT | code::WRITE_DMA_EXT => {
            access(command, disk, state, long(command), Transfer::Dma)
        }
        code::READ_SECTORS | code::WRITE_SECTORS => {
            access(command, disk, state, short(command), Transfer::Pio)
        }
        code::READ_SECTORS_EXT | code::WRITE_SECTORS_EXT => {
            access(command, disk, state, long(command), Transfer::Pio)
        }
        code::READ_MULTIPLE | code::WRITE_MULTIPLE if state.multiple > 0 => {
            access(command, disk, state, short(command), Transfer::Pio)
        }
        code::READ_MULTIPLE_EXT | code::WRITE_MULTIPLE_EXT if state.multiple > 0 => {
            access(command, disk, state, long(command), Transfer::Pio)
        }
        code::READ_VERIFY => verify(command, disk, short(command)),
        code::READ_VERIFY_EXT => verify(command, disk, long(command)),
        code::FLUSH_CACHE | code::FLUSH_CACHE_EXT => Plan {
            work: Work::Flush,
            answer: Answer::good(command),
        },
        code::DATA_SET_MANAGEMENT if features == TRIM && command.count() == 1 => {
            trim(command, disk)
        }
        code::SEND_FPDMA_QUEUED => send_queued(command, disk),
        code::IDENTIFY_DEVICE => Plan::pio(command, identify::disk(disk, identity, state).to_vec()),
        code::READ_LOG_EXT | code::READ_LOG_DMA_EXT => logs::read(command, disk, state),
        code::SMART => logs::smart(command, state),
        code::SET_MULTIPLE_MODE => set_multiple(command, state),
        _ => common(command, Kind::Disk, state),
    }
}

/// The commands that disks and packet devices share.
pub fn common(command: &Command, kind: Kind, state: &mut DeviceState) -> Plan {
    let good = Answer::good(command);
    match command.code() {
        code::SET_FEATURES => set_features(command, kind, state),
        code::CHECK_POWER_MODE => {
            let registers = Registers {
                count: ACTIVE,
                ..command.registers()
            };
            Plan::done(Answer { registers, ..good })
        }
        code::STANDBY
        | code::STANDBY_IMMEDIATE
        | code::IDLE
        | code::IDLE_IMMEDIATE
        | code::SLEEP => Plan::done(good),
        code::EXECUTE_DEVICE_DIAGNOSTIC => Plan::done(signed(command, kind, true)),
        _ => Plan::abort(command),
    }
}

/// An answer with the device's signature, and an error register that says that it works.
pub fn signed(command: &Command, kind: Kind, good: bool) -> Answer {
    let [count, l0, l1, l2] = kind.signature().to_le_bytes();
    let registers = Registers {
        lba: u64::from_le_bytes([l0, l1, l2, 0, 0, 0, 0, 0]),
        device: 0,
        count: count.into(),
    };
    let answer = if good {
        Answer {
            status: kind.status_after_reset(),
            error: 1,
            ..Answer::good(command)
        }
    } else {
        Answer::error(command, ata::ABRT)
    };
    Answer {
        registers,
        ..answer
    }
}

/// Sectors of a command with 28-bit addresses.
fn short(command: &Command) -> (u64, u64) {
    let [count, _] = command.count().to_le_bytes();
    let sectors = if count == 0 { 256 } else { count.into() };
    (command.lba28(), sectors)
}

/// Sectors of a command with 48-bit addresses.
fn long(command: &Command) -> (u64, u64) {
    (command.lba48(), sectors(command.count()))
}

fn sectors(count: u16) -> u64 {
    if count == 0 { 65536 } else { count.into() }
}

/// Offset and length in bytes, if the disk has all these sectors.
fn range(disk: &Disk, (lba, sectors): (u64, u64)) -> Option<(u64, u64)> {
    let sector = u64::from(disk.sector());
    let offset = lba.checked_mul(sector)?;
    let len = sectors.checked_mul(sector)?;
    let end = offset.checked_add(len)?;
    (end <= disk.size()).then_some((offset, len))
}

fn not_found(command: &Command) -> Plan {
    Plan::done(Answer::error(command, ata::IDNF))
}

fn is_write(command: &Command) -> bool {
    matches!(
        command.code(),
        code::WRITE_SECTORS
            | code::WRITE_SECTORS_EXT
            | code::WRITE_DMA
            | code::WRITE_DMA_EXT
            | code::WRITE_MULTIPLE
            | code::WRITE_MULTIPLE_EXT
            | code::WRITE_FPDMA_QUEUED
    )
}

fn access(
    command: &Command,
    disk: &Disk,
    state: &DeviceState,
    sectors: (u64, u64),
    transfer: Transfer,
) -> Plan {
    let Some((offset, len)) = range(disk, sectors) else {
        return not_found(command);
    };
    let write = is_write(command);
    if write && disk.read_only() {
        return Plan::abort(command);
    }
    let mut answer = Answer::good(command);
    if transfer == Transfer::Pio {
        answer.pio = Some((!write, disk.sector()));
    }
    let work = if write {
        let through = !state.write_cache;
        Work::Write {
            offset,
            len,
            through,
        }
    } else {
        Work::Read { offset, len }
    };
    Plan { work, answer }
}

fn queued(command: &Command, disk: &Disk, state: &DeviceState) -> Plan {
    let sectors = (command.lba48(), sectors(command.features()));
    let mut plan = access(command, disk, state, sectors, Transfer::Dma);
    if let Work::Write { through, .. } = &mut plan.work {
        *through |= command.device() & FUA != 0;
    }
    plan
}

fn verify(command: &Command, disk: &Disk, sectors: (u64, u64)) -> Plan {
    match range(disk, sectors) {
        Some(_) => Plan::done(Answer::good(command)),
        None => not_found(command),
    }
}

fn trim(command: &Command, disk: &Disk) -> Plan {
    if !disk.can_discard() {
        return Plan::abort(command);
    }
    Plan {
        work: Work::Trim,
        answer: Answer::good(command),
    }
}

/// SEND FPDMA QUEUED: one block of ranges to trim is all that there is to send.
fn send_queued(command: &Command, disk: &Disk) -> Plan {
    let [_, subcommand] = command.count().to_le_bytes();
    if subcommand & 0x1f == 0 && command.auxiliary() == TRIM && command.features() == 1 {
        trim(command, disk)
    } else {
        Plan::abort(command)
    }
}

fn set_multiple(command: &Command, state: &mut DeviceState) -> Plan {
    let [count, _] = command.count().to_le_bytes();
    if count != 0 && (count > MULTIPLE || !count.is_power_of_two()) {
        return Plan::abort(command);
    }
    state.multiple = count;
    Plan::done(Answer::good(command))
}

/// SET FEATURES (7.47).
fn set_features(command: &Command, kind: Kind, state: &mut DeviceState) -> Plan {
    let [feature, _] = command.features().to_le_bytes();
    let [count, _] = command.count().to_le_bytes();
    match (feature, kind) {
        (0x02, Kind::Disk) => state.write_cache = true,
        (0x82, Kind::Disk) => state.write_cache = false,
        (0xaa, Kind::Disk) => state.look_ahead = true,
        (0x55, Kind::Disk) => state.look_ahead = false,
        // PIO, multiword DMA and Ultra DMA modes.
        (0x03, _) => match count {
            0x00 | 0x01 | 0x08..=0x0c => {}
            0x20..=0x22 | 0x40..=0x46 => state.transfer_mode = count,
            _ => return Plan::abort(command),
        },
        // Asynchronous notification: it may be on, there is nothing to notify of.
        (0x10 | 0x90, _) if count == 0x05 => {}
        _ => return Plan::abort(command),
    }
    Plan::done(Answer::good(command))
}
