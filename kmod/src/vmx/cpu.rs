//! The registers of the host's CPU, one instruction each: control and debug registers,
//! MSRs, descriptor tables, segment selectors, XCR0 and the FPU (SDM vol. 2 and vol. 3A,
//! chapters 2, 13 and 17). Reading is safe in ring 0; writing is unsafe, since the host's
//! kernel runs on them.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};

/// MSRs that the backend touches (SDM vol. 4, table 2-2).
pub mod msr {
    pub use x86::msr::{
        IA32_CSTAR, IA32_DEBUGCTL, IA32_EFER, IA32_FEATURE_CONTROL, IA32_FMASK, IA32_FS_BASE,
        IA32_GS_BASE, IA32_KERNEL_GSBASE, IA32_LSTAR, IA32_PAT, IA32_STAR, IA32_SYSENTER_CS,
        IA32_SYSENTER_EIP, IA32_SYSENTER_ESP, IA32_TSC_AUX,
    };
}

/// CPUID of the host.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// The processor's signature, which is in EDX after a reset.
pub fn signature() -> u32 {
    __cpuid(1).eax
}

macro_rules! readers {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name() -> u64 {
            let value: u64;
            // SAFETY: reads a register; ring 0 may.
            unsafe { asm!(concat!("mov {}, ", $text), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }
    )*};
}

