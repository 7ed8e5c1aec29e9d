//! The HBA (AHCI 1.3.1): the registers that all ports share (3.1), interrupts (10.7), and
//! the threads that do the commands.
//!
//! The command list is the only list of requests there is: a thread takes a slot, reads it
//! once, does it without a lock, and ends it. A port's threads are its own, so that a slow
//! disk holds up no other one.

#![forbid(unsafe_code)]

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use vmmapi::GuestMemory;

use super::answer::Plan;
use super::command::{Issued, NoMemory};
use super::device::{Device, Kind};
use super::fis::{Command, FromHost};
use super::port::{Port, Ticket, Wanted};
use super::registers::{MAX_PORTS, host, interrupt, port};
use crate::pci::{DeviceContext, Interrupts};

/// ICH8's.
const LEAST_PORTS: usize = 6;
/// The most messages of an HBA.
const MAX_MESSAGES: usize = 16;

/// Threads of a disk, as in bhyve(8), and of a CD drive, which has no queue.
const DISK_THREADS: usize = 8;
const CD_THREADS: usize = 1;

/// What threads and vcpus share.
pub struct Hba {
    memory: GuestMemory,
    interrupts: Interrupts,
    devices: Vec<Option<Device>>,
    state: Mutex<State>,
    /// For each port: there may be a command to take, or it is over.
    work: Vec<Condvar>,
    /// A port has no command in flight.
    idle: Condvar,
}

struct State {
    /// GHC.IE.
    enabled: bool,
    is: u32,
    /// What the interrupt pin was told.
    pin: bool,
    ports: Vec<Option<Port>>,
    closing: bool,
}

/// The threads of an HBA; they end when this is dropped.
pub struct Threads {
    hba: Arc<Hba>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.hba.state().closing = true;
        self.hba.work.iter().for_each(Condvar::notify_all);
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// A command that a thread has taken.
struct Taken {
    ticket: Ticket,
    command: Command,
    issued: Issued,
    plan: Plan,
}

impl Hba {
    /// With its ports' devices by number.
    pub fn new(mut devices: Vec<Option<Device>>, context: &DeviceContext) -> Arc<Self> {
        devices.truncate(MAX_PORTS);
        if devices.len() < LEAST_PORTS {
            devices.resize_with(LEAST_PORTS, || None);
        }
        let port = |device: &Option<Device>| device.as_ref().map(|device| Port::new(device.kind));
        let state = State {
            enabled: false,
            is: 0,
            pin: false,
            ports: devices.iter().map(port).collect(),
            closing: false,
        };
        Arc::new(Self {
            memory: context.memory.clone(),
            interrupts: context.interrupts.clone(),
            work: devices.iter().map(|_| Condvar::new()).collect(),
            devices,
            state: Mutex::new(state),
            idle: Condvar::new(),
        })
    }

    /// Starts the threads that do the commands.
    pub fn start(self: &Arc<Self>, name: &str) -> std::io::Result<Threads> {
        let mut threads = Threads {
            hba: Arc::clone(self),
            threads: Vec::new(),
        };
        for (number, device) in self.devices.iter().enumerate() {
            let count = match device.as_ref().map(|device| device.kind) {
                None => 0,
                Some(Kind::Disk) => DISK_THREADS,
                Some(Kind::Cd) => CD_THREADS,
            };
            for n in 0..count {
                let hba = Arc::clone(self);
                let thread = thread::Builder::new()
                    .name(format!("{name}:{number}-{n}"))
                    .spawn(move || hba.serve(number))?;
                threads.threads.push(thread);
            }
        }
        Ok(threads)
    }

    /// Of BAR 5.
    pub fn registers_len(&self) -> u64 {
        host::PORTS + self.devices.len() as u64 * host::PORT_LEN
    }

    /// How many messages it can use; a power of two.
    pub fn messages(&self) -> u8 {
        // 16 at most.
        self.devices.len().min(MAX_MESSAGES).next_power_of_two() as u8
    }

