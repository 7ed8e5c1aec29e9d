//! Each exit that reaches userland, from a few bytes of code: is it described right, and
//! does the guest go on behind it?

use vmmapi::exits::{Inout, VmxExit};
use vmmapi::{Capability, CpuMode, Exit, Gpa, PagingMode, Reg, SegDesc, SegReg, SuspendHow};

use crate::machine::{CODE, HOLE, MEMORY, Machine, STACK, on_one_cpu};

crate::tests! {
    out_and_in_of_each_width,
    out_to_an_immediate_port,
    string_output_with_rep,
    string_input_in_long_mode,
    unknown_msrs,
    pause_by_capability,
    pauses_in_a_loop_stay_in_the_kernel,
    hlt_of_the_only_vcpu_halts_the_vm,
    triple_fault,
    breakpoint_by_capability,
    single_step_by_monitor_trap,
    single_step_by_trap_flag,
    mmio_read_gives_the_instruction,
    mmio_write_above_memory,
    ept_fills_what_is_touched,
    vmx_instructions_are_undefined,
    cpuid_stays_in_the_kernel,
    entry_with_invalid_guest_state,
    nmi_reaches_the_handler,
    injected_exception_with_error_code,
    task_switch,
    privileged_instruction_at_cpl_3,
}

fn inout(exit: &vmmapi::VmExit) -> Inout {
    match exit.exit {
        Exit::Inout(io) => io,
        ref other => panic!("{other:?} instead of INOUT at {:#x}", exit.rip),
    }
}

fn out_and_in_of_each_width() {
    #[rustfmt::skip]
    let m = Machine::real(&[
        0xba, 0x34, 0x12,                           // mov dx, 0x1234
        0x66, 0xb8, 0xef, 0xbe, 0xad, 0xde,         // mov eax, 0xdeadbeef
        0xee,                                       // out dx, al
        0xef,                                       // out dx, ax
        0x66, 0xef,                                 // out dx, eax
        0xec,                                       // in al, dx
        0xed,                                       // in ax, dx
        0x66, 0xed,                                 // in eax, dx
        0xee,                                       // out dx, al
    ]);
    let (mut rip, eax) = (CODE + 9, 0xdead_beef);
    for (bytes, length) in [(1, 1), (2, 1), (4, 2)] {
        let exit = m.run();
        let want = Inout {
            bytes,
            input: false,
            string: false,
            rep: false,
            port: 0x1234,
            eax,
        };
        assert_eq!(
            (inout(&exit), exit.rip, exit.inst_length),
            (want, rip, length)
        );
        rip += u64::from(length);
    }
    for (bytes, length, answer) in [(1, 1, 0x11), (2, 1, 0x2222), (4, 2, 0x3333_3333)] {
        let exit = m.run();
        let io = inout(&exit);
        assert_eq!(
            (io.bytes, io.input, io.port, exit.rip),
            (bytes, true, 0x1234, rip)
        );
        m.cpu.set_register(Reg::Rax, answer).unwrap();
        rip += length;
    }
    let exit = m.run();
    assert_eq!(
        (inout(&exit).eax, exit.rip),
        (0x3333_3333, rip),
        "the answer of IN is in EAX"
    );
    assert_eq!(m.stat("number of times in/out was intercepted"), 7);
    assert_eq!(m.stat("number of vm exits handled in userspace"), 7);
}

fn out_to_an_immediate_port() {
    let m = Machine::real(&[0xb0, 0x42, 0xe6, 0x80]); // mov al, 0x42; out 0x80, al
    let exit = m.run();
    let io = inout(&exit);
    assert_eq!((io.port, io.eax & 0xff, exit.inst_length), (0x80, 0x42, 2));
}

