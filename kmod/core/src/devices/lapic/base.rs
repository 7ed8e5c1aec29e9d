//! Life and modes of a local APIC: IA32_APIC_BASE (SDM vol. 3A, 11.4.3, 11.4.4, 11.12.5),
//! reset and INIT (11.4.7), software enable (11.4.7.2), and what senders are told of it.

use alloc::sync::Arc;

use super::error::Errors;
use super::lvt::LvtEntries;
use super::register::{DFR, ID, LDR, SVR, VERSION};
use super::timer::Timer;
use super::{
    APIC_BASE, Address, ApicClock, ApicEffect, ApicMemory, ApicMode, GeneralProtection, Inbox,
    LocalApic,
};
use crate::stats::VcpuStats;
use crate::types::VcpuId;

const BSP: u64 = 1 << 8;
const EXTD: u64 = 1 << 10;
const EN: u64 = 1 << 11;

/// Version 0x14, and 7 LVT entries less 1 in 23:16; EOI broadcasts can't be suppressed.
const VERSION_VALUE: u32 = 0x14 | 6 << 16;
const SVR_RESET: u32 = 0xff;
const SVR_WRITABLE: u32 = 0x3ff;
const SVR_ENABLE: u32 = 1 << 8;
const DFR_RESET: u32 = !0;
/// The model is in 31:28, the rest is ones.
const DFR_MODEL: u32 = 0xf000_0000;
const LDR_WRITABLE: u32 = 0xff00_0000;

impl<P: ApicMemory> LocalApic<P> {
    /// As after power-on. `inbox` and `stats` are the vcpu's.
    pub fn new(page: P, vcpu: VcpuId, inbox: Arc<Inbox>, stats: Arc<VcpuStats>) -> Self {
        let mut apic = Self {
            page,
            vcpu,
            inbox,
            stats,
            base: 0,
            x2apic_allowed: false,
            svr: 0,
            ldr: 0,
            dfr: 0,
            lvt: LvtEntries::RESET,
            errors: Errors::default(),
            timer: Timer::default(),
            extint: false,
        };
        apic.reset();
        apic
    }

    /// Power-on: in xAPIC mode, and without an x2APIC until [`Self::allow_x2apic`] (as in
    /// FreeBSD's vmm). What waits in the inbox is forgotten.
    pub fn reset(&mut self) {
        self.x2apic_allowed = false;
        self.base = APIC_BASE.0 | EN;
        if self.vcpu == VcpuId::BSP {
            self.base |= BSP;
        }
        self.init();
    }

    /// INIT: as power-on, but the mode stays. What waits in the inbox is forgotten.
    pub fn init(&mut self) {
        self.inbox.clear();
        for offset in (0..4096).step_by(4) {
            self.page.set(offset, 0);
        }
        self.svr = SVR_RESET;
        self.ldr = 0;
        self.dfr = DFR_RESET;
        self.lvt = LvtEntries::RESET;
        self.errors = Errors::default();
        self.timer = Timer::default();
        self.extint = false;
        self.page.set(VERSION, VERSION_VALUE);
        self.page.set(SVR, self.svr);
        self.store_lvts();
        self.enter_mode();
    }

    /// IA32_APIC_BASE
    pub fn apic_base(&self) -> u64 {
        self.base
    }

    /// A write to IA32_APIC_BASE. The registers can't be moved, nor can the flag of the
    /// bootstrap processor; the mode changes along figure 11-24's arrows.
    pub fn set_apic_base(&mut self, value: u64) -> Result<(), GeneralProtection> {
        const MODE: u64 = EXTD | EN;
        if (value ^ self.base) & !MODE != 0 {
            return Err(GeneralProtection);
        }
        let before = self.mode();
        let after = match (value & MODE, before) {
            (0, _) => ApicMode::Disabled,
            (EN, ApicMode::Disabled | ApicMode::Xapic) => ApicMode::Xapic,
            (MODE, ApicMode::Xapic | ApicMode::X2apic) if self.x2apic_allowed => ApicMode::X2apic,
            _ => return Err(GeneralProtection),
        };
        self.base = value;
        match after {
            _ if after == before => {}
            // When it comes back it is as after a reset.
            ApicMode::Disabled => self.init(),
            ApicMode::Xapic | ApicMode::X2apic => self.enter_mode(),
        }
        Ok(())
    }

