//! The commands of a CD drive: PACKET (ATA8-ACS, 7.22) with what is in it (MMC-5, SPC-3).
//! There is one medium; its tray can be ejected and loaded again.

#![forbid(unsafe_code)]

use super::answer::{Answer, Plan, Work};
use super::ata::{self as ata_commands, code};
use super::cd_info;
use super::command::PACKET_LEN;
use super::device::{DeviceState, Kind};
use super::fis::Command;
use super::identify::{self, Identity};
use super::registers::ata;
use super::sense::Sense;
use crate::block::Disk;

/// Bytes of a block.
pub const BLOCK: u64 = 2048;

/// Operation codes.
mod op {
    pub(super) const TEST_UNIT_READY: u8 = 0x00;
    pub(super) const REQUEST_SENSE: u8 = 0x03;
    pub(super) const INQUIRY: u8 = 0x12;
    pub(super) const START_STOP_UNIT: u8 = 0x1b;
    pub(super) const PREVENT_ALLOW_MEDIUM_REMOVAL: u8 = 0x1e;
    pub(super) const READ_CAPACITY: u8 = 0x25;
    pub(super) const READ_10: u8 = 0x28;
    pub(super) const READ_TOC: u8 = 0x43;
    pub(super) const GET_CONFIGURATION: u8 = 0x46;
    pub(super) const GET_EVENT_STATUS_NOTIFICATION: u8 = 0x4a;
    pub(super) const READ_DISC_INFORMATION: u8 = 0x51;
    pub(super) const MODE_SENSE_10: u8 = 0x5a;
    pub(super) const REPORT_LUNS: u8 = 0xa0;
    pub(super) const READ_12: u8 = 0xa8;
    pub(super) const SET_CD_SPEED: u8 = 0xbb;
    pub(super) const READ_CD: u8 = 0xbe;
}

/// PACKET's feature: data by DMA.
const DMA: u16 = 1;
/// Sector count of an answer: the command is done, and its direction was to the host.
const DONE: u16 = 3;

/// The drive's tray.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tray {
    pub out: bool,
    pub locked: bool,
    /// A medium came, which the next command is told.
    changed: bool,
    /// The media event that nobody has asked for yet.
    event: cd_info::Event,
}

/// What a packet asks for.
enum Reply {
    Done,
    /// Bytes, of which the packet wants no more than that many.
    Bytes(Vec<u8>, usize),
    Blocks {
        first: u64,
        count: u64,
    },
}

/// What a command of the drive asks for.
pub fn plan(
    command: &Command,
    packet: &[u8; PACKET_LEN],
    medium: Option<&Disk>,
    identity: &Identity,
    state: &mut DeviceState,
) -> Plan {
    match command.code() {
        code::PACKET => packet_command(command, packet, medium, state),
        code::IDENTIFY_PACKET_DEVICE => Plan::pio(command, identify::cd(identity, state).to_vec()),
        // Its abortion tells what kind of device it is.
        code::IDENTIFY_DEVICE => Plan::done(ata_commands::signed(command, Kind::Cd, false)),
        code::DEVICE_RESET => Plan::done(ata_commands::signed(command, Kind::Cd, true)),
        _ => ata_commands::common(command, Kind::Cd, state),
    }
}

/// How a packet command fails.
pub fn failed(command: &Command, sense: Sense) -> Answer {
    Answer {
        status: ata::BAD,
        error: sense.error(),
        sense: Some(sense),
        ..done(command)
    }
}

fn done(command: &Command) -> Answer {
    let mut answer = Answer::good(command);
    answer.registers.count = command.count() & !7 | DONE;
    answer
}

fn packet_command(
    command: &Command,
    packet: &[u8; PACKET_LEN],
    medium: Option<&Disk>,
    state: &mut DeviceState,
) -> Plan {
    let mut answer = done(command);
    let work = match understand(packet, medium, state) {
        Err(sense) => return Plan::done(failed(command, sense)),
        Ok(Reply::Done) => Work::Nothing,
        Ok(Reply::Bytes(mut bytes, wanted)) => {
            bytes.truncate(wanted);
            Work::Reply(bytes)
        }
        Ok(Reply::Blocks { count: 0, .. }) => Work::Nothing,
        Ok(Reply::Blocks { first, count }) => Work::Read {
            offset: first * BLOCK,
            len: count * BLOCK,
        },
    };
    if command.features() & DMA == 0 {
        let len = match &work {
            Work::Reply(bytes) => bytes.len() as u64,
            Work::Read { len, .. } => *len,
            _ => 0,
        };
        answer.pio = (len > 0).then(|| (true, u32::try_from(len).unwrap_or(u32::MAX)));
    }
    Plan { work, answer }
}

