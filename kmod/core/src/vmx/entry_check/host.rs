//! The host-state area (27.2.2 to 27.2.4). The host always runs in 64-bit mode.

use super::super::controls::ExitControls;
use super::super::cr::{Cr4, Efer};
use super::{EFER_DEFINED, Rule, State, field, pat_valid, rules};

impl State<'_> {
    fn host_selectors(&self) -> [u16; 7] {
        [
            self.get(field::HOST_CS_SELECTOR),
            self.get(field::HOST_SS_SELECTOR),
            self.get(field::HOST_DS_SELECTOR),
            self.get(field::HOST_ES_SELECTOR),
            self.get(field::HOST_FS_SELECTOR),
            self.get(field::HOST_GS_SELECTOR),
            self.get(field::HOST_TR_SELECTOR),
        ]
    }
}

/// No bit is 0 that is fixed to 1, none is 1 that is fixed to 0.
pub(super) fn fixed(value: u64, fixed0: u64, fixed1: u64) -> bool {
    value & fixed0 == fixed0 && value & !fixed1 == 0
}

pub(super) const RULES: &[Rule] = rules! {
    "host-cr0-fixed" "27.2.2"
        "the host's CR0 has no bit that IA32_VMX_CR0_FIXED0/1 forbid"
        [HOST_CR0]
        |s| fixed(s.get(field::HOST_CR0), s.caps.msrs.cr0_fixed0, s.caps.msrs.cr0_fixed1);
    "host-cr4-fixed" "27.2.2"
        "the host's CR4 has no bit that IA32_VMX_CR4_FIXED0/1 forbid"
        [HOST_CR4]
        |s| fixed(s.get(field::HOST_CR4), s.caps.msrs.cr4_fixed0, s.caps.msrs.cr4_fixed1);
    "host-cr3-width" "27.2.2"
        "the host's CR3 is within the physical-address width"
        [HOST_CR3]
        |s| s.get(field::HOST_CR3) >> s.caps.max_phys_addr_width.min(52) == 0;
    "host-sysenter-canonical" "27.2.2"
        "the host's IA32_SYSENTER_ESP and IA32_SYSENTER_EIP are canonical"
        [HOST_IA32_SYSENTER_ESP HOST_IA32_SYSENTER_EIP]
        |s| s.canonical(s.get(field::HOST_IA32_SYSENTER_ESP))
            && s.canonical(s.get(field::HOST_IA32_SYSENTER_EIP));
    "host-pat" "27.2.2"
        "each byte of the host's IA32_PAT is a memory type"
        [HOST_IA32_PAT]
        |s| !s.exit(ExitControls::LOAD_IA32_PAT) || pat_valid(s.get(field::HOST_IA32_PAT));
    "host-efer" "27.2.2"
        "the host's IA32_EFER has no reserved bits, and LMA and LME as the host address-space size"
        [HOST_IA32_EFER PRIMARY_EXIT_CONTROLS]
        |s| {
            let efer = Efer::from_bits_retain(s.get(field::HOST_IA32_EFER));
            let long = s.exit(ExitControls::HOST_ADDRESS_SPACE_SIZE);
            !s.exit(ExitControls::LOAD_IA32_EFER)
                || EFER_DEFINED.contains(efer)
                    && efer.contains(Efer::LMA) == long
                    && efer.contains(Efer::LME) == long
        };
    "host-selectors-rpl-ti" "27.2.3"
        "the host's selectors have RPL 0 and TI 0"
        [HOST_CS_SELECTOR HOST_SS_SELECTOR HOST_DS_SELECTOR HOST_ES_SELECTOR HOST_FS_SELECTOR
         HOST_GS_SELECTOR HOST_TR_SELECTOR]
        |s| s.host_selectors().iter().all(|selector| selector & 7 == 0);
    "host-cs-tr-not-null" "27.2.3"
        "the host's CS and TR selectors are not 0"
        [HOST_CS_SELECTOR HOST_TR_SELECTOR]
        |s| s.get(field::HOST_CS_SELECTOR) != 0 && s.get(field::HOST_TR_SELECTOR) != 0;
    "host-bases-canonical" "27.2.3"
        "the host's FS, GS, GDTR, IDTR and TR bases are canonical"
        [HOST_FS_BASE HOST_GS_BASE HOST_GDTR_BASE HOST_IDTR_BASE HOST_TR_BASE]
        |s| s.canonical(s.get(field::HOST_FS_BASE))
            && s.canonical(s.get(field::HOST_GS_BASE))
            && s.canonical(s.get(field::HOST_GDTR_BASE))
            && s.canonical(s.get(field::HOST_IDTR_BASE))
            && s.canonical(s.get(field::HOST_TR_BASE));
    "host-address-space-size" "27.2.4"
        "a host in 64-bit mode has the host address-space size 1"
        [PRIMARY_EXIT_CONTROLS]
        |s| s.exit(ExitControls::HOST_ADDRESS_SPACE_SIZE);
    "host-cr4-pae" "27.2.4"
        "a host in 64-bit mode has CR4.PAE 1"
        [HOST_CR4]
        |s| Cr4::from_bits_retain(s.get(field::HOST_CR4)).contains(Cr4::PAE);
    "host-rip-canonical" "27.2.4"
        "the host's RIP is canonical"
        [HOST_RIP]
        |s| s.canonical(s.get(field::HOST_RIP));
};
