//! Instruction emulation beside the CPU: the guest runs each instruction on memory, and
//! once more on a device that behaves like memory, where bhyve's emulation executes it.
//! Registers, flags and bytes must come out the same.

use std::sync::Mutex;

use bhyve::inst_emul::{self, Emulated};
use bhyve::mmio::MmioBus;
use vmmapi::{Exit, Gpa, Reg, SegReg};

use crate::machine::{CODE, HOLE, HOLES_PD, Machine, STACK};

crate::tests! {
    sixteen_bit_instructions_do_what_the_cpu_does,
    thirty_two_bit_instructions_do_what_the_cpu_does,
    sixty_four_bit_instructions_do_what_the_cpu_does,
    string_instructions_do_what_the_cpu_does,
    stack_and_rip_relative_operands_do_what_the_cpu_does,
}

/// Where the operands are when they are memory.
const MEMORY: u64 = 0x2_0000;
/// Bytes of operands that are compared.
const LEN: usize = 0x200;
/// Of the operand within them.
const AT: u64 = 0x100;

const STATUS: u64 = 0x8d5;
const DF: u64 = 1 << 10;

/// Registers that an instruction may change: the general ones and RFLAGS.
fn compared() -> [Reg; 17] {
    std::array::from_fn(|n| *Reg::GENERAL.get(n).unwrap_or(&Reg::Rflags))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Real,
    Protected,
    Long,
}

/// What stands behind the ModRM byte.
#[derive(Clone, Copy)]
enum Imm {
    None,
    Byte,
    /// As wide as the operand, but 32 bits at most.
    Full,
}

