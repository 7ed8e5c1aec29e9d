//! String operations: directions, counts, address sizes, and where they stop.

use super::machine::{ABSENT, CLEAR, DEVICE, Io, TestMachine};
use crate::cpu::emulate::Outcome;
use crate::cpu::emulate::alu::{CF, PF, SF, ZF};
use crate::regs::{CpuMode, Reg, SegReg};
use crate::types::{Gla, Vector};

const DF: u64 = 1 << 10;

fn strings(registers: &[(Reg, u64)]) -> TestMachine {
    TestMachine::long().with(registers)
}

#[test]
fn rep_stos_writes_the_accumulator_count_times() {
    let mut machine = strings(&[(Reg::Rdi, DEVICE), (Reg::Rcx, 3), (Reg::Rax, 0x1_2345)]);
    machine.run(&[0xf3, 0x66, 0xab]);
    assert_eq!(machine.io, [0, 2, 4].map(|at| Io::Write(at, 2, 0x2345)));
    assert_eq!(
        (machine.get(Reg::Rdi), machine.get(Reg::Rcx)),
        (DEVICE + 6, 0)
    );
    // Without REP the count doesn't matter and stays.
    let mut machine = strings(&[(Reg::Rdi, DEVICE)]);
    machine.run(&[0xaa]);
    assert_eq!((machine.io.len(), machine.get(Reg::Rcx)), (1, 0));
    // A count of 0 does nothing, not even a check.
    let mut machine = strings(&[(Reg::Rdi, ABSENT)]);
    machine.run(&[0xf3, 0xab]);
    assert_eq!(machine.translated, []);
}

#[test]
fn movs_goes_both_ways() {
    let mut machine = strings(&[
        (Reg::Rsi, 0x1008),
        (Reg::Rdi, DEVICE + 0x10),
        (Reg::Rcx, 2),
        (Reg::Rflags, CLEAR | DF),
    ]);
    machine.poke(0x1000, &[0, 0, 0, 0, 5, 6, 7, 8, 9, 10, 11, 12]);
    machine.run(&[0xf3, 0xa5]);
    assert_eq!(
        machine.io,
        [
            Io::Write(0x10, 4, 0x0c0b_0a09),
            Io::Write(0xc, 4, 0x0807_0605)
        ]
    );
    assert_eq!(machine.get(Reg::Rsi), 0x1000);
    assert_eq!(machine.get(Reg::Rdi), DEVICE + 8);
    // From the device, by another segment; the destination stays in ES.
    let mut machine =
        TestMachine::new(CpuMode::Protected, true).with(&[(Reg::Rsi, 8), (Reg::Rdi, 0x100)]);
    machine.segment_mut(SegReg::Fs).base = DEVICE;
    machine.segment_mut(SegReg::Es).base = 0x1000;
    machine.run(&[0x64, 0xa5]);
    assert_eq!(machine.io, [Io::Read(8, 4)]);
    assert_eq!(machine.peek(0x1100, 4), 0x4433_2211);
}

#[test]
fn repe_and_repne_stop_at_the_first_difference_or_match() {
    // REPE CMPSB
    let mut machine = strings(&[(Reg::Rsi, 0x1000), (Reg::Rdi, 0x2000), (Reg::Rcx, 9)]);
    machine.poke(0x1000, b"abcd");
    machine.poke(0x2000, b"abxd");
    machine.run(&[0xf3, 0xa6]);
    assert_eq!(machine.get(Reg::Rcx), 6);
    assert_eq!(machine.get(Reg::Rsi), 0x1003);
    // 'c' - 'x'
    let rflags = machine.get(Reg::Rflags);
    assert_eq!(rflags & (CF | ZF | SF), CF | SF);
    // REPNE SCASB
    let mut machine = strings(&[(Reg::Rdi, 0x1000), (Reg::Rcx, 9), (Reg::Rax, 0x64)]);
    machine.poke(0x1000, b"abcd");
    machine.run(&[0xf2, 0xae]);
    assert_eq!((machine.get(Reg::Rdi), machine.get(Reg::Rcx)), (0x1004, 5));
    assert_eq!(machine.get(Reg::Rflags), CLEAR | ZF | PF);
    // REPE SCASB to the end of the count: the flags are the last comparison's.
    let mut machine = strings(&[(Reg::Rdi, 0x3000), (Reg::Rcx, 5)]);
    machine.run(&[0xf3, 0xae]);
    assert_eq!((machine.get(Reg::Rdi), machine.get(Reg::Rcx)), (0x3005, 0));
    assert_eq!(machine.get(Reg::Rflags), CLEAR | ZF | PF);
}

