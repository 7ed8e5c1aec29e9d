//! virtio-console (virtio 1.2, 5.3): ports between programs of the guest and programs of
//! the host, which connect to UNIX sockets. In reading order: the [`options`], what driver
//! and device tell each other about ports ([`control`]), the [`worker`] that moves the
//! bytes, and here the device.
//!
//! One thread serves all queues. It never waits for a single client or queue, so that no
//! port holds up another one, or a driver's reset.

#![forbid(unsafe_code)]

pub mod control;
pub mod options;
mod worker;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::chain::{Chain, ChainError};
use super::device::{Identity, VirtioDevice};
use super::function::VirtioFunction;
use super::queues::DeviceQueues;
use crate::config::View;
use crate::pci::{DeviceContext, DeviceError, PciDevice};
use crate::platform::wait::Files;
use crate::unix_socket::Listener;
use options::PortOptions;
use worker::{Port, Shared, Worker};

/// Feature bits (5.3.3).
pub mod feature {
    /// The window's size is in the configuration space.
    pub const SIZE: u64 = 1 << 0;
    /// More ports than one, and messages about them.
    pub const MULTIPORT: u64 = 1 << 1;
    /// Single characters by the configuration space.
    pub const EMERG_WRITE: u64 = 1 << 2;
}

/// As in bhyve(8).
pub const MAX_PORTS: usize = 16;
pub const QUEUE_SIZE: u16 = 64;
const COLUMNS: u16 = 80;
const ROWS: u16 = 25;

/// Two of each port, and two for messages.
const QUEUES: usize = 2 * MAX_PORTS + 2;
/// The queues of messages, to the driver and from it.
const CONTROL_IN: usize = 2;
const CONTROL_OUT: usize = 3;

/// Of the configuration space (5.3.4).
const CONFIG_LEN: usize = 12;
const EMERGENCY: usize = 8;

/// The queue of what the port's guest reads. What it writes is in the next one.
fn input_queue(port: usize) -> usize {
    if port == 0 { 0 } else { 2 * port + 2 }
}

fn output_queue(port: usize) -> usize {
    input_queue(port) + 1
}

/// The device.
pub struct Console {
    shared: Arc<Shared>,
    thread_name: String,
    /// Until the thread has them.
    of_thread: Mutex<Option<(Vec<Port>, Files)>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Console {
    /// With a socket for each port.
    pub fn open(options: &[PortOptions], name: &str, thread: &str) -> Result<Self, DeviceError> {
        let ports = options.iter().map(|options| {
            let listener = Listener::bind(&options.path)
                .map_err(|error| format!("{}: {error}", options.variable))?;
            Ok(Port::new(options, listener))
        });
        let ports = ports.collect::<Result<_, DeviceError>>()?;
        let files = Files::new().and_then(|files| Ok((files.waker()?, files)));
        let (waker, files) =
            files.map_err(|error| format!("its sockets can't be waited for: {error}"))?;
        Ok(Self {
            shared: Arc::new(Shared::new(name, waker)),
            thread_name: thread.to_owned(),
            of_thread: Mutex::new(Some((ports, files))),
            thread: Mutex::new(None),
        })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.shared.quit();
        let thread = self.thread.get_mut();
        if let Some(thread) = thread.unwrap_or_else(PoisonError::into_inner).take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl VirtioDevice for Console {
    fn identity(&self) -> Identity {
        Identity {
            device_type: 3,
            pci_device: 0x1003,
            // Communication of another kind, as QEMU has it. With bhyve(8)'s subclass 0 it
            // would be a serial port, and FreeBSD's uart(4) tries its registers as one:
            // where they answer byte by byte, as here, it never comes back.
            class: 7,
            subclass: 0x80,
        }
    }

    fn features(&self) -> u64 {
        feature::SIZE | feature::MULTIPORT | feature::EMERG_WRITE
    }

    fn queues(&self) -> &[u16] {
        &[QUEUE_SIZE; QUEUES]
    }

    fn config(&self) -> Vec<u8> {
        let mut config = Vec::with_capacity(CONFIG_LEN);
        config.extend(COLUMNS.to_le_bytes());
        config.extend(ROWS.to_le_bytes());
        config.extend((MAX_PORTS as u32).to_le_bytes());
        config.resize(CONFIG_LEN, 0);
        config
    }

    fn config_write(&self, offset: usize, bytes: &[u8]) {
        if let (EMERGENCY, Some(byte)) = (offset, bytes.first()) {
            self.shared.emergency(*byte);
        }
    }

    fn threads(&self) -> usize {
        0
    }

    fn served(&self, _queue: usize) -> bool {
        false
    }

    fn handle(&self, _queue: usize, _chain: Chain, _features: u64) -> Result<u32, ChainError> {
        Err(ChainError::Shape("a request that no thread should take"))
    }

    fn attach(&self, queues: DeviceQueues) -> io::Result<()> {
        let of_thread = &mut *self
            .of_thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some((ports, files)) = of_thread.take() else {
            return Ok(());
        };
        let mut worker = Worker::new(Arc::clone(&self.shared), queues, ports, files)?;
        let thread = thread::Builder::new()
            .name(self.thread_name.clone())
            .spawn(move || worker.run())?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    fn notified(&self, _queue: usize) {
        self.shared.wake();
    }

    fn ready(&self, _features: u64) {
        self.shared.wake();
    }

    fn reset(&self) {
        self.shared.wake();
    }
}

/// `virtio-console,name=path[,name=path…]`.
pub fn virtio_console(
    config: &View<'_>,
    context: DeviceContext,
) -> Result<Arc<dyn PciDevice>, DeviceError> {
    let thread = format!("vtcon-{}:{}", context.at.slot, context.at.function);
    let console = Console::open(&options::ports(config)?, &context.name, &thread)?;
    Ok(VirtioFunction::new(Box::new(console), context, &thread)?)
}

#[cfg(test)]
mod tests;
