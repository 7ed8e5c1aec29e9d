//! Base address registers (PCI Local Bus 3.0, 6.2.5.1): what kind of space a device wants
//! and how much, what its register looks like, and where firmware puts it. bhyve has no
//! firmware, so that it is done at start: the largest ones first, in three windows.

#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;

use super::device::Bdf;

/// Base address registers of a type 0 header.
pub const BARS: usize = 6;

/// Ports for BARs; those below belong to the ISA bus.
pub const IO_WINDOW: Range<u64> = 0x2000..0x1_0000;
/// Memory addresses for BARs, from the end of low memory to the ECAM.
pub const MEMORY32_WINDOW: Range<u64> = 0xc000_0000..0xe000_0000;
/// The window above the guest's memory begins at a multiple of its size.
pub const MEMORY64_SIZE: u64 = 32 << 30;
/// A larger 64-bit BAR goes above the guest's memory, for there is little room below.
const LARGE: u64 = 128 << 20;

const IO_INDICATOR: u32 = 1;
const TYPE_64_BIT: u32 = 2 << 1;
const PREFETCHABLE: u32 = 1 << 3;

/// The address space of a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarKind {
    Io,
    Memory32,
    /// Takes this register and the next one.
    Memory64,
}

/// One BAR that a device wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarSpec {
    /// 0 to 5; a 64-bit one ends at 4.
    pub index: usize,
    pub kind: BarKind,
    /// In bytes. It is rounded up to a power of two that PCI allows.
    pub size: u64,
}

/// Addresses that a BAR decodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarRange {
    Io { first: u16, len: u16 },
    Memory { first: u64, len: u64 },
}

impl BarSpec {
    /// The size that the register can express: a power of two, no less than PCI allows and
    /// no more than the space has. `None`: too large for its kind.
    pub fn rounded(self) -> Option<u64> {
        let (least, most) = match self.kind {
            BarKind::Io => (4, 1 << 8),
            BarKind::Memory32 => (16, 1 << 31),
            BarKind::Memory64 => (16, MEMORY64_SIZE),
        };
        let size = self.size.checked_next_power_of_two()?.max(least);
        (size <= most).then_some(size)
    }

    /// The bits of the register that don't change.
    pub fn type_bits(self) -> u32 {
        match self.kind {
            BarKind::Io => IO_INDICATOR,
            BarKind::Memory32 => 0,
            BarKind::Memory64 if self.size > LARGE => TYPE_64_BIT | PREFETCHABLE,
            BarKind::Memory64 => TYPE_64_BIT,
        }
    }
}

/// No window has room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom {
    pub at: Bdf,
    pub bar: BarSpec,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "there is no room left for BAR {} of the PCI device at {} ({:#x} bytes)",
            self.bar.index, self.at, self.bar.size
        )
    }
}

/// The address spaces of one bus' devices, with some room for the guest to move them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Windows {
    pub io: Range<u64>,
    pub memory32: Range<u64>,
    pub memory64: Range<u64>,
}

/// A BAR with its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlacedBar {
    pub at: Bdf,
    pub bar: BarSpec,
    pub address: u64,
}

/// What is left of the windows.
pub struct Allocator {
    left: Windows,
}

impl Allocator {
    /// For a guest whose memory ends there. Ports below `first_port` are somebody else's.
    pub fn new(memory_end: u64, first_port: u16) -> Self {
        let base = memory_end.next_multiple_of(MEMORY64_SIZE);
        Self {
            left: Windows {
                io: IO_WINDOW.start.max(first_port.into())..IO_WINDOW.end,
                memory32: MEMORY32_WINDOW,
                memory64: base..base.saturating_add(MEMORY64_SIZE),
            },
        }
    }

