//! Provokes each VM exit that a guest can, and checks the answer by what real hardware
//! does (SDM vol. 3C, 26.1): values, #GP, #UD, and where execution goes on.

#![no_std]
#![no_main]

use core::arch::asm;

use kit::exception::Exception;
use kit::{Boot, cpu, expect, println};

kit::main!(exits);

const UD: u64 = 6;
const GP: u64 = 13;

fn exits(_: Boot) {
    cpuid();
    msrs();
    control_registers();
    vmx_instructions();
    ports();
    debug();
    exceptions();
    others();
}

fn is(got: Option<Exception>, vector: u64, what: &str) {
    assert!(
        got.is_some_and(|e| e.vector == vector),
        "{what}: {got:?} instead of exception {vector}"
    );
}

fn none(got: Option<Exception>, what: &str) {
    assert!(got.is_none(), "{what}: {got:?}");
}

fn cpuid() {
    let [max, ..] = cpu::cpuid(0, 0);
    assert!(max >= 0xb, "CPUID leaf 0 says {max:#x}");
    let [_, _, ecx, _] = cpu::cpuid(1, 0);
    assert!(ecx & 1 << 31 != 0, "no hypervisor bit");
    assert!(ecx & 1 << 5 == 0, "VMX is shown to the guest");
    assert!(ecx & 1 << 3 == 0, "MONITOR is shown to the guest");
    println!("cpuid: ok");
}

fn msrs() {
    // SAFETY: IA32_MISC_ENABLE, EFER and SYSENTER_CS exist.
    unsafe {
        cpu::rdmsr(0x1a0);
        assert!(
            cpu::rdmsr(0xc000_0080) & 0x500 == 0x500,
            "EFER has no LME and LMA in long mode"
        );
        cpu::wrmsr(0x174, 0x18);
        assert!(cpu::rdmsr(0x174) == 0x18, "SYSENTER_CS lost its value");
        for msr in [0x175, 0x176, 0xc000_0082, 0xc000_0102, 0xc000_0100] {
            cpu::wrmsr(msr, 0xffff_8000_1234_5678);
            assert!(
                cpu::rdmsr(msr) == 0xffff_8000_1234_5678,
                "MSR {msr:#x} lost its value"
            );
            let bad = expect!("wrmsr", in("ecx") msr, in("eax") 0u32, in("edx") 0x1234_0000u32);
            is(bad, GP, "a non-canonical address in an MSR");
        }
        let pat = cpu::rdmsr(0x277);
        cpu::wrmsr(0x277, pat);
        is(
            expect!("wrmsr", in("ecx") 0x277, in("eax") 0x0202_0202u32, in("edx") 0u32),
            GP,
            "a reserved type in PAT",
        );
    }
    // EFER: reserved bits, and LME can't go while paging is on.
    is(
        expect!("wrmsr", in("ecx") 0xc000_0080u32, in("eax") 0xffff_ffffu32, in("edx") 0u32),
        GP,
        "reserved bits of EFER",
    );
    is(
        expect!("wrmsr", in("ecx") 0xc000_0080u32, in("eax") 0u32, in("edx") 0u32),
        GP,
        "EFER.LME off under paging",
    );
    println!("msr: ok");
}

fn control_registers() {
    let (cr0, cr3, cr4): (u64, u64, u64);
    // SAFETY: reads and writes back what is there.
    unsafe {
        asm!("mov {}, cr0", out(reg) cr0);
        asm!("mov {}, cr3", out(reg) cr3);
        asm!("mov cr3, {}", in(reg) cr3);
        asm!("mov {}, cr4", out(reg) cr4);
        asm!("mov cr0, {}", in(reg) cr0 ^ 8);
        let mut now: u64;
        asm!("mov {}, cr0", out(reg) now);
        assert!(now == cr0 ^ 8, "CR0 {now:#x} after writing {:#x}", cr0 ^ 8);
        asm!("mov cr0, {}", in(reg) cr0 | 8);
        asm!("clts");
        asm!("mov {}, cr0", out(reg) now);
        assert!(now & 8 == 0, "CLTS left CR0.TS");
        asm!("mov cr0, {}", in(reg) cr0);
        asm!("smsw {0:x}", "lmsw {0:x}", out(reg) _);
    }
    assert!(cr4 & 1 << 13 == 0, "CR4.VMXE is visible");
    is(
        expect!("mov cr0, {}", in(reg) cr0 & !1),
        GP,
        "PE off under paging",
    );
    is(
        expect!("mov cr0, {}", in(reg) cr0 & !(1 << 31)),
        GP,
        "PG off in 64-bit mode",
    );
    is(
        expect!("mov cr0, {}", in(reg) cr0 | 1 << 29 & !(1 << 30)),
        GP,
        "NW without CD",
    );
    is(
        expect!("mov cr0, {}", in(reg) cr0 | 1 << 32),
        GP,
        "upper half of CR0",
    );
    is(
        expect!("mov cr4, {}", in(reg) cr4 & !0x20),
        GP,
        "PAE off in long mode",
    );
    is(
        expect!("mov cr4, {}", in(reg) cr4 | 1 << 13),
        GP,
        "CR4.VMXE on without VMX",
    );
    is(
        expect!("mov cr4, {}", in(reg) cr4 | 1 << 32),
        GP,
        "upper half of CR4",
    );
    none(expect!("mov cr4, {}", in(reg) cr4 | 1 << 7), "CR4.PGE");
    let cr8: u64;
    // SAFETY: the task priority has no effect without an APIC's interrupts.
    unsafe {
        asm!("mov cr8, {}", in(reg) 5u64);
        asm!("mov {}, cr8", out(reg) cr8);
        asm!("mov cr8, {}", in(reg) 0u64);
    }
    assert!(cr8 == 5, "CR8 is {cr8}");
    is(expect!("mov cr8, {}", in(reg) 16u64), GP, "CR8 of 16");
    println!("cr: ok");
    xsetbv(cr4);
}

