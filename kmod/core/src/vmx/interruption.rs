//! The interruption-information fields (SDM vol. 3C): what a VM entry injects (25.8.3,
//! table 25-17), what exited (25.9.2, table 25-19), and what was being delivered when an
//! exit came (25.9.3, table 25-20). All three have one layout: vector in bits 7:0, type in
//! 10:8, error code present in 11, valid in 31. It is also the layout of bhyve's
//! VM_INTINFO ([`IntInfo`]), which adds the error code in bits 63:32.

use core::fmt;

use crate::types::Vector;
use crate::vcpu::events::{EventType, IntInfo};

const ERROR_CODE_VALID: u32 = 1 << 11;
const NMI_UNBLOCKING: u32 = 1 << 12;
const VALID: u32 = 1 << 31;

/// The VM-exit interruption-information or IDT-vectoring information field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptionInfo(pub u32);

impl InterruptionInfo {
    /// Bit 31. The other bits mean nothing without it.
    pub const fn valid(self) -> bool {
        self.0 & VALID != 0
    }

    pub const fn vector(self) -> Vector {
        Vector(self.0 as u8)
    }

    /// `None` for the reserved type 1 and for 7, which is never reported by an exit.
    pub const fn kind(self) -> Option<EventType> {
        EventType::from_bits((self.0 >> 8 & 7) as u8)
    }

    /// Bit 11: the field next to this one holds an error code.
    pub const fn error_code_valid(self) -> bool {
        self.0 & ERROR_CODE_VALID != 0
    }

    /// Bit 12 of the VM-exit field: the exception came from an IRET that had unblocked
    /// NMIs, so that blocking by NMI must be set again before the IRET restarts (28.2.3).
    /// Not defined for #DF, nor if IDT-vectoring information is valid.
    pub const fn nmi_unblocking_due_to_iret(self) -> bool {
        self.0 & NMI_UNBLOCKING != 0
    }

    /// Whether this is that exception: a valid field, type and vector.
    pub fn is_exception(self, vector: Vector) -> bool {
        let hardware_or_software = matches!(
            self.kind(),
            Some(
                EventType::HardwareException
                    | EventType::SoftwareException
                    | EventType::PrivilegedSoftwareException
            )
        );
        self.valid() && hardware_or_software && self.vector() == vector
    }

    /// Whether this is an NMI.
    pub fn is_nmi(self) -> bool {
        self.valid() && self.kind() == Some(EventType::Nmi)
    }

    /// The event with its error code (the field next to this one), as bhyve's intinfo.
    /// `None` if the field is not valid or its type is none that the IDT delivers.
    pub fn to_intinfo(self, error_code: u32) -> Option<IntInfo> {
        if !self.valid() {
            return None;
        }
        let code = self.error_code_valid().then_some(error_code);
        Some(IntInfo::new(self.kind()?, self.vector(), code))
    }
}

impl fmt::Display for InterruptionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.valid() {
            return f.write_str("none");
        }
        let kind = match self.kind() {
            Some(EventType::ExternalInterrupt) => "external interrupt",
            Some(EventType::Nmi) => "NMI",
            Some(EventType::HardwareException) => "hardware exception",
            Some(EventType::SoftwareInterrupt) => "software interrupt",
            Some(EventType::PrivilegedSoftwareException) => "privileged software exception",
            Some(EventType::SoftwareException) => "software exception",
            None => "event of reserved type",
        };
        write!(f, "{kind}, vector {}", self.vector().0)
    }
}

/// The three VM-entry fields of an injection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryInterruption {
    /// VM-entry interruption-information field.
    pub info: u32,
    /// VM-entry exception error code; 0 without one.
    pub error_code: u32,
    /// The VM-entry instruction length must be that of the instruction (INT n, INT3, INTO,
    /// INT1): these return behind it.
    pub needs_instruction_length: bool,
}

impl EntryInterruption {
    /// What to write to inject `event`. In real mode (CR0.PE clear, `protected` false) no
    /// error code is pushed, and 27.2.1.3 refuses one.
    pub fn new(event: IntInfo, protected: bool) -> Self {
        let error_code = event.error_code().filter(|_| protected);
        let info = event.entry_field() & !ERROR_CODE_VALID;
        Self {
            info: info
                | if error_code.is_some() {
                    ERROR_CODE_VALID
                } else {
                    0
                },
            error_code: error_code.unwrap_or(0),
            needs_instruction_length: matches!(
                event.kind(),
                EventType::SoftwareInterrupt
                    | EventType::PrivilegedSoftwareException
                    | EventType::SoftwareException
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fault_with_its_error_code() {
        let info = InterruptionInfo(0x8000_0b0e);
        assert!(info.is_exception(Vector::PF) && !info.is_exception(Vector::GP));
        let event = info.to_intinfo(0x6).unwrap();
        assert_eq!(event.raw(), 0x6_8000_0b0e);
        let entry = EntryInterruption::new(event, true);
        assert_eq!((entry.info, entry.error_code), (0x8000_0b0e, 6));
        assert!(!entry.needs_instruction_length);
    }

    #[test]
    fn real_mode_gets_no_error_code() {
        let event = IntInfo::new(EventType::HardwareException, Vector::GP, Some(0));
        assert_eq!(EntryInterruption::new(event, false).info, 0x8000_030d);
    }

    #[test]
    fn bit_12_does_not_travel_into_the_next_entry() {
        let info = InterruptionInfo(0x8000_1b0d);
        assert!(info.nmi_unblocking_due_to_iret());
        assert_eq!(info.to_intinfo(0).unwrap().entry_field(), 0x8000_0b0d);
    }

    #[test]
    fn software_events_keep_their_length() {
        for raw in [0x8000_0480, 0x8000_0501, 0x8000_0603] {
            let event = InterruptionInfo(raw).to_intinfo(0).unwrap();
            assert!(
                EntryInterruption::new(event, true).needs_instruction_length,
                "{raw:#x}"
            );
        }
        let external = InterruptionInfo(0x8000_0020).to_intinfo(0).unwrap();
        assert!(!EntryInterruption::new(external, true).needs_instruction_length);
    }

    #[test]
    fn nothing_valid_is_no_event() {
        assert_eq!(InterruptionInfo(0x0000_030d).to_intinfo(0), None);
        assert_eq!(InterruptionInfo(0x8000_0100).to_intinfo(0), None);
        assert!(InterruptionInfo(0x8000_0202).is_nmi());
    }
}
