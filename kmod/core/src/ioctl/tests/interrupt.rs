//! Requests to interrupt controllers and timers.

use vmm_sys::ioctl::*;

use super::super::{Reply, Request, encode};
use super::{Param, i32_at, u64_at};
use crate::devices::lapic::Lvt;
use crate::devices::{ApicMessage, DeliveryMode, Destination, Drive, Trigger};
use crate::types::Errno::EINVAL;
use crate::types::{Gpa, VcpuId, Vector};

#[test]
fn a_vector_is_one_that_a_local_apic_delivers() {
    let irq = |vector| Param::new(VM_LAPIC_IRQ).i32(0, 2).i32(4, vector).decode();
    for vector in [16, 255] {
        let expected = Request::LapicIrq {
            vcpu: VcpuId(2),
            vector: Vector(vector as u8),
        };
        assert_eq!(irq(vector), Ok(expected));
    }
    for vector in [-1, 0, 15, 256, 256 + 32] {
        assert_eq!(irq(vector), Err(EINVAL), "{vector}");
    }
}

#[test]
fn a_local_interrupt_is_an_entry_of_the_lvt() {
    let irq = |vcpu, lvt| {
        Param::new(VM_LAPIC_LOCAL_IRQ)
            .i32(0, vcpu)
            .i32(4, lvt)
            .decode()
    };
    let expected = |vcpu, lvt| Ok(Request::LapicLocalIrq { vcpu, lvt });
    assert_eq!(irq(-1, 1), expected(None, Lvt::Lint1));
    assert_eq!(irq(3, 6), expected(Some(VcpuId(3)), Lvt::Cmci));
    for (vcpu, lvt) in [(0, -1), (0, 7), (-2, 0), (1024, 0)] {
        assert_eq!(irq(vcpu, lvt), Err(EINVAL), "{vcpu} {lvt}");
    }
}

#[test]
fn an_msi_is_a_message_to_local_apics() {
    let msi = |msg, addr| Param::new(VM_LAPIC_MSI).u64(0, msg).u64(8, addr).decode();
    let message = |destination, mode, vector| {
        Ok(Request::LapicMsi(ApicMessage {
            destination,
            mode,
            vector: Vector(vector),
            // As in FreeBSD, whatever bit 15 says.
            trigger: Trigger::Edge,
        }))
    };
    let physical = Destination::Physical { id: 3, wide: false };
    let logical = Destination::Logical { id: 3, wide: false };
    assert_eq!(
        msi(0x41, 0xfee0_3000),
        message(physical, DeliveryMode::Fixed, 0x41)
    );
    assert_eq!(
        msi(0xc141, 0xfee0_300c),
        message(logical, DeliveryMode::LowestPriority, 0x41)
    );
    // The destination mode counts without the redirection hint, and not the hint alone.
    assert_eq!(
        msi(0x41, 0xfee0_3004),
        message(logical, DeliveryMode::Fixed, 0x41)
    );
    assert_eq!(
        msi(0x41, 0xfee0_3008),
        message(physical, DeliveryMode::Fixed, 0x41)
    );
    for (msg, addr) in [
        (0x341, 0xfee0_0000),
        (0x41, 0xfed0_0000),
        (0x41, 1 << 32 | 0xfee0_0000),
    ] {
        assert_eq!(msi(msg, addr), Err(EINVAL), "{msg:#x} {addr:#x}");
    }
}