#[test]
fn lods_fills_the_accumulator() {
    let mut machine = strings(&[(Reg::Rsi, DEVICE), (Reg::Rax, u64::MAX)]);
    machine.run(&[0xac]);
    assert_eq!(machine.get(Reg::Rax), 0xffff_ffff_ffff_ff11);
    machine.run(&[0xad]);
    assert_eq!(machine.get(Reg::Rax), 0x5544_3322);
    assert_eq!(machine.get(Reg::Rsi), DEVICE + 5);
}

#[test]
fn the_address_size_says_how_wide_count_and_pointers_are() {
    // 16 bits: DI wraps, the upper parts stay.
    let mut machine = TestMachine::new(CpuMode::Real, false).with(&[
        (Reg::Rdi, 0x5_ffff),
        (Reg::Rcx, 0x7_0001),
        (Reg::Rax, 0x42),
    ]);
    machine.run(&[0xf3, 0xaa]);
    assert_eq!(machine.peek(0xffff, 1), 0x42);
    assert_eq!(machine.get(Reg::Rdi), 0x5_0000);
    assert_eq!(machine.get(Reg::Rcx), 0x7_0000);
    // 32 bits in 64-bit mode: the upper halves are cleared.
    let mut machine = strings(&[(Reg::Rdi, 0x1_0000_8000), (Reg::Rcx, 0x1_0000_0001)]);
    machine.run(&[0xf3, 0x67, 0xab]);
    assert_eq!(machine.get(Reg::Rdi), DEVICE + 4);
    assert_eq!(machine.get(Reg::Rcx), 0);
}

#[test]
fn long_repetitions_come_back_and_go_on() {
    let mut machine = strings(&[(Reg::Rdi, DEVICE), (Reg::Rcx, 150)]);
    let mut times = 0;
    while machine.execute(&[0xf3, 0xaa]) == (Outcome::Repeat { trap: false }) {
        times += 1;
        assert_eq!(machine.get(Reg::Rcx), 150 - machine.io.len() as u64);
        assert_eq!(machine.get(Reg::Rdi), DEVICE + machine.io.len() as u64);
        assert!(times < 10, "no end");
    }
    assert!(times > 0);
    assert_eq!((machine.io.len(), machine.get(Reg::Rcx)), (150, 0));
    // A single step is one iteration.
    let mut machine = strings(&[(Reg::Rdi, DEVICE), (Reg::Rcx, 2), (Reg::Rflags, 0x102)]);
    assert_eq!(
        machine.execute(&[0xf3, 0xaa]),
        Outcome::Repeat { trap: true }
    );
    assert_eq!(machine.io.len(), 1);
    let done = Outcome::Done { len: 2, trap: true };
    assert_eq!(machine.execute(&[0xf3, 0xaa]), done);
}

#[test]
fn a_fault_keeps_the_iterations_before_it() {
    let mut machine = strings(&[(Reg::Rdi, ABSENT - 8), (Reg::Rcx, 10), (Reg::Rax, 7)]);
    let outcome = machine.execute(&[0xf3, 0xab]);
    assert_eq!(
        outcome,
        Outcome::Fault {
            vector: Vector::PF,
            error_code: Some(2),
            cr2: Some(Gla(ABSENT))
        }
    );
    assert_eq!((machine.get(Reg::Rdi), machine.get(Reg::Rcx)), (ABSENT, 8));
    assert_eq!(machine.io, [0xff8, 0xffc].map(|at| Io::Write(at, 4, 7)));
}