    /// VM_SET_X2APIC_STATE: whether there is an x2APIC. As in FreeBSD's vmm the local APIC
    /// is in x2APIC mode then, as firmware leaves it; if not, in xAPIC mode. To be called
    /// before the guest runs.
    pub fn allow_x2apic(&mut self, allowed: bool) {
        self.x2apic_allowed = allowed;
        self.base = self.base & !EXTD | EN | if allowed { EXTD } else { 0 };
        self.enter_mode();
    }

    pub fn x2apic_allowed(&self) -> bool {
        self.x2apic_allowed
    }

    #[inline]
    pub fn mode(&self) -> ApicMode {
        match self.base & (EN | EXTD) {
            0 | EXTD => ApicMode::Disabled,
            EN => ApicMode::Xapic,
            _ => ApicMode::X2apic,
        }
    }

    /// The page that its registers are in.
    pub fn page(&self) -> &P {
        &self.page
    }

    /// SVR's enable bit.
    pub(super) fn software_enabled(&self) -> bool {
        self.svr & SVR_ENABLE != 0
    }

    /// Takes fixed interrupts.
    pub(super) fn enabled(&self) -> bool {
        self.software_enabled() && self.mode() != ApicMode::Disabled
    }

    /// A write to SVR.
    pub(super) fn write_svr(&mut self, value: u32, clock: &ApicClock) -> ApicEffect {
        let effect = self.change_timer(clock, |apic| {
            apic.svr = value & SVR_WRITABLE;
            if !apic.software_enabled() {
                apic.mask_lvts();
            }
        });
        self.page.set(SVR, self.svr);
        self.publish();
        effect
    }

    /// xAPIC mode only, as DFR.
    pub(super) fn write_ldr(&mut self, value: u32) {
        self.ldr = value & LDR_WRITABLE;
        self.page.set(LDR, self.ldr);
        self.publish();
    }

    pub(super) fn write_dfr(&mut self, value: u32) {
        self.dfr = value | !DFR_MODEL;
        self.page.set(DFR, self.dfr);
        self.publish();
    }

    /// The id is the vcpu's number and can't be changed; this puts back what a write of
    /// the guest to the page has changed.
    pub(super) fn store_id(&mut self) {
        let id = u32::from(self.vcpu.0);
        let x2apic = self.mode() == ApicMode::X2apic;
        self.page.set(ID, if x2apic { id } else { id << 24 });
    }

    /// Sets the registers that depend on the mode (11.12.5.1, 11.12.10.2): an x2APIC's
    /// logical id comes of its id, and it has no DFR.
    fn enter_mode(&mut self) {
        if self.mode() == ApicMode::X2apic {
            let id = u32::from(self.vcpu.0);
            self.ldr = id >> 4 << 16 | 1 << (id & 0xf);
            self.dfr = 0;
        } else {
            self.ldr = 0;
            self.dfr = DFR_RESET;
        }
        self.store_id();
        self.page.set(LDR, self.ldr);
        self.page.set(DFR, self.dfr);
        self.publish();
    }

    fn publish(&self) {
        let mode = self.mode();
        // Flat and cluster are the models that there are.
        let (logical, cluster) = match (mode, self.dfr >> 28) {
            (ApicMode::X2apic, _) | (ApicMode::Xapic, 0xf) => (self.ldr, false),
            (ApicMode::Xapic, 0) => (self.ldr, true),
            (ApicMode::Xapic | ApicMode::Disabled, _) => (0, false),
        };
        let address = Address {
            id: self.vcpu.0.into(),
            logical,
            cluster,
            x2apic: mode == ApicMode::X2apic,
            present: mode != ApicMode::Disabled,
            enabled: self.enabled(),
        };
        self.inbox.publish_address(address.pack());
    }
}
