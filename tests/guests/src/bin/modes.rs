//! Every mode of the CPU on the way to long mode (modes.s), then long mode itself with
//! compatibility mode: what each found is checked here.

#![no_std]
#![no_main]

use kit::{Boot, println};

kit::main!(modes);

core::arch::global_asm!(include_str!("../modes.s"), options(att_syntax));

unsafe extern "C" {
    static mode_results: [u32; 16];
}

fn modes(_: Boot) {
    // SAFETY: early32 has filled it; nobody writes it any more.
    let found = unsafe { (&raw const mode_results).read_volatile() };
    let check = |what: &str, got: u32, want: u32| {
        assert!(got == want, "{what}: {got:#x} instead of {want:#x}");
        println!("{what}: ok");
    };
    check(
        "protected mode: CPUID signature",
        found[0],
        u32::from_le_bytes(*b"bhyv"),
    );
    check(
        "protected mode: transmitter is ready",
        found[1] & 0x60,
        0x60,
    );
    check(
        "32-bit paging: the same memory twice",
        found[2],
        0x1122_3344,
    );
    check("32-bit paging: accessed", found[3] & 0x20, 0x20);
    check("PAE: the same memory twice", found[4], 0x5566_7788);
    check(
        "real mode: INT through the vector table",
        found[5],
        0x600d_0021,
    );
    check("real mode: segments", found[6], 0xcafe_f00d);
    check(
        "compatibility mode: 32-bit code adds with carry out",
        compatibility(),
        0x1_0000,
    );
}

/// Runs 32-bit code below long mode (SDM vol. 3A, 5.2.1): the same bytes mean another
/// instruction there (0x40 is INC EAX, not a REX prefix).
fn compatibility() -> u32 {
    let result: u32;
    // SAFETY: far calls through GDT selectors that boot.s defined; the code touches only
    // EAX and returns.
    unsafe {
        core::arch::asm!(
            "sub rsp, 16",
            "lea {tmp}, [rip + 2f]",
            "mov [rsp], {tmp:e}",
            "mov dword ptr [rsp + 4], 0x18",
            "mov eax, 0xffff",
            "call fword ptr [rsp]",
            "add rsp, 16",
            "jmp 3f",
            "2:",
            ".byte 0x40",        // 32-bit: inc eax
            ".byte 0xcb",        // far return
            "3:",
            tmp = out(reg) _,
            out("eax") result,
        );
    }
    result
}
