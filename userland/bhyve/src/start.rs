//! From the configuration to a running guest and to its end: opens the VM that bhyveload made (steps
//! (1) to (7)), builds the machine and the tables that describe it, starts the vcpus, waits
//! for the end.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use vmmapi::devices::X2apicState;
use vmmapi::{Capability, MemFlags, MmapStyle, Reg, SuspendHow, Vcpu, VcpuId, Vm};

use crate::board::Board;
use crate::config::Config;
use crate::devices::pctestdev;
use crate::firmware::ioapic::ioapic_init;
use crate::firmware::{self, Description};
use crate::machine::Machine;
use crate::options::{DEFAULT_MEMORY, Options};
use crate::pci::slots;
use crate::platform::{self, Signals};
use crate::report;
use crate::run::{self, End, Ended};
use crate::settings::{FirmwareInterface, Settings, SettingsError};
use crate::signals;
use crate::topology::Pinning;

/// How long the other vcpus get to end after the first one did.
const LAST_VCPUS: Duration = Duration::from_secs(2);

/// How the guest ended, and what a person is told about it.
pub struct Outcome {
    pub end: End,
    pub report: Option<String>,
}

/// Why there is no run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub message: String,
    pub exit_code: u8,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self {
            message,
            exit_code: 4,
        }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self {
            message: error.to_string(),
            exit_code: error.exit_code(),
        }
    }
}

/// Runs the guest. A failure is one of the start, before any vcpu ran.
pub fn run(options: &Options) -> Result<Outcome, Failure> {
    let config = &options.config;
    let settings = Settings::read(config)?;
    let (cpus, topology) = (settings.cpus, settings.topology);
    // A device that isn't there is said before anything is opened.
    slots::slots(config).map_err(|e| e.to_string())?;
    let vm = open(&settings)?;
    set_up_memory(&vm, config, &settings)?;
    for id in 0..cpus {
        init_vcpu(&vm.vcpu(VcpuId(id)), &settings)?;
    }
    // From here on signals wait for their thread, in all threads to come.
    let signals = Signals::block().map_err(|e| format!("signals can't be blocked: {e}"))?;
    let ioapic = ioapic_init(&vm).map_err(|e| e.to_string())?;
    let (ended, ends) = channel();
    let exit = debug_exit(ended.clone());
    let board = Board::new(&vm, config, &settings, ioapic, &options.fwcfg, exit)
        .map_err(|e| e.to_string())?;
    let machine = Machine::new(vm, board, &settings);
    // What bhyveload left to begin at (steps (11) and (12)).
    machine
        .vm
        .vcpu(VcpuId::BSP)
        .register(Reg::Rip)
        .map_err(|e| e.to_string())?;
    let description = Description {
        name: &settings.vm,
        config,
        uuid: settings.uuid,
        cpus,
        topology,
        ioapic,
        com_ports: &machine.board.com_ports,
        pci: &machine.board.pci,
        mptable: settings.mptable,
        acpi_tables: settings.acpi_tables,
        utc: settings.utc,
        fwcfg: settings.fwcfg == FirmwareInterface::Qemu,
    };
    firmware::build(&machine.vm, &description).map_err(|e| e.to_string())?;
    check_variables(config)?;
    platform::set_process_title(&settings.vm);
    let machine = Arc::new(machine);
    signals::start(signals, Arc::clone(&machine), ended.clone())
        .map_err(|e| format!("the signal thread can't be started: {e}"))?;
    let pinning = pinning(&settings)?;
    for id in 0..cpus {
        run::add_cpu(&machine, VcpuId(id), &pinning, ended.clone())?;
    }
    let end = wait_for_end(&ends, usize::from(cpus));
    if end == End::Suspended(SuspendHow::Poweroff) && settings.destroy_on_poweroff {
        if let Err(error) = machine.vm.clone().destroy() {
            eprintln!("bhyve: -D: {error}\r");
        }
    }
    let report = match &end {
        End::Failed(report) => Some(report.clone()),
        End::Suspended(SuspendHow::TripleFault) => Some(report::triple_fault(&machine)),
        End::Suspended(SuspendHow::Destroy) => {
            Some(format!("{}: the VM was destroyed", machine.vm.name()))
        }
        End::Suspended(_) | End::Signal(_) | End::Exit(_) => None,
    };
    Ok(Outcome { end, report })
}

/// What the debug exit port does: the vcpu that asks never goes on.
fn debug_exit(ended: Sender<Ended>) -> pctestdev::Exit {
    Box::new(move |code| {
        if ended.send((None, End::Exit(code))).is_ok() {
            loop {
                thread::park();
            }
        }
    })
}

/// All that is to be read has been read. What nobody wanted is refused where it belongs to a
/// device; elsewhere it may be meant for other variables to refer to, and is told.
fn check_variables(config: &Config) -> Result<(), String> {
    for warning in config.warnings() {
        eprintln!("bhyve: {warning}");
    }
    for name in config.unread() {
        let device = ["pci.", "lpc.", "compat."]
            .iter()
            .any(|node| name.starts_with(node));
        if device {
            return Err(format!(
                "{name}: no device of this machine has such a variable"
            ));
        }
        eprintln!("bhyve: the variable {name} has no effect");
    }
    Ok(())
}

