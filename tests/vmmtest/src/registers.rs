//! Registers and segment descriptors: every one that can be set reads back, and what the
//! guest then sees is that value.

use vmmapi::{Reg, SegDesc, SegReg, Vm};

use crate::machine::{CODE, Machine, fresh_name};

crate::tests! {
    power_on_state,
    general_registers_keep_their_values,
    system_registers_keep_their_values,
    descriptors_keep_their_values,
    a_set_of_registers,
    control_register_shadow,
    registers_reach_the_guest_and_come_back,
    debug_registers_belong_to_the_guest,
}

/// SDM vol. 3A, table 10-1.
fn power_on_state() {
    let vm = Vm::create(&fresh_name()).unwrap();
    let cpu = vm.vcpu(vmmapi::VcpuId::BSP);
    let [rip, rflags, cr0, cr3, cr4, efer, dr7] = cpu
        .registers([
            Reg::Rip,
            Reg::Rflags,
            Reg::Cr0,
            Reg::Cr3,
            Reg::Cr4,
            Reg::Efer,
            Reg::Dr7,
        ])
        .unwrap();
    let cs = cpu.desc(SegReg::Cs).unwrap();
    let found = (rip, rflags, cr0 & 0x8000_0001, cr3, cr4, efer, dr7);
    vm.destroy().unwrap();
    assert_eq!(found, (0xfff0, 2, 0, 0, 0, 0, 0x400));
    assert_eq!((cs.base, cs.limit), (0xffff_0000, 0xffff));
}

fn general_registers_keep_their_values() {
    let m = Machine::new();
    let general = || Reg::GENERAL.into_iter().chain([Reg::Rip]).enumerate();
    for (i, reg) in general() {
        m.cpu
            .set_register(reg, 0x1111_2222_3333_0000 + i as u64)
            .unwrap();
    }
    for (i, reg) in general() {
        assert_eq!(m.reg(reg), 0x1111_2222_3333_0000 + i as u64, "{reg:?}");
    }
}

fn system_registers_keep_their_values() {
    let m = Machine::new();
    let values = [
        (Reg::Cr2, 0xffff_8000_dead_beef),
        (Reg::Cr3, 0x12_3000),
        (Reg::Dr0, 0x1000),
        (Reg::Dr1, 0x2000),
        (Reg::Dr2, 0x3000),
        (Reg::Dr3, 0x4000),
        (Reg::Dr6, 0xffff_0ff0),
        (Reg::Dr7, 0x400),
        (Reg::Rflags, 0x202),
        (Reg::FsBase, 0x7000_0000),
        (Reg::GsBase, 0x8000_0000),
        (Reg::KgsBase, 0xffff_8000_1234_5678),
        (Reg::Pdpte0, 0x1001),
        (Reg::Pdpte3, 0x4001),
    ];
    m.cpu.set_registers(&values).unwrap();
    for (reg, value) in values {
        assert_eq!(m.reg(reg), value, "{reg:?}");
    }
}

fn descriptors_keep_their_values() {
    let m = Machine::new();
    for (i, seg) in [
        SegReg::Cs,
        SegReg::Ds,
        SegReg::Es,
        SegReg::Fs,
        SegReg::Gs,
        SegReg::Ss,
        SegReg::Ldtr,
        SegReg::Tr,
    ]
    .into_iter()
    .enumerate()
    {
        let desc = SegDesc {
            base: 0x1000 * i as u64,
            limit: 0xfff + i as u32,
            access: 0x93,
        };
        m.cpu.set_desc(seg, desc).unwrap();
        assert_eq!(m.cpu.desc(seg).unwrap(), desc, "{seg:?}");
    }
    for seg in [SegReg::Gdtr, SegReg::Idtr] {
        m.cpu
            .set_desc(
                seg,
                SegDesc {
                    base: 0x5000,
                    limit: 0x1ff,
                    access: 0,
                },
            )
            .unwrap();
        let desc = m.cpu.desc(seg).unwrap();
        assert_eq!((desc.base, desc.limit), (0x5000, 0x1ff), "{seg:?}");
    }
}

fn a_set_of_registers() {
    let m = Machine::new();
    m.cpu
        .set_registers(&[(Reg::Rax, 1), (Reg::R15, 2), (Reg::Cr2, 3)])
        .unwrap();
    assert_eq!(
        m.cpu.registers([Reg::Cr2, Reg::R15, Reg::Rax]).unwrap(),
        [3, 2, 1]
    );
    assert_eq!(m.cpu.registers([]).unwrap(), []);
}

/// CR0.NE and CR4.VMXE are on for the CPU but not what the guest wrote: reads give the
/// guest's value.
fn control_register_shadow() {
    let m = Machine::protected(&[
        0x0f, 0x20, 0xc0, // mov eax, cr0
        0x0f, 0x20, 0xe3, // mov ebx, cr4
        0xe6, 0x80, // out 0x80, al
    ]);
    m.cpu.set_register(Reg::Cr0, 0x11).unwrap();
    m.cpu.set_register(Reg::Cr4, 0x10).unwrap();
    m.run();
    assert_eq!(
        (m.reg(Reg::Rax), m.reg(Reg::Rbx)),
        (m.reg(Reg::Cr0), m.reg(Reg::Cr4))
    );
    assert_eq!((m.reg(Reg::Cr0), m.reg(Reg::Cr4)), (0x11, 0x10));
}

fn registers_reach_the_guest_and_come_back() {
    let m = Machine::long(&[
        0x48, 0x01, 0xd8, // add rax, rbx
        0x4d, 0x01, 0xfe, // add r14, r15
        0x48, 0x87, 0xee, // xchg rsi, rbp
        0xe6, 0x80, // out 0x80, al
    ]);
    let before = [
        (Reg::Rax, 0xffff_ffff_0000_0001),
        (Reg::Rbx, 0xffff),
        (Reg::R14, 40),
        (Reg::R15, 2),
        (Reg::Rsi, 6),
        (Reg::Rbp, 7),
    ];
    m.cpu.set_registers(&before).unwrap();
    let exit = m.run();
    assert_eq!(exit.rip, CODE + 9);
    let after = m
        .cpu
        .registers([Reg::Rax, Reg::R14, Reg::Rsi, Reg::Rbp])
        .unwrap();
    assert_eq!(after, [0xffff_ffff_0001_0000, 42, 7, 6]);
}

fn debug_registers_belong_to_the_guest() {
    let m = Machine::long(&[
        0x0f, 0x23, 0xc0, // mov dr0, rax
        0x0f, 0x21, 0xdb, // mov rbx, dr3
        0xe6, 0x80, // out 0x80, al
    ]);
    m.cpu
        .set_registers(&[(Reg::Rax, 0xabc000), (Reg::Dr3, 0x123000)])
        .unwrap();
    m.run();
    assert_eq!((m.reg(Reg::Dr0), m.reg(Reg::Rbx)), (0xabc000, 0x123000));
}
