//! A vcpu's statistics (VM_STATS, VM_STAT_DESC): FreeBSD's, with its wording, so that
//! scripts that read `bhyvectl --get-stats` find what they look for, then this module's.

use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident = $desc:literal,)*) => {
        /// One number.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(usize)]
        pub enum Stat {
            $($(#[$doc])* $name,)*
        }

        impl Stat {
            /// All of them; the index is the ABI's.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What VM_STAT_DESC says about it.
            pub const fn desc(self) -> &'static str {
                match self {
                    $(Self::$name => $desc,)*
                }
            }
        }
    };
}

stats! {
    // FreeBSD's, in the order of its sources (vmm.c, then VT-x).
    /// In TSC ticks.
    VcpuTotalRuntime = "vcpu total runtime",
    VcpuMigrations = "vcpu migration across host cpus",
    VmexitCount = "total number of vm exits",
    VmexitExtint = "vm exits due to external interrupt",
    VmexitHlt = "number of times hlt was intercepted",
    VmexitCrAccess = "number of times %cr access was intercepted",
    VmexitRdmsr = "number of times rdmsr was intercepted",
    VmexitWrmsr = "number of times wrmsr was intercepted",
    VmexitMtrap = "number of monitor trap exits",
    VmexitPause = "number of times pause was intercepted",
    VmexitIntrWindow = "vm exits due to interrupt window opening",
    VmexitNmiWindow = "vm exits due to nmi window opening",
    VmexitInout = "number of times in/out was intercepted",
    VmexitCpuid = "number of times cpuid was intercepted",
    VmexitNestedFault = "vm exits due to nested page fault",
    VmexitInstEmul = "vm exits for instruction emulation",
    VmexitUnknown = "number of vm exits for unknown reason",
    VmexitAstpending = "number of times astpending at exit",
    VmexitReqidle = "number of times idle requested at exit",
    VmexitUserspace = "number of vm exits handled in userspace",
    VmexitRendezvous = "number of times rendezvous pending at exit",
    VmexitException = "number of vm exits due to exceptions",
    /// In ticks of 1/hz seconds.
    VcpuIdleTicks = "number of ticks vcpu was idle",
    VcpuNmiCount = "number of NMIs delivered to vcpu",
    VcpuExtintCount = "number of ExtINTs delivered to vcpu",
    /// In bytes, of the whole VM; set when VM_STATS asks, on vcpu 0 only.
    ResidentMemory = "Resident memory",
    WiredMemory = "Wired memory",
    VcpuInvvpidSaved = "Number of vpid invalidations saved",
    VcpuInvvpidDone = "Number of vpid invalidations done",
    // This module's own.
    VmexitHostNmi = "vm exits due to NMIs of the host",
    VmexitXsetbv = "number of times xsetbv was intercepted",
    VmexitVmxInsn = "number of times a vmx instruction was intercepted",
    EptFill4k = "4 KiB pages mapped in the ept",
    EptFill2m = "2 MiB pages mapped in the ept",
    EptInvept = "Number of ept invalidations done",
    VmentryFailed = "number of vm entries that failed",
}

/// The values of one vcpu. Any thread may read them while the vcpu runs.
#[derive(Debug)]
pub struct VcpuStats {
    values: [AtomicU64; Stat::ALL.len()],
}

impl VcpuStats {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            values: [const { AtomicU64::new(0) }; Stat::ALL.len()],
        }
    }

    pub fn incr(&self, stat: Stat) {
        self.add(stat, 1);
    }

    /// Wraps, as a counter does.
    pub fn add(&self, stat: Stat, n: u64) {
        self.values[stat as usize].fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self, stat: Stat) -> u64 {
        self.values[stat as usize].load(Ordering::Relaxed)
    }

    pub fn set(&self, stat: Stat, value: u64) {
        self.values[stat as usize].store(value, Ordering::Relaxed);
    }

    /// Back to zero (VM_REINIT).
    pub fn reset(&self) {
        for value in &self.values {
            value.store(0, Ordering::Relaxed);
        }
    }

    /// Copies from statistic number `first` on into `out`, as many as there are and fit;
    /// says how many.
    pub fn copy_from(&self, first: usize, out: &mut [u64]) -> usize {
        let values = self.values.iter().skip(first);
        let mut n = 0;
        for (slot, value) in out.iter_mut().zip(values) {
            *slot = value.load(Ordering::Relaxed);
            n += 1;
        }
        n
    }
}

impl Default for VcpuStats {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_abi_index_is_the_position() {
        for (index, stat) in Stat::ALL.iter().enumerate() {
            assert_eq!(*stat as usize, index);
        }
    }

    #[test]
    fn every_description_is_its_own_and_fits() {
        for (i, stat) in Stat::ALL.iter().enumerate() {
            // vm_stat_desc has 128 bytes with the terminator.
            assert!(stat.desc().len() < 128);
            assert!(
                Stat::ALL[..i]
                    .iter()
                    .all(|other| other.desc() != stat.desc())
            );
        }
    }

    #[test]
    fn copying_in_parts_gives_the_whole() {
        let stats = VcpuStats::new();
        for (i, stat) in Stat::ALL.iter().enumerate() {
            stats.set(*stat, 100 + i as u64);
        }
        stats.incr(Stat::VmexitCpuid);
        stats.add(Stat::VmexitCpuid, 2);
        let mut whole = alloc::vec::Vec::new();
        let mut part = [0; 10];
        loop {
            let n = stats.copy_from(whole.len(), &mut part);
            if n == 0 {
                break;
            }
            whole.extend_from_slice(&part[..n]);
        }
        assert_eq!(whole.len(), Stat::ALL.len());
        assert_eq!(whole[Stat::VcpuTotalRuntime as usize], 100);
        assert_eq!(
            whole[Stat::VmexitCpuid as usize],
            103 + Stat::VmexitCpuid as u64
        );
        stats.reset();
        assert_eq!(stats.get(Stat::VmexitCpuid), 0);
        assert_eq!(stats.copy_from(Stat::ALL.len(), &mut part), 0);
        assert_eq!(stats.copy_from(usize::MAX, &mut part), 0);
    }
}
