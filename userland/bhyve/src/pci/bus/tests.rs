//! Tests of a whole bus, through the ports and the ECAM as a guest uses it.

use std::sync::Mutex;

use proptest::prelude::*;
use vmmapi::SuspendHow;

use super::super::access::{ConfigPorts, ECAM_BASE, ECAM_SIZE, Ecam, PORT, PORTS};
use super::super::bar::{BarKind, BarSpec};
use super::super::device::{FunctionSpec, Header, MsixSpec, PciDevice, plain_options};
use super::super::interrupts::Message;
use super::super::interrupts::tests::Recorder;
use super::super::{hostbridge, lpc};
use super::*;
use crate::config::Config;
use crate::mmio::MmioBus;

/// A device with one BAR of each kind, MSI-X, MSI and a pin. Reads give the BAR and the
/// offset; a write to BAR 0 interrupts by the vector or level written.
struct Probe(DeviceContext);

impl PciDevice for Probe {
    fn spec(&self) -> FunctionSpec {
        let bar = |index, kind, size| BarSpec { index, kind, size };
        FunctionSpec {
            header: Header {
                vendor: 0x1af4,
                device: 0x1042,
                ..Header::default()
            },
            bars: vec![
                bar(0, BarKind::Io, 32),
                bar(2, BarKind::Memory32, 0x1000),
                bar(4, BarKind::Memory64, 0x4000),
            ],
            msi: Some(1),
            msix: Some(MsixSpec { bar: 1, vectors: 4 }),
            intx: true,
            capabilities: Vec::new(),
        }
    }

    fn bar_read(&self, bar: usize, offset: u64, _width: Width) -> u32 {
        (bar as u32) << 24 | offset as u32
    }

    fn bar_write(&self, _bar: usize, offset: u64, _width: Width, value: u32) {
        match offset {
            0 if value != 0 => self.0.interrupts.assert_intx(),
            0 => self.0.interrupts.deassert_intx(),
            1 => self.0.interrupts.send_msi(value as u8),
            _ => self.0.interrupts.send_msix(value as u16),
        }
    }
}

fn new_probe(_: &View<'_>, context: DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError> {
    Ok(Arc::new(Probe(context)))
}

static PROBE: DeviceType = DeviceType {
    name: "probe",
    alias: None,
    options: plain_options,
    new: new_probe,
};
static BRIDGE: DeviceType = DeviceType {
    name: "hostbridge",
    alias: None,
    options: plain_options,
    new: hostbridge::new,
};
static LPC: DeviceType = DeviceType {
    name: lpc::NAME,
    alias: None,
    options: plain_options,
    new: lpc::new,
};

struct Machine {
    ports: Arc<PortBus>,
    mmio: Arc<MmioMap>,
    bus: Arc<PciBus>,
    recorder: Arc<Recorder>,
    asked: Arc<Mutex<Vec<SuspendHow>>>,
}

fn place(slot: u8, function: u8) -> Bdf {
    Bdf {
        bus: 0,
        slot,
        function,
    }
}

fn build(devices: &[(Bdf, &'static DeviceType, &'static str)]) -> Result<Machine, PciError> {
    let recorder = Arc::new(Recorder::default());
    let surroundings = Surroundings::of_test(GuestMemory::default(), Gpa(1 << 30), &recorder);
    let mut tree = Config::default();
    for (at, device, options) in devices {
        let mut node = tree.node_mut(&at.node()).unwrap();
        (device.options)(&mut node, Some(options)).unwrap();
    }
    let slots: Vec<Slot<'_>> = devices
        .iter()
        .map(|(at, device, _)| Slot {
            at: *at,
            device,
            config: tree.node(&at.node()).unwrap(),
        })
        .collect();
    let bus = Arc::new(PciBus::new(&slots, &surroundings)?);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let suspend: crate::devices::Suspend = Arc::new(move |how| log.lock().unwrap().push(how));
    let Surroundings { ports, mmio, .. } = surroundings;
    let config_ports = Arc::new(ConfigPorts::new(Arc::clone(&bus), suspend));
    ports.register("PCI", PORT, PORTS, config_ports).unwrap();
    let ecam = Arc::new(Ecam(Arc::clone(&bus)));
    mmio.register("ECAM", ECAM_BASE, ECAM_SIZE, ecam).unwrap();
    Ok(Machine {
        ports,
        mmio,
        bus,
        recorder,
        asked,
    })
}