fn string_output_with_rep() {
    #[rustfmt::skip]
    let m = Machine::real(&[
        0xbe, 0x00, 0x20,               // mov si, 0x2000
        0xb9, 0x05, 0x00,               // mov cx, 5
        0xba, 0xf8, 0x03,               // mov dx, 0x3f8
        0x26, 0xf3, 0x6e,               // rep outsb es:
    ]);
    m.cpu
        .set_desc(
            SegReg::Es,
            SegDesc {
                base: 0x300,
                limit: 0xffff,
                access: 0x93,
            },
        )
        .unwrap();
    let exit = m.run();
    let Exit::InoutStr(s) = exit.exit else {
        panic!("{exit:?}")
    };
    assert_eq!(
        (s.inout.bytes, s.inout.input, s.inout.string, s.inout.rep),
        (1, false, true, true)
    );
    assert_eq!(
        (s.inout.port, s.index, s.count, s.addrsize),
        (0x3f8, 0x2000, 5, 2)
    );
    assert_eq!((s.seg, s.seg_desc.base), (SegReg::Es, 0x300));
    assert_eq!(
        (s.paging.cpu_mode, s.paging.paging_mode, s.paging.cpl),
        (CpuMode::Real, PagingMode::Flat, 0)
    );
    assert_eq!((exit.rip, exit.inst_length), (CODE + 9, 3));
}

fn string_input_in_long_mode() {
    #[rustfmt::skip]
    let m = Machine::long(&[
        0xbf, 0x00, 0x20, 0x00, 0x00,   // mov edi, 0x2000
        0xb9, 0x03, 0x00, 0x00, 0x00,   // mov ecx, 3
        0x66, 0xba, 0x70, 0x00,         // mov dx, 0x70
        0xf3, 0x6d,                     // rep insd
    ]);
    let exit = m.run();
    let Exit::InoutStr(s) = exit.exit else {
        panic!("{exit:?}")
    };
    assert_eq!(
        (s.inout.bytes, s.inout.input, s.inout.rep, s.inout.port),
        (4, true, true, 0x70)
    );
    assert_eq!(
        (s.index, s.count, s.addrsize, s.seg),
        (0x2000, 3, 8, SegReg::Es)
    );
    assert_eq!(
        (s.paging.cpu_mode, s.paging.paging_mode),
        (CpuMode::Long64, PagingMode::Level4)
    );
}

fn unknown_msrs() {
    #[rustfmt::skip]
    let m = Machine::real(&[
        0x66, 0xb9, 0x34, 0x12, 0x00, 0x00,     // mov ecx, 0x1234
        0x0f, 0x32,                             // rdmsr
        0x66, 0xb8, 0x78, 0x56, 0x34, 0x12,     // mov eax, 0x12345678
        0x66, 0xba, 0xf0, 0xde, 0xbc, 0x9a,     // mov edx, 0x9abcdef0
        0x0f, 0x30,                             // wrmsr
    ]);
    let exit = m.run();
    assert_eq!(
        (exit.exit, exit.inst_length),
        (Exit::Rdmsr { code: 0x1234 }, 2)
    );
    let exit = m.run();
    assert_eq!(
        exit.exit,
        Exit::Wrmsr {
            code: 0x1234,
            value: 0x9abc_def0_1234_5678
        }
    );
    assert_eq!(m.stat("number of times rdmsr was intercepted"), 1);
    assert_eq!(m.stat("number of times wrmsr was intercepted"), 1);
}

fn pause_by_capability() {
    let m = Machine::real(&[0xf3, 0x90, 0xf3, 0x90, 0xe6, 0x80]); // pause; pause; out 0x80, al
    m.cpu.set_capability(Capability::PauseExit, 1).unwrap();
    assert_eq!(m.cpu.capability(Capability::PauseExit).unwrap(), 1);
    let exit = m.run();
    assert_eq!(
        (exit.exit, exit.rip, exit.inst_length),
        (Exit::Pause, CODE, 2)
    );
    m.cpu.set_capability(Capability::PauseExit, 0).unwrap();
    inout(&m.run());
    assert_eq!(m.stat("number of times pause was intercepted"), 1);
}

/// Without the capability a loop that spins is the guest's own matter, however long it takes.
fn pauses_in_a_loop_stay_in_the_kernel() {
    #[rustfmt::skip]
    let m = Machine::real(&[
        0x66, 0xb9, 0xa0, 0x86, 0x01, 0x00, // mov ecx, 100000
        0xf3, 0x90,                         // pause
        0x66, 0x49,                         // dec ecx
        0x75, 0xfa,                         // jnz the pause
        0xe6, 0x80,                         // out 0x80, al
    ]);
    inout(&m.run());
    assert_eq!(m.reg(Reg::Rcx), 0);
}

