//! Emulated instructions that touch more than a device: the kernel's devices and
//! userland's, faults in the middle, single steps. Once with the kernel's I/O APIC and once
//! with a device of userland's, which two programs emulate with the same code.

use bhyve::inst_emul::{self, Emulated};
use bhyve::mmio::MmioBus;
use vmmapi::{Exit, Gpa, Reg, SegDesc, SegReg};

use crate::machine::{CODE, HOLE, Machine, STACK};

crate::tests! {
    instructions_at_the_io_apic_stay_in_the_kernel,
    one_operand_at_the_io_apic_and_one_in_userland,
    a_page_fault_in_the_middle_of_a_string,
    a_limit_in_the_middle_of_a_string,
    a_single_step_behind_the_instruction,
}

/// The I/O APIC's register select, which reads as it was written, and its window.
const IOREGSEL: u64 = 0xfec0_0000;
const IOWIN: u64 = 0xfec0_0010;
/// The version register's index.
const VERSION: u8 = 1;
const IDT: u64 = 0x3000;
const HANDLER: u64 = 0x2000;
/// Of the page directory, whose second 4 MiB aren't there.
const PD: u64 = 0x10_0000;
const ABSENT: u64 = 0x40_0000;

/// Reads as 1, 2, 3… by its dwords, and takes all writes.
struct Device;

impl MmioBus for Device {
    fn read(&self, gpa: Gpa, size: u8) -> Option<u64> {
        assert_eq!((size, gpa.get() % 4), (4, 0));
        let offset = gpa.get().checked_sub(HOLE)?;
        (offset < 0x1000).then_some(offset / 4 + 1)
    }

    fn write(&self, gpa: Gpa, _size: u8, _value: u64) -> bool {
        gpa.page_base() == Gpa(HOLE)
    }
}

/// Protected mode with 32-bit paging, 4 MiB pages, all addresses their own. Exceptions
/// come to `out 0x80, al` at [`HANDLER`] plus 16 for each vector.
fn guest(code: &[u8]) -> Machine {
    let m = Machine::protected(code);
    for vector in 0..32u64 {
        let handler = HANDLER + vector * 16;
        let [low, high] = (handler as u16).to_le_bytes();
        m.load(IDT + vector * 8, &[low, high, 0x08, 0, 0, 0x8e, 0, 0]);
        m.load(handler, &[0xe6, 0x80]);
    }
    let idtr = SegDesc {
        base: IDT,
        limit: 0xff,
        access: 0,
    };
    m.cpu.set_desc(SegReg::Idtr, idtr).unwrap();
    for i in 0..1024 {
        let entry = (i << 22) as u32 | if i == ABSENT >> 22 { 0x82 } else { 0x83 };
        m.vm.memory().write(Gpa(PD + 4 * i), entry).unwrap();
    }
    let paging = [(Reg::Cr3, PD), (Reg::Cr4, 0x10), (Reg::Cr0, 0x8001_0031)];
    m.cpu.set_registers(&paging).unwrap();
    m
}

/// Runs to the next OUT, emulating for [`Device`]; its RIP, and how often it did.
fn run(m: &Machine) -> (u64, u32) {
    let mut emulated = 0;
    loop {
        let exit = m.run();
        match exit.exit {
            Exit::Inout(_) => return (exit.rip, emulated),
            Exit::InstEmul(emul) => {
                emulated += 1;
                match inst_emul::emulate(&m.cpu, &exit, &emul, &Device).unwrap() {
                    Emulated::Done => {}
                    Emulated::Repeat => m.cpu.restart_instruction().unwrap(),
                    other => panic!("{other:?} at {:?}", emul.gpa),
                }
            }
            other => panic!("{other:?} at {:#x}", exit.rip),
        }
    }
}

fn instructions_at_the_io_apic_stay_in_the_kernel() {
    #[rustfmt::skip]
    let m = guest(&[
        0xc7, 0x05, 0x00, 0x00, 0xc0, 0xfe, VERSION, 0, 0, 0,   // mov dword [IOREGSEL], VERSION
        0xa1, 0x10, 0x00, 0xc0, 0xfe,                           // mov eax, [IOWIN]
        0x80, 0x0d, 0x00, 0x00, 0xc0, 0xfe, 0x00,               // or byte [IOREGSEL], 0
        0xff, 0x35, 0x00, 0x00, 0xc0, 0xfe,                     // push dword [IOREGSEL]
        0x5b,                                                   // pop ebx
        0xa5,                                                   // movsd
        0xe6, 0x80,                                             // out 0x80, al
    ]);
    let registers = [(Reg::Rsi, IOWIN), (Reg::Rdi, 0x2_0000)];
    m.cpu.set_registers(&registers).unwrap();
    let (rip, emulated) = run(&m);
    assert_eq!(
        (rip, emulated),
        (CODE + 30, 0),
        "userland has nothing to do"
    );
    let version = m.reg(Reg::Rax);
    // 24 or 32 inputs; the number of the last one is in bits 23:16.
    assert!(matches!(version >> 16, 23 | 31), "version {version:#x}");
    assert_eq!(m.reg(Reg::Rbx), VERSION.into());
    let copied: u32 = m.vm.memory().read(Gpa(0x2_0000)).unwrap();
    assert_eq!(u64::from(copied), version);
    assert_eq!((m.reg(Reg::Rsi), m.reg(Reg::Rdi)), (IOWIN + 4, 0x2_0004));
    assert!(m.stat("vm exits for instruction emulation") >= 5);
}

