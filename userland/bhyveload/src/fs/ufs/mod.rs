//! UFS1 and UFS2, little endian: sys/ufs/ffs/fs.h, sys/ufs/ufs/dinode.h and dir.h of
//! FreeBSD. This file has the superblock and the inodes; [`data`] has their contents.
//!
//! Addresses count fragments. A file system that is being written to, or wasn't unmounted,
//! is read as it is.

mod data;

use super::FsError;
use super::bytes::{u16_at, u32_at, u64_at};
use super::path::{Each, Entry, Kind, MAX_TARGET, Tree};
use super::source::{Part, Source, bytes_at};
use super::{FileRead, path};
use data::{Data, Directory};

/// Where a superblock may lie, in the order of SBLOCKSEARCH.
const PLACES: [u64; 4] = [65_536, 8_192, 0, 262_144];
const UFS1_PLACE: u64 = 8_192;
const UFS2_PLACE: u64 = 65_536;
const SUPERBLOCK_SIZE: usize = 1376;

const MAGIC: usize = 1372;
const UFS1_MAGIC: u32 = 0x0001_1954;
const UFS2_MAGIC: u32 = 0x1954_0119;
/// newfs was interrupted.
const BAD_MAGIC: u32 = 0x1996_0408;

const ROOT: u64 = 2;
const DIRECT: usize = 12;
const INDIRECT: usize = 3;

const IFMT: u16 = 0o170_000;
const IFDIR: u16 = 0o040_000;
const IFREG: u16 = 0o100_000;
const IFLNK: u16 = 0o120_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    Ufs1,
    Ufs2,
}

impl Version {
    fn inode_size(self) -> u64 {
        match self {
            Self::Ufs1 => 128,
            Self::Ufs2 => 256,
        }
    }

    fn address_size(self) -> u64 {
        match self {
            Self::Ufs1 => 4,
            Self::Ufs2 => 8,
        }
    }

    /// Block addresses in an indirect block or an inode.
    fn addresses(self, bytes: &[u8]) -> Vec<u64> {
        match self {
            // Negative ones are beyond every file system, whatever their width.
            Self::Ufs1 => (0..bytes.len() / 4)
                .map(|n| u64::from(u32_at(bytes, n * 4)))
                .collect(),
            Self::Ufs2 => (0..bytes.len() / 8).map(|n| u64_at(bytes, n * 8)).collect(),
        }
    }
}

/// A file system.
pub struct Ufs {
    part: Part,
    name: String,
    super_block: SuperBlock,
}

/// What is needed of the superblock, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SuperBlock {
    version: Version,
    /// Where it was found.
    place: u64,
    /// Bytes of a block and of a fragment, powers of two.
    block: u64,
    fragment: u64,
    /// The file system's fragments.
    size: u64,
    /// Cylinder groups, and in each one: inodes, fragments, where the inodes begin.
    groups: u64,
    group_inodes: u64,
    group_size: u64,
    inodes_at: u64,
    /// UFS1 moves the inodes of a group by `offset` for each of the group's bits in `mask`.
    group_offset: u64,
    group_mask: u32,
}

/// An inode: what is needed of it.
#[derive(Clone)]
pub struct Inode {
    kind: Kind,
    size: u64,
    direct: [u64; DIRECT],
    indirect: [u64; INDIRECT],
    /// The contents of a short symbolic link, which lie where the addresses are otherwise.
    short: Option<Vec<u8>>,
}

impl Ufs {
    /// The file system in `part`, which errors call `name`; `None` if there is none.
    pub fn open(part: Part, name: &str) -> Result<Option<Self>, FsError> {
        let mut damaged = None;
        for place in PLACES {
            if place + SUPERBLOCK_SIZE as u64 > part.size() {
                continue;
            }
            let bytes =
                bytes_at(&part, place, SUPERBLOCK_SIZE).map_err(|e| FsError::io(name, e))?;
            match SuperBlock::parse(&bytes, place) {
                Ok(None) => {}
                Ok(Some(super_block)) => {
                    return Ok(Some(Self {
                        part,
                        name: name.to_owned(),
                        super_block,
                    }));
                }
                // A copy of the superblock may lie at the next place.
                Err(why) => {
                    damaged.get_or_insert(why);
                }
            }
        }
        match damaged {
            None => Ok(None),
            Some(why) => Err(FsError::damaged(name, why)),
        }
    }

