//! The guest-state area but for its segment registers (27.3.1.1, 27.3.1.3 to 27.3.1.6).

use super::super::caps::Features;
use super::super::controls::{EntryControls, PinControls, Proc2Controls};
use super::super::cr::{Cr0, Cr4, Efer};
use super::host::fixed;
use super::{EFER_DEFINED, Rule, State, field, pat_valid, rules};
use crate::regs::SegReg;
use crate::types::Vector;
use crate::vcpu::events::EventType;

const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;
const DEBUGCTL_BTF: u64 = 1 << 1;
/// Bits 0 to 2 and 6 to 15.
const DEBUGCTL_DEFINED: u64 = 0xffc7;

/// Guest interruptibility state (table 25-3).
mod blocking {
    pub const STI: u32 = 1 << 0;
    pub const MOV_SS: u32 = 1 << 1;
    pub const SMI: u32 = 1 << 2;
    pub const NMI: u32 = 1 << 3;
    pub const DEFINED: u32 = 0x1f;
}

/// Guest activity state (25.4.2).
mod activity {
    pub const ACTIVE: u32 = 0;
    pub const HLT: u32 = 1;
    pub const SHUTDOWN: u32 = 2;
    pub const WAIT_FOR_SIPI: u32 = 3;
}

/// Pending debug exceptions (table 25-4).
mod pending {
    pub const SINGLE_STEP: u64 = 1 << 14;
    /// B0 to B3, bus lock, enabled breakpoint, BS, RTM.
    pub const DEFINED: u64 = 0xf | 1 << 11 | 1 << 12 | SINGLE_STEP | 1 << 16;
}

impl State<'_> {
    fn blocked(&self, bits: u32) -> bool {
        self.get(field::GUEST_INTERRUPTIBILITY_STATE) & bits != 0
    }

    fn injects(&self, kind: EventType) -> bool {
        self.injection().valid() && self.injection().kind() == Some(kind)
    }

    /// An injected event may wake the guest from its activity state.
    fn injection_fits_activity(&self) -> bool {
        let info = self.injection();
        if !info.valid() {
            return true;
        }
        let machine_check = info.is_exception(Vector::MC);
        match self.get(field::GUEST_ACTIVITY_STATE) {
            activity::HLT => {
                let mtf = info.0 >> 8 & 7 == 7;
                let debug = info.is_exception(Vector::DB);
                matches!(
                    info.kind(),
                    Some(EventType::ExternalInterrupt | EventType::Nmi)
                ) || machine_check
                    || debug
                    || mtf
            }
            activity::SHUTDOWN => info.is_nmi() || machine_check,
            activity::WAIT_FOR_SIPI => false,
            _ => true,
        }
    }

    fn pae_paging(&self) -> bool {
        self.cr0().contains(Cr0::PG) && self.cr4().contains(Cr4::PAE) && !self.ia32e()
    }

    fn pdpte_valid(&self, pdpte: u64) -> bool {
        let present = pdpte & 1 != 0;
        !present || pdpte & 0x1e6 == 0 && pdpte >> self.caps.max_phys_addr_width.min(52) == 0
    }

    fn cr0_fixed_bits_hold(&self) -> bool {
        let free = if self.unrestricted() {
            Cr0::PE | Cr0::PG
        } else {
            Cr0::empty()
        };
        let msrs = &self.caps.msrs;
        fixed(
            self.cr0().bits(),
            msrs.cr0_fixed0 & !free.bits(),
            msrs.cr0_fixed1,
        )
    }
}

