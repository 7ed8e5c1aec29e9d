//! EPT entries and the EPT pointer (SDM vol. 3C, 29.3.2, tables 29-1 to 29-7).
//!
//! All four levels have one layout here: permissions in bits 2:0, an address in bits
//! 51:12, and in the entries that map a page (leaves) the memory type in bits 5:3. An
//! entry without permissions is not present, whatever its other bits.

use bitflags::bitflags;

use crate::types::{Gpa, Hpa, PAGE_SIZE};

/// Guest-physical addresses that a walk of length 4 can reach end here.
pub const GPA_LIMIT: u64 = 1 << 48;
/// Entries in a table.
pub const ENTRIES: usize = 512;

bitflags! {
    /// What the guest may do with a page. The bits are those of the entry, and those of
    /// PROT_READ, PROT_WRITE and PROT_EXEC.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    pub struct Prot: u64 {
        const READ = 1 << 0;
        const WRITE = 1 << 1;
        /// In supervisor and user mode (mode-based execute control is not used).
        const EXECUTE = 1 << 2;
    }
}

impl Prot {
    pub const RW: Self = Self::READ.union(Self::WRITE);
    pub const RX: Self = Self::READ.union(Self::EXECUTE);
    pub const RWX: Self = Self::RW.union(Self::EXECUTE);
}

/// EPT memory type of a page (bits 5:3). The guest's PAT combines with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum MemType {
    Uncacheable = 0,
    WriteCombining = 1,
    WriteThrough = 4,
    WriteProtected = 5,
    WriteBack = 6,
}

impl MemType {
    /// `None` for 2, 3 and 7, which are an EPT misconfiguration.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        Some(match raw {
            0 => Self::Uncacheable,
            1 => Self::WriteCombining,
            4 => Self::WriteThrough,
            5 => Self::WriteProtected,
            6 => Self::WriteBack,
            _ => return None,
        })
    }
}

/// Size of a page, which is the level of its leaf.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PageSize {
    Size4K,
    /// IA32_VMX_EPT_VPID_CAP bit 16 says whether the CPU has it.
    Size2M,
    /// IA32_VMX_EPT_VPID_CAP bit 17 says whether the CPU has it.
    Size1G,
}

impl PageSize {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.level().page_bytes()
    }

    pub(super) const fn level(self) -> Level {
        match self {
            Self::Size4K => Level::Pt,
            Self::Size2M => Level::Pd,
            Self::Size1G => Level::Pdpt,
        }
    }
}

/// Which table an entry is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Level {
    Pml4,
    Pdpt,
    Pd,
    Pt,
}

impl Level {
    /// The lowest bit of a guest-physical address that selects an entry of this table.
    const fn shift(self) -> u32 {
        match self {
            Self::Pml4 => 39,
            Self::Pdpt => 30,
            Self::Pd => 21,
            Self::Pt => 12,
        }
    }

    /// Bytes that one entry of this table spans.
    pub const fn page_bytes(self) -> u64 {
        1 << self.shift()
    }

    /// Which entry of this table leads to `gpa`.
    pub const fn index(self, gpa: Gpa) -> usize {
        (gpa.0 >> self.shift()) as usize % ENTRIES
    }

    /// The level of the tables that entries of this one point to.
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::Pml4 => Some(Self::Pdpt),
            Self::Pdpt => Some(Self::Pd),
            Self::Pd => Some(Self::Pt),
            Self::Pt => None,
        }
    }

    /// The size of a page that an entry of this table can map.
    pub const fn page_size(self) -> Option<PageSize> {
        match self {
            Self::Pml4 => None,
            Self::Pdpt => Some(PageSize::Size1G),
            Self::Pd => Some(PageSize::Size2M),
            Self::Pt => Some(PageSize::Size4K),
        }
    }
}

/// An entry of any level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(pub u64);

impl Entry {
    pub const EMPTY: Self = Self(0);
    /// Bit 7 of a PDPT or PD entry: it maps a page. A PT entry ignores the bit.
    const LEAF: u64 = 1 << 7;
    const ACCESSED: u64 = 1 << 8;
    const DIRTY: u64 = 1 << 9;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    /// Points to the table below. It allows everything: the leaf decides.
    pub(super) const fn table(table: Hpa) -> Self {
        Self(table.0 & Self::ADDRESS | Prot::RWX.bits())
    }

    /// Maps a page. `level` is the table that the entry goes to.
    pub(super) const fn leaf(level: Level, page: Hpa, prot: Prot, mem_type: MemType) -> Self {
        let size_bit = if matches!(level, Level::Pt) {
            0
        } else {
            Self::LEAF
        };
        Self(page.0 & Self::ADDRESS | (mem_type as u64) << 3 | size_bit | prot.bits())
    }

