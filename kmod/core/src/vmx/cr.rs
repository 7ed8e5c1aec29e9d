//! The guest's CR0 and CR4 (SDM vol. 3C, 25.6.6 and 26.3; the rules of the registers
//! themselves: vol. 3A, 2.5, 4.1 and 10.8.5, and MOV CR in vol. 2).
//!
//! For each register there are three values: what the guest sees, what the CPU runs with
//! (the VMCS's guest CR0), and the read shadow. The guest/host mask says which bits the
//! host owns: these the guest reads from the shadow, and writing one exits. [`CrPolicy`]
//! splits a value that the guest sees into the other two; [`write_cr0`] and [`write_cr4`]
//! decide what a write by the guest does, as the CPU would.

use bitflags::bitflags;

use super::caps::VmxCaps;
use super::segment::AccessRights;

bitflags! {
    /// CR0 (SDM vol. 3A, 2.5).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Cr0: u64 {
        const PE = 1 << 0;
        const MP = 1 << 1;
        const EM = 1 << 2;
        const TS = 1 << 3;
        const ET = 1 << 4;
        const NE = 1 << 5;
        const WP = 1 << 16;
        const AM = 1 << 18;
        const NW = 1 << 29;
        const CD = 1 << 30;
        const PG = 1 << 31;
        const _ = !0;
    }

    /// CR4 (SDM vol. 3A, 2.5).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Cr4: u64 {
        const VME = 1 << 0;
        const PVI = 1 << 1;
        const TSD = 1 << 2;
        const DE = 1 << 3;
        const PSE = 1 << 4;
        const PAE = 1 << 5;
        const MCE = 1 << 6;
        const PGE = 1 << 7;
        const PCE = 1 << 8;
        const OSFXSR = 1 << 9;
        const OSXMMEXCPT = 1 << 10;
        const UMIP = 1 << 11;
        const LA57 = 1 << 12;
        const VMXE = 1 << 13;
        const SMXE = 1 << 14;
        const FSGSBASE = 1 << 16;
        const PCIDE = 1 << 17;
        const OSXSAVE = 1 << 18;
        const KL = 1 << 19;
        const SMEP = 1 << 20;
        const SMAP = 1 << 21;
        const PKE = 1 << 22;
        const CET = 1 << 23;
        const PKS = 1 << 24;
        const UINTR = 1 << 25;
        const LASS = 1 << 27;
        const LAM_SUP = 1 << 28;
        const FRED = 1 << 32;
        const _ = !0;
    }

    /// IA32_EFER (SDM vol. 3A, 2.2.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Efer: u64 {
        const SCE = 1 << 0;
        const LME = 1 << 8;
        const LMA = 1 << 10;
        const NXE = 1 << 11;
        const _ = !0;
    }
}

/// CR0 bits whose writes need no exit: the CPU does with them in VMX non-root operation what
/// the guest expects, entering and leaving long mode included (with unrestricted guest a VM
/// exit keeps the "IA-32e mode guest" control right, 28.2).
const CR0_GUEST_OWNED: Cr0 = Cr0::PE
    .union(Cr0::MP)
    .union(Cr0::EM)
    .union(Cr0::TS)
    .union(Cr0::ET)
    .union(Cr0::WP)
    .union(Cr0::AM)
    .union(Cr0::PG);

/// Caching is the EPT's and the host's matter: a guest that sets CD would slow down the
/// host's CPU, and VM entry and exit don't switch these two (27.3.2.1).
pub const CR0_NEVER_REAL: Cr0 = Cr0::CD.union(Cr0::NW);

/// CR4 bits that a guest may have, if the CPU has them and its CPUID says so. Not LA57:
/// guests have 4-level paging. Not VMXE, SMXE, CET, PKS, UINTR, FRED, KL: their state is
/// not switched.
pub const CR4_SUPPORTED: Cr4 = Cr4::VME
    .union(Cr4::PVI)
    .union(Cr4::TSD)
    .union(Cr4::DE)
    .union(Cr4::PSE)
    .union(Cr4::PAE)
    .union(Cr4::MCE)
    .union(Cr4::PGE)
    .union(Cr4::PCE)
    .union(Cr4::OSFXSR)
    .union(Cr4::OSXMMEXCPT)
    .union(Cr4::UMIP)
    .union(Cr4::FSGSBASE)
    .union(Cr4::PCIDE)
    .union(Cr4::OSXSAVE)
    .union(Cr4::SMEP)
    .union(Cr4::SMAP);

/// How a guest's CR0 and CR4 are made real on this CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrPolicy {
    cr0_ones: Cr0,
    cr0_allowed: Cr0,
    cr4_ones: Cr4,
    cr4_offered: Cr4,
}