fn hlt_of_the_only_vcpu_halts_the_vm() {
    let m = Machine::real(&[0xfa, 0xf4]); // cli; hlt
    m.cpu.set_capability(Capability::HaltExit, 1).unwrap();
    assert_eq!(m.run().exit, Exit::Suspended(SuspendHow::Halt));
    assert_eq!(m.stat("number of times hlt was intercepted"), 1);
}

fn triple_fault() {
    let m = Machine::protected(&[0x0f, 0x0b]); // ud2, and no IDT
    m.cpu
        .set_desc(
            SegReg::Idtr,
            SegDesc {
                base: 0,
                limit: 0,
                access: 0,
            },
        )
        .unwrap();
    let exit = m.run();
    assert_eq!(
        (exit.exit, exit.rip),
        (Exit::Suspended(SuspendHow::TripleFault), CODE)
    );
}

fn breakpoint_by_capability() {
    let m = Machine::real(&[0x90, 0xcc, 0xe6, 0x80]); // nop; int3; out 0x80, al
    m.cpu.set_capability(Capability::BptExit, 1).unwrap();
    let exit = m.run();
    assert_eq!(
        (exit.exit, exit.rip),
        (Exit::Bpt { inst_length: 1 }, CODE + 1)
    );
}

/// Bochs' server CPUs have no monitor trap flag: there the capability is refused.
fn single_step_by_monitor_trap() {
    let m = Machine::real(&[0x90, 0x90, 0x40, 0xe6, 0x80]); // nop; nop; inc ax; out 0x80, al
    match m.cpu.set_capability(Capability::MtrapExit, 1) {
        Ok(()) => {
            for step in 1..=3 {
                let exit = m.run();
                assert_eq!((exit.exit, exit.rip), (Exit::Mtrap, CODE + step));
            }
        }
        Err(e) => assert!(e.is(libc::ENOENT), "{e}"),
    }
}

/// What a debugger uses where there is no monitor trap flag. The guest sees nothing of it:
/// not in its flags, and no #DB.
fn single_step_by_trap_flag() {
    const TF: u64 = 1 << 8;
    #[rustfmt::skip]
    let m = Machine::real(&[
        0xe6, 0x80,       // out 0x80, al
        0x90,             // nop
        0x0f, 0xa2,       // cpuid, which exits
        0xfb,             // sti
        0x16, 0x17,       // push ss; pop ss, which holds a trap back
        0x90,             // nop
        0xe6, 0x80,       // out 0x80, al
    ]);
    // From here on the code is in the EPT, as Bochs wants it (docs/lab.md).
    assert!(matches!(m.run().exit, Exit::Inout(_)));
    match m.cpu.set_capability(Capability::RflagsTf, 1) {
        Ok(()) => {}
        // FreeBSD's vmm has it on AMD only.
        Err(e) => return assert!(e.is(libc::ENOENT), "{e}"),
    }
    for step in [3, 5, 6, 7, 9] {
        let exit = m.run();
        assert!(
            matches!(
                exit.exit,
                Exit::Db {
                    trace_trap: true,
                    ..
                }
            ),
            "{exit:?}"
        );
        assert_eq!(exit.rip, CODE + step);
    }
    m.cpu.set_capability(Capability::RflagsTf, 0).unwrap();
    assert_eq!(m.reg(Reg::Rflags) & TF, 0);
    assert_eq!(m.cpu.capability(Capability::RflagsTf).unwrap(), 0);
    let exit = m.run();
    assert!(matches!(exit.exit, Exit::Inout(_)), "{exit:?}");
    assert_eq!(exit.rip, CODE + 9);
}

fn mmio_read_gives_the_instruction() {
    #[rustfmt::skip]
    let code = [
        0xbb, 0x00, 0x00, 0x00, 0xd0,   // mov ebx, HOLE
        0x8b, 0x43, 0x10,               // mov eax, [rbx + 0x10]
        0x90,                           // nop
    ];
    let m = Machine::long(&code);
    let exit = m.run();
    let Exit::InstEmul(e) = exit.exit else {
        panic!("{exit:?}")
    };
    assert_eq!(
        (e.gpa, e.gla.get(), exit.rip),
        (Gpa(HOLE + 0x10), HOLE + 0x10, CODE + 5)
    );
    assert_eq!(&e.inst.bytes[..3], &code[5..8]);
    assert!(e.inst.len >= 3, "{} bytes of the instruction", e.inst.len);
    assert_eq!((e.cs_base, e.paging.cpu_mode), (0, CpuMode::Long64));
}

