//! A 16550A UART: the registers and FIFOs of National Semiconductor's PC16550D datasheet
//! as a state machine. What the guest transmits comes out of [`Uart::write`], what it
//! receives goes in through [`Uart::receive`]; time plays no part (a byte is sent at once).

#![forbid(unsafe_code)]

use std::collections::VecDeque;

/// The receive FIFO's depth.
const FIFO_LEN: usize = 16;

// Registers by offset; DLL and DLM replace the first two while LCR.DLAB is set.
const DATA: u16 = 0;
const IER: u16 = 1;
const IIR_FCR: u16 = 2;
const LCR: u16 = 3;
const MCR: u16 = 4;
const LSR: u16 = 5;
const MSR: u16 = 6;
const SCR: u16 = 7;

const IER_RECEIVED: u8 = 1 << 0;
const IER_THR_EMPTY: u8 = 1 << 1;
const IER_LINE_STATUS: u8 = 1 << 2;
const IER_MODEM_STATUS: u8 = 1 << 3;
const IER_MASK: u8 = 0x0f;

const IIR_NONE: u8 = 0x01;
const IIR_MODEM_STATUS: u8 = 0x00;
const IIR_THR_EMPTY: u8 = 0x02;
const IIR_RECEIVED: u8 = 0x04;
const IIR_LINE_STATUS: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFOS: u8 = 0xc0;

const FCR_ENABLE: u8 = 1 << 0;
const FCR_RESET_RECEIVER: u8 = 1 << 1;

const LCR_DLAB: u8 = 1 << 7;

const MCR_DTR: u8 = 1 << 0;
const MCR_RTS: u8 = 1 << 1;
const MCR_OUT1: u8 = 1 << 2;
const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOPBACK: u8 = 1 << 4;
const MCR_MASK: u8 = 0x1f;

const LSR_DATA_READY: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
const LSR_THR_EMPTY: u8 = 1 << 5;
const LSR_TRANSMITTER_EMPTY: u8 = 1 << 6;

const MSR_DELTA_CTS: u8 = 1 << 0;
const MSR_DELTA_DSR: u8 = 1 << 1;
const MSR_TRAILING_RI: u8 = 1 << 2;
const MSR_DELTA_DCD: u8 = 1 << 3;
const MSR_DELTAS: u8 = 0x0f;
const MSR_CTS: u8 = 1 << 4;
const MSR_DSR: u8 = 1 << 5;
const MSR_RI: u8 = 1 << 6;
const MSR_DCD: u8 = 1 << 7;

/// 9600 baud from a 1.8432 MHz clock.
const RESET_DIVISOR: u16 = 12;