fn xsetbv(cr4: u64) {
    let [_, _, ecx, _] = cpu::cpuid(1, 0);
    if ecx & 1 << 26 == 0 {
        println!("xsetbv: no XSAVE here");
        return;
    }
    is(
        expect!("xsetbv", in("ecx") 0u32, in("eax") 1u32, in("edx") 0u32),
        UD,
        "XSETBV without OSXSAVE",
    );
    // SAFETY: CR4.OSXSAVE, since CPUID shows XSAVE.
    unsafe { asm!("mov cr4, {}", in(reg) cr4 | 1 << 18) };
    assert!(
        cpu::cpuid(1, 0)[2] & 1 << 27 != 0,
        "CPUID.OSXSAVE does not follow CR4"
    );
    let [allowed, ..] = cpu::cpuid(0xd, 0);
    none(
        expect!("xsetbv", in("ecx") 0u32, in("eax") allowed, in("edx") 0u32),
        "XSETBV of all that is shown",
    );
    let now: u32;
    // SAFETY: XGETBV exists.
    unsafe { asm!("xgetbv", in("ecx") 0u32, out("eax") now, out("edx") _) };
    assert!(now == allowed, "XCR0 is {now:#x} instead of {allowed:#x}");
    is(
        expect!("xsetbv", in("ecx") 0u32, in("eax") 0u32, in("edx") 0u32),
        GP,
        "XCR0 without x87",
    );
    is(
        expect!("xsetbv", in("ecx") 0u32, in("eax") 5u32, in("edx") 0u32),
        GP,
        "AVX without SSE",
    );
    is(
        expect!("xsetbv", in("ecx") 1u32, in("eax") 1u32, in("edx") 0u32),
        GP,
        "XCR1",
    );
    is(
        expect!("xsetbv", in("ecx") 0u32, in("eax") 1u32, in("edx") 0x8000_0000u32),
        GP,
        "a reserved bit of XCR0",
    );
    println!("xsetbv: ok");
}

fn vmx_instructions() {
    static MEMORY: [u64; 2] = [0; 2];
    let m = &raw const MEMORY;
    is(expect!("vmcall"), UD, "VMCALL");
    is(expect!("vmlaunch"), UD, "VMLAUNCH");
    is(expect!("vmresume"), UD, "VMRESUME");
    is(expect!("vmxoff"), UD, "VMXOFF");
    is(expect!("vmxon [{}]", in(reg) m), UD, "VMXON");
    is(expect!("vmptrld [{}]", in(reg) m), UD, "VMPTRLD");
    is(expect!("vmptrst [{}]", in(reg) m), UD, "VMPTRST");
    is(expect!("vmclear [{}]", in(reg) m), UD, "VMCLEAR");
    is(expect!("vmread rax, rcx", out("rax") _), UD, "VMREAD");
    is(expect!("vmwrite rax, rcx"), UD, "VMWRITE");
    is(expect!("invept rax, [{}]", in(reg) m), UD, "INVEPT");
    is(expect!("invvpid rax, [{}]", in(reg) m), UD, "INVVPID");
    is(expect!("vmfunc"), UD, "VMFUNC");
    is(
        expect!("getsec", in("eax") 0u32),
        UD,
        "GETSEC without CR4.SMXE",
    );
    println!("vmx instructions: ok");
}

