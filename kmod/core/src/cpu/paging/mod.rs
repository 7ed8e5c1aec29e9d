//! Translation of linear addresses as the guest's MMU does it (SDM vol. 3A, chapter 4):
//! 32-bit, PAE, 4-level and 5-level paging, with the access rights of 4.6, reserved bits
//! of 4.3 to 4.5, accessed and dirty flags of 4.8, and the error code of 4.7.

mod rights;

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
    pub cpu_mode: CpuMode,
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
    /// A user-mode access: CPL is 3, and it is not implicit.
    pub user: bool,
    /// An access to a system structure (GDT, IDT, TSS), which is a supervisor's at any
    /// CPL, and which RFLAGS.AC does not excuse from SMAP.
    pub implicit: bool,
}

/// Whether a walk leaves its marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flags {
    /// Accessed and dirty flags are set as the CPU would.
    Update,
    /// Nothing is written (VM_GLA2GPA_NOFAULT).
    Leave,
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

/// Bits of CR0, CR4, EFER and RFLAGS that [`PagingRegs::new`] looks at.
const CR0_WP: u64 = 1 << 16;
const CR4_PSE: u64 = 1 << 4;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const CR4_PKE: u64 = 1 << 22;
const EFER_NXE: u64 = 1 << 11;
const RFLAGS_AC: u64 = 1 << 18;

/// The vcpu's registers for [`PagingRegs::new`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ControlRegs {
    pub cr0: u64,
    pub cr4: u64,
    pub efer: u64,
    pub rflags: u64,
    pub pkru: u32,
}

impl PagingRegs {
    /// `paging` says the mode and CR3 (the ABI lets userland ask about another CR3 than
    /// the vcpu's); the vcpu's registers and what CPUID shows it say the rest.
    pub fn new(paging: &GuestPaging, regs: &ControlRegs, maxphyaddr: u8, page1gb: bool) -> Self {
        Self {
            cpu_mode: paging.cpu_mode,
            mode: paging.paging_mode,
            cr3: paging.cr3,
            wp: regs.cr0 & CR0_WP != 0,
            pse: regs.cr4 & CR4_PSE != 0,
            smep: regs.cr4 & CR4_SMEP != 0,
            smap: regs.cr4 & CR4_SMAP != 0,
            nxe: regs.efer & EFER_NXE != 0,
            ac: regs.rflags & RFLAGS_AC != 0,
            pkru: (regs.cr4 & CR4_PKE != 0).then_some(regs.pkru),
            // The formats have room for 52 bits.
            maxphyaddr: maxphyaddr.clamp(32, 52),
            page1gb,
        }
    }

    /// For a debugger, who reads user pages while the guest is in its kernel.
    #[must_use]
    pub const fn without_smap(self) -> Self {
        Self {
            smap: false,
            smep: false,
            ..self
        }
    }
}

impl AccessBy {
    /// An instruction's own access at a privilege level.
    pub const fn at_cpl(access: Access, cpl: u8) -> Self {
        Self {
            access,
            user: cpl == 3,
            implicit: false,
        }
    }

    /// The CPU's access to a system structure.
    pub const fn implicit(access: Access) -> Self {
        Self {
            access,
            user: false,
            implicit: true,
        }
    }
}

/// Whether the bits of `address` above its lowest `bits` equal the highest of those (SDM
/// vol. 1, 3.3.7.1).
pub const fn is_canonical(address: u64, bits: u32) -> bool {
    let unused = 64 - bits;
    ((address << unused) as i64 >> unused) as u64 == address
}

/// One paging structure that maps the next one or the page.
#[derive(Clone, Copy)]
struct Entry {
    at: Gpa,
    value: u64,
    /// 4 or 8.
    bytes: u8,
    /// It has an accessed flag: PAE's PDPTEs have none.
    has_accessed: bool,
}

