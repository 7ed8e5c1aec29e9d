//! Each family of instructions at the device, and where the rules of registers and
//! addresses show: SDM vol. 2's pages of each.

use super::machine::{ANSWER, CLEAR, DEVICE, Io, TestMachine};
use crate::cpu::emulate::alu::{AF, CF, OF, PF, SF, ZF};
use crate::cpu::emulate::{DecodeError, Outcome, decode};
use crate::regs::{CpuMode, Reg, SegReg};

const ALL_ONES: u64 = u64::MAX;

/// RDI at the device, RAX and RCX with a pattern.
fn at_device() -> TestMachine {
    TestMachine::long().with(&[
        (Reg::Rdi, DEVICE),
        (Reg::Rax, 0x0123_4567_89ab_cdef),
        (Reg::Rcx, 0xfedc_ba98_7654_3210),
    ])
}

#[test]
fn mov_loads_all_widths_and_32_bits_clear_the_rest() {
    for (bytes, rax, size) in [
        (&[0x8a, 0x07][..], 0x0123_4567_89ab_cd11, 1),
        (&[0x66, 0x8b, 0x07], 0x0123_4567_89ab_2211, 2),
        (&[0x8b, 0x07], 0x4433_2211, 4),
        (&[0x48, 0x8b, 0x07], ANSWER, 8),
        // AH
        (&[0x8a, 0x27], 0x0123_4567_89ab_11ef, 1),
    ] {
        let mut machine = at_device();
        machine.run(bytes);
        assert_eq!(machine.get(Reg::Rax), rax, "{bytes:02x?}");
        assert_eq!(machine.io, [Io::Read(0, size)]);
        assert_eq!(machine.get(Reg::Rflags), CLEAR);
    }
    // With REX the same number is SPL.
    let mut machine = at_device().with(&[(Reg::Rsp, 0x5500)]);
    machine.run(&[0x40, 0x8a, 0x27]);
    assert_eq!(machine.get(Reg::Rsp), 0x5511);
}

#[test]
fn mov_stores_registers_immediates_and_selectors() {
    for (bytes, io) in [
        (&[0x88, 0x0f][..], Io::Write(0, 1, 0x10)),
        (&[0x88, 0x2f], Io::Write(0, 1, 0x32)),
        (&[0x66, 0x89, 0x4f, 0x10], Io::Write(0x10, 2, 0x3210)),
        (
            &[0x89, 0x8f, 0x00, 0x01, 0x00, 0x00],
            Io::Write(0x100, 4, 0x7654_3210),
        ),
        (&[0x48, 0x89, 0x0f], Io::Write(0, 8, 0xfedc_ba98_7654_3210)),
        (&[0xc6, 0x07, 0x80], Io::Write(0, 1, 0x80)),
        (&[0x66, 0xc7, 0x07, 0x34, 0x12], Io::Write(0, 2, 0x1234)),
        (
            &[0xc7, 0x07, 0x78, 0x56, 0x34, 0x92],
            Io::Write(0, 4, 0x9234_5678),
        ),
        (
            &[0x48, 0xc7, 0x07, 0x78, 0x56, 0x34, 0x92],
            Io::Write(0, 8, 0xffff_ffff_9234_5678),
        ),
        (&[0x0f, 0xc3, 0x0f], Io::Write(0, 4, 0x7654_3210)),
        (&[0x8c, 0x1f], Io::Write(0, 2, 0x18)),
    ] {
        let mut machine = at_device().with(&[(Reg::Ds, 0x18)]);
        machine.run(bytes);
        assert_eq!(machine.io, [io], "{bytes:02x?}");
    }
}

#[test]
fn mov_with_a_memory_offset() {
    let mut machine = at_device();
    machine.run(&[0xa1, 0x08, 0x80, 0, 0, 0, 0, 0, 0]);
    assert_eq!(machine.get(Reg::Rax), 0x4433_2211);
    machine.run(&[0x67, 0xa2, 0x0c, 0x80, 0, 0]);
    assert_eq!(machine.io, [Io::Read(8, 4), Io::Write(0xc, 1, 0x11)]);
    let mut machine = TestMachine::new(CpuMode::Real, false).with(&[(Reg::Rax, 0x1_0042)]);
    machine.run(&[0xa3, 0x10, 0x80]);
    assert_eq!(machine.io, [Io::Write(0x10, 2, 0x42)]);
}

