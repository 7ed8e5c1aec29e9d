//! Extended page tables: the map from guest-physical to host-physical addresses (SDM
//! vol. 3C, 29.3), four levels, with leaves of 4 KiB, 2 MiB and 1 GiB.
//!
//! The tables live in pages of a [`TableMemory`]; nothing here knows where those come
//! from. An [`Ept`] keeps two invariants: no table but the root is empty, and each table
//! is pointed to by one entry. So a table in the way of a leaf always means an overlap, and
//! what the last `unmap` leaves is the root alone.
//!
//! CPUs that run the guest walk the tables while they change. Each entry is written by one
//! store, a table is filled before it is linked, so that a walker sees the old or the new
//! mapping. What they have cached is the caller's matter: see [`Invept`].

mod entry;
#[cfg(test)]
mod tests;

use crate::types::{Errno, Gpa, Hpa, PAGE_SIZE};
use entry::Level;
pub use entry::{ENTRIES, Entry, Eptp, GPA_LIMIT, MemType, PageSize, Prot};

/// Where tables are: pages of 512 entries, known by their host-physical address.
pub trait TableMemory {
    /// A page of zeros.
    fn alloc(&mut self) -> Result<Hpa, Errno>;
    /// Takes a page back that [`TableMemory::alloc`] gave.
    fn free(&mut self, table: Hpa);
    /// Entry `index` (below 512) of a table.
    fn read(&self, table: Hpa, index: usize) -> u64;
    /// Replaces an entry by one 64-bit store.
    fn write(&mut self, table: Hpa, index: usize, entry: u64);
}

/// Why a mapping can't be changed. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// Something is mapped there already.
    Overlap,
    /// No page for a table.
    NoMemory,
    /// Misaligned, beyond [`GPA_LIMIT`] or a 52-bit host-physical address, or a protection
    /// that the CPU can't express: without READ.
    Invalid,
}

impl MapError {
    /// For an ioctl.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Overlap => Errno::EEXIST,
            Self::NoMemory => Errno::ENOMEM,
            Self::Invalid => Errno::EINVAL,
        }
    }
}

/// Whether CPUs may still hold translations that are no longer right (29.4.3.1). If so, the
/// caller has to see to an INVEPT on each CPU that ran the guest, before the CPU enters it
/// again and before the unmapped pages get another use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Invept {
    Needed,
    NotNeeded,
}

/// What a guest-physical address is mapped to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// Of the byte, not of its page.
    pub hpa: Hpa,
    pub size: PageSize,
    pub prot: Prot,
    pub mem_type: MemType,
}

/// The tables of one guest.
#[derive(Debug)]
pub struct Ept<M: TableMemory> {
    memory: M,
    root: Hpa,
    mapped: u64,
}

impl<M: TableMemory> Ept<M> {
    /// Maps nothing yet; one page is allocated, for the root.
    pub fn new(mut memory: M) -> Result<Self, Errno> {
        let root = memory.alloc()?;
        Ok(Self {
            memory,
            root,
            mapped: 0,
        })
    }

    /// The PML4 table.
    pub fn root(&self) -> Hpa {
        self.root
    }

    /// Bytes mapped.
    pub fn mapped_bytes(&self) -> u64 {
        self.mapped
    }

    /// Maps one page. An INVEPT is not needed: CPUs don't cache what is not present.
    pub fn map(
        &mut self,
        gpa: Gpa,
        hpa: Hpa,
        size: PageSize,
        prot: Prot,
        mem_type: MemType,
    ) -> Result<(), MapError> {
        let aligned = (gpa.0 | hpa.0) % size.bytes() == 0;
        if !aligned || gpa.0 >= GPA_LIMIT || hpa.0 >> 52 != 0 || !prot.contains(Prot::READ) {
            return Err(MapError::Invalid);
        }
        let leaf_level = size.level();
        let (level, table, index) = self.slot_for(gpa, leaf_level)?;
        let chain = self.chain(level, leaf_level, gpa, |l| {
            Entry::leaf(l, hpa, prot, mem_type)
        })?;
        self.memory.write(table, index, chain.0);
        self.mapped += size.bytes();
        Ok(())
    }