    /// Reads the register at a multiple of 4.
    pub fn read(&self, offset: u64) -> u32 {
        let state = self.state();
        if let Some((number, register)) = port_register(offset) {
            let port = state.ports.get(number).and_then(Option::as_ref);
            return port.map_or(0, |port| port.read(register));
        }
        match offset {
            host::CAP => host::CAP_VALUE | (state.ports.len() as u32 - 1),
            host::GHC if state.enabled => host::GHC_AE | host::GHC_IE,
            host::GHC => host::GHC_AE,
            host::IS => state.is,
            host::PI => (0..)
                .zip(&state.ports)
                .filter(|(_, port)| port.is_some())
                .fold(0, |ports, (number, _)| ports | bit(number)),
            host::VS => host::VERSION,
            host::CAP2 => host::CAP2_VALUE,
            _ => 0,
        }
    }

    /// Writes the register at a multiple of 4.
    pub fn write(&self, offset: u64, value: u32) {
        let mut state = self.state();
        if let Some((number, register)) = port_register(offset) {
            self.write_port(state, number, register, value);
            return;
        }
        match offset {
            host::GHC if value & host::GHC_HR != 0 => self.reset(state),
            host::GHC => {
                state.enabled = value & host::GHC_IE != 0;
                self.update(&mut state, u32::MAX);
            }
            host::IS => {
                state.is &= !value;
                self.update(&mut state, value);
            }
            _ => {}
        }
    }

    fn write_port<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        number: usize,
        register: u64,
        value: u32,
    ) {
        let Some(Some(port)) = state.ports.get_mut(number) else {
            return;
        };
        let wanted = match register {
            port::CMD => port.write_cmd(value),
            port::SCTL => port.write_sctl(value),
            _ => {
                port.write(register, value);
                Wanted::Nothing
            }
        };
        if wanted != Wanted::Nothing {
            state = self.drain(state, number);
        }
        if let Some(Some(port)) = state.ports.get_mut(number) {
            match wanted {
                Wanted::Nothing => {}
                Wanted::Start => port.start(),
                Wanted::LinkDown => port.link_down(),
                Wanted::LinkUp => port.link_up(&self.memory),
            }
        }
        if matches!(register, port::IS | port::IE) {
            self.signal(&mut state, number);
        } else {
            self.signal_events(&mut state, number);
        }
        drop(state);
        if matches!(register, port::CI | port::CMD) {
            // A thread that begins a command lets the next one know if there are more.
            self.wake(number);
        }
    }