#[test]
fn movzx_movsx_and_movsxd_extend() {
    for (bytes, rax) in [
        (&[0x0f, 0xb6, 0x47, 0x07][..], 0x88),
        (&[0x66, 0x0f, 0xb6, 0x47, 0x07], 0x0123_4567_89ab_0088),
        (&[0x0f, 0xb7, 0x47, 0x06], 0x8877),
        (&[0x0f, 0xbe, 0x47, 0x07], 0xffff_ff88),
        (&[0x48, 0x0f, 0xbe, 0x47, 0x07], 0xffff_ffff_ffff_ff88),
        (&[0x48, 0x0f, 0xbf, 0x47, 0x06], 0xffff_ffff_ffff_8877),
        (&[0x48, 0x63, 0x47, 0x04], 0xffff_ffff_8877_6655),
        (&[0x63, 0x47, 0x04], 0x8877_6655),
    ] {
        let mut machine = at_device();
        machine.run(bytes);
        assert_eq!(machine.get(Reg::Rax), rax, "{bytes:02x?}");
    }
}

#[test]
fn arithmetic_reads_modifies_and_writes_memory_or_a_register() {
    // ADD [rdi], ecx; XOR [rdi], 0x80 (sign-extended); AND ax, [rdi].
    let mut machine = at_device();
    machine.run(&[0x01, 0x0f]);
    assert_eq!(
        machine.io,
        [Io::Read(0, 4), Io::Write(0, 4, 0x4433_2211 + 0x7654_3210)]
    );
    assert_eq!(machine.get(Reg::Rflags), CLEAR | OF | SF | PF);
    let mut machine = at_device();
    machine.run(&[0x83, 0x37, 0x80]);
    assert_eq!(machine.io[1], Io::Write(0, 4, 0x4433_2211 ^ 0xffff_ff80));
    let mut machine = at_device();
    machine.run(&[0x66, 0x23, 0x07]);
    assert_eq!(machine.get(Reg::Rax), 0x0123_4567_89ab_0001);
    assert_eq!(machine.io, [Io::Read(0, 2)]);
    // OR rax, [rdi]
    machine.run(&[0x48, 0x0b, 0x07]);
    assert_eq!(machine.get(Reg::Rax), ANSWER | 0x0123_4567_89ab_0001);
    // NEG and NOT and INC
    let mut machine = at_device().with(&[(Reg::Rflags, CLEAR | CF)]);
    machine.run(&[0xfe, 0x07]);
    assert_eq!(machine.io[1], Io::Write(0, 1, 0x12));
    assert_eq!(machine.get(Reg::Rflags), CLEAR | CF | PF);
    machine.run(&[0xf7, 0x17]);
    assert_eq!(machine.io[3], Io::Write(0, 4, !0x4433_2211 & 0xffff_ffff));
    machine.run(&[0xf6, 0x1f]);
    assert_eq!(machine.io[5], Io::Write(0, 1, 0xef));
    assert_eq!(machine.get(Reg::Rflags), CLEAR | CF | AF | SF);
}

#[test]
fn cmp_and_test_only_read() {
    let mut machine = at_device();
    machine.run(&[0x81, 0x3f, 0x11, 0x22, 0x33, 0x44]);
    assert_eq!(machine.get(Reg::Rflags), CLEAR | ZF | PF);
    machine.run(&[0x3b, 0x07]);
    machine.run(&[0xf6, 0x07, 0x10]);
    assert_eq!(machine.get(Reg::Rflags), CLEAR);
    machine.run(&[0x85, 0x0f]);
    assert_eq!(
        machine.io,
        [
            Io::Read(0, 4),
            Io::Read(0, 4),
            Io::Read(0, 1),
            Io::Read(0, 4)
        ]
    );
}