#[test]
fn lines_and_pins() {
    let ioapic = |ioctl| Param::new(ioctl).i32(0, 20).decode();
    for (ioctl, drive) in [
        (VM_IOAPIC_ASSERT_IRQ, Drive::Assert),
        (VM_IOAPIC_DEASSERT_IRQ, Drive::Deassert),
        (VM_IOAPIC_PULSE_IRQ, Drive::Pulse),
    ] {
        assert_eq!(ioapic(ioctl), Ok(Request::IoapicIrq { irq: 20, drive }));
    }
    let isa = |ioctl| Param::new(ioctl).i32(0, 4).i32(4, -1).decode();
    for (ioctl, drive) in [
        (VM_ISA_ASSERT_IRQ, Drive::Assert),
        (VM_ISA_DEASSERT_IRQ, Drive::Deassert),
        (VM_ISA_PULSE_IRQ, Drive::Pulse),
    ] {
        let expected = Request::IsaIrq {
            atpic_irq: 4,
            ioapic_irq: -1,
            drive,
        };
        assert_eq!(isa(ioctl), Ok(expected));
    }
    let trigger = |trigger| {
        Param::new(VM_ISA_SET_IRQ_TRIGGER)
            .i32(0, 5)
            .i32(4, trigger)
            .decode()
    };
    for (raw, trigger_mode) in [(0, Trigger::Edge), (1, Trigger::Level)] {
        let expected = Request::IsaSetIrqTrigger {
            atpic_irq: 5,
            trigger: trigger_mode,
        };
        assert_eq!(trigger(raw), Ok(expected));
    }
    assert_eq!(trigger(2), Err(EINVAL));
}

#[test]
fn a_device_register_has_a_width_of_up_to_8_bytes() {
    let get = |width| {
        let param = Param::new(VM_GET_KERNEMU_DEV).i32(0, 1).i32(4, width);
        param.u64(8, 0xfee0_0020).decode()
    };
    // The bits behind the three of the width are not looked at.
    for (width, bytes) in [(0, 1), (1, 2), (2, 4), (3, 8), (8 | 2, 4)] {
        let expected = Request::GetKernemuDev {
            vcpu: VcpuId(1),
            gpa: Gpa(0xfee0_0020),
            bytes,
        };
        assert_eq!(get(width), Ok(expected));
    }
    for width in 4..8 {
        assert_eq!(get(width), Err(EINVAL));
    }
    let set = Param::new(VM_SET_KERNEMU_DEV)
        .i32(0, 1)
        .i32(4, 2)
        .u64(8, 0xfec0_0000);
    let expected = Request::SetKernemuDev {
        vcpu: VcpuId(1),
        gpa: Gpa(0xfec0_0000),
        bytes: 4,
        value: 0x1234,
    };
    assert_eq!(set.u64(16, 0x1234).decode(), Ok(expected));
}

#[test]
fn the_clock_and_its_memory() {
    assert_eq!(
        Param::new(VM_RTC_WRITE)
            .i32(0, 0x34)
            .i32(4, 0xff12)
            .decode(),
        Ok(Request::RtcWrite {
            offset: 0x34,
            value: 0x12
        })
    );
    assert_eq!(
        Param::new(VM_RTC_SETTIME).u64(0, u64::MAX).decode(),
        Ok(Request::RtcSettime { seconds: -1 })
    );
}

#[test]
fn answers() {
    let answer = |ioctl: Ioctl, reply: &Reply<'_>| {
        let mut param = Param::new(ioctl);
        encode(reply, &mut param.bytes);
        param.bytes
    };
    assert_eq!(
        i32_at(&answer(VM_IOAPIC_PINCOUNT, &Reply::IoapicPincount(32)), 0),
        32
    );
    let hpet = answer(
        VM_GET_HPET_CAPABILITIES,
        &Reply::HpetCapabilities(0x8086_a701),
    );
    assert_eq!(i32_at(&hpet, 0) as u32, 0x8086_a701);
    assert_eq!(answer(VM_RTC_READ, &Reply::RtcData(0x26))[4], 0x26);
    assert_eq!(u64_at(&answer(VM_RTC_GETTIME, &Reply::RtcTime(77)), 0), 77);
    let kernemu = answer(VM_GET_KERNEMU_DEV, &Reply::Kernemu(1 << 40));
    assert_eq!(u64_at(&kernemu, 16), 1 << 40);
}
