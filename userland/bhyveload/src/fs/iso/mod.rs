//! ISO 9660 (ECMA-119) with Rock Ridge's names, or with its own in lower case and without
//! versions. This file has the volume and its directories; [`susp`] has Rock Ridge.

mod susp;

use super::bytes::{u16_at, u32_at};
use super::path::{Each, Entry, Kind, Tree};
use super::source::{Part, Source, bytes_at};
use super::{FileRead, FsError};

/// Volume descriptors and directories are made of sectors of this size.
const SECTOR: u64 = 2048;
/// Where the volume descriptors begin, and how many are looked at.
const FIRST_DESCRIPTOR: u64 = 16;
const DESCRIPTORS: u64 = 32;
const IDENTIFIER: &[u8; 5] = b"CD001";
const PRIMARY: u8 = 1;
const TERMINATOR: u8 = 255;

/// A directory record without its name (ECMA-119 §9.1).
const HEADER: usize = 33;
const DIRECTORY: u8 = 1 << 1;
const ASSOCIATED: u8 = 1 << 2;
/// The file goes on in the next record.
const MULTI_EXTENT: u8 = 1 << 7;

/// No directory of a disc that one loads from is larger.
const MAX_DIRECTORY: u64 = 1 << 20;

/// A volume.
pub struct Iso {
    part: Part,
    name: String,
    /// Bytes of a logical block, which addresses count.
    block: u64,
    root: Record,
    /// Bytes before Rock Ridge's fields in a record, if there are such fields.
    rock_ridge: Option<usize>,
}

/// A file or a directory.
#[derive(Clone)]
pub struct Record {
    kind: Kind,
    /// Where the contents lie: first byte and length of each piece.
    extents: Vec<(u64, u64)>,
    /// What a symbolic link contains.
    target: Vec<u8>,
    /// A directory that lies elsewhere because it was too deep: where.
    moved: Option<u64>,
}

impl Iso {
    /// The volume in `part`, which errors call `name`; `None` if there is none.
    pub fn open(part: Part, name: &str) -> Result<Option<Self>, FsError> {
        let Some(descriptor) = primary_descriptor(&part, name)? else {
            return Ok(None);
        };
        let block = u64::from(u16_at(&descriptor, 128));
        if !matches!(block, 512 | 1024 | 2048) {
            return Err(FsError::damaged(
                name,
                format!("its volume descriptor has blocks of {block} bytes"),
            ));
        }
        let root = descriptor.get(156..190).unwrap_or_default();
        let (root, _) = parse(root, block, None)
            .filter(|(root, _)| root.kind == Kind::Directory)
            .ok_or_else(|| FsError::damaged(name, "its volume descriptor has no root directory"))?;
        let mut iso = Self {
            part,
            name: name.to_owned(),
            block,
            root,
            rock_ridge: None,
        };
        let first = iso.first_record(iso.root.start(), &iso.name)?;
        iso.rock_ridge = susp::skip(system_use(&first, 0));
        Ok(Some(iso))
    }

    /// The first record of a directory, its own.
    fn first_record(&self, at: u64, what: &str) -> Result<Vec<u8>, FsError> {
        let mut sector =
            bytes_at(&self.part, at, SECTOR as usize).map_err(|e| FsError::io(what, e))?;
        let len = usize::from(sector.first().copied().unwrap_or(0));
        sector.truncate(len);
        Ok(sector)
    }

    /// A directory's bytes.
    fn directory(&self, record: &Record, what: &str) -> Result<Vec<u8>, FsError> {
        let (mut at, mut len) = (record.start(), record.size());
        if let Some(moved) = record.moved {
            let first = self.first_record(moved, what)?;
            let (own, _) = parse(&first, self.block, None)
                .filter(|(own, _)| own.kind == Kind::Directory)
                .ok_or_else(|| FsError::damaged(what, "its moved directory isn't one"))?;
            (at, len) = (own.start(), own.size());
        }
        if len > MAX_DIRECTORY {
            return Err(FsError::damaged(
                what,
                format!("a directory of {len} bytes (at most {MAX_DIRECTORY})"),
            ));
        }
        bytes_at(&self.part, at, len as usize).map_err(|e| FsError::io(what, e))
    }
}

impl Record {
    fn start(&self) -> u64 {
        self.extents.first().map_or(0, |&(start, _)| start)
    }

    fn size(&self) -> u64 {
        self.extents.iter().map(|&(_, len)| len).sum()
    }
}

fn primary_descriptor(part: &Part, name: &str) -> Result<Option<Vec<u8>>, FsError> {
    for sector in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + DESCRIPTORS {
        if (sector + 1) * SECTOR > part.size() {
            break;
        }
        let bytes = bytes_at(part, sector * SECTOR, SECTOR as usize)
            .map_err(|error| FsError::io(name, error))?;
        if bytes.get(1..6) != Some(IDENTIFIER.as_slice()) {
            break;
        }
        match bytes.first() {
            Some(&PRIMARY) => return Ok(Some(bytes)),
            Some(&TERMINATOR) => break,
            _ => {}
        }
    }
    Ok(None)
}