fn ports() {
    // Nobody is at these ports: all ones, and writes go nowhere.
    cpu::outb(0xe0, 1);
    cpu::outw(0xe0, 1);
    cpu::outl(0xe0, 1);
    assert!(cpu::inb(0xe0) == 0xff && cpu::inw(0xe0) == 0xffff && cpu::inl(0xe0) == 0xffff_ffff);
    // The upper half of RAX: IN of 32 bits clears it, of 8 and 16 bits keeps it.
    let rax: u64;
    // SAFETY: ports without a device.
    unsafe {
        asm!("mov rax, -1", "mov edx, 0xe0", "in eax, dx", out("rax") rax, out("edx") _);
    }
    assert!(rax == 0xffff_ffff, "RAX is {rax:#x} after IN EAX");
    // String forms: OUTS to the console, forwards and with REP; INS of the line status.
    let text = b"written by REP OUTSB\n";
    let (mut left, mut status): (u64, [u8; 4]) = (text.len() as u64, [0; 4]);
    let (mut si, mut di) = (text.as_ptr() as u64, status.as_mut_ptr() as u64);
    // SAFETY: the string instructions stay within text and status.
    unsafe {
        asm!("rep outsb", inout("rsi") si, inout("rcx") left, in("dx") 0x3f8u16);
        asm!("rep insb", inout("rdi") di, inout("rcx") 4u64 => _, in("dx") 0x3fdu16);
    }
    assert!(
        left == 0 && si == text.as_ptr() as u64 + text.len() as u64,
        "REP OUTSB stopped early"
    );
    assert!(di == &raw const status as u64 + 4, "REP INSB stopped early");
    assert!(
        status.iter().all(|s| s & 0x60 == 0x60),
        "INSB read {status:?}"
    );
    println!("ports: ok");
}

fn debug() {
    let dr: u64;
    // SAFETY: DR0 to DR3 hold addresses that DR7 does not enable.
    unsafe {
        asm!("mov dr0, {}", in(reg) 0x1234_5000u64);
        asm!("mov dr3, {}", in(reg) 0x5678_9000u64);
        cpu::cpuid(0, 0);
        asm!("mov {}, dr0", out(reg) dr);
    }
    assert!(dr == 0x1234_5000, "DR0 is {dr:#x} after an exit");
    let stepped = expect!("pushfq; or dword ptr [rsp], 0x100; popfq; nop; nop");
    is(stepped, 1, "single step");
    is(expect!("int3"), 3, "INT3");
    is(expect!(".byte 0xf1"), 1, "INT1");
    println!("debug: ok");
}

fn exceptions() {
    is(
        expect!("div {0:e}", in(reg) 0u32, inout("eax") 1u32 => _, inout("edx") 0u32 => _),
        0,
        "division by zero",
    );
    is(expect!("ud2"), UD, "UD2");
    let fault = expect!("mov {0}, [{0}]", inout(reg) 0x80_0000_0000u64 => _);
    is(fault, 14, "an address that is not mapped");
    let cr2: u64;
    // SAFETY: reads CR2.
    unsafe { asm!("mov {}, cr2", out(reg) cr2) };
    assert!(cr2 == 0x80_0000_0000, "CR2 is {cr2:#x}");
    is(
        expect!("mov {0}, [{0}]", inout(reg) 0x8000_0000_0000_0000u64 => _),
        GP,
        "a non-canonical address",
    );
    println!("exceptions: ok");
}

fn others() {
    // SAFETY: these write back or drop caches, which in a guest is a matter of time only.
    unsafe {
        asm!("wbinvd");
        asm!("invd");
        asm!("pause");
        asm!("invlpg [{}]", in(reg) 0x10_0000u64);
    }
    is(
        expect!("monitor", in("rax") 0x10_0000u64, in("ecx") 0u32, in("edx") 0u32),
        UD,
        "MONITOR",
    );
    is(
        expect!("mwait", in("eax") 0u32, in("ecx") 0u32),
        UD,
        "MWAIT",
    );
    is(expect!("rsm"), UD, "RSM");
    // Two reads in a row may give the same (Bochs with two CPUs counts in steps of five).
    let first = cpu::rdtsc();
    for _ in 0..100 {
        core::hint::spin_loop();
    }
    let second = cpu::rdtsc();
    assert!(second > first, "the TSC went from {first} to {second}");
    let unknown = expect!("rdmsr", in("ecx") 0x1234u32, out("eax") _, out("edx") _);
    println!("an unknown MSR: {unknown:?}");
    println!("others: ok");
}
