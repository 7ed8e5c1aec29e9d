//! Faults as the CPU has them: which vector and error code, and that nothing was done.

use super::machine::{ABSENT, DEVICE, Io, TestMachine};
use crate::cpu::emulate::Outcome;
use crate::exit::Access;
use crate::regs::{CpuMode, Reg, SegReg};
use crate::types::{Gla, Vector};

fn fault(vector: Vector, error_code: u32, cr2: Option<u64>) -> Outcome {
    Outcome::Fault {
        vector,
        error_code: Some(error_code),
        cr2: cr2.map(Gla),
    }
}

#[test]
fn page_faults_tell_the_access_and_the_address() {
    let mut machine = TestMachine::long().with(&[(Reg::Rdi, ABSENT + 0x10)]);
    let at = Some(ABSENT + 0x10);
    assert_eq!(machine.faults(&[0x8b, 0x07]), fault(Vector::PF, 0, at));
    assert_eq!(machine.faults(&[0x89, 0x07]), fault(Vector::PF, 2, at));
    // What reads and writes wants to write.
    assert_eq!(machine.faults(&[0x01, 0x07]), fault(Vector::PF, 2, at));
    assert_eq!(machine.faults(&[0x87, 0x07]), fault(Vector::PF, 2, at));
    assert_eq!(
        machine.faults(&[0x0f, 0xb1, 0x07]),
        fault(Vector::PF, 2, at)
    );
    // CMP and BT only read.
    assert_eq!(machine.faults(&[0x39, 0x07]), fault(Vector::PF, 0, at));
    assert_eq!(
        machine.faults(&[0x0f, 0xba, 0x27, 1]),
        fault(Vector::PF, 0, at)
    );
    machine.paging.cpl = 3;
    assert_eq!(machine.faults(&[0x8b, 0x07]), fault(Vector::PF, 4, at));
}

#[test]
fn a_fault_on_the_second_page_comes_before_the_device_is_touched() {
    let mut machine = TestMachine::long().with(&[(Reg::Rdi, ABSENT - 2)]);
    assert_eq!(
        machine.faults(&[0x89, 0x07]),
        fault(Vector::PF, 2, Some(ABSENT))
    );
    // MOVS from the device to the page that isn't there.
    let mut machine = TestMachine::long().with(&[(Reg::Rsi, DEVICE), (Reg::Rdi, ABSENT)]);
    assert_eq!(machine.faults(&[0xa5]), fault(Vector::PF, 2, Some(ABSENT)));
    // PUSH of a device's register to a stack that isn't there.
    let mut machine = TestMachine::long().with(&[(Reg::Rdi, DEVICE), (Reg::Rsp, ABSENT + 8)]);
    assert_eq!(
        machine.faults(&[0xff, 0x37]),
        fault(Vector::PF, 2, Some(ABSENT))
    );
    // POP to a place that isn't there.
    let mut machine = TestMachine::long().with(&[(Reg::Rdi, ABSENT), (Reg::Rsp, DEVICE)]);
    assert_eq!(
        machine.faults(&[0x8f, 0x07]),
        fault(Vector::PF, 2, Some(ABSENT))
    );
}

#[test]
fn addresses_that_are_not_canonical() {
    let hole = 0x0000_8000_0000_0000;
    let mut machine = TestMachine::long().with(&[(Reg::Rdi, hole), (Reg::Rbp, hole)]);
    assert_eq!(machine.faults(&[0x8b, 0x07]), fault(Vector::GP, 0, None));
    // RBP is the stack's.
    assert_eq!(
        machine.faults(&[0x8b, 0x45, 0x00]),
        fault(Vector::SS, 0, None)
    );
    machine.set(Reg::Rdi, hole - 1);
    assert_eq!(machine.faults(&[0x8b, 0x07]), fault(Vector::GP, 0, None));
}

#[test]
fn limits_and_rights_of_segments() {
    let mut machine =
        TestMachine::new(CpuMode::Protected, true).with(&[(Reg::Rdi, DEVICE), (Reg::Rbp, DEVICE)]);
    machine.segment_mut(SegReg::Ds).limit = DEVICE as u32 + 2;
    assert_eq!(machine.faults(&[0x8b, 0x07]), fault(Vector::GP, 0, None));
    machine.segment_mut(SegReg::Ss).limit = DEVICE as u32 + 2;
    assert_eq!(
        machine.faults(&[0x8b, 0x45, 0x00]),
        fault(Vector::SS, 0, None)
    );
    machine.run(&[0x66, 0x8b, 0x07]);
    assert_eq!(machine.io, [Io::Read(0, 2)]);
    // Read-only data may be read, but not read, changed and written.
    let mut machine = TestMachine::new(CpuMode::Protected, true).with(&[(Reg::Rdi, DEVICE)]);
    machine.segment_mut(SegReg::Ds).access = 0xc091;
    assert_eq!(machine.faults(&[0xff, 0x07]), fault(Vector::GP, 0, None));
    machine.run(&[0x8b, 0x07]);
    // CS can't be written, whatever the prefix says.
    machine.io.clear();
    machine.segment_mut(SegReg::Cs).access = 0xc09b;
    assert_eq!(
        machine.faults(&[0x2e, 0x89, 0x07]),
        fault(Vector::GP, 0, None)
    );
    // Real mode has no rights, but limits.
    let mut machine = TestMachine::new(CpuMode::Real, false).with(&[(Reg::Rdi, 0xffff)]);
    machine.segment_mut(SegReg::Ds).limit = 0xffff;
    assert_eq!(machine.faults(&[0x8b, 0x05]), fault(Vector::GP, 0, None));
}

#[test]
fn alignment_is_checked_where_the_guest_asks_for_it() {
    const AM_AC: u64 = 1 << 18;
    let mut machine = TestMachine::long().with(&[
        (Reg::Rdi, DEVICE + 2),
        (Reg::Cr0, AM_AC),
        (Reg::Rflags, AM_AC | 2),
    ]);
    machine.paging.cpl = 3;
    assert_eq!(machine.faults(&[0x8b, 0x07]), fault(Vector::AC, 0, None));
    machine.run(&[0x66, 0x8b, 0x07]);
    machine.paging.cpl = 0;
    machine.run(&[0x8b, 0x07]);
    // A page fault comes before.
    machine.io.clear();
    machine.paging.cpl = 3;
    machine.set(Reg::Rdi, ABSENT + 1);
    let at = Some(ABSENT + 1);
    assert_eq!(machine.faults(&[0x8b, 0x07]), fault(Vector::PF, 4, at));
}

#[test]
fn accesses_are_translated_for_what_they_do() {
    let mut machine = TestMachine::long().with(&[(Reg::Rsi, 0x1000), (Reg::Rdi, 0x2000)]);
    machine.run(&[0xa4]);
    assert_eq!(
        machine.translated,
        [(0x1000, Access::Read), (0x2000, Access::Write)]
    );
}
