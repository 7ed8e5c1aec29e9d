//! Master boot records, and the chain of records in an extended partition.

use super::super::bytes::{u16_at, u32_at};
use super::super::source::{Part, bytes_at};
use super::Partition;

/// All values count these, whatever the disk's own sectors are.
const SECTOR: u64 = 512;
const SIGNATURE: u16 = 0xaa55;
const FIRST_ENTRY: usize = 446;
const ENTRIES: usize = 4;
const MAX_LOGICAL: usize = 64;

const FREEBSD: u8 = 0xa5;
const PROTECTIVE: u8 = 0xee;
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

pub struct Mbr {
    pub partitions: Vec<Partition>,
    /// A GPT is to be looked at instead.
    pub protective: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    flag: u8,
    kind: u8,
    start: u64,
    sectors: u64,
}

/// The partitions; `None` if there is no MBR, or one without partitions (the first sector of
/// many a file system ends as an MBR does).
pub fn read(disk: &Part) -> Option<Mbr> {
    let entries = entries(disk, 0)?;
    // What lies there in a boot sector of something else.
    if entries.iter().any(|entry| entry.flag & 0x7f != 0) {
        return None;
    }
    let mut mbr = Mbr {
        partitions: Vec::new(),
        protective: false,
    };
    let mut extended = None;
    for (n, entry) in entries.iter().enumerate() {
        if entry.kind == PROTECTIVE {
            mbr.protective = true;
        } else if entry.start == 0 || entry.sectors == 0 {
            // Empty, or the fake of a disk with a disklabel.
        } else if EXTENDED.contains(&entry.kind) {
            extended.get_or_insert(entry.start);
        } else if entry.kind != 0 {
            mbr.partitions.push(partition(disk, n + 1, *entry));
        }
    }
    if let Some(start) = extended {
        logical(disk, start, &mut mbr.partitions);
    }
    (mbr.protective || !mbr.partitions.is_empty()).then_some(mbr)
}

/// An extended partition's chain: each record has one partition and where the next one is,
/// from the extended partition's begin on.
fn logical(disk: &Part, extended: u64, partitions: &mut Vec<Partition>) {
    let mut at = extended;
    for n in 0..MAX_LOGICAL {
        let Some([entry, next, ..]) = entries(disk, at) else {
            return;
        };
        if entry.kind != 0 && entry.sectors != 0 {
            let entry = Entry {
                start: at + entry.start,
                ..entry
            };
            partitions.push(partition(disk, 5 + n, entry));
        }
        if next.kind == 0 || next.start == 0 {
            return;
        }
        at = extended + next.start;
    }
}

fn entries(disk: &Part, sector: u64) -> Option<[Entry; ENTRIES]> {
    let bytes = bytes_at(disk, sector * SECTOR, SECTOR as usize).ok()?;
    if u16_at(&bytes, 510) != SIGNATURE {
        return None;
    }
    Some(std::array::from_fn(|n| {
        let entry = bytes.get(FIRST_ENTRY + 16 * n..).unwrap_or_default();
        let byte = |at: usize| entry.get(at).copied().unwrap_or(0);
        Entry {
            flag: byte(0),
            kind: byte(4),
            start: u64::from(u32_at(entry, 8)),
            sectors: u64::from(u32_at(entry, 12)),
        }
    }))
}

fn partition(disk: &Part, number: usize, entry: Entry) -> Partition {
    Partition {
        name: format!("s{number}"),
        kind: kind(entry.kind),
        part: disk.part(entry.start * SECTOR, entry.sectors * SECTOR),
    }
}

fn kind(number: u8) -> String {
    match number {
        FREEBSD => super::FREEBSD.to_owned(),
        0x01 | 0x04 | 0x06 | 0x0b | 0x0c | 0x0e => "fat".to_owned(),
        0x07 => "ntfs".to_owned(),
        0x82 => "linux-swap".to_owned(),
        0x83 => "linux-data".to_owned(),
        0x8e => "linux-lvm".to_owned(),
        0xef => "efi".to_owned(),
        other => format!("!{other}"),
    }
}
