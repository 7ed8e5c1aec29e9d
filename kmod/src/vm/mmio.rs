//! The kernel's devices in guest-physical memory: the local APIC of the vcpu that accesses
//! it, and the chipset's. Instruction emulation comes here, and the requests
//! VM_GET_KERNEMU_DEV and VM_SET_KERNEMU_DEV.

use vmm_core::devices::chipset::Mmio;
use vmm_core::devices::lapic::{APIC_BASE, ApicMode};
use vmm_core::exit::ExitKind;
use vmm_core::types::{Errno, Gpa, PAGE_SIZE};

use super::Vm;
use super::ops::Platform;
use super::platform::VcpuPlatform;
use super::vcpu::Frozen;

/// Who answers at an address.
#[derive(Clone, Copy)]
pub enum Device {
    LocalApic { offset: u16 },
    Chipset(Mmio),
}

impl Device {
    /// The device of the kernel that is at `gpa`.
    pub fn at(gpa: Gpa) -> Option<Self> {
        if gpa.page_base() == APIC_BASE {
            // Below the page's size.
            let offset = (gpa.get() % PAGE_SIZE) as u16;
            return Some(Self::LocalApic { offset });
        }
        Mmio::at(gpa).map(Self::Chipset)
    }
}

/// Reads `bytes` (1, 2, 4 or 8) at `gpa`.
pub fn read(vm: &Vm, frozen: &mut Frozen<'_>, device: Device, gpa: Gpa, bytes: u8) -> u64 {
    match device {
        Device::LocalApic { offset } => {
            if frozen.contents.apic.mode() != ApicMode::Xapic {
                // Nobody answers there (SDM vol. 3A, 11.12.2).
                return all_ones(bytes);
            }
            let contents = &mut *frozen.contents;
            let clock = contents.backend.apic_clock();
            let register = contents.apic.mmio_read(offset & !0xf, &clock);
            // A register has 32 bits in a line of 16 bytes; narrower reads work in practice.
            let shift = u32::from(offset & 0xf) * 8;
            u64::from(register).checked_shr(shift).unwrap_or(0) & all_ones(bytes)
        }
        Device::Chipset(_) => vm
            .devices
            .access(|chipset, now, wires| chipset.mmio_read(gpa, bytes, now, wires)),
    }
}

/// Writes them. An exit is for the run loop's caller.
pub fn write(
    vm: &Vm,
    frozen: &mut Frozen<'_>,
    device: Device,
    gpa: Gpa,
    bytes: u8,
    value: u64,
) -> Option<ExitKind> {
    match device {
        Device::LocalApic { offset } => {
            if !is_register(offset, bytes) {
                return None;
            }
            let contents = &mut *frozen.contents;
            let clock = contents.backend.apic_clock();
            let effect = contents.apic.mmio_write(offset, value as u32, &clock);
            let vcpu = frozen.vcpu;
            VcpuPlatform { vm, vcpu }.apic_effect(&contents.apic, effect)
        }
        Device::Chipset(_) => {
            vm.devices
                .access(|chipset, now, wires| chipset.mmio_write(gpa, bytes, value, now, wires));
            None
        }
    }
}

/// VM_GET_KERNEMU_DEV. EINVAL where no device is, or for what is no register of the local
/// APIC.
pub fn get(vm: &Vm, frozen: &mut Frozen<'_>, gpa: Gpa, bytes: u8) -> Result<u64, Errno> {
    let device = Device::at(gpa).ok_or(Errno::EINVAL)?;
    match device {
        Device::LocalApic { offset } if offset & 0xc != 0 => Err(Errno::EINVAL),
        Device::LocalApic { .. } | Device::Chipset(_) => Ok(read(vm, frozen, device, gpa, bytes)),
    }
}

/// VM_SET_KERNEMU_DEV.
pub fn set(vm: &Vm, frozen: &mut Frozen<'_>, gpa: Gpa, bytes: u8, value: u64) -> Result<(), Errno> {
    let device = Device::at(gpa).ok_or(Errno::EINVAL)?;
    match device {
        Device::LocalApic { offset } if !is_register(offset, bytes) => return Err(Errno::EINVAL),
        Device::LocalApic { .. } | Device::Chipset(_) => {}
    }
    // No vcpu runs this: an INIT or start-up IPI that it would send goes nowhere.
    let _ = write(vm, frozen, device, gpa, bytes, value);
    Ok(())
}

/// Writes to the local APIC are whole registers (SDM vol. 3A, 11.4.1).
fn is_register(offset: u16, bytes: u8) -> bool {
    offset & 0xf == 0 && bytes == 4
}

/// As wide as the access.
fn all_ones(bytes: u8) -> u64 {
    match bytes {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}