    /// Places the BARs of one bus. Sizes are rounded ones; the answer is in no
    /// particular order.
    pub fn place(
        &mut self,
        mut wanted: Vec<(Bdf, BarSpec)>,
    ) -> Result<(Windows, Vec<PlacedBar>), NoRoom> {
        let start = self.left.clone();
        // The largest ones first leave no gaps.
        wanted.sort_by_key(|(_, bar)| std::cmp::Reverse(bar.size));
        let mut placed = Vec::with_capacity(wanted.len());
        for (at, bar) in wanted {
            let window = match bar.kind {
                BarKind::Io => &mut self.left.io,
                BarKind::Memory64 if bar.size > LARGE => &mut self.left.memory64,
                BarKind::Memory32 | BarKind::Memory64 => &mut self.left.memory32,
            };
            let address = take(window, bar.size).ok_or(NoRoom { at, bar })?;
            placed.push(PlacedBar { at, bar, address });
        }
        let windows = Windows {
            io: start.io.start..leave_room(&mut self.left.io, 32),
            memory32: start.memory32.start..leave_room(&mut self.left.memory32, 1 << 20),
            memory64: start.memory64.start..leave_room(&mut self.left.memory64, 512 << 20),
        };
        Ok((windows, placed))
    }
}

/// The next multiple of the size.
fn take(window: &mut Range<u64>, size: u64) -> Option<u64> {
    let first = window.start.checked_next_multiple_of(size)?;
    let end = first.checked_add(size).filter(|end| *end <= window.end)?;
    window.start = end;
    Some(first)
}

/// Ends a bus' part of a window, with between one and two units left for the guest.
fn leave_room(window: &mut Range<u64>, unit: u64) -> u64 {
    window.start = (window.start + unit).next_multiple_of(unit).min(window.end);
    window.start
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Bdf = Bdf {
        bus: 0,
        slot: 3,
        function: 0,
    };

    fn bar(index: usize, kind: BarKind, size: u64) -> (Bdf, BarSpec) {
        (AT, BarSpec { index, kind, size })
    }

    #[test]
    fn the_largest_come_first_and_all_are_aligned() {
        let mut allocator = Allocator::new(5 << 30, 0);
        let (windows, mut placed) = allocator
            .place(vec![
                bar(0, BarKind::Io, 32),
                bar(1, BarKind::Memory32, 0x2000),
                bar(2, BarKind::Memory64, 1 << 20),
                bar(4, BarKind::Memory64, 1 << 30),
                bar(5, BarKind::Io, 256),
            ])
            .unwrap();
        placed.sort_by_key(|placed| placed.bar.index);
        let firsts: Vec<u64> = placed.iter().map(|placed| placed.address).collect();
        assert_eq!(firsts, [0x2100, 0xc010_0000, 0xc000_0000, 32 << 30, 0x2000]);
        assert_eq!(windows.io, 0x2000..0x2140);
        assert_eq!(windows.memory32, 0xc000_0000..0xc030_0000);
        assert_eq!(windows.memory64, 32 << 30..(33 << 30) + (512 << 20));
        let (next, _) = allocator.place(Vec::new()).unwrap();
        assert_eq!(next.io, 0x2140..0x2160);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut allocator = Allocator::new(0, 0);
        let wanted = vec![
            bar(2, BarKind::Memory32, 1 << 29),
            bar(3, BarKind::Memory32, 16),
        ];
        let error = allocator.place(wanted).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no room left for BAR 3 of the PCI device at 0:3:0 (0x10 bytes)"
        );
    }

    #[test]
    fn sizes_are_what_registers_can_express() {
        let rounded = |kind, size| bar(0, kind, size).1.rounded();
        assert_eq!(rounded(BarKind::Io, 1), Some(4));
        assert_eq!(rounded(BarKind::Io, 65), Some(128));
        assert_eq!(rounded(BarKind::Io, 257), None);
        assert_eq!(rounded(BarKind::Memory32, 0), Some(16));
        assert_eq!(rounded(BarKind::Memory32, 4097), Some(8192));
        assert_eq!(rounded(BarKind::Memory32, (1 << 31) + 1), None);
        assert_eq!(rounded(BarKind::Memory64, u64::MAX), None);
    }
}