/// Instructions with a ModRM byte: opcode, its reg field (a register or part of the
/// opcode), immediate, and the operand size in bytes if the opcode fixes it.
type Form = (&'static [u8], u8, Imm, Option<u8>);

#[rustfmt::skip]
const FORMS: &[Form] = &[
    // MOV, MOVZX, MOVSX, MOVNTI
    (&[0x88], 1, Imm::None, Some(1)), (&[0x88], 5, Imm::None, Some(1)), (&[0x89], 1, Imm::None, None),
    (&[0x8a], 1, Imm::None, Some(1)), (&[0x8a], 7, Imm::None, Some(1)), (&[0x8b], 1, Imm::None, None),
    (&[0xc6], 0, Imm::Byte, Some(1)), (&[0xc7], 0, Imm::Full, None),
    (&[0x0f, 0xb6], 2, Imm::None, None), (&[0x0f, 0xb7], 2, Imm::None, None),
    (&[0x0f, 0xbe], 2, Imm::None, None), (&[0x0f, 0xbf], 2, Imm::None, None),
    // ADD, OR, ADC, SBB, AND, SUB, XOR, CMP
    (&[0x00], 1, Imm::None, Some(1)), (&[0x01], 1, Imm::None, None), (&[0x02], 1, Imm::None, Some(1)), (&[0x03], 1, Imm::None, None),
    (&[0x08], 1, Imm::None, Some(1)), (&[0x09], 1, Imm::None, None), (&[0x0a], 5, Imm::None, Some(1)), (&[0x0b], 1, Imm::None, None),
    (&[0x10], 1, Imm::None, Some(1)), (&[0x11], 1, Imm::None, None), (&[0x12], 1, Imm::None, Some(1)), (&[0x13], 1, Imm::None, None),
    (&[0x18], 1, Imm::None, Some(1)), (&[0x19], 1, Imm::None, None), (&[0x1a], 1, Imm::None, Some(1)), (&[0x1b], 1, Imm::None, None),
    (&[0x20], 1, Imm::None, Some(1)), (&[0x21], 1, Imm::None, None), (&[0x22], 1, Imm::None, Some(1)), (&[0x23], 1, Imm::None, None),
    (&[0x28], 1, Imm::None, Some(1)), (&[0x29], 1, Imm::None, None), (&[0x2a], 1, Imm::None, Some(1)), (&[0x2b], 1, Imm::None, None),
    (&[0x30], 1, Imm::None, Some(1)), (&[0x31], 1, Imm::None, None), (&[0x32], 1, Imm::None, Some(1)), (&[0x33], 1, Imm::None, None),
    (&[0x38], 1, Imm::None, Some(1)), (&[0x39], 1, Imm::None, None), (&[0x3a], 1, Imm::None, Some(1)), (&[0x3b], 1, Imm::None, None),
    (&[0x80], 0, Imm::Byte, Some(1)), (&[0x81], 1, Imm::Full, None), (&[0x83], 2, Imm::Byte, None), (&[0x81], 3, Imm::Full, None),
    (&[0x80], 4, Imm::Byte, Some(1)), (&[0x83], 5, Imm::Byte, None), (&[0x81], 6, Imm::Full, None), (&[0x83], 7, Imm::Byte, None),
    // TEST, NOT, NEG, INC, DEC
    (&[0x84], 1, Imm::None, Some(1)), (&[0x85], 1, Imm::None, None), (&[0xf6], 0, Imm::Byte, Some(1)), (&[0xf7], 0, Imm::Full, None),
    (&[0xf6], 2, Imm::None, Some(1)), (&[0xf7], 2, Imm::None, None), (&[0xf6], 3, Imm::None, Some(1)), (&[0xf7], 3, Imm::None, None),
    (&[0xfe], 0, Imm::None, Some(1)), (&[0xff], 0, Imm::None, None), (&[0xfe], 1, Imm::None, Some(1)), (&[0xff], 1, Imm::None, None),
    // BT, BTS, BTR, BTC (the register's index stays near: CX is small in one of the inputs)
    (&[0x0f, 0xa3], 2, Imm::None, None), (&[0x0f, 0xab], 2, Imm::None, None),
    (&[0x0f, 0xb3], 2, Imm::None, None), (&[0x0f, 0xbb], 2, Imm::None, None),
    (&[0x0f, 0xba], 4, Imm::Byte, None), (&[0x0f, 0xba], 5, Imm::Byte, None),
    (&[0x0f, 0xba], 6, Imm::Byte, None), (&[0x0f, 0xba], 7, Imm::Byte, None),
    // XCHG, XADD, CMPXCHG, with LOCK as well
    (&[0x86], 1, Imm::None, Some(1)), (&[0x87], 1, Imm::None, None),
    (&[0x0f, 0xc0], 1, Imm::None, Some(1)), (&[0x0f, 0xc1], 1, Imm::None, None),
    (&[0x0f, 0xb0], 1, Imm::None, Some(1)), (&[0x0f, 0xb1], 1, Imm::None, None),
    // CMOVcc, SETcc
    (&[0x0f, 0x44], 1, Imm::None, None), (&[0x0f, 0x4d], 1, Imm::None, None), (&[0x0f, 0x46], 1, Imm::None, None),
    (&[0x0f, 0x92], 0, Imm::None, Some(1)), (&[0x0f, 0x9f], 0, Imm::None, Some(1)), (&[0x0f, 0x9b], 0, Imm::None, Some(1)),
];

/// Operand and register values in which carries, signs and equalities happen.
const VALUES: [(u64, u64); 6] = [
    (0x8000_0000_8000_8080, 0x8000_0000_8000_8080),
    (0xffff_ffff_ffff_ffff, 1),
    (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210),
    (0, 0x7fff_ffff_7fff_7f7f),
    (0x7f7f_7f7f_7f7f_7f7f, 0xffff_ffff_ffff_ff80),
    (0x1111_2222_3333_4444, 0x1111_2222_3333_4444),
];

fn sixteen_bit_instructions_do_what_the_cpu_does() {
    forms(Mode::Real);
}

fn thirty_two_bit_instructions_do_what_the_cpu_does() {
    forms(Mode::Protected);
}

fn sixty_four_bit_instructions_do_what_the_cpu_does() {
    forms(Mode::Long);
}

/// All forms in all operand sizes of the mode.
fn forms(mode: Mode) {
    let pair = Pair::new(mode);
    for (n, &(opcode, reg, imm, fixed)) in FORMS.iter().enumerate() {
        for size in sizes(mode, fixed) {
            for (v, &(memory, register)) in VALUES.iter().enumerate() {
                let mut code = prefix(mode, size);
                code.extend(opcode);
                // [di], [edi] or [rdi]
                code.push(reg << 3 | if mode == Mode::Real { 5 } else { 7 });
                let imm_bytes: &[u8] = match (imm, size) {
                    (Imm::None, _) => &[],
                    (Imm::Byte, _) => &[0x93],
                    (Imm::Full, 2) => &[0x34, 0x92],
                    (Imm::Full, _) => &[0x78, 0x56, 0x34, 0x92],
                };
                code.extend(imm_bytes);
                // Bit numbers (DX) are about the operand; the accumulator is equal or not.
                let rdx = [3, 17, 63, 70, -5i64 as u64, 1000][v];
                let rax = if v % 2 == 0 { memory } else { !memory };
                let flags = if (n + v) % 2 == 0 { STATUS } else { 0 };
                pair.compare(
                    &code,
                    memory,
                    &[
                        (Reg::Rax, rax),
                        (Reg::Rcx, register),
                        (Reg::Rdx, rdx),
                        (Reg::Rbx, register.rotate_left(24)),
                        (Reg::Rflags, 2 | flags),
                    ],
                    &[(Reg::Rdi, AT)],
                );
            }
        }
    }
    // The accumulator at an address in the instruction: the segment has the base.
    if mode == Mode::Real {
        for code in [
            &[0xa0, 0x00, 0x01][..],
            &[0xa3, 0x00, 0x01],
            &[0x66, 0xa1, 0x00, 0x01],
        ] {
            pair.compare(code, VALUES[2].0, &[(Reg::Rax, VALUES[2].1)], &[]);
        }
    }
    if mode == Mode::Protected {
        for code in [
            &[0xa2, 0x00, 0x01, 0, 0][..],
            &[0xa1, 0x00, 0x01, 0, 0],
            &[0x67, 0xa3, 0x00, 0x01],
        ] {
            pair.compare(code, VALUES[2].0, &[(Reg::Rax, VALUES[2].1)], &[]);
        }
    }
    if mode == Mode::Long {
        let registers = [(Reg::R9, VALUES[1].0), (Reg::Rax, 5), (Reg::Rsp, STACK)];
        // MOVSXD; mov [r12 + 4*rax - 8], r9; mov sil, [r13]; lock add.
        for code in [
            &[0x4c, 0x63, 0x0f][..],
            &[0x4d, 0x89, 0x4c, 0x84, 0xf8],
            &[0x41, 0x8a, 0x75, 0x00],
            &[0xf0, 0x4c, 0x01, 0x0f],
        ] {
            let pointers = [(Reg::Rdi, AT), (Reg::R12, AT - 0x10), (Reg::R13, AT)];
            pair.compare(code, VALUES[4].0, &registers, &pointers);
        }
    }
}

/// MOVS, CMPS, STOS, LODS and SCAS: alone and repeated, up and down.
fn string_instructions_do_what_the_cpu_does() {
    for mode in [Mode::Real, Mode::Protected, Mode::Long] {
        let pair = Pair::new(mode);
        for opcode in [0xa4, 0xa6, 0xaa, 0xac, 0xae] {
            for wide in [0, 1] {
                for rep in [&[][..], &[0xf3], &[0xf2]] {
                    for (count, flags) in [(7, 0), (5, DF), (100, 0), (0, 0)] {
                        let size = sizes(mode, (wide == 0).then_some(1))[0];
                        let mut code = rep.to_vec();
                        code.extend(prefix(mode, size));
                        code.push(opcode | wide);
                        let registers = [
                            (Reg::Rax, 0x1122_3344_5566_7788),
                            (Reg::Rcx, count),
                            (Reg::Rflags, 2 | flags),
                        ];
                        let pointers = [(Reg::Rdi, AT), (Reg::Rsi, AT - 0x20)];
                        pair.compare(&code, 0x7788_7788_7788_7788, &registers, &pointers);
                    }
                }
            }
        }
    }
}

/// PUSH and POP with the operand at the device and the stack in memory; RIP-relative.
fn stack_and_rip_relative_operands_do_what_the_cpu_does() {
    for mode in [Mode::Real, Mode::Protected, Mode::Long] {
        let pair = Pair::new(mode);
        let rm = if mode == Mode::Real { 5 } else { 7 };
        for operand_prefix in [&[][..], &[0x66]] {
            for (opcode, reg) in [(0xff, 6), (0x8f, 0)] {
                let code = [operand_prefix, &[opcode, reg << 3 | rm]].concat();
                let registers = [(Reg::Rsp, STACK), (Reg::Rflags, 2)];
                pair.compare(&code, VALUES[2].0, &registers, &[(Reg::Rdi, AT)]);
            }
        }
    }
    // RIP-relative to the hole: the code is where it reaches that far.
    let m = Machine::long(&[]);
    let at = HOLE - 0x40;
    let bus = Ram::new(0x5566_7788);
    let displacement = (HOLE + AT).wrapping_sub(at + 10) as u32;
    let mut code = vec![0x81, 0x05];
    code.extend(displacement.to_le_bytes());
    code.extend([0x01, 0, 0, 0]);
    // The page below the hole is no memory either: the bytes are those of another place,
    // mapped there by the page tables.
    let memory = m.vm.memory();
    let page = 0x20_0000;
    memory.copy_to(Gpa(page + (at & 0x1f_ffff)), &code).unwrap();
    let below = (at >> 21) & 0x1ff;
    memory
        .write(Gpa(HOLES_PD + 8 * below), page | 0x83)
        .unwrap();
    m.cpu.set_register(Reg::Rip, at).unwrap();
    let exit = m.run();
    let Exit::InstEmul(emul) = exit.exit else {
        panic!("{exit:?}")
    };
    let done = inst_emul::emulate(&m.cpu, &exit, &emul, &bus).unwrap();
    assert_eq!((done, emul.gpa), (Emulated::Done, Gpa(HOLE + AT)));
    assert_eq!(bus.operand() as u32, 0x5566_7789);
}

/// The operand sizes of an instruction in a mode, in bytes.
fn sizes(mode: Mode, fixed: Option<u8>) -> Vec<u8> {
    match (fixed, mode) {
        (Some(size), _) => vec![size],
        (None, Mode::Real | Mode::Protected) => vec![2, 4],
        (None, Mode::Long) => vec![2, 4, 8],
    }
}

/// The prefix that selects an operand size.
fn prefix(mode: Mode, size: u8) -> Vec<u8> {
    match (mode, size) {
        (Mode::Real, 4) | (Mode::Protected | Mode::Long, 2) => vec![0x66],
        (Mode::Long, 8) => vec![0x48],
        _ => vec![],
    }
}

/// A device of [`LEN`] bytes at [`HOLE`] that behaves like memory.
struct Ram(Mutex<Vec<u8>>);

impl Ram {
    fn new(operand: u64) -> Self {
        Self(Mutex::new(contents(operand)))
    }

    fn operand(&self) -> u64 {
        let bytes = self.0.lock().unwrap();
        u64::from_le_bytes(bytes[AT as usize..][..8].try_into().unwrap())
    }

    fn place(gpa: Gpa, size: u8) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(gpa.get().checked_sub(HOLE)?).ok()?;
        let end = start + usize::from(size);
        (end <= LEN).then_some(start..end)
    }
}

