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
