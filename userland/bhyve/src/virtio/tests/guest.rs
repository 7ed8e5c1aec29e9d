//! A guest with one virtio device, and a driver for it, of virtio 0.9.5 or 1.x.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use vmmapi::{Gpa, GuestMemory};

use crate::config::Config;
use crate::mmio::{MmioBus, MmioMap};
use crate::pci::bus::{PciBus, Slot, Surroundings};
use crate::pci::device::{Bdf, Constructor, plain_options};
use crate::pci::interrupts::Message;
use crate::pci::interrupts::tests::Recorder;
use crate::pci::registry::{self, DeviceType};
use crate::ports::{PortBus, Width};
use crate::virtio::feature::VERSION_1;
use crate::virtio::transport::{NO_VECTOR, status};

pub const ACKNOWLEDGE: u8 = 1;
/// Longer than any request takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Low memory, and some above 4 GiB.
pub const LOW: usize = 8 << 20;
pub const HIGH: Gpa = Gpa(1 << 32);

pub const AT: Bdf = Bdf {
    bus: 0,
    slot: 3,
    function: 0,
};

/// Which registers the driver uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    Legacy,
    Modern,
}

/// Where the registers are, as the capabilities say.
#[derive(Clone, Copy, Default, Debug)]
pub struct Registers {
    pub common: u64,
    pub notify: u64,
    pub notify_multiplier: u32,
    pub isr: u64,
    /// 0 if there is none.
    pub device: u64,
    pub legacy: u16,
}

pub struct Guest {
    pub version: Version,
    pub memory: GuestMemory,
    pub ports: Arc<PortBus>,
    pub mmio: Arc<MmioMap>,
    pub bus: PciBus,
    pub recorder: Arc<Recorder>,
    pub registers: Registers,
    next_free: AtomicU64,
}

/// The device of that name in `-s`.
pub fn device(name: &str) -> &'static DeviceType {
    registry::find(name).unwrap()
}

/// A device of a test, which lives as long as the test.
pub fn made_by(new: Constructor) -> &'static DeviceType {
    Box::leak(Box::new(DeviceType {
        name: "virtio",
        alias: None,
        options: plain_options,
        new,
    }))
}

impl Guest {
    pub fn new(version: Version, device: &'static DeviceType, config: &str) -> Self {
        Self::try_new(version, device, config, false).unwrap()
    }

    /// `prefer_msi` is -W.
    pub fn try_new(
        version: Version,
        device: &'static DeviceType,
        config: &str,
        prefer_msi: bool,
    ) -> Result<Self, String> {
        let mut tree = Config::default();
        let mut node = tree.node_mut(&AT.node()).unwrap();
        let text = Some(config).filter(|text| !text.is_empty());
        (device.options)(&mut node, text).map_err(|error| error.to_string())?;
        Self::with_tree(version, device, &tree, prefer_msi)
    }

    /// With variables of the device's node instead of what follows its name in `-s`.
    pub fn with_variables(
        version: Version,
        device: &'static DeviceType,
        variables: &[(&str, &str)],
    ) -> Result<Self, String> {
        let mut tree = Config::default();
        for (name, value) in variables {
            tree.set(&format!("{}.{name}", AT.node()), value).unwrap();
        }
        Self::with_tree(version, device, &tree, false)
    }

    fn with_tree(
        version: Version,
        device: &'static DeviceType,
        tree: &Config,
        prefer_msi: bool,
    ) -> Result<Self, String> {
        let recorder = Arc::new(Recorder::default());
        let memory = GuestMemory::anonymous(&[(Gpa(0), LOW), (HIGH, 1 << 20)]).unwrap();
        let surroundings = Surroundings {
            prefer_msi,
            ..Surroundings::of_test(memory.clone(), Gpa(HIGH.0 + (1 << 20)), &recorder)
        };
        let slot = Slot {
            at: AT,
            device,
            config: tree.node(&AT.node()).unwrap(),
        };
        let bus = PciBus::new(&[slot], &surroundings).map_err(|error| error.to_string())?;
        let mut guest = Self {
            version,
            memory,
            ports: surroundings.ports,
            mmio: surroundings.mmio,
            bus,
            recorder,
            registers: Registers::default(),
            next_free: AtomicU64::new(0x10_0000),
        };
        guest.find_registers();
        Ok(guest)
    }

    pub fn config32(&self, register: u16) -> u32 {
        self.bus.read(AT, register, Width::Dword)
    }

