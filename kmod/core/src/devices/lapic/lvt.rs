//! The local vector table (SDM vol. 3A, 11.5.1): what the local interrupts do.

use super::error::Error;
use super::{ApicMemory, ApicMode, LocalApic, Lvt};
use crate::devices::{DeliveryMode, Trigger};
use crate::types::Vector;

/// Read-only: delivery status (always idle) and remote IRR.
const DELIVERY_STATUS: u32 = 1 << 12;
const REMOTE_IRR: u32 = 1 << 14;
const LEVEL: u32 = 1 << 15;
pub const MASKED: u32 = 1 << 16;

impl Lvt {
    pub(super) const ALL: [Self; 7] = [
        Self::Lint0,
        Self::Lint1,
        Self::Timer,
        Self::Error,
        Self::Pmc,
        Self::Thermal,
        Self::Cmci,
    ];

    /// Its register's offset.
    pub(super) const fn offset(self) -> u16 {
        match self {
            Self::Cmci => 0x2f0,
            Self::Timer => 0x320,
            Self::Thermal => 0x330,
            Self::Pmc => 0x340,
            Self::Lint0 => 0x350,
            Self::Lint1 => 0x360,
            Self::Error => 0x370,
        }
    }

    /// The bits that only hardware sets; writes to them are ignored.
    pub(super) const fn read_only(self) -> u32 {
        match self {
            Self::Lint0 | Self::Lint1 => DELIVERY_STATUS | REMOTE_IRR,
            Self::Timer | Self::Error | Self::Pmc | Self::Thermal | Self::Cmci => DELIVERY_STATUS,
        }
    }

    /// The bits that software sets (figure 11-8).
    pub(super) const fn writable(self) -> u32 {
        const VECTOR: u32 = 0xff;
        const DELIVERY_MODE: u32 = 7 << 8;
        const POLARITY: u32 = 1 << 13;
        const TIMER_MODE: u32 = 3 << 17;
        VECTOR
            | MASKED
            | match self {
                Self::Timer => TIMER_MODE,
                Self::Error => 0,
                Self::Lint0 | Self::Lint1 => DELIVERY_MODE | POLARITY | LEVEL,
                Self::Pmc | Self::Thermal | Self::Cmci => DELIVERY_MODE,
            }
    }
}

/// One entry's register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LvtEntry(pub u32);

impl LvtEntry {
    pub const fn masked(self) -> bool {
        self.0 & MASKED != 0
    }

    const fn vector(self) -> Vector {
        Vector(self.0 as u8)
    }

    /// `None` for the reserved encoding. The entries that have no delivery mode have
    /// zeros there, which is fixed.
    const fn mode(self) -> Option<DeliveryMode> {
        DeliveryMode::from_bits((self.0 >> 8) as u8)
    }
}

/// All of them, by [`Lvt`]'s number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LvtEntries([LvtEntry; 7]);

impl LvtEntries {
    /// After reset all are masked.
    pub const RESET: Self = Self([LvtEntry(MASKED); 7]);

    pub const fn get(&self, lvt: Lvt) -> LvtEntry {
        self.0[lvt as usize]
    }

    fn entry(&mut self, lvt: Lvt) -> &mut u32 {
        &mut self.0[lvt as usize].0
    }

    /// The EOI of a vector that `lvt` raised level-triggered: it may come again.
    pub fn end_of_level(&mut self, lvt: Lvt, vector: Vector) {
        if self.get(lvt).vector() == vector {
            *self.entry(lvt) &= !REMOTE_IRR;
        }
    }
}

/// What a local interrupt came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fired {
    /// Its entry is masked.
    Nothing,
    /// What its entry says.
    Done,
    /// An NMI, which is its caller's to pass on.
    Nmi,
}

impl<P: ApicMemory> LocalApic<P> {
    /// A write of the guest. A software-disabled APIC keeps its entries masked.
    pub(super) fn write_lvt(&mut self, lvt: Lvt, value: u32) {
        let keep = self.lvt.get(lvt).0 & REMOTE_IRR;
        let mask = if self.software_enabled() { 0 } else { MASKED };
        *self.lvt.entry(lvt) = value & lvt.writable() | keep | mask;
        self.store_lvt(lvt);
    }

    /// The APIC is being disabled by software.
    pub(super) fn mask_lvts(&mut self) {
        for lvt in Lvt::ALL {
            *self.lvt.entry(lvt) |= MASKED;
            self.store_lvt(lvt);
        }
    }

    pub(super) fn store_lvts(&mut self) {
        for lvt in Lvt::ALL {
            self.store_lvt(lvt);
        }
    }

    pub(super) fn store_lvt(&mut self, lvt: Lvt) {
        self.page.set(lvt.offset(), self.lvt.get(lvt).0);
    }

    /// A local interrupt.
    pub(super) fn fire(&mut self, lvt: Lvt) -> Fired {
        if !self.software_enabled() || self.mode() == ApicMode::Disabled {
            return self.fire_disabled(lvt);
        }
        let entry = self.lvt.get(lvt);
        if entry.masked() {
            return Fired::Nothing;
        }
        match entry.mode() {
            Some(DeliveryMode::Fixed) => self.fire_fixed(lvt, entry),
            Some(DeliveryMode::Nmi) => return Fired::Nmi,
            // LINT0 is the 8259s' line: as long as it is high, `takes_extint` counts.
            Some(DeliveryMode::ExtInt) => self.extint |= lvt != Lvt::Lint0,
            // There is no SMM; INIT through a pin is no way to reset a vcpu; the others
            // are reserved.
            Some(
                DeliveryMode::Smi
                | DeliveryMode::Init
                | DeliveryMode::LowestPriority
                | DeliveryMode::StartUp,
            )
            | None => {}
        }
        Fired::Done
    }

    /// The pins are INTR and NMI then (11.4.3). So they are while the APIC is disabled by
    /// software only: that makes up for the firmware that would have set up the virtual
    /// wire mode of the MP specification.
    fn fire_disabled(&mut self, lvt: Lvt) -> Fired {
        match lvt {
            Lvt::Lint1 => Fired::Nmi,
            // LINT0: see `takes_extint`.
            Lvt::Lint0 | Lvt::Timer | Lvt::Error | Lvt::Pmc | Lvt::Thermal | Lvt::Cmci => {
                Fired::Nothing
            }
        }
    }

    fn fire_fixed(&mut self, lvt: Lvt, entry: LvtEntry) {
        let vector = entry.vector();
        if vector.0 < 16 {
            return self.error(Error::ReceiveIllegalVector);
        }
        // Of the pins only LINT0 can be level-triggered.
        let level = lvt == Lvt::Lint0 && entry.0 & LEVEL != 0;
        if !level {
            return self.request(vector, Trigger::Edge);
        }
        if entry.0 & REMOTE_IRR == 0 {
            *self.lvt.entry(lvt) |= REMOTE_IRR;
            self.store_lvt(lvt);
            self.request(vector, Trigger::Level);
        }
    }

    /// Whether this vcpu takes a vector from the 8259s while their INTR is high, because
    /// LINT0 says so or an ExtINT message has come. Call [`Self::extint_taken`] then. Of
    /// vcpus whose APIC is disabled it is the bootstrap processor.
    pub fn takes_extint(&self) -> bool {
        let lint0 = self.lvt.get(Lvt::Lint0);
        self.extint
            || if self.enabled() {
                !lint0.masked() && lint0.mode() == Some(DeliveryMode::ExtInt)
            } else {
                self.vcpu == crate::types::VcpuId::BSP
            }
    }

    pub fn extint_taken(&mut self) {
        self.extint = false;
    }
}
