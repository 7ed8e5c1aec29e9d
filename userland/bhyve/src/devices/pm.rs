//! ACPI power management at bhyve's ports: the PM1 event and control registers (ACPI 6.5,
//! 4.8.3.1 and 4.8.3.2) and the SMI command port that switches ACPI mode on and off. A
//! write of SLP_EN with SLP_TYP 5 is soft-off (S5), as bhyve's _S5_ object says. The one
//! event is the fixed power button (4.8.3.1.1), which raises the system control interrupt.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use vmmapi::SuspendHow;

use super::{IrqLine, Suspend};
use crate::ports::{PortBus, PortDevice, RegisterError, Width};

pub const PM1A_EVT: u16 = 0x400;
pub const PM1A_EVT_LEN: u16 = 4;
pub const PM1A_CNT: u16 = 0x404;
pub const PM1A_CNT_LEN: u16 = 2;
/// The ACPI timer, where the kernel has one.
pub const PM_TIMER: u16 = 0x408;
pub const SMI_CMD: u16 = 0xb2;

pub const ACPI_ENABLE: u32 = 0xa0;
pub const ACPI_DISABLE: u32 = 0xa1;

/// Of PM1 status: the bits that are cleared by writing 1 (bus master, power button, sleep
/// button, RTC, wake).
const STATUS_CLEARABLE: u16 = 1 << 4 | POWER_BUTTON | 1 << 9 | 1 << 10 | 1 << 15;
/// Of PM1 enable: global lock, power button, RTC.
const ENABLE_WRITABLE: u16 = 1 << 5 | POWER_BUTTON | 1 << 10;
/// Status and enable.
const POWER_BUTTON: u16 = 1 << 8;
const CNT_SCI_EN: u16 = 1 << 0;
const CNT_SLP_TYP_SHIFT: u32 = 10;
const CNT_SLP_TYP: u16 = 7 << CNT_SLP_TYP_SHIFT;
const CNT_SLP_EN: u16 = 1 << 13;
/// Reserved, or write-only (GBL_RLS aside, which reads as zero too).
const CNT_READ_AS_ZERO: u16 = CNT_SLP_EN | 0xc003;
pub const SLP_TYP_S5: u16 = 5;

#[derive(Default)]
struct Registers {
    status: u16,
    enable: u16,
    control: u16,
    /// The level of the system control interrupt.
    sci: bool,
}

struct Shared {
    registers: Mutex<Registers>,
    suspend: Suspend,
    sci: IrqLine,
}

struct Events(Arc<Shared>);
struct Control(Arc<Shared>);
struct SmiCommand(Arc<Shared>);

/// The fixed power button.
#[derive(Clone)]
pub struct PowerButton(Arc<Shared>);

impl PowerButton {
    /// Presses it. False if the guest hasn't switched to ACPI mode, so that nobody listens.
    pub fn press(&self) -> bool {
        let mut registers = self.0.registers();
        if registers.control & CNT_SCI_EN == 0 {
            return false;
        }
        registers.status |= POWER_BUTTON;
        self.0.update_sci(&mut registers);
        true
    }
}

/// Puts the three devices on the bus. `sci` is the level of the system control interrupt.
pub fn register(
    bus: &PortBus,
    suspend: Suspend,
    sci: IrqLine,
) -> Result<PowerButton, RegisterError> {
    let shared = Arc::new(Shared {
        registers: Mutex::default(),
        suspend,
        sci,
    });
    let button = PowerButton(Arc::clone(&shared));
    bus.register(
        "ACPI PM1 events",
        PM1A_EVT,
        PM1A_EVT_LEN,
        Arc::new(Events(Arc::clone(&shared))),
    )?;
    bus.register(
        "ACPI PM1 control",
        PM1A_CNT,
        PM1A_CNT_LEN,
        Arc::new(Control(Arc::clone(&shared))),
    )?;
    bus.register("ACPI SMI command", SMI_CMD, 1, Arc::new(SmiCommand(shared)))?;
    Ok(button)
}

impl Shared {
    fn registers(&self) -> std::sync::MutexGuard<'_, Registers> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The interrupt is asserted as long as an enabled event has its status (4.8.3.1).
    fn update_sci(&self, registers: &mut Registers) {
        let level = registers.status & registers.enable != 0;
        if level != registers.sci {
            registers.sci = level;
            (self.sci)(level);
        }
    }
}

/// A 16-bit register seen through an access at `offset` (even or odd) of it.
fn part(register: u16, offset: u16, width: Width) -> u32 {
    u32::from(register) >> (8 * (offset % 2)) & width.mask()
}

/// The 16 bits that an access at `offset` writes, and which of them it writes.
fn lanes(offset: u16, width: Width, value: u32) -> (u16, u16) {
    let shift = 8 * (offset % 2);
    (
        ((value & width.mask()) << shift) as u16,
        (width.mask() << shift) as u16,
    )
}

impl PortDevice for Events {
    fn widest(&self) -> Width {
        Width::Word
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        let registers = self.0.registers();
        let register = if offset < 2 {
            registers.status
        } else {
            registers.enable
        };
        part(register, offset, width)
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        let (value, written) = lanes(offset, width, value);
        let mut registers = self.0.registers();
        if offset < 2 {
            registers.status &= !(value & STATUS_CLEARABLE);
        } else {
            registers.enable = (registers.enable & !written | value) & ENABLE_WRITABLE;
        }
        self.0.update_sci(&mut registers);
    }
}

