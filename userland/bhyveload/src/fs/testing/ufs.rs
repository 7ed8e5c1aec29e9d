//! A small UFS1 or UFS2: fragments of 1024 bytes in blocks of 4096, groups of 256 fragments
//! with 32 inodes each.

use std::collections::BTreeMap;

use super::super::ufs::Version;

pub const BLOCK: usize = 4096;
const FRAGMENT: usize = 1024;
const GROUPS: usize = 4;
const GROUP_FRAGMENTS: usize = 256;
const GROUP_INODES: usize = 32;
const INODES_AT: usize = 80;
/// Behind the inodes, a whole block.
const DATA_AT: usize = 88;

pub const FILE: u16 = 0o100_644;
pub const DIRECTORY: u16 = 0o040_755;
pub const SYMLINK: u16 = 0o120_777;
pub const FIFO: u16 = 0o010_644;

/// An image that is being made.
pub struct Image {
    pub bytes: Vec<u8>,
    version: Version,
    next: usize,
}

impl Image {
    pub fn new(version: Version) -> Self {
        let mut image = Self {
            bytes: vec![0; GROUPS * GROUP_FRAGMENTS * FRAGMENT],
            version,
            next: DATA_AT,
        };
        let (magic, address, inode, link) = match version {
            Version::Ufs1 => (0x0001_1954, 4, 128, 60),
            Version::Ufs2 => (0x1954_0119, 8, 256, 120),
        };
        let fields = [
            (16, INODES_AT),
            (
                28,
                if version == Version::Ufs1 {
                    0xffff_ffff
                } else {
                    0
                },
            ),
            (36, GROUPS * GROUP_FRAGMENTS),
            (44, GROUPS),
            (48, BLOCK),
            (52, FRAGMENT),
            (56, BLOCK / FRAGMENT),
            (116, BLOCK / address),
            (120, BLOCK / inode),
            (184, GROUP_INODES),
            (188, GROUP_FRAGMENTS),
            (860, BLOCK),
            (1000, image.place()),
            (1080, GROUPS * GROUP_FRAGMENTS),
            (1320, link),
            (1324, 2),
            (1372, magic),
        ];
        for (at, value) in fields {
            image.set_super_block(at, value as u32);
        }
        image
    }

    /// Where the superblock is.
    pub fn place(&self) -> usize {
        match self.version {
            Version::Ufs1 => 8192,
            Version::Ufs2 => 65_536,
        }
    }

