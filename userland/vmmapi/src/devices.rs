//! Interrupts and the devices in the kernel: local APIC, I/O APIC, the ISA interrupts of
//! the 8259s, HPET, RTC. And memory-mapped registers of those devices, read and written
//! as the guest would.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vmm_sys::ioctl as req;

use crate::platform;
use crate::{Error, Gpa, Vcpu, Vm};

/// How the interrupt controller senses a line (enum vm_intr_trigger).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    Edge,
    Level,
}

/// Whether a vcpu's local APIC has its x2APIC interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum X2apicState {
    Disabled,
    Enabled,
}

impl Vcpu {
    /// An edge-triggered interrupt for this vcpu's local APIC.
    pub fn lapic_irq(&self, vector: u8) -> Result<(), Error> {
        let mut param = vmm_sys::vm_lapic_irq {
            cpuid: self.raw_id(),
            vector: i32::from(vector),
        };
        self.ioctl_on(req::VM_LAPIC_IRQ, vector, &mut param)
    }

    /// Fires an entry of its local vector table (APIC_LVT_*).
    pub fn lapic_local_irq(&self, entry: i32) -> Result<(), Error> {
        let mut param = vmm_sys::vm_lapic_irq {
            cpuid: self.raw_id(),
            vector: entry,
        };
        self.ioctl_on(req::VM_LAPIC_LOCAL_IRQ, entry, &mut param)
    }

    pub fn x2apic_state(&self) -> Result<X2apicState, Error> {
        let mut param = vmm_sys::vm_x2apic {
            cpuid: self.raw_id(),
            ..Default::default()
        };
        self.ioctl(req::VM_GET_X2APIC_STATE, &mut param)?;
        match param.state {
            vmm_sys::X2APIC_DISABLED => Ok(X2apicState::Disabled),
            vmm_sys::X2APIC_ENABLED => Ok(X2apicState::Enabled),
            other => Err(Error::Invalid {
                what: "x2APIC state from the kernel",
                value: u64::from(other),
            }),
        }
    }

    pub fn set_x2apic_state(&self, state: X2apicState) -> Result<(), Error> {
        let state = match state {
            X2apicState::Disabled => vmm_sys::X2APIC_DISABLED,
            X2apicState::Enabled => vmm_sys::X2APIC_ENABLED,
        };
        self.ioctl(
            req::VM_SET_X2APIC_STATE,
            &mut vmm_sys::vm_x2apic {
                cpuid: self.raw_id(),
                state,
            },
        )
    }

    /// Reads `size` bytes (1, 2, 4 or 8) of a device in the kernel at `gpa`.
    pub fn read_kernemu_device(&self, gpa: Gpa, size: u8) -> Result<u64, Error> {
        let mut param = self.kernemu_access(gpa, size, u64::MAX)?;
        self.ioctl_on(req::VM_GET_KERNEMU_DEV, gpa, &mut param)?;
        Ok(param.value)
    }

    /// Writes `size` bytes (1, 2, 4 or 8) of a device in the kernel at `gpa`.
    pub fn write_kernemu_device(&self, gpa: Gpa, size: u8, value: u64) -> Result<(), Error> {
        let mut param = self.kernemu_access(gpa, size, value)?;
        self.ioctl_on(req::VM_SET_KERNEMU_DEV, gpa, &mut param)
    }

    fn kernemu_access(
        &self,
        gpa: Gpa,
        size: u8,
        value: u64,
    ) -> Result<vmm_sys::vm_readwrite_kernemu_device, Error> {
        if !matches!(size, 1 | 2 | 4 | 8) {
            return Err(Error::Invalid {
                what: "access size",
                value: u64::from(size),
            });
        }
        let mut param = vmm_sys::vm_readwrite_kernemu_device {
            vcpuid: self.raw_id(),
            gpa: gpa.0,
            value,
            ..Default::default()
        };
        param.set_access_width(size.trailing_zeros());
        Ok(param)
    }
}

impl Vm {
    /// Fires an entry of the local vector table (APIC_LVT_*) of every vcpu.
    pub fn lapic_local_irq_all(&self, entry: i32) -> Result<(), Error> {
        self.ioctl(
            req::VM_LAPIC_LOCAL_IRQ,
            &mut vmm_sys::vm_lapic_irq {
                cpuid: -1,
                vector: entry,
            },
        )
    }

    /// A message-signalled interrupt, as a device would write it (SDM vol. 3A, 12.11).
    pub fn lapic_msi(&self, addr: u64, msg: u64) -> Result<(), Error> {
        self.ioctl(req::VM_LAPIC_MSI, &mut vmm_sys::vm_lapic_msi { msg, addr })
    }

    pub fn ioapic_assert_irq(&self, irq: i32) -> Result<(), Error> {
        self.ioctl(
            req::VM_IOAPIC_ASSERT_IRQ,
            &mut vmm_sys::vm_ioapic_irq { irq },
        )
    }