fn mmio_write_above_memory() {
    #[rustfmt::skip]
    let m = Machine::protected(&[
        0xc7, 0x05, 0x00, 0x00, 0x40, 0x00, 0x78, 0x56, 0x34, 0x12, // mov dword [MEMORY], 0x12345678
    ]);
    let exit = m.run();
    let Exit::InstEmul(e) = exit.exit else {
        panic!("{exit:?}")
    };
    assert_eq!(
        (e.gpa, e.cs_d, e.paging.cpu_mode),
        (Gpa(MEMORY), true, CpuMode::Protected)
    );
}

fn ept_fills_what_is_touched() {
    #[rustfmt::skip]
    let m = Machine::protected(&[
        0xc7, 0x05, 0x00, 0x00, 0x20, 0x00, 0x78, 0x56, 0x34, 0x12, // mov dword [0x200000], 0x12345678
        0xe6, 0x80,                                                 // out 0x80, al
    ]);
    inout(&m.run());
    assert_eq!(
        m.vm.memory().read::<u32>(Gpa(0x20_0000)).unwrap(),
        0x1234_5678
    );
    let fills = m.stat("4 KiB pages mapped in the ept") + m.stat("2 MiB pages mapped in the ept");
    assert_eq!(fills, 2, "one for the code, one for the word");
    let pmap = m.vm.gpa_pmap(Gpa(0x20_0000)).unwrap();
    assert!(pmap.last().is_some_and(|entry| entry & 7 == 7), "{pmap:x?}");
    assert!(
        m.vm.gpa_pmap(Gpa(HOLE))
            .unwrap()
            .last()
            .is_none_or(|entry| entry & 7 == 0)
    );
}

fn vmx_instructions_are_undefined() {
    let m = Machine::real(&[0x0f, 0x01, 0xc1]); // vmcall
    m.load(6 * 4, &[0x00, 0x20, 0x00, 0x00]); // vector 6 at 0:0x2000
    m.load(0x2000, &[0xb0, 0x06, 0xe6, 0x80]); // mov al, 6; out 0x80, al
    let exit = m.run();
    assert_eq!((inout(&exit).eax & 0xff, exit.rip), (6, 0x2002));
    let return_ip = m.vm.memory().read::<u16>(Gpa(m.reg(Reg::Rsp))).unwrap();
    assert_eq!(
        u64::from(return_ip),
        CODE,
        "#UD is a fault: it returns to the instruction"
    );
}

fn cpuid_stays_in_the_kernel() {
    #[rustfmt::skip]
    let m = Machine::real(&[
        0x66, 0xb8, 0x00, 0x00, 0x00, 0x40,     // mov eax, 0x40000000
        0x0f, 0xa2,                             // cpuid
        0xe6, 0x80,                             // out 0x80, al
    ]);
    inout(&m.run());
    let signature = [Reg::Rbx, Reg::Rcx, Reg::Rdx]
        .map(|r| (m.reg(r) as u32).to_le_bytes())
        .concat();
    assert_eq!(signature, b"bhyve bhyve ");
    assert_eq!(m.stat("number of times cpuid was intercepted"), 1);
    assert_eq!(m.stat("number of vm exits handled in userspace"), 1);
}

fn entry_with_invalid_guest_state() {
    let m = Machine::protected(&[0x90]);
    // A CS that is a writable data segment with a limit and granularity that contradict
    // each other (SDM vol. 3C, 27.3.1.2).
    m.cpu
        .set_desc(
            SegReg::Cs,
            SegDesc {
                base: 0,
                limit: 0xfff0_0000,
                access: 0x4093,
            },
        )
        .unwrap();
    let exit = m.run();
    let Exit::Vmx(VmxExit::Exit { reason, .. }) = exit.exit else {
        panic!("{exit:?}")
    };
    assert_eq!(reason, 33, "VM-entry failure due to invalid guest state");
    assert_eq!(m.stat("number of vm entries that failed"), 1);
    // Put right again, the vcpu runs.
    m.cpu
        .set_desc(
            SegReg::Cs,
            SegDesc {
                base: 0,
                limit: 0xffff_ffff,
                access: 0xc09b,
            },
        )
        .unwrap();
    m.load(CODE, &[0xe6, 0x80]);
    m.cpu.set_register(Reg::Rip, CODE).unwrap();
    inout(&m.run());
}