    /// GHC.HR.
    fn reset<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        for number in 0..self.devices.len() {
            state = self.drain(state, number);
            if let Some(Some(port)) = state.ports.get_mut(number) {
                port.power_on();
            }
        }
        state.enabled = false;
        state.is = 0;
        self.set_pin(&mut state);
    }

    /// Waits until a port has no command in flight. None is begun meanwhile.
    fn drain<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        number: usize,
    ) -> MutexGuard<'a, State> {
        let mut waiting = false;
        while let Some(Some(port)) = state.ports.get_mut(number) {
            if !waiting {
                port.draining += 1;
                waiting = true;
            }
            if port.idle() {
                port.draining -= 1;
                break;
            }
            state = self
                .idle
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn wake(&self, number: usize) {
        if let Some(work) = self.work.get(number) {
            work.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Commands.
impl Hba {
    /// A thread's life.
    fn serve(&self, number: usize) {
        let (Some(Some(device)), Some(work)) = (self.devices.get(number), self.work.get(number))
        else {
            return;
        };
        let mut state = self.state();
        while !state.closing {
            let taken = self.take(&mut state, number, device);
            state = match taken {
                Some(taken) => {
                    drop(state);
                    // There may be more, for another thread.
                    work.notify_one();
                    self.handle(number, device, taken)
                }
                None => work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The next command of a port that is something to do.
    fn take(&self, state: &mut State, number: usize, device: &Device) -> Option<Taken> {
        let port = state.ports.get_mut(number)?.as_mut()?;
        let mut taken = None;
        // Each turn takes a slot, begins a command or stops the port.
        while let Some(slot) = port.next_slot() {
            match Issued::read(&self.memory, port.command_list(), slot) {
                Err(NoMemory(_)) => port.fatal(interrupt::BUS_FATAL),
                Ok(issued) => match issued.fis {
                    FromHost::Unknown(_) => port.fatal(interrupt::INTERFACE_FATAL),
                    FromHost::Control { reset } => port.control(&self.memory, slot, reset),
                    FromHost::Command(command) => {
                        let ticket = port.begin(&self.memory, slot, device.is_queued(&command));
                        let plan = device.plan(&command, &issued, &mut port.device);
                        taken = Some(Taken {
                            ticket,
                            command,
                            issued,
                            plan,
                        });
                        break;
                    }
                },
            }
        }
        self.signal_events(state, number);
        taken
    }

    fn handle(&self, number: usize, device: &Device, taken: Taken) -> MutexGuard<'_, State> {
        let Taken {
            ticket,
            command,
            issued,
            plan,
        } = taken;
        let answer = device.perform(&self.memory, &command, &issued, plan);
        let mut state = self.state();
        if let Some(Some(port)) = state.ports.get_mut(number) {
            match answer {
                Ok(answer) => port.end(&self.memory, ticket, &answer),
                Err(NoMemory(_)) => port.abandon(ticket, interrupt::BUS_FATAL),
            }
            if port.idle() {
                self.idle.notify_all();
            }
            self.signal_events(&mut state, number);
        }
        state
    }
}

/// Interrupts.
impl Hba {
    /// If something has happened at a port, the driver is told.
    fn signal_events(&self, state: &mut State, number: usize) {
        if let Some(Some(port)) = state.ports.get_mut(number) {
            if port.take_event() {
                self.signal(state, number);
            }
        }
    }

    /// A port may want an interrupt.
    fn signal(&self, state: &mut State, number: usize) {
        let Some(Some(port)) = state.ports.get(number) else {
            return;
        };
        if port.is & port.ie == 0 {
            return;
        }
        let known = state.is & bit(number) != 0;
        state.is |= bit(number);
        if let Some((message, own)) = self.message(state, number) {
            // A message that several ports share is like a level: again only when the
            // driver has been there.
            if state.enabled && (own || !known) {
                self.interrupts.send_msi(message);
            }
        }
        self.set_pin(state);
    }

    /// The driver has changed what it wants to know: the bits of IS in `touched` are told
    /// again if their ports still want that.
    fn update(&self, state: &mut State, touched: u32) {
        for (number, port) in state.ports.iter().enumerate() {
            if port.as_ref().is_some_and(|port| port.is & port.ie != 0) {
                state.is |= bit(number);
            }
        }
        if state.enabled {
            let mut sent = 0_u32;
            for number in 0..state.ports.len() {
                if state.is & touched & bit(number) == 0 {
                    continue;
                }
                if let Some((message, _)) = self.message(state, number) {
                    if sent & 1 << message == 0 {
                        sent |= 1 << message;
                        self.interrupts.send_msi(message);
                    }
                }
            }
        }
        self.set_pin(state);
    }

    /// The message of a port, and whether it is the port's own: the last one is for all
    /// ports that have none. `None` while MSI is off.
    fn message(&self, state: &State, number: usize) -> Option<(u8, bool)> {
        let messages = self.interrupts.msi_messages();
        let last = messages.checked_sub(1)?;
        let own = state.ports.len() <= usize::from(messages) || number < usize::from(last);
        // Smaller than 32.
        Some(if own {
            (number as u8, true)
        } else {
            (last, false)
        })
    }

    /// The pin is up as long as IS has a bit. It is silent while messages are in use.
    fn set_pin(&self, state: &mut State) {
        let level = state.enabled && state.is != 0;
        if level != state.pin {
            state.pin = level;
            if level {
                self.interrupts.assert_intx();
            } else {
                self.interrupts.deassert_intx();
            }
        }
    }
}

/// The port that a register belongs to, and its offset there.
fn port_register(offset: u64) -> Option<(usize, u64)> {
    let at = offset.checked_sub(host::PORTS)?;
    Some((
        usize::try_from(at / host::PORT_LEN).ok()?,
        at % host::PORT_LEN,
    ))
}

/// A port's bit.
fn bit(number: usize) -> u32 {
    1 << (number % MAX_PORTS)
}
