//! Interrupt priorities (SDM vol. 3A, 11.8): which of the requested vectors (IRR) is to
//! be delivered, given those in service (ISR) and the task priority (TPR), and the EOI.
//!
//! All of this is in the page, where a CPU with virtual-interrupt delivery does the same
//! by itself (SDM vol. 3C, 30.2). Nothing here is cached for that reason, and PPR is worked
//! out when somebody wants it.

use super::register::{IRR, ISR, TMR, TPR};
use super::{ApicEffect, ApicMemory, ApicMode, ApicPage, LocalApic, Lvt};
use crate::devices::Trigger;
use crate::stats::Stat;
use crate::types::Vector;

/// An interrupt's priority class: bits 7:4 of its vector. Likewise of TPR and PPR.
const fn class(value: u8) -> u8 {
    value >> 4
}

impl ApicPage {
    /// The register and bit of a vector, in the registers from `base` on.
    const fn slot(base: u16, vector: Vector) -> (u16, u32) {
        (base + (vector.0 / 32) as u16 * 16, 1 << (vector.0 % 32))
    }

    fn has(&self, base: u16, vector: Vector) -> bool {
        let (register, bit) = Self::slot(base, vector);
        self.get(register) & bit != 0
    }

    fn put(&self, base: u16, vector: Vector, on: bool) {
        let (register, bit) = Self::slot(base, vector);
        let value = self.get(register);
        self.set(register, if on { value | bit } else { value & !bit });
    }

    fn highest(&self, base: u16) -> Option<Vector> {
        (0..8u16).rev().find_map(|i| {
            let bit = self.get(base + i * 16).checked_ilog2()?;
            Some(Vector(i as u8 * 32 + bit as u8))
        })
    }

    fn tpr(&self) -> u8 {
        self.get(TPR) as u8
    }

    /// The class of the highest vector in service; 0 without one.
    fn service_class(&self) -> u8 {
        self.highest(ISR).map_or(0, |vector| class(vector.0))
    }

    /// The processor priority: TPR, or the class in service if that is higher (11.8.3.1).
    pub(super) fn ppr(&self) -> u8 {
        let service = self.service_class();
        if class(self.tpr()) >= service {
            self.tpr()
        } else {
            service << 4
        }
    }
}

impl<P: ApicMemory> LocalApic<P> {
    /// The interrupt to deliver next: the highest in IRR, if its class is above PPR's.
    #[inline]
    pub fn pending(&self) -> Option<Vector> {
        let vector = self.highest_irr()?;
        let on = self.mode() != ApicMode::Disabled;
        (on && class(vector.0) > class(self.page.ppr())).then_some(vector)
    }

    /// For the VMCS' TPR threshold: the class of the highest vector in IRR if nothing but
    /// TPR holds it back, so that the guest exits when it lowers TPR below; else 0.
    pub fn tpr_threshold(&self) -> u8 {
        match self.highest_irr() {
            Some(Vector(vector))
                if class(vector) <= class(self.page.tpr())
                    && class(vector) > self.page.service_class() =>
            {
                class(vector)
            }
            _ => 0,
        }
    }

    /// The CPU takes that interrupt ([`Self::pending`]'s): from IRR to ISR.
    pub fn acknowledge(&mut self, vector: Vector) {
        self.page.put(IRR, vector, false);
        self.page.put(ISR, vector, true);
    }

    /// A write to the EOI register: the highest in service is done. Without one nothing
    /// happens.
    pub fn eoi(&mut self) -> ApicEffect {
        let Some(vector) = self.highest_isr() else {
            self.stats.incr(Stat::VlapicGratuitousEoi);
            return ApicEffect::None;
        };
        self.page.put(ISR, vector, false);
        self.eoi_done(vector)
    }

    /// The CPU itself has taken `vector` out of ISR (a VM exit of reason "virtualized
    /// EOI"), or [`Self::eoi`] has.
    pub fn eoi_done(&mut self, vector: Vector) -> ApicEffect {
        if !self.page.has(TMR, vector) {
            return ApicEffect::None;
        }
        self.lvt.end_of_level(Lvt::Lint0, vector);
        self.store_lvt(Lvt::Lint0);
        ApicEffect::Eoi(vector)
    }

    /// The vectors whose EOI others must know of: for the VMCS' EOI-exit bitmap.
    pub fn eoi_exit_bitmap(&self) -> [u64; 4] {
        let word = |i: u16| u64::from(self.page.get(TMR + i * 16));
        [0, 2, 4, 6].map(|i| word(i) | word(i + 1) << 32)
    }

    /// For the guest interrupt status: SVI.
    pub fn highest_isr(&self) -> Option<Vector> {
        self.page.highest(ISR)
    }

    /// For the guest interrupt status: RVI.
    #[inline]
    pub fn highest_irr(&self) -> Option<Vector> {
        self.page.highest(IRR)
    }

    /// TPR by CR8 (SDM vol. 3A, 11.8.6): bits 7:4.
    pub fn cr8(&self) -> u8 {
        class(self.page.tpr())
    }

    /// Bits 3:0 of `value`.
    pub fn set_cr8(&mut self, value: u8) {
        self.set_tpr((value & 0xf) << 4);
    }

    pub(super) fn set_tpr(&mut self, value: u8) {
        self.page.set(TPR, value.into());
    }

    /// Accepts 32 vectors, from `32 * word` on, and how each of them is triggered.
    pub(super) fn request_word(&mut self, word: u16, vectors: u32, level: u32) {
        let (irr, tmr) = (IRR + word * 16, TMR + word * 16);
        self.page
            .set(tmr, self.page.get(tmr) & !vectors | level & vectors);
        self.page.set(irr, self.page.get(irr) | vectors);
    }

    /// Accepts one vector.
    pub(super) fn request(&mut self, vector: Vector, trigger: Trigger) {
        self.page.put(TMR, vector, trigger == Trigger::Level);
        self.page.put(IRR, vector, true);
    }
}
