//! The VMX instructions (SDM vol. 3C, chapter 31). Each reports failure in RFLAGS
//! (31.2): CF is VMfailInvalid, ZF is VMfailValid; the flags are captured inside the
//! same asm block, since the compiler may change them behind it.

use core::arch::asm;

use vmm_core::exit::VmFail;
use vmm_core::types::Hpa;
use vmm_core::vmx::field::{Field, FieldWidth, VM_INSTRUCTION_ERROR, VmcsField};

/// INVEPT types that this module uses (SDM vol. 3C, INVEPT).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum InveptType {
    SingleContext = 1,
    AllContexts = 2,
}

/// INVVPID types that this module uses (SDM vol. 3C, INVVPID).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum InvvpidType {
    SingleContext = 1,
    AllContexts = 2,
}

/// The 128-bit memory operand of INVEPT and INVVPID.
#[repr(C, align(16))]
struct InvDescriptor(u64, u64);

/// VMfailInvalid from CF, VMfailValid from ZF. After VMfailValid there is a current VMCS,
/// which holds the reason.
fn outcome(invalid: u8, valid: u8) -> Result<(), VmFail> {
    if invalid != 0 {
        Err(VmFail::Invalid)
    } else if valid != 0 {
        Err(VmFail::Valid(instruction_error()))
    } else {
        Ok(())
    }
}

/// The VM-instruction error field, which only means something after VMfailValid.
fn instruction_error() -> u32 {
    let error: u64;
    // SAFETY: VMREAD changes the destination register and the flags only; without a
    // current VMCS it fails and leaves the register, which is why that starts as 0.
    unsafe {
        asm!("vmread {error}, {field}",
            error = inout(reg) 0u64 => error,
            field = in(reg) VM_INSTRUCTION_ERROR.encoding(),
            options(nostack, nomem));
    }
    error as u32
}

/// Enters VMX operation with a region that starts with the VMCS revision id.
///
/// # Safety
/// CR4.VMXE is set; the page at `region` belongs to this CPU until [`vmxoff`].
pub unsafe fn vmxon(region: Hpa) -> Result<(), VmFail> {
    let (invalid, valid): (u8, u8);
    // SAFETY: the caller's promise; the operand is the address of a physical address.
    unsafe {
        asm!("vmxon [{operand}]", "setc {invalid}", "setz {valid}",
            operand = in(reg) &raw const region.0,
            invalid = out(reg_byte) invalid, valid = out(reg_byte) valid, options(nostack));
    }
    outcome(invalid, valid)
}

/// Leaves VMX operation.
///
/// # Safety
/// The CPU is in VMX operation and no VMCS is active on it.
pub unsafe fn vmxoff() -> Result<(), VmFail> {
    let (invalid, valid): (u8, u8);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("vmxoff", "setc {invalid}", "setz {valid}",
            invalid = out(reg_byte) invalid, valid = out(reg_byte) valid, options(nostack));
    }
    outcome(invalid, valid)
}

/// Writes the VMCS back to its page, inactive and with launch state "clear".
///
/// # Safety
/// The CPU is in VMX operation; the VMCS is not active on another CPU.
pub unsafe fn vmclear(vmcs: Hpa) -> Result<(), VmFail> {
    let (invalid, valid): (u8, u8);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("vmclear [{operand}]", "setc {invalid}", "setz {valid}",
            operand = in(reg) &raw const vmcs.0,
            invalid = out(reg_byte) invalid, valid = out(reg_byte) valid, options(nostack));
    }
    outcome(invalid, valid)
}

/// Makes the VMCS current and active on this CPU.
///
/// # Safety
/// As [`vmclear`]; the page holds a VMCS with the right revision id.
pub unsafe fn vmptrld(vmcs: Hpa) -> Result<(), VmFail> {
    let (invalid, valid): (u8, u8);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("vmptrld [{operand}]", "setc {invalid}", "setz {valid}",
            operand = in(reg) &raw const vmcs.0,
            invalid = out(reg_byte) invalid, valid = out(reg_byte) valid, options(nostack));
    }
    outcome(invalid, valid)
}