    pub fn version(&self) -> Version {
        self.super_block.version
    }

    /// Where on the disk the superblock lies: two names of one file system have the same.
    pub fn place(&self) -> u64 {
        self.part.start() + self.super_block.place
    }

    /// The bytes at a fragment's address. `len` is at most a block.
    fn fragments(&self, address: u64, buf: &mut [u8], what: &str) -> Result<(), FsError> {
        let block = &self.super_block;
        let beyond = || {
            FsError::damaged(
                what,
                format!(
                    "it uses fragment {address} of a file system of {}",
                    block.size
                ),
            )
        };
        let fragments = (buf.len() as u64).div_ceil(block.fragment);
        let end = address.checked_add(fragments).ok_or_else(beyond)?;
        if address == 0 || end > block.size {
            return Err(beyond());
        }
        let at = address.checked_mul(block.fragment).ok_or_else(beyond)?;
        self.part
            .read_at(at, buf)
            .map_err(|error| FsError::io(what, error))
    }

    fn inode(&self, number: u64, what: &str) -> Result<Inode, FsError> {
        let block = &self.super_block;
        let address = block.inode_address(number).ok_or_else(|| {
            FsError::damaged(
                what,
                format!("it names inode {number}, which doesn't exist"),
            )
        })?;
        let size = block.version.inode_size();
        let in_fragment = number % block.group_inodes * size % block.fragment;
        let mut bytes = vec![0; block.fragment as usize];
        self.fragments(address, &mut bytes, what)?;
        let bytes = &bytes[in_fragment as usize..(in_fragment + size) as usize];
        Inode::parse(bytes, block.version)
            .map_err(|why| FsError::damaged(what, format!("inode {number}: {why}")))
    }
}

impl SuperBlock {
    /// `None`: no superblock. An error: one that makes no sense.
    fn parse(bytes: &[u8], place: u64) -> Result<Option<Self>, String> {
        let version = match u32_at(bytes, MAGIC) {
            UFS1_MAGIC => Version::Ufs1,
            UFS2_MAGIC => Version::Ufs2,
            BAD_MAGIC => return Err("newfs did not finish making it".to_owned()),
            magic if matches!(magic.swap_bytes(), UFS1_MAGIC | UFS2_MAGIC) => {
                return Err("it is a big-endian UFS".to_owned());
            }
            _ => return Ok(None),
        };
        // A copy, or the superblock of something that begins elsewhere.
        let own = u64_at(bytes, 1000);
        let copy = match version {
            Version::Ufs1 => place > UFS1_PLACE,
            Version::Ufs2 => own != place && (own != UFS2_PLACE || place != 0),
        };
        if copy {
            return Ok(None);
        }
        let field = |at| u64::from(u32_at(bytes, at));
        let (block, fragment) = (field(48), field(52));
        if !block.is_power_of_two() || !(4096..=65_536).contains(&block) {
            return Err(format!("its superblock has blocks of {block} bytes"));
        }
        if !fragment.is_power_of_two() || fragment < 512 || fragment > block || block / fragment > 8
        {
            return Err(format!(
                "its superblock has fragments of {fragment} bytes in blocks of {block}"
            ));
        }
        // An older UFS1 has the size in 32 bits (fs_maxbsize isn't set there).
        let size = match version {
            Version::Ufs1 if field(860) != block => field(36),
            _ => u64_at(bytes, 1080),
        };
        let this = Self {
            version,
            place,
            block,
            fragment,
            size,
            groups: field(44),
            group_inodes: field(184),
            group_size: field(188),
            inodes_at: field(16),
            group_offset: field(24),
            group_mask: u32_at(bytes, 28),
        };
        let sensible = this.groups > 0
            && this.group_inodes > 0
            && this.group_size > 0
            && this.inodes_at < this.group_size
            && this.size > 0
            // Every byte has an off_t.
            && size.checked_mul(fragment).is_some_and(|bytes| i64::try_from(bytes).is_ok());
        if !sensible {
            return Err(format!(
                "its superblock has {} groups of {} inodes and {} fragments, {size} in all",
                this.groups, this.group_inodes, this.group_size
            ));
        }
        if version == Version::Ufs1 && u32_at(bytes, 1324) != 2 {
            return Err("its directories are of 4.2BSD".to_owned());
        }
        Ok(Some(this))
    }

