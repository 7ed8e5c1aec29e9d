//! The board: which devices there are, on which ports and interrupts, and the order in
//! which they are made (steps (8) to (10)). The kernel's own devices (interrupt
//! controllers and timers) are there already.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use vmmapi::memory::HIGHMEM_BASE;
use vmmapi::{Gpa, SuspendHow, Vm};

use crate::backend::{Backend, BackendError};
use crate::config::Config;
use crate::controllers::Controllers;
use crate::devices::fwcfg::{self, BootOrder, FwCfg, Item, ItemError};
use crate::devices::pctestdev::{self, TestdevError};
use crate::devices::pm::PowerButton;
use crate::devices::serial::{self, COM_PORTS};
use crate::devices::{Suspend, bvmcons, kbdc, pm, post};
use crate::firmware::SCI;
use crate::firmware::ioapic::IoApic;
use crate::mmio::{MmioError, MmioMap};
use crate::options::COM_PORTS as COM_NAMES;
use crate::pci::access::{ConfigPorts, ECAM_BASE, ECAM_SIZE, Ecam, PORT, PORTS};
use crate::pci::bus::{PciBus, PciError, Slot, Surroundings};
use crate::pci::pirq::PirqRouter;
use crate::pci::{InterruptController, lpc, slots};
use crate::ports::{PortBus, RegisterError};
use crate::settings::{FirmwareInterface, Settings};

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
    Testdev(TestdevError),
    FwCfg(ItemError),
    Thread(std::io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(error) => error.fmt(f),
            Self::Mmio(error) => error.fmt(f),
            Self::Pci(error) => error.fmt(f),
            Self::Testdev(error) => error.fmt(f),
            Self::FwCfg(error) => write!(f, "-f: {error}"),
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
    /// The board that the configuration describes.
    pub fn new(
        vm: &Vm,
        config: &Config,
        settings: &Settings,
        ioapic: Option<IoApic>,
        fwcfg: &[Item],
        exit: pctestdev::Exit,
    ) -> Result<Self, BuildError> {
        let slots = slots::slots(config).map_err(BuildError::Pci)?;
        let controllers = Arc::new(Controllers(vm.clone()));
        let suspend = suspend(vm.clone());
        let ports = Arc::new(PortBus::default());
        let pins = ioapic.map_or(0, |ioapic| ioapic.pins);
        let router = Arc::new(PirqRouter::new(controllers.clone(), pins));

        let power_button = init_pm(&ports, &controllers, &router, &suspend)?;
        init_inout(&ports, settings, &suspend)?;
        let bridge = slots.iter().any(|slot| slot.device.name == lpc::NAME);
        let com_ports = init_com_ports(&ports, config, bridge, &controllers, &router)?;
        let surroundings = Surroundings {
            ports: Arc::clone(&ports),
            mmio: Arc::default(),
            memory: vm.memory(),
            memory_end: Gpa(HIGHMEM_BASE + vm.highmem_size()),
            controller: controllers.clone(),
            router,
            first_port: if settings.pctestdev {
                pctestdev::END
            } else {
                0
            },
            boot_order: Arc::default(),
            prefer_msi: settings.prefer_msi,
            enable_bars: settings.enable_bars,
        };
        let pci = init_pci(&slots, &surroundings, suspend)?;
        let Surroundings {
            mmio, boot_order, ..
        } = surroundings;
        if bridge && settings.pctestdev {
            pctestdev::register(&ports, &mmio, controllers, pins, exit)
                .map_err(BuildError::Testdev)?;
        }
        init_fwcfg(&ports, settings, fwcfg, &boot_order)?;
        Ok(Self {
            ports,
            mmio,
            pci,
            com_ports,
            power_button,
        })
    }
}

