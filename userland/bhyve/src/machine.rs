//! The machine around the vcpus: the VM, its board of devices, the vcpus with their
//! counters and gates. All threads share it.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use vmmapi::memory::HIGHMEM_BASE;
use vmmapi::{Vcpu, VcpuId, Vm};

use crate::board::Board;
use crate::settings::Settings;

/// What the run loop counts for each vcpu.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Counter {
    Inout,
    InoutString,
    Rdmsr,
    Wrmsr,
    Bogus,
    Reqidle,
    Hlt,
    Pause,
    Mtrap,
    Debug,
    Ipi,
    InstEmul,
    /// Other exits.
    Other,
    /// vm_run() answered EBUSY.
    Busy,
    /// The vcpu gave its host CPU to another thread.
    Switch,
}

impl Counter {
    const ALL: [(Self, &'static str); 15] = [
        (Self::Inout, "inout"),
        (Self::InoutString, "inout_str"),
        (Self::Rdmsr, "rdmsr"),
        (Self::Wrmsr, "wrmsr"),
        (Self::Bogus, "bogus"),
        (Self::Reqidle, "reqidle"),
        (Self::Hlt, "hlt"),
        (Self::Pause, "pause"),
        (Self::Mtrap, "mtrap"),
        (Self::Debug, "debug"),
        (Self::Ipi, "ipi"),
        (Self::InstEmul, "inst_emul"),
        (Self::Other, "other"),
        (Self::Busy, "vm_run busy"),
        (Self::Switch, "switch"),
    ];
}

/// The counters of one vcpu.
#[derive(Default)]
pub struct Counters([AtomicU64; Counter::ALL.len()]);

impl Counters {
    pub fn count(&self, counter: Counter) {
        self.0[counter as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }
}

/// Those that aren't zero: "inout 12, hlt 3".
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = Counter::ALL.iter().map(|(c, name)| (self.get(*c), *name));
        let mut separator = "";
        for (count, name) in counted.filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{name} {count}")?;
            separator = ", ";
        }
        if separator.is_empty() {
            f.write_str("none")
        } else {
            Ok(())
        }
    }
}

/// A stopped vcpu's thread waits here, between two looks at the kernel, for its start.
#[derive(Default)]
pub struct Gate {
    started: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// Waits until [`Gate::open`], or for that long.
    pub fn wait(&self, limit: Duration) {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(started, limit, |started| !*started);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }

    /// Lets the one that waits go on, or the next one that would.
    pub fn open(&self) {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

/// One vcpu as the run loop knows it.
pub struct Cpu {
    pub vcpu: Vcpu,
    pub counters: Counters,
    pub gate: Gate,
}

/// All of it.
pub struct Machine {
    pub vm: Vm,
    pub board: Board,
    pub cpus: Vec<Cpu>,
    pub strict_io: bool,
    pub strict_msr: bool,
    pub verbose_msr: bool,
    /// All vcpus take turns on one host CPU.
    pub mux: bool,
    /// (write, code) of the unknown MSRs that were reported.
    unknown_msrs: Mutex<BTreeSet<(bool, u32)>>,
}

impl Machine {
    /// The machine of that board.
    pub fn new(vm: Vm, board: Board, settings: &Settings) -> Self {
        let cpus = (0..settings.cpus)
            .map(|id| Cpu {
                vcpu: vm.vcpu(VcpuId(id)),
                counters: Counters::default(),
                gate: Gate::default(),
            })
            .collect();
        Self {
            vm,
            board,
            cpus,
            strict_io: settings.strict_io,
            strict_msr: settings.strict_msr,
            verbose_msr: settings.verbose_msr,
            mux: settings.mux,
            unknown_msrs: Mutex::default(),
        }
    }

    /// The addresses between low memory and 4 GiB, where PCI decodes what nobody else does.
    pub fn pci_hole(&self) -> Range<u64> {
        self.vm.lowmem_size()..HIGHMEM_BASE
    }

    /// Where the guest's memory ends.
    pub fn memory_end(&self) -> u64 {
        match self.vm.highmem_size() {
            0 => self.vm.lowmem_size(),
            high => HIGHMEM_BASE + high,
        }
    }

    /// The vcpu of that number, if the machine has it.
    pub fn cpu(&self, id: VcpuId) -> Option<&Cpu> {
        self.cpus.get(id.index())
    }

    /// Whether the guest used MSRs that nobody knows.
    pub fn has_unknown_msrs(&self) -> bool {
        let unknown = self.unknown_msrs.lock();
        !unknown.unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Whether this access to an unknown MSR is the first one.
    pub fn first_unknown_msr(&self, write: bool, code: u32) -> bool {
        self.unknown_msrs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((write, code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_show_what_was_counted() {
        let counters = Counters::default();
        assert_eq!(counters.to_string(), "none");
        counters.count(Counter::Hlt);
        counters.count(Counter::Inout);
        counters.count(Counter::Hlt);
        assert_eq!(counters.to_string(), "inout 1, hlt 2");
    }

    #[test]
    fn each_counter_has_its_own_place() {
        for (n, (counter, _)) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, n);
        }
    }

    #[test]
    fn a_gate_opened_early_lets_the_next_one_through() {
        let gate = Gate::default();
        gate.open();
        let start = std::time::Instant::now();
        gate.wait(Duration::from_secs(60));
        assert!(start.elapsed() < Duration::from_secs(30));
        gate.wait(Duration::from_millis(1));
    }
}
