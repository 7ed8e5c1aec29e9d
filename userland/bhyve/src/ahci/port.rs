//! A port: its registers (AHCI 1.3.1, 3.3), the link to its device (3.3.10, 3.3.11), which
//! command comes next, and how a command ends (5.3, 6.2). No threads here and no locks.

#![forbid(unsafe_code)]

use vmmapi::{Gpa, GuestMemory};

use super::answer::Answer;
use super::device::{DeviceState, Kind};
use super::fis::{self, Registers};
use super::registers::{SLOTS, ata, command, interrupt, link, port};

/// Where in the received FIS area answers go (4.2.1).
const RFIS_PIO_SETUP: u64 = 0x20;
const RFIS_D2H: u64 = 0x40;
const RFIS_SET_BITS: u64 = 0x58;

/// Where the areas may begin.
const LIST_ALIGN: u32 = 1024;
const RFIS_ALIGN: u32 = 256;

/// What PxTFD and PxSIG read while there is no link.
const TFD_NO_DEVICE: u32 = 0x7f;
const SIGNATURE_NO_DEVICE: u32 = u32::MAX;

/// A port with a device.
#[derive(Debug)]
pub struct Port {
    kind: Kind,
    /// The device behind it, as far as it changes.
    pub device: DeviceState,
    clb: u64,
    fb: u64,
    pub is: u32,
    pub ie: u32,
    cmd: u32,
    tfd: u32,
    sig: u32,
    ssts: u32,
    sctl: u32,
    serr: u32,
    sact: u32,
    ci: u32,
    /// Slots that a thread is at.
    pending: u32,
    /// An error has stopped the command list until ST is cleared (6.2.2).
    halted: bool,
    /// The slot to look at next.
    next: u8,
    /// How many vcpus wait until no thread is at a command; none begins one meanwhile.
    pub draining: u32,
    /// Counts the device's resets: what was begun before one doesn't end after it.
    generation: u64,
    /// A bit of PxIS was set: the HBA has to look.
    event: bool,
}

/// What PxCMD or PxSCTL asks for when no command is in flight any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    Nothing,
    /// To start the command list.
    Start,
    /// The link off, or a COMRESET.
    LinkDown,
    LinkUp,
}

/// For whom a command ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    pub slot: u8,
    pub queued: bool,
    generation: u64,
}

impl Port {
    /// As after power on.
    pub fn new(kind: Kind) -> Self {
        let mut port = Self {
            kind,
            device: DeviceState::default(),
            clb: 0,
            fb: 0,
            is: 0,
            ie: 0,
            cmd: 0,
            tfd: 0,
            sig: 0,
            ssts: 0,
            sctl: 0,
            serr: 0,
            sact: 0,
            ci: 0,
            pending: 0,
            halted: false,
            next: 0,
            draining: 0,
            generation: 0,
            event: false,
        };
        port.power_on();
        port
    }

