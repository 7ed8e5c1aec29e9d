//! Which vendor's CPU this is: it decides which control structure the kernel's vcpus have.
//! The only unsafe code of this program, if CPUID is unsafe in the compiler's library.

use std::arch::x86_64::__cpuid;

/// Whose virtualization the CPU has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vendor {
    /// VT-x: a VMCS.
    Intel,
    /// SVM: a VMCB.
    Amd,
}

/// The vendor of the host's CPU, or the name of one that is neither.
pub fn vendor() -> Result<Vendor, String> {
    // Newer compilers have it safe: every x86-64 CPU has CPUID.
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 CPU has CPUID.
    let leaf = unsafe { __cpuid(0) };
    let name: Vec<u8> = [leaf.ebx, leaf.edx, leaf.ecx]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    match name.as_slice() {
        b"GenuineIntel" => Ok(Vendor::Intel),
        b"AuthenticAMD" | b"HygonGenuine" => Ok(Vendor::Amd),
        other => Err(String::from_utf8_lossy(other).into_owned()),
    }
}
