//! The table behind CPUID: which bits of which leaf a guest gets to see, and why.
//!
//! It is a list of what is allowed: a bit without a row is hidden, and so is a leaf. The
//! names are the SDM's (vol. 2A, CPUID, tables 3-8 and following). A bit may be shown
//! only if what it stands for works in a guest of this module: instructions that need
//! nothing of a hypervisor do; what has MSRs, control registers bits or VM-execution
//! controls of its own must be served elsewhere first.

/// What becomes of a feature bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Treat {
    /// As the host has it.
    Pass,
    /// As the host has it, if the host kernel saves the state that it works on: these
    /// components of XCR0 (`cpu::xcr0`).
    PassWith(u64),
    /// Always shown: emulated for every guest.
    Show,
    /// Depends on the vcpu at the moment; `CpuidPolicy::emulate` decides.
    Vcpu,
    /// Hidden, and why.
    Hide(&'static str),
}

use Treat::{Hide, Pass, PassWith, Show, Vcpu};

/// One row: the bit's number, its name, what becomes of it.
pub type Row = (u8, &'static str, Treat);

use crate::cpu::xcr0::{AVX, AVX512, SSE, X87};

const NO_PERF: &str = "performance monitoring and debug store are not virtualized";
const NO_POWER: &str = "power and thermal management are the host's";

/// CPUID.01H:ECX
pub const LEAF_1_ECX: &[Row] = &[
    (0, "SSE3", Pass),
    (1, "PCLMULQDQ", Pass),
    (2, "DTES64", Hide(NO_PERF)),
    (3, "MONITOR", Hide("MONITOR and MWAIT are #UD")),
    (4, "DS-CPL", Hide(NO_PERF)),
    (
        5,
        "VMX",
        Hide("no nested virtualization: VMX instructions are #UD"),
    ),
    (6, "SMX", Hide("GETSEC is #UD")),
    (7, "EIST", Hide(NO_POWER)),
    (8, "TM2", Hide(NO_POWER)),
    (9, "SSSE3", Pass),
    (10, "CNXT-ID", Hide("a BIOS setting of the host")),
    (11, "SDBG", Hide("IA32_DEBUG_INTERFACE is the host's")),
    (12, "FMA", PassWith(AVX)),
    (13, "CMPXCHG16B", Pass),
    (14, "xTPR", Hide("a setting of the host's chipset")),
    (15, "PDCM", Hide(NO_PERF)),
    (17, "PCID", Pass),
    (18, "DCA", Hide("the host's platform")),
    (19, "SSE4.1", Pass),
    (20, "SSE4.2", Pass),
    (21, "x2APIC", Vcpu),
    (22, "MOVBE", Pass),
    (23, "POPCNT", Pass),
    (24, "TSC-Deadline", Show),
    (25, "AESNI", Pass),
    (26, "XSAVE", PassWith(X87)),
    (27, "OSXSAVE", Vcpu),
    (28, "AVX", PassWith(AVX)),
    (29, "F16C", PassWith(AVX)),
    (30, "RDRAND", Pass),
    (31, "hypervisor", Show),
];

/// CPUID.01H:EDX
pub const LEAF_1_EDX: &[Row] = &[
    (0, "FPU", Pass),
    (1, "VME", Pass),
    (2, "DE", Pass),
    (3, "PSE", Pass),
    (4, "TSC", Pass),
    (5, "MSR", Pass),
    (6, "PAE", Pass),
    // Windows does not boot without MCE, MCA and MTRR. There are no MCA banks.
    (7, "MCE", Show),
    (8, "CX8", Pass),
    // Gone while IA32_APIC_BASE disables it.
    (9, "APIC", Vcpu),
    (11, "SEP", Pass),
    (12, "MTRR", Show),
    (13, "PGE", Pass),
    (14, "MCA", Show),
    (15, "CMOV", Pass),
    (16, "PAT", Pass),
    (17, "PSE-36", Pass),
    (18, "PSN", Hide("the serial number is the host's")),
    (19, "CLFSH", Pass),
    (21, "DS", Hide(NO_PERF)),
    (22, "ACPI", Hide(NO_POWER)),
    (23, "MMX", Pass),
    (24, "FXSR", Pass),
    (25, "SSE", Pass),
    (26, "SSE2", Pass),
    (27, "SS", Pass),
    // The count of logical processors in EBX is there.
    (28, "HTT", Show),
    (29, "TM", Hide(NO_POWER)),
    (31, "PBE", Hide(NO_POWER)),
];

/// CPUID.06H:EAX
pub const LEAF_6_EAX: &[Row] = &[
    (0, "digital thermal sensor", Hide(NO_POWER)),
    (1, "turbo boost", Hide(NO_POWER)),
    // The local APIC's timer doesn't stop in a HLT.
    (2, "ARAT", Show),
];

/// CPUID.(07H,0):EBX
pub const LEAF_7_EBX: &[Row] = &[
    (0, "FSGSBASE", Pass),
    (1, "IA32_TSC_ADJUST", Show),
    (2, "SGX", Hide("ENCLS exits and the EPC is the host's")),
    (3, "BMI1", Pass),
    (4, "HLE", Pass),
    (5, "AVX2", PassWith(AVX)),
    (6, "FDP_EXCPTN_ONLY", Pass),
    (7, "SMEP", Pass),
    (8, "BMI2", Pass),
    (9, "ERMS", Pass),
    (10, "INVPCID", Vcpu),
    (11, "RTM", Pass),
    (12, "RDT-M", Hide("the host's cache and memory bandwidth")),
    (13, "FPU CS/DS deprecated", Pass),
    (14, "MPX", Hide("BNDCFGS is not switched")),
    (15, "RDT-A", Hide("the host's cache and memory bandwidth")),
    (16, "AVX512F", PassWith(AVX512)),
    (17, "AVX512DQ", PassWith(AVX512)),
    (18, "RDSEED", Pass),
    (19, "ADX", Pass),
    (20, "SMAP", Pass),
    (21, "AVX512_IFMA", PassWith(AVX512)),
    (23, "CLFLUSHOPT", Pass),
    (24, "CLWB", Pass),
    (25, "Intel PT", Hide("trace MSRs are not switched")),
    (26, "AVX512PF", PassWith(AVX512)),
    (27, "AVX512ER", PassWith(AVX512)),
    (28, "AVX512CD", PassWith(AVX512)),
    (29, "SHA", Pass),
    (30, "AVX512BW", PassWith(AVX512)),
    (31, "AVX512VL", PassWith(AVX512)),
];

/// CPUID.(07H,0):ECX
pub const LEAF_7_ECX: &[Row] = &[
    (1, "AVX512_VBMI", PassWith(AVX512)),
    (2, "UMIP", Pass),
    (
        3,
        "PKU",
        Hide("PKRU is not among the XCR0 components of guests"),
    ),
    (
        5,
        "WAITPKG",
        Hide("needs a VM-execution control and IA32_UMWAIT_CONTROL"),
    ),
    (6, "AVX512_VBMI2", PassWith(AVX512)),
    (7, "CET_SS", Hide("CET state is not switched")),
    (8, "GFNI", Pass),
    (9, "VAES", PassWith(AVX)),
    (10, "VPCLMULQDQ", PassWith(AVX)),
    (11, "AVX512_VNNI", PassWith(AVX512)),
    (12, "AVX512_BITALG", PassWith(AVX512)),
    (13, "TME", Hide("the host's memory encryption")),
    (14, "AVX512_VPOPCNTDQ", PassWith(AVX512)),
    (16, "LA57", Hide("CR4.LA57 is not given to guests")),
    (22, "RDPID", Vcpu),
    (30, "SGX_LC", Hide("no SGX")),
];

const NO_SPEC_CTRL: &str = "its MSR is not switched between guest and host";

/// CPUID.(07H,0):EDX
pub const LEAF_7_EDX: &[Row] = &[
    (4, "FSRM", Pass),
    (10, "MD_CLEAR", Pass),
    (18, "PCONFIG", Hide("the host's memory encryption")),
    (20, "CET_IBT", Hide("CET state is not switched")),
    (26, "IBRS and IBPB", Hide(NO_SPEC_CTRL)),
    (27, "STIBP", Hide(NO_SPEC_CTRL)),
    (28, "L1D_FLUSH", Hide(NO_SPEC_CTRL)),
    (
        29,
        "IA32_ARCH_CAPABILITIES",
        Hide("nothing is promised of the host's CPUs"),
    ),
    (31, "SSBD", Hide(NO_SPEC_CTRL)),
];

/// CPUID.(0DH,1):EAX
pub const LEAF_D1_EAX: &[Row] = &[
    (0, "XSAVEOPT", PassWith(X87 | SSE)),
    (1, "XSAVEC", Hide("as in FreeBSD's vmm")),
    (2, "XGETBV with ECX = 1", Hide("as in FreeBSD's vmm")),
    (3, "XSAVES", Hide("IA32_XSS is not switched")),
];

/// CPUID.80000001H:ECX
pub const LEAF_EXT1_ECX: &[Row] = &[
    (0, "LAHF/SAHF", Pass),
    (5, "LZCNT", Pass),
    (8, "PREFETCHW", Pass),
];

/// CPUID.80000001H:EDX
pub const LEAF_EXT1_EDX: &[Row] = &[
    (11, "SYSCALL", Pass),
    (20, "Execute Disable", Pass),
    (26, "1-GByte pages", Pass),
    (27, "RDTSCP", Vcpu),
    (29, "Intel 64", Pass),
];

/// The highest leaves that guests are told of, if the host has them.
pub const MAX_BASIC: u32 = 0x1f;
/// The highest that there is on every host, as far as it is made up here.
pub const MIN_BASIC: u32 = 0x16;
pub const MAX_EXTENDED: u32 = 0x8000_0008;

/// Leaves that hold no feature bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaf {
    /// As the host has it.
    Pass,
    /// Made up from the tables above, the topology, or the vcpu.
    Emulate,
    /// All zero, and why.
    Zero(&'static str),
}

/// Every leaf that exists between 0 and [`MAX_BASIC`] and from 80000000H to
/// [`MAX_EXTENDED`]. A leaf without a row is zero.
pub const LEAVES: &[(u32, Leaf)] = &[
    // Vendor; the highest basic leaf is limited.
    (0x00, Leaf::Emulate),
    (0x01, Leaf::Emulate),
    // Caches and TLBs.
    (0x02, Leaf::Pass),
    (0x03, Leaf::Zero("serial number: see PSN")),
    (0x04, Leaf::Emulate),
    (0x05, Leaf::Zero("MONITOR is hidden")),
    (0x06, Leaf::Emulate),
    (0x07, Leaf::Emulate),
    (0x09, Leaf::Zero("DCA is hidden")),
    (0x0a, Leaf::Zero(NO_PERF)),
    (0x0b, Leaf::Emulate),
    (0x0d, Leaf::Emulate),
    (0x0f, Leaf::Zero("RDT-M is hidden")),
    (0x10, Leaf::Zero("RDT-A is hidden")),
    (0x12, Leaf::Zero("SGX is hidden")),
    (0x14, Leaf::Zero("Intel PT is hidden")),
    // The clocks of the guest, whatever the host's say (`super::clock`).
    (0x15, Leaf::Emulate),
    (0x16, Leaf::Emulate),
    // TLBs in detail: shown with leaf 2.
    (0x18, Leaf::Pass),
    (0x1f, Leaf::Emulate),
    (0x8000_0000, Leaf::Emulate),
    (0x8000_0001, Leaf::Emulate),
    // Brand string.
    (0x8000_0002, Leaf::Pass),
    (0x8000_0003, Leaf::Pass),
    (0x8000_0004, Leaf::Pass),
    // L2 cache.
    (0x8000_0006, Leaf::Pass),
    // Invariant TSC.
    (0x8000_0007, Leaf::Emulate),
    // Address sizes.
    (0x8000_0008, Leaf::Emulate),
];

/// The register after the table: `host` with what is hidden cleared, what is always there
/// set, and what depends on the vcpu cleared. `xcr0` is what guests may have in XCR0.
pub fn filter(rows: &[Row], host: u32, xcr0: u64) -> u32 {
    rows.iter().fold(0, |shown, &(bit, _, treat)| {
        let bit = 1 << bit;
        shown
            | match treat {
                Pass => host & bit,
                PassWith(components) if xcr0 & components == components => host & bit,
                Show => bit,
                PassWith(_) | Vcpu | Hide(_) => 0,
            }
    })
}
