//! The board: which devices there are, on which ports and interrupts, and the order in
//! which they are made (steps (8) to (10)). The kernel's own devices (interrupt
//! controllers and timers) are there already.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use vmmapi::memory::HIGHMEM_BASE;
use vmmapi::{Gpa, SuspendHow, Vm};

use crate::backend::{Backend, BackendError};
use crate::controllers::Controllers;
use crate::devices::pm::PowerButton;
use crate::devices::serial::{self, COM_PORTS};
use crate::devices::{Suspend, bvmcons, kbdc, pm, post};
use crate::firmware::SCI;
use crate::firmware::ioapic::IoApic;
use crate::mmio::{MmioError, MmioMap};
use crate::options::Options;
use crate::pci::access::{ConfigPorts, ECAM_BASE, ECAM_SIZE, Ecam, PORT, PORTS};
use crate::pci::bus::{PciBus, PciError, Slot, Surroundings};
use crate::pci::pirq::PirqRouter;
use crate::pci::{InterruptController, lpc};
use crate::ports::{PortBus, RegisterError};

/// The devices and the buses that they are on.
pub struct Board {
    pub ports: Arc<PortBus>,
    pub mmio: Arc<MmioMap>,
    pub pci: Arc<PciBus>,
    /// 0 is com1.
    pub com_ports: Vec<usize>,
    pub power_button: PowerButton,
}

/// Why the board can't be built.
#[derive(Debug)]
pub enum BuildError {
    Register(RegisterError),
    Mmio(MmioError),
    Pci(PciError),
    Backend { device: String, error: BackendError },
    Thread(std::io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(error) => error.fmt(f),
            Self::Mmio(error) => error.fmt(f),
            Self::Pci(error) => error.fmt(f),
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

impl Board {
    /// The board that the options describe.
    pub fn new(vm: &Vm, options: &Options, ioapic: Option<IoApic>) -> Result<Self, BuildError> {
        let controllers = Arc::new(Controllers(vm.clone()));
        let suspend = suspend(vm.clone());
        let ports = Arc::new(PortBus::default());
        let pins = ioapic.map_or(0, |ioapic| ioapic.pins);
        let router = Arc::new(PirqRouter::new(controllers.clone(), pins));

        let power_button = init_pm(&ports, &controllers, &router, &suspend)?;
        let com_ports = init_inout(&ports, options, &controllers, &router, &suspend)?;
        let (mmio, pci) = init_pci(vm, options, &ports, controllers, router, suspend)?;
        Ok(Self {
            ports,
            mmio,
            pci,
            com_ports,
            power_button,
        })
    }
}

/// What has fixed ports (step (8)). The answer is which com ports there are.
fn init_inout(
    ports: &PortBus,
    options: &Options,
    controllers: &Controllers,
    router: &PirqRouter,
    suspend: &Suspend,
) -> Result<Vec<usize>, BuildError> {
    let keyboard = kbdc::KeyboardController {
        suspend: Arc::clone(suspend),
    };
    ports.register("keyboard controller", kbdc::PORT, 1, Arc::new(keyboard))?;
    ports.register("POST codes", post::PORT, 1, Arc::new(post::Post))?;
    if options.bvm_console {
        let backend = open_backend("-b", "stdio")?;
        let console = bvmcons::start(backend).map_err(BuildError::Thread)?;
        ports.register("bvmcons", bvmcons::PORT, bvmcons::PORTS, console)?;
    }
    init_com_ports(ports, options, controllers, router)
}

/// The fixed hardware of ACPI. Its interrupt is level-triggered and may be shared by PCI.
fn init_pm(
    ports: &PortBus,
    controllers: &Arc<Controllers>,
    router: &PirqRouter,
    suspend: &Suspend,
) -> Result<PowerButton, RegisterError> {
    router.share(SCI);
    controllers.level_triggered(SCI);
    let line = Arc::clone(controllers);
    let sci = Box::new(move |level| line.isa(SCI, Some(SCI), level));
    pm::register(ports, Arc::clone(suspend), sci)
}

/// With an LPC bridge all four serial ports are there, as in bhyve; without one, those that
/// the command line has. One without a backend talks to nobody.
fn init_com_ports(
    ports: &PortBus,
    options: &Options,
    controllers: &Controllers,
    router: &PirqRouter,
) -> Result<Vec<usize>, BuildError> {
    let bridge = options
        .slots
        .iter()
        .any(|slot| slot.device.name == lpc::NAME);
    let mut present = Vec::new();
    for (index, (first, irq)) in COM_PORTS.iter().enumerate() {
        let configured = options.com_ports.iter().find(|port| port.index == index);
        if configured.is_none() && !bridge {
            continue;
        }
        let name = format!("com{}", index + 1);
        router.reserve(*irq);
        let spec = configured.map_or("", |port| port.backend.as_str());
        let backend = open_backend(&name, spec)?;
        let line = controllers.isa_edge(*irq);
        let device = serial::start(&name, backend, line).map_err(BuildError::Thread)?;
        ports.register(name, *first, serial::PORTS, device)?;
        present.push(index);
    }
    Ok(present)
}

/// PCI (step (9)): the bus is always there; what is on it comes from -s.
fn init_pci(
    vm: &Vm,
    options: &Options,
    ports: &Arc<PortBus>,
    controllers: Arc<Controllers>,
    router: Arc<PirqRouter>,
    suspend: Suspend,
) -> Result<(Arc<MmioMap>, Arc<PciBus>), BuildError> {
    let mut slots = Vec::new();
    for slot in &options.slots {
        let device = slot.device;
        if let Some(config) = options.config.node(&slot.at.node()) {
            slots.push(Slot {
                at: slot.at,
                device,
                config,
            });
        }
    }
    let mmio = Arc::new(MmioMap::default());
    let surroundings = Surroundings {
        ports: Arc::clone(ports),
        mmio: Arc::clone(&mmio),
        memory: vm.memory(),
        memory_end: Gpa(HIGHMEM_BASE + vm.highmem_size()),
        controller: controllers,
        router,
        prefer_msi: options.virtio_msi,
    };
    let bus = Arc::new(PciBus::new(&slots, &surroundings).map_err(BuildError::Pci)?);
    let config = Arc::new(ConfigPorts::new(Arc::clone(&bus), suspend));
    ports.register("PCI configuration", PORT, PORTS, config)?;
    let ecam = Arc::new(Ecam(Arc::clone(&bus)));
    mmio.register("PCI ECAM", ECAM_BASE, ECAM_SIZE, ecam)
        .map_err(BuildError::Mmio)?;
    Ok((mmio, bus))
}

fn open_backend(device: &str, spec: &str) -> Result<Backend, BuildError> {
    let spec = if spec.is_empty() { "/dev/null" } else { spec };
    Backend::open(spec).map_err(|error| BuildError::Backend {
        device: device.to_owned(),
        error,
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