/// One UART.
#[derive(Debug)]
pub struct Uart {
    received: VecDeque<u8>,
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    /// The deltas only; the lines follow from MCR.
    msr_deltas: u8,
    scr: u8,
    divisor: u16,
    overrun: bool,
    /// The THR-empty interrupt is due: since the last byte, or since it was enabled.
    thr_empty_due: bool,
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart {
    /// As after a master reset.
    pub fn new() -> Self {
        Self {
            received: VecDeque::with_capacity(FIFO_LEN),
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            msr_deltas: 0,
            scr: 0,
            divisor: RESET_DIVISOR,
            overrun: false,
            thr_empty_due: false,
        }
    }

    /// The guest reads a register (offset modulo 8).
    pub fn read(&mut self, offset: u16) -> u8 {
        match offset % 8 {
            DATA if self.dlab() => self.divisor as u8,
            IER if self.dlab() => (self.divisor >> 8) as u8,
            DATA => self.received.pop_front().unwrap_or(0),
            IER => self.ier,
            IIR_FCR => self.identify_interrupt(),
            LCR => self.lcr,
            MCR => self.mcr,
            LSR => {
                let status = self.line_status();
                self.overrun = false;
                status
            }
            MSR => {
                let status = self.modem_lines() | self.msr_deltas;
                self.msr_deltas = 0;
                status
            }
            _ => self.scr,
        }
    }

    /// The guest writes a register (offset modulo 8). A byte that leaves through the
    /// transmitter comes back.
    pub fn write(&mut self, offset: u16, value: u8) -> Option<u8> {
        match offset % 8 {
            DATA if self.dlab() => self.divisor = self.divisor & 0xff00 | u16::from(value),
            IER if self.dlab() => self.divisor = self.divisor & 0x00ff | u16::from(value) << 8,
            DATA => return self.transmit(value),
            IER => {
                // Enabling it while THR is empty raises it (datasheet, 8.6.2).
                if value & !self.ier & IER_THR_EMPTY != 0 {
                    self.thr_empty_due = true;
                }
                self.ier = value & IER_MASK;
            }
            IIR_FCR => self.write_fcr(value),
            LCR => self.lcr = value,
            MCR => self.write_mcr(value & MCR_MASK),
            SCR => self.scr = value,
            // LSR and MSR are for reading; writing them is for factory tests.
            _ => {}
        }
        None
    }

    /// How many bytes can be received without an overrun.
    pub fn room(&self) -> usize {
        let depth = if self.fcr & FCR_ENABLE != 0 {
            FIFO_LEN
        } else {
            1
        };
        depth.saturating_sub(self.received.len())
    }

    /// A byte arrives from outside. In loopback mode the receiver is cut off from there.
    pub fn receive(&mut self, byte: u8) {
        if self.mcr & MCR_LOOPBACK == 0 {
            self.push(byte);
        }
    }

    /// Whether the interrupt output is active.
    pub fn interrupt(&self) -> bool {
        self.interrupt_reason() != IIR_NONE
    }

    fn dlab(&self) -> bool {
        self.lcr & LCR_DLAB != 0
    }

    fn push(&mut self, byte: u8) {
        if self.room() > 0 {
            self.received.push_back(byte);
            return;
        }
        self.overrun = true;
        // Without FIFOs the new byte replaces the old one; with them it is lost (8.6.3).
        if self.fcr & FCR_ENABLE == 0 {
            self.received.clear();
            self.received.push_back(byte);
        }
    }

    fn transmit(&mut self, byte: u8) -> Option<u8> {
        self.thr_empty_due = true;
        if self.mcr & MCR_LOOPBACK != 0 {
            self.push(byte);
            return None;
        }
        Some(byte)
    }

    fn write_fcr(&mut self, value: u8) {
        let toggled = (self.fcr ^ value) & FCR_ENABLE != 0;
        if toggled || value & (FCR_ENABLE | FCR_RESET_RECEIVER) == FCR_ENABLE | FCR_RESET_RECEIVER {
            self.received.clear();
        }
        // The other bits can be programmed only together with bit 0.
        self.fcr = if value & FCR_ENABLE != 0 { value } else { 0 };
    }

    fn write_mcr(&mut self, value: u8) {
        let before = self.modem_lines();
        self.mcr = value;
        let after = self.modem_lines();
        let changed = before ^ after;
        for (line, delta) in [
            (MSR_CTS, MSR_DELTA_CTS),
            (MSR_DSR, MSR_DELTA_DSR),
            (MSR_DCD, MSR_DELTA_DCD),
        ] {
            if changed & line != 0 {
                self.msr_deltas |= delta;
            }
        }
        if before & !after & MSR_RI != 0 {
            self.msr_deltas |= MSR_TRAILING_RI;
        }
        debug_assert_eq!(self.msr_deltas & !MSR_DELTAS, 0);
    }

    /// The four modem input lines. Outside of loopback a peer is always there and ready, so
    /// that opening a terminal on the line doesn't wait for a carrier.
    fn modem_lines(&self) -> u8 {
        if self.mcr & MCR_LOOPBACK == 0 {
            return MSR_DCD | MSR_DSR | MSR_CTS;
        }
        let wired = [
            (MCR_DTR, MSR_DSR),
            (MCR_RTS, MSR_CTS),
            (MCR_OUT1, MSR_RI),
            (MCR_OUT2, MSR_DCD),
        ];
        wired
            .into_iter()
            .filter(|(out, _)| self.mcr & out != 0)
            .fold(0, |lines, (_, line)| lines | line)
    }

    fn line_status(&self) -> u8 {
        let mut status = LSR_THR_EMPTY | LSR_TRANSMITTER_EMPTY;
        if !self.received.is_empty() {
            status |= LSR_DATA_READY;
        }
        if self.overrun {
            status |= LSR_OVERRUN;
        }
        status
    }

    fn fifo_trigger(&self) -> usize {
        match self.fcr >> 6 {
            _ if self.fcr & FCR_ENABLE == 0 => 1,
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        }
    }

    /// The pending interrupt of highest priority (datasheet, table III).
    fn interrupt_reason(&self) -> u8 {
        if self.overrun && self.ier & IER_LINE_STATUS != 0 {
            IIR_LINE_STATUS
        } else if !self.received.is_empty() && self.ier & IER_RECEIVED != 0 {
            // Below the trigger level no more is coming at once: the character timeout.
            if self.received.len() >= self.fifo_trigger() {
                IIR_RECEIVED
            } else {
                IIR_TIMEOUT
            }
        } else if self.thr_empty_due && self.ier & IER_THR_EMPTY != 0 {
            IIR_THR_EMPTY
        } else if self.msr_deltas != 0 && self.ier & IER_MODEM_STATUS != 0 {
            IIR_MODEM_STATUS
        } else {
            IIR_NONE
        }
    }

    /// IIR. Reading the THR-empty reason acknowledges it.
    fn identify_interrupt(&mut self) -> u8 {
        let reason = self.interrupt_reason();
        if reason == IIR_THR_EMPTY {
            self.thr_empty_due = false;
        }
        let fifos = if self.fcr & FCR_ENABLE != 0 {
            IIR_FIFOS
        } else {
            0
        };
        reason | fifos
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_fifo() -> Uart {
        let mut uart = Uart::new();
        uart.write(IIR_FCR, FCR_ENABLE);
        uart
    }

    #[test]
    fn transmitted_bytes_come_out_and_the_transmitter_is_always_ready() {
        let mut uart = Uart::new();
        assert_eq!(uart.read(LSR), LSR_THR_EMPTY | LSR_TRANSMITTER_EMPTY);
        assert_eq!(uart.write(DATA, b'x'), Some(b'x'));
        assert_eq!(uart.read(LSR), LSR_THR_EMPTY | LSR_TRANSMITTER_EMPTY);
    }

    #[test]
    fn received_bytes_are_read_in_order() {
        let mut uart = with_fifo();
        for byte in *b"abc" {
            uart.receive(byte);
        }
        assert_eq!(uart.read(LSR) & LSR_DATA_READY, LSR_DATA_READY);
        assert_eq!([uart.read(DATA), uart.read(DATA), uart.read(DATA)], *b"abc");
        assert_eq!(uart.read(LSR) & LSR_DATA_READY, 0);
    }

    #[test]
    fn overrun_loses_the_new_byte_with_fifos_and_the_old_one_without() {
        let mut uart = with_fifo();
        assert_eq!(uart.room(), 16);
        for byte in 0..17 {
            uart.receive(byte);
        }
        assert_eq!(uart.room(), 0);
        assert_eq!(uart.read(LSR) & LSR_OVERRUN, LSR_OVERRUN);
        assert_eq!(uart.read(LSR) & LSR_OVERRUN, 0, "cleared by reading");
        assert_eq!(
            (0..16).map(|_| uart.read(DATA)).collect::<Vec<_>>(),
            (0..16).collect::<Vec<_>>()
        );

        let mut uart = Uart::new();
        uart.receive(1);
        uart.receive(2);
        assert_eq!(uart.read(LSR) & LSR_OVERRUN, LSR_OVERRUN);
        assert_eq!(uart.read(DATA), 2);
    }

    #[test]
    fn divisor_latch_hides_data_and_ier() {
        let mut uart = Uart::new();
        uart.write(IER, 0x0f);
        uart.write(LCR, LCR_DLAB | 3);
        assert_eq!((uart.read(DATA), uart.read(IER)), (12, 0));
        assert_eq!(uart.write(DATA, 1), None);
        uart.write(IER, 2);
        assert_eq!((uart.read(DATA), uart.read(IER)), (1, 2));
        uart.write(LCR, 3);
        assert_eq!(uart.read(IER), 0x0f);
        assert_eq!(uart.read(LCR), 3);
    }

    #[test]
    fn fifo_control_shows_in_iir_and_resets_the_receiver() {
        let mut uart = Uart::new();
        assert_eq!(uart.read(IIR_FCR), IIR_NONE);
        uart.receive(b'a');
        uart.write(IIR_FCR, FCR_ENABLE);
        assert_eq!(uart.read(IIR_FCR), IIR_NONE | IIR_FIFOS);
        assert_eq!(uart.room(), 16, "switching FIFOs on empties the receiver");
        uart.receive(b'b');
        uart.write(IIR_FCR, FCR_ENABLE | FCR_RESET_RECEIVER);
        assert_eq!(uart.room(), 16);
        uart.write(IIR_FCR, 0xc0);
        assert_eq!((uart.room(), uart.read(IIR_FCR)), (1, IIR_NONE));
    }

    #[test]
    fn interrupts_come_in_order_of_priority() {
        let mut uart = with_fifo();
        uart.write(IIR_FCR, FCR_ENABLE | 0x40);
        uart.write(IER, IER_MASK);
        for byte in 0..17 {
            uart.receive(byte);
        }
        uart.write(MCR, MCR_LOOPBACK);
        let reason = |uart: &mut Uart| uart.read(IIR_FCR) & 0x0f;
        assert_eq!(reason(&mut uart), IIR_LINE_STATUS);
        uart.read(LSR);
        assert_eq!(reason(&mut uart), IIR_RECEIVED);
        for _ in 0..13 {
            uart.read(DATA);
        }
        assert_eq!(
            reason(&mut uart),
            IIR_TIMEOUT,
            "3 bytes are below the trigger of 4"
        );
        for _ in 0..3 {
            uart.read(DATA);
        }
        assert_eq!(reason(&mut uart), IIR_THR_EMPTY);
        assert_eq!(
            reason(&mut uart),
            IIR_MODEM_STATUS,
            "reading IIR acknowledged THR empty"
        );
        assert!(uart.interrupt());
        uart.read(MSR);
        assert_eq!(reason(&mut uart), IIR_NONE);
        assert!(!uart.interrupt());
    }

    #[test]
    fn thr_empty_interrupt_is_raised_by_enabling_and_by_sending() {
        let mut uart = Uart::new();
        uart.write(IER, IER_THR_EMPTY);
        assert!(uart.interrupt());
        assert_eq!(uart.read(IIR_FCR), IIR_THR_EMPTY);
        assert!(!uart.interrupt());
        uart.write(IER, IER_THR_EMPTY);
        assert!(!uart.interrupt(), "it was enabled before");
        uart.write(DATA, b'x');
        assert!(uart.interrupt());
    }

    #[test]
    fn loopback_connects_transmitter_and_modem_lines_inside() {
        let mut uart = with_fifo();
        assert_eq!(uart.read(MSR), MSR_DCD | MSR_DSR | MSR_CTS);
        uart.write(MCR, MCR_LOOPBACK | MCR_RTS | MCR_OUT2);
        // DSR fell; DCD and CTS are held by OUT2 and RTS.
        assert_eq!(uart.read(MSR), MSR_CTS | MSR_DCD | MSR_DELTA_DSR);
        assert_eq!(uart.write(DATA, 0x5a), None);
        uart.receive(0x11);
        assert_eq!(
            (uart.read(DATA), uart.read(LSR) & LSR_DATA_READY),
            (0x5a, 0)
        );
        uart.write(MCR, MCR_LOOPBACK | MCR_OUT1);
        uart.read(MSR);
        uart.write(MCR, MCR_LOOPBACK);
        assert_eq!(uart.read(MSR), MSR_TRAILING_RI);
    }

    #[test]
    fn scratch_register_keeps_its_value_and_lsr_ignores_writes() {
        let mut uart = Uart::new();
        uart.write(SCR, 0xa5);
        uart.write(LSR, 0xff);
        assert_eq!((uart.read(SCR), uart.read(LSR)), (0xa5, 0x60));
    }

    proptest! {
           #[test]
           fn any_sequence_keeps_the_fifo_bounded_and_status_consistent(
               ops in proptest::collection::vec((0u8..3, 0u16..16, any::<u8>()), 0..200),
           ) {
               let mut uart = Uart::new();
               for (kind, offset, value) in ops {
                   match kind {
                       0 => {
    uart.read(offset);
    }
                       1 => {
    uart.write(offset, value);
    }
                       _ => uart.receive(value),
                   }
                   prop_assert!(uart.received.len() <= FIFO_LEN);
                   let ready = uart.line_status() & LSR_DATA_READY != 0;
                   prop_assert_eq!(ready, !uart.received.is_empty());
                   prop_assert_eq!(uart.interrupt(), uart.interrupt_reason() & 1 == 0);
               }
           }
       }
}
