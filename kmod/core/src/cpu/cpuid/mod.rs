//! What CPUID shows the guest (SDM vol. 2A, CPUID; vol. 3C, 26.1.2: it always exits).
//!
//! The policy is taken once per VM from a host CPU, so that a guest sees the same on every
//! CPU it runs on; what depends on the vcpu at the moment comes with each call. Which bits
//! of which leaf get through, and why, is the table in [`policy`].

mod clock;
pub mod policy;

use alloc::vec::Vec;

use self::policy::{LEAVES, Leaf, MAX_BASIC, MAX_EXTENDED, MIN_BASIC, filter};
use super::xcr0;
use crate::ioctl::{Topology, VM_MAXCPU};
use crate::types::VcpuId;

/// The CPU whose CPUID a policy starts from.
pub trait HostCpuid {
    /// The CPUID instruction itself.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidRegs;
    /// XCR0 as the host kernel uses it; 0 when CR4.OSXSAVE is clear.
    fn xcr0(&self) -> u64;
    /// Whether the TSC is invariant and in step on all CPUs of the host.
    fn tsc_invariant(&self) -> bool;
    /// The TSC's frequency, as the host kernel has found it.
    fn tsc_hz(&self) -> u64;
}

/// The four registers of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuidRegs {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// What an answer depends on besides the policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidContext {
    /// Its number is its APIC id.
    pub vcpu: VcpuId,
    /// CR4.OSXSAVE as the guest set it.
    pub cr4_osxsave: bool,
    /// The guest's XCR0.
    pub xcr0: u64,
    /// The local APIC is enabled in IA32_APIC_BASE.
    pub apic: bool,
    /// VM_SET_X2APIC_STATE.
    pub x2apic: bool,
    /// Capabilities that are on for the vcpu.
    pub invpcid: bool,
    pub rdpid: bool,
    pub rdtscp: bool,
}

/// One VM's CPUID.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuidPolicy {
    /// Leaf and subleaf, in ascending order. A leaf without subleaves has 0.
    answers: Vec<((u32, u32), CpuidRegs)>,
    max_basic: u32,
    /// 0 without extended leaves.
    max_extended: u32,
    /// What guests may have in XCR0; 0 without XSAVE.
    xcr0_allowed: u64,
    topology: Topology,
}

const HYPERVISOR: u32 = 0x4000_0000;
/// bhyve's features.
const HYPERVISOR_FEATURES: u32 = HYPERVISOR + 1;
/// In EAX of it: MSIs and the I/O APIC have destinations of 15 bits.
const EXTENDED_DESTINATION_ID: u32 = 1 << 0;
const EXTENDED: u32 = 0x8000_0000;

const APIC: u32 = 1 << 9;
const X2APIC: u32 = 1 << 21;
const XSAVE: u32 = 1 << 26;
const OSXSAVE: u32 = 1 << 27;
const INVPCID: u32 = 1 << 10;
const RDPID: u32 = 1 << 22;
const RDTSCP: u32 = 1 << 27;
const INVARIANT_TSC: u32 = 1 << 8;
const PAGE_1GB: u32 = 1 << 26;

impl CpuidPolicy {
    /// The policy on that host, for vcpus that are packages of their own.
    pub fn new(host: &dyn HostCpuid) -> Self {
        let host_max = host.cpuid(0, 0).eax;
        let mut policy = Self {
            answers: Vec::new(),
            max_basic: host_max.clamp(MIN_BASIC, MAX_BASIC),
            max_extended: match host.cpuid(EXTENDED, 0).eax {
                max if max >= EXTENDED => max.min(MAX_EXTENDED),
                _ => 0,
            },
            xcr0_allowed: 0,
            topology: Topology {
                sockets: 1,
                cores: 1,
                threads: 1,
                maxcpus: VM_MAXCPU,
            },
        };
        if host.cpuid(1, 0).ecx & XSAVE != 0 && host_max >= 0xd {
            policy.xcr0_allowed = xcr0::allowed(host.xcr0());
        }
        for &(leaf, treat) in LEAVES {
            let (max, host_has) = if leaf < EXTENDED {
                (policy.max_basic, leaf <= host_max)
            } else {
                (policy.max_extended, leaf <= policy.max_extended)
            };
            match treat {
                Leaf::Pass if host_has => policy.add(leaf, 0, host.cpuid(leaf, 0)),
                Leaf::Emulate if host_has => policy.add_emulated(leaf, max, host),
                Leaf::Emulate if leaf <= max => policy.add_made_up(leaf, host),
                Leaf::Pass | Leaf::Emulate => {}
                Leaf::Zero(_) => {}
            }
        }
        policy
    }

    /// The same with another topology.
    #[must_use]
    pub fn with_topology(&self, topology: Topology) -> Self {
        Self {
            topology,
            ..self.clone()
        }
    }

    pub const fn topology(&self) -> Topology {
        self.topology
    }

    /// What XSETBV may set; 0 when there is no XSAVE.
    pub const fn xcr0_allowed(&self) -> u64 {
        self.xcr0_allowed
    }

