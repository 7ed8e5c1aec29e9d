//! How much of a guest's local APIC the CPU does by itself (SDM vol. 3C, chapter 30): three
//! ways, of which each needs fewer exits than the one before, and the controls and the MSR
//! bitmap that each of them means.

use super::controls::{Proc2Controls, ProcControls};
use super::features::Features;
use crate::devices::lapic::ApicMode;

/// The ways.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ApicVirtualization {
    /// Every access exits, MOV CR8 too.
    Exits,
    /// MOV CR8 works on the TPR of the virtual-APIC page (30.3), and exits only when it
    /// lets an interrupt through (TPR threshold).
    TprShadow,
    /// Reads of registers are from the page (30.4, 30.5); TPR, EOI and self-IPIs are done
    /// in it, and interrupts are delivered out of it (30.2). Other writes exit afterwards.
    InterruptDelivery,
}

/// What may be used of what the CPU has: the tunables hw.vmm.vmx.use_*, as FreeBSD's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicSettings {
    /// hw.vmm.vmx.use_tpr_shadowing
    pub tpr_shadow: bool,
    /// hw.vmm.vmx.use_apic_vid
    pub interrupt_delivery: bool,
}

/// What [`ApicVirtualization::InterruptDelivery`] is made of, besides the TPR shadow. Each
/// alone would be of use in one mode or for one register; CPUs have all of them or none.
const DELIVERY_FEATURES: Features = Features::VIRTUALIZE_APIC_ACCESSES
    .union(Features::VIRTUALIZE_X2APIC)
    .union(Features::APIC_REGISTER_VIRTUALIZATION)
    .union(Features::VIRTUAL_INTERRUPT_DELIVERY);

impl ApicVirtualization {
    /// The best way that the CPU has and the settings permit.
    pub fn choose(features: Features, settings: ApicSettings) -> Self {
        if !settings.tpr_shadow || !features.contains(Features::TPR_SHADOW) {
            Self::Exits
        } else if !settings.interrupt_delivery || !features.contains(DELIVERY_FEATURES) {
            Self::TprShadow
        } else {
            Self::InterruptDelivery
        }
    }

    /// The CPU delivers interrupts itself to a local APIC in that mode.
    pub fn delivers(self, mode: ApicMode) -> bool {
        self == Self::InterruptDelivery && mode != ApicMode::Disabled
    }

    /// Its primary processor-based controls. CR8 would be the host's APIC's if neither
    /// exits nor the TPR shadow were in the way.
    pub const fn proc(self) -> ProcControls {
        match self {
            Self::Exits => ProcControls::CR8_LOAD_EXITING.union(ProcControls::CR8_STORE_EXITING),
            Self::TprShadow | Self::InterruptDelivery => ProcControls::USE_TPR_SHADOW,
        }
    }

    /// Its secondary processor-based controls, with the local APIC in that mode.
    pub const fn proc2(self, mode: ApicMode) -> Proc2Controls {
        let delivery = Proc2Controls::APIC_REGISTER_VIRTUALIZATION
            .union(Proc2Controls::VIRTUAL_INTERRUPT_DELIVERY);
        match (self, mode) {
            (Self::Exits | Self::TprShadow, _) | (Self::InterruptDelivery, ApicMode::Disabled) => {
                Proc2Controls::empty()
            }
            (Self::InterruptDelivery, ApicMode::Xapic) => {
                delivery.union(Proc2Controls::VIRTUALIZE_APIC_ACCESSES)
            }
            (Self::InterruptDelivery, ApicMode::X2apic) => {
                delivery.union(Proc2Controls::VIRTUALIZE_X2APIC_MODE)
            }
        }
    }
}

/// All that [`ApicVirtualization::proc2`] may set.
pub const APIC_PROC2: Proc2Controls = Proc2Controls::VIRTUALIZE_APIC_ACCESSES
    .union(Proc2Controls::VIRTUALIZE_X2APIC_MODE)
    .union(Proc2Controls::APIC_REGISTER_VIRTUALIZATION)
    .union(Proc2Controls::VIRTUAL_INTERRUPT_DELIVERY);