pub(super) const RULES: &[Rule] = rules! {
    "guest-cr0-fixed" "27.3.1.1"
        "the guest's CR0 has no bit that IA32_VMX_CR0_FIXED0/1 forbid (PE and PG are free with unrestricted guest)"
        [GUEST_CR0]
        |s| s.cr0_fixed_bits_hold();
    "guest-cr0-pg-needs-pe" "27.3.1.1"
        "CR0.PG needs CR0.PE"
        [GUEST_CR0]
        |s| !s.cr0().contains(Cr0::PG) || s.cr0().contains(Cr0::PE);
    "guest-cr4-fixed" "27.3.1.1"
        "the guest's CR4 has no bit that IA32_VMX_CR4_FIXED0/1 forbid"
        [GUEST_CR4]
        |s| fixed(s.cr4().bits(), s.caps.msrs.cr4_fixed0, s.caps.msrs.cr4_fixed1);
    "guest-cr4-cet-needs-wp" "27.3.1.1"
        "CR4.CET needs CR0.WP"
        [GUEST_CR0 GUEST_CR4]
        |s| !s.cr4().contains(Cr4::CET) || s.cr0().contains(Cr0::WP);
    "guest-debugctl" "27.3.1.1"
        "the reserved bits of the guest's IA32_DEBUGCTL are 0"
        [GUEST_IA32_DEBUGCTL]
        |s| !s.entry(EntryControls::LOAD_DEBUG_CONTROLS)
            || s.get(field::GUEST_IA32_DEBUGCTL) & !DEBUGCTL_DEFINED == 0;
    "guest-ia32e-needs-paging" "27.3.1.1"
        "an IA-32e mode guest has CR0.PG and CR4.PAE"
        [ENTRY_CONTROLS GUEST_CR0 GUEST_CR4]
        |s| !s.ia32e() || s.cr0().contains(Cr0::PG) && s.cr4().contains(Cr4::PAE);
    "guest-pcide-needs-ia32e" "27.3.1.1"
        "CR4.PCIDE needs an IA-32e mode guest"
        [ENTRY_CONTROLS GUEST_CR4]
        |s| s.ia32e() || !s.cr4().contains(Cr4::PCIDE);
    "guest-cr3-width" "27.3.1.1"
        "the guest's CR3 is within the physical-address width"
        [GUEST_CR3]
        |s| s.get(field::GUEST_CR3) >> s.caps.max_phys_addr_width.min(52) == 0;
    "guest-dr7-high" "27.3.1.1"
        "bits 63:32 of the guest's DR7 are 0"
        [GUEST_DR7]
        |s| !s.entry(EntryControls::LOAD_DEBUG_CONTROLS) || s.get(field::GUEST_DR7) >> 32 == 0;
    "guest-sysenter-canonical" "27.3.1.1"
        "the guest's IA32_SYSENTER_ESP and IA32_SYSENTER_EIP are canonical"
        [GUEST_IA32_SYSENTER_ESP GUEST_IA32_SYSENTER_EIP]
        |s| s.canonical(s.get(field::GUEST_IA32_SYSENTER_ESP))
            && s.canonical(s.get(field::GUEST_IA32_SYSENTER_EIP));
    "guest-pat" "27.3.1.1"
        "each byte of the guest's IA32_PAT is a memory type"
        [GUEST_IA32_PAT]
        |s| !s.entry(EntryControls::LOAD_IA32_PAT) || pat_valid(s.get(field::GUEST_IA32_PAT));
    "guest-efer-reserved" "27.3.1.1"
        "the reserved bits of the guest's IA32_EFER are 0"
        [GUEST_IA32_EFER]
        |s| !s.entry(EntryControls::LOAD_IA32_EFER) || EFER_DEFINED.contains(s.efer());
    "guest-efer-lma" "27.3.1.1"
        "EFER.LMA is the \"IA-32e mode guest\" VM-entry control"
        [GUEST_IA32_EFER ENTRY_CONTROLS]
        |s| !s.entry(EntryControls::LOAD_IA32_EFER)
            || s.efer().contains(Efer::LMA) == s.ia32e();
    "guest-efer-lme" "27.3.1.1"
        "with CR0.PG EFER.LME is EFER.LMA"
        [GUEST_IA32_EFER GUEST_CR0]
        |s| !s.entry(EntryControls::LOAD_IA32_EFER)
            || !s.cr0().contains(Cr0::PG)
            || s.efer().contains(Efer::LME) == s.efer().contains(Efer::LMA);
    "guest-gdtr-idtr-canonical" "27.3.1.3"
        "the guest's GDTR and IDTR bases are canonical"
        [GUEST_GDTR_BASE GUEST_IDTR_BASE]
        |s| s.canonical(s.get(field::GUEST_GDTR_BASE))
            && s.canonical(s.get(field::GUEST_IDTR_BASE));
    "guest-gdtr-idtr-limit" "27.3.1.3"
        "bits 31:16 of the guest's GDTR and IDTR limits are 0"
        [GUEST_GDTR_LIMIT GUEST_IDTR_LIMIT]
        |s| s.get(field::GUEST_GDTR_LIMIT) >> 16 == 0 && s.get(field::GUEST_IDTR_LIMIT) >> 16 == 0;
    "guest-rip" "27.3.1.4"
        "the guest's RIP is canonical in 64-bit mode, and below 4 GiB otherwise"
        [GUEST_RIP GUEST_CS_ACCESS_RIGHTS ENTRY_CONTROLS]
        |s| {
            let rip = s.get(field::GUEST_RIP);
            let long = s.ia32e() && s.segment(SegReg::Cs).access.long();
            if long { s.canonical(rip) } else { rip >> 32 == 0 }
        };
    "guest-rflags-reserved" "27.3.1.4"
        "bits 63:22, 15, 5 and 3 of RFLAGS are 0, bit 1 is 1"
        [GUEST_RFLAGS]
        |s| {
            let rflags = s.get(field::GUEST_RFLAGS);
            rflags >> 22 == 0 && rflags & 0x802a == 2
        };
    "guest-rflags-vm" "27.3.1.4"
        "RFLAGS.VM is 0 in IA-32e mode and in real mode"
        [GUEST_RFLAGS GUEST_CR0 ENTRY_CONTROLS]
        |s| !s.v8086() || !s.ia32e() && s.cr0().contains(Cr0::PE);
    "guest-rflags-if" "27.3.1.4"
        "RFLAGS.IF is 1 if an external interrupt is injected"
        [GUEST_RFLAGS ENTRY_INTERRUPTION_INFO]
        |s| !s.injects(EventType::ExternalInterrupt) || s.get(field::GUEST_RFLAGS) & RFLAGS_IF != 0;
    "guest-activity-supported" "27.3.1.5"
        "the activity state is one that IA32_VMX_MISC bits 8:6 allow"
        [GUEST_ACTIVITY_STATE]
        |s| match s.get(field::GUEST_ACTIVITY_STATE) {
            activity::ACTIVE => true,
            activity::HLT => s.caps.has(Features::ACTIVITY_HLT),
            activity::SHUTDOWN => s.caps.has(Features::ACTIVITY_SHUTDOWN),
            activity::WAIT_FOR_SIPI => s.caps.has(Features::ACTIVITY_WAIT_FOR_SIPI),
            _ => false,
        };
    "guest-activity-hlt-cpl" "27.3.1.5"
        "the activity state HLT needs SS.DPL 0"
        [GUEST_ACTIVITY_STATE GUEST_SS_ACCESS_RIGHTS]
        |s| s.get(field::GUEST_ACTIVITY_STATE) != activity::HLT
            || s.segment(SegReg::Ss).access.dpl() == 0;
    "guest-activity-blocking" "27.3.1.5"
        "blocking by STI or MOV SS needs the activity state active"
        [GUEST_ACTIVITY_STATE GUEST_INTERRUPTIBILITY_STATE]
        |s| s.get(field::GUEST_ACTIVITY_STATE) == activity::ACTIVE
            || !s.blocked(blocking::STI | blocking::MOV_SS);
    "guest-activity-injection" "27.3.1.5"
        "an injected event is one that the activity state can be woken by"
        [GUEST_ACTIVITY_STATE ENTRY_INTERRUPTION_INFO]
        |s| s.injection_fits_activity();
    "guest-interruptibility-reserved" "27.3.1.5"
        "bits 31:5 of the interruptibility state are 0"
        [GUEST_INTERRUPTIBILITY_STATE]
        |s| s.get(field::GUEST_INTERRUPTIBILITY_STATE) & !blocking::DEFINED == 0;
    "guest-sti-and-mov-ss" "27.3.1.5"
        "there is not blocking by STI and by MOV SS at once"
        [GUEST_INTERRUPTIBILITY_STATE]
        |s| !(s.blocked(blocking::STI) && s.blocked(blocking::MOV_SS));
    "guest-sti-needs-if" "27.3.1.5"
        "blocking by STI needs RFLAGS.IF"
        [GUEST_INTERRUPTIBILITY_STATE GUEST_RFLAGS]
        |s| !s.blocked(blocking::STI) || s.get(field::GUEST_RFLAGS) & RFLAGS_IF != 0;
    "guest-blocking-external-interrupt" "27.3.1.5"
        "no external interrupt is injected under blocking by STI or MOV SS"
        [GUEST_INTERRUPTIBILITY_STATE ENTRY_INTERRUPTION_INFO]
        |s| !s.injects(EventType::ExternalInterrupt)
            || !s.blocked(blocking::STI | blocking::MOV_SS);
    "guest-blocking-nmi" "27.3.1.5"
        "no NMI is injected under blocking by MOV SS, on some CPUs by STI, with virtual NMIs by NMI"
        [GUEST_INTERRUPTIBILITY_STATE ENTRY_INTERRUPTION_INFO PIN_BASED_CONTROLS]
        |s| {
            let nmi = if s.pin(PinControls::VIRTUAL_NMIS) { blocking::NMI } else { 0 };
            !s.injects(EventType::Nmi)
                || !s.blocked(blocking::MOV_SS | blocking::STI | nmi)
        };
    "guest-blocking-smi" "27.3.1.5"
        "there is no blocking by SMI outside of SMM"
        [GUEST_INTERRUPTIBILITY_STATE]
        |s| !s.blocked(blocking::SMI);
    "guest-pending-debug-reserved" "27.3.1.5"
        "the reserved bits of the pending debug exceptions are 0"
        [GUEST_PENDING_DEBUG_EXCEPTIONS]
        |s| s.get(field::GUEST_PENDING_DEBUG_EXCEPTIONS) & !pending::DEFINED == 0;
    "guest-pending-single-step" "27.3.1.5"
        "under blocking by STI or MOV SS, or in HLT, a single step is pending if RFLAGS.TF is set and DEBUGCTL.BTF clear, and only then"
        [GUEST_PENDING_DEBUG_EXCEPTIONS GUEST_RFLAGS GUEST_IA32_DEBUGCTL
         GUEST_INTERRUPTIBILITY_STATE GUEST_ACTIVITY_STATE]
        |s| {
            let stepping = s.get(field::GUEST_RFLAGS) & RFLAGS_TF != 0
                && s.get(field::GUEST_IA32_DEBUGCTL) & DEBUGCTL_BTF == 0;
            let step = s.get(field::GUEST_PENDING_DEBUG_EXCEPTIONS) & pending::SINGLE_STEP != 0;
            let concerned = s.blocked(blocking::STI | blocking::MOV_SS)
                || s.get(field::GUEST_ACTIVITY_STATE) == activity::HLT;
            !concerned || step == stepping
        };
    "guest-link-pointer" "27.3.1.5"
        "the VMCS link pointer is all ones, or a page-aligned physical address"
        [VMCS_LINK_POINTER]
        |s| {
            let pointer = s.get(field::VMCS_LINK_POINTER);
            pointer == u64::MAX || s.physical_aligned(pointer, 12)
        };
    "guest-pdptes" "27.3.1.6"
        "with PAE paging and EPT no present PDPTE has reserved bits set"
        [GUEST_PDPTE0 GUEST_PDPTE1 GUEST_PDPTE2 GUEST_PDPTE3]
        |s| !s.pae_paging()
            || !s.proc2(Proc2Controls::ENABLE_EPT)
            || [field::GUEST_PDPTE0, field::GUEST_PDPTE1, field::GUEST_PDPTE2, field::GUEST_PDPTE3]
                .into_iter()
                .all(|pdpte| s.pdpte_valid(s.get(pdpte)));
};
