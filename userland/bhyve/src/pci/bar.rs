//! Base address registers (PCI Local Bus 3.0, 6.2.5.1): what kind of space a device wants,
//! and how much.

#![forbid(unsafe_code)]

/// Base address registers of a type 0 header.
pub const BARS: usize = 6;

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