    /// Unmaps whatever is mapped in the range, which may have holes; splits the pages at
    /// its edges that are only partly in it, and frees the tables that become empty.
    ///
    /// Because of the latter no CPU may be in the guest: CPUs also cache pointers to tables.
    pub fn unmap(&mut self, gpa: Gpa, len: u64) -> Result<Invept, MapError> {
        let end = self.split_edges(gpa, len)?;
        let before = self.mapped;
        self.clear(self.root, Level::Pml4, 0, gpa.0, end);
        Ok(if self.mapped == before {
            Invept::NotNeeded
        } else {
            Invept::Needed
        })
    }

    /// Changes the protection of whatever is mapped in the range; splits the pages at its
    /// edges that are only partly in it. To forbid everything, unmap.
    pub fn protect(&mut self, gpa: Gpa, len: u64, prot: Prot) -> Result<Invept, MapError> {
        if !prot.contains(Prot::READ) {
            return Err(MapError::Invalid);
        }
        let end = self.split_edges(gpa, len)?;
        let stricter = self.set_prot(self.root, Level::Pml4, 0, gpa.0, end, prot);
        Ok(if stricter {
            Invept::Needed
        } else {
            Invept::NotNeeded
        })
    }

    /// Where `gpa` is mapped to, if it is.
    pub fn translate(&self, gpa: Gpa) -> Option<Translation> {
        if gpa.0 >= GPA_LIMIT {
            return None;
        }
        let mut level = Level::Pml4;
        let mut table = self.root;
        loop {
            let entry = self.read(table, level.index(gpa));
            if !entry.is_present() {
                return None;
            }
            if entry.is_leaf(level) {
                return Some(Translation {
                    hpa: Hpa(entry.address().0 + gpa.0 % level.page_bytes()),
                    size: level.page_size()?,
                    prot: entry.prot(),
                    mem_type: entry.mem_type()?,
                });
            }
            table = entry.address();
            level = level.below()?;
        }
    }

    /// The raw entries on the way to `gpa`, root first, and how many there are: up to and
    /// including the leaf, or the first that is not present (VM_GET_GPA_PMAP).
    pub fn walk(&self, gpa: Gpa) -> ([u64; 4], usize) {
        let mut entries = [0; 4];
        if gpa.0 >= GPA_LIMIT {
            return (entries, 0);
        }
        let mut table = self.root;
        let mut level = Some(Level::Pml4);
        let mut count = 0;
        while let Some(here) = level {
            let entry = self.read(table, here.index(gpa));
            entries[count] = entry.0;
            count += 1;
            if !entry.is_present() || entry.is_leaf(here) {
                break;
            }
            table = entry.address();
            level = here.below();
        }
        (entries, count)
    }

    fn read(&self, table: Hpa, index: usize) -> Entry {
        Entry(self.memory.read(table, index))
    }

    /// Goes down towards the leaf of `gpa` as far as there are tables, and gives the
    /// absent entry where the way ends. Overlap if it ends at a leaf, or doesn't end.
    fn slot_for(&self, gpa: Gpa, leaf: Level) -> Result<(Level, Hpa, usize), MapError> {
        let mut level = Level::Pml4;
        let mut table = self.root;
        loop {
            let index = level.index(gpa);
            let entry = self.read(table, index);
            if !entry.is_present() {
                return Ok((level, table, index));
            }
            if entry.is_leaf(level) || level == leaf {
                return Err(MapError::Overlap);
            }
            table = entry.address();
            level = level.below().ok_or(MapError::Overlap)?;
        }
    }

    /// An entry for a table of level `top` that leads to a new leaf at level `leaf`,
    /// through as many new tables as that takes. They are linked by nobody yet.
    fn chain(
        &mut self,
        top: Level,
        leaf: Level,
        gpa: Gpa,
        make: impl Fn(Level) -> Entry,
    ) -> Result<Entry, MapError> {
        let mut tables = [Hpa(0); 3];
        let mut count = 0;
        let mut levels = [leaf; 3];
        let mut level = top;
        while level != leaf {
            // `leaf` is at or below `top`, so that there is a level below.
            let Some(below) = level.below() else { break };
            match self.memory.alloc() {
                Ok(table) => tables[count] = table,
                Err(_) => {
                    for &table in &tables[..count] {
                        self.memory.free(table);
                    }
                    return Err(MapError::NoMemory);
                }
            }
            levels[count] = below;
            count += 1;
            level = below;
        }
        let mut entry = make(leaf);
        for i in (0..count).rev() {
            self.memory.write(tables[i], levels[i].index(gpa), entry.0);
            entry = Entry::table(tables[i]);
        }
        Ok(entry)
    }

