//! The guest's accesses to the registers: by MMIO in xAPIC mode (SDM vol. 3A, 11.4.1), by
//! RDMSR and WRMSR in x2APIC mode (11.12.1), and those that the CPU has already done to
//! the virtual-APIC page (vol. 3C, 30.4.3.3: APIC-write exits).

use super::error::Error;
use super::register::{ICR_HIGH, ICR_X2APIC_HIGH, Register};
use super::{ApicClock, ApicEffect, ApicMemory, ApicMode, GeneralProtection, LocalApic, Lvt};
use crate::types::Vector;

impl<P: ApicMemory> LocalApic<P> {
    /// A read of the 32-bit register at `offset` from [`super::APIC_BASE`]. A reserved one
    /// is 0, and an error in ESR. Out of xAPIC mode nothing is there: all ones.
    pub fn mmio_read(&mut self, offset: u16, clock: &ApicClock) -> u32 {
        if self.mode() != ApicMode::Xapic {
            return u32::MAX;
        }
        match Register::xapic(offset) {
            Some(register) => self.read(register, offset, clock),
            None => {
                self.error(Error::IllegalRegister);
                0
            }
        }
    }

    /// A write of a 32-bit register. Read-only ones stay as they are.
    pub fn mmio_write(&mut self, offset: u16, value: u32, clock: &ApicClock) -> ApicEffect {
        if self.mode() != ApicMode::Xapic {
            return ApicEffect::None;
        }
        match Register::xapic(offset) {
            Some(register) => self.write(register, value, clock),
            None => {
                self.error(Error::IllegalRegister);
                ApicEffect::None
            }
        }
    }

    /// RDMSR of 0x800 to 0x8ff.
    pub fn msr_read(&mut self, msr: u32, clock: &ApicClock) -> Result<u64, GeneralProtection> {
        let register = self.x2apic_register(msr)?;
        if !register.x2apic_readable() {
            return Err(GeneralProtection);
        }
        let offset = (msr & 0xff) as u16 * 16;
        let low = self.read(register, offset, clock).into();
        Ok(match register {
            Register::IcrLow => low | u64::from(self.page.get(ICR_X2APIC_HIGH)) << 32,
            _ => low,
        })
    }

    /// WRMSR of 0x800 to 0x8ff.
    pub fn msr_write(
        &mut self,
        msr: u32,
        value: u64,
        clock: &ApicClock,
    ) -> Result<ApicEffect, GeneralProtection> {
        let register = self.x2apic_register(msr)?;
        let writable = register.x2apic_writable().ok_or(GeneralProtection)?;
        if value & !writable != 0 {
            return Err(GeneralProtection);
        }
        let low = value as u32;
        Ok(match register {
            Register::IcrLow => self.write_icr(low, (value >> 32) as u32),
            Register::SelfIpi => {
                self.self_ipi(Vector(low as u8));
                ApicEffect::None
            }
            _ => self.write(register, low, clock),
        })
    }

    /// An APIC-write VM exit: the guest's write is in the page at `offset`; this does what
    /// it means, and corrects the page where not every bit could be written.
    pub fn virtual_apic_write(&mut self, offset: u16, clock: &ApicClock) -> ApicEffect {
        let value = self.page.get(offset & 0xffc);
        let x2apic = self.mode() == ApicMode::X2apic;
        match Register::at(offset) {
            Some(Register::IcrLow) if x2apic => {
                self.write_icr(value, self.page.get(ICR_X2APIC_HIGH))
            }
            Some(Register::SelfIpi) if x2apic => {
                self.self_ipi(Vector(value as u8));
                ApicEffect::None
            }
            Some(register) => self.write(register, value, clock),
            // The CPU does this for none but existing registers.
            None => ApicEffect::None,
        }
    }

    fn x2apic_register(&self, msr: u32) -> Result<Register, GeneralProtection> {
        if self.mode() != ApicMode::X2apic {
            return Err(GeneralProtection);
        }
        Register::x2apic(msr).ok_or(GeneralProtection)
    }

    /// What is in the page, but for the two registers that nobody keeps there.
    fn read(&mut self, register: Register, offset: u16, clock: &ApicClock) -> u32 {
        match register {
            Register::CurrentCount => self.current_count(clock),
            Register::Ppr => self.page.ppr().into(),
            Register::Id
            | Register::Version
            | Register::Tpr
            | Register::Ldr
            | Register::Dfr
            | Register::Svr
            | Register::Vectors(_)
            | Register::Esr
            | Register::Lvt(_)
            | Register::IcrLow
            | Register::IcrHigh
            | Register::InitialCount
            | Register::Divide => self.page.get(offset),
            Register::Apr | Register::Eoi | Register::RemoteRead | Register::SelfIpi => 0,
        }
    }

    /// xAPIC mode, and what x2APIC mode does the same way.
    fn write(&mut self, register: Register, value: u32, clock: &ApicClock) -> ApicEffect {
        match register {
            Register::Id => self.store_id(),
            Register::Tpr => self.set_tpr(value as u8),
            Register::Eoi => return self.eoi(),
            Register::Ldr => self.write_ldr(value),
            Register::Dfr => self.write_dfr(value),
            Register::Svr => return self.write_svr(value, clock),
            Register::Esr => self.latch_errors(),
            Register::Lvt(Lvt::Timer) => return self.write_timer_lvt(value, clock),
            Register::Lvt(lvt) => self.write_lvt(lvt, value),
            Register::IcrLow => return self.write_icr(value, self.page.get(ICR_HIGH)),
            Register::IcrHigh => self.page.set(ICR_HIGH, value),
            Register::InitialCount => return self.write_initial_count(value, clock),
            Register::Divide => return self.write_divide(value, clock),
            Register::Version
            | Register::Apr
            | Register::Ppr
            | Register::RemoteRead
            | Register::Vectors(_)
            | Register::CurrentCount
            | Register::SelfIpi => {}
        }
        ApicEffect::None
    }
}