#[test]
fn bit_tests_select_by_immediate_within_the_operand() {
    // BTS dword [rdi], 35: bit 3.
    let mut machine = at_device();
    machine.run(&[0x0f, 0xba, 0x2f, 35]);
    assert_eq!(machine.io, [Io::Read(0, 4), Io::Write(0, 4, 0x4433_2219)]);
    assert_eq!(machine.get(Reg::Rflags), CLEAR);
    // BTR bit 4, which is set; the other flags stay.
    let mut machine = at_device().with(&[(Reg::Rflags, CLEAR | ZF | OF)]);
    machine.run(&[0x0f, 0xba, 0x37, 4]);
    assert_eq!(machine.io[1], Io::Write(0, 4, 0x4433_2201));
    assert_eq!(machine.get(Reg::Rflags), CLEAR | CF | ZF | OF);
    // BT only reads; BTC flips.
    let mut machine = at_device();
    machine.run(&[0x0f, 0xba, 0x27, 0]);
    machine.run(&[0x0f, 0xba, 0x3f, 0]);
    assert_eq!(
        machine.io,
        [Io::Read(0, 4), Io::Read(0, 4), Io::Write(0, 4, 0x4433_2210)]
    );
}

#[test]
fn bit_tests_by_register_reach_other_operands() {
    // BT [rdi], ecx and rcx: signed, rounded down.
    for (rcx, at, carry) in [
        (33, 0x1004, false),
        (32, 0x1004, true),
        (-1i64 as u64, 0xffc, true),
        (-32i64 as u64, 0xffc, false),
        (-33i64 as u64, 0xff8, false),
        // ECX: the upper half doesn't count.
        (0x7_0000_0020, 0x1004, true),
    ] {
        let mut machine = TestMachine::long().with(&[(Reg::Rdi, 0x1000), (Reg::Rcx, rcx)]);
        machine.poke(0x1004, &[1]);
        machine.poke(0xfff, &[0x80]);
        machine.run(&[0x0f, 0xa3, 0x0f]);
        assert_eq!(machine.translated[0].0, at, "{rcx:#x}");
        assert_eq!(machine.get(Reg::Rflags) & CF != 0, carry, "{rcx:#x}");
    }
    let mut machine = TestMachine::long().with(&[(Reg::Rdi, 0x1000), (Reg::Rcx, 100)]);
    machine.run(&[0x48, 0x0f, 0xab, 0x0f]);
    assert_eq!(machine.peek(0x1008, 8), 1 << 36);
}

#[test]
fn xchg_xadd_and_cmpxchg() {
    let mut machine = at_device();
    machine.run(&[0x87, 0x0f]);
    assert_eq!(machine.io, [Io::Read(0, 4), Io::Write(0, 4, 0x7654_3210)]);
    assert_eq!(machine.get(Reg::Rcx), 0x4433_2211);
    let mut machine = at_device();
    machine.run(&[0xf0, 0x48, 0x0f, 0xc1, 0x0f]);
    let sum = ANSWER.wrapping_add(0xfedc_ba98_7654_3210);
    assert_eq!(machine.io[1], Io::Write(0, 8, sum));
    assert_eq!(machine.get(Reg::Rcx), ANSWER);
    assert_eq!(machine.get(Reg::Rflags), CLEAR | CF | SF | PF);
    // CMPXCHG [rdi], ecx: another value in EAX, then the same.
    let mut machine = at_device();
    machine.run(&[0x0f, 0xb1, 0x0f]);
    assert_eq!(machine.io[1], Io::Write(0, 4, 0x4433_2211), "written back");
    assert_eq!(machine.get(Reg::Rax), 0x4433_2211);
    assert_eq!(machine.get(Reg::Rflags) & ZF, 0);
    machine.run(&[0x0f, 0xb1, 0x0f]);
    assert_eq!(machine.io[3], Io::Write(0, 4, 0x7654_3210));
    assert_eq!(machine.get(Reg::Rflags), CLEAR | ZF | PF);
}

