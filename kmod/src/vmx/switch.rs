//! The world switch: the assembly between VMLAUNCH or VMRESUME and the VM exit, with the
//! seed article's names (SDM vol. 3C, 27.1, 28.5 and 28.6 for what the CPU does by itself).
//!
//! ```text
//!  vmx_run ─► vmx_enter ─call─► vmx_setjmp   saves the host's registers in VmxCtx and
//!                                 │           returns VMX_RETURN_DIRECT
//!              launched? ◄────────┘
//!              no │   │ yes
//!       vmx_launch    vmx_resume              load the guest's registers, enter
//!                 └─┬─┘
//!                   ▼  the guest … VM exit to HOST_RIP with RSP = HOST_RSP = &VmxCtx
//!              vmx_longjmp                    saves the guest's registers; back through
//!                   │                         vmx_setjmp's return: VMX_RETURN_LONGJMP
//!  vmx_run ◄─ vmx_enter ◄─ (vmx_setjmp returns a second time)
//! ```
//!
//! A failed VMLAUNCH or VMRESUME leaves by the same door with VMX_RETURN_VMLAUNCH or
//! VMX_RETURN_VMRESUME. A function that returns twice must not be called from Rust, whose
//! compiler assumes once; so the second return stays inside `vmx_enter`, which Rust sees
//! as an ordinary function: one call, one return.

use core::mem::offset_of;

/// Answers of vmx_setjmp and vmx_enter; the numbers are the seed's.
pub const VMX_RETURN_DIRECT: u32 = 0;
pub const VMX_RETURN_LONGJMP: u32 = 1;
pub const VMX_RETURN_VMRESUME: u32 = 2;
pub const VMX_RETURN_VMLAUNCH: u32 = 3;

/// [`VmxCtx::inst_fail_status`] after VMX_RETURN_VMRESUME and VMX_RETURN_VMLAUNCH.
pub const VM_FAIL_INVALID: u32 = 1;
pub const VM_FAIL_VALID: u32 = 2;

/// The registers that the CPU doesn't switch itself (`struct vmxctx`). Its address is the
/// VMCS's HOST_RSP, so it doesn't move while a VMCS refers to it.
#[repr(C, align(64))]
#[derive(Clone)]
pub struct VmxCtx {
    pub guest_rdi: u64,
    pub guest_rsi: u64,
    pub guest_rdx: u64,
    pub guest_rcx: u64,
    pub guest_r8: u64,
    pub guest_r9: u64,
    pub guest_rax: u64,
    pub guest_rbx: u64,
    pub guest_rbp: u64,
    pub guest_r10: u64,
    pub guest_r11: u64,
    pub guest_r12: u64,
    pub guest_r13: u64,
    pub guest_r14: u64,
    pub guest_r15: u64,
    pub guest_cr2: u64,

    host_r15: u64,
    host_r14: u64,
    host_r13: u64,
    host_r12: u64,
    host_rbp: u64,
    host_rsp: u64,
    host_rbx: u64,
    /// Where vmx_setjmp returns to.
    host_rip: u64,

    /// How VMLAUNCH or VMRESUME failed: VM_FAIL_INVALID or VM_FAIL_VALID.
    pub inst_fail_status: u32,
}

impl VmxCtx {
    /// The registers after a reset (SDM vol. 3A, table 10-1): all zero but EDX, which
    /// has the processor's signature (CPUID.1:EAX).
    pub const fn reset(signature: u32) -> Self {
        Self {
            guest_rdi: 0,
            guest_rsi: 0,
            guest_rdx: signature as u64,
            guest_rcx: 0,
            guest_r8: 0,
            guest_r9: 0,
            guest_rax: 0,
            guest_rbx: 0,
            guest_rbp: 0,
            guest_r10: 0,
            guest_r11: 0,
            guest_r12: 0,
            guest_r13: 0,
            guest_r14: 0,
            guest_r15: 0,
            guest_cr2: 0,
            host_r15: 0,
            host_r14: 0,
            host_r13: 0,
            host_r12: 0,
            host_rbp: 0,
            host_rsp: 0,
            host_rbx: 0,
            host_rip: 0,
            inst_fail_status: 0,
        }
    }
}

unsafe extern "C" {
    /// Enters the guest of the current VMCS and returns after the VM exit
    /// (VMX_RETURN_LONGJMP) or the failed entry.
    ///
    /// # Safety
    /// Interrupts are off; the current VMCS has HOST_RSP = `ctx`, HOST_RIP = vmx_longjmp
    /// or vmx_longjmp_flush_rsb and otherwise this CPU's host state; `launched` tells
    /// whether its launch state is "launched". RFLAGS is as after a VM exit on return.
    pub fn vmx_enter(ctx: *mut VmxCtx, launched: bool) -> u32;

    /// HOST_RIP: never called from Rust.
    pub fn vmx_longjmp();
    /// HOST_RIP of a host that wants the return stack buffer filled, so that no return
    /// of the host is predicted from the guest's calls. Never called from Rust.
    pub fn vmx_longjmp_flush_rsb();
}