fn nmi_reaches_the_handler() {
    on_one_cpu(|| {
        let m = Machine::real(&[0xeb, 0xfe]); // jmp $
        m.load(2 * 4, &[0x00, 0x20, 0x00, 0x00]);
        m.load(0x2000, &[0xe6, 0x80, 0xcf]); // out 0x80, al; iret
        // What is behind the interrupted instruction, for the return.
        m.load(CODE + 2, &[0xe6, 0x81]); // out 0x81, al
        m.cpu.inject_nmi().unwrap();
        let exit = m.run();
        assert_eq!((inout(&exit).port, exit.rip), (0x80, 0x2000));
        assert_eq!(m.stat("number of NMIs delivered to vcpu"), 1);
        m.load(CODE, &[0x90, 0x90]); // the loop is over
        assert_eq!(inout(&m.run()).port, 0x81, "IRET returns");
    });
}

fn injected_exception_with_error_code() {
    let m = Machine::protected(&[0x90]);
    // An IDT at 0x3000 with a 32-bit interrupt gate for #GP.
    m.load(
        0x3000 + 13 * 8,
        &[0x00, 0x20, 0x08, 0x00, 0x00, 0x8e, 0x00, 0x00],
    );
    m.cpu
        .set_desc(
            SegReg::Idtr,
            SegDesc {
                base: 0x3000,
                limit: 0xff,
                access: 0,
            },
        )
        .unwrap();
    m.load(0x2000, &[0x58, 0xe7, 0x80]); // pop eax; out 0x80, eax
    m.cpu.inject_exception(13, Some(0x1234), true).unwrap();
    let again = m.cpu.inject_exception(6, None, true).unwrap_err();
    assert!(again.is(libc::EBUSY), "a second exception: {again}");
    assert_eq!(inout(&m.run()).eax, 0x1234);
    assert_eq!(
        m.reg(Reg::Rsp),
        STACK - 12,
        "EFLAGS, CS and EIP are left on the stack"
    );
}

fn task_switch() {
    let m = Machine::protected(&[0xea, 0, 0, 0, 0, 0x18, 0x00]); // jmp 0x18:0
    // GDT entry 3: an available 32-bit TSS at 0x5000.
    m.load(
        0x9000 + 0x18,
        &[0x67, 0x00, 0x00, 0x50, 0x00, 0x89, 0x00, 0x00],
    );
    m.cpu
        .set_desc(
            SegReg::Gdtr,
            SegDesc {
                base: 0x9000,
                limit: 31,
                access: 0,
            },
        )
        .unwrap();
    let exit = m.run();
    let Exit::TaskSwitch(t) = exit.exit else {
        panic!("{exit:?}")
    };
    assert_eq!(
        (t.tss_selector, t.reason, t.ext, t.error_code),
        (0x18, vmmapi::TaskSwitchReason::Jmp, false, None)
    );
}

/// At CPL 3 the CPU itself refuses HLT, so that the exit never happens (CVE-2020-7467's class).
fn privileged_instruction_at_cpl_3() {
    let m = Machine::protected(&[0xf4]); // hlt
    m.load(
        0x3000 + 13 * 8,
        &[0x00, 0x20, 0x08, 0x00, 0x00, 0x8e, 0x00, 0x00],
    );
    m.load(0x2000, &[0xe6, 0x80]);
    // A TSS whose ring 0 stack is at 0x8000 in segment 0x10.
    m.load(0x5004, &[0x00, 0x80, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00]);
    let set = |seg, base, limit, access| {
        m.cpu
            .set_desc(
                seg,
                SegDesc {
                    base,
                    limit,
                    access,
                },
            )
            .unwrap()
    };
    set(SegReg::Idtr, 0x3000, 0xff, 0);
    set(SegReg::Tr, 0x5000, 0x67, 0x8b);
    set(SegReg::Cs, 0, 0xffff_ffff, 0xc0fb);
    set(SegReg::Ss, 0, 0xffff_ffff, 0xc0f3);
    m.cpu
        .set_registers(&[(Reg::Cs, 0xb), (Reg::Ss, 0x13)])
        .unwrap();
    let exit = m.run();
    assert_eq!((inout(&exit).port, exit.rip), (0x80, 0x2000));
    assert_eq!(m.stat("number of times hlt was intercepted"), 0);
}
