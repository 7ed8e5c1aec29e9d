//! The interrupt controllers and the wires between them and to the local APICs.

use super::super::atpic::{Atpic, Irq};
use super::super::hpet::{Output, Route};
use super::super::ioapic::{Ioapic, Pin};
use super::super::{ApicMessage, Drive, Wires};
use crate::types::Errno;

/// The interrupt controllers, to which all others are wired.
pub struct Controllers {
    pub pic: Atpic,
    pub ioapic: Ioapic,
    /// The level of INTR that others were told.
    intr: bool,
}

impl Controllers {
    pub const fn new() -> Self {
        Self {
            pic: Atpic::new(),
            ioapic: Ioapic::new(),
            intr: false,
        }
    }

    pub fn reset(&mut self, wires: &mut dyn Wires) {
        self.set_intr(false, wires);
        *self = Self::new();
    }

    pub fn ioapic_irq(
        &mut self,
        irq: i32,
        drive: Drive,
        wires: &mut dyn Wires,
    ) -> Result<(), Errno> {
        let pin = Pin::from_raw(irq).ok_or(Errno::EINVAL)?;
        self.ioapic.drive(pin, drive, wires);
        Ok(())
    }

    /// Userland's ISA interrupts. As in FreeBSD the 8259s' have been driven when the I/O
    /// APIC's turns out to be none.
    pub fn isa_irq(
        &mut self,
        atpic_irq: i32,
        ioapic_irq: i32,
        drive: Drive,
        wires: &mut dyn Wires,
    ) -> Result<(), Errno> {
        const NO_PIN: i32 = -1;
        let irq = Irq::from_raw(atpic_irq).ok_or(Errno::EINVAL)?;
        self.pic.drive(irq, drive);
        self.pic_changed(wires);
        if ioapic_irq == NO_PIN {
            return Ok(());
        }
        self.ioapic_irq(ioapic_irq, drive, wires)
    }

    /// A device that is wired to both kinds of controllers.
    pub fn both(&mut self, irq: Irq, pin: Pin, drive: Drive, wires: &mut dyn Wires) {
        self.pic.drive(irq, drive);
        self.pic_changed(wires);
        self.ioapic.drive(pin, drive, wires);
    }

    pub fn hpet(&mut self, output: Output, wires: &mut dyn Wires) {
        match output {
            Output::Line { route, drive } => match route {
                Route::Irq0 => self.both(Irq::PIT, Pin::PIT, drive, wires),
                Route::Irq8 => self.both(Irq::RTC, Pin::RTC, drive, wires),
                Route::Ioapic(pin) => {
                    if let Some(pin) = Pin::from_raw(pin.into()) {
                        self.ioapic.drive(pin, drive, wires);
                    }
                }
            },
            Output::Message { address, data } => {
                if let Some(message) = ApicMessage::from_msi(address.into(), data.into()) {
                    wires.message(message);
                }
            }
        }
    }

    /// INTR follows the 8259s.
    pub fn pic_changed(&mut self, wires: &mut dyn Wires) {
        self.set_intr(self.pic.intr(), wires);
    }

    pub fn set_intr(&mut self, high: bool, wires: &mut dyn Wires) {
        if self.intr == high {
            return;
        }
        self.intr = high;
        wires.pic_intr(high);
        let drive = if high { Drive::Assert } else { Drive::Deassert };
        self.ioapic.drive(Pin::EXTINT, drive, wires);
    }
}
