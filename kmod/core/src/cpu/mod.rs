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