fn machine() -> Machine {
    let devices = [
        (place(31, 0), &LPC, ""),
        (place(0, 0), &BRIDGE, ""),
        (place(3, 0), &PROBE, ""),
        (place(4, 0), &PROBE, ""),
        (place(4, 1), &PROBE, ""),
    ];
    build(&devices).unwrap()
}

impl Machine {
    fn select(&self, slot: u32, register: u32) {
        let address = 1 << 31 | slot << 11 | register & !3;
        self.ports.write(0xcf8, Width::Dword, address);
    }

    fn config(&self, slot: u32, register: u32) -> u32 {
        self.select(slot, register);
        self.ports.read(0xcfc, Width::Dword).unwrap()
    }

    fn set_config(&self, slot: u32, register: u32, width: Width, value: u32) {
        self.select(slot, register);
        let port = 0xcfc + (register & 3) as u16;
        self.ports.write(port, width, value);
    }

    fn bar(&self, slot: u32, index: u32) -> u64 {
        u64::from(self.config(slot, 0x10 + 4 * index) & !0xf)
    }

    fn messages(&self) -> Vec<Message> {
        std::mem::take(&mut *self.recorder.messages.lock().unwrap())
    }
}

#[test]
fn functions_are_found_and_empty_slots_are_all_ones() {
    let m = machine();
    assert_eq!(m.config(0, 0), 0x1275_1275);
    assert_eq!(m.config(0, 8) >> 16, 0x0600);
    assert_eq!(m.config(31, 0), 0x7000_8086);
    assert_eq!(m.config(31, 8) >> 16, 0x0601);
    assert_eq!(m.config(5, 0), u32::MAX);
    assert_eq!(m.ports.read(0xcfe, Width::Word), Some(0xffff));
    m.ports.write(0xcf8, Width::Dword, 0);
    assert_eq!(
        m.ports.read(0xcfc, Width::Dword),
        Some(u32::MAX),
        "not enabled"
    );
    m.ports.write(0xcf8, Width::Dword, 1 << 31 | 1 << 16);
    assert_eq!(m.ports.read(0xcfc, Width::Dword), Some(u32::MAX), "bus 1");
}

#[test]
fn only_slots_with_several_functions_say_so() {
    let m = machine();
    let header_type = |slot| m.config(slot, 0x0c) >> 16 & 0xff;
    assert_eq!(
        [header_type(3), header_type(4), header_type(31)],
        [0, 0x80, 0]
    );
    assert_eq!(m.bus.read(place(4, 1), 0x0e, Width::Byte), 0x80);
}

#[test]
fn all_widths_and_both_mechanisms_see_the_same() {
    let m = machine();
    m.select(0, 0);
    assert_eq!(m.ports.read(0xcfd, Width::Byte), Some(0x12));
    assert_eq!(m.ports.read(0xcfe, Width::Word), Some(0x1275));
    assert_eq!(m.ports.read(0xcfd, Width::Word), Some(0x7512), "unaligned");
    let at = |slot: u64, register: u64| Gpa(ECAM_BASE.0 | slot << 15 | register);
    assert_eq!(m.mmio.read(at(0, 0), 4), Some(0x1275_1275));
    assert_eq!(m.mmio.read(at(31, 1), 2), Some(0x0080));
    assert_eq!(
        m.mmio.read(at(0, 0x100), 4),
        Some(0),
        "no extended capability"
    );
    assert_eq!(m.mmio.read(at(0, 0x104), 4), Some(0xffff_ffff));
    assert_eq!(m.mmio.read(at(9, 0), 8), Some(u64::MAX));
    m.mmio.write(at(0, 0x3c), 1, 0x1109);
    assert_eq!(m.config(0, 0x3c) & 0xffff, 0x0009);
}

