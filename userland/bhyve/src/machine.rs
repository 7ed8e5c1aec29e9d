//! The machine around the vcpus: the VM, its port bus, the vcpus with their counters and
//! gates. All threads share it.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use vmmapi::{SuspendHow, Vcpu, VcpuId, Vm};

use crate::backend::{Backend, BackendError};
use crate::devices::pci::{self, PciBus};
use crate::devices::serial::{self, COM_PORTS};
use crate::devices::{IrqLine, Suspend, bvmcons, kbdc, pm, post};
use crate::options::Options;
use crate::ports::{PortBus, RegisterError};

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
    /// Other exits.
    Other,
    /// vm_run() answered EBUSY.
    Busy,
    /// The vcpu gave its host CPU to another thread.
    Switch,
}

impl Counter {
    const ALL: [(Self, &'static str); 14] = [
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
    pub bus: PortBus,
    pub cpus: Vec<Cpu>,
    pub strict_io: bool,
    pub strict_msr: bool,
    /// (write, code) of the unknown MSRs that were reported.
    unknown_msrs: Mutex<BTreeSet<(bool, u32)>>,
}

/// Why the machine can't be built.
#[derive(Debug)]
pub enum BuildError {
    Register(RegisterError),
    Backend { device: String, error: BackendError },
    Thread(std::io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(error) => error.fmt(f),
            Self::Backend { device, error } => write!(f, "{device}: {error}"),
            Self::Thread(error) => write!(f, "a thread can't be started: {error}"),
        }
    }
}

impl From<RegisterError> for BuildError {
    fn from(error: RegisterError) -> Self {
        Self::Register(error)
    }
}

impl Machine {
    /// The machine that the options describe, with `cpus` vcpus.
    pub fn new(vm: Vm, options: &Options, cpus: u16) -> Result<Self, BuildError> {
        let bus = init_inout(&vm, options)?;
        let cpus = (0..cpus)
            .map(|id| Cpu {
                vcpu: vm.vcpu(VcpuId(id)),
                counters: Counters::default(),
                gate: Gate::default(),
            })
            .collect();
        Ok(Self {
            vm,
            bus,
            cpus,
            strict_io: options.strict_io,
            strict_msr: options.strict_msr,
            unknown_msrs: Mutex::default(),
        })
    }

    /// The vcpu of that number, if the machine has it.
    pub fn cpu(&self, id: VcpuId) -> Option<&Cpu> {
        self.cpus.get(id.index())
    }

    /// Whether this access to an unknown MSR is the first one.
    pub fn first_unknown_msr(&self, write: bool, code: u32) -> bool {
        self.unknown_msrs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((write, code))
    }
}

/// PCI (step (9)): the bus is always there; what is on it comes from -s.
fn init_pci(options: &Options, suspend: Suspend) -> PciBus {
    let pci = PciBus::new(suspend);
    for (at, identity) in &options.functions {
        // Slots are known to be different since the command line was read.
        pci.add(*at, *identity);
    }
    pci
}

/// The port bus with its devices (step (8)).
fn init_inout(vm: &Vm, options: &Options) -> Result<PortBus, BuildError> {
    let bus = PortBus::default();
    let suspend = suspend(vm.clone());

    let pci = init_pci(options, Arc::clone(&suspend));
    bus.register("PCI configuration", pci::PORT, pci::PORTS, Arc::new(pci))?;
    pm::register(&bus, Arc::clone(&suspend))?;
    bus.register(
        "keyboard controller",
        kbdc::PORT,
        1,
        Arc::new(kbdc::KeyboardController { suspend }),
    )?;
    bus.register("POST codes", post::PORT, 1, Arc::new(post::Post))?;

    for port in &options.com_ports {
        let name = format!("com{}", port.index + 1);
        let (first, irq) = COM_PORTS[port.index];
        let backend = open_backend(&name, &port.backend)?;
        let line = isa_line(vm.clone(), irq);
        let device = serial::start(&name, backend, line).map_err(BuildError::Thread)?;
        bus.register(name, first, serial::PORTS, device)?;
    }
    if options.bvm_console {
        let backend = open_backend("-b", "stdio")?;
        let console = bvmcons::start(backend).map_err(BuildError::Thread)?;
        bus.register("bvmcons", bvmcons::PORT, bvmcons::PORTS, console)?;
    }
    Ok(bus)
}

/// A port without a backend text talks to nobody.
fn open_backend(device: &str, spec: &str) -> Result<Backend, BuildError> {
    let spec = if spec.is_empty() { "/dev/null" } else { spec };
    Backend::open(spec).map_err(|error| BuildError::Backend {
        device: device.to_owned(),
        error,
    })
}

/// An interrupt of the ISA bus: its rising edge is what the controllers take. Where the
/// kernel has none, it goes nowhere.
fn isa_line(vm: Vm, irq: u8) -> IrqLine {
    let irq = i32::from(irq);
    Box::new(move |high| {
        if !high {
            return;
        }
        match vm.isa_pulse_irq(irq, Some(irq)) {
            Ok(()) => {}
            Err(error) if error.is(libc::ENXIO) => {}
            Err(error) => eprintln!("bhyve: interrupt {irq} is lost: {error}\r"),
        }
    })
}

/// vm_suspend() for the devices. The first one to ask decides how the VM ends.
fn suspend(vm: Vm) -> Suspend {
    Arc::new(move |how: SuspendHow| {
        if let Err(error) = vm.suspend(how) {
            if !error.is(libc::EALREADY) {
                eprintln!("bhyve: the guest asked for its end, but: {error}\r");
            }
        }
    })
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
