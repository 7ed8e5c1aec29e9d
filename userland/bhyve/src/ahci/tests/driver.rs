//! A guest with one AHCI controller, and a driver for it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use vmmapi::{Gpa, GuestMemory};

use crate::ahci::ata::code;
use crate::config::Config;
use crate::mmio::{MmioBus, MmioMap};
use crate::pci::bus::{PciBus, Slot, Surroundings};
use crate::pci::device::Bdf;
use crate::pci::interrupts::tests::Recorder;
use crate::pci::registry;
use crate::ports::Width;

/// Longer than any command takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub const MEMORY: usize = 8 << 20;

pub const AT: Bdf = Bdf {
    bus: 0,
    slot: 3,
    function: 0,
};

/// Where the driver has a port's command list, received FISes and command tables.
pub const LIST: u64 = 0x1_0000;
pub const RFIS: u64 = 0x1_1000;
const TABLES: u64 = 0x2_0000;
const TABLE_LEN: u64 = 0x4000;

/// PxCMD.
pub const ST: u32 = 1;
pub const FRE: u32 = 1 << 4;
pub const CR: u32 = 1 << 15;

/// Status of a command that has ended well, and of one that hasn't.
pub const OK: u32 = 0x50;
pub const FAILED: u32 = 0x41;
pub const ABRT: u32 = 0x04;
pub const IDNF: u32 = 0x10;

/// The registers that a command has in its FIS.
#[derive(Clone, Copy, Default, Debug)]
pub struct Fis {
    pub command: u8,
    pub features: u16,
    pub lba: u64,
    pub device: u8,
    pub count: u16,
    pub auxiliary: u8,
}

impl Fis {
    pub fn new(command: u8, lba: u64, count: u16) -> Self {
        Self {
            command,
            lba,
            count,
            device: 0x40,
            ..Self::default()
        }
    }

    pub fn features(self, features: u16) -> Self {
        Self { features, ..self }
    }

    pub fn bytes(&self) -> [u8; 20] {
        let [l0, l1, l2, l3, l4, l5, ..] = self.lba.to_le_bytes();
        let [f0, f1] = self.features.to_le_bytes();
        let [c0, c1] = self.count.to_le_bytes();
        let mut fis = [0; 20];
        fis[..14].copy_from_slice(&[
            0x27,
            0x80,
            self.command,
            f0,
            l0,
            l1,
            l2,
            self.device,
            l3,
            l4,
            l5,
            f1,
            c0,
            c1,
        ]);
        fis[16] = self.auxiliary;
        fis
    }
}

pub struct Machine {
    pub memory: GuestMemory,
    pub mmio: Arc<MmioMap>,
    pub bus: PciBus,
    pub recorder: Arc<Recorder>,
    abar: u64,
    next_free: AtomicU64,
}

impl Machine {
    /// `ahci-hd,options` or the like.
    pub fn try_new(device: &str, options: &str) -> Result<Self, String> {
        let recorder = Arc::new(Recorder::default());
        let memory = GuestMemory::anonymous(&[(Gpa(0), MEMORY)]).unwrap();
        let surroundings = Surroundings::of_test(memory.clone(), Gpa(1 << 30), &recorder);
        let device = registry::find(device).unwrap();
        let mut tree = Config::default();
        let mut node = tree.node_mut(&AT.node()).unwrap();
        let text = Some(options).filter(|text| !text.is_empty());
        (device.options)(&mut node, text).map_err(|error| error.to_string())?;
        let config = tree.node(&AT.node()).unwrap();
        let slot = Slot {
            at: AT,
            device,
            config,
        };
        let bus = PciBus::new(&[slot], &surroundings).map_err(|error| error.to_string())?;
        let abar = u64::from(bus.read(AT, 0x24, Width::Dword) & !0xf);
        Ok(Self {
            memory,
            mmio: surroundings.mmio,
            bus,
            recorder,
            abar,
            next_free: AtomicU64::new(0x10_0000),
        })
    }

    /// With port 0 started.
    pub fn new(device: &str, options: &str) -> Self {
        let machine = Self::try_new(device, options).unwrap();
        machine.start(0);
        machine
    }

    pub fn read(&self, offset: u64) -> u32 {
        self.mmio.read(Gpa(self.abar + offset), 4).unwrap() as u32
    }

    pub fn write(&self, offset: u64, value: u32) {
        assert!(self.mmio.write(Gpa(self.abar + offset), 4, value.into()));
    }

    pub fn port(&self, port: u64, register: u64) -> u32 {
        self.read(0x100 + 0x80 * port + register)
    }

    pub fn set_port(&self, port: u64, register: u64, value: u32) {
        self.write(0x100 + 0x80 * port + register, value);
    }

    /// Places the areas of a port and lets its command list run. All ports use the same
    /// ones, for tests use one.
    pub fn start(&self, port: u64) {
        self.set_port(port, 0x00, LIST as u32);
        self.set_port(port, 0x04, 0);
        self.set_port(port, 0x08, RFIS as u32);
        self.set_port(port, 0x0c, 0);
        self.set_port(port, 0x18, FRE);
        self.set_port(port, 0x18, FRE | ST);
    }

    /// Stops the command list, and waits until it has stopped.
    pub fn stop(&self, port: u64) {
        self.set_port(port, 0x18, FRE);
        self.wait_for("end of the command list", || {
            self.port(port, 0x18) & CR == 0
        });
    }

    /// After an error.
    pub fn restart(&self) {
        self.stop(0);
        self.set_port(0, 0x10, u32::MAX);
        self.set_port(0, 0x18, FRE | ST);
    }