/// Which accesses to an x2APIC MSR the CPU does by itself under "virtualize x2APIC mode",
/// APIC-register virtualization and virtual-interrupt delivery (30.5): as (read, write).
///
/// The CPU would read every register from the page, also those that don't exist or are
/// write-only, so only what is right there passes. Not the current count, which is a
/// matter of time. A write that the CPU doesn't know would go to the page only.
pub const fn x2apic_passes(msr: u32) -> (bool, bool) {
    match msr {
        // ID, version, PPR, LDR, SVR; ISR, TMR and IRR; ESR; the local vector table;
        // initial count, divide configuration.
        0x802 | 0x803 | 0x80a | 0x80d | 0x80f | 0x810..=0x828 | 0x82f | 0x832..=0x838 | 0x83e => {
            (true, false)
        }
        // The ICR's upper half is where RDMSR finds it: 4 bytes behind the lower.
        0x830 => (true, false),
        // TPR.
        0x808 => (true, true),
        // EOI, self-IPI.
        0x80b | 0x83f => (false, true),
        _ => (false, false),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const ALL: Features = DELIVERY_FEATURES.union(Features::TPR_SHADOW);
    const ON: ApicSettings = ApicSettings {
        tpr_shadow: true,
        interrupt_delivery: true,
    };

    #[test]
    fn the_best_way_that_cpu_and_settings_have() {
        use ApicVirtualization::*;
        let choose = ApicVirtualization::choose;
        assert_eq!(choose(ALL, ON), InterruptDelivery);
        // Half of it is none of it.
        for feature in DELIVERY_FEATURES.iter() {
            assert_eq!(choose(ALL - feature, ON), TprShadow, "{feature:?}");
        }
        assert_eq!(choose(Features::TPR_SHADOW, ON), TprShadow);
        assert_eq!(choose(Features::empty(), ON), Exits);
        let no_delivery = ApicSettings {
            interrupt_delivery: false,
            ..ON
        };
        assert_eq!(choose(ALL, no_delivery), TprShadow);
        // Nothing works without the shadow.
        let no_shadow = ApicSettings {
            tpr_shadow: false,
            ..ON
        };
        assert_eq!(choose(ALL, no_shadow), Exits);
        assert_eq!(choose(ALL - Features::TPR_SHADOW, ON), Exits);
    }

    #[test]
    fn cr8_either_exits_or_is_shadowed() {
        use ApicVirtualization::*;
        let exiting = ProcControls::CR8_LOAD_EXITING | ProcControls::CR8_STORE_EXITING;
        for way in [Exits, TprShadow, InterruptDelivery] {
            let proc = way.proc();
            assert!(proc.contains(exiting) != proc.contains(ProcControls::USE_TPR_SHADOW));
            for mode in [ApicMode::Disabled, ApicMode::Xapic, ApicMode::X2apic] {
                let proc2 = way.proc2(mode);
                assert!(APIC_PROC2.contains(proc2));
                // 27.2.1.1
                assert!(proc2.is_empty() || proc.contains(ProcControls::USE_TPR_SHADOW));
                let both =
                    Proc2Controls::VIRTUALIZE_APIC_ACCESSES | Proc2Controls::VIRTUALIZE_X2APIC_MODE;
                assert!(!proc2.contains(both));
                assert_eq!(
                    way.delivers(mode),
                    proc2.contains(Proc2Controls::VIRTUAL_INTERRUPT_DELIVERY)
                );
            }
        }
    }

    /// Against SDM vol. 3A, table 11-6.
    #[test]
    fn what_does_not_exist_or_is_write_only_exits() {
        let reserved = [
            0x800, 0x801, 0x804, 0x809, 0x80c, 0x80e, 0x829, 0x831, 0x83a, 0x840,
        ];
        for msr in reserved.into_iter().chain(0x840..0x900) {
            assert_eq!(x2apic_passes(msr), (false, false), "{msr:#x}");
        }
        for write_only in [0x80b, 0x83f] {
            assert_eq!(x2apic_passes(write_only), (false, true));
        }
        // A reading of the clock.
        assert_eq!(x2apic_passes(0x839), (false, false));
        let written: Vec<u32> = (0x800..0x900).filter(|m| x2apic_passes(*m).1).collect();
        // 30.5: those that the CPU virtualizes.
        assert_eq!(written, [0x808, 0x80b, 0x83f]);
    }
}
