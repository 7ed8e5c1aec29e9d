//! A PCI device on its buses with some memory, and a guest that does anything: accesses to
//! ports, memory-mapped registers and configuration space, and bytes in memory. A virtio
//! device is set up as a driver would first, with its queues in the memory that the guest
//! scribbles on, so that inputs get to the requests at once.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bhyve::config::Config;
use bhyve::mmio::{MmioBus, MmioMap};
use bhyve::pci::bus::{PciBus, Slot, Surroundings};
use bhyve::pci::interrupts::Message;
use bhyve::pci::pirq::PirqRouter;
use bhyve::pci::registry::{self, DeviceType};
use bhyve::pci::{Bdf, InterruptController};
use bhyve::ports::{PortBus, Width};
use vmmapi::{Gpa, GuestMemory};

const AT: Bdf = Bdf {
    bus: 0,
    slot: 3,
    function: 0,
};
const MEMORY: usize = 256 << 10;
/// Queue n has its three parts from here on, a page and a half each.
const QUEUES: u64 = 0x1000;
const QUEUE_STEP: u64 = 0x6000;
const QUEUE_SIZE: u16 = 16;
const COMMAND: u16 = 4;

/// One thing that the guest does.
#[derive(Arbitrary, Debug)]
pub enum Op {
    Port {
        bar: u8,
        offset: u16,
        width: u8,
        write: Option<u32>,
    },
    Mmio {
        bar: u8,
        offset: u16,
        size: u8,
        write: Option<u64>,
    },
    Config {
        register: u8,
        width: u8,
        write: Option<u32>,
    },
    /// Bytes in memory, near its beginning where the queues are.
    Memory { at: u16, bytes: Vec<u8> },
    /// A command of a disk or CD, with its FIS and packet.
    Command {
        port: u8,
        slot: u8,
        flags: u16,
        fis: [u8; 20],
        packet: [u8; 12],
        parts: Vec<Part>,
    },
    /// A descriptor of a queue; then it is made available, and the device is notified.
    Request { queue: u8, parts: Vec<Part> },
}

/// Where port n of an AHCI controller has its command list, received FISes behind it, and a
/// page further one command table for all slots (AHCI 1.3.1, 4.2).
const LISTS: u64 = 0x1000;
const LIST_STEP: u64 = 0x2000;

/// One buffer of a request.
#[derive(Arbitrary, Debug)]
pub struct Part {
    gpa: u16,
    len: u16,
    write: bool,
    bytes: Vec<u8>,
}

/// Counts what comes out, so that nothing waits for anybody.
#[derive(Default)]
pub struct Controller {
    messages: Mutex<u64>,
    changed: Condvar,
}

impl Controller {
    fn count(&self) {
        *self.messages.lock().unwrap() += 1;
        self.changed.notify_all();
    }
}

impl InterruptController for Controller {
    fn message(&self, _: Message) {
        self.count();
    }
    fn ioapic(&self, _: u8, _: bool) {
        self.count();
    }
    fn isa(&self, _: u8, _: Option<u8>, _: bool) {
        self.count();
    }
    fn level_triggered(&self, _: u8) {}
}

/// The device of that name in `-s`, with those options, and its buses.
pub struct Machine {
    ports: Arc<PortBus>,
    mmio: Arc<MmioMap>,
    memory: GuestMemory,
    controller: Arc<Controller>,
    bus: PciBus,
    /// Of each BAR: whether it is ports, and its address.
    bars: [(bool, u64); 6],
    /// Virtio's registers of 1.x: common, notification, and how far its registers are apart.
    virtio: Option<(u64, u64, u64)>,
    next: [u16; 8],
}

impl Machine {
    pub fn new(device: &str, options: &str) -> Self {
        Self::with(registry::find(device).unwrap(), options)
    }

    pub fn with(device: &'static DeviceType, options: &str) -> Self {
        let controller = Arc::new(Controller::default());
        let memory = GuestMemory::anonymous(&[(Gpa(0), MEMORY)]).unwrap();
        let surroundings = Surroundings {
            ports: Arc::default(),
            mmio: Arc::default(),
            memory: memory.clone(),
            memory_end: Gpa(MEMORY as u64),
            controller: controller.clone(),
            router: Arc::new(PirqRouter::new(controller.clone(), 32)),
            first_port: 0,
            boot_order: Arc::default(),
            prefer_msi: false,
            enable_bars: true,
        };
        let mut config = Config::default();
        let mut node = config.node_mut(&AT.node()).unwrap();
        let options = Some(options).filter(|options| !options.is_empty());
        (device.options)(&mut node, options).unwrap();
        let slot = Slot {
            at: AT,
            device,
            config: config.node(&AT.node()).unwrap(),
        };
        let bus = PciBus::new(&[slot], &surroundings).map_err(|e| e.to_string());
        let mut machine = Self {
            ports: surroundings.ports,
            mmio: surroundings.mmio,
            memory,
            controller,
            bus: bus.unwrap(),
            bars: [(false, 0); 6],
            virtio: None,
            next: [0; 8],
        };
        machine.bus.write(AT, COMMAND, Width::Word, 7);
        for n in 0..6 {
            let register = machine.config(0x10 + 4 * n);
            let ports = register & 1 != 0;
            let address = if ports {
                register & !3
            } else {
                register & !0xf
            };
            machine.bars[usize::from(n)] = (ports, address.into());
        }
        machine
    }

