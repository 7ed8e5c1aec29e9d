//! Signals, in a thread of their own: SIGTERM is the ACPI power button, where the guest has
//! switched to ACPI mode; else it powers the guest off, and a second one ends bhyve. SIGINT
//! and SIGHUP end it at once; SIGUSR1 prints what the run loop counted.

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use vmmapi::SuspendHow;

use crate::machine::Machine;
use crate::platform::Signals;
use crate::run::{End, Ended};

/// Starts the thread. `signals` were blocked before any other thread began.
pub fn start(signals: Signals, machine: Arc<Machine>, ended: Sender<Ended>) -> io::Result<()> {
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut powered_off = false;
            while let Ok(signal) = signals.wait() {
                let end = match signal {
                    libc::SIGUSR1 => {
                        print_counters(&machine);
                        continue;
                    }
                    libc::SIGTERM if machine.board.power_button.press() => continue,
                    libc::SIGTERM if !powered_off => {
                        powered_off = true;
                        match machine.vm.suspend(SuspendHow::Poweroff) {
                            Ok(()) => continue,
                            Err(error) if error.is(libc::EALREADY) => continue,
                            Err(_) => End::Signal(signal),
                        }
                    }
                    _ => End::Signal(signal),
                };
                if ended.send((None, end)).is_err() {
                    return;
                }
            }
        })
        .map(drop)
}

fn print_counters(machine: &Machine) {
    for cpu in &machine.cpus {
        eprintln!(
            "bhyve: vcpu {}: exits to userland: {}\r",
            cpu.vcpu.id().0,
            cpu.counters
        );
    }
}
