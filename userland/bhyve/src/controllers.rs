//! The interrupt controllers of the VM, which are in the kernel, as devices reach them: by
//! requests of /dev/vmm. A kernel without them (ENXIO) gets interrupts that go nowhere; a
//! message that the guest addressed to nobody (EINVAL) goes nowhere on a PC, too.

#![forbid(unsafe_code)]

use vmmapi::devices::Trigger;
use vmmapi::{Error, Vm};

use crate::devices::IrqLine;
use crate::pci::InterruptController;
use crate::pci::interrupts::Message;

/// They.
pub struct Controllers(pub Vm);

impl Controllers {
    /// An edge-triggered interrupt of the ISA bus: its rising edge is what counts.
    pub fn isa_edge(&self, irq: u8) -> IrqLine {
        let vm = self.0.clone();
        let number = i32::from(irq);
        Box::new(move |high| {
            if high {
                report(irq, vm.isa_pulse_irq(number, Some(number)));
            }
        })
    }
}

impl InterruptController for Controllers {
    fn message(&self, message: Message) {
        match self.0.lapic_msi(message.address, message.data.into()) {
            Err(error) if !error.is(libc::ENXIO) && !error.is(libc::EINVAL) => {
                eprintln!("bhyve: {message:x?} is lost: {error}\r");
            }
            _ => {}
        }
    }

    fn ioapic(&self, pin: u8, asserted: bool) {
        let number = i32::from(pin);
        report(
            pin,
            if asserted {
                self.0.ioapic_assert_irq(number)
            } else {
                self.0.ioapic_deassert_irq(number)
            },
        );
    }

    fn isa(&self, irq: u8, ioapic_pin: Option<u8>, asserted: bool) {
        let (number, pin) = (i32::from(irq), ioapic_pin.map(i32::from));
        report(
            irq,
            if asserted {
                self.0.isa_assert_irq(number, pin)
            } else {
                self.0.isa_deassert_irq(number, pin)
            },
        );
    }

    fn level_triggered(&self, irq: u8) {
        report(irq, self.0.isa_set_irq_trigger(irq.into(), Trigger::Level));
    }
}

fn report(irq: u8, result: Result<(), Error>) {
    match result {
        Err(error) if !error.is(libc::ENXIO) => {
            eprintln!("bhyve: interrupt {irq} is lost: {error}\r");
        }
        _ => {}
    }
}
