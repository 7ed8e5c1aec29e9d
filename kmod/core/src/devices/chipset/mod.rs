//! The VM's chipset as far as the kernel has it: I/O APIC, two 8259s, 8254, HPET, RTC and
//! ACPI PM timer, and how they are wired to each other and to the local APICs. One struct
//! under one lock: `kmod/src/vm` hands it port and MMIO accesses, userland's interrupt
//! lines and the ticks of one host timer.
//!
//! The wires (MP specification 1.4, 3.6.2 and appendix; as in bhyve): the 8254's OUT0 is the
//! 8259s' IRQ0 and the I/O APIC's input 2, the RTC's is IRQ8 and input 8, and the HPET takes
//! over both in legacy replacement mode. The 8259s' INTR is LINT0 of every local APIC and
//! the I/O APIC's input 0.

mod controllers;

use super::atpic::{self, Irq};
use super::atpit::{self, Atpit};
use super::hpet::Hpet;
use super::ioapic::{self, Pin};
use super::pmtimer::PmTimer;
use super::rtc::Rtc;
use super::{Drive, Nanos, Trigger, Wires};
use crate::types::{Errno, Gpa, Vector};
use controllers::Controllers;

/// Where the I/O APIC's registers are: one page.
pub const IOAPIC_BASE: Gpa = Gpa(0xfec0_0000);
/// Where the HPET's registers are: 1 KiB.
pub const HPET_BASE: Gpa = Gpa(0xfed0_0000);
/// Inputs of the I/O APIC (VM_IOAPIC_PINCOUNT).
pub const IOAPIC_PINS: usize = ioapic::PINS;

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
pub struct Chipset {
    /// The latest time it was told. Callers may have read the clock before they got the
    /// lock, in another order.
    now: Nanos,
    /// When a timer last interrupted.
    fired: Option<Nanos>,
    controllers: Controllers,
    pit: Atpit,
    hpet: Hpet,
    rtc: Rtc,
    pm: PmTimer,
}

/// Port of the ACPI PM timer, as in bhyve.
const PM_TIMER_PORT: u16 = 0x408;
const RTC_INDEX_PORT: u16 = 0x70;
const RTC_DATA_PORT: u16 = 0x71;
/// What a bus shows that nobody drives.
const OPEN_BUS: u8 = 0xff;
/// Timer interrupts are at least so far apart: a guest may not keep the host busy with a
/// count of 2.
const MIN_SPACING: u64 = 50_000;
/// The host's timer is never armed for longer than 30 days: hosts count in other units.
const MAX_WAIT: u64 = 30 * 86_400 * 1_000_000_000;

impl Chipset {
    /// Power-on; the RTC shows `wallclock` (seconds since 1970, UTC).
    pub fn new(now: Nanos, wallclock: i64) -> Self {
        Self {
            now,
            fired: None,
            controllers: Controllers::new(),
            pit: Atpit::new(now),
            hpet: Hpet::new(now),
            rtc: Rtc::new(wallclock, now),
            pm: PmTimer::new(now),
        }
    }

    /// As after a platform reset, for a userland that starts anew: the RTC keeps its time
    /// and its memory, and what userland asserted is forgotten.
    pub fn reset(&mut self, now: Nanos, wires: &mut dyn Wires) {
        // What is due is not delivered any more.
        let now = self.now.max(now);
        self.now = now;
        self.controllers.reset(wires);
        self.pit = Atpit::new(now);
        self.hpet = Hpet::new(now);
        self.rtc.reset();
        self.pm = PmTimer::new(now);
    }

    /// Whether `port` is one of the chipset's.
    pub const fn port(port: u16) -> bool {
        Port::at(port).is_some()
    }

