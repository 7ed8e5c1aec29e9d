//! A UART on the bus, connected to its backend: bytes the guest sends go to the backend at
//! once, bytes from the backend wait outside until the receive FIFO has room.

#![forbid(unsafe_code)]

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::IrqLine;
use super::uart::Uart;
use crate::backend::Backend;
use crate::ports::{PortDevice, Width};

/// First port and interrupt of com1 to com4.
pub const COM_PORTS: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];
/// Registers of a UART.
pub const PORTS: u16 = 8;

struct State {
    uart: Uart,
    line: bool,
}

/// One serial port.
pub struct SerialPort {
    state: Mutex<State>,
    /// The receive FIFO has got room.
    room: Condvar,
    backend: Backend,
    irq: IrqLine,
}

impl SerialPort {
    pub fn new(backend: Backend, irq: IrqLine) -> Self {
        let state = Mutex::new(State {
            uart: Uart::new(),
            line: false,
        });
        Self {
            state,
            room: Condvar::new(),
            backend,
            irq,
        }
    }

    /// Moves what the backend receives into the UART; returns at the end of the input. For
    /// a thread of its own.
    pub fn receive_all(&self) {
        let mut buffer = [0; 16];
        loop {
            let room = {
                let state = self.state();
                let state = self
                    .room
                    .wait_while(state, |state| state.uart.room() == 0)
                    .unwrap_or_else(PoisonError::into_inner);
                state.uart.room().min(buffer.len())
            };
            let bytes = self.backend.read(&mut buffer[..room]);
            if bytes == 0 {
                return;
            }
            let mut state = self.state();
            for byte in &buffer[..bytes] {
                state.uart.receive(*byte);
            }
            self.update_line(&mut state);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update_line(&self, state: &mut State) {
        let active = state.uart.interrupt();
        if active != state.line {
            state.line = active;
            (self.irq)(active);
        }
    }
}

impl PortDevice for SerialPort {
    fn read(&self, offset: u16, _width: Width) -> u32 {
        let mut state = self.state();
        let value = state.uart.read(offset);
        if state.uart.room() > 0 {
            self.room.notify_all();
        }
        self.update_line(&mut state);
        u32::from(value)
    }

    fn write(&self, offset: u16, _width: Width, value: u32) {
        let mut state = self.state();
        let sent = state.uart.write(offset, value as u8);
        if state.uart.room() > 0 {
            self.room.notify_all();
        }
        self.update_line(&mut state);
        drop(state);
        if let Some(byte) = sent {
            self.backend.write(&[byte]);
        }
    }
}

/// A port whose receiver runs in a thread of its own, named after the port.
pub fn start(name: &str, backend: Backend, irq: IrqLine) -> std::io::Result<Arc<SerialPort>> {
    let port = Arc::new(SerialPort::new(backend, irq));
    let receiver = Arc::clone(&port);
    std::thread::Builder::new()
        .name(format!("{name} input"))
        .spawn(move || receiver.receive_all())?;
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    const LSR: u16 = 5;

    fn wait_for(what: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !what() {
            assert!(Instant::now() < end, "nothing came");
            std::thread::yield_now();
        }
    }

    #[test]
    fn more_bytes_than_the_fifo_holds_arrive_all_and_in_order() {
        let (guest_side, mut host) = UnixStream::pair().unwrap();
        let raised = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&raised);
        let irq = Box::new(move |on: bool| {
            count.fetch_add(usize::from(on), Ordering::SeqCst);
        });
        let port = start("com1", Backend::of_stream("test", guest_side.into()), irq).unwrap();
        port.write(2, Width::Byte, 1);
        port.write(1, Width::Byte, 1);
        let sent: Vec<u8> = (0..200).collect();
        host.write_all(&sent).unwrap();
        let received: Vec<u8> = sent
            .iter()
            .map(|_| {
                wait_for(|| port.read(LSR, Width::Byte) & 1 != 0);
                port.read(0, Width::Byte) as u8
            })
            .collect();
        assert_eq!(received, sent);
        assert_eq!(port.read(LSR, Width::Byte) & 2, 0, "no overrun");
        assert!(raised.load(Ordering::SeqCst) > 0);
    }

    #[test]
    fn sent_bytes_reach_the_backend() {
        let (guest_side, mut host) = UnixStream::pair().unwrap();
        let port = SerialPort::new(
            Backend::of_stream("test", guest_side.into()),
            Box::new(|_| ()),
        );
        for byte in *b"Hello" {
            port.write(0, Width::Byte, u32::from(byte));
        }
        let mut got = [0; 5];
        host.read_exact(&mut got).unwrap();
        assert_eq!(got, *b"Hello");
    }

    #[test]
    fn a_dead_backend_is_no_end_of_the_guest() {
        let (guest_side, host) = UnixStream::pair().unwrap();
        drop(host);
        let port = SerialPort::new(
            Backend::of_stream("test", guest_side.into()),
            Box::new(|_| ()),
        );
        port.write(0, Width::Byte, 0x41);
        port.receive_all();
        assert_eq!(port.read(LSR, Width::Byte), 0x60);
    }
}