/// Reads a field of the current VMCS that this CPU has: any failure is a broken invariant
/// of ours (no current VMCS, a field behind an unchecked capability) and panics.
///
/// # Safety
/// The CPU is in VMX operation (the caller holds the current VMCS).
#[inline(always)]
pub unsafe fn vmread<W: FieldWidth>(field: Field<W>) -> W::Value {
    let value: u64;
    // SAFETY: the caller's promise; JA is "neither CF nor ZF".
    unsafe {
        asm!("vmread {value}, {field}", "ja 2f",
            "mov rdi, {field}", "call {failed}", "2:",
            value = out(reg) value,
            field = in(reg) field.encoding(),
            failed = sym vmread_failed);
    }
    W::from_vmread(value)
}

/// Writes a field of the current VMCS; panics as [`vmread`].
///
/// # Safety
/// As [`vmread`]; host-state and control fields must keep the VM exit sound.
#[inline(always)]
pub unsafe fn vmwrite<W: FieldWidth>(field: Field<W>, value: W::Value) {
    // SAFETY: the caller's promise.
    unsafe { vmwrite_any(field.field(), value.into()) }
}

/// Writes a field by its encoding alone; the upper bits of a narrower one are ignored.
///
/// # Safety
/// As [`vmwrite`].
#[inline(always)]
pub unsafe fn vmwrite_any(field: VmcsField, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("vmwrite {field}, {value}", "ja 2f",
            "mov rdi, {field}", "call {failed}", "2:",
            value = in(reg) value,
            field = in(reg) field.encoding(),
            failed = sym vmwrite_failed);
    }
}

/// Reads any field, `None` if this CPU has it not (VMfailValid 12): for dumps.
///
/// # Safety
/// As [`vmread`].
pub unsafe fn vmread_any(field: VmcsField) -> Option<u64> {
    let (value, failed): (u64, u8);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("vmread {value}, {field}", "setbe {failed}",
            value = inout(reg) 0u64 => value,
            field = in(reg) field.encoding(),
            failed = out(reg_byte) failed, options(nostack, nomem));
    }
    (failed == 0).then_some(value)
}

#[cold]
extern "C" fn vmread_failed(encoding: u64) -> ! {
    let name = VmcsField::from_encoding(encoding).map_or("an unknown field", VmcsField::name);
    panic!(
        "VMREAD of {name} ({encoding:#x}) failed, VM-instruction error {}",
        instruction_error()
    );
}

#[cold]
extern "C" fn vmwrite_failed(encoding: u64) -> ! {
    let name = VmcsField::from_encoding(encoding).map_or("an unknown field", VmcsField::name);
    panic!(
        "VMWRITE of {name} ({encoding:#x}) failed, VM-instruction error {}",
        instruction_error()
    );
}

/// Drops the translations that came through an EPT (SDM vol. 3C, 29.4.3.1).
///
/// # Safety
/// The CPU is in VMX operation and has this INVEPT type.
pub unsafe fn invept(kind: InveptType, eptp: u64) -> Result<(), VmFail> {
    let operand = InvDescriptor(eptp, 0);
    let (invalid, valid): (u8, u8);
    // SAFETY: the caller's promise; dropping translations is always allowed.
    unsafe {
        asm!("invept {kind}, [{operand}]", "setc {invalid}", "setz {valid}",
            kind = in(reg) kind as u64, operand = in(reg) &raw const operand,
            invalid = out(reg_byte) invalid, valid = out(reg_byte) valid, options(nostack));
    }
    outcome(invalid, valid)
}

/// Drops the translations tagged with a VPID (0 with [`InvvpidType::AllContexts`]).
///
/// # Safety
/// The CPU is in VMX operation and has this INVVPID type.
pub unsafe fn invvpid(kind: InvvpidType, vpid: u16) -> Result<(), VmFail> {
    let operand = InvDescriptor(u64::from(vpid), 0);
    let (invalid, valid): (u8, u8);
    // SAFETY: the caller's promise; dropping translations is always allowed.
    unsafe {
        asm!("invvpid {kind}, [{operand}]", "setc {invalid}", "setz {valid}",
            kind = in(reg) kind as u64, operand = in(reg) &raw const operand,
            invalid = out(reg_byte) invalid, valid = out(reg_byte) valid, options(nostack));
    }
    outcome(invalid, valid)
}