core::arch::global_asm!(
    ".section .text.vmx_switch,\"ax\",@progbits",
    ".globl vmx_enter, vmx_setjmp, vmx_launch, vmx_resume, vmx_longjmp, vmx_longjmp_flush_rsb",
    ".type vmx_enter,@function",
    ".type vmx_setjmp,@function",
    ".type vmx_launch,@function",
    ".type vmx_resume,@function",
    ".type vmx_longjmp,@function",
    ".type vmx_longjmp_flush_rsb,@function",

    // extern "C" fn vmx_enter(rdi: ctx, sil: launched) -> eax
    ".p2align 4",
    "vmx_enter:",
    "call vmx_setjmp",
    "test eax, eax",
    "jnz 2f", // the second return: the guest has been, or could not be entered
    "test sil, sil",
    "jz vmx_launch",
    "jmp vmx_resume",
    "2: ret",
    ".size vmx_enter, . - vmx_enter",

    // Saves what a C function preserves, the stack and where to return to. RSI survives.
    ".p2align 4",
    "vmx_setjmp:",
    "mov rax, [rsp]",
    "mov [rdi + {host_rip}], rax",
    "mov [rdi + {host_r15}], r15",
    "mov [rdi + {host_r14}], r14",
    "mov [rdi + {host_r13}], r13",
    "mov [rdi + {host_r12}], r12",
    "mov [rdi + {host_rbp}], rbp",
    "mov [rdi + {host_rsp}], rsp",
    "mov [rdi + {host_rbx}], rbx",
    "mov eax, {VMX_RETURN_DIRECT}",
    "ret",
    ".size vmx_setjmp, . - vmx_setjmp",

    // RSP holds ctx while the guest's registers are loaded, as it does after an exit:
    // it is the one register that the VMCS switches. Interrupts are off, and NMI and #MC
    // have stacks of their own (IST) in both host kernels.
    ".macro VMX_GUEST_RESTORE",
    "mov rsp, rdi",
    "mov rax, [rsp + {guest_cr2}]",
    "mov rdx, cr2",
    "cmp rax, rdx",
    "je 3f",
    "mov cr2, rax",
    "3:",
    "mov rsi, [rsp + {guest_rsi}]",
    "mov rdx, [rsp + {guest_rdx}]",
    "mov rcx, [rsp + {guest_rcx}]",
    "mov r8, [rsp + {guest_r8}]",
    "mov r9, [rsp + {guest_r9}]",
    "mov rax, [rsp + {guest_rax}]",
    "mov rbx, [rsp + {guest_rbx}]",
    "mov rbp, [rsp + {guest_rbp}]",
    "mov r10, [rsp + {guest_r10}]",
    "mov r11, [rsp + {guest_r11}]",
    "mov r12, [rsp + {guest_r12}]",
    "mov r13, [rsp + {guest_r13}]",
    "mov r14, [rsp + {guest_r14}]",
    "mov r15, [rsp + {guest_r15}]",
    "mov rdi, [rsp + {guest_rdi}]",
    ".endm",

    ".p2align 4",
    "vmx_launch:",
    "VMX_GUEST_RESTORE",
    "vmlaunch",
    // Only a failed entry comes here, and RSP still holds ctx. MOV keeps the flags.
    "mov eax, {VMX_RETURN_VMLAUNCH}",
    "jmp 4f",
    ".size vmx_launch, . - vmx_launch",

    ".p2align 4",
    "vmx_resume:",
    "VMX_GUEST_RESTORE",
    "vmresume",
    "mov eax, {VMX_RETURN_VMRESUME}",
    "4:",
    "mov ecx, {VM_FAIL_INVALID}",
    "jc 5f",
    "mov ecx, {VM_FAIL_VALID}",
    "5:",
    "mov [rsp + {inst_fail_status}], ecx",
    "jmp 6f",
    ".size vmx_resume, . - vmx_resume",

    // 32 calls that never return fill the buffer (Intel, retpoline paper, 3.2); each
    // pair is one turn. The pushed addresses are dropped by restoring RSP. They may not
    // lie below ctx, so the host's stack holds them.
    ".p2align 4",
    "vmx_longjmp_flush_rsb:",
    "mov [rsp + {guest_rax}], rax",
    "mov [rsp + {guest_rbx}], rbx",
    "mov rax, rsp",
    "mov rsp, [rax + {host_rsp}]",
    "mov ebx, 16",
    "7:",
    "call 32f",
    "28: pause",
    "lfence",
    "jmp 28b",
    "32: call 33f",
    "29: pause",
    "lfence",
    "jmp 29b",
    "33: dec ebx",
    "jnz 7b",
    "mov rsp, rax",
    "mov rax, [rsp + {guest_rax}]",
    "mov rbx, [rsp + {guest_rbx}]",
    ".size vmx_longjmp_flush_rsb, . - vmx_longjmp_flush_rsb",
    // falls into

    "vmx_longjmp:",
    "mov [rsp + {guest_rdi}], rdi",
    "mov [rsp + {guest_rsi}], rsi",
    "mov [rsp + {guest_rdx}], rdx",
    "mov [rsp + {guest_rcx}], rcx",
    "mov [rsp + {guest_r8}], r8",
    "mov [rsp + {guest_r9}], r9",
    "mov [rsp + {guest_rax}], rax",
    "mov [rsp + {guest_rbx}], rbx",
    "mov [rsp + {guest_rbp}], rbp",
    "mov [rsp + {guest_r10}], r10",
    "mov [rsp + {guest_r11}], r11",
    "mov [rsp + {guest_r12}], r12",
    "mov [rsp + {guest_r13}], r13",
    "mov [rsp + {guest_r14}], r14",
    "mov [rsp + {guest_r15}], r15",
    "mov rax, cr2",
    "mov [rsp + {guest_cr2}], rax",
    "mov eax, {VMX_RETURN_LONGJMP}",

    // The door: the host's registers, and vmx_setjmp's return a second time. Its return
    // address is written back, for calls since then may have used that stack slot. What
    // the guest left in the other registers is cleared, so that no speculation of the
    // host works on the guest's values.
    "6:",
    "mov rdi, rsp",
    "mov rsp, [rdi + {host_rsp}]",
    "mov rdx, [rdi + {host_rip}]",
    "mov [rsp], rdx",
    "mov r15, [rdi + {host_r15}]",
    "mov r14, [rdi + {host_r14}]",
    "mov r13, [rdi + {host_r13}]",
    "mov r12, [rdi + {host_r12}]",
    "mov rbp, [rdi + {host_rbp}]",
    "mov rbx, [rdi + {host_rbx}]",
    "xor ecx, ecx",
    "xor edx, edx",
    "xor esi, esi",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "xor r10d, r10d",
    "xor r11d, r11d",
    "ret",
    ".size vmx_longjmp, . - vmx_longjmp",
    ".purgem VMX_GUEST_RESTORE",
    ".text",

    VMX_RETURN_DIRECT = const VMX_RETURN_DIRECT,
    VMX_RETURN_LONGJMP = const VMX_RETURN_LONGJMP,
    VMX_RETURN_VMRESUME = const VMX_RETURN_VMRESUME,
    VMX_RETURN_VMLAUNCH = const VMX_RETURN_VMLAUNCH,
    VM_FAIL_INVALID = const VM_FAIL_INVALID,
    VM_FAIL_VALID = const VM_FAIL_VALID,
    guest_rdi = const offset_of!(VmxCtx, guest_rdi),
    guest_rsi = const offset_of!(VmxCtx, guest_rsi),
    guest_rdx = const offset_of!(VmxCtx, guest_rdx),
    guest_rcx = const offset_of!(VmxCtx, guest_rcx),
    guest_r8 = const offset_of!(VmxCtx, guest_r8),
    guest_r9 = const offset_of!(VmxCtx, guest_r9),
    guest_rax = const offset_of!(VmxCtx, guest_rax),
    guest_rbx = const offset_of!(VmxCtx, guest_rbx),
    guest_rbp = const offset_of!(VmxCtx, guest_rbp),
    guest_r10 = const offset_of!(VmxCtx, guest_r10),
    guest_r11 = const offset_of!(VmxCtx, guest_r11),
    guest_r12 = const offset_of!(VmxCtx, guest_r12),
    guest_r13 = const offset_of!(VmxCtx, guest_r13),
    guest_r14 = const offset_of!(VmxCtx, guest_r14),
    guest_r15 = const offset_of!(VmxCtx, guest_r15),
    guest_cr2 = const offset_of!(VmxCtx, guest_cr2),
    host_r15 = const offset_of!(VmxCtx, host_r15),
    host_r14 = const offset_of!(VmxCtx, host_r14),
    host_r13 = const offset_of!(VmxCtx, host_r13),
    host_r12 = const offset_of!(VmxCtx, host_r12),
    host_rbp = const offset_of!(VmxCtx, host_rbp),
    host_rsp = const offset_of!(VmxCtx, host_rsp),
    host_rbx = const offset_of!(VmxCtx, host_rbx),
    host_rip = const offset_of!(VmxCtx, host_rip),
    inst_fail_status = const offset_of!(VmxCtx, inst_fail_status),
);
