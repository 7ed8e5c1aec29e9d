//! The policy on a made-up host that has everything, and on hosts that lack things.

use alloc::collections::BTreeMap;

use super::*;

struct Host {
    leaves: BTreeMap<(u32, u32), CpuidRegs>,
    xcr0: u64,
    tsc_invariant: bool,
}

const ALL: CpuidRegs = CpuidRegs {
    eax: !0,
    ebx: !0,
    ecx: !0,
    edx: !0,
};

const fn regs(eax: u32, ebx: u32, ecx: u32, edx: u32) -> CpuidRegs {
    CpuidRegs { eax, ebx, ecx, edx }
}

impl Host {
    /// Every leaf has every bit, but for those whose fields are sizes and counts.
    fn everything() -> Self {
        let mut leaves = BTreeMap::new();
        let mut set = |leaf, subleaf, regs| leaves.insert((leaf, subleaf), regs);
        for leaf in 1..=0x30 {
            set(leaf, 0, ALL);
        }
        for leaf in EXTENDED + 1..=EXTENDED + 0x20 {
            set(leaf, 0, ALL);
        }
        set(0, 0, regs(0x30, 0x756e_6547, 0x6c65_746e, 0x4965_6e69));
        set(EXTENDED, 0, regs(EXTENDED + 0x20, 0, 0, 0));
        // 46 physical address bits, 57 linear.
        set(0x8000_0008, 0, regs(0x392e, !0, !0, !0));
        set(1, 0, regs(0x0005_0654, 0x1710_0800, !0, !0));
        // L1D, L1I, L2, L3, as of a host with 16 cores and 2 threads.
        set(4, 0, regs(0x3c00_4121, 0x01c0_003f, 0x3f, 0));
        set(4, 1, regs(0x3c00_4122, 0x01c0_003f, 0x3f, 0));
        set(4, 2, regs(0x3c00_4143, 0x03c0_003f, 0x3ff, 0));
        set(4, 3, regs(0x3c07_c163, 0x0280_003f, 0x7fff, 4));
        set(7, 1, ALL);
        set(0xd, 0, regs(0x2e7, 0xa88, 0xa88, 0));
        set(0xd, 1, ALL);
        set(0xd, 2, regs(0x100, 0x240, 0, 0));
        set(0xd, 5, regs(0x40, 0x440, 0, 0));
        set(0xd, 6, regs(0x200, 0x480, 0, 0));
        set(0xd, 7, regs(0x400, 0x680, 0, 0));
        set(0xd, 9, regs(8, 0xa80, 0, 0));
        Self {
            leaves,
            xcr0: 0x2e7,
            tsc_invariant: true,
        }
    }

    fn without(mut self, leaf: u32, change: impl FnOnce(&mut CpuidRegs)) -> Self {
        change(self.leaves.entry((leaf, 0)).or_default());
        self
    }
}

impl HostCpuid for Host {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidRegs {
        self.leaves
            .get(&(leaf, subleaf))
            .copied()
            .unwrap_or_default()
    }
    fn xcr0(&self) -> u64 {
        self.xcr0
    }
    fn tsc_invariant(&self) -> bool {
        self.tsc_invariant
    }
    fn tsc_hz(&self) -> u64 {
        2_400_000_000
    }
}

const CTX: CpuidContext = CpuidContext {
    vcpu: VcpuId(0),
    cr4_osxsave: false,
    xcr0: 1,
    apic: true,
    x2apic: false,
    invpcid: false,
    rdpid: false,
    rdtscp: false,
};

fn policy() -> CpuidPolicy {
    CpuidPolicy::new(&Host::everything())
}

fn ask(leaf: u32, subleaf: u32) -> CpuidRegs {
    policy().emulate(leaf, subleaf, &CTX)
}