/// What has fixed ports (step (8)).
fn init_inout(ports: &PortBus, settings: &Settings, suspend: &Suspend) -> Result<(), BuildError> {
    let keyboard = kbdc::KeyboardController {
        suspend: Arc::clone(suspend),
    };
    ports.register("keyboard controller", kbdc::PORT, 1, Arc::new(keyboard))?;
    ports.register("POST codes", post::PORT, 1, Arc::new(post::Post))?;
    if let Some(backend) = &settings.bvm_console {
        let backend = open_backend("-b", Some(backend))?;
        paravirtual(ports, bvmcons::CONSOLE, backend)?;
    }
    if let Some(port) = settings.debug_port {
        let backend = open_backend("-g", Some(&format!("tcp=127.0.0.1:{port}")))?;
        paravirtual(ports, bvmcons::DEBUG, backend)?;
    }
    Ok(())
}

/// 2013's console, or its line for a debugger.
fn paravirtual(ports: &PortBus, kind: bvmcons::Kind, backend: Backend) -> Result<(), BuildError> {
    let device = bvmcons::start(kind, backend).map_err(BuildError::Thread)?;
    Ok(ports.register(kind.name, kind.port, bvmcons::PORTS, device)?)
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
/// the configuration has. One without a backend talks to nobody. The answer is which there
/// are.
fn init_com_ports(
    ports: &PortBus,
    config: &Config,
    bridge: bool,
    controllers: &Controllers,
    router: &PirqRouter,
) -> Result<Vec<usize>, BuildError> {
    let mut present = Vec::new();
    for (index, (first, irq)) in COM_PORTS.iter().enumerate() {
        let name = COM_NAMES[index];
        let spec = config.get(&format!("lpc.{name}.path"));
        if spec.is_none() && !bridge {
            continue;
        }
        router.reserve(*irq);
        let backend = open_backend(name, spec.as_deref())?;
        let line = controllers.isa_edge(*irq);
        let device = serial::start(name, backend, line).map_err(BuildError::Thread)?;
        ports.register(name, *first, serial::PORTS, device)?;
        present.push(index);
    }
    Ok(present)
}

/// PCI (step (9)): the bus is always there; `slots` says what is on it.
fn init_pci(
    slots: &[Slot<'_>],
    surroundings: &Surroundings,
    suspend: Suspend,
) -> Result<Arc<PciBus>, BuildError> {
    let Surroundings { ports, mmio, .. } = surroundings;
    let bus = Arc::new(PciBus::new(slots, surroundings).map_err(BuildError::Pci)?);
    let config = Arc::new(ConfigPorts::new(Arc::clone(&bus), suspend));
    ports.register("PCI configuration", PORT, PORTS, config)?;
    let ecam = Arc::new(Ecam(Arc::clone(&bus)));
    mmio.register("PCI ECAM", ECAM_BASE, ECAM_SIZE, ecam)
        .map_err(BuildError::Mmio)?;
    Ok(bus)
}

/// QEMU's firmware interface, if that is the one wanted. bhyve's own is for a boot ROM alone:
/// without one nobody sees what -f and bootindex say, and the person is told.
fn init_fwcfg(
    ports: &PortBus,
    settings: &Settings,
    items: &[Item],
    boot_order: &BootOrder,
) -> Result<(), BuildError> {
    let boot_order = boot_order.file();
    match settings.fwcfg {
        FirmwareInterface::Qemu => {
            let items = items.iter().cloned().chain(boot_order).collect();
            let device = FwCfg::new(settings.cpus, items).map_err(BuildError::FwCfg)?;
            ports.register("fw_cfg", fwcfg::PORT, fwcfg::PORTS, Arc::new(device))?;
        }
        FirmwareInterface::Bhyve => {
            for what in [
                (!items.is_empty()).then_some("-f"),
                boot_order.map(|_| "bootindex"),
            ]
            .into_iter()
            .flatten()
            {
                eprintln!("bhyve: {what} has no effect without -o lpc.fwcfg=qemu");
            }
        }
    }
    Ok(())
}

fn open_backend(device: &str, spec: Option<&str>) -> Result<Backend, BuildError> {
    Backend::open_or_nobody(spec).map_err(|error| BuildError::Backend {
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
