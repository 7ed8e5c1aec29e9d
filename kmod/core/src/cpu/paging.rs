//! Translation of linear addresses as the guest's MMU does it (SDM vol. 3A, chapter 4):
//! 32-bit, PAE, 4-level and 5-level paging, with the access rights of 4.6, reserved bits
//! of 4.4 to 4.5, accessed and dirty flags of 4.8, and the error code of 4.7.

use crate::exit::Access;
use crate::regs::{CpuMode, GuestPaging, PagingMode};
use crate::types::{Gla, Gpa};

/// The guest's physical memory, as the page walk reads it.
pub trait GuestMemory {
    /// Reads 4 or 8 bytes, aligned, at once; `None` where there is no memory.
    fn read_u32(&mut self, gpa: Gpa) -> Option<u32>;
    fn read_u64(&mut self, gpa: Gpa) -> Option<u64>;
    /// Stores `new` if the value is `old`, atomically; whether it did. `None` where there
    /// is no memory to write.
    fn cas_u32(&mut self, gpa: Gpa, old: u32, new: u32) -> Option<bool>;
    fn cas_u64(&mut self, gpa: Gpa, old: u64, new: u64) -> Option<bool>;
}

/// What translation depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PagingRegs {
    pub mode: PagingMode,
    pub cr3: u64,
    /// CR0.WP
    pub wp: bool,
    /// CR4.PSE, for 32-bit paging.
    pub pse: bool,
    pub smep: bool,
    pub smap: bool,
    /// EFER.NXE
    pub nxe: bool,
    /// RFLAGS.AC
    pub ac: bool,
    /// PKRU when CR4.PKE, else `None`.
    pub pkru: Option<u32>,
    /// MAXPHYADDR as CPUID shows it to the guest.
    pub maxphyaddr: u8,
    /// 1 GiB pages (CPUID.80000001H:EDX).
    pub page1gb: bool,
}

/// One access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessBy {
    pub access: Access,
    /// A user-mode access: CPL 3 and not an implicit supervisor access (GDT, TSS, …).
    pub user: bool,
}

/// Why there is no translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkError {
    /// #PF with this error code; CR2 is the linear address.
    PageFault { error_code: u32 },
    /// #GP(0), or #SS(0) for a stack access.
    NonCanonical,
    /// A paging structure is where there is no memory (EFAULT for ioctls).
    NoMemory(Gpa),
}
