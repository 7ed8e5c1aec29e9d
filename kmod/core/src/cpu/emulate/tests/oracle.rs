//! Bytes at random, with every opcode and prefix: what this decoder and iced-x86 make of
//! them must be the same instruction with the same operands.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use iced_x86::{
    Code, CodeSize, Decoder, DecoderError, DecoderOptions, Instruction as Iced, Mnemonic, OpKind,
    Register as IcedRegister,
};
use proptest::prelude::*;

use crate::cpu::emulate::{
    BinaryOp, BitOp, DecodeError, Extend, Instruction, Operation, Register, Rep, Source, StringOp,
    Target, UnaryOp, decode,
};
use crate::regs::{CpuMode, Reg, SegReg};

const PREFIXES: [u8; 11] = [
    0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3,
];

/// The modes by their bitness.
const MODES: [(u32, CpuMode, bool); 3] = [
    (16, CpuMode::Real, false),
    (32, CpuMode::Protected, true),
    (64, CpuMode::Long64, false),
];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let prefixes = prop_oneof![
        3 => Just(vec![]),
        3 => prop::collection::vec(prop::sample::select(&PREFIXES[..]), 1..4),
        1 => prop::collection::vec(prop::sample::select(&PREFIXES[..]), 4..16),
    ];
    let rex = prop_oneof![2 => Just(vec![]), 1 => (0x40u8..0x50).prop_map(|rex| vec![rex])];
    let opcode = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        any::<u8>().prop_map(|byte| vec![0x0f, byte]),
    ];
    let rest = prop::collection::vec(any::<u8>(), 0..14);
    (prefixes, rex, opcode, rest).prop_map(|parts| [parts.0, parts.1, parts.2, parts.3].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn decodes_as_iced_does(bytes in bytes(), mode in 0usize..3) {
        compare(&bytes, MODES[mode]);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..20), mode in 0usize..3) {
        let (_, mode, cs_d) = MODES[mode];
        let _ = decode(&bytes, mode, cs_d);
        let _ = decode(&bytes, CpuMode::Compatibility, !cs_d);
    }
}

/// Each opcode with each ModRM byte and each operand size once.
#[test]
fn every_opcode_and_modrm_as_iced() {
    for mode in MODES {
        for prefix in [
            &[][..],
            &[0x66],
            &[0x67],
            &[0xf0],
            &[0xf3],
            &[0x48],
            &[0x44, 0x66],
        ] {
            for opcode in 0..=0x1ff_u16 {
                let escape: &[u8] = if opcode > 0xff { &[0x0f] } else { &[] };
                for modrm in 0..=0xff {
                    let tail = [
                        opcode as u8,
                        modrm,
                        0x8d,
                        0x71,
                        0x02,
                        0x83,
                        0x94,
                        0xa5,
                        0xb6,
                    ];
                    compare(&[prefix, escape, &tail].concat(), mode);
                }
            }
        }
    }
}

fn compare(bytes: &[u8], (bits, mode, cs_d): (u32, CpuMode, bool)) {
    let mut decoder = Decoder::with_ip(bits, bytes, 0, DecoderOptions::NONE);
    let iced = decoder.decode();
    let context = || {
        format!(
            "{bytes:02x?} in {bits}-bit mode: iced {:?} {iced:?}",
            iced.code()
        )
    };
    match decode(bytes, mode, cs_d) {
        Ok(inst) => {
            assert_ne!(iced.code(), Code::INVALID, "{}: {inst:?}", context());
            assert_eq!(usize::from(inst.len), iced.len(), "{}", context());
            check_operation(&inst, &iced, &context());
            check_address(&inst, &iced, &context());
            assert_eq!(inst.lock, iced.has_lock_prefix(), "{}", context());
        }
        Err(DecodeError::Truncated) => {
            // It may see before the end that there is no such instruction.
            assert_ne!(decoder.last_error(), DecoderError::None, "{}", context());
        }
        Err(DecodeError::TooLong | DecodeError::Invalid) => {
            assert_eq!(iced.code(), Code::INVALID, "{}", context());
        }
        Err(DecodeError::Unsupported) => {
            assert!(!is_ours(&iced), "not decoded: {}", context());
        }
    }
}

