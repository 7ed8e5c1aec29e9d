//! A guest that does anything with the ports of the board: serial port, keyboard controller,
//! power management, POST codes, fw_cfg and the test device.
#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use bhyve::backend::Backend;
use bhyve::devices::fwcfg::{self, FwCfg, Item};
use bhyve::devices::serial::SerialPort;
use bhyve::devices::{Suspend, kbdc, pctestdev, pm, post};
use bhyve::mmio::{MmioBus, MmioMap};
use bhyve::ports::{PortBus, Width};
use libfuzzer_sys::fuzz_target;
use vmm_fuzz::machine::Controller;
use vmmapi::Gpa;

#[derive(Arbitrary, Debug)]
struct Access {
    device: u8,
    offset: u16,
    width: u8,
    write: Option<u32>,
}

/// The first port of each.
const PORTS: [u16; 8] = [0x3f8, 0x64, 0x84, 0x400, 0x404, 0xb2, 0x510, 0xe0];

fuzz_target!(|accesses: Vec<Access>| {
    let (ports, mmio) = (PortBus::default(), MmioMap::default());
    let suspend: Suspend = Arc::new(|_| ());
    let keyboard = Arc::new(kbdc::KeyboardController {
        suspend: Arc::clone(&suspend),
    });
    ports.register("keyboard", kbdc::PORT, 1, keyboard).unwrap();
    ports
        .register("POST", post::PORT, 1, Arc::new(post::Post))
        .unwrap();
    pm::register(&ports, suspend, Box::new(|_| ())).unwrap();
    let nobody = Backend::open_or_nobody(None).unwrap();
    let serial = Arc::new(SerialPort::new(nobody, Box::new(|_| ())));
    ports.register("com1", PORTS[0], 8, serial).unwrap();
    let item = Item::parse("opt/a,string=text").unwrap();
    let device = Arc::new(FwCfg::new(2, vec![item]).unwrap());
    ports
        .register("fw_cfg", fwcfg::PORT, fwcfg::PORTS, device)
        .unwrap();
    let controller = Arc::new(Controller::default());
    pctestdev::register(&ports, &mmio, controller, 32, Box::new(|_| ())).unwrap();
    for Access {
        device,
        offset,
        width,
        write,
    } in accesses
    {
        let width = match width % 3 {
            0 => Width::Byte,
            1 => Width::Word,
            _ => Width::Dword,
        };
        let gpa = Gpa(0xff00_0000 + u64::from(offset));
        let first = match device % 10 {
            8 => 0x2000,
            9 => {
                let size = width.bytes() as u8;
                match write {
                    Some(value) => drop(mmio.write(gpa, size, (value & width.mask()).into())),
                    None => drop(mmio.read(gpa, size)),
                }
                continue;
            }
            n => PORTS[usize::from(n)],
        };
        let port = first + offset % 32;
        match write {
            Some(value) => drop(ports.write(port, width, value & width.mask())),
            None => drop(ports.read(port, width)),
        }
    }
});
