//! MOV CR0, CR3, CR4, LMSW and CLTS as the SDM's instruction pages have them.

use super::*;
use crate::vmx::testing::caps;

const OFFERED: Cr4 = Cr4::from_bits_retain(0x0037_07ff);

fn policy() -> CrPolicy {
    CrPolicy::new(&caps(), OFFERED)
}

/// A guest in 32-bit protected mode, no paging.
fn protected() -> CrState {
    CrState {
        cr0: Cr0::PE | Cr0::ET | Cr0::NE,
        cr3: 0x1000,
        cr4: Cr4::empty(),
        efer: Efer::empty(),
        cs: AccessRights(0xc09b),
        tr: AccessRights(0x8b),
    }
}

fn long64() -> CrState {
    CrState {
        cr0: Cr0::PE | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::PG,
        cr4: Cr4::PAE,
        efer: Efer::LME | Efer::LMA,
        cs: AccessRights(0xa09b),
        ..protected()
    }
}

#[track_caller]
fn done(write: CrWrite) -> CrUpdate {
    match write {
        CrWrite::Done(update) => update,
        CrWrite::GeneralProtection => panic!("unexpected #GP"),
    }
}

#[track_caller]
fn faults(write: CrWrite) {
    assert_eq!(write, CrWrite::GeneralProtection);
}

#[test]
fn the_guest_sees_what_it_wrote_and_the_cpu_what_it_needs() {
    let cr0 = policy().cr0(crate::vmx::reset::CR0);
    assert_eq!(cr0.guest_view(), 0x6000_0010);
    assert_eq!(
        cr0.real, 0x30,
        "NE is fixed to 1; CD and NW never become real"
    );
    let cr4 = policy().cr4(0);
    assert_eq!(cr4.guest_view(), 0);
    assert_eq!(cr4.real, (Cr4::VMXE | Cr4::MCE).bits());
}

#[test]
fn paging_and_fpu_bits_need_no_exit_but_caching_and_vmx_do() {
    let cr0 = Cr0::from_bits_retain(policy().cr0(0x10).mask);
    assert!(!cr0.intersects(Cr0::PE | Cr0::PG | Cr0::TS | Cr0::WP));
    assert!(cr0.contains(Cr0::CD | Cr0::NW | Cr0::NE));
    let cr4 = Cr4::from_bits_retain(policy().cr4(0).mask);
    assert!(!cr4.intersects(Cr4::PAE | Cr4::PGE | Cr4::OSXSAVE));
    assert!(cr4.contains(Cr4::VMXE | Cr4::MCE | Cr4::LA57 | Cr4::PKE | Cr4::SMXE));
}

#[test]
fn cr4_bits_that_the_cpu_lacks_are_not_offered() {
    let mut small = caps();
    small.msrs.cr4_fixed1 &= !Cr4::PCIDE.bits();
    let policy = CrPolicy::new(&small, OFFERED);
    faults(write_cr4(&policy, long64(), (Cr4::PAE | Cr4::PCIDE).bits()));
    done(write_cr4(&policy, long64(), (Cr4::PAE | Cr4::PGE).bits()));
}

#[test]
fn paging_needs_protection() {
    let real = CrState {
        cr0: Cr0::ET,
        ..protected()
    };
    faults(write_cr0(&policy(), real, Cr0::PG.bits()));
    faults(write_cr0(&policy(), protected(), Cr0::NW.bits() | 1));
    done(write_cr0(
        &policy(),
        protected(),
        (Cr0::NW | Cr0::CD).bits() | 1,
    ));
    faults(write_cr0(&policy(), protected(), 1 << 32));
}

#[test]
fn reserved_low_bits_of_cr0_are_ignored() {
    let update = done(write_cr0(&policy(), protected(), 0xff00 | 1));
    assert_eq!(update.fields.guest_view(), 0x11);
}