#[test]
fn the_tables_are_in_order() {
    for rows in [
        policy::LEAF_1_ECX,
        policy::LEAF_1_EDX,
        policy::LEAF_6_EAX,
        policy::LEAF_7_EBX,
        policy::LEAF_7_ECX,
        policy::LEAF_7_EDX,
        policy::LEAF_D1_EAX,
        policy::LEAF_EXT1_ECX,
        policy::LEAF_EXT1_EDX,
    ] {
        assert!(
            rows.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "{rows:?}"
        );
        assert!(rows.iter().all(|row| row.0 < 32));
    }
    assert!(LEAVES.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

#[test]
fn vendor_and_maximum() {
    assert_eq!(ask(0, 0), regs(0x1f, 0x756e_6547, 0x6c65_746e, 0x4965_6e69));
    assert_eq!(ask(EXTENDED, 0).eax, 0x8000_0008);
    let small = Host::everything().without(0, |regs| regs.eax = 0xb);
    let small = CpuidPolicy::new(&small);
    // Up to the clocks' leaves there is something to say without the host.
    assert_eq!(small.emulate(0, 0, &CTX).eax, 0x16);
    assert_eq!(small.emulate(0x16, 0, &CTX).eax, 2400);
    for leaf in [0xd, 0x14] {
        assert_eq!(small.emulate(leaf, 0, &CTX), CpuidRegs::default());
    }
    // The host lacks leaf 0DH: there is no XSAVE to show.
    assert_eq!(small.emulate(1, 0, &CTX).ecx & XSAVE, 0);
    assert_eq!(small.xcr0_allowed(), 0);
}

#[test]
fn features_that_do_not_work_are_hidden() {
    let leaf = ask(1, 0);
    for (bit, name) in [
        (3, "MONITOR"),
        (5, "VMX"),
        (6, "SMX"),
        (15, "PDCM"),
        (21, "x2APIC"),
    ] {
        assert_eq!(leaf.ecx >> bit & 1, 0, "{name}");
    }
    assert_eq!(leaf.ecx >> 31, 1, "hypervisor");
    assert_eq!(leaf.ecx >> 24 & 1, 1, "TSC deadline");
    assert_eq!(ask(6, 0), regs(1 << 2, 0, 0, 0), "ARAT");
    assert_eq!(leaf.edx & (1 << 21 | 1 << 22 | 1 << 29), 0, "DS, ACPI, TM");
    for (bit, name) in [(2, "SGX"), (10, "INVPCID"), (14, "MPX"), (25, "PT")] {
        assert_eq!(ask(7, 0).ebx >> bit & 1, 0, "{name}");
    }
    for (bit, name) in [(3, "PKU"), (5, "WAITPKG"), (16, "LA57"), (22, "RDPID")] {
        assert_eq!(ask(7, 0).ecx >> bit & 1, 0, "{name}");
    }
    assert_eq!(ask(7, 0).edx, 1 << 4 | 1 << 10);
    assert_eq!(ask(7, 0).eax, 0);
    assert_eq!(ask(7, 1), CpuidRegs::default());
    for leaf in [3, 5, 9, 0xa, 0xf, 0x10, 0x12, 0x14, 0x17, 0x1a, 0x8000_0005] {
        assert_eq!(ask(leaf, 0), CpuidRegs::default(), "{leaf:#x}");
    }
}

#[test]
fn a_bit_without_a_row_is_hidden() {
    // Bit 16 of leaf 1 ECX and bit 10 of EDX are reserved.
    assert_eq!(ask(1, 0).ecx >> 16 & 1, 0);
    assert_eq!(ask(1, 0).edx >> 10 & 1, 0);
    assert_eq!(ask(0x8000_0001, 0).ecx, 1 << 0 | 1 << 5 | 1 << 8);
    assert_eq!(ask(0x8000_0008, 0).ebx, 0);
}

#[test]
fn nothing_is_invented_but_what_is_emulated() {
    let nothing = Host::everything()
        .without(1, |regs| (regs.ecx, regs.edx) = (0, 0))
        .without(7, |regs| *regs = CpuidRegs::default())
        .without(0x8000_0001, |regs| *regs = CpuidRegs::default());
    let policy = CpuidPolicy::new(&nothing);
    let leaf = policy.emulate(
        1,
        0,
        &CpuidContext {
            cr4_osxsave: true,
            ..CTX
        },
    );
    // The hypervisor, TSC deadline.
    assert_eq!(leaf.ecx, 1 << 31 | 1 << 24);
    // MCE, APIC, MTRR, MCA, HTT
    assert_eq!(leaf.edx, 1 << 7 | 1 << 9 | 1 << 12 | 1 << 14 | 1 << 28);
    assert_eq!(policy.emulate(7, 0, &CTX), regs(0, 2, 0, 0));
    assert!(!policy.page1gb());
}

#[test]
fn what_the_vcpu_decides() {
    let policy = policy();
    let on = CpuidContext {
        vcpu: VcpuId(5),
        cr4_osxsave: true,
        xcr0: 7,
        apic: false,
        x2apic: true,
        invpcid: true,
        rdpid: true,
        rdtscp: true,
    };
    let leaf = policy.emulate(1, 0, &on);
    assert_eq!(leaf.ecx & OSXSAVE, OSXSAVE);
    assert_eq!(leaf.ecx & X2APIC, X2APIC);
    assert_eq!(leaf.edx & APIC, 0, "disabled by IA32_APIC_BASE");
    assert_eq!(policy.emulate(1, 0, &CTX).edx & APIC, APIC);
    assert_eq!(leaf.ebx >> 24, 5);
    // CLFLUSH line and brand index are the host's.
    assert_eq!(leaf.ebx & 0xffff, 0x0800);
    assert_eq!(policy.emulate(7, 0, &on).ebx & INVPCID, INVPCID);
    assert_eq!(policy.emulate(7, 0, &on).ecx & RDPID, RDPID);
    assert_eq!(policy.emulate(0x8000_0001, 0, &on).edx & RDTSCP, RDTSCP);
    assert_eq!(policy.emulate(1, 0, &CTX).ecx & OSXSAVE, 0);
    assert_eq!(policy.emulate(0x8000_0001, 0, &CTX).edx & RDTSCP, 0);
}

#[test]
fn xsave_is_what_the_host_saves() {
    let policy = policy();
    assert_eq!(policy.xcr0_allowed(), 0xe7);
    let all = CpuidContext { xcr0: 0xe7, ..CTX };
    assert_eq!(policy.emulate(0xd, 0, &all), regs(0xe7, 0xa80, 0xa80, 0));
    // The size is of what the guest has on now.
    assert_eq!(
        policy.emulate(0xd, 0, &CpuidContext { xcr0: 7, ..CTX }).ebx,
        0x340
    );
    assert_eq!(policy.emulate(0xd, 0, &CTX).ebx, 576);
    assert_eq!(policy.emulate(0xd, 1, &CTX), regs(1, 0, 0, 0));
    assert_eq!(policy.emulate(0xd, 2, &CTX), regs(0x100, 0x240, 0, 0));
    // PKRU is not for guests; components that don't exist are zero.
    assert_eq!(policy.emulate(0xd, 9, &CTX), CpuidRegs::default());
    assert_eq!(policy.emulate(0xd, 500, &CTX), CpuidRegs::default());

    let sse_only = CpuidPolicy::new(&Host {
        xcr0: 3,
        ..Host::everything()
    });
    let leaf = sse_only.emulate(1, 0, &CTX);
    assert_eq!(
        leaf.ecx & (1 << 12 | 1 << 28 | 1 << 29),
        0,
        "FMA, AVX, F16C"
    );
    assert_eq!(leaf.ecx & XSAVE, XSAVE);
    assert_eq!(
        sse_only.emulate(7, 0, &CTX).ebx & (1 << 5 | 1 << 16),
        0,
        "AVX2, AVX512F"
    );
    assert_eq!(sse_only.emulate(7, 0, &CTX).ecx & (1 << 9), 0, "VAES");

    let none = CpuidPolicy::new(&Host {
        xcr0: 0,
        ..Host::everything()
    });
    let leaf = none.emulate(
        1,
        0,
        &CpuidContext {
            cr4_osxsave: true,
            ..CTX
        },
    );
    assert_eq!(leaf.ecx & (XSAVE | OSXSAVE | 1 << 28), 0);
    assert_eq!(none.emulate(0xd, 0, &CTX), CpuidRegs::default());
    assert_eq!(none.emulate(0xd, 1, &CTX), CpuidRegs::default());
}

#[test]
fn topology_by_the_vm() {
    let one = policy();
    assert_eq!(one.emulate(1, 0, &CTX).ebx >> 16 & 0xff, 1);
    assert_eq!(one.emulate(0xb, 0, &CTX), regs(0, 1, 1 << 8, 0));
    assert_eq!(one.emulate(4, 3, &CTX).eax, 0x163);

    let topology = Topology {
        sockets: 2,
        cores: 6,
        threads: 2,
        maxcpus: 24,
    };
    let many = one.with_topology(topology);
    assert_eq!(many.topology(), topology);
    let ctx = CpuidContext {
        vcpu: VcpuId(300),
        ..CTX
    };
    assert_eq!(many.emulate(1, 0, &ctx).ebx >> 16, 12 | 44 << 8);
    for leaf in [0xb, 0x1f] {
        assert_eq!(many.emulate(leaf, 0, &ctx), regs(1, 2, 1 << 8, 300));
        assert_eq!(many.emulate(leaf, 1, &ctx), regs(4, 12, 2 << 8 | 1, 300));
        assert_eq!(many.emulate(leaf, 2, &ctx), regs(0, 0, 2, 300));
    }
    // L1 is shared by a core's threads, L3 by the package; 6 cores in the package.
    assert_eq!(many.emulate(4, 0, &ctx).eax, 5 << 26 | 1 << 14 | 0x121);
    assert_eq!(many.emulate(4, 3, &ctx).eax, 5 << 26 | 11 << 14 | 0x163);
    assert_eq!(many.emulate(4, 3, &ctx).ebx, 0x0280_003f);
    assert_eq!(many.emulate(4, 4, &ctx), CpuidRegs::default());
    // Fields that overflow say their maximum.
    let huge = one.with_topology(Topology {
        sockets: 1,
        cores: 512,
        threads: 2,
        maxcpus: 1024,
    });
    assert_eq!(huge.emulate(4, 0, &ctx).eax >> 26, 63);
    assert_eq!(huge.emulate(1, 0, &ctx).ebx >> 16 & 0xff, 255);
}

#[test]
fn hypervisor_signature() {
    let leaf = ask(0x4000_0000, 0);
    let mut signature = [0; 12];
    for (bytes, word) in signature.chunks_mut(4).zip([leaf.ebx, leaf.ecx, leaf.edx]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    assert_eq!(&signature, b"bhyve bhyve ");
    assert_eq!(leaf.eax, 0x4000_0001);
    // 15-bit destinations of MSIs.
    assert_eq!(ask(0x4000_0001, 0), regs(1, 0, 0, 0));
    assert_eq!(ask(0x4000_0002, 0), CpuidRegs::default());
    assert_eq!(ask(0x4000_0100, 0), CpuidRegs::default());
}

#[test]
fn past_the_maximum_the_highest_basic_leaf_answers() {
    let policy = policy().with_topology(Topology {
        sockets: 1,
        cores: 4,
        threads: 2,
        maxcpus: 8,
    });
    let highest = policy.emulate(0x1f, 1, &CTX);
    assert_eq!(highest.ebx, 8);
    for leaf in [0x20, 0x3fff_ffff, 0x5000_0000, 0x8000_0009, u32::MAX] {
        assert_eq!(policy.emulate(leaf, 1, &CTX), highest, "{leaf:#x}");
    }
}

#[test]
fn sizes_and_clocks() {
    let policy = policy();
    assert_eq!(policy.emulate(0x8000_0008, 0, &CTX).eax, 0x302e);
    assert_eq!(policy.maxphyaddr(), 46);
    assert!(policy.page1gb());
    assert_eq!(policy.emulate(0x8000_0007, 0, &CTX), regs(0, 0, 0, 1 << 8));
    // 75/4 crystals of 128 MHz; MHz. Nothing of the host's.
    assert_eq!(ask(0x15, 0), regs(4, 75, 128_000_000, 0));
    assert_eq!(ask(0x16, 0), regs(2400, 2400, 100, 0));
    let drifting = CpuidPolicy::new(&Host {
        tsc_invariant: false,
        ..Host::everything()
    });
    assert_eq!(drifting.emulate(0x8000_0007, 0, &CTX).edx, 0);
}

proptest::proptest! {
    #[test]
    fn no_guest_makes_it_panic(leaf: u32, subleaf: u32, vcpu in 0u16..1024, xcr0: u64) {
        let ctx = CpuidContext { vcpu: VcpuId(vcpu), xcr0, cr4_osxsave: true, ..CTX };
        let policy = policy();
        policy.emulate(leaf, subleaf, &ctx);
        policy.emulate(leaf & 0x1f, subleaf & 0x3f, &ctx);
    }
}