/// A record as ISO 9660 has it, and its flags; `None` if it is none.
fn parse(bytes: &[u8], block: u64, fields: Option<&susp::Fields>) -> Option<(Record, u8)> {
    let attributes = u64::from(*bytes.get(1)?);
    let flags = *bytes.get(25)?;
    let interleaved = *bytes.get(26)? != 0;
    let name_len = usize::from(*bytes.get(32)?);
    bytes.get(HEADER..HEADER + name_len)?;
    let start = (u64::from(u32_at(bytes, 2)) + attributes) * block;
    let mut record = Record {
        kind: if flags & DIRECTORY != 0 {
            Kind::Directory
        } else if interleaved {
            Kind::Other
        } else {
            Kind::File
        },
        extents: vec![(start, u64::from(u32_at(bytes, 10)))],
        target: Vec::new(),
        moved: None,
    };
    if let Some(fields) = fields {
        if let Some(kind) = fields.kind() {
            record.kind = kind;
        }
        record.target.clone_from(&fields.target);
        if let Some(moved) = fields.moved {
            record.kind = Kind::Directory;
            record.moved = Some(u64::from(moved) * block);
        }
    }
    Some((record, flags))
}

/// What follows the name: the fields of SUSP (ECMA-119 §9.1.13).
fn system_use(record: &[u8], skip: usize) -> &[u8] {
    let name_len = usize::from(record.get(32).copied().unwrap_or(0));
    // The name is padded to an even length of the record so far.
    let at = (HEADER + name_len).next_multiple_of(2) + skip;
    record.get(at..).unwrap_or_default()
}

/// A name of ISO 9660 as it is meant: "LOADER.CONF;1", "KERNEL.;1".
fn plain_name(name: &[u8]) -> Vec<u8> {
    let name = name.split(|&byte| byte == b';').next().unwrap_or_default();
    let name = name.strip_suffix(b".").unwrap_or(name);
    name.to_ascii_lowercase()
}

impl Tree for Iso {
    type Node = Record;

    fn name(&self) -> &str {
        &self.name
    }

    fn root(&self) -> Result<Record, FsError> {
        Ok(self.root.clone())
    }

    fn kind(&self, node: &Record) -> Kind {
        node.kind
    }

    fn entries(
        &self,
        directory: &Record,
        what: &str,
        each: Each<'_, Record>,
    ) -> Result<(), FsError> {
        let damaged = |at: usize| {
            FsError::damaged(
                what,
                format!("a directory record at byte {at} makes no sense"),
            )
        };
        let bytes = self.directory(directory, what)?;
        let mut continuations = susp::Continuations::new(&self.part, self.block, what);
        // The pieces so far of a file that has several.
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(&len) = bytes.get(at) {
            // Records don't cross sectors; the rest of one is empty.
            let room = SECTOR as usize - at % SECTOR as usize;
            let len = usize::from(len);
            if len == 0 {
                at += room;
                continue;
            }
            let bytes = bytes.get(at..at + len).filter(|_| len <= room);
            let bytes = bytes.ok_or_else(|| damaged(at))?;
            let fields = match self.rock_ridge {
                None => None,
                Some(skip) => Some(continuations.fields(system_use(bytes, skip))?),
            };
            let (mut record, flags) =
                parse(bytes, self.block, fields.as_ref()).ok_or_else(|| damaged(at))?;
            at += len;
            let name_len = usize::from(bytes.get(32).copied().unwrap_or(0));
            let own_name = bytes.get(HEADER..HEADER + name_len).unwrap_or_default();
            // "." and "..", and what Apple keeps beside a file.
            if matches!(own_name, [] | [0] | [1]) || flags & ASSOCIATED != 0 {
                continue;
            }
            pieces.append(&mut record.extents);
            if flags & MULTI_EXTENT != 0 {
                continue;
            }
            record.extents = std::mem::take(&mut pieces);
            let name = fields
                .and_then(|fields| fields.name)
                .unwrap_or_else(|| plain_name(own_name));
            if !each(&name, Entry::Node(record)) {
                break;
            }
        }
        Ok(())
    }

    fn node(&self, _number: u64, what: &str) -> Result<Record, FsError> {
        // entries() has the nodes themselves.
        Err(FsError::damaged(what, "a disc has no inodes"))
    }

    fn target(&self, link: &Record, _what: &str) -> Result<Vec<u8>, FsError> {
        Ok(link.target.clone())
    }

    fn file(&self, node: Record, what: String) -> Box<dyn FileRead + '_> {
        Box::new(IsoFile {
            part: &self.part,
            record: node,
            what,
        })
    }
}

struct IsoFile<'a> {
    part: &'a Part,
    record: Record,
    what: String,
}

impl FileRead for IsoFile<'_> {
    fn size(&self) -> u64 {
        self.record.size()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        let mut skip = offset;
        let mut done = 0;
        for &(start, len) in &self.record.extents {
            if skip >= len {
                skip -= len;
                continue;
            }
            let part = (buf.len() - done).min(usize::try_from(len - skip).unwrap_or(usize::MAX));
            // Extents begin below 2^44.
            self.part
                .read_at(start + skip, &mut buf[done..done + part])
                .map_err(|error| FsError::io(&self.what, error))?;
            done += part;
            skip = 0;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests;
