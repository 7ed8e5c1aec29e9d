//! Events that wait for a vcpu's next VM entry: an exception that somebody injects, and an
//! event whose delivery a VM exit interrupted. Where both wait, the second happened while
//! the first was delivered, and SDM vol. 3A, 6.15 (tables 6-4 and 6-5, double faults)
//! says what the guest gets.

use crate::types::{Errno, Vector};

/// The two slots. One caller at a time: whoever has the vcpu FROZEN, or its run loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EventQueue {
    /// What a VM exit interrupted (`exitintinfo`), or userland put there.
    exit_intinfo: Option<IntInfo>,
    exception: Option<IntInfo>,
}

/// What the next VM entry is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryEvent {
    None,
    /// Inject it through the VM-entry interruption-information field.
    Inject(IntInfo),
    /// An exception while #DF was delivered: shutdown. The VM is suspended with
    /// `SuspendHow::TripleFault`.
    TripleFault,
}

/// An event in VM_GET_INTINFO's layout, which is the VMCS's (SDM vol. 3C, 25.8.3): vector
/// in bits 7:0, type in 10:8, error code present in 11, valid in 31; and the error code
/// in 63:32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IntInfo(u64);

/// The type of an event (SDM table 25-17, as far as an event can have been delivered
/// through the IDT).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum EventType {
    ExternalInterrupt = 0,
    Nmi = 2,
    HardwareException = 3,
    SoftwareInterrupt = 4,
    PrivilegedSoftwareException = 5,
    SoftwareException = 6,
}

const ERROR_CODE_VALID: u64 = 1 << 11;
/// Bits 30:12. (In the VMCS bit 12 is "NMI unblocking due to IRET" or undefined; the
/// backend clears it.)
const RESERVED: u64 = 0x7fff_f000;
const VALID: u64 = 1 << 31;

impl EventQueue {
    pub const fn new() -> Self {
        Self {
            exit_intinfo: None,
            exception: None,
        }
    }

    /// Queues a hardware exception (VM_INJECT_EXCEPTION, or an emulation that faults).
    ///
    /// EINVAL: a vector past 31, or #DF, which only follows from two faults. EBUSY: one
    /// waits already; nothing is changed then.
    ///
    /// Two rules need the vcpu's registers and are the caller's: in real mode (CR0.PE
    /// clear) an exception has no error code, so pass `None`; and an exception ends
    /// blocking by STI or MOV SS (SDM vol. 3C, 25.4.2 and 26.6.1), so clear
    /// [`crate::regs::Reg::IntrShadow`] after success, in that order: a refused exception
    /// must not touch the shadow. A fault restarts its instruction: the caller sets the
    /// next RIP back.
    pub fn inject_exception(
        &mut self,
        vector: Vector,
        error_code: Option<u32>,
    ) -> Result<(), Errno> {
        if vector.0 >= 32 || vector == Vector::DF {
            return Err(Errno::EINVAL);
        }
        if self.exception.is_some() {
            return Err(Errno::EBUSY);
        }
        self.exception = Some(IntInfo::new(
            EventType::HardwareException,
            vector,
            error_code,
        ));
        Ok(())
    }

    /// Sets (or, without the valid bit, clears) the event whose delivery was interrupted:
    /// from the IDT-vectoring information after a VM exit, or by VM_SET_INTINFO. EINVAL
    /// when no CPU could have delivered it; nothing is changed then.
    pub fn set_exit_intinfo(&mut self, raw: u64) -> Result<(), Errno> {
        self.exit_intinfo = IntInfo::from_raw(raw)?;
        Ok(())
    }

    /// Whether anything waits.
    pub const fn is_empty(&self) -> bool {
        self.exit_intinfo.is_none() && self.exception.is_none()
    }

    /// Whether an exception waits: a second one would be EBUSY.
    pub const fn exception_pending(&self) -> bool {
        self.exception.is_some()
    }

