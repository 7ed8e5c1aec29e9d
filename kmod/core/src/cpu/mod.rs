//! The guest's CPU as software sees it: what CPUID shows ([`cpuid`]), what each MSR does
//! ([`msr`]), which XCR0 it may have ([`xcr0`]), and how its linear addresses translate
//! ([`paging`]).

pub mod cpuid;
pub mod emulate;
pub mod msr;
pub mod mtrr;
pub mod paging;
pub mod segment;
pub mod xcr0;

/// Whether a vcpu has a local APIC. While it has none CPUID shows none (and no ARAT), and
/// IA32_APIC_BASE says that it is disabled.
pub const LOCAL_APIC: bool = false;
