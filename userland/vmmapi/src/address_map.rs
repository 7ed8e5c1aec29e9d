//! The guest-physical address map of bhyve's PC, as far as several programs must agree on
//! it: where memory is ([`crate::memory`]), what of it an operating system may use (the map
//! that BIOS call INT 15h, E820h gives, ACPI 6.5, 15.1), and the places of what bhyve
//! leaves for it. bhyveload tells a kernel of them before bhyve has filled them.

use crate::Gpa;
use crate::memory::{HIGHMEM_BASE, LOWMEM_LIMIT};

/// The end of conventional memory; video memory follows.
pub const CONVENTIONAL_END: u64 = 0xa_0000;
/// The BIOS area, in which bhyve's tables are.
pub const BIOS_BASE: u64 = 0xf_0000;
/// The end of the BIOS area, where extended memory begins.
pub const EXTENDED_BASE: u64 = 0x10_0000;

/// The floating pointer of the MP table.
pub const MPTABLE_BASE: Gpa = Gpa(0xf_0000);
/// The entry point of SMBIOS.
pub const SMBIOS_BASE: Gpa = Gpa(0xf_1000);
/// The root pointer of the ACPI tables (RSDP).
pub const RSDP_BASE: Gpa = Gpa(0xf_2400);

/// Where PCI devices below 4 GiB have their memory.
pub const PCI_HOLE_BASE: u64 = LOWMEM_LIMIT;
pub const PCI_HOLE_END: u64 = PCI_ECAM_BASE;
/// PCI Express' enhanced configuration access: 1 MiB for each of 256 buses.
pub const PCI_ECAM_BASE: u64 = 0xe000_0000;
pub const PCI_ECAM_LEN: u64 = 256 << 20;

/// What a range of the map is (ACPI 6.5, table 15.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum E820Type {
    Memory = 1,
    Reserved = 2,
}

/// A range of the map. What no range names is a hole: device memory, or nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct E820Entry {
    pub base: u64,
    pub len: u64,
    pub kind: E820Type,
}

/// The map of a guest with this much memory below 3 GiB and from 4 GiB on; in ascending
/// order, without overlap.
pub fn e820(lowmem: u64, highmem: u64) -> Vec<E820Entry> {
    use E820Type::{Memory, Reserved};
    let ranges = [
        (0, lowmem.min(CONVENTIONAL_END), Memory),
        (BIOS_BASE, EXTENDED_BASE, Reserved),
        (EXTENDED_BASE, lowmem.min(LOWMEM_LIMIT), Memory),
        (PCI_ECAM_BASE, PCI_ECAM_BASE + PCI_ECAM_LEN, Reserved),
        (HIGHMEM_BASE, HIGHMEM_BASE.saturating_add(highmem), Memory),
    ];
    let entry = |(base, end, kind): (u64, u64, E820Type)| {
        let len = end.checked_sub(base).filter(|len| *len > 0)?;
        Some(E820Entry { base, len, kind })
    };
    ranges.into_iter().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(lowmem: u64, highmem: u64) -> Vec<(u64, u64)> {
        let map = e820(lowmem, highmem);
        assert!(map.windows(2).all(|w| w[0].base + w[0].len <= w[1].base));
        let reserved = |at| {
            let mut entries = map.iter().filter(|e| e.kind == E820Type::Reserved);
            entries.any(|e| (e.base..e.base + e.len).contains(&at))
        };
        for table in [MPTABLE_BASE, SMBIOS_BASE, RSDP_BASE] {
            assert!(reserved(table.0));
        }
        assert!(reserved(PCI_ECAM_BASE) && reserved(0xefff_ffff));
        let free = map.iter().filter(|e| e.kind == E820Type::Memory);
        free.map(|e| (e.base, e.len)).collect()
    }

    #[test]
    fn all_memory_but_the_legacy_area_is_free() {
        const MB: u64 = 1 << 20;
        assert_eq!(
            memory(128 * MB, 0),
            [(0, 0xa_0000), (MB, 127 * MB)],
            "memory below 3 GiB only"
        );
        assert_eq!(
            memory(3072 * MB, 2048 * MB),
            [(0, 0xa_0000), (MB, 3071 * MB), (0x1_0000_0000, 2048 * MB)]
        );
        assert_eq!(memory(0x8_0000, 0), [(0, 0x8_0000)]);
    }
}
