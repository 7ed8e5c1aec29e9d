//! Whether the kernel has an I/O APIC for the VM (ioapic_init() of bhyve, step (10)). It
//! comes together with the rest of a PC's interrupt and timer hardware: local APICs, 8259s,
//! 8254, RTC and the ACPI timer are in the kernel too, or none of them.

#![forbid(unsafe_code)]

use vmmapi::Vm;

use super::FirmwareError;

/// The pins that belong to the ISA interrupts.
pub const ISA_PINS: u8 = 16;

/// The I/O APIC of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApic {
    /// How many interrupts it takes.
    pub pins: u8,
}

impl IoApic {
    /// How many of the ISA interrupts it takes.
    pub fn isa_pins(self) -> u8 {
        self.pins.min(ISA_PINS)
    }
}

/// Asks the kernel. ENXIO means that there is none.
pub fn ioapic_init(vm: &Vm) -> Result<Option<IoApic>, FirmwareError> {
    match vm.ioapic_pincount() {
        Ok(pins) => Ok(from_pincount(pins)),
        Err(error) if error.is(libc::ENXIO) => Ok(None),
        Err(error) => Err(FirmwareError::Kernel(error)),
    }
}

/// An I/O APIC has up to 240 pins; without any it is none.
fn from_pincount(pins: i32) -> Option<IoApic> {
    match u8::try_from(pins.clamp(0, 240)) {
        Ok(0) | Err(_) => None,
        Ok(pins) => Some(IoApic { pins }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_make_an_io_apic() {
        assert_eq!(from_pincount(0), None);
        assert_eq!(from_pincount(-1), None);
        assert_eq!(from_pincount(32), Some(IoApic { pins: 32 }));
        assert_eq!(from_pincount(32).map(IoApic::isa_pins), Some(16));
        assert_eq!(from_pincount(8).map(IoApic::isa_pins), Some(8));
        assert_eq!(from_pincount(i32::MAX), Some(IoApic { pins: 240 }));
    }
}
