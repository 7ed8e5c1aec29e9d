//! A processor with flat memory, a GDT and two tasks, for the tests.

use std::collections::BTreeMap;

use vmmapi::CpuMode;

use super::super::*;

pub const GDT: u64 = 0x1000;
pub const OLD_TSS: u64 = 0x2000;
pub const NEW_TSS: u64 = 0x3000;
pub const LDT: u64 = 0x4000;
pub const STACK_TOP: u32 = 0x6000;

// Selectors, in the order of the GDT.
pub const CODE: u16 = 0x08;
pub const DATA: u16 = 0x10;
pub const OLD: u16 = 0x18;
pub const NEW: u16 = 0x20;
pub const LOCAL_TABLE: u16 = 0x28;
pub const USER_CODE: u16 = 0x33;
pub const USER_DATA: u16 = 0x3b;
pub const SMALL: u16 = 0x40;

/// A descriptor with a byte limit.
pub fn segment(base: u64, limit: u64, access: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 0xf) << 48
        | 0x40 << 48 & if access & 0x10 != 0 { u64::MAX } else { 0 }
        | (base >> 24 & 0xff) << 56
}

pub struct Fake {
    pub memory: Vec<u8>,
    pub registers: BTreeMap<u32, u64>,
    pub descs: BTreeMap<u32, SegDesc>,
    pub injected: Vec<Exception>,
    pub delivered: bool,
    /// A page that faults.
    pub absent: Option<u64>,
}

impl TaskCpu for Fake {
    type Error = String;
    type Place = (usize, usize);