    fn config(&self, register: u16) -> u32 {
        self.bus.read(AT, register, Width::Dword)
    }

    /// As a driver of virtio 1.x: all features, all queues, ready.
    pub fn start_virtio(&mut self) {
        let Some((common, notify, multiplier)) = self.find_virtio() else {
            return;
        };
        let write = |offset, size, value| {
            self.mmio.write(Gpa(common + offset), size, value);
        };
        let read = |offset, size| self.mmio.read(Gpa(common + offset), size).unwrap_or(0);
        write(0x14, 1, 0);
        write(0x14, 1, 3);
        for half in 0..2 {
            write(0x00, 4, half);
            let features = read(0x04, 4);
            write(0x08, 4, half);
            write(0x0c, 4, features);
        }
        write(0x14, 1, 0xb);
        for queue in 0..read(0x12, 2).min(6) {
            let at = QUEUES + queue * QUEUE_STEP;
            write(0x16, 2, queue);
            write(0x18, 2, QUEUE_SIZE.into());
            for (register, address) in [(0x20, at), (0x28, at + 0x1000), (0x30, at + 0x2000)] {
                write(register, 8, address);
            }
            write(0x1c, 2, 1);
        }
        write(0x14, 1, 0xf);
        self.virtio = Some((common, notify, multiplier));
    }

    fn find_virtio(&self) -> Option<(u64, u64, u64)> {
        let byte = |at| self.bus.read(AT, at, Width::Byte);
        let (mut common, mut notify) = (None, None);
        let mut at = byte(0x34) as u16;
        while at != 0 {
            if byte(at) == 9 {
                let bar = self.bars.get(byte(at + 4) as usize).map_or(0, |bar| bar.1);
                let address = bar + u64::from(self.config(at + 8));
                match byte(at + 3) {
                    1 => common = Some(address),
                    2 => notify = Some((address, self.config(at + 16).into())),
                    _ => {}
                }
            }
            at = byte(at + 1) as u16;
        }
        let (notify, multiplier) = notify?;
        Some((common?, notify, multiplier))
    }

    /// Does all that an input says.
    pub fn run(&mut self, data: &[u8]) {
        let mut input = Unstructured::new(data);
        while let Ok(op) = Op::arbitrary(&mut input) {
            self.perform(&op);
            if input.is_empty() {
                break;
            }
        }
    }

    fn perform(&mut self, op: &Op) {
        let bar = |n: u8| self.bars[usize::from(n % 6)];
        match op {
            Op::Port {
                bar: n,
                offset,
                width,
                write,
            } => {
                let (true, base) = bar(*n) else { return };
                let port = (base as u16).wrapping_add(offset & 0x7f);
                match write {
                    Some(value) => drop(self.ports.write(port, width_of(*width), *value)),
                    None => drop(self.ports.read(port, width_of(*width))),
                }
            }
            Op::Mmio {
                bar: n,
                offset,
                size,
                write,
            } => {
                let (false, base) = bar(*n) else { return };
                let (gpa, size) = (Gpa(base + u64::from(*offset)), size % 8 + 1);
                match write {
                    Some(value) => {
                        let value = value & (u64::MAX >> (64 - 8 * u32::from(size)));
                        self.mmio.write(gpa, size, value);
                    }
                    None => drop(self.mmio.read(gpa, size)),
                }
            }
            Op::Config {
                register,
                width,
                write,
            } => {
                // A place that isn't aligned can't be asked for.
                let width = width_of(*width);
                let register = u16::from(*register) & !(width.bytes() - 1);
                match write {
                    Some(value) => self.bus.write(AT, register, width, value & width.mask()),
                    None => drop(self.bus.read(AT, register, width)),
                }
            }
            Op::Memory { at, bytes } => self.put(u64::from(*at), bytes),
            Op::Request { queue, parts } => self.request(u64::from(*queue % 6), parts),
            Op::Command {
                port,
                slot,
                flags,
                fis,
                packet,
                parts,
            } => self.command(port & 1, slot & 31, *flags, (fis, packet), parts),
        }
    }