/// Whether the decoder is to know it.
fn is_ours(iced: &Iced) -> bool {
    let memory = (0..iced.op_count()).any(|i| iced.op_kind(i) == OpKind::Memory);
    let general = (0..iced.op_count()).all(|i| {
        iced.op_kind(i) != OpKind::Register
            || iced.op_register(i).is_gpr()
            || iced.op_register(i).is_segment_register()
    });
    let string = (0..iced.op_count()).any(|i| {
        matches!(
            iced.op_kind(i),
            OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI
        )
    });
    use Mnemonic::*;
    match iced.mnemonic() {
        Mov => {
            memory
                && general
                && !(iced.op1_kind() == OpKind::Memory && iced.op0_register().is_segment_register())
        }
        Movzx | Movsx | Movsxd | Movnti | Add | Or | Adc | Sbb | And | Sub | Xor | Cmp | Test
        | Inc | Dec | Not | Neg | Bt | Bts | Btr | Btc | Xchg | Xadd | Cmpxchg | Push | Pop
        | Clflush | Clflushopt | Clwb => memory,
        Movsb | Movsw | Movsq | Cmpsb | Cmpsw | Cmpsq | Stosb | Stosw | Stosd | Stosq | Scasb
        | Scasw | Scasd | Scasq | Lodsb | Lodsw | Lodsd | Lodsq => true,
        // SSE has two instructions with the string operations' names.
        Movsd | Cmpsd => string,
        mnemonic => {
            memory
                && (condition_of(mnemonic, "cmov").is_some()
                    || condition_of(mnemonic, "set").is_some())
        }
    }
}

/// The condition's number of CMOVcc or SETcc.
fn condition_of(mnemonic: Mnemonic, family: &str) -> Option<u8> {
    const CONDITIONS: [&str; 16] = [
        "o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g",
    ];
    let name = format!("{mnemonic:?}").to_lowercase();
    let condition = name.strip_prefix(family)?;
    CONDITIONS
        .iter()
        .position(|c| *c == condition)
        .map(|i| i as u8)
}

fn check_operation(inst: &Instruction, iced: &Iced, context: &str) {
    use Mnemonic::*;
    let mnemonic = iced.mnemonic();
    // The operands in iced's order: memory, register or immediate.
    let memory = |i| assert_eq!(iced.op_kind(i), OpKind::Memory, "{context}");
    let register = |i, r: Register| check_register(iced.op_register(i), r, context);
    let source = |i, s: Source| match s {
        Source::Register(r) => register(i, r),
        Source::Immediate(value) => {
            let mask = inst.size.mask();
            assert_eq!(iced.immediate(i) & mask, value as u64 & mask, "{context}");
        }
    };
    let is = |expected| assert_eq!(mnemonic, expected, "{context}");
    match inst.operation {
        Operation::Load { to, extend } => {
            let names: &[Mnemonic] = match extend {
                Extend::Sign => &[Movsx, Movsxd],
                Extend::Zero if to.size == inst.size => &[Mov, Movzx],
                Extend::Zero => &[Movzx],
            };
            assert!(names.contains(&mnemonic), "{context}");
            register(0, to);
            memory(1);
        }
        Operation::Store { from } => {
            assert!(matches!(mnemonic, Mov | Movnti), "{context}");
            memory(0);
            source(1, from);
        }
        Operation::Binary { op, target } => {
            is(match op {
                BinaryOp::Add => Add,
                BinaryOp::Or => Or,
                BinaryOp::Adc => Adc,
                BinaryOp::Sbb => Sbb,
                BinaryOp::And => And,
                BinaryOp::Sub => Sub,
                BinaryOp::Xor => Xor,
                BinaryOp::Cmp => Cmp,
                BinaryOp::Test => Test,
            });
            match target {
                Target::Memory(s) => {
                    memory(0);
                    source(1, s);
                }
                Target::Register(r) => {
                    register(0, r);
                    memory(1);
                }
            }
        }
        Operation::Unary(op) => is(match op {
            UnaryOp::Inc => Inc,
            UnaryOp::Dec => Dec,
            UnaryOp::Not => Not,
            UnaryOp::Neg => Neg,
        }),
        Operation::Bit { op, index } => {
            is(match op {
                BitOp::Bt => Bt,
                BitOp::Bts => Bts,
                BitOp::Btr => Btr,
                BitOp::Btc => Btc,
            });
            if let Source::Immediate(value) = index {
                assert_eq!(iced.immediate8(), value as u8, "{context}");
            } else {
                source(1, index);
            }
        }
        Operation::Cmov { to, condition } => {
            assert_eq!(condition_of(mnemonic, "cmov"), Some(condition), "{context}");
            register(0, to);
        }
        Operation::Set { condition } => {
            assert_eq!(condition_of(mnemonic, "set"), Some(condition), "{context}");
        }
        Operation::Xchg { with } => {
            is(Xchg);
            register(1, with);
        }
        Operation::Xadd { with } => {
            is(Xadd);
            register(1, with);
        }
        Operation::Cmpxchg { new } => {
            is(Cmpxchg);
            register(1, new);
        }
        Operation::Push => is(Push),
        Operation::Pop => is(Pop),
        Operation::CacheLine => {
            assert!(matches!(mnemonic, Clflush | Clflushopt | Clwb), "{context}");
            return;
        }
        Operation::String(op) => {
            let family = match op {
                StringOp::Movs => "movs",
                StringOp::Cmps => "cmps",
                StringOp::Stos => "stos",
                StringOp::Lods => "lods",
                StringOp::Scas => "scas",
            };
            let name = format!("{mnemonic:?}").to_lowercase();
            assert!(name.starts_with(family), "{context}");
            let rep = (iced.has_rep_prefix(), iced.has_repne_prefix());
            let expected = match inst.rep {
                Rep::None => (false, false),
                Rep::Repe => (true, false),
                Rep::Repne => (false, true),
            };
            assert_eq!(rep, expected, "{context}");
        }
    }
    assert_eq!(
        usize::from(inst.size.bytes()),
        iced.memory_size().size(),
        "{context}"
    );
}

