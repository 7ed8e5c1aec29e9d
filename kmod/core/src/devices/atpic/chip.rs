//! One 8259A (Intel 231468): requests, masks and priorities, and its command words.

use super::super::Drive;
use super::super::line::Line;
use crate::types::Vector;

/// The chip.
#[derive(Clone, Copy)]
pub struct Chip {
    state: State,
    lines: [Line; 8],
    /// Edges of edge-triggered inputs that were not acknowledged yet.
    latched: u8,
    /// Inputs that are level-triggered.
    elcr: u8,
    /// The slave's INT output, in the bit of the input that it drives.
    cascade: u8,
    /// The mask register.
    imr: u8,
    /// The in-service register.
    isr: u8,
    /// The input of lowest priority; the next one has the highest.
    lowest: u8,
    /// ICW1's SNGL: no slaves, no ICW3.
    single: bool,
    /// ICW2: the vector of IR0.
    base: u8,
    /// ICW3 of a master: which inputs have slaves.
    slaves: u8,
    /// ICW4's AEOI.
    auto_eoi: bool,
    /// Rotation at each automatic EOI.
    rotate_in_aeoi: bool,
    /// ICW4's SFNM, on a master.
    special_fully_nested: bool,
    /// OCW3's SMM.
    special_mask: bool,
    /// OCW3: the next read is an acknowledge.
    poll: bool,
    /// OCW3: reads show the ISR rather than the IRR.
    read_isr: bool,
}

/// How far the initialization has come: which word the data port takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first ICW1.
    Off,
    Icw2 {
        icw4: bool,
    },
    Icw3 {
        icw4: bool,
    },
    Icw4,
    Ready,
}

// ICW1, ICW4.
const ICW1: u8 = 1 << 4;
const ICW1_IC4: u8 = 1 << 0;
const ICW1_SNGL: u8 = 1 << 1;
const ICW4_AEOI: u8 = 1 << 1;
const ICW4_SFNM: u8 = 1 << 4;
// OCW3.
const OCW3: u8 = 1 << 3;
const OCW3_RIS: u8 = 1 << 0;
const OCW3_RR: u8 = 1 << 1;
const OCW3_P: u8 = 1 << 2;
const OCW3_SMM: u8 = 1 << 5;
const OCW3_ESMM: u8 = 1 << 6;
/// The input that answers when no request is left (the datasheet's default IR7).
const SPURIOUS: u8 = 7;

impl Chip {
    pub const fn new() -> Self {
        Self {
            state: State::Off,
            lines: [Line::LOW; 8],
            latched: 0,
            elcr: 0,
            cascade: 0,
            imr: 0,
            isr: 0,
            lowest: 7,
            single: false,
            base: 0,
            slaves: 0,
            auto_eoi: false,
            rotate_in_aeoi: false,
            special_fully_nested: false,
            special_mask: false,
            poll: false,
            read_isr: false,
        }
    }

    pub fn drive(&mut self, input: u8, drive: Drive) {
        let rises = self.lines[usize::from(input)].drive(drive);
        if rises && self.elcr & 1 << input == 0 {
            self.latched |= 1 << input;
        }
    }

    pub fn set_cascade(&mut self, input: u8, high: bool) {
        self.cascade = if high { 1 << input } else { 0 };
    }

    pub const fn elcr(&self) -> u8 {
        self.elcr
    }

    pub fn set_elcr(&mut self, elcr: u8) {
        self.elcr = elcr;
        // A level-triggered request ends with its line.
        self.latched &= !elcr;
    }

    /// Whether a slave answers the second INTA pulse for an input.
    pub const fn has_slave(&self, input: u8) -> bool {
        !self.single && self.slaves & 1 << input != 0
    }

    pub const fn vector(&self, input: u8) -> Vector {
        Vector(self.base | input)
    }

    /// The input whose interrupt the INT output announces (Fully Nested Mode and what
    /// changes it).
    pub fn request(&self) -> Option<u8> {
        if self.state != State::Ready {
            return None;
        }
        let requests = self.irr() & !self.imr;
        // Special mask mode: what is masked doesn't hold back others.
        let in_service = if self.special_mask {
            self.isr & !self.imr
        } else {
            self.isr
        };
        for input in self.by_priority() {
            let bit = 1 << input;
            // Special fully nested mode: a slave in service may interrupt again.
            let nests = self.special_fully_nested && self.has_slave(input);
            if requests & bit != 0 && (in_service & bit == 0 || nests) {
                return Some(input);
            }
            if in_service & bit != 0 {
                return None;
            }
        }
        None
    }

