//! Tests of task switches on a processor with flat memory, along SDM vol. 3A, chapter 8.

use std::collections::BTreeMap;

use vmmapi::CpuMode;

use super::*;

const GDT: u64 = 0x1000;
const OLD_TSS: u64 = 0x2000;
const NEW_TSS: u64 = 0x3000;
const LDT: u64 = 0x4000;
const STACK_TOP: u32 = 0x6000;

// Selectors, in the order of the GDT.
const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const OLD: u16 = 0x18;
const NEW: u16 = 0x20;
const LOCAL_TABLE: u16 = 0x28;
const USER_CODE: u16 = 0x33;
const USER_DATA: u16 = 0x3b;
const SMALL: u16 = 0x40;

/// A descriptor with a byte limit.
fn segment(base: u64, limit: u64, access: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 0xf) << 48
        | 0x40 << 48 & if access & 0x10 != 0 { u64::MAX } else { 0 }
        | (base >> 24 & 0xff) << 56
}

struct Fake {
    memory: Vec<u8>,
    registers: BTreeMap<u32, u64>,
    descs: BTreeMap<u32, SegDesc>,
    injected: Vec<Exception>,
    delivered: bool,
    /// A page that faults.
    absent: Option<u64>,
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
    fn new() -> Self {
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
        for (n, reg) in GENERAL.into_iter().enumerate() {
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

    fn new_task(&mut self, change: impl FnOnce(&mut Task)) {
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

    fn put64(&mut self, at: u64, value: u64) {
        self.memory[at as usize..][..8].copy_from_slice(&value.to_le_bytes());
    }

    fn get32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.memory[at as usize..][..4].try_into().unwrap())
    }

    fn access_byte(&self, selector: u16) -> u8 {
        self.memory[GDT as usize + usize::from(selector & !7) + 5]
    }

    fn set_access_byte(&mut self, selector: u16, access: u8) {
        self.memory[GDT as usize + usize::from(selector & !7) + 5] = access;
    }

    fn reg(&self, reg: Reg) -> u64 {
        self.registers.get(&(reg as u32)).copied().unwrap_or(0)
    }

    fn access(&self, seg: SegReg) -> u32 {
        self.descs[&(seg as u32)].access
    }

    fn switch(&mut self, reason: TaskSwitchReason, selector: u16) {
        self.switch_with(reason, selector, PagingMode::Flat, None);
    }

    fn switch_with(
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

fn exception(vector: u8, error_code: u32, in_old_task: bool) -> Exception {
    Exception {
        vector,
        error_code: Some(error_code),
        in_old_task,
    }
}

#[test]
fn call_saves_the_old_task_and_nests_the_new_one() {
    let mut cpu = Fake::new();
    cpu.switch(TaskSwitchReason::Call, NEW);
    assert!(cpu.injected.is_empty(), "{:?}", cpu.injected);
    assert_eq!(cpu.get32(OLD_TSS + 0x20), 0x1234);
    assert_eq!(cpu.get32(OLD_TSS + 0x24), 0x4202, "still nested itself");
    assert_eq!(cpu.get32(OLD_TSS + 0x38), 0x1000_0004, "ESP");
    assert_eq!(cpu.get32(OLD_TSS + 0x4c), u32::from(CODE));
    assert_eq!((cpu.access_byte(OLD), cpu.access_byte(NEW)), (0x8b, 0x8b));
    assert_eq!(cpu.get32(NEW_TSS) as u16, OLD, "link");
    assert_eq!((cpu.reg(Reg::Rip), cpu.reg(Reg::Rflags)), (0x5678, 0x4202));
    assert_eq!(
        (cpu.reg(Reg::Rax), cpu.reg(Reg::Rsp)),
        (10, STACK_TOP.into())
    );
    assert_eq!(cpu.reg(Reg::Tr), NEW.into());
    assert_eq!(cpu.descs[&(SegReg::Tr as u32)].base, NEW_TSS);
    assert_eq!(cpu.access(SegReg::Tr) & 0xff, 0x8b);
    assert_eq!(cpu.reg(Reg::Cr0) & CR0_TS, CR0_TS);
    assert_eq!(cpu.reg(Reg::Dr7), 0x6aa, "local breakpoints are off");
    assert_eq!(cpu.access(SegReg::Cs) & 0xff, 0x9b, "accessed");
    assert_eq!(cpu.access_byte(CODE), 0x9b, "in memory, too");
    assert_eq!(cpu.descs[&(SegReg::Fs as u32)], descriptor::UNUSABLE);
}

#[test]
fn jmp_frees_the_old_task_and_iret_returns_to_a_busy_one() {
    let mut cpu = Fake::new();
    cpu.switch(TaskSwitchReason::Jmp, NEW);
    assert_eq!((cpu.access_byte(OLD), cpu.access_byte(NEW)), (0x89, 0x8b));
    assert_eq!(cpu.get32(NEW_TSS) as u16, 0, "no link");
    assert_eq!(cpu.reg(Reg::Rflags), 0x202);

    let mut cpu = Fake::new();
    cpu.set_access_byte(NEW, 0x8b);
    cpu.switch(TaskSwitchReason::Iret, NEW);
    assert!(cpu.injected.is_empty());
    assert_eq!((cpu.access_byte(OLD), cpu.access_byte(NEW)), (0x89, 0x8b));
    assert_eq!(cpu.get32(OLD_TSS + 0x24), 0x0202, "no longer nested");
    assert_eq!(cpu.reg(Reg::Rip), 0x5678);
}

#[test]
fn an_unfit_tss_is_a_fault_of_the_old_task() {
    use TaskSwitchReason::{Call, Iret, Jmp};
    let refused = |reason, selector, access: Option<u8>| {
        let mut cpu = Fake::new();
        if let Some(access) = access {
            cpu.set_access_byte(selector, access);
        }
        cpu.switch(reason, selector);
        assert_eq!(cpu.reg(Reg::Rip), 0, "nothing is loaded");
        assert_eq!(cpu.get32(OLD_TSS + 0x20), 0, "nothing is saved");
        cpu.injected[..].to_vec()
    };
    let code = u32::from(NEW);
    assert_eq!(
        refused(Call, NEW, Some(0x8b)),
        [exception(13, code, true)],
        "busy"
    );
    assert_eq!(
        refused(Iret, NEW, None),
        [exception(10, code, true)],
        "not busy"
    );
    assert_eq!(
        refused(Jmp, NEW, Some(0x09)),
        [exception(11, code, true)],
        "absent"
    );
    assert_eq!(
        refused(Jmp, NEW, Some(0x82)),
        [exception(13, code, true)],
        "an LDT"
    );
    assert_eq!(
        refused(Jmp, 0x48, None),
        [exception(13, 0x48, true)],
        "beyond the GDT"
    );
    assert_eq!(refused(Iret, 0x48, None), [exception(10, 0x48, true)]);
    assert_eq!(
        refused(Jmp, 0x24, None),
        [exception(13, 0x24, true)],
        "of the LDT"
    );
    assert_eq!(refused(Jmp, 0, None), [exception(13, 0, true)]);

    let mut cpu = Fake::new();
    cpu.put64(GDT + u64::from(NEW), segment(NEW_TSS, 102, 0x89));
    cpu.switch(Call, NEW);
    assert_eq!(cpu.injected, [exception(10, code, true)], "too short");

    let mut cpu = Fake::new();
    cpu.set_register(Reg::Tr, 0).unwrap();
    cpu.switch(Call, NEW);
    assert_eq!(
        cpu.injected,
        [exception(10, 0, true)],
        "LTR was never executed"
    );
}

#[test]
fn a_page_fault_before_the_commit_changes_nothing() {
    for page in [GDT, OLD_TSS, NEW_TSS] {
        let mut cpu = Fake::new();
        cpu.absent = Some(page);
        let before = (cpu.memory.clone(), cpu.registers.clone());
        cpu.switch(TaskSwitchReason::Call, NEW);
        assert_eq!((cpu.memory, cpu.registers), before, "{page:#x}");
    }
}

#[test]
fn unfit_segments_are_faults_of_the_new_task() {
    let fault = |change: &dyn Fn(&mut Task)| {
        let mut cpu = Fake::new();
        cpu.new_task(change);
        cpu.switch(TaskSwitchReason::Jmp, NEW);
        assert_eq!(cpu.reg(Reg::Rip), 0x5678, "the switch has happened");
        cpu.injected[..].to_vec()
    };
    let invalid = |selector: u16| [exception(10, u32::from(selector & !3), false)];
    assert_eq!(fault(&|t| t.ldt = 0x2c), invalid(0x2c), "an LDT of the LDT");
    assert_eq!(fault(&|t| t.ldt = DATA), invalid(DATA));
    assert_eq!(fault(&|t| t.selectors[1] = 0), invalid(0));
    assert_eq!(fault(&|t| t.selectors[1] = DATA), invalid(DATA));
    assert_eq!(
        fault(&|t| t.selectors[1] = CODE | 3),
        invalid(CODE),
        "DPL is not RPL"
    );
    assert_eq!(
        fault(&|t| t.selectors[1] = 0x48),
        invalid(0x48),
        "beyond the GDT"
    );
    assert_eq!(fault(&|t| t.selectors[2] = 0), invalid(0));
    assert_eq!(fault(&|t| t.selectors[2] = CODE), invalid(CODE));
    assert_eq!(fault(&|t| t.selectors[2] = USER_DATA), invalid(USER_DATA));
    assert_eq!(fault(&|t| t.selectors[0] = OLD), invalid(OLD));
    assert_eq!(
        fault(&|t| t.selectors[5] = DATA | 3),
        invalid(DATA),
        "RPL above DPL"
    );
    assert_eq!(
        fault(&|t| t.selectors[4] = 0x0c),
        invalid(0x0c),
        "there is no LDT"
    );
    let user = |t: &mut Task| t.selectors = [DATA, USER_CODE, USER_DATA, USER_DATA, 0, 0];
    assert_eq!(fault(&user), invalid(DATA), "CPL above DPL");
    let fine = |t: &mut Task| {
        t.ldt = LOCAL_TABLE;
        t.selectors[0] = 0x0c;
    };
    assert_eq!(fault(&fine), []);
}

#[test]
fn absent_segments_have_their_own_exceptions() {
    for (selector, access, vector) in [(DATA, 0x12, 12), (CODE, 0x1a, 11)] {
        let mut cpu = Fake::new();
        cpu.set_access_byte(selector, access);
        cpu.switch(TaskSwitchReason::Jmp, NEW);
        let expected = exception(vector, selector.into(), false);
        assert_eq!(cpu.injected, [expected]);
        assert_eq!(cpu.access(SegReg::Ds), 1 << 16, "nothing is in it yet");
    }
    let mut cpu = Fake::new();
    cpu.new_task(|task| task.selectors[3] = USER_DATA);
    cpu.set_access_byte(USER_DATA, 0x72);
    cpu.switch(TaskSwitchReason::Jmp, NEW);
    assert_eq!(cpu.injected, [exception(11, 0x38, false)]);
}

#[test]
fn a_16_bit_task_keeps_page_tables_and_has_no_fs() {
    let mut cpu = Fake::new();
    let mut image = [0; MAX_LEN];
    let task = Task {
        ip: 0x4321,
        flags: 2,
        selectors: [DATA, CODE, DATA, DATA, 0, 0],
        ..Task::default()
    };
    task.save(TssFormat::Bits16, &mut image);
    cpu.memory[NEW_TSS as usize..][..MAX_LEN].copy_from_slice(&image);
    cpu.set_register(Reg::Cr3, 0x9000).unwrap();
    cpu.switch_with(TaskSwitchReason::Call, SMALL, PagingMode::Bits32, None);
    assert!(cpu.injected.is_empty(), "{:?}", cpu.injected);
    assert_eq!((cpu.reg(Reg::Rip), cpu.reg(Reg::Cr3)), (0x4321, 0x9000));
    assert_eq!(cpu.reg(Reg::Rax), 0xffff_0000);
    assert_eq!(cpu.access_byte(SMALL), 0x83);
    assert_eq!(cpu.get32(OLD_TSS + 0x20), 0x1234, "the old one has 32 bits");
}

#[test]
fn cr3_is_loaded_and_checked_where_there_is_paging() {
    let mut cpu = Fake::new();
    cpu.switch_with(TaskSwitchReason::Jmp, NEW, PagingMode::Bits32, None);
    assert_eq!(cpu.reg(Reg::Cr3), 0x7000);

    let mut cpu = Fake::new();
    cpu.put64(0x7000, 0x5001);
    cpu.put64(0x7008, 0x1e6);
    cpu.switch_with(TaskSwitchReason::Jmp, NEW, PagingMode::Pae, None);
    assert_eq!((cpu.reg(Reg::Cr3), cpu.reg(Reg::Pdpte0)), (0x7000, 0x5001));
    assert_eq!(cpu.reg(Reg::Pdpte1), 0x1e6, "not present, not checked");

    for pdpte in [0x1e7, 1 | 1 << 52] {
        let mut cpu = Fake::new();
        cpu.put64(0x7018, pdpte);
        cpu.switch_with(TaskSwitchReason::Jmp, NEW, PagingMode::Pae, None);
        assert_eq!(cpu.injected, [exception(13, 0, false)]);
    }
    let mut cpu = Fake::new();
    cpu.new_task(|task| task.cr3 = Some(0xffff_f000));
    cpu.switch_with(TaskSwitchReason::Jmp, NEW, PagingMode::Pae, None);
    assert_eq!(cpu.injected, [exception(13, 0, false)]);
}

#[test]
fn an_exceptions_error_code_is_on_the_new_stack() {
    let mut cpu = Fake::new();
    cpu.switch_with(
        TaskSwitchReason::IdtGate,
        NEW,
        PagingMode::Flat,
        Some(0xabcd),
    );
    assert!(cpu.injected.is_empty() && cpu.delivered);
    assert_eq!(cpu.reg(Reg::Rsp), u64::from(STACK_TOP) - 4);
    assert_eq!(cpu.get32(u64::from(STACK_TOP) - 4), 0xabcd);
    assert_eq!(cpu.get32(NEW_TSS) as u16, OLD);

    let mut cpu = Fake::new();
    cpu.new_task(|task| task.selectors = [0, USER_CODE, USER_DATA, 0, 0, 0]);
    cpu.switch_with(TaskSwitchReason::IdtGate, NEW, PagingMode::Flat, Some(1));
    assert_eq!(
        cpu.get32(u64::from(STACK_TOP) - 4),
        1,
        "with the task's own rights"
    );

    let mut cpu = Fake::new();
    cpu.new_task(|task| task.general[4] = 0x10_0001);
    cpu.switch_with(TaskSwitchReason::IdtGate, NEW, PagingMode::Flat, Some(0));
    assert_eq!(cpu.injected, [exception(12, u32::from(DATA) | 1, false)]);
}

#[test]
fn the_trap_flag_raises_a_debug_exception_when_all_is_loaded() {
    let mut cpu = Fake::new();
    cpu.new_task(|task| task.trap = true);
    cpu.switch(TaskSwitchReason::Jmp, NEW);
    let debug = Exception {
        vector: 1,
        error_code: None,
        in_old_task: false,
    };
    assert_eq!(cpu.injected, [debug]);
    assert_eq!(cpu.reg(Reg::Dr6) & 1 << 15, 1 << 15);
    assert_eq!(cpu.access(SegReg::Ds) & 0xff, 0x93);
}

#[test]
fn a_virtual_8086_task_has_segments_by_paragraphs() {
    let mut cpu = Fake::new();
    cpu.new_task(|task| {
        task.flags = 0x2_0202;
        task.selectors = [0x10, 0x123, 0xffff, 1, 2, 3];
    });
    cpu.switch(TaskSwitchReason::Jmp, NEW);
    assert!(cpu.injected.is_empty());
    let code = cpu.descs[&(SegReg::Cs as u32)];
    assert_eq!((code.base, code.limit, code.access), (0x1230, 0xffff, 0xf3));
    assert_eq!(cpu.descs[&(SegReg::Ss as u32)].base, 0xf_fff0);
}