impl MmioBus for Ram {
    fn read(&self, gpa: Gpa, size: u8) -> Option<u64> {
        let place = Self::place(gpa, size)?;
        let mut value = [0; 8];
        value[..place.len()].copy_from_slice(&self.0.lock().unwrap()[place]);
        Some(u64::from_le_bytes(value))
    }

    fn write(&self, gpa: Gpa, size: u8, value: u64) -> bool {
        let Some(place) = Self::place(gpa, size) else {
            return false;
        };
        let len = place.len();
        self.0.lock().unwrap()[place].copy_from_slice(&value.to_le_bytes()[..len]);
        true
    }
}

/// What the operands' bytes are at first.
fn contents(operand: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..LEN).map(|i| (i / 3) as u8).collect();
    bytes[AT as usize..][..8].copy_from_slice(&operand.to_le_bytes());
    bytes
}

/// A VM whose guest runs an instruction twice.
struct Pair {
    m: Machine,
    mode: Mode,
}

/// What an instruction left: registers less the operands' base, and their bytes.
#[derive(PartialEq, Eq, Debug)]
struct After {
    registers: Vec<(Reg, u64)>,
    operands: Vec<u8>,
    stack: Vec<u8>,
}

impl Pair {
    fn new(mode: Mode) -> Self {
        let m = match mode {
            Mode::Real => Machine::real(&[]),
            Mode::Protected => Machine::protected(&[]),
            Mode::Long => Machine::long(&[]),
        };
        Self { m, mode }
    }