macro_rules! writers {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// The value must suit the host's kernel, or be replaced before anything relies on it.
        #[inline(always)]
        pub unsafe fn $name(value: u64) {
            // SAFETY: the caller's promise.
            unsafe { asm!(concat!("mov ", $text, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
        }
    )*};
}

readers! {
    read_cr0 = "cr0";
    read_cr3 = "cr3";
    read_cr4 = "cr4";
    read_dr0 = "dr0";
    read_dr1 = "dr1";
    read_dr2 = "dr2";
    read_dr3 = "dr3";
    read_dr6 = "dr6";
    read_dr7 = "dr7";
}

writers! {
    /// A breakpoint address.
    write_dr0 = "dr0";
    /// A breakpoint address.
    write_dr1 = "dr1";
    /// A breakpoint address.
    write_dr2 = "dr2";
    /// A breakpoint address.
    write_dr3 = "dr3";
    /// Debug status.
    write_dr6 = "dr6";
    /// Debug control.
    write_dr7 = "dr7";
}

/// RDMSR.
///
/// # Safety
/// The CPU has the MSR; a missing one is #GP in the host's kernel.
#[inline(always)]
pub unsafe fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// WRMSR.
///
/// # Safety
/// The CPU has the MSR and takes the value, which suits the host or is replaced before the
/// host relies on it.
#[inline(always)]
pub unsafe fn wrmsr(msr: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// The time-stamp counter, not ordered with other instructions.
pub fn rdtsc() -> u64 {
    // SAFETY: ring 0 may execute RDTSC whatever CR4.TSD says.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// What SGDT and SIDT store, LGDT and LIDT load.
#[repr(C, packed)]
#[derive(Clone, Copy, Default)]
pub struct TableRegister {
    pub limit: u16,
    pub base: u64,
}

/// GDTR.
pub fn sgdt() -> TableRegister {
    let mut table = TableRegister::default();
    // SAFETY: stores ten bytes to table.
    unsafe { asm!("sgdt [{}]", in(reg) &raw mut table, options(nostack, preserves_flags)) };
    table
}

/// IDTR.
pub fn sidt() -> TableRegister {
    let mut table = TableRegister::default();
    // SAFETY: stores ten bytes to table.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut table, options(nostack, preserves_flags)) };
    table
}

/// Loads GDTR.
///
/// # Safety
/// `table` is what [`sgdt`] gave on this CPU.
pub unsafe fn lgdt(table: &TableRegister) {
    // SAFETY: the caller's promise.
    unsafe { asm!("lgdt [{}]", in(reg) table, options(nostack, preserves_flags, readonly)) };
}

/// Loads IDTR.
///
/// # Safety
/// `table` is what [`sidt`] gave on this CPU.
pub unsafe fn lidt(table: &TableRegister) {
    // SAFETY: the caller's promise.
    unsafe { asm!("lidt [{}]", in(reg) table, options(nostack, preserves_flags, readonly)) };
}

/// Loads LDTR.
///
/// # Safety
/// `selector` is what [`ldt_selector`] gave on this CPU, with the same GDT.
pub unsafe fn lldt(selector: u16) {
    // SAFETY: the caller's promise.
    unsafe { asm!("lldt {:x}", in(reg) selector, options(nostack, preserves_flags)) };
}

/// LDTR's selector (SLDT).
pub fn ldt_selector() -> u16 {
    let selector: u64;
    // SAFETY: reads a register.
    unsafe { asm!("sldt {}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    selector as u16
}

/// TR's selector (STR).
pub fn task_selector() -> u16 {
    let selector: u64;
    // SAFETY: reads a register.
    unsafe { asm!("str {}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    selector as u16
}

macro_rules! selectors {
    ($($name:ident = $text:literal;)*) => {$(
        /// A segment register's selector.
        pub fn $name() -> u16 {
            let selector: u64;
            // SAFETY: reads a register.
            unsafe { asm!(concat!("mov {}, ", $text), out(reg) selector, options(nomem, nostack, preserves_flags)) };
            selector as u16
        }
    )*};
}

selectors! {
    cs_selector = "cs";
    ss_selector = "ss";
}

/// XCR0.
///
/// # Safety
/// CR4.OSXSAVE is set.
pub unsafe fn xgetbv0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Loads XCR0.
///
/// # Safety
/// CR4.OSXSAVE is set and the CPU takes the value; the host's is put back before the host
/// uses the FPU.
pub unsafe fn xsetbv0(value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// XSAVE of the components in `mask`, standard format.
///
/// # Safety
/// CR4.OSXSAVE is set and CR0.TS clear; `area` is 64-byte aligned and long enough.
pub unsafe fn xsave(area: *mut u8, mask: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("xsave64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// XRSTOR of the components in `mask`.
///
/// # Safety
/// As [`xsave`]; `area` holds what XSAVE stored there, or an initial state.
pub unsafe fn xrstor(area: *const u8, mask: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("xrstor64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
            options(nostack, preserves_flags, readonly));
    }
}

/// FXSAVE, for a CPU without XSAVE.
///
/// # Safety
/// CR0.TS is clear; `area` is 16-byte aligned and 512 bytes long.
pub unsafe fn fxsave(area: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)) };
}

/// FXRSTOR.
///
/// # Safety
/// As [`fxsave`]; `area` holds what FXSAVE stored there, or an initial state.
pub unsafe fn fxrstor(area: *const u8) {
    // SAFETY: the caller's promise.
    unsafe { asm!("fxrstor64 [{}]", in(reg) area, options(nostack, preserves_flags, readonly)) };
}

/// CLI.
#[inline(always)]
pub fn disable_interrupts() {
    // SAFETY: the host's kernel code may run with interrupts off for a while; the run loop
    // is the only caller and turns them on again.
    unsafe { asm!("cli", options(nostack)) };
}

/// STI and one instruction behind it, so that what is pending is taken here.
///
/// # Safety
/// Interrupts were on before [`disable_interrupts`].
#[inline(always)]
pub unsafe fn enable_interrupts() {
    // SAFETY: the caller's promise.
    unsafe { asm!("sti", "nop", options(nostack)) };
}

/// The host's NMI handler, for an NMI that arrived as a VM exit (SDM vol. 3C, 28.1: the
/// exit blocked further NMIs, as its delivery would have; the handler's IRET unblocks).
///
/// # Safety
/// Interrupts have been off since that exit.
pub unsafe fn host_nmi() {
    // SAFETY: the gate of vector 2 is the host's NMI handler; both kernels give it a stack
    // of its own.
    unsafe { asm!("int 2") };
}

/// The host's machine-check handler, for a machine check that arrived as a VM exit.
///
/// # Safety
/// Called right after such an exit.
pub unsafe fn host_machine_check() {
    // SAFETY: the gate of vector 18 is the host's machine-check handler.
    unsafe { asm!("int 18") };
}