/// One register as three VMCS fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrFields {
    /// Guest CR0 or CR4.
    pub real: u64,
    /// CR0 or CR4 read shadow: what the guest sees of the bits the host owns.
    pub shadow: u64,
    /// CR0 or CR4 guest/host mask: a 1 is a bit that the host owns.
    pub mask: u64,
}

impl CrFields {
    /// What the guest sees (and what VM_GET_REGISTER answers).
    pub const fn guest_view(self) -> u64 {
        self.real & !self.mask | self.shadow & self.mask
    }
}

impl CrPolicy {
    /// `cr4_offered`: the CR4 bits that the guest's CPUID has; what [`CR4_SUPPORTED`] or the
    /// CPU lacks is taken away from them. Setting another one is a #GP.
    pub fn new(caps: &VmxCaps, cr4_offered: Cr4) -> Self {
        let m = &caps.msrs;
        // An unrestricted guest may run without protection and paging (27.3.1.1).
        let cr0_ones = Cr0::from_bits_retain(m.cr0_fixed0) - (Cr0::PE | Cr0::PG);
        let cr4_fixed0 = Cr4::from_bits_retain(m.cr4_fixed0);
        let cr4_allowed = Cr4::from_bits_retain(m.cr4_fixed1);
        // A machine check with CR4.MCE clear shuts the CPU down, so a guest runs with MCE
        // if the host does.
        let mce = Cr4::from_bits_retain(m.cr4) & Cr4::MCE;
        Self {
            cr0_ones: cr0_ones | Cr0::ET,
            cr0_allowed: Cr0::from_bits_retain(m.cr0_fixed1) - CR0_NEVER_REAL,
            cr4_ones: cr4_fixed0 | mce,
            cr4_offered: cr4_offered & CR4_SUPPORTED & cr4_allowed,
        }
    }

    /// CR0 with the value that the guest is to see.
    pub fn cr0(&self, guest: u64) -> CrFields {
        let guest = Cr0::from_bits_retain(guest);
        let owned = CR0_GUEST_OWNED & self.cr0_allowed;
        let owned = owned - (self.cr0_ones - Cr0::ET);
        CrFields {
            real: (guest & self.cr0_allowed | self.cr0_ones).bits(),
            shadow: guest.bits(),
            mask: (!owned).bits(),
        }
    }

    /// CR4 with the value that the guest is to see.
    pub fn cr4(&self, guest: u64) -> CrFields {
        let guest = Cr4::from_bits_retain(guest);
        let owned = self.cr4_offered - self.cr4_ones;
        CrFields {
            real: (guest & self.cr4_offered | self.cr4_ones).bits(),
            shadow: guest.bits(),
            mask: (!owned).bits(),
        }
    }

    /// The CR4 bits that the guest may set.
    pub const fn cr4_offered(&self) -> Cr4 {
        self.cr4_offered
    }
}

/// What a write to CR0 or CR4 depends on, as the guest sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrState {
    pub cr0: Cr0,
    pub cr3: u64,
    pub cr4: Cr4,
    pub efer: Efer,
    pub cs: AccessRights,
    pub tr: AccessRights,
}

/// What a write does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrWrite {
    Done(CrUpdate),
    /// #GP(0), nothing changed.
    GeneralProtection,
}

/// The VMCS after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrUpdate {
    pub fields: CrFields,
    /// With LMA set or cleared.
    pub efer: Efer,
    /// The "IA-32e mode guest" VM-entry control, which must be EFER.LMA (27.3.1.1).
    pub ia32e_mode_guest: bool,
    /// The write loads the PDPTEs from memory at CR3 (SDM vol. 3A, 4.4.1). If one of them
    /// has a reserved bit set, the write is a #GP(0) instead.
    pub load_pdptes: bool,
    /// The write drops the guest's TLB entries, global ones too (SDM vol. 3A, 4.10.4.1):
    /// INVVPID where there is a VPID.
    pub flush_tlb: bool,
}

impl CrState {
    fn pae_paging(self) -> bool {
        self.cr0.contains(Cr0::PG) && self.cr4.contains(Cr4::PAE) && !self.efer.contains(Efer::LMA)
    }

    fn in_64bit_mode(self) -> bool {
        self.efer.contains(Efer::LMA) && self.cs.long()
    }
}

