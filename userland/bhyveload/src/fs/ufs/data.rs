//! The contents of an inode: blocks that it names itself, blocks that its three levels of
//! indirect blocks name, holes; and directories in them.

use super::super::bytes::{u16_at, u32_at};
use super::super::{FileRead, FsError};
use super::{DIRECT, INDIRECT, Inode, Ufs};

/// The bytes of a file, a directory or a long symbolic link.
pub struct Data<'a> {
    ufs: &'a Ufs,
    inode: Inode,
    what: String,
    /// The indirect block read last at each depth, by its address: a file that is read from
    /// begin to end reads each one once.
    indirect: [Option<(u64, Vec<u64>)>; INDIRECT],
}

impl<'a> Data<'a> {
    pub fn new(ufs: &'a Ufs, inode: Inode, what: String) -> Self {
        Self {
            ufs,
            inode,
            what,
            indirect: [const { None }; INDIRECT],
        }
    }

    /// The address of a block of the file, 0 for a hole.
    fn address(&mut self, block: u64) -> Result<u64, FsError> {
        if let Some(address) = usize::try_from(block)
            .ok()
            .and_then(|block| self.inode.direct.get(block))
        {
            return Ok(*address);
        }
        let per_block = self.ufs.super_block.indirect_len();
        let mut block = block - DIRECT as u64;
        // What one address of this depth's first block stands for: 16384^2 blocks at most.
        let mut span = 1;
        for depth in 0..INDIRECT {
            if block < span * per_block {
                return self.through(self.inode.indirect[depth], depth, block, span);
            }
            block -= span * per_block;
            span *= per_block;
        }
        Err(FsError::damaged(
            &self.what,
            format!("its size of {} bytes is impossible", self.inode.size),
        ))
    }

    /// Follows the addresses down from the indirect block `address`.
    fn through(
        &mut self,
        mut address: u64,
        depth: usize,
        mut block: u64,
        mut span: u64,
    ) -> Result<u64, FsError> {
        let per_block = self.ufs.super_block.indirect_len();
        for level in (0..=depth).rev() {
            if address == 0 {
                return Ok(0);
            }
            let addresses = self.indirect_block(level, address)?;
            address = usize::try_from(block / span)
                .ok()
                .and_then(|index| addresses.get(index))
                .copied()
                .unwrap_or(0);
            block %= span;
            span /= per_block;
        }
        Ok(address)
    }

    fn indirect_block(&mut self, level: usize, address: u64) -> Result<&[u64], FsError> {
        let kept = &mut self.indirect[level];
        if kept.as_ref().is_none_or(|(at, _)| *at != address) {
            let mut bytes = vec![0; self.ufs.super_block.block as usize];
            self.ufs.fragments(address, &mut bytes, &self.what)?;
            let addresses = self.ufs.super_block.version.addresses(&bytes);
            *kept = Some((address, addresses));
        }
        Ok(kept.as_ref().map_or(&[], |(_, addresses)| addresses))
    }
}

impl FileRead for Data<'_> {
    fn size(&self) -> u64 {
        self.inode.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        let left = self.inode.size.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let size = self.ufs.super_block.block;
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let skip = at % size;
            let part = (len - done).min((size - skip) as usize);
            let into = &mut buf[done..done + part];
            match self.address(at / size)? {
                0 => into.fill(0),
                address => {
                    // The last block has only as many fragments as the file needs.
                    let fragment = self.ufs.super_block.fragment;
                    let from = address.saturating_add(skip / fragment);
                    let inside = (skip % fragment) as usize;
                    if inside == 0 {
                        self.ufs.fragments(from, into, &self.what)?;
                    } else {
                        let mut bytes = vec![0; inside + part];
                        self.ufs.fragments(from, &mut bytes, &self.what)?;
                        into.copy_from_slice(&bytes[inside..]);
                    }
                }
            }
            done += part;
        }
        Ok(len)
    }
}

/// Bytes of a directory's pieces: no entry crosses their bounds.
const PIECE: u64 = 512;
/// No directory of a file system that one loads from is larger (tens of thousands of names).
const MAX_DIRECTORY: u64 = 1 << 20;
/// Inode, record's length, type, name's length; then the name.
const HEADER: usize = 8;

/// A directory's names.
pub struct Directory<'a> {
    data: Data<'a>,
    /// A block of it, where that begins, and where in it the next entry does.
    bytes: Vec<u8>,
    start: u64,
    at: usize,
}

impl<'a> Directory<'a> {
    pub fn new(ufs: &'a Ufs, inode: &Inode, what: &str) -> Result<Self, FsError> {
        let size = inode.size;
        if size > MAX_DIRECTORY || size % PIECE != 0 {
            return Err(FsError::damaged(
                what,
                format!("a directory of {size} bytes (at most {MAX_DIRECTORY}, times {PIECE})"),
            ));
        }
        Ok(Self {
            data: Data::new(ufs, inode.clone(), what.to_owned()),
            bytes: Vec::new(),
            start: 0,
            at: 0,
        })
    }

    /// The next name and its inode's number.
    pub fn next(&mut self) -> Result<Option<(&[u8], u64)>, FsError> {
        loop {
            if self.at >= self.bytes.len() && !self.fill()? {
                return Ok(None);
            }
            let at = self.at;
            let number = u32_at(&self.bytes, at);
            let record = usize::from(u16_at(&self.bytes, at + 4));
            let name = usize::from(self.bytes.get(at + 7).copied().unwrap_or(0));
            let room = PIECE as usize - at % PIECE as usize;
            if record < HEADER || record % 4 != 0 || record > room || HEADER + name > record {
                return Err(FsError::damaged(
                    &self.data.what,
                    format!(
                        "a directory's entry of {record} bytes at byte {}, its name of {name}",
                        self.start + at as u64
                    ),
                ));
            }
            self.at += record;
            // A free entry has no inode.
            if number != 0 {
                let from = at + HEADER;
                let name = self.bytes.get(from..from + name).unwrap_or_default();
                return Ok(Some((name, u64::from(number))));
            }
        }
    }

    fn fill(&mut self) -> Result<bool, FsError> {
        self.start += self.bytes.len() as u64;
        self.at = 0;
        let left = self.data.size() - self.start;
        let len = left.min(self.data.ufs.super_block.block);
        self.bytes.clear();
        self.bytes.resize(len as usize, 0);
        self.data.read_at(self.start, &mut self.bytes)?;
        Ok(len > 0)
    }
}