/// What a walk has found.
struct Path {
    /// From the root down; the last maps the page.
    entries: [Option<Entry>; 5],
    depth: usize,
    /// All entries so far have U/S, or R/W, or none has XD.
    user: bool,
    writable: bool,
    executable: bool,
}

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE_BIT: u64 = 1 << 7;
const XD: u64 = 1 << 63;
/// Bits 51:12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Translates `gla`.
pub fn translate(
    mem: &mut impl GuestMemory,
    regs: &PagingRegs,
    gla: Gla,
    by: AccessBy,
    flags: Flags,
) -> Result<Gpa, WalkError> {
    let la = linear_address(regs, gla)?;
    loop {
        let (path, gpa) = match regs.mode {
            // Without paging linear addresses are physical ones.
            PagingMode::Flat => return Ok(Gpa(la)),
            PagingMode::Bits32 => walk_32(mem, regs, la as u32, by)?,
            PagingMode::Pae => walk_pae(mem, regs, la as u32, by)?,
            PagingMode::Level4 => walk_long(mem, regs, la, by, 4)?,
            PagingMode::Level5 => walk_long(mem, regs, la, by, 5)?,
        };
        rights::check(regs, by, &path)?;
        // An entry changed meanwhile: what was checked may hold no more.
        if flags == Flags::Leave || path.set_flags(mem, by)? {
            return Ok(gpa);
        }
    }
}

/// The linear address as this mode has it: 64 bits and canonical, or 32 bits.
fn linear_address(regs: &PagingRegs, gla: Gla) -> Result<u64, WalkError> {
    if regs.cpu_mode != CpuMode::Long64 {
        return Ok(gla.0 & 0xffff_ffff);
    }
    let bits = if regs.mode == PagingMode::Level5 {
        57
    } else {
        48
    };
    if is_canonical(gla.0, bits) {
        Ok(gla.0)
    } else {
        Err(WalkError::NonCanonical)
    }
}

/// 4.3: two levels of 1024 entries of 4 bytes; with CR4.PSE 4 MiB pages, whose address may
/// have 40 bits.
fn walk_32(
    mem: &mut impl GuestMemory,
    regs: &PagingRegs,
    la: u32,
    by: AccessBy,
) -> Result<(Path, Gpa), WalkError> {
    let mut path = Path::new();
    let pde = path.follow_32(
        mem,
        regs,
        by,
        (regs.cr3 & 0xffff_f000) + u64::from(la >> 22) * 4,
    )?;
    if pde & PAGE_SIZE_BIT != 0 && regs.pse {
        // Bits 20:13 are address bits 39:32, as far as MAXPHYADDR goes; 21 is reserved.
        let high = pde >> 13 & 0xff;
        let wide = u32::from(regs.maxphyaddr.min(40)) - 32;
        if pde & 1 << 21 != 0 || high >> wide != 0 {
            return Err(rights::reserved(regs, by));
        }
        return Ok((
            path,
            Gpa(high << 32 | pde & 0xffc0_0000 | u64::from(la & 0x3f_ffff)),
        ));
    }
    let index = u64::from(la >> 12 & 0x3ff);
    let pte = path.follow_32(mem, regs, by, (pde & 0xffff_f000) + index * 4)?;
    Ok((path, Gpa(pte & 0xffff_f000 | u64::from(la & 0xfff))))
}

/// 4.4: four PDPTEs without rights of their own, then two levels of 512 entries.
/// (The CPU keeps the PDPTEs of the last MOV to CR3; this reads them from memory, where a
/// guest that changed one without reloading CR3 has another.)
fn walk_pae(
    mem: &mut impl GuestMemory,
    regs: &PagingRegs,
    la: u32,
    by: AccessBy,
) -> Result<(Path, Gpa), WalkError> {
    let mut path = Path::new();
    let at = Gpa((regs.cr3 & 0xffff_ffe0) + u64::from(la >> 30) * 8);
    let pdpte = mem.read_u64(at).ok_or(WalkError::NoMemory(at))?;
    if pdpte & PRESENT == 0 {
        return Err(rights::not_present(regs, by));
    }
    // Bits 2:1, 8:5 and all above the address.
    if pdpte & (0x1e6 | !ADDRESS & !0xfff | above_maxphyaddr(regs)) != 0 {
        return Err(rights::reserved(regs, by));
    }
    path.push(Entry {
        at,
        value: pdpte,
        bytes: 8,
        has_accessed: false,
    });
    path.levels(mem, regs, by, pdpte, u64::from(la), 2)
}

/// 4.5: levels of 512 entries; pages of 4 KiB, 2 MiB and 1 GiB.
fn walk_long(
    mem: &mut impl GuestMemory,
    regs: &PagingRegs,
    la: u64,
    by: AccessBy,
    levels: u32,
) -> Result<(Path, Gpa), WalkError> {
    Path::new().levels(mem, regs, by, regs.cr3, la, levels)
}

