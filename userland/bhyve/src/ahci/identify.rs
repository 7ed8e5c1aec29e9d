//! IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ATA8-ACS, 7.16 and 7.17): 256 words that say
//! what a device is, what it can do, and what of that is switched on.

#![forbid(unsafe_code)]

use super::device::{DeviceState, MULTIPLE};
use super::logs::add_checksum;
use crate::block::Disk;

/// Bytes.
pub const LEN: usize = 512;

/// Room for the names, in bytes.
pub const SERIAL: usize = 20;
pub const REVISION: usize = 8;
pub const MODEL: usize = 40;

/// The names, and what else the configuration says of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub serial: Vec<u8>,
    pub revision: Vec<u8>,
    pub model: Vec<u8>,
    /// Nominal media rotation rate: 1 is none, 0 is not told.
    pub rotation: u16,
}

/// The most sectors that a 28-bit address has room for.
const MAX_SHORT: u64 = 0x0fff_ffff;

/// Word 53: words 64 to 70 and word 88 are valid.
const VALID: u16 = 6;
/// Multiword DMA 0 to 2, PIO 3 and 4, Ultra DMA 0 to 6.
const MULTIWORD: u16 = 0x07;
const PIO: u16 = 0x03;
const ULTRA: u16 = 0x7f;
/// Nanoseconds of a cycle.
const CYCLE: u16 = 120;
/// ATA-4 to ACS-2.
const MAJOR: u16 = 0x03f0;
/// ATA8-ACS revision 6.
const MINOR: u16 = 0x28;
/// SATA, revision 2.6.
const TRANSPORT: u16 = 0x1020;
/// Word 76: 1.5, 3 and 6 Gbit/s, NCQ.
const SPEEDS: u16 = 0x0e;
const NCQ: u16 = 1 << 8;
/// Words that are valid say so in bits 15:14.
const WORD_VALID: u16 = 1 << 14;

/// Features: words 82 and 85.
const SMART: u16 = 1 << 0;
const POWER: u16 = 1 << 3;
const PACKET: u16 = 1 << 4;
const WRITE_CACHE: u16 = 1 << 5;
const LOOK_AHEAD: u16 = 1 << 6;
const DEVICE_RESET: u16 = 1 << 9;
const NOP: u16 = 1 << 14;
/// Words 83 and 86: 48-bit addresses, FLUSH CACHE and FLUSH CACHE EXT; words 119 and 120
/// are valid.
const FEATURES_2: u16 = 1 << 10 | 1 << 12 | 1 << 13;
const WORDS_119_120: u16 = 1 << 15;
/// Words 84 and 87: general purpose logs.
const LOGS: u16 = 1 << 5;
/// Words 119 and 120: READ LOG DMA EXT.
const LOG_DMA: u16 = 1 << 3;

struct Words([u16; LEN / 2]);

impl Words {
    fn set(&mut self, fields: &[(usize, u16)]) {
        for (at, value) in fields {
            self.0[*at] = *value;
        }
    }

    /// Two bytes a word, the first one in its upper half, blanks behind the text.
    fn set_text(&mut self, first: usize, len: usize, text: &[u8]) {
        let byte = |at: usize| text.get(at).copied().unwrap_or(b' ');
        for word in 0..len / 2 {
            self.0[first + word] = u16::from_be_bytes([byte(2 * word), byte(2 * word + 1)]);
        }
    }

    fn set_number(&mut self, first: usize, words: usize, number: u64) {
        for word in 0..words {
            self.0[first + word] = (number >> (16 * word)) as u16;
        }
    }

    fn set_identity(&mut self, identity: &Identity) {
        self.set_text(10, SERIAL, &identity.serial);
        self.set_text(23, REVISION, &identity.revision);
        self.set_text(27, MODEL, &identity.model);
    }

    /// What disks and packet devices have in common.
    fn set_common(&mut self, state: &DeviceState) {
        let selected = |first: u8, modes: u16| {
            let mode = state.transfer_mode.checked_sub(first);
            mode.filter(|mode| *mode < 8)
                .map_or(modes, |mode| modes | 0x100 << mode)
        };
        self.set(&[
            (53, VALID),
            (63, selected(0x20, MULTIWORD)),
            (64, PIO),
            (65, CYCLE),
            (66, CYCLE),
            (67, CYCLE),
            (68, CYCLE),
            (77, u16::from(state.speed) << 1),
            (80, MAJOR),
            (88, selected(0x40, ULTRA)),
            (222, TRANSPORT),
            // Integrity word: signature, and the checksum in the upper half.
            (255, 0xa5),
        ]);
    }

    fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        for (to, word) in bytes.chunks_exact_mut(2).zip(self.0) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        add_checksum(&mut bytes);
        bytes
    }
}