    /// The fragment that an inode lies in.
    fn inode_address(&self, number: u64) -> Option<u64> {
        let group = number / self.group_inodes;
        if number < ROOT || group >= self.groups {
            return None;
        }
        // All factors are of 32 bits.
        let mut start = self.group_size * group;
        if self.version == Version::Ufs1 {
            start = start.checked_add(self.group_offset * (group & u64::from(!self.group_mask)))?;
        }
        let offset = number % self.group_inodes * self.version.inode_size();
        start.checked_add(self.inodes_at + offset / self.fragment)
    }

    /// Addresses in an indirect block.
    fn indirect_len(&self) -> u64 {
        self.block / self.version.address_size()
    }
}

impl Inode {
    fn parse(bytes: &[u8], version: Version) -> Result<Self, String> {
        let mode = u16_at(bytes, 0);
        let kind = match mode & IFMT {
            IFDIR => Kind::Directory,
            IFREG => Kind::File,
            IFLNK => Kind::Symlink,
            0 => return Err("it is not in use".to_owned()),
            _ => Kind::Other,
        };
        let (size, blocks, at, len) = match version {
            Version::Ufs1 => (u64_at(bytes, 8), u64::from(u32_at(bytes, 104)), 40, 60),
            Version::Ufs2 => (u64_at(bytes, 16), u64_at(bytes, 24), 112, 120),
        };
        if i64::try_from(size).is_err() {
            return Err(format!("it has {size} bytes"));
        }
        let area = bytes.get(at..at + len).unwrap_or_default();
        // Where the symbolic link doesn't fit, it has a block.
        let short = (kind == Kind::Symlink && (size < len as u64 || blocks == 0))
            .then(|| area.iter().copied().take(size as usize).collect());
        let addresses = version.addresses(area);
        let mut addresses = addresses.into_iter().chain(std::iter::repeat(0));
        Ok(Self {
            kind,
            size,
            direct: std::array::from_fn(|_| addresses.next().unwrap_or(0)),
            indirect: std::array::from_fn(|_| addresses.next().unwrap_or(0)),
            short,
        })
    }
}

impl Tree for Ufs {
    type Node = Inode;

    fn name(&self) -> &str {
        &self.name
    }

    fn root(&self) -> Result<Inode, FsError> {
        let what = format!("{}:/", self.name);
        let inode = self.inode(ROOT, &what)?;
        if inode.kind == Kind::Directory {
            Ok(inode)
        } else {
            Err(FsError::damaged(what, "it is not a directory"))
        }
    }

    fn kind(&self, node: &Inode) -> Kind {
        node.kind
    }

    fn entries(&self, directory: &Inode, what: &str, each: Each<'_, Inode>) -> Result<(), FsError> {
        let mut directory = Directory::new(self, directory, what)?;
        while let Some((name, number)) = directory.next()? {
            if !each(name, Entry::Number(number)) {
                break;
            }
        }
        Ok(())
    }

    fn node(&self, number: u64, what: &str) -> Result<Inode, FsError> {
        self.inode(number, what)
    }

    fn target(&self, link: &Inode, what: &str) -> Result<Vec<u8>, FsError> {
        if let Some(short) = &link.short {
            return Ok(short.clone());
        }
        if link.size > path::MAX_TARGET {
            return Err(FsError::damaged(
                what,
                format!(
                    "a symbolic link of {} bytes (at most {MAX_TARGET})",
                    link.size
                ),
            ));
        }
        let mut target = vec![0; link.size as usize];
        Data::new(self, link.clone(), what.to_owned()).read_at(0, &mut target)?;
        Ok(target)
    }

    fn file(&self, node: Inode, what: String) -> Box<dyn FileRead + '_> {
        Box::new(Data::new(self, node, what))
    }
}

#[cfg(test)]
mod tests;
