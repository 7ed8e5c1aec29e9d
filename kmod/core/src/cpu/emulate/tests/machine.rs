//! The machine of the tests: 64 KiB of memory at linear address 0, in which page 8 is a
//! device that keeps what it is asked, and page 9 isn't there.

use alloc::vec;
use alloc::vec::Vec;
use core::convert::Infallible;

use crate::cpu::emulate::{Machine, Outcome, Translation, decode, execute};
use crate::cpu::paging::AccessBy;
use crate::exit::Access;
use crate::regs::{CpuMode, GuestPaging, PagingMode, Reg, SegDesc, SegReg};
use crate::types::{Gla, Gpa};

pub const DEVICE: u64 = 0x8000;
pub const ABSENT: u64 = 0x9000;
/// What the device answers, at every offset that is a multiple of 8.
pub const ANSWER: u64 = 0x8877_6655_4433_2211;
/// RFLAGS with nothing but the bit that is always set.
pub const CLEAR: u64 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    Read(u64, usize),
    Write(u64, usize, u64),
}

#[derive(Clone)]
pub struct TestMachine {
    pub registers: [u64; 49],
    pub segments: [SegDesc; 6],
    pub paging: GuestPaging,
    pub cs_d: bool,
    pub memory: Vec<u8>,
    pub io: Vec<Io>,
    pub translated: Vec<(u64, Access)>,
}

impl TestMachine {
    /// 64-bit mode, privilege level 0, all registers 0.
    pub fn long() -> Self {
        Self::new(CpuMode::Long64, false)
    }

    pub fn new(cpu_mode: CpuMode, cs_d: bool) -> Self {
        let flat = SegDesc {
            base: 0,
            limit: u32::MAX,
            access: if cs_d { 0xc093 } else { 0x93 },
        };
        let mut machine = Self {
            registers: [0; 49],
            segments: [flat; 6],
            paging: GuestPaging {
                cr3: 0,
                cpl: 0,
                cpu_mode,
                paging_mode: PagingMode::Flat,
            },
            cs_d,
            memory: vec![0; 0x1_0000],
            io: Vec::new(),
            translated: Vec::new(),
        };
        machine.set(Reg::Rflags, CLEAR);
        machine
    }

    pub fn get(&self, reg: Reg) -> u64 {
        self.registers[reg as usize]
    }

    pub fn set(&mut self, reg: Reg, value: u64) {
        self.registers[reg as usize] = value;
    }

    pub fn with(mut self, registers: &[(Reg, u64)]) -> Self {
        for (reg, value) in registers {
            self.set(*reg, *value);
        }
        self
    }

    pub fn segment_mut(&mut self, seg: SegReg) -> &mut SegDesc {
        &mut self.segments[seg as usize - SegReg::Es as usize]
    }

    pub fn poke(&mut self, at: u64, bytes: &[u8]) {
        self.memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    pub fn peek(&self, at: u64, len: usize) -> u64 {
        let mut value = [0; 8];
        value[..len].copy_from_slice(&self.memory[at as usize..][..len]);
        u64::from_le_bytes(value)
    }

    /// Decodes and executes, RIP being 0x100.
    pub fn execute(&mut self, bytes: &[u8]) -> Outcome {
        self.set(Reg::Rip, 0x100);
        let inst = decode(bytes, self.paging.cpu_mode, self.cs_d)
            .unwrap_or_else(|error| panic!("{bytes:02x?}: {error:?}"));
        let Ok(outcome) = execute(&inst, self);
        outcome
    }

    /// An instruction that has to succeed.
    pub fn run(&mut self, bytes: &[u8]) {
        let outcome = self.execute(bytes);
        let len = bytes.len() as u8;
        assert_eq!(outcome, Outcome::Done { len, trap: false }, "{bytes:02x?}");
    }

    /// One that has to fault, and to leave everything as it was.
    pub fn faults(&mut self, bytes: &[u8]) -> Outcome {
        self.set(Reg::Rip, 0x100);
        let (registers, memory) = (self.registers, self.memory.clone());
        let outcome = self.execute(bytes);
        assert!(matches!(outcome, Outcome::Fault { .. }), "{outcome:?}");
        assert_eq!(self.registers, registers);
        assert!(self.memory == memory);
        assert_eq!(self.io, []);
        outcome
    }
}

impl Machine for TestMachine {
    type Error = Infallible;

    fn paging(&self) -> GuestPaging {
        self.paging
    }

    fn register(&mut self, reg: Reg) -> Result<u64, Infallible> {
        Ok(self.get(reg))
    }

    fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), Infallible> {
        self.set(reg, value);
        Ok(())
    }

    fn segment(&mut self, seg: SegReg) -> Result<SegDesc, Infallible> {
        Ok(*self.segment_mut(seg))
    }

    fn translate(&mut self, gla: Gla, by: AccessBy) -> Result<Translation, Infallible> {
        self.translated.push((gla.get(), by.access));
        Ok(if gla.page_base() == Gla(ABSENT) || gla.get() >= 0x1_0000 {
            let write = if by.access == Access::Write { 2 } else { 0 };
            let user = if by.user { 4 } else { 0 };
            Translation::PageFault {
                error_code: write | user,
            }
        } else {
            Translation::Gpa(Gpa(gla.get()))
        })
    }

    fn load(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Infallible> {
        if gpa.page_base() == Gpa(DEVICE) {
            self.io.push(Io::Read(gpa.get() - DEVICE, bytes.len()));
            let answer = ANSWER.rotate_right((gpa.get() % 8) as u32 * 8);
            bytes.copy_from_slice(&answer.to_le_bytes()[..bytes.len()]);
        } else {
            bytes.copy_from_slice(&self.memory[gpa.get() as usize..][..bytes.len()]);
        }
        Ok(())
    }

    fn store(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), Infallible> {
        if gpa.page_base() == Gpa(DEVICE) {
            let mut value = [0; 8];
            value[..bytes.len()].copy_from_slice(bytes);
            let value = u64::from_le_bytes(value);
            self.io
                .push(Io::Write(gpa.get() - DEVICE, bytes.len(), value));
        } else {
            self.poke(gpa.get(), bytes);
        }
        Ok(())
    }
}