/// Of a disk.
pub fn disk(disk: &Disk, identity: &Identity, state: &DeviceState) -> [u8; LEN] {
    let mut words = Words([0; LEN / 2]);
    words.set_identity(identity);
    words.set_common(state);
    let sector = u64::from(disk.sector());
    let sectors = disk.size() / sector;
    let (cylinders, heads, track) = geometry(sectors);
    let enabled = |on: bool, bit: u16| if on { bit } else { 0 };
    words.set(&[
        // A disk that isn't removable.
        (0, 1 << 6),
        (1, cylinders),
        (3, heads),
        (6, track),
        (47, 0x8000 | u16::from(MULTIPLE)),
        // DMA, LBA, IORDY.
        (49, 1 << 8 | 1 << 9 | 1 << 11),
        (50, WORD_VALID),
        (
            59,
            enabled(state.multiple > 0, 0x100 | u16::from(state.multiple)),
        ),
        // Queue depth less one.
        (75, 31),
        (76, SPEEDS | NCQ),
        // SEND FPDMA QUEUED.
        (77, words.0[77] | 1 << 6),
        (81, MINOR),
        (82, SMART | POWER | WRITE_CACHE | LOOK_AHEAD | NOP),
        (83, FEATURES_2 | WORD_VALID),
        (84, LOGS | WORD_VALID),
        (
            85,
            POWER
                | NOP
                | enabled(state.smart, SMART)
                | enabled(state.write_cache, WRITE_CACHE)
                | enabled(state.look_ahead, LOOK_AHEAD),
        ),
        (86, FEATURES_2 | WORDS_119_120),
        (87, LOGS | WORD_VALID),
        (119, LOG_DMA | WORD_VALID),
        (120, LOG_DMA | WORD_VALID),
        (217, identity.rotation),
    ]);
    words.set_number(60, 2, sectors.min(MAX_SHORT));
    words.set_number(100, 4, sectors);
    if disk.can_discard() {
        // One block of ranges to trim.
        words.set(&[(105, 1), (169, 1)]);
        if disk.discards_to_zeros() {
            // Deterministic, and zeros.
            words.set(&[(69, 1 << 14 | 1 << 5)]);
        }
    }
    set_sectors(&mut words, disk);
    words.bytes()
}

/// Of a CD drive.
pub fn cd(identity: &Identity, state: &DeviceState) -> [u8; LEN] {
    let mut words = Words([0; LEN / 2]);
    words.set_identity(identity);
    words.set_common(state);
    let features = POWER | PACKET | DEVICE_RESET | NOP;
    words.set(&[
        // A packet device of type CD, removable, DRQ within 50 us, packets of 12 bytes.
        (0, 2 << 14 | 5 << 8 | 1 << 7 | 2 << 5),
        // DMA, LBA.
        (49, 1 << 8 | 1 << 9),
        (50, WORD_VALID | 1),
        (76, SPEEDS),
        (82, features),
        (83, WORD_VALID),
        (84, WORD_VALID),
        (85, features),
        (87, WORD_VALID),
    ]);
    words.bytes()
}

/// Words 106, 117, 118 and 209: logical and physical sectors.
fn set_sectors(words: &mut Words, disk: &Disk) {
    const SEVERAL: u16 = 1 << 13;
    const LARGE: u16 = 1 << 12;
    let sector = u64::from(disk.sector());
    let (physical, offset) = disk.physical();
    let mut sizes = WORD_VALID;
    let mut alignment = WORD_VALID;
    let each = physical / sector;
    if each > 1 && each.is_power_of_two() {
        sizes |= SEVERAL | each.trailing_zeros().min(15) as u16;
        // Less than the logical sectors of a physical one.
        alignment |= (offset / sector % each) as u16 & !WORD_VALID;
    }
    if sector > 512 {
        sizes |= LARGE;
        words.set_number(117, 2, sector / 2);
    }
    words.set(&[(106, sizes), (209, alignment)]);
}

/// Cylinders, heads and sectors of a track that old software wants to see: those that
/// bhyve(8) makes up, by the rule of Microsoft's virtual hard disks.
fn geometry(sectors: u64) -> (u16, u16, u16) {
    let sectors = sectors.min(65535 * 16 * 255);
    let (track, heads, tracks) = if sectors >= 65536 * 16 * 63 {
        (255, 16, sectors / 255)
    } else {
        let tracks = sectors / 17;
        let heads = tracks.div_ceil(1024).max(4);
        if tracks < heads * 1024 && heads <= 16 {
            (17, heads, tracks)
        } else if sectors / 31 < 16 * 1024 {
            (31, 16, sectors / 31)
        } else {
            (63, 16, sectors / 63)
        }
    };
    let cylinders = u16::try_from(tracks / heads).unwrap_or(u16::MAX);
    (cylinders, heads as u16, track)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_geometry_is_that_of_virtual_hard_disks() {
        // Disks of 1 MiB, 100 MiB, 1, 40 and 200 GiB.
        for (sectors, expected) in [
            (2048, (30, 4, 17)),
            (204_800, (1003, 12, 17)),
            (2_097_152, (2080, 16, 63)),
            (83_886_080, (20560, 16, 255)),
            (419_430_400, (65535, 16, 255)),
        ] {
            assert_eq!(geometry(sectors), expected, "{sectors}");
        }
    }
}
