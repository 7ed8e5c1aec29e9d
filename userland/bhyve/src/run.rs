//! The run loop (steps (15) to (20) and (23)): a thread for each vcpu runs the guest until
//! the VM ends, and tells the main thread how.

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vmmapi::{Error, SuspendHow, VcpuId, VmExit};

use crate::machine::{Counter, Cpu, Machine};
use crate::platform;
use crate::report;
use crate::topology::Pinning;
use crate::vmexit::{self, Answer};

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// The VM was suspended.
    Suspended(SuspendHow),
    /// It can't go on; the report.
    Failed(String),
    /// A signal asks for the end of bhyve, whatever the guest does.
    Signal(i32),
    /// The guest has chosen the exit code (pc-testdev).
    Exit(u8),
}

impl End {
    /// bhyve(8)'s exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Suspended(SuspendHow::Reset) => 0,
            Self::Suspended(SuspendHow::Poweroff) => 1,
            Self::Suspended(SuspendHow::Halt) => 2,
            Self::Suspended(SuspendHow::TripleFault) => 3,
            Self::Suspended(SuspendHow::Destroy) | Self::Failed(_) => 4,
            Self::Exit(code) => *code,
            // As a shell reports a process that a signal ended.
            Self::Signal(signal) => 128u8.saturating_add(*signal as u8),
        }
    }
}

/// A message to the main thread: a vcpu's thread is through, or a signal came (no vcpu).
pub type Ended = (Option<VcpuId>, End);

/// Whoever holds the vcpu gets this long before we say that we wait.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);

/// Makes a vcpu part of the VM and starts its thread (steps (15) and (16)).
pub fn add_cpu(
    machine: &Arc<Machine>,
    id: VcpuId,
    pinning: &Pinning,
    ended: Sender<Ended>,
) -> Result<JoinHandle<()>, String> {
    let cpu = machine.cpu(id).ok_or("no such vcpu")?;
    activate(cpu).map_err(|error| format!("could not activate CPU {}: {error}", id.0))?;
    let machine = Arc::clone(machine);
    let cpus = pinning.of(id.0).to_vec();
    let thread = thread::Builder::new()
        // As in bhyve(8); which VM it is says the process's title.
        .name(format!("vcpu {}", id.0))
        .spawn(move || start_thread(&machine, id, &cpus, &ended));
    thread.map_err(|error: io::Error| format!("vcpu {}: a thread can't be started: {error}", id.0))
}

/// EBUSY: an earlier bhyve, killed perhaps, made it active; it goes on from there. An
/// application processor that is new waits for its startup IPI.
fn activate(cpu: &Cpu) -> Result<(), Error> {
    match cpu.vcpu.activate() {
        Ok(()) if cpu.vcpu.id() == VcpuId::BSP => Ok(()),
        Ok(()) => cpu.vcpu.suspend(),
        Err(error) if error.is(libc::EBUSY) => Ok(()),
        Err(error) => Err(error),
    }
}

fn start_thread(machine: &Machine, id: VcpuId, cpus: &[u32], ended: &Sender<Ended>) {
    let end = match machine.cpu(id) {
        None => End::Failed(format!("there is no vcpu {}", id.0)),
        Some(cpu) => match pin(cpus) {
            Ok(()) => vm_loop(machine, cpu),
            Err(error) => End::Failed(format!(
                "vcpu {} can't be pinned to host CPUs {cpus:?}: {}",
                id.0,
                cannot_pin(&error)
            )),
        },
    };
    // The main thread is gone only when the program ends anyway.
    let _ = ended.send((Some(id), end));
}

fn pin(cpus: &[u32]) -> io::Result<()> {
    if cpus.is_empty() {
        Ok(())
    } else {
        platform::pin_thread(cpus)
    }
}

fn cannot_pin(error: &io::Error) -> String {
    match error.raw_os_error() {
        // What hosts say of a CPU beyond theirs; it means something else elsewhere.
        Some(libc::EINVAL | libc::EDEADLK) => {
            "the host has no such CPU, or bhyve may not run there".to_owned()
        }
        _ => cli::io_error(error),
    }
}

/// Runs the vcpu until the VM ends (steps (17) to (23)).
pub fn vm_loop(machine: &Machine, cpu: &Cpu) -> End {
    let mut busy: Option<Busy> = None;
    loop {
        let exit = match cpu.vcpu.run() {
            Ok(exit) => exit,
            // Another process holds the vcpu for a moment, bhyvectl for one.
            Err(error) if error.is(libc::EBUSY) => {
                wait_for_vcpu(machine, cpu, busy.get_or_insert_with(Busy::new));
                continue;
            }
            Err(error) if error.is(libc::EINTR) => continue,
            Err(error) if gone(&error) => return End::Suspended(SuspendHow::Destroy),
            Err(error) => return failed(cpu, None, &format!("vm_run: {error}")),
        };
        busy = None;
        let answer = match vmexit::handle(machine, cpu, &exit) {
            Ok(answer) => answer,
            Err(error) if gone(&error) => return End::Suspended(SuspendHow::Destroy),
            Err(error) => Answer::Abort(format!("{:?} can't be handled: {error}", exit.exit)),
        };
        match answer {
            Answer::Continue => {}
            Answer::Restart => {
                if let Err(error) = cpu.vcpu.restart_instruction() {
                    return failed(cpu, Some(&exit), &error.to_string());
                }
            }
            Answer::Switch => {
                cpu.counters.count(Counter::Switch);
                thread::yield_now();
            }
            Answer::Reset => return End::Suspended(SuspendHow::Reset),
            Answer::End(how) => return End::Suspended(how),
            Answer::Abort(why) => return failed(cpu, Some(&exit), &why),
        }
    }
}

/// Whether the VM was destroyed while this program had its device open: requests on it get
/// ENXIO then, or ENOTTY on FreeBSD, which revokes the file.
fn gone(error: &vmmapi::Error) -> bool {
    error.is(libc::ENXIO) || error.is(libc::ENOTTY)
}

fn failed(cpu: &Cpu, exit: Option<&VmExit>, why: &str) -> End {
    End::Failed(report::compose(&cpu.vcpu, exit, why, &cpu.counters))
}

/// A vcpu that somebody else holds.
struct Busy {
    since: Instant,
    said: bool,
}

impl Busy {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            said: false,
        }
    }
}

fn wait_for_vcpu(machine: &Machine, cpu: &Cpu, busy: &mut Busy) {
    cpu.counters.count(Counter::Busy);
    let waited = busy.since.elapsed();
    if waited >= BUSY_PATIENCE && !busy.said {
        busy.said = true;
        eprintln!(
            "bhyve: vcpu {} of {} is held by another process; waiting\r",
            cpu.vcpu.id().0,
            machine.vm.name()
        );
    }
    if waited < Duration::from_millis(1) {
        thread::yield_now();
    } else {
        thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_bhyve() {
        use SuspendHow::{Destroy, Halt, Poweroff, Reset, TripleFault};
        let codes = [Reset, Poweroff, Halt, TripleFault, Destroy]
            .map(|how| End::Suspended(how).exit_code());
        assert_eq!(codes, [0, 1, 2, 3, 4]);
        assert_eq!(End::Failed(String::new()).exit_code(), 4);
        assert_eq!(End::Signal(15).exit_code(), 143);
    }
}
