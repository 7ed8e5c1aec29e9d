//! Signals, in a thread of their own: SIGTERM is the ACPI power button, and a second one
//! stops the guest. Where the guest hasn't switched to ACPI mode, the first one stops it. One
//! more ends bhyve whatever the guest does, as SIGINT and SIGHUP do at once. SIGUSR1 prints
//! what the run loop counted.

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
            let mut terms = Terms::default();
            while let Ok(signal) = signals.wait() {
                let end = match signal {
                    libc::SIGUSR1 => {
                        print_counters(&machine);
                        continue;
                    }
                    libc::SIGTERM => match terms.next(|| machine.board.power_button.press()) {
                        Term::Pressed => {
                            eprintln!(
                                "bhyve: SIGTERM: the power button is pressed; another one stops \
                                 the guest\r"
                            );
                            continue;
                        }
                        Term::PowerOff => match machine.vm.suspend(SuspendHow::Poweroff) {
                            Ok(()) => continue,
                            Err(error) if error.is(libc::EALREADY) => continue,
                            Err(_) => End::Signal(signal),
                        },
                        Term::End => End::Signal(signal),
                    },
                    _ => End::Signal(signal),
                };
                if ended.send((None, end)).is_err() {
                    return;
                }
            }
        })
        .map(drop)
}

/// What a SIGTERM does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Term {
    /// The guest has been told.
    Pressed,
    /// The VM is to be switched off.
    PowerOff,
    /// It was, and didn't end.
    End,
}

/// How far earlier ones have come.
#[derive(Default)]
struct Terms {
    pressed: bool,
    off: bool,
}

impl Terms {
    /// The next one. `press` presses the button; the answer is whether the guest sees it.
    fn next(&mut self, press: impl FnOnce() -> bool) -> Term {
        if self.off {
            Term::End
        } else if !self.pressed && press() {
            self.pressed = true;
            Term::Pressed
        } else {
            self.off = true;
            Term::PowerOff
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_button_comes_first_then_the_stop_then_the_end() {
        let mut terms = Terms::default();
        assert_eq!(terms.next(|| true), Term::Pressed);
        assert_eq!(terms.next(|| panic!("pressed twice")), Term::PowerOff);
        assert_eq!(terms.next(|| true), Term::End);
    }

    #[test]
    fn a_guest_without_acpi_is_stopped_at_once() {
        let mut terms = Terms::default();
        assert_eq!(terms.next(|| false), Term::PowerOff);
        assert_eq!(terms.next(|| true), Term::End);
    }
}