    /// MAXPHYADDR: bits of a physical address, as the guest is told.
    pub fn maxphyaddr(&self) -> u8 {
        match self.find(0x8000_0008, 0) {
            Some(regs) => regs.eax as u8,
            // SDM vol. 3A, 4.1.4.
            None => 36,
        }
    }

    /// Whether the guest may use 1 GiB pages.
    pub fn page1gb(&self) -> bool {
        self.find(0x8000_0001, 0)
            .is_some_and(|regs| regs.edx & PAGE_1GB != 0)
    }

    /// What CPUID answers to the guest, whose EAX is `leaf` and ECX `subleaf`.
    pub fn emulate(&self, leaf: u32, subleaf: u32, ctx: &CpuidContext) -> CpuidRegs {
        let leaf = match leaf {
            HYPERVISOR..=0x4fff_ffff => return Self::hypervisor(leaf),
            EXTENDED.. if leaf <= self.max_extended => leaf,
            0..=MAX_BASIC if leaf <= self.max_basic => leaf,
            // Past the highest of either kind the highest basic leaf answers.
            _ => self.max_basic,
        };
        let mut regs = self.stored(leaf, subleaf);
        match leaf {
            0x1 => self.leaf_1(&mut regs, ctx),
            0x4 => self.leaf_4(&mut regs),
            0x7 if subleaf == 0 => {
                regs.ebx |= if ctx.invpcid { INVPCID } else { 0 };
                regs.ecx |= if ctx.rdpid { RDPID } else { 0 };
            }
            0xb | 0x1f => regs = self.topology_leaf(subleaf, ctx.vcpu),
            0xd if subleaf == 0 && self.xcr0_allowed != 0 => {
                regs.ebx = self.xsave_size(ctx.xcr0);
            }
            0x8000_0001 => regs.edx |= if ctx.rdtscp { RDTSCP } else { 0 },
            _ => {}
        }
        regs
    }

    fn add(&mut self, leaf: u32, subleaf: u32, regs: CpuidRegs) {
        let key = (leaf, subleaf);
        let at = self.answers.partition_point(|&(other, _)| other < key);
        self.answers.insert(at, (key, regs));
    }

    fn find(&self, leaf: u32, subleaf: u32) -> Option<CpuidRegs> {
        let at = self
            .answers
            .binary_search_by_key(&(leaf, subleaf), |&(key, _)| key);
        at.ok().map(|at| self.answers[at].1)
    }

    /// The answer as far as it is the same for all vcpus.
    fn stored(&self, leaf: u32, subleaf: u32) -> CpuidRegs {
        let subleaf = if matches!(leaf, 0x4 | 0x7 | 0xd) {
            subleaf
        } else {
            0
        };
        self.find(leaf, subleaf).unwrap_or_default()
    }

    /// Filters a leaf of the host that has feature bits or sizes.
    fn add_emulated(&mut self, leaf: u32, max: u32, host: &dyn HostCpuid) {
        let xcr0 = self.xcr0_allowed;
        let shown = |rows, host| filter(rows, host, xcr0);
        let mut regs = host.cpuid(leaf, 0);
        match leaf {
            0x0 | EXTENDED => regs.eax = max,
            0x1 => {
                regs.ecx = shown(policy::LEAF_1_ECX, regs.ecx);
                regs.edx = shown(policy::LEAF_1_EDX, regs.edx);
            }
            0x4 => {
                // Caches until the first that is none (type 0 in EAX[4:0]).
                for subleaf in 0..16 {
                    let cache = host.cpuid(leaf, subleaf);
                    if cache.eax & 0x1f == 0 {
                        break;
                    }
                    self.add(leaf, subleaf, cache);
                }
                return;
            }
            0x6 => {
                regs = CpuidRegs {
                    eax: shown(policy::LEAF_6_EAX, regs.eax),
                    ..CpuidRegs::default()
                };
            }
            0x7 => {
                // EAX: the highest subleaf.
                regs.eax = 0;
                regs.ebx = shown(policy::LEAF_7_EBX, regs.ebx);
                regs.ecx = shown(policy::LEAF_7_ECX, regs.ecx);
                regs.edx = shown(policy::LEAF_7_EDX, regs.edx);
            }
            0xb | 0x1f => return,
            0xd => return self.add_xsave(host),
            0x15 | 0x16 => return self.add_made_up(leaf, host),
            0x8000_0001 => {
                regs.ecx = shown(policy::LEAF_EXT1_ECX, regs.ecx);
                regs.edx = shown(policy::LEAF_EXT1_EDX, regs.edx);
            }
            0x8000_0007 => {
                let edx = if host.tsc_invariant() {
                    INVARIANT_TSC
                } else {
                    0
                };
                regs = CpuidRegs {
                    edx,
                    ..CpuidRegs::default()
                };
            }
            0x8000_0008 => {
                // EAX[7:0] physical and [15:8] linear address bits; without LA57 the
                // latter are 48.
                let linear = (regs.eax >> 8 & 0xff).min(48);
                regs = CpuidRegs {
                    eax: regs.eax & 0xff | linear << 8,
                    ..CpuidRegs::default()
                };
            }
            // A row of LEAVES says Emulate and nothing here does: show nothing.
            _ => return,
        }
        self.add(leaf, 0, regs);
    }