    pub fn set_config(&self, register: u16, width: Width, value: u32) {
        self.bus.write(AT, register, width, value);
    }

    /// The capabilities' places in configuration space, with their IDs.
    pub fn capabilities(&self) -> Vec<(u16, u8)> {
        let byte = |register| self.bus.read(AT, register, Width::Byte) as u8;
        let mut found = Vec::new();
        let mut at = u16::from(byte(0x34));
        while at != 0 {
            found.push((at, byte(at)));
            at = u16::from(byte(at + 1));
        }
        found
    }

    /// The place of virtio's capability of that type.
    pub fn virtio_capability(&self, kind: u8) -> Option<u16> {
        self.capabilities()
            .into_iter()
            .find(|(at, id)| *id == 9 && self.bus.read(AT, at + 3, Width::Byte) as u8 == kind)
            .map(|(at, _)| at)
    }

    pub fn bar(&self, index: u16) -> u64 {
        u64::from(self.config32(0x10 + 4 * index) & !0xf)
    }

    fn find_registers(&mut self) {
        let place = |kind| {
            let at = self.virtio_capability(kind)?;
            let bar = self.bus.read(AT, at + 4, Width::Byte) as u16;
            Some((at, self.bar(bar) + u64::from(self.config32(at + 8))))
        };
        let (notify_at, notify) = place(2).unwrap();
        self.registers = Registers {
            common: place(1).unwrap().1,
            notify,
            notify_multiplier: self.config32(notify_at + 16),
            isr: place(3).unwrap().1,
            device: place(4).map_or(0, |(_, at)| at),
            legacy: (self.config32(0x10) & !3) as u16,
        };
    }

    pub fn read(&self, gpa: u64, size: u8) -> u64 {
        self.mmio.read(Gpa(gpa), size).unwrap()
    }

    pub fn write(&self, gpa: u64, size: u8, value: u64) {
        assert!(self.mmio.write(Gpa(gpa), size, value));
    }

    pub fn common(&self, offset: u64, size: u8) -> u64 {
        self.read(self.registers.common + offset, size)
    }

    pub fn set_common(&self, offset: u64, size: u8, value: u64) {
        self.write(self.registers.common + offset, size, value);
    }

    pub fn legacy(&self, offset: u16, width: Width) -> u32 {
        let port = self.registers.legacy + offset;
        self.ports.read(port, width).unwrap()
    }

    pub fn set_legacy(&self, offset: u16, width: Width, value: u32) {
        self.ports
            .write(self.registers.legacy + offset, width, value);
    }

    pub fn status(&self) -> u8 {
        match self.version {
            Version::Legacy => self.legacy(18, Width::Byte) as u8,
            Version::Modern => self.common(20, 1) as u8,
        }
    }

    pub fn set_status(&self, value: u8) {
        match self.version {
            Version::Legacy => self.set_legacy(18, Width::Byte, value.into()),
            Version::Modern => self.set_common(20, 1, value.into()),
        }
    }

    pub fn offered(&self) -> u64 {
        match self.version {
            Version::Legacy => self.legacy(0, Width::Dword).into(),
            Version::Modern => {
                self.set_common(0, 4, 0);
                let low = self.common(4, 4);
                self.set_common(0, 4, 1);
                low | self.common(4, 4) << 32
            }
        }
    }

    pub fn accept(&self, features: u64) {
        match self.version {
            Version::Legacy => self.set_legacy(4, Width::Dword, features as u32),
            Version::Modern => {
                for half in [0, 1] {
                    self.set_common(8, 4, half);
                    self.set_common(12, 4, features >> (32 * half) & 0xffff_ffff);
                }
            }
        }
    }

    /// Reset, features (virtio 1.x by itself), queue 0, DRIVER_OK.
    pub fn start(&self, features: u64) -> Ring {
        let ring = self.start_without_driver_ok(features);
        self.set_status(self.status() | status::DRIVER_OK);
        ring
    }

    /// The same with more queues, from 0 on.
    pub fn start_queues(&self, features: u64, queues: u16) -> Vec<Ring> {
        let mut rings = vec![self.start_without_driver_ok(features)];
        rings.extend((1..queues).map(|number| self.enable_queue_number(number)));
        self.set_status(self.status() | status::DRIVER_OK);
        rings
    }

    pub fn start_without_driver_ok(&self, features: u64) -> Ring {
        self.set_status(0);
        assert_eq!(self.status(), 0);
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | status::DRIVER);
        match self.version {
            Version::Legacy => self.accept(features),
            Version::Modern => {
                self.accept(features | VERSION_1);
                self.set_status(ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
                assert!(self.status() & status::FEATURES_OK != 0);
            }
        }
        self.enable_queue()
    }