    pub fn set_super_block(&mut self, at: usize, value: u32) {
        let at = self.place() + at;
        self.put(at, &value.to_le_bytes());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Where an inode is, in bytes.
    pub fn inode_at(&self, number: usize) -> usize {
        let size = match self.version {
            Version::Ufs1 => 128,
            Version::Ufs2 => 256,
        };
        let group = number / GROUP_INODES * GROUP_FRAGMENTS;
        (group + INODES_AT) * FRAGMENT + number % GROUP_INODES * size
    }

    /// Where an inode's addresses are, in bytes.
    pub fn addresses_at(&self, number: usize) -> usize {
        self.inode_at(number)
            + match self.version {
                Version::Ufs1 => 40,
                Version::Ufs2 => 112,
            }
    }

    /// Takes fragments that lie together; returns their address.
    fn allocate(&mut self, fragments: usize) -> usize {
        if self.next % GROUP_FRAGMENTS + fragments > GROUP_FRAGMENTS {
            self.next = self.next.next_multiple_of(GROUP_FRAGMENTS) + DATA_AT;
        }
        let address = self.next;
        self.next += fragments;
        address
    }

    fn address_size(&self) -> usize {
        match self.version {
            Version::Ufs1 => 4,
            Version::Ufs2 => 8,
        }
    }

    pub fn put_address(&mut self, at: usize, address: u64) {
        let bytes = address.to_le_bytes();
        let size = self.address_size();
        self.put(at, &bytes[..size]);
    }

    fn address(&self, at: usize) -> usize {
        let mut bytes = [0; 8];
        let size = self.address_size();
        bytes[..size].copy_from_slice(&self.bytes[at..at + size]);
        u64::from_le_bytes(bytes) as usize
    }

    /// An inode whose blocks are given by their number in the file; the others are holes.
    pub fn inode(&mut self, number: usize, mode: u16, size: u64, blocks: &BTreeMap<u64, Vec<u8>>) {
        let at = self.inode_at(number);
        self.put(at, &mode.to_le_bytes());
        let (size_at, blocks_at) = match self.version {
            Version::Ufs1 => (8, 104),
            Version::Ufs2 => (16, 24),
        };
        self.put(at + size_at, &size.to_le_bytes());
        self.put(at + blocks_at, &(blocks.len() as u32 * 8).to_le_bytes());
        for (&block, contents) in blocks {
            let address = self.allocate(contents.len().div_ceil(FRAGMENT));
            self.put(address * FRAGMENT, contents);
            let slot = self.slot(number, block);
            self.put_address(slot, address as u64);
        }
    }

    /// Where the address of a block of a file is, in bytes; makes the indirect blocks.
    fn slot(&mut self, number: usize, block: u64) -> usize {
        let size = self.address_size();
        let inode = self.addresses_at(number);
        let per_block = (BLOCK / size) as u64;
        if block < 12 {
            return inode + block as usize * size;
        }
        let (mut block, mut span, mut depth) = (block - 12, 1, 0);
        while block >= span * per_block {
            block -= span * per_block;
            span *= per_block;
            depth += 1;
        }
        let mut at = inode + (12 + depth) * size;
        while span > 0 {
            if self.address(at) == 0 {
                let address = self.allocate(BLOCK / FRAGMENT);
                self.put_address(at, address as u64);
            }
            at = self.address(at) * FRAGMENT + (block / span) as usize * size;
            block %= span;
            span /= per_block;
        }
        at
    }

    pub fn file(&mut self, number: usize, contents: &[u8]) {
        let blocks = contents.chunks(BLOCK).map(<[u8]>::to_vec);
        let blocks = (0..).zip(blocks).collect();
        self.inode(number, FILE, contents.len() as u64, &blocks);
    }

    pub fn directory(&mut self, number: usize, names: &[(&str, u32)]) {
        let contents = directory(names);
        let size = contents.len() as u64;
        self.inode(number, DIRECTORY, size, &BTreeMap::from([(0, contents)]));
    }

    pub fn symlink(&mut self, number: usize, target: &str) {
        let room = 15 * self.address_size();
        let mut blocks = BTreeMap::new();
        if target.len() >= room {
            blocks.insert(0, target.as_bytes().to_vec());
        }
        self.inode(number, SYMLINK, target.len() as u64, &blocks);
        if target.len() < room {
            let at = self.addresses_at(number);
            self.put(at, target.as_bytes());
        }
    }
}

/// A directory's pieces of 512 bytes, each with at most eight names and a free entry.
pub fn directory(names: &[(&str, u32)]) -> Vec<u8> {
    let mut contents = Vec::new();
    for names in names.chunks(8) {
        let mut piece = Vec::new();
        for (name, inode) in names {
            let len = (8 + name.len() + 1).next_multiple_of(4);
            piece.extend(inode.to_le_bytes());
            piece.extend((len as u16).to_le_bytes());
            piece.extend([0, name.len() as u8]);
            piece.extend(name.as_bytes());
            piece.resize(piece.len() + len - 8 - name.len(), 0);
        }
        let rest = 512 - piece.len();
        piece.extend(0_u32.to_le_bytes());
        piece.extend((rest as u16).to_le_bytes());
        piece.resize(512, 0);
        contents.extend(piece);
    }
    contents
}

/// What most tests read:
/// /boot/kernel/kernel, /boot/loader.conf, /boot/link and /boot/far (symbolic links).
pub fn boot(version: Version) -> Image {
    let mut image = Image::new(version);
    image.directory(2, &[(".", 2), ("..", 2), ("boot", 3), ("gone", 0)]);
    let boot = [
        (".", 3),
        ("..", 2),
        ("kernel", 33),
        ("loader.conf", 4),
        ("link", 5),
        ("far", 6),
    ];
    image.directory(3, &boot);
    image.directory(33, &[(".", 33), ("..", 3), ("kernel", 34)]);
    image.file(34, &kernel());
    image.file(4, b"verbose_loading=\"YES\"\n");
    image.symlink(5, "kernel/kernel");
    let far = format!("{}kernel/kernel", "../boot/".repeat(20));
    image.symlink(6, &far);
    image
}

/// Long enough for an indirect block, and with a fragment at the end.
pub fn kernel() -> Vec<u8> {
    (0..BLOCK * 14 + 1500).map(|n| (n / 3) as u8).collect()
}
