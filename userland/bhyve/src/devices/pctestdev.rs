//! `pc-testdev`: what test suites of hypervisors (kvm-unit-tests) use to end, to raise
//! interrupt lines and to have ports and memory that are a device's, all as QEMU and bhyve
//! have it: the debug exit port, 32 bits of ports, one port for each interrupt line, and
//! 64 KiB of registers in memory that keep what is written.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vmmapi::Gpa;

use crate::mmio::{MmioDevice, MmioError, MmioMap};
use crate::pci::InterruptController;
use crate::ports::{PortBus, PortDevice, RegisterError, Width};

/// Its name in `-l`, and of its variable beneath `lpc`.
pub const NAME: &str = "pc-testdev";

const DEBUG_EXIT: u16 = 0xf4;
const DEBUG_EXIT_LEN: u16 = 4;
const DATA: u16 = 0xe0;
const DATA_LEN: u16 = 4;
const IRQ: u16 = 0x2000;
/// Behind the last port: an I/O APIC has fewer than 256 pins.
pub const END: u16 = IRQ + 0x100;
const MEMORY: Gpa = Gpa(0xff00_0000);
const MEMORY_LEN: usize = 0x1_0000;

/// The interrupts of the ISA bus; higher numbers are the I/O APIC's alone.
const ISA_IRQS: u8 = 16;

/// Ends bhyve with that exit code.
pub type Exit = Box<dyn Fn(u8) + Send + Sync>;

/// Why it can't be there.
#[derive(Debug)]
pub enum TestdevError {
    Ports(RegisterError),
    Memory(MmioError),
}

impl fmt::Display for TestdevError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(error) => write!(f, "{NAME}: {error}"),
            Self::Memory(error) => write!(f, "{NAME}: {error}"),
        }
    }
}

/// Puts all parts on their buses. `pins` is how many the I/O APIC has.
pub fn register(
    ports: &PortBus,
    mmio: &MmioMap,
    controller: Arc<dyn InterruptController>,
    pins: u8,
    exit: Exit,
) -> Result<(), TestdevError> {
    let debug_exit = Arc::new(DebugExit(exit));
    let data = Arc::new(Data::default());
    let lines = Arc::new(Lines(controller));
    let ranges: [(&str, u16, u16, Arc<dyn PortDevice>); 3] = [
        ("isa-debug-exit", DEBUG_EXIT, DEBUG_EXIT_LEN, debug_exit),
        ("pc-testdev-ioport", DATA, DATA_LEN, data),
        ("pc-testdev-irq-line", IRQ, u16::from(pins), lines),
    ];
    for (name, first, len, device) in ranges {
        ports
            .register(name, first, len, device)
            .map_err(TestdevError::Ports)?;
    }
    let memory = Arc::new(Memory(Mutex::new(vec![0; MEMORY_LEN])));
    mmio.register("pc-testdev-iomem", MEMORY, MEMORY_LEN as u64, memory)
        .map_err(TestdevError::Memory)
}

struct DebugExit(Exit);

impl PortDevice for DebugExit {
    fn widest(&self) -> Width {
        Width::Dword
    }

    fn read(&self, _offset: u16, _width: Width) -> u32 {
        0
    }

    /// The exit code is odd, so that it can't be mistaken for success.
    fn write(&self, _offset: u16, _width: Width, value: u32) {
        (self.0)((value << 1 | 1) as u8);
    }
}

#[derive(Default)]
struct Data(AtomicU32);

impl Data {
    /// The bits of an access; it is within the four ports.
    fn bits(offset: u16, width: Width) -> (u32, u32) {
        let shift = 8 * (u32::from(offset) & 3);
        (shift, width.mask() << shift)
    }
}

impl PortDevice for Data {
    fn widest(&self) -> Width {
        Width::Dword
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        let (shift, mask) = Self::bits(offset, width);
        (self.0.load(Ordering::Relaxed) & mask) >> shift
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        let (shift, mask) = Self::bits(offset, width);
        let write = |old| Some(old & !mask | value << shift & mask);
        // It always has a new value.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, write);
    }
}

/// Port n is interrupt line n: it is asserted as long as the last byte written isn't 0.
struct Lines(Arc<dyn InterruptController>);

impl PortDevice for Lines {
    fn read(&self, _offset: u16, _width: Width) -> u32 {
        0
    }

