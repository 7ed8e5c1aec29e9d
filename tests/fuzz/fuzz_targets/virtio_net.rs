//! A guest that does anything with a network card, on a network that sends each frame back.
#![no_main]

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

use bhyve::config::View;
use bhyve::net::{self, NetBackend, Received};
use bhyve::pci::registry::DeviceType;
use bhyve::pci::{DeviceContext, DeviceError, PciDevice};
use bhyve::virtio::function::VirtioFunction;
use bhyve::virtio::net::Net;
use bhyve::virtio::net::config::Settings;
use libfuzzer_sys::fuzz_target;
use vmm_fuzz::machine::Machine;

static CARD: DeviceType = DeviceType {
    name: "virtio-net",
    alias: None,
    options: net::options,
    new: card,
};

fn card(config: &View<'_>, context: DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError> {
    let settings = Settings::read(config, context.at)?;
    let card = Net::new(
        settings,
        Some(Arc::new(Echo::default())),
        &context.name,
        "vtnet",
    );
    Ok(VirtioFunction::new(Box::new(card), context, "net")?)
}

#[derive(Default)]
struct Echo {
    back: Mutex<Back>,
    changed: Condvar,
}

/// The frames on their way back.
#[derive(Default)]
struct Back {
    frames: VecDeque<Vec<u8>>,
    stopped: bool,
}

impl NetBackend for Echo {
    fn send(&self, frame: &[u8]) {
        self.back.lock().unwrap().frames.push_back(frame.to_vec());
        self.changed.notify_all();
    }

    fn receive(&self, buffer: &mut [u8]) -> Received {
        let back = self.back.lock().unwrap();
        let mut back = self
            .changed
            .wait_while(back, |back| back.frames.is_empty() && !back.stopped)
            .unwrap();
        if back.stopped {
            return Received::Stopped;
        }
        let frame = back.frames.pop_front().unwrap();
        buffer[..frame.len()].copy_from_slice(&frame);
        Received::Frame(frame.len())
    }

    fn stop(&self) {
        self.back.lock().unwrap().stopped = true;
        self.changed.notify_all();
    }
}

fuzz_target!(|data: &[u8]| {
    let mut machine = Machine::with(&CARD, "");
    machine.start_virtio();
    machine.run(data);
});
