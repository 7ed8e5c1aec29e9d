//! Partition tables: GPT, MBR with its extended partitions, BSD disklabels in a partition
//! or on a whole disk. Names are those of FreeBSD's loader: "p2", "s1", "s1a", "a".

mod bsd;
mod gpt;
mod mbr;

use super::source::Part;

/// A partition of a disk.
pub struct Partition {
    /// What follows the disk's name.
    pub name: String,
    /// As gpart(8) calls its type, "freebsd-ufs", or the type itself.
    pub kind: String,
    pub part: Part,
}

/// All partitions that a disk's tables name, and what is wrong with the tables.
#[derive(Default)]
pub struct Table {
    pub partitions: Vec<Partition>,
    pub damaged: Vec<String>,
}

/// The type of a partition that may have a disklabel in it.
const FREEBSD: &str = "freebsd";

/// Reads the tables. What can't be read is as what isn't there.
pub fn read(disk: &Part) -> Table {
    let mut table = Table::default();
    let mbr = mbr::read(disk);
    // A disk with an MBR that doesn't speak of GPT has had its GPT replaced.
    let gpt = match &mbr {
        Some(mbr) if !mbr.protective => None,
        _ => table.note(gpt::read(disk)),
    };
    let outer = match (gpt, mbr) {
        (Some(gpt), _) => gpt,
        (None, Some(mbr)) => mbr.partitions,
        (None, None) => Vec::new(),
    };
    for partition in outer {
        if partition.kind == FREEBSD {
            if let Some(inner) = table.note(bsd::read(&partition.part, &partition.name)) {
                table.partitions.extend(inner);
                continue;
            }
        }
        table.partitions.push(partition);
    }
    // Whole disks with a disklabel begin with a boot block, whose MBR is a fake.
    if let Some(whole) = table.note(bsd::read(disk, "")) {
        table.partitions.extend(whole);
    }
    table
}

impl Table {
    fn note<T>(&mut self, result: Result<Option<T>, String>) -> Option<T> {
        result.unwrap_or_else(|why| {
            self.damaged.push(why);
            None
        })
    }
}
