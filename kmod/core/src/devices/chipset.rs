//! The VM's chipset as far as the kernel has it: I/O APIC, two 8259s, 8254, HPET, RTC and
//! ACPI PM timer, and how they are wired to each other and to the local APICs. One struct
//! under one lock: `kmod/src/vm` hands it port and MMIO accesses, userland's interrupt
//! lines and the ticks of one host timer.

use super::{Nanos, Trigger, Wires};
use crate::types::{Errno, Gpa, Vector};

/// Where the I/O APIC's registers are: one page.
pub const IOAPIC_BASE: Gpa = Gpa(0xfec0_0000);
/// Where the HPET's registers are: 1 KiB.
pub const HPET_BASE: Gpa = Gpa(0xfed0_0000);
/// Inputs of the I/O APIC (VM_IOAPIC_PINCOUNT).
pub const IOAPIC_PINS: usize = 32;

/// A device with registers in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mmio {
    Ioapic,
    Hpet,
}

impl Mmio {
    /// The device at `gpa`; `None` if it is none of ours.
    pub const fn at(gpa: Gpa) -> Option<Self> {
        match gpa.0 {
            0xfec0_0000..=0xfec0_0fff => Some(Self::Ioapic),
            0xfed0_0000..=0xfed0_03ff => Some(Self::Hpet),
            _ => None,
        }
    }
}

/// The chipset. Whoever calls a method with a `now` or `wires` asks [`Chipset::deadline`]
/// afterwards and arms the host's timer for it.
pub struct Chipset {}

impl Chipset {
    /// Power-on; the RTC shows `wallclock` (seconds since 1970, UTC).
    pub fn new(now: Nanos, wallclock: i64) -> Self {
        let _ = (now, wallclock);
        Self {}
    }

    /// As after a platform reset: the RTC keeps its time and its NVRAM, and what userland
    /// asserts stays asserted.
    pub fn reset(&mut self, now: Nanos, wires: &mut dyn Wires) {
        let _ = (now, wires);
    }

    /// Whether `port` is one of the chipset's.
    pub const fn port(port: u16) -> bool {
        matches!(
            port,
            0x20 | 0x21 | 0x40..=0x43 | 0x61 | 0x70 | 0x71 | 0xa0 | 0xa1 | 0x408 | 0x4d0 | 0x4d1
        )
    }

    /// IN of 1, 2 or 4 bytes from one of its ports.
    pub fn port_in(&mut self, port: u16, bytes: u8, now: Nanos, wires: &mut dyn Wires) -> u32 {
        let _ = (port, bytes, now, wires);
        u32::MAX
    }

    /// OUT to one of its ports.
    pub fn port_out(
        &mut self,
        port: u16,
        bytes: u8,
        value: u32,
        now: Nanos,
        wires: &mut dyn Wires,
    ) {
        let _ = (port, bytes, value, now, wires);
    }

    /// A load of 1 to 8 bytes from an address for which [`Mmio::at`] has a device.
    pub fn mmio_read(&mut self, gpa: Gpa, bytes: u8, now: Nanos, wires: &mut dyn Wires) -> u64 {
        let _ = (gpa, bytes, now, wires);
        0
    }

    /// A store.
    pub fn mmio_write(
        &mut self,
        gpa: Gpa,
        bytes: u8,
        value: u64,
        now: Nanos,
        wires: &mut dyn Wires,
    ) {
        let _ = (gpa, bytes, value, now, wires);
    }

    /// VM_IOAPIC_ASSERT_IRQ: one more device holds the pin. EINVAL for a pin it hasn't.
    pub fn ioapic_assert(&mut self, irq: i32, wires: &mut dyn Wires) -> Result<(), Errno> {
        let _ = (irq, wires);
        Ok(())
    }

    /// VM_IOAPIC_DEASSERT_IRQ: one device fewer holds the pin.
    pub fn ioapic_deassert(&mut self, irq: i32, wires: &mut dyn Wires) -> Result<(), Errno> {
        let _ = (irq, wires);
        Ok(())
    }