#[test]
fn conditional_moves_and_sets() {
    // CMOVE: it loads and clears the upper half even when it doesn't move.
    let mut machine = at_device();
    machine.run(&[0x0f, 0x44, 0x07]);
    assert_eq!(machine.get(Reg::Rax), 0x89ab_cdef);
    assert_eq!(machine.io, [Io::Read(0, 4)]);
    machine.set(Reg::Rflags, CLEAR | ZF);
    machine.run(&[0x0f, 0x44, 0x07]);
    assert_eq!(machine.get(Reg::Rax), 0x4433_2211);
    // SETG
    let mut machine = at_device();
    machine.run(&[0x0f, 0x9f, 0x07]);
    machine.set(Reg::Rflags, CLEAR | SF);
    machine.run(&[0x0f, 0x9f, 0x07]);
    assert_eq!(machine.io, [Io::Write(0, 1, 1), Io::Write(0, 1, 0)]);
}

#[test]
fn push_and_pop_use_the_stack_of_the_mode() {
    let mut machine = at_device().with(&[(Reg::Rsp, 0x2000)]);
    machine.run(&[0xff, 0x37]);
    assert_eq!(machine.get(Reg::Rsp), 0x1ff8);
    assert_eq!(machine.peek(0x1ff8, 8), ANSWER);
    machine.run(&[0x66, 0xff, 0x37]);
    assert_eq!(machine.get(Reg::Rsp), 0x1ff6);
    machine.run(&[0x66, 0x8f, 0x47, 0x20]);
    assert_eq!(machine.get(Reg::Rsp), 0x1ff8);
    machine.run(&[0x8f, 0x47, 0x30]);
    assert_eq!(
        machine.io[2..],
        [Io::Write(0x20, 2, 0x2211), Io::Write(0x30, 8, ANSWER)]
    );
    // An address by RSP is before the push and after the pop.
    let mut machine = TestMachine::long().with(&[(Reg::Rsp, 0x2000)]);
    machine.poke(0x2000, &[0xaa]);
    machine.run(&[0xff, 0x34, 0x24]);
    assert_eq!(machine.peek(0x1ff8, 8), 0xaa);
    machine.run(&[0x8f, 0x44, 0x24, 0x08]);
    assert_eq!(machine.peek(0x2008, 8), 0xaa);
    // A 16-bit stack segment: SP wraps, the rest of ESP stays.
    let mut machine = TestMachine::new(CpuMode::Protected, true)
        .with(&[(Reg::Rdi, DEVICE), (Reg::Rsp, 0x7_0000)]);
    machine.segment_mut(SegReg::Ss).access = 0x93;
    machine.run(&[0xff, 0x37]);
    assert_eq!(machine.get(Reg::Rsp), 0x7_fffc);
    assert_eq!(machine.peek(0xfffc, 4), 0x4433_2211);
}

#[test]
fn addresses_of_all_kinds() {
    let mut machine = TestMachine::long().with(&[
        (Reg::Rbx, 0x7000),
        (Reg::R12, 0x400),
        (Reg::R13, DEVICE),
        (Reg::Rsi, 0xffff_ffff_0000_7f00),
    ]);
    for (bytes, offset) in [
        // [rbx + r12*4]
        (&[0x42, 0x8b, 0x04, 0xa3][..], 0),
        // [r13 + 8]
        (&[0x41, 0x8b, 0x45, 0x08], 8),
        // [r12*8 + disp32]
        (&[0x42, 0x8b, 0x04, 0xe5, 0x00, 0x60, 0, 0], 0),
        // RIP-relative: 0x100 + 6 + disp
        (&[0x8b, 0x05, 0xfa, 0x7e, 0, 0], 0),
        // RIP-relative with an immediate behind the displacement
        (&[0xc7, 0x05, 0xf6, 0x7e, 0, 0, 1, 0, 0, 0], 0),
        // absolute: SIB without base and index
        (&[0x8b, 0x04, 0x25, 0x44, 0x80, 0, 0], 0x44),
        // 32-bit address size
        (&[0x67, 0x8b, 0x86, 0x00, 0x01, 0, 0], 0),
    ] {
        machine.io.clear();
        machine.run(bytes);
        let at = match machine.io[0] {
            Io::Read(at, 4) | Io::Write(at, 4, _) => at,
            other => panic!("{other:?}"),
        };
        assert_eq!(at, offset, "{bytes:02x?}");
    }
    // 16-bit: [bp + si + disp8] wraps at 64 KiB, in SS.
    let mut machine =
        TestMachine::new(CpuMode::Real, false).with(&[(Reg::Rbp, 0xc000), (Reg::Rsi, 0x5_b000)]);
    machine.segment_mut(SegReg::Ss).base = 0x1000;
    machine.run(&[0x8b, 0x42, 0x04]);
    assert_eq!(machine.io, [Io::Read(4, 2)]);
}