    /// IN of 1, 2 or 4 bytes from one of its ports. As on the ISA bus, a wide access is one
    /// to each byte's port; only the PM timer has a wide register.
    pub fn port_in(&mut self, port: u16, bytes: u8, now: Nanos, wires: &mut dyn Wires) -> u32 {
        let now = self.catch_up(now, wires);
        if port == PM_TIMER_PORT {
            let unread = 32 - 8 * u32::from(bytes.clamp(1, 4));
            return self.pm.read(now) << unread >> unread;
        }
        let mut value = [0; 4];
        for (n, byte) in (0..bytes).zip(&mut value) {
            *byte = match Port::at(port.wrapping_add(n.into())) {
                Some(Port::Pic(register)) => {
                    let byte = self.controllers.pic.read(register);
                    self.controllers.pic_changed(wires);
                    byte
                }
                Some(Port::Pit(register)) => self.pit.read(register, now),
                Some(Port::RtcData) => self.rtc.read(now),
                Some(Port::RtcIndex | Port::PmTimer) | None => OPEN_BUS,
            };
        }
        u32::from_le_bytes(value)
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
        let now = self.catch_up(now, wires);
        for (n, byte) in (0..bytes).zip(value.to_le_bytes()) {
            match Port::at(port.wrapping_add(n.into())) {
                Some(Port::Pic(register)) => {
                    self.controllers.pic.write(register, byte);
                    self.controllers.pic_changed(wires);
                }
                Some(Port::Pit(register)) => {
                    if self.pit.write(register, byte, now) {
                        self.pit_edge(wires);
                    }
                }
                Some(Port::RtcIndex) => self.rtc.select(byte),
                Some(Port::RtcData) => {
                    if self.rtc.write(byte, now) {
                        self.rtc_edge(wires);
                    }
                }
                Some(Port::PmTimer) | None => {}
            }
        }
    }

    /// A load of 1 to 8 bytes from an address for which [`Mmio::at`] has a device.
    pub fn mmio_read(&mut self, gpa: Gpa, bytes: u8, now: Nanos, wires: &mut dyn Wires) -> u64 {
        let now = self.catch_up(now, wires);
        match Mmio::at(gpa) {
            Some(Mmio::Ioapic) => {
                let offset = gpa.0 - IOAPIC_BASE.0;
                self.controllers.ioapic.read(offset, bytes).into()
            }
            Some(Mmio::Hpet) => self.hpet.read(gpa.0 - HPET_BASE.0, bytes, now),
            None => 0,
        }
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
        let now = self.catch_up(now, wires);
        let Self {
            controllers, hpet, ..
        } = self;
        match Mmio::at(gpa) {
            Some(Mmio::Ioapic) => {
                let offset = gpa.0 - IOAPIC_BASE.0;
                controllers.ioapic.write(offset, bytes, value as u32, wires);
            }
            Some(Mmio::Hpet) => {
                let offset = gpa.0 - HPET_BASE.0;
                let out = &mut |output| controllers.hpet(output, wires);
                hpet.write(offset, bytes, value, now, out);
            }
            None => {}
        }
    }

    /// VM_IOAPIC_ASSERT_IRQ, VM_IOAPIC_DEASSERT_IRQ, VM_IOAPIC_PULSE_IRQ. EINVAL for an
    /// input that it hasn't.
    pub fn ioapic_irq(
        &mut self,
        irq: i32,
        drive: Drive,
        wires: &mut dyn Wires,
    ) -> Result<(), Errno> {
        self.controllers.ioapic_irq(irq, drive, wires)
    }

    /// A local APIC's EOI of a level-triggered interrupt.
    pub fn ioapic_eoi(&mut self, vector: Vector, wires: &mut dyn Wires) {
        self.controllers.ioapic.eoi(vector, wires);
    }

    /// VM_ISA_ASSERT_IRQ, VM_ISA_DEASSERT_IRQ, VM_ISA_PULSE_IRQ: on the 8259s, and on the
    /// I/O APIC unless `ioapic_irq` is -1.
    pub fn isa_irq(
        &mut self,
        atpic_irq: i32,
        ioapic_irq: i32,
        drive: Drive,
        wires: &mut dyn Wires,
    ) -> Result<(), Errno> {
        self.controllers
            .isa_irq(atpic_irq, ioapic_irq, drive, wires)
    }

    /// VM_ISA_SET_IRQ_TRIGGER: EINVAL for level on an IRQ that is always edge-triggered.
    pub fn isa_set_trigger(
        &mut self,
        atpic_irq: i32,
        trigger: Trigger,
        wires: &mut dyn Wires,
    ) -> Result<(), Errno> {
        let irq = Irq::from_raw(atpic_irq).ok_or(Errno::EINVAL)?;
        self.controllers.pic.set_trigger(irq, trigger)?;
        self.controllers.pic_changed(wires);
        Ok(())
    }

    /// The master 8259's INTR output.
    pub fn pic_pending(&self) -> bool {
        self.controllers.pic.intr()
    }

    /// The CPU's interrupt acknowledge cycle to the 8259s: the vector, or that of the
    /// spurious interrupt if nothing is pending any more.
    pub fn pic_acknowledge(&mut self, wires: &mut dyn Wires) -> Vector {
        let vector = self.controllers.pic.acknowledge();
        // INTR falls with the acknowledge, so that the next request makes an edge again.
        self.controllers.set_intr(false, wires);
        self.controllers.pic_changed(wires);
        vector
    }