    /// Puts queue 0 into fresh memory.
    pub fn enable_queue(&self) -> Ring {
        self.enable_queue_number(0)
    }

    /// Puts a queue into fresh memory, and leaves it selected.
    pub fn enable_queue_number(&self, number: u16) -> Ring {
        let mut ring = self.enable_selected(number);
        ring.number = number;
        ring
    }

    fn enable_selected(&self, number: u16) -> Ring {
        match self.version {
            Version::Legacy => {
                self.set_legacy(14, Width::Word, number.into());
                let size = self.legacy(12, Width::Word) as u16;
                let entries = u64::from(size);
                let before_used = (16 * entries + 6 + 2 * entries).next_multiple_of(4096);
                let descriptors = self.room(before_used + 6 + 8 * entries, 4096).0;
                let used = descriptors + before_used;
                self.set_legacy(8, Width::Dword, (descriptors >> 12) as u32);
                Ring::new(size, descriptors, descriptors + 16 * entries, used)
            }
            Version::Modern => {
                self.set_common(22, 2, number.into());
                let size = self.common(24, 2) as u16;
                let entries = u64::from(size);
                let ring = Ring::new(
                    size,
                    self.room(16 * entries, 16).0,
                    self.room(6 + 2 * entries, 2).0,
                    self.room(6 + 8 * entries, 4).0,
                );
                self.place_queue(&ring);
                self.set_common(28, 2, 1);
                ring
            }
        }
    }

    pub fn place_queue(&self, ring: &Ring) {
        for (at, gpa) in [
            (32, ring.descriptors),
            (40, ring.available),
            (48, ring.used),
        ] {
            self.set_common(at, 8, gpa);
        }
    }

    pub fn notify(&self) {
        self.notify_queue(0);
    }

    pub fn notify_queue(&self, number: u16) {
        match self.version {
            Version::Legacy => self.set_legacy(16, Width::Word, number.into()),
            Version::Modern => {
                let selected = self.common(22, 2);
                self.set_common(22, 2, number.into());
                let offset = self.common(30, 2) * u64::from(self.registers.notify_multiplier);
                self.set_common(22, 2, selected);
                self.write(self.registers.notify + offset, 2, number.into());
            }
        }
    }

    pub fn isr(&self) -> u8 {
        match self.version {
            Version::Legacy => self.legacy(19, Width::Byte) as u8,
            Version::Modern => self.read(self.registers.isr, 1) as u8,
        }
    }

    /// Memory that nobody has used before.
    pub fn room(&self, len: u64, align: u64) -> Gpa {
        let start = self.next_free.load(Relaxed).next_multiple_of(align);
        assert!(start + len <= LOW as u64);
        self.next_free.store(start + len, Relaxed);
        Gpa(start)
    }

    pub fn room_with(&self, bytes: &[u8]) -> Gpa {
        let gpa = self.room(bytes.len() as u64, 1);
        self.memory.copy_to(gpa, bytes).unwrap();
        gpa
    }

    pub fn bytes(&self, gpa: Gpa, len: usize) -> Vec<u8> {
        self.memory.slice(gpa, len).unwrap().to_vec()
    }

    /// Turns MSI-X on and gives each vector a message with its number as data.
    pub fn enable_msix(&self) {
        let (at, _) = *self
            .capabilities()
            .iter()
            .find(|(_, id)| *id == 0x11)
            .unwrap();
        for vector in 0..2 {
            let entry = self.bar(1) + 16 * vector;
            self.write(entry, 8, 0xfee0_0000);
            self.write(entry + 8, 8, vector);
        }
        self.set_config(at + 2, Width::Word, 0x8000);
    }

    /// The data of the messages so far.
    pub fn messages(&self) -> Vec<u32> {
        let messages: Vec<Message> = std::mem::take(&mut *self.recorder.messages.lock().unwrap());
        messages.iter().map(|message| message.data).collect()
    }

    /// Waits until that is so.
    pub fn wait_for(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "no {what}");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until the device has stopped for a mistake of the driver's.
    pub fn wait_for_needs_reset(&self) {
        self.wait_for("NEEDS_RESET", || self.status() & status::NEEDS_RESET != 0);
    }

