//! BSD disklabels: sys/sys/disk/bsd.h of FreeBSD.

use super::super::bytes::{u16_at, u32_at};
use super::super::source::{Part, bytes_at};
use super::Partition;

const MAGIC: u32 = 0x8256_4557;
/// The label lies in sector 1. Disks with sectors of 4096 bytes have it there as well.
const SECTORS: [u32; 2] = [512, 4096];
const MAX_PARTITIONS: usize = 20;
const TABLE: usize = 148;
const ENTRY: usize = 16;
/// Partition c stands for all of the disk; other offsets count from where it begins.
const RAW: usize = 2;

/// The partitions of the label in `part`, their names with `prefix` before them; `None` if
/// there is no label.
pub fn read(part: &Part, prefix: &str) -> Result<Option<Vec<Partition>>, String> {
    for sector in SECTORS {
        let len = TABLE + MAX_PARTITIONS * ENTRY;
        let Ok(label) = bytes_at(part, u64::from(sector), len) else {
            continue;
        };
        if u32_at(&label, 0) != MAGIC || u32_at(&label, 132) != MAGIC {
            continue;
        }
        let count = usize::from(u16_at(&label, 138));
        let covered = label.get(..TABLE + count * ENTRY);
        let Some(covered) = covered.filter(|bytes| checksum(bytes) == 0) else {
            let whose = if prefix.is_empty() {
                "the disk"
            } else {
                prefix
            };
            return Err(format!("the disklabel of {whose} is damaged"));
        };
        if u32_at(&label, 40) != sector {
            continue;
        }
        let entries: Vec<&[u8]> = covered[TABLE..].chunks_exact(ENTRY).collect();
        let raw = entries.get(RAW).map_or(0, |entry| u32_at(entry, 4));
        let partition = |(n, entry): (usize, &&[u8])| {
            let (size, offset) = (u32_at(entry, 0), u32_at(entry, 4));
            if n == RAW || size == 0 {
                return None;
            }
            let sector = u64::from(sector);
            let start = u64::from(offset.checked_sub(raw)?) * sector;
            Some(Partition {
                name: format!("{prefix}{}", char::from(b'a' + n as u8)),
                kind: kind(entry.get(12).copied().unwrap_or(0)),
                part: part.part(start, u64::from(size) * sector),
            })
        };
        return Ok(Some(
            entries.iter().enumerate().filter_map(partition).collect(),
        ));
    }
    Ok(None)
}

/// The checksum field makes it 0.
fn checksum(label: &[u8]) -> u16 {
    (0..label.len() / 2).fold(0, |sum, n| sum ^ u16_at(label, n * 2))
}

fn kind(number: u8) -> String {
    match number {
        1 => "freebsd-swap".to_owned(),
        7 => super::super::disk::FREEBSD_UFS.to_owned(),
        14 => "freebsd-vinum".to_owned(),
        27 => "freebsd-zfs".to_owned(),
        other => format!("!{other}"),
    }
}