    /// VM_GET_HPET_CAPABILITIES: the general capabilities register.
    pub const fn hpet_capabilities() -> u64 {
        Hpet::capabilities()
    }

    /// VM_RTC_READ: any of the RTC's 128 bytes, without side effects; EINVAL beyond.
    pub fn rtc_read(&mut self, offset: i32, now: Nanos) -> Result<u8, Errno> {
        self.rtc.nvram_read(offset, self.now.max(now))
    }

    /// VM_RTC_WRITE: a byte of memory; EINVAL for the clock's and control registers.
    pub fn rtc_write(&mut self, offset: i32, value: u8) -> Result<(), Errno> {
        self.rtc.nvram_write(offset, value)
    }

    /// VM_RTC_GETTIME: seconds since 1970, -1 while the guest has stopped the clock.
    pub fn rtc_gettime(&mut self, now: Nanos) -> i64 {
        self.rtc.time(self.now.max(now))
    }

    /// VM_RTC_SETTIME: EBUSY while the guest has stopped the clock, EINVAL for a time
    /// before 1970.
    pub fn rtc_settime(
        &mut self,
        secs: i64,
        now: Nanos,
        wires: &mut dyn Wires,
    ) -> Result<(), Errno> {
        let now = self.catch_up(now, wires);
        self.rtc.set_time(secs, now)
    }

    /// When [`Chipset::tick`] is next to be called; `None` if no timer is to interrupt.
    pub fn deadline(&self) -> Option<Nanos> {
        let legacy = self.hpet.replaces_legacy();
        let pit = self.pit.deadline().filter(|_| !legacy);
        let rtc = self.rtc.deadline().filter(|_| !legacy);
        let next = [pit, rtc, self.hpet.deadline()].into_iter().flatten().min();
        let earliest = self.fired.map_or(Nanos(0), |at| at.after(MIN_SPACING));
        let latest = self.now.after(MAX_WAIT);
        next.map(|at| at.max(earliest).min(latest))
    }

    /// Time has come to `now`: what timers had to interrupt by then does. Early, late and
    /// needless calls are harmless.
    pub fn tick(&mut self, now: Nanos, wires: &mut dyn Wires) {
        self.catch_up(now, wires);
    }

    /// Lets the timers do what they had to do by now, before anything else happens. Several
    /// interrupts of one timer that have become due become one.
    fn catch_up(&mut self, now: Nanos, wires: &mut dyn Wires) -> Nanos {
        let now = self.now.max(now);
        self.now = now;
        let mut fired = false;
        let Self {
            controllers, hpet, ..
        } = self;
        hpet.advance(now, &mut |output| {
            fired = true;
            controllers.hpet(output, wires);
        });
        if self.pit.advance(now) {
            fired |= self.pit_edge(wires);
        }
        if self.rtc.advance(now) {
            fired |= self.rtc_edge(wires);
        }
        if fired {
            self.fired = Some(now);
        }
        now
    }

    /// OUT0 rises; true if it is connected.
    fn pit_edge(&mut self, wires: &mut dyn Wires) -> bool {
        let connected = !self.hpet.replaces_legacy();
        if connected {
            self.controllers
                .both(Irq::PIT, Pin::PIT, Drive::Pulse, wires);
        }
        connected
    }

    /// The RTC's IRQ goes active; true if it is connected.
    fn rtc_edge(&mut self, wires: &mut dyn Wires) -> bool {
        let connected = !self.hpet.replaces_legacy();
        if connected {
            self.controllers
                .both(Irq::RTC, Pin::RTC, Drive::Pulse, wires);
        }
        connected
    }
}

/// A port of the chipset's.
enum Port {
    Pic(atpic::Register),
    Pit(atpit::Register),
    RtcIndex,
    RtcData,
    PmTimer,
}

impl Port {
    const fn at(port: u16) -> Option<Self> {
        if let Some(register) = atpic::Register::at(port) {
            return Some(Self::Pic(register));
        }
        if let Some(register) = atpit::Register::at(port) {
            return Some(Self::Pit(register));
        }
        match port {
            RTC_INDEX_PORT => Some(Self::RtcIndex),
            RTC_DATA_PORT => Some(Self::RtcData),
            PM_TIMER_PORT => Some(Self::PmTimer),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