    /// Takes what waits, combined into the one event that the next VM entry delivers.
    pub fn take_entry_event(&mut self) -> EntryEvent {
        match (self.exit_intinfo.take(), self.exception.take()) {
            (None, None) => EntryEvent::None,
            (Some(event), None) | (None, Some(event)) => EntryEvent::Inject(event),
            (Some(first), Some(second)) => nested(first, second),
        }
    }

    /// What waits, in VM_GET_INTINFO's order: the interrupted event, the exception; 0 for
    /// none.
    pub fn intinfo(&self) -> (u64, u64) {
        let raw = |slot: Option<IntInfo>| slot.map_or(0, IntInfo::raw);
        (raw(self.exit_intinfo), raw(self.exception))
    }

    /// Forgets everything (VM_REINIT).
    pub fn clear(&mut self) {
        *self = Self::new();
    }
}

impl IntInfo {
    /// An event. An error code is part of the event only if the CPU pushes one for it.
    pub const fn new(kind: EventType, vector: Vector, error_code: Option<u32>) -> Self {
        let info = vector.0 as u64 | (kind as u64) << 8 | VALID;
        Self(match error_code {
            Some(code) => info | ERROR_CODE_VALID | (code as u64) << 32,
            None => info,
        })
    }

    /// The event behind a number from userland or the VMCS: `None` without the valid bit,
    /// EINVAL when no CPU delivers such an event.
    pub const fn from_raw(raw: u64) -> Result<Option<Self>, Errno> {
        if raw & VALID == 0 {
            return Ok(None);
        }
        let Some(kind) = EventType::from_bits((raw >> 8 & 7) as u8) else {
            return Err(Errno::EINVAL);
        };
        let vector = raw as u8;
        let impossible = raw & RESERVED != 0
            || matches!(kind, EventType::Nmi) && vector != Vector::NMI.0
            || matches!(kind, EventType::HardwareException) && vector >= 32;
        if impossible {
            return Err(Errno::EINVAL);
        }
        Ok(Some(Self(raw)))
    }

    /// The number, as VM_GET_INTINFO gives it.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The low half, which is the VM-entry interruption-information field.
    pub const fn entry_field(self) -> u32 {
        self.0 as u32
    }

    pub const fn vector(self) -> Vector {
        Vector(self.0 as u8)
    }

    pub const fn kind(self) -> EventType {
        match EventType::from_bits((self.0 >> 8 & 7) as u8) {
            Some(kind) => kind,
            // No constructor lets another number through.
            None => unreachable!(),
        }
    }

    pub const fn error_code(self) -> Option<u32> {
        if self.0 & ERROR_CODE_VALID != 0 {
            Some((self.0 >> 32) as u32)
        } else {
            None
        }
    }
}

impl EventType {
    /// From bits 10:8; 1 is reserved and 7 (other event) is never an IDT delivery.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::ExternalInterrupt,
            2 => Self::Nmi,
            3 => Self::HardwareException,
            4 => Self::SoftwareInterrupt,
            5 => Self::PrivilegedSoftwareException,
            6 => Self::SoftwareException,
            _ => return None,
        })
    }
}

/// How an event counts when another exception happens during its delivery (SDM table 6-4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Benign,
    Contributory,
    PageFault,
}

fn class(event: IntInfo) -> Class {
    if event.kind() != EventType::HardwareException {
        return Class::Benign;
    }
    match event.vector() {
        Vector::PF | Vector::VE => Class::PageFault,
        Vector::DE | Vector::TS | Vector::NP | Vector::SS | Vector::GP | Vector::CP => {
            Class::Contributory
        }
        _ => Class::Benign,
    }
}