fn understand(
    packet: &[u8; PACKET_LEN],
    medium: Option<&Disk>,
    state: &mut DeviceState,
) -> Result<Reply, Sense> {
    let medium = medium.filter(|_| !state.tray.out);
    let blocks = medium.map(|disk| disk.size() / BLOCK);
    let &[operation, flags, p2, _, p4, _, _, p7, p8, ..] = packet;
    let wanted = usize::from(u16::from_be_bytes([p7, p8]));
    // These are answered whatever has changed (SPC-3, 5.11).
    let always = matches!(
        operation,
        op::INQUIRY
            | op::REQUEST_SENSE
            | op::REPORT_LUNS
            | op::GET_CONFIGURATION
            | op::GET_EVENT_STATUS_NOTIFICATION
    );
    if !always && std::mem::take(&mut state.tray.changed) {
        return Err(Sense::MEDIUM_CHANGED);
    }
    let ready = || blocks.ok_or(Sense::NO_MEDIUM);
    Ok(match operation {
        op::TEST_UNIT_READY => {
            ready()?;
            Reply::Done
        }
        op::REQUEST_SENSE => {
            let sense = std::mem::take(&mut state.sense);
            Reply::Bytes(sense.bytes().to_vec(), p4.into())
        }
        op::INQUIRY => {
            let wanted = usize::from(u16::from_be_bytes([packet[3], p4]));
            Reply::Bytes(cd_info::inquiry(flags, p2)?, wanted)
        }
        op::START_STOP_UNIT => {
            start_stop(p4, &mut state.tray, medium.is_some())?;
            Reply::Done
        }
        op::PREVENT_ALLOW_MEDIUM_REMOVAL => {
            state.tray.locked = p4 & 1 != 0;
            Reply::Done
        }
        op::READ_CAPACITY => {
            let last = u32::try_from(ready()?.saturating_sub(1)).unwrap_or(u32::MAX);
            let mut bytes = last.to_be_bytes().to_vec();
            bytes.extend((BLOCK as u32).to_be_bytes());
            Reply::Bytes(bytes, 8)
        }
        op::READ_10 => {
            let count = u64::from(u16::from_be_bytes([p7, p8]));
            read(ready()?, address(packet), count)?
        }
        op::READ_12 => {
            let count = u32::from_be_bytes([packet[6], p7, p8, packet[9]]);
            read(ready()?, address(packet), count.into())?
        }
        op::READ_CD => {
            let count = u32::from_be_bytes([0, packet[6], p7, p8]);
            read_cd(ready()?, packet, count.into())?
        }
        op::READ_TOC => {
            let toc = cd_info::toc(packet[9] >> 6, flags & 2 != 0, packet[6], ready()?)?;
            Reply::Bytes(toc, wanted)
        }
        op::READ_DISC_INFORMATION => {
            ready()?;
            Reply::Bytes(cd_info::disc_information(flags)?, wanted)
        }
        op::GET_CONFIGURATION => {
            let first = u16::from_be_bytes([p2, packet[3]]);
            Reply::Bytes(cd_info::configuration(flags & 3, first, blocks)?, wanted)
        }
        op::GET_EVENT_STATUS_NOTIFICATION => {
            let event = &mut state.tray.event;
            let present = blocks.is_some();
            let bytes = cd_info::events(flags, p4, event, present, state.tray.out)?;
            Reply::Bytes(bytes, wanted)
        }
        op::MODE_SENSE_10 => Reply::Bytes(cd_info::mode_pages(p2, state.tray.locked)?, wanted),
        op::REPORT_LUNS => {
            let wanted = u32::from_be_bytes([packet[6], p7, p8, packet[9]]);
            // A list of one, which is number 0.
            let mut bytes = vec![0; 16];
            bytes[3] = 8;
            Reply::Bytes(bytes, wanted.min(16) as usize)
        }
        op::SET_CD_SPEED => Reply::Done,
        _ => return Err(Sense::INVALID_OPCODE),
    })
}

fn address(packet: &[u8; PACKET_LEN]) -> u64 {
    u32::from_be_bytes([packet[2], packet[3], packet[4], packet[5]]).into()
}

fn read(blocks: u64, first: u64, count: u64) -> Result<Reply, Sense> {
    // Both are 32 bits at most.
    if first + count > blocks {
        return Err(Sense::OUT_OF_RANGE);
    }
    Ok(Reply::Blocks { first, count })
}

/// READ CD of data blocks: the user data is all that an image has.
fn read_cd(blocks: u64, packet: &[u8; PACKET_LEN], count: u64) -> Result<Reply, Sense> {
    const USER_DATA: u8 = 1 << 4;
    // Any type of sector, or mode 1.
    let type_is_data = matches!(packet[1] >> 2 & 7, 0 | 2);
    match (packet[9], packet[10] & 7) {
        (USER_DATA, 0) if type_is_data => read(blocks, address(packet), count),
        (0, 0) => read(blocks, address(packet), 0),
        _ => Err(Sense::INVALID_FIELD),
    }
}

/// START STOP UNIT: the drive spins by itself; the tray goes out and in.
fn start_stop(flags: u8, tray: &mut Tray, present: bool) -> Result<(), Sense> {
    const START: u8 = 1;
    const LOAD_EJECT: u8 = 2;
    match (flags & LOAD_EJECT != 0, flags & START != 0) {
        (true, false) if tray.locked => return Err(Sense::REMOVAL_PREVENTED),
        (true, false) => {
            if present {
                tray.event = cd_info::Event::Removal;
            }
            tray.out = true;
            tray.changed = false;
        }
        (true, true) => {
            if tray.out {
                tray.event = cd_info::Event::NewMedia;
                tray.changed = true;
            }
            tray.out = false;
        }
        (false, true) if !present => return Err(Sense::NO_MEDIUM),
        (false, _) => {}
    }
    Ok(())
}
