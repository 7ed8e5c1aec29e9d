//! The guest's registers by name: the closed list of enum vm_reg_name. An ioctl can
//! name a register only through this list, never a VMCS field (FreeBSD-SA-20:28).

/// Every register that VM_GET_REGISTER and VM_SET_REGISTER know, with its ABI number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Reg {
    Rax = 0,
    Rbx = 1,
    Rcx = 2,
    Rdx = 3,
    Rsi = 4,
    Rdi = 5,
    Rbp = 6,
    R8 = 7,
    R9 = 8,
    R10 = 9,
    R11 = 10,
    R12 = 11,
    R13 = 12,
    R14 = 13,
    R15 = 14,
    Cr0 = 15,
    Cr3 = 16,
    Cr4 = 17,
    Dr7 = 18,
    Rsp = 19,
    Rip = 20,
    Rflags = 21,
    Es = 22,
    Cs = 23,
    Ss = 24,
    Ds = 25,
    Fs = 26,
    Gs = 27,
    Ldtr = 28,
    Tr = 29,
    Idtr = 30,
    Gdtr = 31,
    Efer = 32,
    Cr2 = 33,
    Pdpte0 = 34,
    Pdpte1 = 35,
    Pdpte2 = 36,
    Pdpte3 = 37,
    IntrShadow = 38,
    Dr0 = 39,
    Dr1 = 40,
    Dr2 = 41,
    Dr3 = 42,
    Dr6 = 43,
    EntryInstLength = 44,
    FsBase = 45,
    GsBase = 46,
    KgsBase = 47,
    Tpr = 48,
}

impl Reg {
    /// All of them, in ABI order: the index is the ABI number.
    pub const ALL: [Self; 49] = [
        Self::Rax,
        Self::Rbx,
        Self::Rcx,
        Self::Rdx,
        Self::Rsi,
        Self::Rdi,
        Self::Rbp,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
        Self::Cr0,
        Self::Cr3,
        Self::Cr4,
        Self::Dr7,
        Self::Rsp,
        Self::Rip,
        Self::Rflags,
        Self::Es,
        Self::Cs,
        Self::Ss,
        Self::Ds,
        Self::Fs,
        Self::Gs,
        Self::Ldtr,
        Self::Tr,
        Self::Idtr,
        Self::Gdtr,
        Self::Efer,
        Self::Cr2,
        Self::Pdpte0,
        Self::Pdpte1,
        Self::Pdpte2,
        Self::Pdpte3,
        Self::IntrShadow,
        Self::Dr0,
        Self::Dr1,
        Self::Dr2,
        Self::Dr3,
        Self::Dr6,
        Self::EntryInstLength,
        Self::FsBase,
        Self::GsBase,
        Self::KgsBase,
        Self::Tpr,
    ];

    /// The general registers, by the number that instructions and VM exits use.
    pub const GENERAL: [Self; 16] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rsp,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];

    /// The general register with that number, in its low four bits.
    pub const fn general(number: u8) -> Self {
        Self::GENERAL[(number & 15) as usize]
    }

    /// The register with that ABI number.
    pub fn from_raw(raw: i32) -> Option<Self> {
        Self::ALL.get(usize::try_from(raw).ok()?).copied()
    }

    /// The segment or table register among them, if it is one.
    pub const fn segment(self) -> Option<SegReg> {
        Some(match self {
            Self::Es => SegReg::Es,
            Self::Cs => SegReg::Cs,
            Self::Ss => SegReg::Ss,
            Self::Ds => SegReg::Ds,
            Self::Fs => SegReg::Fs,
            Self::Gs => SegReg::Gs,
            Self::Ldtr => SegReg::Ldtr,
            Self::Tr => SegReg::Tr,
            Self::Idtr => SegReg::Idtr,
            Self::Gdtr => SegReg::Gdtr,
            _ => return None,
        })
    }
}

/// A register with a hidden descriptor. GDTR and IDTR have a base and a limit only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum SegReg {
    Es = 22,
    Cs = 23,
    Ss = 24,
    Ds = 25,
    Fs = 26,
    Gs = 27,
    Ldtr = 28,
    Tr = 29,
    Idtr = 30,
    Gdtr = 31,
}

/// The hidden part of a segment register (struct seg_desc). `access` has the layout of
/// the VMCS access-rights field (SDM table 25-2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegDesc {
    pub base: u64,
    pub limit: u32,
    pub access: u32,
}

/// What address translation depends on (struct vm_guest_paging).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestPaging {
    pub cr3: u64,
    pub cpl: u8,
    pub cpu_mode: CpuMode,
    pub paging_mode: PagingMode,
}