fn check_address(inst: &Instruction, iced: &Iced, context: &str) {
    let address = &inst.address;
    if let Operation::String(op) = inst.operation {
        let width = (0..iced.op_count()).find_map(|i| match iced.op_kind(i) {
            OpKind::MemoryESDI | OpKind::MemorySegSI => Some(2),
            OpKind::MemoryESEDI | OpKind::MemorySegESI => Some(4),
            OpKind::MemoryESRDI | OpKind::MemorySegRSI => Some(8),
            _ => None,
        });
        assert_eq!(Some(address.size.bytes()), width, "{context}");
        if matches!(op, StringOp::Movs | StringOp::Cmps | StringOp::Lods) {
            check_segment(inst, iced, SegReg::Ds, context);
        }
        return;
    }
    let default = match address.base {
        Some(Reg::Rsp | Reg::Rbp) => SegReg::Ss,
        _ => SegReg::Ds,
    };
    check_segment(inst, iced, default, context);
    assert_eq!(address.base, full(iced.memory_base()), "{context}");
    assert_eq!(address.index, full(iced.memory_index()), "{context}");
    if address.index.is_some() {
        assert_eq!(
            u32::from(address.scale),
            iced.memory_index_scale(),
            "{context}"
        );
    }
    let mut displacement = address.displacement as u64;
    if address.base == Some(Reg::Rip) {
        // iced gives the sum, from RIP 0.
        displacement = displacement.wrapping_add(inst.len.into());
    }
    let mask = address.size.mask();
    assert_eq!(
        displacement & mask,
        iced.memory_displacement64() & mask,
        "{context}"
    );
    let registers = [iced.memory_base(), iced.memory_index()];
    for register in registers.into_iter().filter(|r| *r != IcedRegister::None) {
        assert_eq!(
            register.size(),
            usize::from(address.size.bytes()),
            "{context}"
        );
    }
}

/// iced names the segment of each prefix, also where only FS and GS count.
fn check_segment(inst: &Instruction, iced: &Iced, default: SegReg, context: &str) {
    let mut expected = general_segment(iced.memory_segment());
    let long = iced.code_size() == CodeSize::Code64;
    if long && !matches!(expected, Some(SegReg::Fs | SegReg::Gs)) {
        expected = Some(default);
    }
    assert_eq!(Some(inst.address.segment), expected, "{context}");
}

fn check_register(iced: IcedRegister, ours: Register, context: &str) {
    if let Some(segment) = general_segment(iced) {
        assert_eq!(ours.reg.segment(), Some(segment), "{context}");
        return;
    }
    let high = matches!(
        iced,
        IcedRegister::AH | IcedRegister::CH | IcedRegister::DH | IcedRegister::BH
    );
    assert_eq!(Some(ours.reg), full(iced), "{context}");
    assert_eq!(ours.high, high, "{context}");
    assert_eq!(usize::from(ours.size.bytes()), iced.size(), "{context}");
}

fn full(iced: IcedRegister) -> Option<Reg> {
    use IcedRegister as I;
    Some(match iced.full_register() {
        I::RAX => Reg::Rax,
        I::RBX => Reg::Rbx,
        I::RCX => Reg::Rcx,
        I::RDX => Reg::Rdx,
        I::RSI => Reg::Rsi,
        I::RDI => Reg::Rdi,
        I::RBP => Reg::Rbp,
        I::RSP => Reg::Rsp,
        I::R8 => Reg::R8,
        I::R9 => Reg::R9,
        I::R10 => Reg::R10,
        I::R11 => Reg::R11,
        I::R12 => Reg::R12,
        I::R13 => Reg::R13,
        I::R14 => Reg::R14,
        I::R15 => Reg::R15,
        I::RIP | I::EIP => Reg::Rip,
        I::None => return None,
        other => panic!("{other:?} in an address or as an operand"),
    })
}

fn general_segment(iced: IcedRegister) -> Option<SegReg> {
    Some(match iced {
        IcedRegister::ES => SegReg::Es,
        IcedRegister::CS => SegReg::Cs,
        IcedRegister::SS => SegReg::Ss,
        IcedRegister::DS => SegReg::Ds,
        IcedRegister::FS => SegReg::Fs,
        IcedRegister::GS => SegReg::Gs,
        _ => return None,
    })
}