/// Opens the VM. It must exist: only a boot ROM could start an empty one.
fn open(settings: &Settings) -> Result<Vm, String> {
    let cpus = settings.cpus;
    let vm = Vm::open(&settings.vm).map_err(|error| {
        if error.is(libc::ENOENT) {
            let name = &settings.vm;
            format!("{name}: no such VM: create and load it with bhyveload first")
        } else {
            error.to_string()
        }
    })?;
    let ended = vm.suspended_cpus().map_err(|e| e.to_string())?;
    if !ended.is_empty() {
        let name = &settings.vm;
        return Err(format!(
            "{name} has ended before (reset, powered off or halted): load it again with \
             bhyveload first"
        ));
    }
    let most = vm.topology().map_err(|e| e.to_string())?.maxcpus;
    if cpus > most {
        return Err(format!("{cpus} vCPUs requested but only {most} available"));
    }
    vm.set_topology(settings.topology)
        .map_err(|e| format!("-c: {e}"))?;
    Ok(vm)
}

/// Maps the memory that bhyveload set up: below 3 GiB, and from 4 GiB on. Its size is that
/// of the VM, also where -m says something else, as in bhyve(8); but that is told.
fn set_up_memory(vm: &Vm, config: &Config, settings: &Settings) -> Result<(), String> {
    let mut flags = MemFlags::empty();
    flags.set(MemFlags::WIRED, settings.wired);
    flags.set(MemFlags::INCORE, settings.in_core);
    vm.set_memflags(flags);
    let wanted = settings.memory;
    vm.setup_memory(wanted, MmapStyle::All).map_err(|error| {
        format!(
            "unable to set up {} of memory: {error}",
            cli::size::memsize(wanted)
        )
    })?;
    let size = vm.lowmem_size() + vm.highmem_size();
    let asked_for = config
        .get("memory.size")
        .is_some_and(|size| size != DEFAULT_MEMORY);
    if asked_for && wanted != size {
        eprintln!(
            "bhyve: -m: {} has {} of memory since bhyveload, not {}",
            settings.vm,
            cli::size::memsize(size),
            cli::size::memsize(wanted)
        );
    }
    Ok(())
}

/// Where the vcpus' threads run. Where they take turns on one host CPU, the host's scheduler
/// gives each its time slice, and a vcpu that has nothing to do gives up the rest of its own
/// (VMEXIT_SWITCH). Each needs a thread even so: the kernel may wait in one for the others.
fn pinning(settings: &Settings) -> Result<Pinning, String> {
    if !settings.mux {
        return Ok(settings.pinning.clone());
    }
    let here = platform::current_cpu()
        .map_err(|error| format!("compat.mux: no host CPU: {}", cli::io_error(&error)))?;
    Ok(settings.pinning.on_one(here))
}

/// Capabilities and APIC mode. What another bhyve set on this VM before is set anew.
fn init_vcpu(vcpu: &Vcpu, settings: &Settings) -> Result<(), String> {
    let set = |cap, on: bool| vcpu.set_capability(cap, i32::from(on));
    let named = |option: &str, error| format!("{option}: {error}");
    for (cap, on, option) in [
        (Capability::HaltExit, settings.exit_on_hlt, "-H"),
        (Capability::PauseExit, settings.exit_on_pause, "-P"),
    ] {
        match set(cap, on) {
            Err(error) if on => return Err(named(option, error)),
            // A CPU without it needs no switching off.
            _ => {}
        }
    }
    // INVPCID stays hidden where the CPU hasn't got it.
    let _ = set(Capability::EnableInvpcid, true);
    if vcpu.id() != VcpuId::BSP {
        // A started processor is in real mode, and its start comes as an exit.
        set(Capability::UnrestrictedGuest, true).map_err(|e| named("-c", e))?;
    }
    let _ = set(Capability::IpiExit, true);
    let (state, option) = match settings.x2apic {
        true => (X2apicState::Enabled, "-x"),
        false => (X2apicState::Disabled, "-a"),
    };
    // In a guest that goes on where an earlier bhyve left it the mode stays as it is.
    match vcpu.x2apic_state() {
        Ok(now) if now == state => Ok(()),
        _ => vcpu.set_x2apic_state(state).map_err(|e| named(option, e)),
    }
}

/// The first end that a vcpu or a signal reports. After a suspend the other vcpus end too,
/// and are waited for, so that none is in the middle of a device's work.
fn wait_for_end(ends: &Receiver<Ended>, cpus: usize) -> End {
    let Ok((_, first)) = ends.recv() else {
        return End::Failed("all vcpu threads are gone".to_owned());
    };
    if !matches!(first, End::Suspended(_)) {
        return first;
    }
    let limit = Instant::now() + LAST_VCPUS;
    let mut left = cpus.saturating_sub(1);
    while left > 0 {
        match ends.recv_timeout(limit.saturating_duration_since(Instant::now())) {
            Ok((Some(_), End::Suspended(_))) => left -= 1,
            Ok((_, other)) => return other,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_the_vm_waits_for_all_vcpus_and_a_failure_does_not() {
        let off = End::Suspended(SuspendHow::Poweroff);
        let (sender, ends) = channel();
        for id in 0..3 {
            sender.send((Some(VcpuId(id)), off.clone())).unwrap();
        }
        assert_eq!(wait_for_end(&ends, 3), off);
        assert!(ends.try_recv().is_err(), "all three were taken");

        sender
            .send((Some(VcpuId(0)), End::Failed("x".into())))
            .unwrap();
        sender.send((Some(VcpuId(1)), off.clone())).unwrap();
        assert_eq!(wait_for_end(&ends, 2), End::Failed("x".into()));
        assert!(ends.try_recv().is_ok());

        sender.send((Some(VcpuId(0)), off.clone())).unwrap();
        sender.send((None, End::Signal(15))).unwrap();
        assert_eq!(wait_for_end(&ends, 2), End::Signal(15));
    }
}