/// enum vm_cpu_mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum CpuMode {
    Real = 0,
    Protected = 1,
    Compatibility = 2,
    Long64 = 3,
}

/// enum vm_paging_mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum PagingMode {
    Flat = 0,
    Bits32 = 1,
    Pae = 2,
    Level4 = 3,
    Level5 = 4,
}

/// The registers that select the CPU's mode and its paging.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ModeRegs {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub rflags: u64,
    /// Access rights of CS and SS (SDM table 25-2).
    pub cs_access: u32,
    pub ss_access: u32,
}

const CR0_PE: u64 = 1 << 0;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_VM: u64 = 1 << 17;
const ACCESS_LONG: u32 = 1 << 13;

impl GuestPaging {
    /// What a vcpu with these registers does (SDM vol. 3A, 2.2 and 4.1.1). The CPL is
    /// SS.DPL (vol. 3C, 25.4.1), but 0 in real mode and 3 in virtual-8086 mode.
    pub const fn new(regs: &ModeRegs) -> Self {
        let protected = regs.cr0 & CR0_PE != 0;
        let long = regs.efer & EFER_LMA != 0;
        let cpu_mode = match (protected, long, regs.cs_access & ACCESS_LONG != 0) {
            (false, ..) => CpuMode::Real,
            (true, false, _) => CpuMode::Protected,
            (true, true, false) => CpuMode::Compatibility,
            (true, true, true) => CpuMode::Long64,
        };
        let paging_mode = if regs.cr0 & CR0_PG == 0 {
            PagingMode::Flat
        } else if regs.cr4 & CR4_PAE == 0 {
            PagingMode::Bits32
        } else if !long {
            PagingMode::Pae
        } else if regs.cr4 & CR4_LA57 != 0 {
            PagingMode::Level5
        } else {
            PagingMode::Level4
        };
        let cpl = if !protected {
            0
        } else if regs.rflags & RFLAGS_VM != 0 {
            3
        } else {
            (regs.ss_access >> 5 & 3) as u8
        };
        Self {
            cr3: regs.cr3,
            cpl,
            cpu_mode,
            paging_mode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abi_numbers_are_positions() {
        for (i, reg) in Reg::ALL.into_iter().enumerate() {
            assert_eq!(reg as usize, i);
            assert_eq!(Reg::from_raw(i as i32), Some(reg));
        }
        assert_eq!(Reg::from_raw(49), None);
        assert_eq!(Reg::from_raw(-1), None);
        assert_eq!(Reg::from_raw(i32::MIN), None);
    }

    #[test]
    fn modes_by_registers() {
        let mode = |cr0, cr4, efer, cs_access, ss_access, rflags| {
            let regs = ModeRegs {
                cr0,
                cr3: 0x1000,
                cr4,
                efer,
                rflags,
                cs_access,
                ss_access,
            };
            let p = GuestPaging::new(&regs);
            (p.cpu_mode, p.paging_mode, p.cpl)
        };
        // SS.DPL means nothing in real mode.
        assert_eq!(
            mode(0x10, 0, 0, 0x9b, 0xf3, 2),
            (CpuMode::Real, PagingMode::Flat, 0)
        );
        assert_eq!(
            mode(0x11, 0, 0, 0xc09b, 0xc093, 2),
            (CpuMode::Protected, PagingMode::Flat, 0)
        );
        assert_eq!(
            mode(0x8000_0011, 0x10, 0, 0xc0fb, 0xc0f3, 2),
            (CpuMode::Protected, PagingMode::Bits32, 3)
        );
        assert_eq!(
            mode(0x8000_0011, 0x20, 0, 0xc09b, 0xc093, 2),
            (CpuMode::Protected, PagingMode::Pae, 0)
        );
        assert_eq!(
            mode(0x8000_0011, 0x20, 0x500, 0xa09b, 0xc093, 2),
            (CpuMode::Long64, PagingMode::Level4, 0)
        );
        assert_eq!(
            mode(0x8000_0011, 0x20, 0x500, 0xc0fb, 0xc0f3, 2),
            (CpuMode::Compatibility, PagingMode::Level4, 3)
        );
        assert_eq!(
            mode(0x8000_0011, 0x1020, 0x500, 0xa09b, 0xc093, 2),
            (CpuMode::Long64, PagingMode::Level5, 0)
        );
        assert_eq!(
            mode(0x11, 0, 0, 0xf3, 0xf3, 0x2_0002),
            (CpuMode::Protected, PagingMode::Flat, 3)
        );
    }
}
