//! What a disk tells of itself: the general purpose logs (ATA8-ACS, annex A) with the error
//! of a queued command (SATA 3.0, 13.7.4), and as much of SMART (7.53) as says that the disk
//! is well.

#![forbid(unsafe_code)]

use super::answer::{Answer, Plan, Work};
use super::ata::code;
use super::device::DeviceState;
use super::fis::{Command, Registers};
use crate::block::Disk;

/// Bytes of a page.
const PAGE: usize = 512;

/// Log addresses.
const DIRECTORY: u8 = 0x00;
const QUEUED_ERROR: u8 = 0x10;
const SEND_AND_RECEIVE: u8 = 0x13;

/// Makes all bytes' sum zero by the last one.
pub fn add_checksum(page: &mut [u8; PAGE]) {
    let sum = page[..PAGE - 1]
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    page[PAGE - 1] = sum.wrapping_neg();
}

/// READ LOG EXT and READ LOG DMA EXT of one page.
pub fn read(command: &Command, disk: &Disk, state: &DeviceState) -> Plan {
    let [log, page_low, _, _, page_high, ..] = command.lba48().to_le_bytes();
    if command.count() != 1 || page_low != 0 || page_high != 0 {
        return Plan::abort(command);
    }
    let mut page = [0; PAGE];
    match log {
        DIRECTORY => {
            // Version, and how many pages a log has.
            page[0] = 1;
            for log in [QUEUED_ERROR, SEND_AND_RECEIVE] {
                page[usize::from(log) * 2] = 1;
            }
        }
        QUEUED_ERROR => {
            page[..state.last_error.len()].copy_from_slice(&state.last_error);
            add_checksum(&mut page);
        }
        SEND_AND_RECEIVE => {
            let trim = u8::from(disk.can_discard());
            // DATA SET MANAGEMENT can be sent, and its TRIM.
            page[0] = trim;
            page[4] = trim;
        }
        _ => return Plan::abort(command),
    }
    if command.code() == code::READ_LOG_EXT {
        return Plan::pio(command, page.to_vec());
    }
    Plan {
        work: Work::Reply(page.to_vec()),
        answer: Answer::good(command),
    }
}

/// SMART subcommands.
const READ_DATA: u8 = 0xd0;
const READ_THRESHOLDS: u8 = 0xd1;
const AUTOSAVE: u8 = 0xd2;
const ENABLE: u8 = 0xd8;
const DISABLE: u8 = 0xd9;
const RETURN_STATUS: u8 = 0xda;

/// What LBA mid and high hold in each SMART command, and in the status of a disk that is
/// well.
const KEY: u64 = 0xc2_4f00;

pub fn smart(command: &Command, state: &mut DeviceState) -> Plan {
    let [subcommand, _] = command.features().to_le_bytes();
    if command.lba28() & 0xff_ff00 != KEY || !(state.smart || subcommand == ENABLE) {
        return Plan::abort(command);
    }
    let good = Answer::good(command);
    match subcommand {
        ENABLE => state.smart = true,
        DISABLE => state.smart = false,
        AUTOSAVE => {}
        RETURN_STATUS => {
            let registers = Registers {
                lba: KEY,
                ..command.registers()
            };
            return Plan::done(Answer { registers, ..good });
        }
        // No attributes.
        READ_DATA | READ_THRESHOLDS => {
            let mut page = [0; PAGE];
            page[0] = 1;
            add_checksum(&mut page);
            return Plan::pio(command, page.to_vec());
        }
        _ => return Plan::abort(command),
    }
    Plan::done(good)
}