    pub fn wait_for(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "no {what}");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Memory that nobody has used before.
    pub fn room(&self, len: usize) -> Gpa {
        let start = self.next_free.fetch_add(len as u64, Relaxed);
        assert!(start + len as u64 <= MEMORY as u64);
        Gpa(start)
    }

    pub fn room_with(&self, bytes: &[u8]) -> Gpa {
        let gpa = self.room(bytes.len());
        self.memory.copy_to(gpa, bytes).unwrap();
        gpa
    }

    pub fn bytes(&self, gpa: Gpa, len: usize) -> Vec<u8> {
        self.memory.slice(gpa, len).unwrap().to_vec()
    }

    /// Writes a command of port 0 into its slot.
    pub fn prepare(&self, slot: u8, fis: &[u8; 20], packet: &[u8], data: &[(Gpa, usize)]) {
        let table = TABLES + TABLE_LEN * u64::from(slot);
        let header = LIST + 32 * u64::from(slot);
        let flags = 5 | (data.len() as u32) << 16;
        self.memory.write(Gpa(header), flags).unwrap();
        self.memory.write(Gpa(header + 4), 0_u32).unwrap();
        self.memory.write(Gpa(header + 8), table).unwrap();
        self.memory.copy_to(Gpa(table), fis).unwrap();
        self.memory.copy_to(Gpa(table + 0x40), packet).unwrap();
        for (n, (gpa, len)) in data.iter().enumerate() {
            let entry = table + 0x80 + 16 * n as u64;
            self.memory.write(Gpa(entry), gpa.0).unwrap();
            self.memory.write(Gpa(entry + 12), *len as u32 - 1).unwrap();
        }
    }

    /// How many bytes a slot's command has transferred.
    pub fn transferred(&self, slot: u8) -> u32 {
        let header = LIST + 32 * u64::from(slot);
        self.memory.read(Gpa(header + 4)).unwrap()
    }

    pub fn issue(&self, slot: u8, queued: bool) {
        if queued {
            self.set_port(0, 0x34, 1 << slot);
        }
        self.set_port(0, 0x38, 1 << slot);
    }

    /// Waits until slots of port 0 are done, or an error has stopped it.
    pub fn finish(&self, slots: u32) -> u32 {
        self.wait_for("end of a command", || {
            let failed = self.port(0, 0x10) & 0x7800_0000 != 0;
            failed || (self.port(0, 0x38) | self.port(0, 0x34)) & slots == 0
        });
        self.port(0, 0x20)
    }

    /// A command in slot 0: the task file behind it, status in the lowest byte. A port that
    /// it has stopped is started again.
    pub fn command(&self, fis: Fis, data: &[(Gpa, usize)]) -> u32 {
        self.packet(fis, &[], data)
    }

    pub fn packet(&self, fis: Fis, packet: &[u8], data: &[(Gpa, usize)]) -> u32 {
        self.prepare(0, &fis.bytes(), packet, data);
        self.issue(0, false);
        let tfd = self.finish(1);
        if self.port(0, 0x10) & 0x7800_0000 != 0 {
            self.restart();
        }
        tfd
    }

    pub fn read_sectors(&self, fis: Fis, len: usize) -> (u32, Vec<u8>) {
        let at = self.room(len);
        let tfd = self.command(fis, &[(at, len)]);
        (tfd, self.bytes(at, len))
    }

    pub fn write_sectors(&self, fis: Fis, bytes: &[u8]) -> u32 {
        let at = self.room_with(bytes);
        self.command(fis, &[(at, bytes.len())])
    }

    pub fn identify(&self, command: u8) -> Vec<u16> {
        let (tfd, bytes) = self.read_sectors(Fis::new(command, 0, 0), 512);
        assert_eq!(tfd, OK);
        let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0, "checksum");
        let words = bytes.chunks(2);
        words
            .map(|word| u16::from_le_bytes([word[0], word[1]]))
            .collect()
    }

    /// A SCSI command of a CD drive: the bytes that come back.
    pub fn scsi(&self, packet: &[u8], len: usize) -> Result<Vec<u8>, (u8, u8, u8)> {
        let at = self.room(len.max(2));
        let fis = Fis::new(code::PACKET, 0, 0).features(1);
        let tfd = self.packet(fis, packet, &[(at, len.max(2))]);
        if tfd & 1 == 0 {
            assert_eq!(tfd, OK);
            return Ok(self.bytes(at, self.transferred(0) as usize));
        }
        let sense = self.scsi(&[3, 0, 0, 0, 18, 0], 18).unwrap();
        assert_eq!((tfd >> 12) as u8, sense[2], "sense key");
        Err((sense[2], sense[12], sense[13]))
    }

    /// The text of some words of an identification.
    pub fn text(words: &[u16]) -> String {
        let bytes = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        String::from_utf8(bytes).unwrap()
    }

    /// The level of the controller's interrupt pin, as the router's changes leave it.
    pub fn pin(&self) -> bool {
        let isa = self.recorder.isa.lock().unwrap();
        let ioapic = self.recorder.ioapic.lock().unwrap();
        let last = isa.last().map(|(_, _, level)| *level);
        last.or(ioapic.last().map(|(_, level)| *level)) == Some(true)
    }

    /// Turns MSI on with 2^`log2` messages, whose data is their number.
    pub fn enable_msi(&self, log2: u32) {
        let capability = self.bus.read(AT, 0x34, Width::Byte) as u16;
        let set = |offset, width, value| self.bus.write(AT, capability + offset, width, value);
        set(4, Width::Dword, 0xfee0_0000);
        set(12, Width::Word, 0);
        set(2, Width::Word, 1 | log2 << 4);
    }

    /// The messages that were sent since the last call.
    pub fn messages(&self) -> Vec<u32> {
        let mut messages = self.recorder.messages.lock().unwrap();
        messages.drain(..).map(|message| message.data).collect()
    }
}