    fn register(&mut self, reg: Reg) -> Result<u64, String> {
        Ok(self.registers.get(&(reg as u32)).copied().unwrap_or(0))
    }
    fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), String> {
        self.registers.insert(reg as u32, value);
        Ok(())
    }
    fn desc(&mut self, seg: SegReg) -> Result<SegDesc, String> {
        Ok(self.descs.get(&(seg as u32)).copied().unwrap_or_default())
    }
    fn set_desc(&mut self, seg: SegReg, desc: SegDesc) -> Result<(), String> {
        self.descs.insert(seg as u32, desc);
        Ok(())
    }
    fn translate(
        &mut self,
        paging: &GuestPaging,
        gla: Gla,
        len: usize,
        _write: bool,
    ) -> Result<Option<(usize, usize)>, String> {
        let user_stack = u64::from(STACK_TOP) - 0x1000..u64::from(STACK_TOP);
        assert!(paging.cpl == 0 || user_stack.contains(&gla.get()));
        if self.absent == Some(gla.page_base().get()) {
            return Ok(None);
        }
        let at = gla.get() as usize;
        assert!(at + len <= self.memory.len());
        Ok(Some((at, len)))
    }
    fn load(&mut self, place: &(usize, usize), bytes: &mut [u8]) -> Result<(), String> {
        bytes.copy_from_slice(&self.memory[place.0..][..bytes.len()]);
        Ok(())
    }
    fn store(&mut self, place: &(usize, usize), bytes: &[u8]) -> Result<(), String> {
        assert!(bytes.len() <= place.1);
        self.memory[place.0..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn physical(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<Option<()>, String> {
        let at = gpa.get() as usize;
        let Some(from) = self.memory.get(at..at + bytes.len()) else {
            return Ok(None);
        };
        bytes.copy_from_slice(from);
        Ok(Some(()))
    }
    fn inject(&mut self, exception: Exception) -> Result<(), String> {
        self.injected.push(exception);
        Ok(())
    }
    fn event_delivered(&mut self) -> Result<(), String> {
        self.delivered = true;
        Ok(())
    }
}

impl Fake {
    pub fn new() -> Self {
        let mut cpu = Self {
            memory: vec![0; 0x8000],
            registers: BTreeMap::new(),
            descs: BTreeMap::new(),
            injected: Vec::new(),
            delivered: false,
            absent: None,
        };
        let gdt = [
            0,
            segment(0, 0xf_ffff, 0x9a),
            segment(0, 0xf_ffff, 0x92),
            segment(OLD_TSS, 103, 0x8b),
            segment(NEW_TSS, 103, 0x89),
            segment(LDT, 0xf, 0x82),
            segment(0, 0xf_ffff, 0xfa),
            segment(0, 0xf_ffff, 0xf2),
            segment(NEW_TSS, 43, 0x81),
        ];
        for (n, descriptor) in gdt.into_iter().enumerate() {
            cpu.put64(GDT + 8 * n as u64, descriptor);
        }
        cpu.put64(LDT + 8, segment(0, 0xf_ffff, 0x92));
        let register = |base, limit| SegDesc {
            base,
            limit,
            access: 0,
        };
        cpu.set_desc(SegReg::Gdtr, register(GDT, 8 * 9 - 1))
            .unwrap();
        let old = Descriptor(gdt[3]).seg_desc();
        cpu.set_desc(SegReg::Tr, old).unwrap();
        cpu.set_desc(SegReg::Cs, Descriptor(gdt[1]).seg_desc())
            .unwrap();
        for (n, reg) in Reg::GENERAL.into_iter().take(8).enumerate() {
            cpu.set_register(reg, 0x1000_0000 + n as u64).unwrap();
        }
        for (_, reg) in SEGMENTS {
            cpu.set_register(reg, DATA.into()).unwrap();
        }
        cpu.set_register(Reg::Cs, CODE.into()).unwrap();
        cpu.set_register(Reg::Tr, OLD.into()).unwrap();
        cpu.set_register(Reg::Rflags, 0x4202).unwrap();
        cpu.set_register(Reg::Dr7, 0x7ff).unwrap();
        cpu.new_task(|_| ());
        cpu
    }

    pub fn new_task(&mut self, change: impl FnOnce(&mut Task)) {
        let mut task = Task {
            ip: 0x5678,
            flags: 0x202,
            general: [10, 11, 12, 13, STACK_TOP, 15, 16, 17],
            selectors: [DATA, CODE, DATA, DATA, 0, 0],
            ..Task::default()
        };
        change(&mut task);
        let mut image = [0; MAX_LEN];
        task.save(TssFormat::Bits32, &mut image);
        image[0x60..0x62].copy_from_slice(&task.ldt.to_le_bytes());
        image[0x64] = u8::from(task.trap);
        image[0x1c..0x20].copy_from_slice(&task.cr3.unwrap_or(0x7000).to_le_bytes());
        self.memory[NEW_TSS as usize..][..MAX_LEN].copy_from_slice(&image);
    }

    pub fn put64(&mut self, at: u64, value: u64) {
        self.memory[at as usize..][..8].copy_from_slice(&value.to_le_bytes());
    }

    pub fn get32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.memory[at as usize..][..4].try_into().unwrap())
    }

    pub fn access_byte(&self, selector: u16) -> u8 {
        self.memory[GDT as usize + usize::from(selector & !7) + 5]
    }

    pub fn set_access_byte(&mut self, selector: u16, access: u8) {
        self.memory[GDT as usize + usize::from(selector & !7) + 5] = access;
    }

    pub fn reg(&self, reg: Reg) -> u64 {
        self.registers.get(&(reg as u32)).copied().unwrap_or(0)
    }

    pub fn access(&self, seg: SegReg) -> u32 {
        self.descs[&(seg as u32)].access
    }

    pub fn switch(&mut self, reason: TaskSwitchReason, selector: u16) {
        self.switch_with(reason, selector, PagingMode::Flat, None);
    }

    pub fn switch_with(
        &mut self,
        reason: TaskSwitchReason,
        tss_selector: u16,
        paging_mode: PagingMode,
        error_code: Option<u32>,
    ) {
        let request = TaskSwitch {
            tss_selector,
            ext: error_code.is_some(),
            error_code,
            reason,
            paging: GuestPaging {
                cr3: 0,
                cpl: 3,
                cpu_mode: CpuMode::Protected,
                paging_mode,
            },
        };
        task_switch(self, &request, 0x1234).unwrap();
    }
}