impl PortDevice for Control {
    fn widest(&self) -> Width {
        Width::Word
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        part(self.0.registers().control, offset, width)
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        let (value, written) = lanes(offset, width, value);
        let mut registers = self.0.registers();
        let merged = registers.control & !written | value;
        // SCI_EN changes through the SMI command port only.
        registers.control = registers.control & CNT_SCI_EN | merged & !CNT_READ_AS_ZERO;
        let sleep_type = (registers.control & CNT_SLP_TYP) >> CNT_SLP_TYP_SHIFT;
        drop(registers);
        if value & CNT_SLP_EN != 0 && sleep_type == SLP_TYP_S5 {
            (self.0.suspend)(SuspendHow::Poweroff);
        }
    }
}

impl PortDevice for SmiCommand {
    fn read(&self, _offset: u16, _width: Width) -> u32 {
        0
    }

    fn write(&self, _offset: u16, _width: Width, value: u32) {
        let mut registers = self.0.registers();
        match value {
            ACPI_ENABLE => registers.control |= CNT_SCI_EN,
            ACPI_DISABLE => registers.control &= !CNT_SCI_EN,
            // Other commands are for firmware that isn't there.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bus, the ends that were asked for, the button, the levels of the interrupt.
    struct Machine {
        bus: PortBus,
        asked: Arc<Mutex<Vec<SuspendHow>>>,
        button: PowerButton,
        levels: Arc<Mutex<Vec<bool>>>,
    }

    fn machine() -> (PortBus, Arc<Mutex<Vec<SuspendHow>>>) {
        let Machine { bus, asked, .. } = machine_with_button();
        (bus, asked)
    }

    fn machine_with_button() -> Machine {
        let bus = PortBus::default();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let levels = Arc::new(Mutex::new(Vec::new()));
        let sci = Arc::clone(&levels);
        let suspend: Suspend = Arc::new(move |how| log.lock().unwrap().push(how));
        let line = Box::new(move |level| sci.lock().unwrap().push(level));
        let button = register(&bus, suspend, line).unwrap();
        Machine {
            bus,
            asked,
            button,
            levels,
        }
    }

    #[test]
    fn the_power_button_interrupts_until_its_status_is_cleared() {
        let Machine {
            bus,
            button,
            levels,
            ..
        } = machine_with_button();
        assert!(!button.press(), "not in ACPI mode");
        assert_eq!(bus.read(PM1A_EVT, Width::Word), Some(0));
        bus.write(SMI_CMD, Width::Byte, ACPI_ENABLE);
        assert!(button.press());
        assert!(levels.lock().unwrap().is_empty(), "not enabled");
        bus.write(PM1A_EVT + 2, Width::Word, POWER_BUTTON.into());
        assert!(button.press());
        assert_eq!(*levels.lock().unwrap(), [true]);
        bus.write(PM1A_EVT, Width::Word, 1 << 4);
        assert_eq!(levels.lock().unwrap().len(), 1, "another status");
        bus.write(PM1A_EVT, Width::Word, POWER_BUTTON.into());
        assert_eq!(*levels.lock().unwrap(), [true, false]);
        button.press();
        bus.write(PM1A_EVT + 2, Width::Word, 0);
        assert_eq!(*levels.lock().unwrap(), [true, false, true, false]);
    }

    #[test]
    fn s5_powers_off() {
        let (bus, asked) = machine();
        bus.write(PM1A_CNT, Width::Word, 4 << 10 | 1 << 13);
        assert!(asked.lock().unwrap().is_empty(), "S4 is not S5");
        bus.write(PM1A_CNT, Width::Word, 5 << 10);
        assert!(asked.lock().unwrap().is_empty(), "SLP_EN is not set");
        bus.write(PM1A_CNT, Width::Word, 5 << 10 | 1 << 13);
        assert_eq!(*asked.lock().unwrap(), [SuspendHow::Poweroff]);
        assert_eq!(
            bus.read(PM1A_CNT, Width::Word),
            Some(5 << 10),
            "SLP_EN reads as zero"
        );
    }

    #[test]
    fn s5_by_bytes_powers_off_too() {
        let (bus, asked) = machine();
        bus.write(PM1A_CNT, Width::Byte, 0);
        bus.write(PM1A_CNT + 1, Width::Byte, (5 << 10 | 1 << 13) >> 8);
        assert_eq!(*asked.lock().unwrap(), [SuspendHow::Poweroff]);
    }

    #[test]
    fn acpi_mode_is_switched_by_the_smi_command() {
        let (bus, _) = machine();
        bus.write(PM1A_CNT, Width::Word, 1);
        assert_eq!(bus.read(PM1A_CNT, Width::Word), Some(0));
        bus.write(SMI_CMD, Width::Byte, 0xa0);
        assert_eq!(bus.read(PM1A_CNT, Width::Word), Some(1));
        bus.write(PM1A_CNT, Width::Word, 0);
        assert_eq!(
            bus.read(PM1A_CNT, Width::Word),
            Some(1),
            "OSPM can't clear SCI_EN"
        );
        bus.write(SMI_CMD, Width::Byte, 0xa1);
        assert_eq!(bus.read(PM1A_CNT, Width::Word), Some(0));
    }

    #[test]
    fn event_enable_keeps_its_writable_bits_only() {
        let (bus, _) = machine();
        bus.write(PM1A_EVT + 2, Width::Word, 0xffff);
        assert_eq!(bus.read(PM1A_EVT, Width::Dword), Some(0x0520_0000));
        bus.write(PM1A_EVT + 3, Width::Byte, 0);
        assert_eq!(bus.read(PM1A_EVT + 2, Width::Word), Some(0x0020));
    }
}
