//! `uart`: a serial port as a PCI function, with the identity of a card that most systems
//! have a driver for (Siig CyberSerial), as in bhyve. The registers of the [`Uart`] are in
//! BAR 0; its interrupt is the function's pin.
//!
//! [`Uart`]: crate::devices::uart::Uart

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::bar::{BarKind, BarSpec};
use super::device::{DeviceContext, DeviceError, FunctionSpec, Header, PciDevice};
use crate::backend::Backend;
use crate::config::{NodeMut, View};
use crate::devices::serial::{self, PORTS, SerialPort};
use crate::ports::{PortDevice, Width};

const VENDOR: u16 = 0x131f;
const DEVICE: u16 = 0x2000;
const CLASS_COMMUNICATION: u8 = 7;
const BAR: usize = 0;

struct PciUart(Arc<SerialPort>);

/// `uart[,backend]`.
pub fn options(node: &mut NodeMut<'_>, text: Option<&str>) -> Result<(), DeviceError> {
    if let Some(backend) = text {
        node.set("path", backend)?;
    }
    Ok(())
}

/// With its receiver running. One without a backend talks to nobody.
pub fn new(config: &View<'_>, context: DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError> {
    let backend = Backend::open_or_nobody(config.get("path").as_deref())?;
    let interrupts = context.interrupts;
    let line = Box::new(move |asserted| {
        if asserted {
            interrupts.assert_intx();
        } else {
            interrupts.deassert_intx();
        }
    });
    let port = serial::start(&context.name, backend, line)
        .map_err(|error| format!("a thread can't be started: {error}"))?;
    Ok(Arc::new(PciUart(port)))
}

impl PciDevice for PciUart {
    fn spec(&self) -> FunctionSpec {
        FunctionSpec {
            header: Header {
                vendor: VENDOR,
                device: DEVICE,
                class: CLASS_COMMUNICATION,
                ..Header::default()
            },
            bars: vec![BarSpec {
                index: BAR,
                kind: BarKind::Io,
                size: u64::from(PORTS),
            }],
            intx: true,
            ..FunctionSpec::default()
        }
    }

    fn bar_read(&self, _bar: usize, offset: u64, width: Width) -> u32 {
        registers(offset, width).fold(0, |value, (n, register)| {
            value | self.0.read(register, Width::Byte) << (8 * n)
        })
    }

    fn bar_write(&self, _bar: usize, offset: u64, width: Width, value: u32) {
        for (n, register) in registers(offset, width) {
            self.0.write(register, Width::Byte, value >> (8 * n) & 0xff);
        }
    }
}

/// The registers of an access, each a byte, the lowest first.
fn registers(offset: u64, width: Width) -> impl Iterator<Item = (u16, u16)> {
    // Within the BAR.
    (0..width.bytes()).map(move |n| (n, offset as u16 + n))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::*;

    const LSR: u64 = 5;
    const SCRATCH: u64 = 7;

    fn pair() -> (PciUart, UnixStream) {
        let (guest, host) = UnixStream::pair().unwrap();
        let backend = Backend::of_stream("test", guest.into());
        let port = serial::start("test", backend, Box::new(|_| ())).unwrap();
        (PciUart(port), host)
    }

    #[test]
    fn bytes_go_both_ways() {
        let (uart, mut host) = pair();
        uart.bar_write(BAR, 0, Width::Byte, 0x41);
        let mut byte = [0];
        host.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [0x41]);
        host.write_all(b"z").unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while uart.bar_read(BAR, LSR, Width::Byte) & 1 == 0 {
            assert!(Instant::now() < end, "nothing came");
            std::thread::yield_now();
        }
        assert_eq!(uart.bar_read(BAR, 0, Width::Byte), u32::from(b'z'));
    }

    #[test]
    fn a_wide_access_reaches_each_register() {
        let (uart, _host) = pair();
        uart.bar_write(BAR, SCRATCH, Width::Byte, 0x5a);
        assert_eq!(uart.bar_read(BAR, 4, Width::Dword) >> 24, 0x5a);
        // Line and modem control: DLAB clear, then the scratch register behind the status.
        uart.bar_write(BAR, 4, Width::Dword, 0xa500_0000);
        assert_eq!(uart.bar_read(BAR, 6, Width::Word) >> 8, 0xa5);
    }
}
