//! One of the HPET's comparators (IA-PC HPET 1.0a, 2.3.8 to 2.3.10).

use super::Route;

/// The timer. Its values are compared modulo its width.
#[derive(Clone, Copy)]
pub struct Timer {
    config: u64,
    /// In periodic mode the next value; it moves on by `period`.
    comparator: u64,
    period: u64,
    /// A value set with VAL_SET, until the period is written by itself.
    first: Option<u64>,
    /// The FSB interrupt route register: the data below, the address above.
    fsb: u64,
    /// The line that its status bit holds.
    pub line: Option<Route>,
}

// Registers, from the start of the timer's.
pub const CONFIG: u64 = 0x00;
pub const COMPARATOR: u64 = 0x08;
const FSB_ROUTE: u64 = 0x10;

// The configuration and capabilities register.
const INT_TYPE_LEVEL: u64 = 1 << 1;
const INT_ENB: u64 = 1 << 2;
const TYPE_PERIODIC: u64 = 1 << 3;
const PER_INT_CAP: u64 = 1 << 4;
const SIZE_CAP: u64 = 1 << 5;
const VAL_SET: u64 = 1 << 6;
const MODE_32: u64 = 1 << 8;
const INT_ROUTE: u64 = 0x1f << 9;
const FSB_EN: u64 = 1 << 14;
const FSB_INT_DEL_CAP: u64 = 1 << 15;
/// The I/O APIC's inputs 24 to 31, which no ISA or PCI interrupt uses.
const INT_ROUTE_CAP: u64 = 0xff00_0000 << 32;
const WRITABLE: u64 =
    INT_TYPE_LEVEL | INT_ENB | TYPE_PERIODIC | VAL_SET | MODE_32 | INT_ROUTE | FSB_EN;

impl Timer {
    pub const fn new() -> Self {
        Self {
            config: INT_ROUTE_CAP | FSB_INT_DEL_CAP | SIZE_CAP | PER_INT_CAP,
            comparator: u64::MAX,
            period: 0,
            first: None,
            fsb: 0,
            line: None,
        }
    }

    pub const fn read(&self, offset: u64) -> u64 {
        match offset {
            CONFIG => self.config,
            COMPARATOR => self.comparator & self.width(),
            FSB_ROUTE => self.fsb,
            _ => 0,
        }
    }

    pub fn set_config(&mut self, value: u64) {
        self.config = self.config & !WRITABLE | value & WRITABLE;
        if self
            .route()
            .is_some_and(|pin| INT_ROUTE_CAP >> 32 & 1 << pin == 0)
        {
            self.config &= !INT_ROUTE;
        }
        if !self.is_periodic() {
            self.period = 0;
            self.first = None;
        }
        self.comparator &= self.width();
        self.period &= self.width();
    }

    /// A store to the comparator: `merge` makes the new register of the old. In periodic
    /// mode it is the period, and the next value too if VAL_SET says so.
    pub fn set_comparator(&mut self, merge: impl Fn(u64) -> u64) {
        if !self.is_periodic() {
            self.comparator = merge(self.comparator) & self.width();
        } else if self.config & VAL_SET != 0 {
            self.period = merge(self.period) & self.width();
            self.comparator = merge(self.comparator) & self.width();
            self.first = Some(self.comparator);
        } else {
            self.period = merge(self.period) & self.width();
            // The value may have been passed with the first store's period, which wasn't
            // meant as one.
            self.comparator = self.first.take().unwrap_or(self.comparator);
        }
        self.config &= !VAL_SET;
    }

    pub fn set_fsb(&mut self, value: u64) {
        self.fsb = value;
    }

    /// How far the counter is from the comparator's value.
    pub const fn until(&self, counter: u64) -> u64 {
        self.comparator.wrapping_sub(counter) & self.width()
    }

    /// After a match: the next value beyond the counter, if periodic.
    pub fn reload(&mut self, counter: u64) {
        let behind = counter.wrapping_sub(self.comparator) & self.width();
        if let Some(periods) = behind.checked_div(self.period) {
            self.comparator = periods
                .wrapping_add(1)
                .wrapping_mul(self.period)
                .wrapping_add(self.comparator)
                & self.width();
        }
    }

    /// The same for a comparator that a match can't reach soon: it lies behind the counter.
    pub fn catch_up(&mut self, counter: u64) {
        let behind = counter.wrapping_sub(self.comparator) & self.width();
        if self.is_periodic() && behind <= self.width() / 2 {
            self.reload(counter);
        }
    }

    pub const fn is_periodic(&self) -> bool {
        self.config & TYPE_PERIODIC != 0
    }

    pub const fn is_level(&self) -> bool {
        self.config & INT_TYPE_LEVEL != 0
    }

    pub const fn interrupts(&self) -> bool {
        self.config & INT_ENB != 0
    }

    pub const fn by_message(&self) -> bool {
        self.config & FSB_EN != 0
    }

    /// Address and data.
    pub const fn message(&self) -> (u32, u32) {
        ((self.fsb >> 32) as u32, self.fsb as u32)
    }

    /// The I/O APIC's input; 0 is none.
    pub const fn route(&self) -> Option<u8> {
        match (self.config & INT_ROUTE) >> INT_ROUTE.trailing_zeros() {
            0 => None,
            pin => Some(pin as u8),
        }
    }

    const fn width(&self) -> u64 {
        if self.config & MODE_32 != 0 {
            u32::MAX as u64
        } else {
            u64::MAX
        }
    }
}
