//! All PCI functions of the machine and how they are put together at start (init_pci() of
//! bhyve): devices are made in the order of their places, BARs get addresses, interrupt
//! pins get wires. What firmware has to tell the guest about that is published here.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use vmmapi::{Gpa, GuestMemory};

use super::bar::{Allocator, NoRoom, PlacedBar, Windows};
use super::config::SpecError;
use super::decode::Decoder;
use super::device::{Bdf, DeviceContext, DeviceError};
use super::function::Function;
use super::interrupts::{InterruptController, Interrupts};
use super::pirq::{PirqRouter, Route};
use super::registry::DeviceType;
use crate::config::View;
use crate::devices::fwcfg::BootOrder;
use crate::mmio::MmioMap;
use crate::ports::{PortBus, Width};

/// Interrupt pins of a slot.
const PINS: u8 = 4;
/// PCI Express gives each function 4096 bytes; there is nothing behind the first 256.
const EXTENDED: u16 = 0x100;

/// A device that the command line puts somewhere.
#[derive(Clone, Debug)]
pub struct Slot<'a> {
    pub at: Bdf,
    pub device: &'static DeviceType,
    pub config: View<'a>,
}

/// What the devices are connected to.
pub struct Surroundings {
    pub ports: Arc<PortBus>,
    pub mmio: Arc<MmioMap>,
    pub memory: GuestMemory,
    /// Where the guest's memory ends.
    pub memory_end: Gpa,
    pub controller: Arc<dyn InterruptController>,
    pub router: Arc<PirqRouter>,
    /// BARs get ports from there on, if not from later ones.
    pub first_port: u16,
    /// Filled by the devices to boot from.
    pub boot_order: Arc<BootOrder>,
    /// -W.
    pub prefer_msi: bool,
    /// Whether BARs are decoded from the beginning.
    pub enable_bars: bool,
}

#[cfg(test)]
impl Surroundings {
    /// Of a machine with that memory, whose interrupts the recorder notes.
    pub fn of_test(
        memory: GuestMemory,
        memory_end: Gpa,
        recorder: &Arc<super::interrupts::tests::Recorder>,
    ) -> Self {
        Self {
            ports: Arc::default(),
            mmio: Arc::default(),
            memory,
            memory_end,
            controller: recorder.clone(),
            router: Arc::new(PirqRouter::new(recorder.clone(), 32)),
            first_port: 0,
            boot_order: Arc::default(),
            prefer_msi: false,
            enable_bars: true,
        }
    }
}

/// Why the bus can't be as the configuration wants it.
#[derive(Debug)]
pub enum PciError {
    Taken(Bdf),
    /// A node that stands for no bus, slot or function.
    NoPlace(String),
    /// No name of a device.
    NoDevice(Bdf),
    UnknownDevice {
        at: Bdf,
        name: String,
    },
    /// A name that the command line knows for another device with certain variables.
    Alias {
        at: Bdf,
        name: String,
        alias: &'static str,
    },
    NotYet {
        at: Bdf,
        name: String,
    },
    SecondBridge(Bdf),
    Device {
        name: String,
        error: DeviceError,
    },
    /// Variables that the device doesn't know.
    Unknown {
        name: String,
        variables: Vec<String>,
    },
    Spec {
        name: String,
        error: SpecError,
    },
    NoRoom(NoRoom),
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(at) => write!(f, "pci slot {at} already occupied!"),
            Self::NoPlace(node) => write!(
                f,
                "{node}: no such place: pci.BUS.SLOT.FUNCTION is wanted, up to 255, 31 and 7"
            ),
            Self::NoDevice(at) => write!(f, "pci slot {at}: missing \"device\" value"),
            Self::UnknownDevice { at, name } => write!(
                f,
                "pci slot {at}: unknown device \"{name}\" (-s help lists those there are)"
            ),
            Self::Alias { at, name, alias } => write!(
                f,
                "pci slot {at}: legacy device \"{name}\", use \"{alias}\" instead"
            ),
            Self::SecondBridge(at) => {
                write!(f, "pci slot {at}: Only one LPC bridge is allowed.")
            }
            Self::NotYet { at, name } => {
                write!(f, "pci slot {at}: {name} is not part of this version")
            }
            Self::Device { name, error } => write!(f, "{name}: {error}"),
            Self::Unknown { name, variables } => {
                write!(f, "{name}: unknown option {}", variables.join(", "))
            }
            Self::Spec { name, error } => write!(f, "{name}: {error}"),
            Self::NoRoom(error) => error.fmt(f),
        }
    }
}

/// An interrupt pin of a slot and its wires, for the _PRT and the MP table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IntxWire {
    pub bus: u8,
    pub slot: u8,
    /// 0 is INTA#, as the _PRT counts.
    pub pin: u8,
    pub route: Route,
}

/// A root bus and the addresses that it decodes, for its _CRS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootBus {
    pub number: u8,
    pub windows: Windows,
}

/// The functions.
#[derive(Default)]
pub struct PciBus {
    functions: BTreeMap<Bdf, Function>,
    buses: Vec<RootBus>,
    wires: Vec<IntxWire>,
}

