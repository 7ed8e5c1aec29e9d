//! The state in which a FreeBSD/amd64 kernel's first instruction runs, as FreeBSD's own
//! loader for bhyve makes it (stand/userboot/userboot/elf64_freebsd.c): long mode, a stack
//! with the addresses of the metadata and of the end of all that is loaded, page tables in
//! which each gigabyte is the first one, and a GDT of three entries.

#![forbid(unsafe_code)]

use vmmapi::setup;

use crate::plan::{Piece, Start};

const STACK: u64 = 0x1000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PAGE_DIRECTORY: u64 = 0x4000;
const GDT: u64 = 0x5000;

/// What the page tables reach: all that the kernel reads before it makes its own has to
/// lie below.
pub const REACH: u64 = 1 << 30;

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;

/// The memory below 1 MiB that it takes.
pub fn pieces(metadata: u64, kernel_end: u64) -> Vec<Piece<'static>> {
    // A return address that can't be used, then the two; 32 bits each.
    let stack = [0, metadata as u32, kernel_end as u32];
    let entries = |entry: &dyn Fn(u64) -> u64| -> Vec<u8> {
        (0..512).flat_map(|n| entry(n).to_le_bytes()).collect()
    };
    [
        (STACK, stack.iter().flat_map(|w| w.to_le_bytes()).collect()),
        (PML4, entries(&|_| PDPT | PRESENT_WRITABLE)),
        (PDPT, entries(&|_| PAGE_DIRECTORY | PRESENT_WRITABLE)),
        (
            PAGE_DIRECTORY,
            entries(&|n| n << 21 | LARGE | PRESENT_WRITABLE),
        ),
        (
            GDT,
            setup::freebsd_gdt()
                .iter()
                .flat_map(|entry| entry.to_le_bytes())
                .collect::<Vec<u8>>(),
        ),
    ]
    .map(|(gpa, data)| Piece {
        gpa,
        len: data.len() as u64,
        data: data.into(),
    })
    .into()
}

/// The vcpu's state; `entry` is the kernel's, a virtual address.
pub fn state(entry: u64) -> Start {
    Start::FreeBsd {
        entry,
        page_tables: PML4,
        gdt: GDT,
        stack: STACK,
    }
}