#[test]
fn fs_and_gs_have_bases_in_64_bit_mode_and_the_others_do_not() {
    let mut machine = TestMachine::long().with(&[(Reg::Rdi, 0x10)]);
    machine.segment_mut(SegReg::Gs).base = DEVICE;
    machine.segment_mut(SegReg::Es).base = DEVICE;
    machine.run(&[0x65, 0x8b, 0x07]);
    machine.run(&[0x26, 0x8b, 0x07]);
    assert_eq!(machine.io, [Io::Read(0x10, 4)]);
    // An ES prefix behind GS's takes nothing away.
    machine.run(&[0x65, 0x26, 0x8b, 0x07]);
    assert_eq!(machine.io.len(), 2);
    let mut machine = TestMachine::new(CpuMode::Protected, true).with(&[(Reg::Rdi, 0x10)]);
    machine.segment_mut(SegReg::Es).base = DEVICE;
    machine.run(&[0x26, 0x8b, 0x07]);
    assert_eq!(machine.io, [Io::Read(0x10, 4)]);
}

#[test]
fn operands_on_two_pages_come_in_two_parts() {
    let mut machine = TestMachine::long().with(&[(Reg::Rdi, DEVICE - 3), (Reg::Rcx, ALL_ONES)]);
    machine.poke(DEVICE - 3, &[0xaa, 0xbb, 0xcc]);
    machine.run(&[0x48, 0x8b, 0x07]);
    assert_eq!(machine.get(Reg::Rax), 0x5544_3322_11cc_bbaa);
    machine.run(&[0x89, 0x0f]);
    assert_eq!(machine.io, [Io::Read(0, 5), Io::Write(0, 1, 0xff)]);
    assert_eq!(machine.peek(DEVICE - 4, 4), 0xffff_ff00);
}

#[test]
fn a_single_step_is_told_and_the_resume_flag_ends() {
    const TF: u64 = 1 << 8;
    const RF: u64 = 1 << 16;
    let mut machine = at_device().with(&[(Reg::Rflags, CLEAR | TF | RF)]);
    let outcome = machine.execute(&[0x8b, 0x07]);
    assert_eq!(outcome, Outcome::Done { len: 2, trap: true });
    assert_eq!(machine.get(Reg::Rflags), CLEAR | TF);
}

#[test]
fn what_is_no_instruction_for_here() {
    let long = |bytes: &[u8]| decode(bytes, CpuMode::Long64, false);
    // LOCK with what isn't written, or can't be locked.
    assert_eq!(long(&[0xf0, 0x8b, 0x07]), Err(DecodeError::Invalid));
    assert_eq!(long(&[0xf0, 0x03, 0x07]), Err(DecodeError::Invalid));
    assert_eq!(long(&[0xf0, 0x39, 0x07]), Err(DecodeError::Invalid));
    assert!(long(&[0xf0, 0x01, 0x07]).is_ok());
    // Registers only; SSE; CALL.
    assert_eq!(long(&[0x8b, 0xc7]), Err(DecodeError::Unsupported));
    assert_eq!(long(&[0x0f, 0x10, 0x07]), Err(DecodeError::Unsupported));
    assert_eq!(long(&[0xff, 0x17]), Err(DecodeError::Unsupported));
    // Cut short at each byte.
    let whole = [0x66, 0x41, 0x81, 0x44, 0x24, 0x10, 0x34, 0x12];
    assert_eq!(long(&whole).unwrap().len, 8);
    for len in 0..whole.len() {
        assert_eq!(long(&whole[..len]), Err(DecodeError::Truncated));
    }
    assert_eq!(long(&[0x2e; 20]), Err(DecodeError::TooLong));
}