    /// VM_IOAPIC_PULSE_IRQ: assert, then deassert.
    pub fn ioapic_pulse(&mut self, irq: i32, wires: &mut dyn Wires) -> Result<(), Errno> {
        let _ = (irq, wires);
        Ok(())
    }

    /// A local APIC's EOI of a level-triggered interrupt.
    pub fn ioapic_eoi(&mut self, vector: Vector, wires: &mut dyn Wires) {
        let _ = (vector, wires);
    }

    /// VM_ISA_ASSERT_IRQ: on the 8259s, and on the I/O APIC unless `ioapic_irq` is -1.
    pub fn isa_assert(
        &mut self,
        atpic_irq: i32,
        ioapic_irq: i32,
        wires: &mut dyn Wires,
    ) -> Result<(), Errno> {
        let _ = (atpic_irq, ioapic_irq, wires);
        Ok(())
    }

    /// VM_ISA_DEASSERT_IRQ.
    pub fn isa_deassert(
        &mut self,
        atpic_irq: i32,
        ioapic_irq: i32,
        wires: &mut dyn Wires,
    ) -> Result<(), Errno> {
        let _ = (atpic_irq, ioapic_irq, wires);
        Ok(())
    }

    /// VM_ISA_PULSE_IRQ.
    pub fn isa_pulse(
        &mut self,
        atpic_irq: i32,
        ioapic_irq: i32,
        wires: &mut dyn Wires,
    ) -> Result<(), Errno> {
        let _ = (atpic_irq, ioapic_irq, wires);
        Ok(())
    }

    /// VM_ISA_SET_IRQ_TRIGGER: EINVAL for the IRQs that are always edge-triggered.
    pub fn isa_set_trigger(
        &mut self,
        atpic_irq: i32,
        trigger: Trigger,
        wires: &mut dyn Wires,
    ) -> Result<(), Errno> {
        let _ = (atpic_irq, trigger, wires);
        Ok(())
    }

    /// The master 8259's INTR output.
    pub fn pic_pending(&self) -> bool {
        false
    }

    /// The CPU's interrupt acknowledge cycle to the 8259s: the vector, or that of the
    /// spurious interrupt if nothing is pending any more.
    pub fn pic_acknowledge(&mut self, wires: &mut dyn Wires) -> Vector {
        let _ = wires;
        Vector(7)
    }

    /// VM_GET_HPET_CAPABILITIES: the general capabilities register.
    pub const fn hpet_capabilities() -> u64 {
        0
    }

    /// VM_RTC_READ: any of the RTC's 128 bytes, without side effects; EINVAL beyond.
    pub fn rtc_read(&mut self, offset: i32, now: Nanos) -> Result<u8, Errno> {
        let _ = (offset, now);
        Ok(0)
    }

    /// VM_RTC_WRITE: a byte of NVRAM; EINVAL for the clock's and control registers.
    pub fn rtc_write(&mut self, offset: i32, value: u8) -> Result<(), Errno> {
        let _ = (offset, value);
        Ok(())
    }

    /// VM_RTC_GETTIME: seconds since 1970, -1 while the guest has stopped the clock.
    pub fn rtc_gettime(&mut self, now: Nanos) -> i64 {
        let _ = now;
        0
    }

    /// VM_RTC_SETTIME: EBUSY while the guest has stopped the clock.
    pub fn rtc_settime(
        &mut self,
        secs: i64,
        now: Nanos,
        wires: &mut dyn Wires,
    ) -> Result<(), Errno> {
        let _ = (secs, now, wires);
        Ok(())
    }

    /// When [`Chipset::tick`] is next to be called; `None` if no timer is to interrupt.
    pub fn deadline(&self) -> Option<Nanos> {
        None
    }

    /// Time has come to `now`: what timers had to interrupt by then does. Early, late and
    /// needless calls are harmless.
    pub fn tick(&mut self, now: Nanos, wires: &mut dyn Wires) {
        let _ = (now, wires);
    }
}