/// `second` happened while `first` was delivered (SDM table 6-5). After #DF any exception
/// is a shutdown: a benign one has no handler to return to either.
fn nested(first: IntInfo, second: IntInfo) -> EntryEvent {
    if first.kind() == EventType::HardwareException && first.vector() == Vector::DF {
        return EntryEvent::TripleFault;
    }
    EntryEvent::Inject(match (class(first), class(second)) {
        (Class::Contributory, Class::Contributory)
        | (Class::PageFault, Class::Contributory | Class::PageFault) => {
            IntInfo::new(EventType::HardwareException, Vector::DF, Some(0))
        }
        // Serially: delivering `second` returns to the instruction or event behind
        // `first`, which happens again.
        _ => second,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(vector: Vector, error_code: Option<u32>) -> IntInfo {
        IntInfo::new(EventType::HardwareException, vector, error_code)
    }

    /// `first` interrupted by a VM exit, then `second` injected.
    fn after(first: IntInfo, second: IntInfo) -> EntryEvent {
        let mut queue = EventQueue::new();
        queue.set_exit_intinfo(first.raw()).unwrap();
        queue
            .inject_exception(second.vector(), second.error_code())
            .unwrap();
        let event = queue.take_entry_event();
        assert!(queue.is_empty());
        event
    }

    const DOUBLE_FAULT: EntryEvent = EntryEvent::Inject(IntInfo(0x8000_0b08));

    #[test]
    fn layout_is_the_headers() {
        let gp = exception(Vector::GP, Some(0x1234));
        assert_eq!(gp.raw(), 0x1234_8000_0b0d);
        assert_eq!(gp.entry_field(), 0x8000_0b0d);
        assert_eq!(gp.error_code(), Some(0x1234));
        assert_eq!(gp.kind(), EventType::HardwareException);
        let valid = u64::from(vmm_sys::VM_INTINFO_VALID);
        let ud = exception(Vector::UD, None);
        assert_eq!(
            ud.raw(),
            valid | u64::from(vmm_sys::VM_INTINFO_HWEXCEPTION) | 6
        );
        assert_eq!(RESERVED, u64::from(vmm_sys::VM_INTINFO_RSVD));
        assert_eq!(ERROR_CODE_VALID, u64::from(vmm_sys::VM_INTINFO_DEL_ERRCODE));
        assert_eq!(
            IntInfo::from_raw(valid | u64::from(vmm_sys::VM_INTINFO_SWINTR) | 0x80),
            Ok(Some(IntInfo::new(
                EventType::SoftwareInterrupt,
                Vector(0x80),
                None
            )))
        );
    }

    #[test]
    fn an_exception_is_delivered_once() {
        let mut queue = EventQueue::new();
        assert_eq!(queue.take_entry_event(), EntryEvent::None);
        queue.inject_exception(Vector::PF, Some(2)).unwrap();
        assert_eq!(queue.intinfo(), (0, 0x2_8000_0b0e));
        assert_eq!(
            queue.take_entry_event(),
            EntryEvent::Inject(exception(Vector::PF, Some(2)))
        );
        assert_eq!(queue.intinfo(), (0, 0));
        assert_eq!(queue.take_entry_event(), EntryEvent::None);
    }

    #[test]
    fn what_cannot_be_injected() {
        let mut queue = EventQueue::new();
        assert_eq!(
            queue.inject_exception(Vector::DF, Some(0)),
            Err(Errno::EINVAL)
        );
        assert_eq!(queue.inject_exception(Vector(32), None), Err(Errno::EINVAL));
        assert_eq!(
            queue.inject_exception(Vector(255), None),
            Err(Errno::EINVAL)
        );
        assert!(queue.is_empty());
        queue.inject_exception(Vector::UD, None).unwrap();
        assert_eq!(
            queue.inject_exception(Vector::GP, Some(0)),
            Err(Errno::EBUSY)
        );
        // A bad vector is EINVAL even then, as in vmm.
        assert_eq!(queue.inject_exception(Vector::DF, None), Err(Errno::EINVAL));
        assert_eq!(
            queue.take_entry_event(),
            EntryEvent::Inject(exception(Vector::UD, None))
        );
    }

    #[test]
    fn set_intinfo_takes_what_a_cpu_can_deliver() {
        let mut queue = EventQueue::new();
        let bad = [
            // An NMI is vector 2.
            0x8000_0203,
            // Exceptions are vectors below 32.
            0x8000_0320,
            // Reserved bits.
            0x8000_1000,
            0xc000_0306,
            // Types that no delivery has.
            0x8000_0102,
            0x8000_0700,
        ];
        queue.set_exit_intinfo(0x8000_0202).unwrap();
        for raw in bad {
            assert_eq!(queue.set_exit_intinfo(raw), Err(Errno::EINVAL), "{raw:#x}");
            assert_eq!(queue.intinfo(), (0x8000_0202, 0));
        }
        // Without the valid bit nothing waits, whatever else is there.
        queue.set_exit_intinfo(0x1234_7fff_ffff).unwrap();
        assert_eq!(queue.intinfo(), (0, 0));
        queue.set_exit_intinfo(0x55_8000_0b0d).unwrap();
        assert_eq!(
            queue.take_entry_event(),
            EntryEvent::Inject(exception(Vector::GP, Some(0x55)))
        );
    }

    #[test]
    fn table_6_5() {
        let benign = [
            Vector::DB,
            Vector::BP,
            Vector::UD,
            Vector::NM,
            Vector::AC,
            Vector::MC,
        ];
        let contributory = [
            Vector::DE,
            Vector::TS,
            Vector::NP,
            Vector::SS,
            Vector::GP,
            Vector::CP,
        ];
        let page_fault = [Vector::PF, Vector::VE];
        let serial = |second: Vector| EntryEvent::Inject(exception(second, None));
        for second in benign.into_iter().chain(contributory).chain(page_fault) {
            for first in benign {
                assert_eq!(
                    after(exception(first, None), exception(second, None)),
                    serial(second)
                );
            }
            for first in contributory {
                let expected = if contributory.contains(&second) {
                    DOUBLE_FAULT
                } else {
                    serial(second)
                };
                assert_eq!(
                    after(exception(first, None), exception(second, None)),
                    expected
                );
            }
            for first in page_fault {
                let expected = if benign.contains(&second) {
                    serial(second)
                } else {
                    DOUBLE_FAULT
                };
                assert_eq!(
                    after(exception(first, None), exception(second, None)),
                    expected
                );
            }
            assert_eq!(
                after(exception(Vector::DF, Some(0)), exception(second, None)),
                EntryEvent::TripleFault
            );
        }
    }

    #[test]
    fn only_exceptions_combine() {
        let gp = exception(Vector::GP, Some(0));
        for kind in [
            EventType::ExternalInterrupt,
            EventType::SoftwareInterrupt,
            EventType::SoftwareException,
            EventType::PrivilegedSoftwareException,
        ] {
            // Vector 13 and 8 as interrupts are no #GP and no #DF.
            for vector in [Vector::GP, Vector::DF] {
                let first = IntInfo::new(kind, vector, None);
                assert_eq!(after(first, gp), EntryEvent::Inject(gp));
            }
        }
        let nmi = IntInfo::new(EventType::Nmi, Vector::NMI, None);
        assert_eq!(after(nmi, gp), EntryEvent::Inject(gp));
    }

    proptest::proptest! {
        #[test]
        fn any_intinfo_is_refused_or_kept(raw: u64) {
            let mut queue = EventQueue::new();
            match queue.set_exit_intinfo(raw) {
                Ok(()) if raw & VALID == 0 => assert!(queue.is_empty()),
                Ok(()) => {
                    assert_eq!(queue.intinfo().0, raw);
                    let EntryEvent::Inject(event) = queue.take_entry_event() else {
                        panic!("a valid event was dropped");
                    };
                    assert_eq!(event.entry_field() as u64 & RESERVED, 0);
                    assert_eq!(event.vector().0, raw as u8);
                }
                Err(error) => {
                    assert_eq!(error, Errno::EINVAL);
                    assert!(queue.is_empty());
                }
            }
        }
    }
}