    fn write(&self, offset: u16, _width: Width, value: u32) {
        // An I/O APIC has fewer than 256 pins.
        let line = offset as u8;
        if line < ISA_IRQS {
            self.0.isa(line, Some(line), value != 0);
        } else {
            self.0.ioapic(line, value != 0);
        }
    }
}

struct Memory(Mutex<Vec<u8>>);

impl MmioDevice for Memory {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = offset as usize;
        let bytes = memory.get(start..start + usize::from(size));
        let mut value = [0; 8];
        for (to, from) in value.iter_mut().zip(bytes.into_iter().flatten()) {
            *to = *from;
        }
        u64::from_le_bytes(value)
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = offset as usize;
        let bytes = memory.get_mut(start..start + usize::from(size));
        for (to, from) in bytes.into_iter().flatten().zip(value.to_le_bytes()) {
            *to = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mmio::MmioBus;
    use crate::pci::interrupts::tests::Recorder;

    struct Machine {
        ports: PortBus,
        mmio: MmioMap,
        recorder: Arc<Recorder>,
        exits: Arc<Mutex<Vec<u8>>>,
    }

    fn machine() -> Machine {
        let (ports, mmio) = (PortBus::default(), MmioMap::default());
        let recorder = Arc::new(Recorder::default());
        let exits = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&exits);
        let exit = Box::new(move |code| log.lock().unwrap().push(code));
        register(&ports, &mmio, recorder.clone(), 32, exit).unwrap();
        Machine {
            ports,
            mmio,
            recorder,
            exits,
        }
    }

    #[test]
    fn the_debug_exit_ends_with_an_odd_code() {
        let m = machine();
        m.ports.write(0xf4, Width::Dword, 0);
        m.ports.write(0xf4, Width::Byte, 0x10);
        m.ports.write(0xf4, Width::Dword, 0x1_0003);
        assert_eq!(*m.exits.lock().unwrap(), [1, 0x21, 7]);
    }

    #[test]
    fn ports_and_memory_keep_what_is_written() {
        let m = machine();
        m.ports.write(0xe0, Width::Dword, 0x1234_5678);
        m.ports.write(0xe1, Width::Word, 0xabcd);
        assert_eq!(m.ports.read(0xe0, Width::Dword), Some(0x12ab_cd78));
        assert_eq!(m.ports.read(0xe3, Width::Byte), Some(0x12));
        assert!(m.mmio.write(Gpa(0xff00_fff8), 8, 0x0102_0304_0506_0708));
        assert!(m.mmio.write(Gpa(0xff00_fffa), 2, 0xffff));
        assert_eq!(
            m.mmio.read(Gpa(0xff00_fff8), 8),
            Some(0x0102_0304_ffff_0708)
        );
        assert_eq!(m.mmio.read(Gpa(0xff01_0000), 1), None);
    }

    #[test]
    fn each_port_is_an_interrupt_line() {
        let m = machine();
        m.ports.write(0x2003, Width::Byte, 1);
        m.ports.write(0x2003, Width::Byte, 0);
        m.ports.write(0x2012, Width::Byte, 1);
        assert_eq!(
            *m.recorder.isa.lock().unwrap(),
            [(3, Some(3), true), (3, Some(3), false)]
        );
        assert_eq!(*m.recorder.ioapic.lock().unwrap(), [(0x12, true)]);
    }

    proptest! {
        #[test]
        fn whatever_is_written_ports_and_memory_answer(
            writes in proptest::collection::vec((0u32..4, any::<u16>(), 0u8..3, any::<u64>()), 0..50)
        ) {
            let m = machine();
            for (what, at, width, value) in writes {
                let width = [Width::Byte, Width::Word, Width::Dword][usize::from(width)];
                let port = [DATA, IRQ, DEBUG_EXIT][what as usize % 3] + at % 32;
                if what == 3 {
                    let size = width.bytes() as u8 * 2;
                    let gpa = Gpa(MEMORY.0 + u64::from(at));
                    let inside = u64::from(at) + u64::from(size) <= MEMORY_LEN as u64;
                    let value = value & (u64::MAX >> (64 - 8 * u32::from(size)));
                    m.mmio.write(gpa, size, value);
                    if inside {
                        prop_assert_eq!(m.mmio.read(gpa, size), Some(value));
                    }
                } else {
                    m.ports.write(port, width, value as u32 & width.mask());
                    m.ports.read(port, width);
                }
            }
            prop_assert!(m.exits.lock().unwrap().iter().all(|code| code & 1 == 1));
        }
    }
}