    /// A leaf that has nothing of the host's, and that the host may lack.
    fn add_made_up(&mut self, leaf: u32, host: &dyn HostCpuid) {
        match leaf {
            0x15 => self.add(leaf, 0, clock::crystal(host.tsc_hz())),
            0x16 => self.add(leaf, 0, clock::processor(host.tsc_hz())),
            _ => {}
        }
    }

    /// Leaf 0DH: the XSAVE area, of the components that guests may have.
    fn add_xsave(&mut self, host: &dyn HostCpuid) {
        let allowed = self.xcr0_allowed;
        if allowed == 0 {
            return;
        }
        for component in 2..63 {
            if allowed & 1 << component != 0 {
                self.add(0xd, component, host.cpuid(0xd, component));
            }
        }
        let eax = filter(policy::LEAF_D1_EAX, host.cpuid(0xd, 1).eax, allowed);
        self.add(
            0xd,
            1,
            CpuidRegs {
                eax,
                ..CpuidRegs::default()
            },
        );
        let regs = CpuidRegs {
            eax: allowed as u32,
            ebx: 0,
            ecx: self.xsave_size(allowed),
            edx: (allowed >> 32) as u32,
        };
        self.add(0xd, 0, regs);
    }

    /// Bytes of a (standard form) XSAVE area with these components (SDM vol. 1, 13.4).
    fn xsave_size(&self, xcr0: u64) -> u32 {
        const LEGACY_AND_HEADER: u32 = 512 + 64;
        (2..63)
            .filter(|component| xcr0 & 1 << component != 0)
            .filter_map(|component| self.find(0xd, component))
            .map(|regs| regs.eax.saturating_add(regs.ebx))
            .fold(LEGACY_AND_HEADER, u32::max)
    }

    fn leaf_1(&self, regs: &mut CpuidRegs, ctx: &CpuidContext) {
        let logical = u32::from(self.topology.cores) * u32::from(self.topology.threads);
        // EBX: APIC id in 31:24, logical processors in 23:16, CLFLUSH and brand as they are.
        regs.ebx = regs.ebx & 0xffff | logical.min(0xff) << 16 | u32::from(ctx.vcpu.0 as u8) << 24;
        if ctx.apic {
            regs.edx |= APIC;
        }
        if ctx.x2apic {
            regs.ecx |= X2APIC;
        }
        if regs.ecx & XSAVE != 0 && ctx.cr4_osxsave {
            regs.ecx |= OSXSAVE;
        }
    }

    /// A cache: EAX[7:5] is its level; who shares it goes by the topology, levels 1 and 2
    /// being a core's and level 3 a package's.
    fn leaf_4(&self, regs: &mut CpuidRegs) {
        if *regs == CpuidRegs::default() {
            return;
        }
        let (cores, threads) = (
            u32::from(self.topology.cores),
            u32::from(self.topology.threads),
        );
        let level = regs.eax >> 5 & 7;
        let sharing = if level >= 3 { threads * cores } else { threads };
        // Both fields hold a count minus 1.
        regs.eax = regs.eax & 0x3ff
            | sharing.saturating_sub(1).min(0xfff) << 14
            | cores.saturating_sub(1).min(0x3f) << 26;
    }

    /// Leaves 0BH and 1FH: subleaf 0 is the threads of a core, 1 the logical processors
    /// of a package. EAX: how far to shift an x2APIC id for the next level's.
    fn topology_leaf(&self, subleaf: u32, vcpu: VcpuId) -> CpuidRegs {
        const SMT: u32 = 1;
        const CORE: u32 = 2;
        let threads = u32::from(self.topology.threads);
        let (logical, kind) = match subleaf {
            0 => (threads, SMT),
            1 => (threads * u32::from(self.topology.cores), CORE),
            // The end of the list; EDX stays valid (SDM).
            _ => (0, 0),
        };
        let shift = match logical {
            0 => 0,
            n => n.next_power_of_two().trailing_zeros(),
        };
        CpuidRegs {
            eax: shift,
            ebx: logical & 0xffff,
            ecx: kind << 8 | subleaf & 0xff,
            edx: u32::from(vcpu.0),
        }
    }

    /// The range that no CPU uses: who runs this guest.
    fn hypervisor(leaf: u32) -> CpuidRegs {
        match leaf {
            HYPERVISOR => {
                let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
                CpuidRegs {
                    eax: HYPERVISOR_FEATURES,
                    ebx: word(b"bhyv"),
                    ecx: word(b"e bh"),
                    edx: word(b"yve "),
                }
            }
            HYPERVISOR_FEATURES => CpuidRegs {
                eax: EXTENDED_DESTINATION_ID,
                ..CpuidRegs::default()
            },
            _ => CpuidRegs::default(),
        }
    }
}

#[cfg(test)]
mod tests;