/// Bits 51:MAXPHYADDR.
fn above_maxphyaddr(regs: &PagingRegs) -> u64 {
    ADDRESS & !((1 << regs.maxphyaddr) - 1)
}

impl Path {
    fn new() -> Self {
        Self {
            entries: [None; 5],
            depth: 0,
            user: true,
            writable: true,
            executable: true,
        }
    }

    fn push(&mut self, entry: Entry) {
        self.entries[self.depth] = Some(entry);
        self.depth += 1;
    }

    /// Adds an entry that has rights.
    fn follow(&mut self, entry: Entry) {
        self.user &= entry.value & USER != 0;
        self.writable &= entry.value & WRITABLE != 0;
        self.executable &= entry.value & XD == 0;
        self.push(entry);
    }

    fn follow_32(
        &mut self,
        mem: &mut impl GuestMemory,
        regs: &PagingRegs,
        by: AccessBy,
        at: u64,
    ) -> Result<u64, WalkError> {
        let at = Gpa(at);
        let value = u64::from(mem.read_u32(at).ok_or(WalkError::NoMemory(at))?);
        if value & PRESENT == 0 {
            return Err(rights::not_present(regs, by));
        }
        self.follow(Entry {
            at,
            value,
            bytes: 4,
            has_accessed: true,
        });
        Ok(value)
    }

    /// Walks `levels` levels of 8-byte entries from the table at `root`.
    fn levels(
        mut self,
        mem: &mut impl GuestMemory,
        regs: &PagingRegs,
        by: AccessBy,
        root: u64,
        la: u64,
        levels: u32,
    ) -> Result<(Self, Gpa), WalkError> {
        let pae = regs.mode == PagingMode::Pae;
        let mut reserved = above_maxphyaddr(regs);
        if !regs.nxe {
            reserved |= XD;
        }
        if pae {
            // Bits 62:52, which 4-level paging ignores.
            reserved |= 0x7ff << 52;
        }
        let mut table = root & ADDRESS & !above_maxphyaddr(regs);
        let mut level = levels;
        loop {
            level -= 1;
            let shift = 12 + 9 * level;
            let at = Gpa(table + (la >> shift & 0x1ff) * 8);
            let value = mem.read_u64(at).ok_or(WalkError::NoMemory(at))?;
            if value & PRESENT == 0 {
                return Err(rights::not_present(regs, by));
            }
            // Bit 7 is PAT in a PTE; above, a page if this level can have one.
            let is_page = level == 0 || value & PAGE_SIZE_BIT != 0;
            let page_mask = (1 << shift) - 1;
            let misplaced = match level {
                0 => 0,
                // A page's address has no bits within the page, but for PAT in bit 12.
                1 | 2 if is_page && (level == 1 || regs.page1gb) => {
                    page_mask & ADDRESS & !(1 << 12)
                }
                1 => 0,
                _ => PAGE_SIZE_BIT,
            };
            if value & (reserved | misplaced) != 0 {
                return Err(rights::reserved(regs, by));
            }
            self.follow(Entry {
                at,
                value,
                bytes: 8,
                has_accessed: true,
            });
            if is_page {
                let frame = value & ADDRESS & !page_mask;
                return Ok((self, Gpa(frame | la & page_mask)));
            }
            table = value & ADDRESS;
        }
    }

    /// Sets accessed flags, and dirty in the entry that maps the page. False when another
    /// CPU changed an entry meanwhile.
    fn set_flags(&self, mem: &mut impl GuestMemory, by: AccessBy) -> Result<bool, WalkError> {
        for (i, entry) in self.entries[..self.depth].iter().flatten().enumerate() {
            let mut value = entry.value;
            if entry.has_accessed {
                value |= ACCESSED;
            }
            if i + 1 == self.depth && by.access == Access::Write {
                value |= DIRTY;
            }
            if value == entry.value {
                continue;
            }
            let done = if entry.bytes == 4 {
                mem.cas_u32(entry.at, entry.value as u32, value as u32)
            } else {
                mem.cas_u64(entry.at, entry.value, value)
            };
            if !done.ok_or(WalkError::NoMemory(entry.at))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