    /// Runs `code` on both. `pointers` are relative to the operands: the segments have
    /// their base, in 64-bit mode the registers.
    fn compare(
        &self,
        code: &[u8],
        operand: u64,
        registers: &[(Reg, u64)],
        pointers: &[(Reg, u64)],
    ) {
        let native = self.run(code, operand, registers, pointers, MEMORY, None);
        let device = Ram::new(operand);
        let emulated = self.run(code, operand, registers, pointers, HOLE, Some(&device));
        assert_eq!(
            emulated, native,
            "{code:02x?} in {:?} mode on {operand:#x} with {registers:x?}",
            self.mode
        );
    }

    fn run(
        &self,
        code: &[u8],
        operand: u64,
        registers: &[(Reg, u64)],
        pointers: &[(Reg, u64)],
        base: u64,
        device: Option<&Ram>,
    ) -> After {
        let Machine { vm, cpu } = &self.m;
        let memory = vm.memory();
        memory
            .copy_to(Gpa(CODE), &[code, &[0xe6, 0x80]].concat())
            .unwrap();
        memory.copy_to(Gpa(MEMORY), &contents(operand)).unwrap();
        memory.copy_to(Gpa(STACK - 0x10), &[0x5a; 0x20]).unwrap();
        let mut initial: Vec<(Reg, u64)> = compared().map(|reg| (reg, 0)).to_vec();
        let mut set = |reg: Reg, value| {
            if let Some(entry) = initial.iter_mut().find(|(r, _)| *r == reg) {
                entry.1 = value;
            }
        };
        set(Reg::Rflags, 2);
        set(Reg::Rsp, STACK);
        let moved = if self.mode == Mode::Long { base } else { 0 };
        registers.iter().for_each(|(reg, value)| set(*reg, *value));
        pointers
            .iter()
            .for_each(|(reg, value)| set(*reg, *value + moved));
        if self.mode != Mode::Long {
            for seg in [SegReg::Ds, SegReg::Es] {
                let desc = cpu.desc(seg).unwrap();
                cpu.set_desc(seg, vmmapi::SegDesc { base, ..desc }).unwrap();
                // The registers of 32-bit modes.
                initial
                    .iter_mut()
                    .for_each(|(_, value)| *value &= 0xffff_ffff);
            }
        }
        initial.push((Reg::Rip, CODE));
        cpu.set_registers(&initial).unwrap();
        loop {
            let exit = self.m.run();
            match (exit.exit, device) {
                (Exit::Inout(_), _) => {
                    assert_eq!(exit.rip, CODE + code.len() as u64, "{code:02x?}");
                    break;
                }
                (Exit::InstEmul(emul), Some(device)) => {
                    match inst_emul::emulate(cpu, &exit, &emul, device) {
                        Ok(Emulated::Done) => {}
                        Ok(Emulated::Repeat) => cpu.restart_instruction().unwrap(),
                        other => panic!("{code:02x?}: {other:?} at {:?}", emul.gpa),
                    }
                }
                (other, _) => panic!("{code:02x?}: {other:?} at {:#x}", exit.rip),
            }
        }
        let values = cpu.registers(compared()).unwrap();
        let is_pointer = |reg| pointers.iter().any(|(pointer, _)| *pointer == reg);
        let registers = compared().into_iter().zip(values).map(|(reg, value)| {
            let base = if is_pointer(reg) { moved } else { 0 };
            (reg, value.wrapping_sub(base))
        });
        let mut operands = vec![0; LEN];
        memory.copy_from(Gpa(MEMORY), &mut operands).unwrap();
        if let Some(device) = device {
            assert_eq!(
                operands,
                contents(operand),
                "memory beside the device changed"
            );
            operands.clone_from(&device.0.lock().unwrap());
        }
        let mut stack = vec![0; 0x20];
        memory.copy_from(Gpa(STACK - 0x10), &mut stack).unwrap();
        After {
            registers: registers.collect(),
            operands,
            stack,
        }
    }
}