    /// Checks a range and sees to it that no page lies across its start or its end, which
    /// is returned.
    fn split_edges(&mut self, gpa: Gpa, len: u64) -> Result<u64, MapError> {
        let end = gpa.0.checked_add(len).filter(|&end| end <= GPA_LIMIT);
        let end = end.ok_or(MapError::Invalid)?;
        if (gpa.0 | len) % PAGE_SIZE != 0 {
            return Err(MapError::Invalid);
        }
        if len != 0 {
            self.split_at(gpa)?;
            if end < GPA_LIMIT {
                self.split_at(Gpa(end))?;
            }
        }
        Ok(end)
    }

    /// Splits the page around `gpa` until one begins at `gpa`. What is mapped stays.
    fn split_at(&mut self, gpa: Gpa) -> Result<(), MapError> {
        let mut table = self.root;
        let mut level = Level::Pml4;
        // At a multiple of the entry's span no page can lie across.
        while gpa.0 % level.page_bytes() != 0 {
            let Some(below) = level.below() else { break };
            let index = level.index(gpa);
            let mut entry = self.read(table, index);
            if !entry.is_present() {
                break;
            }
            if entry.is_leaf(level) {
                let pieces = self.memory.alloc().map_err(|_| MapError::NoMemory)?;
                for i in 0..ENTRIES {
                    self.memory.write(pieces, i, entry.piece(below, i).0);
                }
                entry = Entry::table(pieces);
                self.memory.write(table, index, entry.0);
            }
            table = entry.address();
            level = below;
        }
        Ok(())
    }

    /// Clears the leaves of [start, end) in the table at `base`, which has no leaf across
    /// the edges. True if the table is empty now.
    fn clear(&mut self, table: Hpa, level: Level, base: u64, start: u64, end: u64) -> bool {
        for (index, at) in entries_in(level, base, start, end) {
            let entry = self.read(table, index);
            if !entry.is_present() {
                continue;
            }
            let below = if entry.is_leaf(level) {
                None
            } else {
                level.below()
            };
            match below {
                None => {
                    self.memory.write(table, index, Entry::EMPTY.0);
                    self.mapped -= level.page_bytes();
                }
                Some(below) => {
                    if self.clear(entry.address(), below, at, start, end) {
                        self.memory.write(table, index, Entry::EMPTY.0);
                        self.memory.free(entry.address());
                    }
                }
            }
        }
        (0..ENTRIES).all(|index| !self.read(table, index).is_present())
    }

    /// Sets the protection of the leaves of [start, end). True if one lost a permission.
    fn set_prot(
        &mut self,
        table: Hpa,
        level: Level,
        base: u64,
        start: u64,
        end: u64,
        prot: Prot,
    ) -> bool {
        let mut stricter = false;
        for (index, at) in entries_in(level, base, start, end) {
            let entry = self.read(table, index);
            if !entry.is_present() {
                continue;
            }
            let below = if entry.is_leaf(level) {
                None
            } else {
                level.below()
            };
            match below {
                None => {
                    stricter |= !prot.contains(entry.prot());
                    self.memory.write(table, index, entry.with_prot(prot).0);
                }
                Some(below) => {
                    stricter |= self.set_prot(entry.address(), below, at, start, end, prot);
                }
            }
        }
        stricter
    }

    fn free_tables(&mut self, table: Hpa, level: Level) {
        if let Some(below) = level.below() {
            for index in 0..ENTRIES {
                let entry = self.read(table, index);
                if entry.is_present() && !entry.is_leaf(level) {
                    self.free_tables(entry.address(), below);
                }
            }
        }
        self.memory.free(table);
    }
}

/// Frees all tables. No CPU may run the guest then, or enter it again.
impl<M: TableMemory> Drop for Ept<M> {
    fn drop(&mut self) {
        self.free_tables(self.root, Level::Pml4);
    }
}

/// The entries of the table at `base` that [start, end) touches: index, and the first
/// guest-physical address of each.
fn entries_in(
    level: Level,
    base: u64,
    start: u64,
    end: u64,
) -> impl Iterator<Item = (usize, u64)> + use<> {
    let span = level.page_bytes();
    let first = start.saturating_sub(base) / span;
    // An empty range touches none, also inside of a page.
    let end = if start < end { end } else { base };
    let last = end.saturating_sub(base).div_ceil(span).min(ENTRIES as u64);
    (first..last).map(move |i| (i as usize, base + i * span))
}
