//! The requests to interrupt controllers and timers, decoded.

use core::mem::offset_of;

use vmm_sys as sys;

use super::decode::vcpu;
use super::fields::{array, get};
use super::request::Request;
use super::table::Command;
use crate::devices::lapic::Lvt;
use crate::devices::{ApicMessage, Drive, Trigger};
use crate::types::{Errno, Gpa, VcpuId, Vector};

/// A request to a device of the kernel.
pub(super) fn decode(command: Command, data: &[u8]) -> Result<Request, Errno> {
    Ok(match command {
        Command::LapicIrq => {
            let vcpu = vcpu(get!(data, sys::vm_lapic_irq, cpuid: i32))?;
            match u8::try_from(get!(data, sys::vm_lapic_irq, vector: i32)) {
                // Lower vectors no local APIC delivers (SDM vol. 3A, 11.5.2).
                Ok(vector @ 16..) => Request::LapicIrq {
                    vcpu,
                    vector: Vector(vector),
                },
                _ => return Err(Errno::EINVAL),
            }
        }
        Command::LapicLocalIrq => Request::LapicLocalIrq {
            vcpu: match get!(data, sys::vm_lapic_irq, cpuid: i32) {
                -1 => None,
                raw => Some(vcpu(raw)?),
            },
            lvt: Lvt::from_raw(get!(data, sys::vm_lapic_irq, vector: i32)).ok_or(Errno::EINVAL)?,
        },
        Command::LapicMsi => {
            let address = get!(data, sys::vm_lapic_msi, addr: u64);
            let message = get!(data, sys::vm_lapic_msi, msg: u64);
            Request::LapicMsi(ApicMessage::from_msi(address, message).ok_or(Errno::EINVAL)?)
        }
        Command::IoapicAssertIrq => ioapic_irq(data, Drive::Assert),
        Command::IoapicDeassertIrq => ioapic_irq(data, Drive::Deassert),
        Command::IoapicPulseIrq => ioapic_irq(data, Drive::Pulse),
        Command::IoapicPincount => Request::IoapicPincount,
        Command::IsaAssertIrq => isa_irq(data, Drive::Assert),
        Command::IsaDeassertIrq => isa_irq(data, Drive::Deassert),
        Command::IsaPulseIrq => isa_irq(data, Drive::Pulse),
        Command::IsaSetIrqTrigger => isa_set_irq_trigger(data)?,
        Command::GetKernemuDev => {
            let (vcpu, gpa, bytes) = kernemu(data)?;
            Request::GetKernemuDev { vcpu, gpa, bytes }
        }
        Command::SetKernemuDev => {
            let (vcpu, gpa, bytes) = kernemu(data)?;
            Request::SetKernemuDev {
                vcpu,
                gpa,
                bytes,
                value: get!(data, sys::vm_readwrite_kernemu_device, value: u64),
            }
        }
        Command::GetHpetCapabilities => Request::GetHpetCapabilities,
        Command::RtcRead => Request::RtcRead {
            offset: get!(data, sys::vm_rtc_data, offset: i32),
        },
        Command::RtcWrite => Request::RtcWrite {
            offset: get!(data, sys::vm_rtc_data, offset: i32),
            value: get!(data, sys::vm_rtc_data, value: u8),
        },
        Command::RtcSettime => Request::RtcSettime {
            seconds: get!(data, sys::vm_rtc_time, secs: i64),
        },
        Command::RtcGettime => Request::RtcGettime,
        other => unreachable!("{other:?} is no device's"),
    })
}

fn ioapic_irq(data: &[u8], drive: Drive) -> Request {
    Request::IoapicIrq {
        irq: get!(data, sys::vm_ioapic_irq, irq: i32),
        drive,
    }
}

fn isa_irq(data: &[u8], drive: Drive) -> Request {
    Request::IsaIrq {
        atpic_irq: get!(data, sys::vm_isa_irq, atpic_irq: i32),
        ioapic_irq: get!(data, sys::vm_isa_irq, ioapic_irq: i32),
        drive,
    }
}

fn isa_set_irq_trigger(data: &[u8]) -> Result<Request, Errno> {
    Ok(Request::IsaSetIrqTrigger {
        atpic_irq: get!(data, sys::vm_isa_irq_trigger, atpic_irq: i32),
        trigger: match get!(data, sys::vm_isa_irq_trigger, trigger: u32) {
            sys::EDGE_TRIGGER => Trigger::Edge,
            sys::LEVEL_TRIGGER => Trigger::Level,
            _ => return Err(Errno::EINVAL),
        },
    })
}

/// The vcpu, the address, and how many bytes there.
fn kernemu(data: &[u8]) -> Result<(VcpuId, Gpa, u8), Errno> {
    // access_width, three bits of a word behind the vcpu's number: a power of two.
    const WIDTH: usize = size_of::<i32>();
    const _: () = assert!(offset_of!(sys::vm_readwrite_kernemu_device, vcpuid) == 0);
    const _: () = assert!(offset_of!(sys::vm_readwrite_kernemu_device, gpa) == WIDTH + 4);
    let width = u32::from_ne_bytes(array(data, WIDTH)) & 7;
    if width > 3 {
        return Err(Errno::EINVAL);
    }
    let vcpu = vcpu(get!(data, sys::vm_readwrite_kernemu_device, vcpuid: i32))?;
    let gpa = get!(data, sys::vm_readwrite_kernemu_device, gpa: u64);
    Ok((vcpu, Gpa(gpa), 1 << width))
}