    pub const fn is_present(self) -> bool {
        self.0 & Prot::RWX.bits() != 0
    }

    /// Whether a present entry in a table of `level` maps a page.
    pub(super) const fn is_leaf(self, level: Level) -> bool {
        match level {
            Level::Pml4 => false,
            Level::Pdpt | Level::Pd => self.0 & Self::LEAF != 0,
            Level::Pt => true,
        }
    }

    /// The page or table.
    pub const fn address(self) -> Hpa {
        Hpa(self.0 & Self::ADDRESS)
    }

    pub const fn prot(self) -> Prot {
        Prot::from_bits_truncate(self.0)
    }

    /// Of a leaf; `None` for a reserved type.
    pub const fn mem_type(self) -> Option<MemType> {
        MemType::from_raw(self.0 >> 3 & 7)
    }

    /// Set by the CPU if EPTP enables it.
    pub const fn accessed(self) -> bool {
        self.0 & Self::ACCESSED != 0
    }

    /// Set by the CPU in leaves if EPTP enables it.
    pub const fn dirty(self) -> bool {
        self.0 & Self::DIRTY != 0
    }

    pub(super) const fn with_prot(self, prot: Prot) -> Self {
        Self(self.0 & !Prot::RWX.bits() | prot.bits())
    }

    /// The leaf number `index` of those that together map what the leaf `self` of `level`
    /// maps, for the table one level below. Accessed and dirty are inherited: a CPU that
    /// still has the large page in its TLB writes without setting them again.
    pub(super) const fn piece(self, below: Level, index: usize) -> Self {
        let size_bit = if matches!(below, Level::Pt) {
            Self::LEAF
        } else {
            0
        };
        Self((self.0 & !size_bit) + index as u64 * below.page_bytes())
    }
}

/// The EPT pointer, a VMCS field and the operand of INVEPT (25.6.11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Eptp(u64);

impl Eptp {
    const WALK_LENGTH_4: u64 = (4 - 1) << 3;
    const ACCESSED_DIRTY: u64 = 1 << 6;

    /// Tables of write-back memory, walk length 4; `accessed_dirty` needs a CPU that has it
    /// (IA32_VMX_EPT_VPID_CAP bit 21).
    pub const fn new(pml4: Hpa, accessed_dirty: bool) -> Self {
        let ad = if accessed_dirty {
            Self::ACCESSED_DIRTY
        } else {
            0
        };
        Self(pml4.0 & Entry::ADDRESS | MemType::WriteBack as u64 | Self::WALK_LENGTH_4 | ad)
    }

    /// The field's value.
    pub const fn raw(self) -> u64 {
        self.0
    }

    pub const fn pml4(self) -> Hpa {
        Hpa(self.0 & Entry::ADDRESS)
    }
}

const _: () = assert!(ENTRIES as u64 * 8 == PAGE_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_have_the_layout_of_the_tables() {
        let pte = Entry::leaf(Level::Pt, Hpa(0x1234_5000), Prot::RWX, MemType::WriteBack);
        assert_eq!(pte.0, 0x1234_5037);
        let pde = Entry::leaf(
            Level::Pd,
            Hpa(0x4000_0000),
            Prot::READ,
            MemType::Uncacheable,
        );
        assert_eq!(pde.0, 0x4000_0081);
        assert_eq!(Entry::table(Hpa(0x7000)).0, 0x7007);
    }

    #[test]
    fn pieces_cover_the_large_page() {
        let pdpte =
            Entry(Entry::leaf(Level::Pdpt, Hpa(1 << 30), Prot::RW, MemType::WriteBack).0 | 0x300);
        let pde = pdpte.piece(Level::Pd, 511);
        assert_eq!(pde.0, (1 << 30) + 511 * 0x20_0000 + 0x3b3);
        assert!(pde.accessed() && pde.dirty());
        let pte = pde.piece(Level::Pt, 1);
        assert_eq!(pte.0, (1 << 30) + 511 * 0x20_0000 + 0x1000 + 0x333);
    }

    #[test]
    fn eptp_of_25_6_11() {
        assert_eq!(Eptp::new(Hpa(0xabc_d000), false).raw(), 0xabc_d01e);
        assert_eq!(Eptp::new(Hpa(0xabc_d000), true).raw(), 0xabc_d05e);
        assert_eq!(Eptp::new(Hpa(0xabc_d000), true).pml4(), Hpa(0xabc_d000));
    }

    #[test]
    fn reserved_memory_types_are_none() {
        for raw in [2, 3, 7] {
            assert_eq!(MemType::from_raw(raw), None);
        }
        assert_eq!(MemType::from_raw(5), Some(MemType::WriteProtected));
    }
}