    /// As a driver of an AHCI controller: both ports run.
    pub fn start_ahci(&mut self) {
        let base = self.bars[5].1;
        let write = |register: u64, value: u64| {
            self.mmio.write(Gpa(base + register), 4, value);
        };
        write(4, 1 << 31 | 2);
        for port in 0..2 {
            let (registers, list) = (0x100 + 0x80 * port, LISTS + LIST_STEP * port);
            write(registers, list);
            write(registers + 0x08, list + 0x400);
            write(registers + 0x14, 0xffff_ffff);
            write(registers + 0x18, 0x10);
            write(registers + 0x18, 0x11);
        }
    }

    /// Puts a command into a slot and lets the port work on it.
    fn command(
        &self,
        port: u8,
        slot: u8,
        flags: u16,
        (fis, packet): (&[u8], &[u8]),
        parts: &[Part],
    ) {
        let list = LISTS + LIST_STEP * u64::from(port);
        let table = list + 0x1000;
        let parts = &parts[..parts.len().min(32)];
        // The length of the FIS is right mostly: five words.
        let words = if flags & 0x1f == 0x1f { 3 } else { 5 };
        let header = u32::from(flags & !0x1f | words) | (parts.len() as u32) << 16;
        let mut bytes = header.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(table.to_le_bytes());
        self.put(list + 32 * u64::from(slot), &bytes);
        // A command from the host, unless it says otherwise.
        let mut fis = fis.to_vec();
        if fis[0] & 1 == 0 {
            (fis[0], fis[1]) = (0x27, 0x80);
        }
        self.put(table, &fis);
        self.put(table + 0x40, packet);
        for (n, part) in (0..).zip(parts) {
            let gpa = (u64::from(part.gpa) << 2) + 0x1_0000;
            self.put(gpa, &part.bytes);
            let mut entry = gpa.to_le_bytes().to_vec();
            entry.extend([0; 4]);
            entry.extend((u32::from(part.len) | u32::from(part.write) << 31).to_le_bytes());
            self.put(table + 0x80 + 16 * n, &entry);
        }
        let registers = self.bars[5].1 + 0x100 + 0x80 * u64::from(port);
        let issue = 1 << slot;
        if flags & 1 << 15 != 0 {
            self.mmio.write(Gpa(registers + 0x34), 4, issue);
        }
        let before = *self.controller.messages.lock().unwrap();
        self.mmio.write(Gpa(registers + 0x38), 4, issue);
        self.wait_since(before);
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let _ = self.memory.copy_to(Gpa(at), bytes);
    }

    /// Puts a chain into a queue and lets the device work on it.
    fn request(&mut self, queue: u64, parts: &[Part]) {
        let Some((_, notify, multiplier)) = self.virtio else {
            return;
        };
        let at = QUEUES + queue * QUEUE_STEP;
        let parts = &parts[..parts.len().min(QUEUE_SIZE.into())];
        for (n, part) in parts.iter().enumerate() {
            let gpa = (u64::from(part.gpa) << 2) + 0x2_8000;
            self.put(gpa, &part.bytes);
            let next = n + 1 < parts.len();
            let flags = u16::from(next) | u16::from(part.write) << 1;
            let mut descriptor = gpa.to_le_bytes().to_vec();
            descriptor.extend(u32::from(part.len).to_le_bytes());
            descriptor.extend(flags.to_le_bytes());
            descriptor.extend((n as u16 + 1).to_le_bytes());
            self.put(at + 16 * n as u64, &descriptor);
        }
        let next = &mut self.next[queue as usize];
        let entry = u64::from(*next % QUEUE_SIZE);
        *next = next.wrapping_add(1);
        let index = *next;
        self.put(at + 0x1000 + 4 + 2 * entry, &0_u16.to_le_bytes());
        self.put(at + 0x1000 + 2, &index.to_le_bytes());
        let before = *self.controller.messages.lock().unwrap();
        self.mmio.write(Gpa(notify + queue * multiplier), 2, queue);
        self.wait_since(before);
    }

    /// A device that answers does so soon; nothing depends on it.
    fn wait_since(&self, before: u64) {
        let messages = self.controller.messages.lock().unwrap();
        let _ = self.controller.changed.wait_timeout_while(
            messages,
            Duration::from_micros(200),
            |now| *now == before,
        );
    }
}

fn width_of(n: u8) -> Width {
    match n % 3 {
        0 => Width::Byte,
        1 => Width::Word,
        _ => Width::Dword,
    }
}