impl PciBus {
    /// Makes the devices and lets them decode their BARs.
    pub fn new(slots: &[Slot<'_>], surroundings: &Surroundings) -> Result<Self, PciError> {
        let decoder = Arc::new(Decoder::new(
            Arc::clone(&surroundings.ports),
            Arc::clone(&surroundings.mmio),
        ));
        let mut slots = slots.to_vec();
        slots.sort_by_key(|slot| slot.at);
        let mut bus = Self::default();
        for slot in &slots {
            if bus.functions.contains_key(&slot.at) {
                return Err(PciError::Taken(slot.at));
            }
            let function = make_function(slot, surroundings, Arc::clone(&decoder))?;
            bus.functions.insert(slot.at, function);
        }
        bus.place_bars(surroundings)?;
        bus.wire_interrupts(&surroundings.router);
        bus.mark_multi_function();
        if surroundings.enable_bars {
            bus.functions.values().for_each(Function::enable);
        }
        Ok(bus)
    }

    /// Reads configuration space. `register` goes up to 4095.
    pub fn read(&self, at: Bdf, register: u16, width: Width) -> u32 {
        match (self.functions.get(&at), u8::try_from(register)) {
            (None, _) => width.mask(),
            (Some(function), Ok(register)) => function.read(register, width),
            // No extended capabilities (PCI Express Base 3.0, 7.9.1).
            (Some(_), Err(_)) if register < EXTENDED + 4 => 0,
            (Some(_), Err(_)) => width.mask(),
        }
    }

    /// Writes configuration space.
    pub fn write(&self, at: Bdf, register: u16, width: Width, value: u32) {
        if let (Some(function), Ok(register)) = (self.functions.get(&at), u8::try_from(register)) {
            function.write(register, width, value);
        }
    }

    /// The buses that there are devices on.
    pub fn buses(&self) -> &[RootBus] {
        &self.buses
    }

    /// All interrupt pins that are wired, by slot and pin.
    pub fn intx_wires(&self) -> &[IntxWire] {
        &self.wires
    }

    /// Every function with its device's name in `-s`.
    pub fn functions(&self) -> impl Iterator<Item = (Bdf, &'static str)> + '_ {
        self.functions
            .values()
            .map(|function| (function.at, function.kind))
    }

    fn place_bars(&mut self, surroundings: &Surroundings) -> Result<(), PciError> {
        let mut allocator = Allocator::new(surroundings.memory_end.get(), surroundings.first_port);
        let mut numbers: Vec<u8> = self.functions.keys().map(|at| at.bus).collect();
        numbers.dedup();
        for number in numbers {
            let functions = self.functions.values();
            let wanted = functions
                .filter(|function| function.at.bus == number)
                .flat_map(|function| function.bars().into_iter().map(|bar| (function.at, bar)))
                .collect();
            let (windows, placed) = allocator.place(wanted).map_err(PciError::NoRoom)?;
            for PlacedBar { at, bar, address } in placed {
                if let Some(function) = self.functions.get(&at) {
                    function.place_bar(bar, address);
                }
            }
            self.buses.push(RootBus { number, windows });
        }
        Ok(())
    }

    /// A function gets the pin of its slot that the fewest others use. Functions that share
    /// a pin share its wires.
    fn wire_interrupts(&mut self, router: &Arc<PirqRouter>) {
        let mut users: BTreeMap<(u8, u8, u8), u32> = BTreeMap::new();
        let mut pins = Vec::new();
        for function in self.functions.values().filter(|f| f.uses_intx) {
            let Bdf { bus, slot, .. } = function.at;
            let count = |pin| users.get(&(bus, slot, pin)).copied().unwrap_or(0);
            let pin = (0..PINS).min_by_key(|pin| count(*pin)).unwrap_or(0);
            *users.entry((bus, slot, pin)).or_default() += 1;
            pins.push((function, pin));
        }
        for (function, pin) in pins {
            let Bdf { bus, slot, .. } = function.at;
            let known = self
                .wires
                .iter()
                .find(|wire| (wire.bus, wire.slot, wire.pin) == (bus, slot, pin));
            let route = known.map_or_else(|| router.route(), |wire| wire.route);
            if known.is_none() {
                self.wires.push(IntxWire {
                    bus,
                    slot,
                    pin,
                    route,
                });
            }
            let line = Arc::clone(router);
            function.connect_intx(
                pin + 1,
                router.interrupt_line(route),
                Box::new(move |asserted| line.set(route, asserted)),
            );
        }
        self.wires
            .sort_by_key(|wire| (wire.bus, wire.slot, wire.pin));
    }

    fn mark_multi_function(&self) {
        for function in self.functions.values() {
            let place = |at: &Bdf| (at.bus, at.slot);
            let in_slot = self
                .functions
                .keys()
                .filter(|at| place(at) == place(&function.at));
            if in_slot.count() > 1 {
                function.set_multi_function();
            }
        }
    }
}

fn make_function(
    slot: &Slot<'_>,
    surroundings: &Surroundings,
    decoder: Arc<Decoder>,
) -> Result<Function, PciError> {
    let name = format!("{}@{}", slot.device.name, slot.at.node());
    let interrupts = Interrupts::new(Arc::clone(&surroundings.controller));
    let context = DeviceContext {
        at: slot.at,
        name: name.clone(),
        memory: surroundings.memory.clone(),
        interrupts: interrupts.clone(),
        prefer_msi: surroundings.prefer_msi,
        boot_order: Arc::clone(&surroundings.boot_order),
        router: Arc::clone(&surroundings.router),
    };
    let device = (slot.device.new)(&slot.config, context).map_err(|error| PciError::Device {
        name: name.clone(),
        error,
    })?;
    // Read by whoever chose the device.
    slot.config.get("device");
    let variables = slot.config.unread();
    if !variables.is_empty() {
        return Err(PciError::Unknown { name, variables });
    }
    Function::new(
        slot.at,
        slot.device.name,
        name.clone(),
        device,
        interrupts,
        decoder,
    )
    .map_err(|error| PciError::Spec { name, error })
}

#[cfg(test)]
mod tests;