fn one_operand_at_the_io_apic_and_one_in_userland() {
    let m = guest(&[0xa5, 0xa5, 0xe6, 0x80]); // movsd; movsd; out 0x80, al
    m.cpu.write_kernemu_device(Gpa(IOREGSEL), 4, 5).unwrap();
    // To the I/O APIC: the device's first word is 1.
    let registers = [(Reg::Rsi, HOLE), (Reg::Rdi, IOREGSEL)];
    m.cpu.set_registers(&registers).unwrap();
    let exit = m.run();
    let Exit::InstEmul(emul) = exit.exit else {
        panic!("{exit:?}")
    };
    let done = inst_emul::emulate(&m.cpu, &exit, &emul, &Device).unwrap();
    assert_eq!(done, Emulated::Done);
    let selected = m.cpu.read_kernemu_device(Gpa(IOREGSEL), 4).unwrap();
    assert_eq!(selected & 0xff, 1);
    // From the I/O APIC.
    let registers = [(Reg::Rsi, IOREGSEL), (Reg::Rdi, HOLE)];
    m.cpu.set_registers(&registers).unwrap();
    assert_eq!(run(&m), (CODE + 2, 1));
    assert_eq!((m.reg(Reg::Rsi), m.reg(Reg::Rdi)), (IOREGSEL + 4, HOLE + 4));
}

fn a_page_fault_in_the_middle_of_a_string() {
    for (source, first) in [(IOREGSEL, u32::from(VERSION)), (HOLE, 1)] {
        let m = guest(&[0xf3, 0xa5, 0xe6, 0x80]); // rep movsd; out 0x80, al
        m.cpu
            .write_kernemu_device(Gpa(IOREGSEL), 4, VERSION.into())
            .unwrap();
        let registers = [(Reg::Rsi, source), (Reg::Rdi, ABSENT - 8), (Reg::Rcx, 10)];
        m.cpu.set_registers(&registers).unwrap();
        let (rip, _) = run(&m);
        assert_eq!(rip, HANDLER + 14 * 16, "#PF");
        let memory = m.vm.memory();
        let rsp = m.reg(Reg::Rsp);
        assert_eq!(rsp, STACK - 16);
        let frame = [rsp, rsp + 4].map(|at| memory.read::<u32>(Gpa(at)).unwrap());
        assert_eq!(frame, [2, CODE as u32], "error code of a write, and EIP");
        assert_eq!(m.reg(Reg::Cr2), ABSENT);
        assert_eq!(
            (m.reg(Reg::Rcx), m.reg(Reg::Rsi), m.reg(Reg::Rdi)),
            (8, source + 8, ABSENT)
        );
        assert_eq!(memory.read::<u32>(Gpa(ABSENT - 8)).unwrap(), first);
        // What was written to is dirty and accessed, what wasn't is neither.
        let entries = [0, ABSENT >> 22].map(|i| memory.read::<u32>(Gpa(PD + 4 * i)).unwrap());
        assert_eq!(entries.map(|entry| entry & 0x60), [0x60, 0]);
    }
}

fn a_limit_in_the_middle_of_a_string() {
    for base in [IOREGSEL, HOLE] {
        let m = guest(&[0xf3, 0xab, 0xe6, 0x80]); // rep stosd; out 0x80, al
        let es = SegDesc {
            base,
            limit: 0xfff,
            access: 0x4093,
        };
        m.cpu.set_desc(SegReg::Es, es).unwrap();
        // Three words end at the limit.
        let registers = [(Reg::Rdi, 0xff4), (Reg::Rcx, 10)];
        m.cpu.set_registers(&registers).unwrap();
        let (rip, _) = run(&m);
        assert_eq!(rip, HANDLER + 13 * 16, "#GP");
        let frame: [u32; 2] = [0, 4].map(|i| {
            let at = Gpa(m.reg(Reg::Rsp) + i);
            m.vm.memory().read(at).unwrap()
        });
        assert_eq!(frame, [0, CODE as u32]);
        assert_eq!((m.reg(Reg::Rcx), m.reg(Reg::Rdi)), (7, 0x1000));
    }
}

fn a_single_step_behind_the_instruction() {
    for (address, value) in [(IOREGSEL, u64::from(VERSION)), (HOLE, 1)] {
        // out 0x80, al; mov eax, [edi]; out 0x80, al
        let m = guest(&[0xe6, 0x80, 0x8b, 0x07, 0xe6, 0x80]);
        m.cpu
            .write_kernemu_device(Gpa(IOREGSEL), 4, VERSION.into())
            .unwrap();
        // The first stretch fills the EPT: Bochs has a single step pending after each EPT
        // violation, also before the instruction was executed.
        assert_eq!(run(&m).0, CODE);
        let registers = [(Reg::Rdi, address), (Reg::Rflags, 0x102)];
        m.cpu.set_registers(&registers).unwrap();
        let (rip, _) = run(&m);
        assert_eq!(rip, HANDLER + 16, "#DB");
        let eip: u32 = m.vm.memory().read(Gpa(m.reg(Reg::Rsp))).unwrap();
        assert_eq!(u64::from(eip), CODE + 4, "a trap is behind the instruction");
        assert_eq!(m.reg(Reg::Rax), value);
        assert_ne!(m.reg(Reg::Dr6) & 1 << 14, 0, "DR6.BS");
    }
}