#[test]
fn bars_are_placed_and_decoded_at_start() {
    let m = machine();
    assert_eq!(m.config(3, 0x10), 0x2001);
    assert_eq!(m.ports.read(0x2004, Width::Dword), Some(4));
    let (memory, wide) = (m.bar(3, 2), m.bar(3, 4));
    assert_eq!(m.mmio.read(Gpa(memory + 0x10), 4), Some(0x0200_0010));
    assert_eq!(m.config(3, 0x20) & 0xf, 4, "64 bits");
    assert_eq!(m.mmio.read(Gpa(wide + 8), 8), Some(0x0400_000c_0400_0008));
    assert_eq!(m.config(3, 4) & 7, 7);
    let [root] = m.bus.buses() else {
        panic!("one bus");
    };
    assert!(root.windows.memory32.contains(&memory) && root.windows.io.contains(&0x2040));
}

#[test]
fn the_guest_sizes_moves_and_disables_a_bar() {
    let m = machine();
    m.set_config(3, 4, Width::Word, 6);
    assert_eq!(m.ports.read(0x2000, Width::Byte), None, "I/O is off");
    m.set_config(3, 0x10, Width::Dword, u32::MAX);
    assert_eq!(m.config(3, 0x10), 0xffff_ffe1);
    m.set_config(3, 0x10, Width::Dword, 0x3000);
    assert_eq!(m.ports.read(0x3000, Width::Byte), None);
    m.set_config(3, 4, Width::Word, 7);
    assert_eq!(m.ports.read(0x3004, Width::Dword), Some(4));
    let old = m.bar(3, 4);
    m.set_config(3, 0x24, Width::Dword, 9);
    assert_eq!(m.mmio.read(Gpa(old), 4), None);
    assert_eq!(m.mmio.read(Gpa(9 << 32 | old), 4), Some(0x0400_0000));
}

#[test]
fn interrupts_take_the_way_the_guest_chose() {
    let m = machine();
    let kick = |offset: u16, value| m.ports.write(0x2000 + offset, Width::Byte, value);
    kick(0, 1);
    let wire = m.bus.intx_wires()[0];
    assert_eq!((wire.slot, wire.pin), (3, 0));
    let irq = (m.config(3, 0x3c) & 0xff) as u8;
    assert_eq!(m.config(3, 0x3c) >> 8, 1, "INTA#");
    assert_eq!(
        *m.recorder.isa.lock().unwrap(),
        [(irq, wire.route.ioapic_pin, true)]
    );
    assert_eq!(m.config(3, 4) >> 16 & 8, 8, "interrupt status");
    // MSI-X is capability 0x40: a double word write that covers ID and message control.
    m.set_config(3, 0x40, Width::Dword, 1 << 31);
    assert_eq!(m.recorder.isa.lock().unwrap().len(), 2, "the pin fell");
    kick(2, 3);
    assert!(m.messages().is_empty(), "vector 3 is masked");
    let table = m.bar(3, 1);
    m.mmio.write(Gpa(table + 3 * 16), 8, 0xfee0_1000);
    m.mmio.write(Gpa(table + 3 * 16 + 8), 4, 0x55);
    assert_eq!(m.mmio.read(Gpa(table + 0x1000), 8), Some(1 << 3));
    m.mmio.write(Gpa(table + 3 * 16 + 12), 4, 0);
    let message = |data| Message {
        address: 0xfee0_1000,
        data,
    };
    assert_eq!(m.messages(), [message(0x55)]);
    m.set_config(3, 0x42, Width::Word, 0);
    m.set_config(3, 0x50, Width::Dword, 0xfee0_1000);
    m.set_config(3, 0x58, Width::Word, 0x66);
    m.set_config(3, 0x4e, Width::Word, 1);
    kick(1, 0);
    assert_eq!(m.messages(), [message(0x66)]);
}

#[test]
fn pins_of_a_slot_are_shared_out_and_wired_in_order() {
    let m = machine();
    let wires: Vec<_> = m.bus.intx_wires().iter().map(|w| (w.slot, w.pin)).collect();
    assert_eq!(wires, [(3, 0), (4, 0), (4, 1)]);
    let pins = m.bus.intx_wires().iter().map(|w| w.route.ioapic_pin);
    assert_eq!(pins.collect::<Vec<_>>(), [Some(16), Some(17), Some(18)]);
    assert_eq!(m.bus.read(place(4, 1), 0x3d, Width::Byte), 2);
    assert_eq!(m.bus.read(place(31, 0), 0x3d, Width::Byte), 0);
}

