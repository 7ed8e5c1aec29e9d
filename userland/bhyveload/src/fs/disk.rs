//! A disk or a disk image: its partitions, and the file systems on them that can be read.

use std::fs::File;
use std::sync::Arc;

use super::iso::Iso;
use super::partition::{self, Partition};
use super::signature;
use super::source::{FileSource, Part, Source};
use super::ufs::{Ufs, Version};
use super::{FileSystem, FsError};

pub(super) const FREEBSD_UFS: &str = "freebsd-ufs";

/// A file system on a disk.
pub struct Volume {
    /// As FreeBSD's loader names it, without the colon: "disk0p2", "disk0s1a", "disk0".
    pub device: String,
    /// The partition's type ("freebsd-ufs"); `None` for a whole disk.
    pub partition: Option<String>,
    pub format: Format,
    pub files: Box<dyn FileSystem>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Ufs1,
    Ufs2,
    Iso9660,
}

/// What was found on a disk.
pub struct Disk {
    /// At least one. File systems of freebsd-ufs partitions come first, then others in the
    /// order of the tables, the whole disk's at the end.
    pub volumes: Vec<Volume>,
    /// What else there is, each for people to read: "disk0p3 is freebsd-swap".
    pub others: Vec<String>,
}

impl Volume {
    /// For people: "disk0p2 (freebsd-ufs, UFS2)".
    pub fn label(&self) -> String {
        match &self.partition {
            Some(kind) => format!("{} ({kind}, {})", self.device, self.format.name()),
            None => format!("{} ({})", self.device, self.format.name()),
        }
    }
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ufs1 => "UFS1",
            Self::Ufs2 => "UFS2",
            Self::Iso9660 => "ISO 9660",
        }
    }
}

/// The file systems on a disk, a disk image or a CD image. `name` is what FreeBSD's loader
/// calls the disk: "disk0".
pub fn open_disk(file: File, name: &str) -> Result<Disk, FsError> {
    let source = FileSource::new(file).map_err(|error| FsError::io(name, error))?;
    open_source(Arc::new(source), name)
}

/// [`open_disk`] of anything that has bytes.
pub fn open_source(source: Arc<dyn Source>, name: &str) -> Result<Disk, FsError> {
    let whole = Part::whole(source);
    let table = partition::read(&whole);
    let mut found = Found::default();
    let mut others: Vec<String> = table
        .damaged
        .iter()
        .map(|why| format!("{name}: {why}"))
        .collect();
    for partition in &table.partitions {
        let device = format!("{name}{}", partition.name);
        if let Some(other) = found.probe(&partition.part, &device, Some(partition)) {
            others.push(other);
        }
    }
    if let Some(other) = found.probe(&whole, name, None) {
        // With partitions the whole disk needn't be anything.
        if table.partitions.is_empty() {
            others.push(other);
        }
    }
    let mut volumes = found.volumes;
    volumes.sort_by_key(|volume| volume.partition.as_deref() != Some(FREEBSD_UFS));
    if volumes.is_empty() {
        return Err(FsError::NoFileSystem {
            disk: name.to_owned(),
            found: others,
        });
    }
    Ok(Disk { volumes, others })
}

#[derive(Default)]
struct Found {
    volumes: Vec<Volume>,
    /// Where their superblocks lie: a disk with a disklabel and its partition a may begin at
    /// the same place.
    places: Vec<u64>,
}

impl Found {
    /// Adds the file systems of a partition or of the whole disk. If there are none, what
    /// there is instead.
    fn probe(
        &mut self,
        part: &Part,
        device: &str,
        partition: Option<&Partition>,
    ) -> Option<String> {
        let mut damaged = None;
        let mut readable = false;
        let kind = partition.map(|partition| partition.kind.clone());
        match Ufs::open(part.clone(), device) {
            Ok(None) => {}
            Ok(Some(ufs)) => {
                readable = true;
                if !self.places.contains(&ufs.place()) {
                    self.places.push(ufs.place());
                    self.volumes.push(Volume {
                        device: device.to_owned(),
                        partition: kind.clone(),
                        format: match ufs.version() {
                            Version::Ufs1 => Format::Ufs1,
                            Version::Ufs2 => Format::Ufs2,
                        },
                        files: Box::new(ufs),
                    });
                }
            }
            Err(error) => damaged = Some(error),
        }
        match Iso::open(part.clone(), device) {
            Ok(None) => {}
            Ok(Some(iso)) => {
                readable = true;
                self.volumes.push(Volume {
                    device: device.to_owned(),
                    partition: kind,
                    format: Format::Iso9660,
                    files: Box::new(iso),
                });
            }
            Err(error) => damaged = Some(error),
        }
        if readable {
            return None;
        }
        let contents = match damaged {
            Some(FsError::Damaged { why, .. }) => Some(why),
            Some(other) => Some(other.to_string()),
            None => signature::name(part).map(|name| format!("it contains {name}")),
        };
        Some(match (partition, contents) {
            (Some(partition), Some(why)) => format!("{device} is {}, {why}", partition.kind),
            (Some(partition), None) => format!("{device} is {}", partition.kind),
            (None, Some(why)) => format!("{device}: {why}"),
            (None, None) => format!(
                "{device}: no partition table and nothing known, it begins with {}",
                signature::first_bytes(part)
            ),
        })
    }
}