    /// Power on or the HBA's reset (10.4.3), when no command is in flight. The registers of
    /// addresses stay.
    pub fn power_on(&mut self) {
        self.cmd = command::SUD | command::POD | command::CPS;
        self.is = 0;
        self.ie = 0;
        self.sctl = 0;
        self.serr = 0;
        self.event = false;
        self.clear_commands();
        self.bring_up();
    }

    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            port::CLB => self.clb as u32,
            port::CLBU => (self.clb >> 32) as u32,
            port::FB => self.fb as u32,
            port::FBU => (self.fb >> 32) as u32,
            port::IS => self.is,
            port::IE => self.ie,
            port::CMD => self.cmd,
            port::TFD => self.tfd,
            port::SIG => self.sig,
            port::SSTS => self.ssts,
            port::SCTL => self.sctl,
            port::SERR => self.serr,
            port::SACT => self.sact,
            port::CI => self.ci,
            _ => 0,
        }
    }

    /// A register that needs nothing but to be written.
    pub fn write(&mut self, offset: u64, value: u32) {
        match offset {
            port::CLB => self.clb = low(self.clb, value & !(LIST_ALIGN - 1)),
            port::CLBU => self.clb = high(self.clb, value),
            port::FB => self.fb = low(self.fb, value & !(RFIS_ALIGN - 1)),
            port::FBU => self.fb = high(self.fb, value),
            port::IS => self.is &= !value,
            port::IE => self.ie = value & interrupt::ALL,
            port::SERR => self.serr &= !value,
            port::SACT if self.started() => self.sact |= value,
            port::CI if self.started() => self.ci |= value,
            _ => {}
        }
    }

    /// PxCMD (3.3.7). While commands are in flight CR stays set, though ST is clear.
    pub fn write_cmd(&mut self, value: u32) -> Wanted {
        let started = self.started();
        self.cmd = self.cmd & !command::WRITABLE | value & command::WRITABLE;
        if value & command::FRE != 0 {
            self.cmd |= command::FR;
        } else {
            self.cmd &= !command::FR;
        }
        if value & command::CLO != 0 {
            self.tfd &= !u32::from(ata::BSY | ata::DRQ);
        }
        if value & command::ST == 0 {
            self.clear_commands();
        } else if !started {
            // Not before the old commands are done.
            self.cmd &= !command::ST;
            return Wanted::Start;
        }
        Wanted::Nothing
    }

    /// The command list runs from now on.
    pub fn start(&mut self) {
        self.cmd |= command::ST | command::CR;
        self.halted = false;
    }

    /// PxSCTL. Software changes DET only while the command list is stopped.
    pub fn write_sctl(&mut self, value: u32) -> Wanted {
        let was_up = self.link_is_up();
        self.sctl = value;
        let down = matches!(value & link::DET, link::DET_RESET | link::DET_OFF);
        match (self.started(), down) {
            (true, _) => Wanted::Nothing,
            (false, true) => Wanted::LinkDown,
            (false, false) if !was_up => Wanted::LinkUp,
            (false, false) => Wanted::Nothing,
        }
    }

    pub fn link_down(&mut self) {
        self.ssts = match self.sctl & link::DET {
            link::DET_OFF => link::OFF,
            _ => 0,
        };
        self.tfd = TFD_NO_DEVICE;
        self.sig = SIGNATURE_NO_DEVICE;
        self.clear_commands();
    }

    /// The device is there again, reset, and says who it is.
    pub fn link_up(&mut self, memory: &GuestMemory) {
        self.serr = 0;
        self.bring_up();
        self.post_signature(memory);
    }

    fn link_is_up(&self) -> bool {
        self.ssts & link::DET == link::UP & link::DET
    }

    fn bring_up(&mut self) {
        let speed = match (self.sctl & link::SPEED) >> link::SPEED_SHIFT {
            limit @ 1..=link::FASTEST => limit,
            _ => link::FASTEST,
        };
        self.ssts = link::UP | speed << link::SPEED_SHIFT;
        self.reset_device(speed as u8);
    }

    fn reset_device(&mut self, speed: u8) {
        self.generation += 1;
        self.device.reset(speed);
        self.sig = self.kind.signature();
        // The error register says that the device has tested itself.
        self.tfd = u32::from(self.kind.status_after_reset()) | 1 << 8;
    }

    /// A software reset: begins with the first of two control FISes, and ends with the
    /// second one.
    pub fn control(&mut self, memory: &GuestMemory, slot: u8, reset: bool) {
        self.ci &= !bit(slot);
        if reset {
            self.device.in_reset = true;
        } else if self.device.in_reset {
            self.sact = 0;
            self.reset_device(self.device.speed);
            self.post_signature(memory);
        }
    }

    /// The FIS that a device sends after its reset, which interrupts nobody.
    fn post_signature(&mut self, memory: &GuestMemory) {
        let [count, l0, l1, l2] = self.sig.to_le_bytes();
        let registers = Registers {
            lba: u64::from_le_bytes([l0, l1, l2, 0, 0, 0, 0, 0]),
            device: 0,
            count: count.into(),
        };
        let [status, error, ..] = self.tfd.to_le_bytes();
        let fis = fis::d2h(false, status, error, &registers);
        self.post(memory, RFIS_D2H, &fis, 0);
    }

    fn started(&self) -> bool {
        self.cmd & command::ST != 0
    }

    pub fn idle(&self) -> bool {
        self.pending == 0
    }

    /// ST is clear: nothing is issued any more.
    fn clear_commands(&mut self) {
        self.ci = 0;
        self.sact = 0;
        self.halted = false;
        self.next = 0;
        self.cmd &= !command::CCS;
        if self.idle() {
            self.cmd &= !command::CR;
        }
    }

    /// The slot of the next command to begin, if one can be begun now.
    pub fn next_slot(&mut self) -> Option<u8> {
        let busy = self.tfd & u32::from(ata::BSY | ata::DRQ) != 0;
        let ready = self.ci & !self.pending;
        if !self.started() || self.halted || busy || self.draining > 0 || ready == 0 {
            return None;
        }
        // From the one behind the last one on, so that each has its turn.
        let slot = (0..SLOTS)
            .map(|n| (self.next + n) % SLOTS)
            .find(|slot| ready & bit(*slot) != 0)?;
        self.next = (slot + 1) % SLOTS;
        self.cmd = self.cmd & !command::CCS | u32::from(slot) << command::CCS_SHIFT;
        Some(slot)
    }

    /// Where the command list is.
    pub const fn command_list(&self) -> Gpa {
        Gpa(self.clb)
    }

    /// The device takes a command. A queued one leaves it free for the next one.
    pub fn begin(&mut self, memory: &GuestMemory, slot: u8, queued: bool) -> Ticket {
        self.pending |= bit(slot);
        if queued {
            self.ci &= !bit(slot);
            self.tfd = u32::from(ata::GOOD);
            let fis = fis::d2h(false, ata::GOOD, 0, &Registers::default());
            self.post(memory, RFIS_D2H, &fis, 0);
        } else {
            self.tfd |= u32::from(ata::BSY);
        }
        Ticket {
            slot,
            queued,
            generation: self.generation,
        }
    }

    /// A command is done.
    pub fn end(&mut self, memory: &GuestMemory, ticket: Ticket, answer: &Answer) {
        // An old one of before a reset, or one that an error of another one has ended.
        let late = ticket.generation != self.generation || self.halted;
        self.release(ticket);
        if late {
            if !ticket.queued && ticket.generation == self.generation {
                self.tfd &= !u32::from(ata::BSY);
            }
            return;
        }
        if answer.overflow {
            self.raise(interrupt::OVERFLOW);
        }
        if ticket.queued {
            self.end_queued(memory, ticket, answer);
        } else {
            self.end_single(memory, ticket, answer);
        }
    }

    fn end_queued(&mut self, memory: &GuestMemory, ticket: Ticket, answer: &Answer) {
        let failed = answer.failed();
        let done = if failed { 0 } else { bit(ticket.slot) };
        let kept = self.tfd & u32::from(!fis::SET_BITS_STATUS);
        let status = answer.status & fis::SET_BITS_STATUS;
        self.tfd = kept & 0xff | u32::from(status) | u32::from(answer.error) << 8;
        if failed {
            self.device.note_error(Some(ticket.slot), answer);
            self.halted = true;
        }
        self.sact &= !done;
        let fis = fis::set_bits(answer.status, answer.error, done);
        self.post(
            memory,
            RFIS_SET_BITS,
            &fis,
            answered(interrupt::SET_BITS, failed),
        );
    }

    fn end_single(&mut self, memory: &GuestMemory, ticket: Ticket, answer: &Answer) {
        let failed = answer.failed();
        self.tfd = u32::from(answer.status) | u32::from(answer.error) << 8;
        if failed {
            self.device.note_error(None, answer);
            self.halted = true;
        } else {
            self.ci &= !bit(ticket.slot);
            if let Some((to_host, len)) = answer.pio {
                let fis = fis::pio_setup(to_host, len, answer.status, &answer.registers);
                self.post(memory, RFIS_PIO_SETUP, &fis, 0);
            }
        }
        let fis = fis::d2h(true, answer.status, answer.error, &answer.registers);
        self.post(memory, RFIS_D2H, &fis, answered(interrupt::D2H, failed));
    }

    /// A command can't be done because the driver's structures are not in memory, or are not
    /// what a device understands: the command list stops (6.1.2).
    pub fn fatal(&mut self, interrupt: u32) {
        self.halted = true;
        self.raise(interrupt);
    }

    /// A command ends so.
    pub fn abandon(&mut self, ticket: Ticket, interrupt: u32) {
        let current = ticket.generation == self.generation;
        self.release(ticket);
        if current {
            if !ticket.queued {
                self.tfd &= !u32::from(ata::BSY);
            }
            self.fatal(interrupt);
        }
    }

    fn release(&mut self, ticket: Ticket) {
        self.pending &= !bit(ticket.slot);
        if self.idle() && !self.started() {
            self.cmd &= !command::CR;
        }
    }

    /// Puts a FIS where the driver wants them, with what it interrupts for.
    fn post(&mut self, memory: &GuestMemory, offset: u64, fis: &[u8], interrupts: u32) {
        if self.cmd & command::FR == 0 {
            return;
        }
        let at = Gpa(self.fb).checked_add(offset);
        match at.map(|at| memory.copy_to(at, fis)) {
            Some(Ok(())) if interrupts != 0 => self.raise(interrupts),
            Some(Ok(())) => {}
            Some(Err(_)) | None => self.fatal(interrupt::BUS_FATAL),
        }
    }

    fn raise(&mut self, interrupts: u32) {
        self.event |= !self.is & interrupts != 0;
        self.is |= interrupts;
    }

    /// Whether something has happened since the last call.
    pub fn take_event(&mut self) -> bool {
        std::mem::take(&mut self.event)
    }
}

fn answered(interrupt: u32, failed: bool) -> u32 {
    interrupt | if failed { interrupt::TASK_FILE } else { 0 }
}

fn bit(slot: u8) -> u32 {
    1 << (slot % SLOTS)
}

fn low(register: u64, value: u32) -> u64 {
    register & !0xffff_ffff | u64::from(value)
}

fn high(register: u64, value: u32) -> u64 {
    register & 0xffff_ffff | u64::from(value) << 32
}