#[test]
fn the_routers_registers_are_in_the_lpc_bridge() {
    let m = machine();
    let routed = m.config(3, 0x3c) & 0xff;
    assert_eq!(m.config(31, 0x60) & 0xff, routed);
    assert_eq!(m.config(31, 0x68), 0x8080_8080, "nothing uses PIRQE to H");
    m.ports.write(0x2000, Width::Byte, 1);
    m.set_config(31, 0x60, Width::Byte, 0x7b);
    assert_eq!(m.config(31, 0x60) & 0xff, 0x0b);
    assert_eq!(
        m.recorder.isa.lock().unwrap().last(),
        Some(&(11, None, true))
    );
    m.set_config(31, 0x70, Width::Dword, u32::MAX);
    assert_eq!(m.config(31, 0x70), 0);
}

#[test]
fn reset_control_lies_within_the_address_register() {
    let m = machine();
    m.select(31, 0);
    m.ports.write(0xcf9, Width::Byte, 2);
    assert!(m.asked.lock().unwrap().is_empty());
    assert_eq!(m.ports.read(0xcf9, Width::Byte), Some(2));
    let address = Some(1 << 31 | 31 << 11);
    assert_eq!(m.ports.read(0xcf8, Width::Dword), address, "untouched");
    m.ports.write(0xcf9, Width::Byte, 6);
    assert_eq!(*m.asked.lock().unwrap(), [SuspendHow::Reset]);
}

#[test]
fn mistakes_of_the_command_line_are_named() {
    let refusal = |devices: &[_]| match build(devices) {
        Ok(_) => panic!("it was built"),
        Err(error) => error.to_string(),
    };
    assert_eq!(
        refusal(&[(place(3, 0), &PROBE, "x=1")]),
        "probe@pci.0.3.0: unknown option pci.0.3.0.x"
    );
    assert_eq!(
        refusal(&[(place(3, 0), &PROBE, ""), (place(3, 0), &BRIDGE, "")]),
        "pci slot 0:3:0 already occupied!"
    );
    let bus1 = Bdf {
        bus: 1,
        ..place(31, 0)
    };
    assert_eq!(
        refusal(&[(bus1, &LPC, "")]),
        "lpc@pci.1.31.0: the LPC bridge can be on bus 0 only"
    );
    assert!(refusal(&[(place(0, 0), &BRIDGE, "vendor=x")]).contains("vendor=x"));
    let m = build(&[(place(0, 0), &BRIDGE, "vendor=0x8086,devid=4663")]).unwrap();
    assert_eq!(m.config(0, 0), 0x1237_8086);
}

proptest! {
    /// Whatever is written anywhere, every access is answered, and afterwards the functions
    /// are still there.
    #[test]
    fn any_sequence_of_accesses_is_answered(
        ops in proptest::collection::vec(
            (0u8..4, any::<u32>(), any::<u64>(), 0usize..3, any::<u16>()),
            0..120,
        ),
    ) {
        let m = machine();
        for (kind, address, value, width, near) in ops {
            let width = [Width::Byte, Width::Word, Width::Dword][width];
            let slot = [0, 3, 4, 31][near as usize % 4];
            match kind {
                0 => {
                    m.ports.write(0xcf8, Width::Dword, 1 << 31 | slot << 11 | address & 0x7ff);
                    m.ports.write(0xcfc + near % 5, width, value as u32);
                    let port = 0xcf8 + near % 9;
                    prop_assert!(m.ports.read(port, width).is_none_or(|v| v <= width.mask()));
                }
                1 => {
                    let gpa = ECAM_BASE.0 | u64::from(slot) << 15 | u64::from(address & 0x1fff);
                    m.mmio.write(Gpa(gpa), 8, value);
                    prop_assert!(m.mmio.read(Gpa(gpa), 4).is_some());
                }
                2 => {
                    let gpa = 0xc000_0000 + u64::from(address % 0x1_0000);
                    m.mmio.write(Gpa(gpa), (near % 9) as u8, value);
                    m.mmio.read(Gpa(gpa), (near % 9) as u8);
                }
                _ => {
                    let port = 0x2000 + near % 0x100;
                    m.ports.write(port, width, value as u32);
                    m.ports.read(port, width);
                }
            }
        }
        prop_assert_eq!(m.config(0, 0), 0x1275_1275);
        prop_assert_eq!(m.config(3, 0), 0x1042_1af4);
    }
}