#[test]
fn long_mode_is_entered_with_paging() {
    let ready = CrState {
        cr4: Cr4::PAE,
        efer: Efer::LME,
        ..protected()
    };
    let on = (Cr0::PE | Cr0::PG).bits();
    let update = done(write_cr0(&policy(), ready, on));
    assert_eq!(update.efer, Efer::LME | Efer::LMA);
    assert!(update.ia32e_mode_guest && !update.load_pdptes && update.flush_tlb);

    faults(write_cr0(
        &policy(),
        CrState {
            cr4: Cr4::empty(),
            ..ready
        },
        on,
    ));
    faults(write_cr0(
        &policy(),
        CrState {
            cs: AccessRights(0xa09b),
            ..ready
        },
        on,
    ));
    faults(write_cr0(
        &policy(),
        CrState {
            tr: AccessRights(0x83),
            ..ready
        },
        on,
    ));
}

#[test]
fn long_mode_is_left_from_compatibility_mode_only() {
    let off = Cr0::PE.bits();
    faults(write_cr0(&policy(), long64(), off));
    let compatibility = CrState {
        cs: AccessRights(0xc09b),
        ..long64()
    };
    let update = done(write_cr0(&policy(), compatibility, off));
    assert_eq!(update.efer, Efer::LME);
    assert!(!update.ia32e_mode_guest);
    let pcid = CrState {
        cr4: Cr4::PAE | Cr4::PCIDE,
        ..compatibility
    };
    faults(write_cr0(&policy(), pcid, off));
    faults(write_cr4(&policy(), compatibility, 0));
}

#[test]
fn pae_paging_loads_pdptes() {
    let pae = CrState {
        cr4: Cr4::PAE,
        ..protected()
    };
    assert!(done(write_cr0(&policy(), pae, (Cr0::PE | Cr0::PG).bits())).load_pdptes);
    let paging = CrState {
        cr0: pae.cr0 | Cr0::PG,
        ..pae
    };
    assert!(!done(write_cr0(&policy(), paging, (paging.cr0 | Cr0::WP).bits())).load_pdptes);
    assert!(done(write_cr4(&policy(), paging, (Cr4::PAE | Cr4::PGE).bits())).load_pdptes);
    assert!(!done(write_cr4(&policy(), paging, (Cr4::PAE | Cr4::DE).bits())).load_pdptes);
    let off = done(write_cr4(&policy(), paging, 0));
    assert!(!off.load_pdptes && off.flush_tlb);
    assert_eq!(
        write_cr3(paging, 0x2020, 39),
        Cr3Write::Done {
            cr3: 0x2020,
            load_pdptes: true,
            flush_tlb: true
        }
    );
}

#[test]
fn cr3_beyond_the_address_width_faults() {
    assert_eq!(
        write_cr3(long64(), 1 << 39, 39),
        Cr3Write::GeneralProtection
    );
    assert_eq!(
        write_cr3(long64(), 1 << 63 | 0x1000, 39),
        Cr3Write::GeneralProtection
    );
    let pcid = CrState {
        cr4: Cr4::PAE | Cr4::PCIDE,
        ..long64()
    };
    assert_eq!(
        write_cr3(pcid, 1 << 63 | 0x1001, 39),
        Cr3Write::Done {
            cr3: 0x1001,
            load_pdptes: false,
            flush_tlb: false
        }
    );
}

#[test]
fn pcid_can_be_turned_on_in_long_mode_with_pcid_0() {
    let with = (Cr4::PAE | Cr4::PCIDE).bits();
    done(write_cr4(&policy(), long64(), with));
    faults(write_cr4(
        &policy(),
        CrState {
            cr3: 0x1001,
            ..long64()
        },
        with,
    ));
    faults(write_cr4(&policy(), protected(), with));
    faults(write_cr4(
        &policy(),
        long64(),
        (Cr4::PAE | Cr4::VMXE).bits(),
    ));
}

#[test]
fn lmsw_sets_pe_and_does_not_clear_it() {
    let real = CrState {
        cr0: Cr0::ET | Cr0::TS,
        ..protected()
    };
    assert_eq!(
        done(write_lmsw(&policy(), real, 0x1)).fields.guest_view(),
        0x11
    );
    let update = done(write_lmsw(&policy(), protected(), 0xfff0 | 0x6));
    assert_eq!(
        update.fields.guest_view(),
        (Cr0::PE | Cr0::MP | Cr0::EM | Cr0::ET | Cr0::NE).bits()
    );
    assert_eq!(done(clts(&policy(), real)).fields.guest_view(), 0x10);
}