    pub fn set_queue_vector(&self, vector: u16) -> u16 {
        match self.version {
            Version::Legacy => {
                self.set_legacy(22, Width::Word, vector.into());
                self.legacy(22, Width::Word) as u16
            }
            Version::Modern => {
                self.set_common(26, 2, vector.into());
                self.common(26, 2) as u16
            }
        }
    }
}

/// A piece of a request.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub gpa: Gpa,
    pub len: u32,
    /// The device writes it.
    pub writable: bool,
}

pub fn out(gpa: Gpa, len: u32) -> Part {
    let writable = false;
    Part { gpa, len, writable }
}

pub fn into(gpa: Gpa, len: u32) -> Part {
    let writable = true;
    Part { gpa, len, writable }
}

/// The driver's side of a queue.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Of the queue.
    pub number: u16,
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    pub next_available: u16,
    next_descriptor: u16,
    pub taken: u16,
}

impl Ring {
    pub fn new(size: u16, descriptors: u64, available: u64, used: u64) -> Self {
        assert_ne!(size, 0);
        Self {
            number: 0,
            size,
            descriptors,
            available,
            used,
            next_available: 0,
            next_descriptor: 0,
            taken: 0,
        }
    }

    pub fn set_descriptor(&self, g: &Guest, n: u16, part: Part, flags: u16, next: u16) {
        write_descriptor(g, Gpa(self.descriptors), n, part, flags, next);
    }

    /// Writes a chain and says where it begins.
    pub fn chain(&mut self, g: &Guest, parts: &[Part]) -> u16 {
        let head = self.next_descriptor;
        for (n, part) in parts.iter().enumerate() {
            let at = self.next_descriptor;
            self.next_descriptor = (at + 1) % self.size;
            let more = u16::from(n + 1 < parts.len());
            self.set_descriptor(g, at, *part, more, self.next_descriptor);
        }
        head
    }

    /// Makes a chain available, without a notification.
    pub fn publish(&mut self, g: &Guest, head: u16) {
        let slot = u64::from(self.next_available % self.size);
        g.memory
            .write(Gpa(self.available + 4 + 2 * slot), head)
            .unwrap();
        self.next_available = self.next_available.wrapping_add(1);
        g.memory
            .write(Gpa(self.available + 2), self.next_available)
            .unwrap();
    }

    /// Publishes a chain and notifies.
    pub fn send(&mut self, g: &Guest, parts: &[Part]) -> u16 {
        let head = self.chain(g, parts);
        self.publish(g, head);
        g.notify_queue(self.number);
        head
    }

    pub fn used_index(&self, g: &Guest) -> u16 {
        g.memory.read(Gpa(self.used + 2)).unwrap()
    }

    /// The next chain that the device gives back: head and length.
    pub fn receive(&mut self, g: &Guest) -> (u32, u32) {
        g.wait_for("answer", || self.used_index(g) != self.taken);
        let element = self.used + 4 + 8 * u64::from(self.taken % self.size);
        self.taken = self.taken.wrapping_add(1);
        let word = |at| g.memory.read(Gpa(at)).unwrap();
        (word(element), word(element + 4))
    }

    /// Sends and receives; the length.
    pub fn request(&mut self, g: &Guest, parts: &[Part]) -> u32 {
        let head = self.send(g, parts);
        let (id, len) = self.receive(g);
        assert_eq!(id, u32::from(head));
        len
    }

    /// The driver's wish of when to be interrupted (event index).
    pub fn set_used_event(&self, g: &Guest, index: u16) {
        let at = self.available + 4 + 2 * u64::from(self.size);
        g.memory.write(Gpa(at), index).unwrap();
    }

    /// The device's wish of when to be notified.
    pub fn avail_event(&self, g: &Guest) -> u16 {
        let at = self.used + 4 + 8 * u64::from(self.size);
        g.memory.read(Gpa(at)).unwrap()
    }
}

/// Writes a descriptor of any table; `flags` are added to WRITE.
pub fn write_descriptor(g: &Guest, table: Gpa, n: u16, part: Part, flags: u16, next: u16) {
    let at = table.0 + 16 * u64::from(n);
    let flags = flags | u16::from(part.writable) << 1;
    g.memory.write(Gpa(at), part.gpa.0).unwrap();
    g.memory.write(Gpa(at + 8), part.len).unwrap();
    g.memory.write(Gpa(at + 12), flags).unwrap();
    g.memory.write(Gpa(at + 14), next).unwrap();
}

/// What a vector register reads after none or too high a one.
pub const NONE: u16 = NO_VECTOR;