/// MOV to CR0 by the guest.
pub fn write_cr0(policy: &CrPolicy, state: CrState, value: u64) -> CrWrite {
    // Reserved bits of the low half are ignored, those of the high half are not.
    if value >> 32 != 0 {
        return CrWrite::GeneralProtection;
    }
    let defined = CR0_GUEST_OWNED | Cr0::NE | Cr0::CD | Cr0::NW;
    let new = Cr0::from_bits_retain(value) & defined | Cr0::ET;
    let old = state.cr0;
    let pg_on = new.contains(Cr0::PG) && !old.contains(Cr0::PG);
    let pg_off = !new.contains(Cr0::PG) && old.contains(Cr0::PG);
    let long_on = pg_on && state.efer.contains(Efer::LME);
    // Types 1 and 3: a 16-bit TSS.
    let tss_16bit = matches!(state.tr.segment_type(), 1 | 3);

    let fault = new.contains(Cr0::PG) && !new.contains(Cr0::PE)
        || new.contains(Cr0::NW) && !new.contains(Cr0::CD)
        || long_on && (!state.cr4.contains(Cr4::PAE) || state.cs.long() || tss_16bit)
        || pg_off && (state.in_64bit_mode() || state.cr4.contains(Cr4::PCIDE))
        || !new.contains(Cr0::WP) && state.cr4.contains(Cr4::CET);
    if fault {
        return CrWrite::GeneralProtection;
    }
    let mut efer = state.efer;
    if long_on {
        efer |= Efer::LMA;
    } else if pg_off {
        efer -= Efer::LMA;
    }
    let after = CrState {
        cr0: new,
        efer,
        ..state
    };
    let changed = old ^ new;
    CrWrite::Done(CrUpdate {
        fields: policy.cr0(new.bits()),
        efer,
        ia32e_mode_guest: efer.contains(Efer::LMA),
        load_pdptes: after.pae_paging() && changed.intersects(Cr0::CD | Cr0::NW | Cr0::PG),
        flush_tlb: changed.intersects(Cr0::PG),
    })
}

/// LMSW: the low four bits, but PE can't be cleared.
pub fn write_lmsw(policy: &CrPolicy, state: CrState, source: u16) -> CrWrite {
    let low = Cr0::PE | Cr0::MP | Cr0::EM | Cr0::TS;
    let source = Cr0::from_bits_retain(u64::from(source)) & low;
    let new = (state.cr0 - (low - Cr0::PE)) | source;
    write_cr0(policy, state, new.bits())
}

/// CLTS.
pub fn clts(policy: &CrPolicy, state: CrState) -> CrWrite {
    write_cr0(policy, state, (state.cr0 - Cr0::TS).bits())
}

/// MOV to CR4 by the guest.
pub fn write_cr4(policy: &CrPolicy, state: CrState, value: u64) -> CrWrite {
    let new = Cr4::from_bits_retain(value);
    let old = state.cr4;
    let changed = old ^ new;
    let long_mode = state.efer.contains(Efer::LMA);
    let pcid_on = changed.contains(Cr4::PCIDE) && new.contains(Cr4::PCIDE);

    let fault = !policy.cr4_offered.contains(new)
        || long_mode && (!new.contains(Cr4::PAE) || changed.contains(Cr4::LA57))
        || pcid_on && (!long_mode || state.cr3 & 0xfff != 0)
        || new.contains(Cr4::CET) && !state.cr0.contains(Cr0::WP);
    if fault {
        return CrWrite::GeneralProtection;
    }
    let after = CrState { cr4: new, ..state };
    let paging = Cr4::PAE | Cr4::PGE | Cr4::PSE | Cr4::SMEP;
    CrWrite::Done(CrUpdate {
        fields: policy.cr4(new.bits()),
        efer: state.efer,
        ia32e_mode_guest: long_mode,
        load_pdptes: after.pae_paging() && changed.intersects(paging),
        flush_tlb: changed.intersects(paging | Cr4::PCIDE | Cr4::SMAP),
    })
}

/// What MOV to CR3 does (on a CPU where it exits).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cr3Write {
    Done {
        cr3: u64,
        /// As [`CrUpdate::load_pdptes`].
        load_pdptes: bool,
        /// False only with bit 63 set under CR4.PCIDE.
        flush_tlb: bool,
    },
    GeneralProtection,
}

/// MOV to CR3 by the guest. `max_phys_addr_width` is that of the guest's CPUID.
pub fn write_cr3(state: CrState, value: u64, max_phys_addr_width: u8) -> Cr3Write {
    let no_flush = 1 << 63;
    let pcide = state.cr4.contains(Cr4::PCIDE);
    let cr3 = if pcide { value & !no_flush } else { value };
    if cr3 >> max_phys_addr_width.min(52) != 0 {
        return Cr3Write::GeneralProtection;
    }
    Cr3Write::Done {
        cr3,
        load_pdptes: state.pae_paging(),
        flush_tlb: !(pcide && value & no_flush != 0),
    }
}

#[cfg(test)]
#[path = "cr_tests.rs"]
mod tests;
