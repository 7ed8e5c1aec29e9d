//! Tests of task switches on a processor with flat memory, along SDM vol. 3A, chapter 8.

mod fake;

use self::fake::*;
use super::*;

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
    assert_eq!(
        fault(&|t| t.selectors[2] = DATA | 3),
        invalid(DATA),
        "RPL is not CPL"
    );
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