    /// An INTA pulse: the input that is now in service.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.request() else {
            return SPURIOUS;
        };
        self.latched &= !(1 << input);
        if !self.auto_eoi {
            self.isr |= 1 << input;
        } else if self.rotate_in_aeoi {
            self.lowest = input;
        }
        input
    }

    pub fn read_command(&mut self) -> u8 {
        if self.poll {
            self.answer_poll()
        } else if self.read_isr {
            self.isr
        } else {
            self.irr()
        }
    }

    pub fn read_data(&mut self) -> u8 {
        if self.poll {
            self.answer_poll()
        } else {
            self.imr
        }
    }

    pub fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            self.icw1(value);
        } else if self.state != State::Ready {
            // Only ICW1 is understood here.
        } else if value & OCW3 != 0 {
            self.ocw3(value);
        } else {
            self.ocw2(value);
        }
    }

    pub fn write_data(&mut self, value: u8, master: bool) {
        match self.state {
            State::Off | State::Ready => self.imr = value,
            State::Icw2 { icw4 } => {
                self.base = value & 0xf8;
                self.state = match (self.single, icw4) {
                    (false, icw4) => State::Icw3 { icw4 },
                    (true, true) => State::Icw4,
                    (true, false) => State::Ready,
                };
            }
            State::Icw3 { icw4 } => {
                // To a slave it tells its number; the wires tell that already.
                self.slaves = if master { value } else { 0 };
                self.state = if icw4 { State::Icw4 } else { State::Ready };
            }
            State::Icw4 => {
                self.auto_eoi = value & ICW4_AEOI != 0;
                // A slave that is told so has no slaves to nest.
                self.special_fully_nested = value & ICW4_SFNM != 0;
                self.state = State::Ready;
            }
        }
    }

    /// The interrupt request register.
    fn irr(&self) -> u8 {
        let mut levels = 0;
        for (input, line) in self.lines.iter().enumerate() {
            levels |= u8::from(line.is_high()) << input;
        }
        self.latched | levels & self.elcr | self.cascade
    }

    fn by_priority(&self) -> impl Iterator<Item = u8> + use<> {
        let lowest = self.lowest;
        (1..=8).map(move |n| (lowest + n) % 8)
    }

    /// The poll command: the read is the acknowledge.
    fn answer_poll(&mut self) -> u8 {
        self.poll = false;
        match self.request() {
            Some(_) => 0x80 | self.acknowledge(),
            None => 0,
        }
    }

    /// Starts the initialization: points (a) to (f) of the datasheet's ICW1.
    fn icw1(&mut self, value: u8) {
        *self = Self {
            lines: self.lines,
            elcr: self.elcr,
            cascade: self.cascade,
            base: self.base,
            slaves: self.slaves,
            single: value & ICW1_SNGL != 0,
            state: State::Icw2 {
                icw4: value & ICW1_IC4 != 0,
            },
            ..Self::new()
        };
    }

    /// End of interrupt and rotation: the command is in bits 7 to 5, a level in 2 to 0.
    fn ocw2(&mut self, value: u8) {
        let level = value & 7;
        match value >> 5 {
            0b000 => self.rotate_in_aeoi = false,
            0b001 => {
                self.end_highest();
            }
            0b010 => {}
            0b011 => self.isr &= !(1 << level),
            0b100 => self.rotate_in_aeoi = true,
            0b101 => {
                if let Some(input) = self.end_highest() {
                    self.lowest = input;
                }
            }
            0b110 => self.lowest = level,
            _ => {
                self.isr &= !(1 << level);
                self.lowest = level;
            }
        }
    }

    /// Non-specific EOI: ends the interrupt of highest priority that is in service; in
    /// special mask mode not one that is masked.
    fn end_highest(&mut self) -> Option<u8> {
        let candidates = if self.special_mask {
            self.isr & !self.imr
        } else {
            self.isr
        };
        let input = self.by_priority().find(|n| candidates & 1 << n != 0)?;
        self.isr &= !(1 << input);
        Some(input)
    }

    fn ocw3(&mut self, value: u8) {
        if value & OCW3_ESMM != 0 {
            self.special_mask = value & OCW3_SMM != 0;
        }
        // Of a poll and a read command at once the poll counts.
        if value & OCW3_P != 0 {
            self.poll = true;
        } else if value & OCW3_RR != 0 {
            self.read_isr = value & OCW3_RIS != 0;
        }
    }
}