    pub fn ioapic_deassert_irq(&self, irq: i32) -> Result<(), Error> {
        self.ioctl(
            req::VM_IOAPIC_DEASSERT_IRQ,
            &mut vmm_sys::vm_ioapic_irq { irq },
        )
    }

    pub fn ioapic_pulse_irq(&self, irq: i32) -> Result<(), Error> {
        self.ioctl(
            req::VM_IOAPIC_PULSE_IRQ,
            &mut vmm_sys::vm_ioapic_irq { irq },
        )
    }

    /// How many pins the I/O APIC has.
    pub fn ioapic_pincount(&self) -> Result<i32, Error> {
        let mut pins = 0;
        self.ioctl(req::VM_IOAPIC_PINCOUNT, &mut pins)?;
        Ok(pins)
    }

    /// Raises a line at the 8259s and, unless it is `None`, at the I/O APIC.
    pub fn isa_assert_irq(&self, atpic_irq: i32, ioapic_irq: Option<i32>) -> Result<(), Error> {
        self.ioctl(req::VM_ISA_ASSERT_IRQ, &mut isa_irq(atpic_irq, ioapic_irq))
    }

    pub fn isa_deassert_irq(&self, atpic_irq: i32, ioapic_irq: Option<i32>) -> Result<(), Error> {
        self.ioctl(
            req::VM_ISA_DEASSERT_IRQ,
            &mut isa_irq(atpic_irq, ioapic_irq),
        )
    }

    pub fn isa_pulse_irq(&self, atpic_irq: i32, ioapic_irq: Option<i32>) -> Result<(), Error> {
        self.ioctl(req::VM_ISA_PULSE_IRQ, &mut isa_irq(atpic_irq, ioapic_irq))
    }

    pub fn isa_set_irq_trigger(&self, atpic_irq: i32, trigger: Trigger) -> Result<(), Error> {
        let trigger = match trigger {
            Trigger::Edge => vmm_sys::EDGE_TRIGGER,
            Trigger::Level => vmm_sys::LEVEL_TRIGGER,
        };
        self.ioctl(
            req::VM_ISA_SET_IRQ_TRIGGER,
            &mut vmm_sys::vm_isa_irq_trigger { atpic_irq, trigger },
        )
    }

    /// The low half of the HPET's capability register.
    pub fn hpet_capabilities(&self) -> Result<u32, Error> {
        let mut param = vmm_sys::vm_hpet_cap::default();
        self.ioctl(req::VM_GET_HPET_CAPABILITIES, &mut param)?;
        Ok(param.capabilities)
    }

    /// A byte of the RTC's NVRAM.
    pub fn rtc_read(&self, offset: u8) -> Result<u8, Error> {
        let mut param = vmm_sys::vm_rtc_data {
            offset: i32::from(offset),
            value: 0,
        };
        self.rtc(req::VM_RTC_READ, offset, &mut param)?;
        Ok(param.value)
    }

    pub fn rtc_write(&self, offset: u8, value: u8) -> Result<(), Error> {
        let mut param = vmm_sys::vm_rtc_data {
            offset: i32::from(offset),
            value,
        };
        self.rtc(req::VM_RTC_WRITE, offset, &mut param)
    }

    fn rtc(
        &self,
        request: req::Ioctl,
        offset: u8,
        param: &mut vmm_sys::vm_rtc_data,
    ) -> Result<(), Error> {
        platform::ioctl(self.device(), request, param)
            .map_err(|e| self.error_of(request, &format!("RTC offset {offset:#x}"), e))
    }

    /// The date and time of the RTC, in whole seconds.
    pub fn rtc_time(&self) -> Result<SystemTime, Error> {
        let mut param = vmm_sys::vm_rtc_time::default();
        self.ioctl(req::VM_RTC_GETTIME, &mut param)?;
        let seconds = Duration::from_secs(param.secs.unsigned_abs());
        let time = if param.secs < 0 {
            UNIX_EPOCH.checked_sub(seconds)
        } else {
            UNIX_EPOCH.checked_add(seconds)
        };
        time.ok_or(Error::Invalid {
            what: "RTC time from the kernel",
            value: param.secs as u64,
        })
    }

    /// Sets it; what is below a second is dropped.
    pub fn rtc_settime(&self, time: SystemTime) -> Result<(), Error> {
        let invalid = |seconds: u64| Error::Invalid {
            what: "RTC time",
            value: seconds,
        };
        let secs = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).map_err(|_| invalid(since.as_secs()))?,
            Err(before) => {
                let secs = before.duration().as_secs();
                -i64::try_from(secs).map_err(|_| invalid(secs))?
            }
        };
        self.ioctl(req::VM_RTC_SETTIME, &mut vmm_sys::vm_rtc_time { secs })
    }
}

/// The structure has -1 for "not at the I/O APIC".
fn isa_irq(atpic_irq: i32, ioapic_irq: Option<i32>) -> vmm_sys::vm_isa_irq {
    vmm_sys::vm_isa_irq {
        atpic_irq,
        ioapic_irq: ioapic_irq.unwrap_or(-1),
    }
}
