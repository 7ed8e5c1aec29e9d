//! One counter of the 8254 (Intel 231164, "Mode definitions"). Nothing is stepped: what the
//! counting element holds and what OUT shows follows from when it was loaded, with how
//! much, and what time it is.

/// The number of an input clock. A count that is written in one tick is loaded with the
/// next, so a tick may be compared with one that is yet to come.
pub type Tick = i64;

/// The counter.
#[derive(Clone, Copy)]
pub struct Counter {
    /// The control word, as status shows it.
    control: u8,
    mode: Mode,
    access: Access,
    gate: bool,
    state: State,
    /// What was loaded into the counting element: 1 to 65536.
    loaded: Tick,
    /// What was written into the count register, once it is complete.
    written: Option<Tick>,
    /// OUT between a trigger and the clock that loads the count, in mode 1.
    out_till_loaded: bool,
    /// The count register waits for a trigger to be loaded.
    unloaded: bool,
    /// Modes 2 and 3: the count that takes over at the end of the current (half) cycle.
    next: Option<Next>,
    /// The first byte of two.
    low_byte: Option<u8>,
    count_latch: Option<u16>,
    status_latch: Option<u8>,
    /// Of two bytes the high one is read next.
    read_high: bool,
}

/// The six modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    TerminalCount,
    OneShot,
    RateGenerator,
    SquareWave,
    SoftwareStrobe,
    HardwareStrobe,
}

impl Mode {
    /// From bits 3 to 1 of the control word, whose upper one modes 2 and 3 ignore.
    const fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::TerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::RateGenerator,
            3 | 7 => Self::SquareWave,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    const fn is_periodic(self) -> bool {
        matches!(self, Self::RateGenerator | Self::SquareWave)
    }

    /// Whether GATE's rising edge starts it.
    const fn is_triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }
}

/// Which bytes of a count are read and written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Low,
    High,
    Both,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No control word yet: it counts, but with no effect.
    Unprogrammed,
    /// It stands at this value of the counting element.
    Stopped { count: Tick },
    /// GATE holds it, so many ticks after it was loaded.
    Paused { elapsed: Tick },
    /// It was, or will be, loaded at this tick.
    Running { from: Tick },
}

/// A count to take over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Next {
    at: Tick,
    /// As if it had been loaded then: earlier than `at` if OUT's low half begins.
    from: Tick,
    count: Tick,
}

const STATUS_OUT: u8 = 1 << 7;
const STATUS_NULL_COUNT: u8 = 1 << 6;
const CONTROL_BCD: u8 = 1 << 0;
const BINARY_MODULUS: Tick = 0x1_0000;
const BCD_MODULUS: Tick = 10_000;

impl Counter {
    pub const fn new(gate: bool) -> Self {
        Self {
            control: 0,
            mode: Mode::TerminalCount,
            access: Access::Both,
            gate,
            state: State::Unprogrammed,
            loaded: BINARY_MODULUS,
            written: None,
            out_till_loaded: true,
            unloaded: true,
            next: None,
            low_byte: None,
            count_latch: None,
            status_latch: None,
            read_high: false,
        }
    }

    /// A control word other than the read-back command.
    pub fn control(&mut self, value: u8, now: Tick) {
        let access = match value >> 4 & 3 {
            0 => return self.latch_count(now),
            1 => Access::Low,
            2 => Access::High,
            _ => Access::Both,
        };
        let count = self.count(now);
        *self = Self {
            control: value & 0x3f,
            mode: Mode::from_bits(value >> 1),
            access,
            state: State::Stopped { count },
            loaded: self.loaded,
            ..Self::new(self.gate)
        };
    }

    /// The counter latch command; a count that is latched and not read stays.
    pub fn latch_count(&mut self, now: Tick) {
        if self.count_latch.is_none() {
            self.count_latch = Some(self.digits(now));
        }
    }

    /// The read-back command's status.
    pub fn latch_status(&mut self, now: Tick) {
        if self.status_latch.is_none() {
            self.status_latch = Some(self.status(now));
        }
    }

    pub fn read(&mut self, now: Tick) -> u8 {
        if let Some(status) = self.status_latch.take() {
            return status;
        }
        let [low, high] = self
            .count_latch
            .unwrap_or_else(|| self.digits(now))
            .to_le_bytes();
        let first_of_two = self.access == Access::Both && !self.read_high;
        self.read_high = first_of_two;
        if first_of_two {
            return low;
        }
        self.count_latch = None;
        match self.access {
            Access::Low => low,
            Access::High | Access::Both => high,
        }
    }

    pub fn write(&mut self, value: u8, now: Tick) {
        let bytes = match (self.access, self.low_byte.take()) {
            (Access::Low, _) => [value, 0],
            (Access::High, _) => [0, value],
            (Access::Both, Some(low)) => [low, value],
            (Access::Both, None) => {
                self.low_byte = Some(value);
                if self.mode == Mode::TerminalCount && self.state != State::Unprogrammed {
                    // The first byte stops it and OUT goes low.
                    let count = self.count(now);
                    self.state = State::Stopped { count };
                }
                return;
            }
        };
        if self.state != State::Unprogrammed {
            let count = self.decode(u16::from_le_bytes(bytes));
            self.written = Some(count);
            self.load(count, now);
        }
    }

    /// GATE's level changes or doesn't.
    pub fn set_gate(&mut self, high: bool, now: Tick) {
        let rises = high && !self.gate;
        let falls = !high && self.gate;
        self.gate = high;
        match (self.mode, self.state) {
            (Mode::TerminalCount | Mode::SoftwareStrobe, State::Running { from }) if falls => {
                let mut elapsed = (now - from).max(0);
                if elapsed >= self.loaded {
                    // GATE doesn't hold a strobe low.
                    elapsed = elapsed.max(self.loaded + 1);
                }
                self.state = State::Paused { elapsed };
            }
            (Mode::TerminalCount | Mode::SoftwareStrobe, State::Paused { elapsed }) if rises => {
                self.state = State::Running {
                    from: now - elapsed,
                };
            }
            (Mode::RateGenerator | Mode::SquareWave, State::Running { .. }) if falls => {
                let count = self.count(now);
                self.state = State::Stopped { count };
                self.unloaded |= self.next.take().is_some();
            }
            (mode, State::Stopped { .. } | State::Running { .. })
                if rises && (mode.is_periodic() || mode.is_triggered()) =>
            {
                if let Some(count) = self.written {
                    self.start(count, now);
                }
            }
            _ => {}
        }
    }

    /// OUT's level.
    pub fn out(&self, now: Tick) -> bool {
        let (from, n) = self.loaded_at(now);
        let elapsed = match (self.state, from) {
            (State::Unprogrammed, _) => return true,
            (State::Paused { elapsed }, _) => elapsed,
            (State::Running { .. }, Some(from)) => now - from,
            _ => return self.mode != Mode::TerminalCount,
        };
        match self.mode {
            Mode::TerminalCount => elapsed >= n,
            Mode::OneShot if elapsed < 0 => self.out_till_loaded,
            _ if elapsed < 0 => true,
            Mode::OneShot => elapsed >= n,
            Mode::RateGenerator => elapsed % n != n - 1,
            Mode::SquareWave => elapsed % n < high_half(n),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => elapsed != n,
        }
    }

    /// The first tick after `after` with which OUT rises, as far as is programmed.
    pub fn next_rise(&self, after: Tick) -> Option<Tick> {
        let State::Running { from } = self.state else {
            return None;
        };
        match self.next {
            Some(next) => {
                let rise = rise(self.mode, from, self.loaded, after);
                rise.filter(|&at| at <= next.at)
                    .or_else(|| rise_of(self.mode, next, after))
            }
            None => rise(self.mode, from, self.loaded, after),
        }
    }

    /// Time has come to `now`: a waiting count takes over if its turn has come.
    pub fn settle(&mut self, now: Tick) {
        if let Some(next) = self.next.filter(|next| next.at <= now) {
            self.state = State::Running { from: next.from };
            self.loaded = next.count;
            self.next = None;
        }
    }

    /// A count has been written.
    fn load(&mut self, count: Tick, now: Tick) {
        match (self.mode, self.state) {
            (Mode::OneShot | Mode::HardwareStrobe, _) => self.unloaded = true,
            (Mode::TerminalCount | Mode::SoftwareStrobe, _) if self.gate => self.start(count, now),
            (Mode::TerminalCount | Mode::SoftwareStrobe, _) => {
                self.loaded = count;
                self.unloaded = false;
                self.state = State::Paused { elapsed: 0 };
            }
            (Mode::RateGenerator | Mode::SquareWave, State::Running { from }) if from <= now => {
                self.next = Some(self.takeover(from, count, now));
            }
            (Mode::RateGenerator | Mode::SquareWave, _) if self.gate => self.start(count, now),
            (Mode::RateGenerator | Mode::SquareWave, _) => self.unloaded = true,
        }
    }

    /// The counting element is loaded with the next clock and counts.
    fn start(&mut self, count: Tick, now: Tick) {
        self.out_till_loaded = self.out(now);
        self.loaded = count;
        self.unloaded = false;
        self.next = None;
        self.state = State::Running { from: now + 1 };
    }

    /// When a new count takes over from the running one: at the end of the cycle in mode
    /// 2, of the half cycle in mode 3.
    fn takeover(&self, from: Tick, count: Tick, now: Tick) -> Next {
        let phase = (now - from) % self.loaded;
        let cycle = now - phase;
        let half = high_half(self.loaded);
        if self.mode == Mode::SquareWave && phase < half {
            let at = cycle + half;
            Next {
                at,
                from: at - high_half(count),
                count,
            }
        } else {
            let at = cycle + self.loaded;
            Next {
                at,
                from: at,
                count,
            }
        }
    }

    /// Since when what is counted, a waiting count included.
    fn loaded_at(&self, now: Tick) -> (Option<Tick>, Tick) {
        match (self.state, self.next) {
            (State::Running { .. }, Some(next)) if next.at <= now => (Some(next.from), next.count),
            (State::Running { from }, _) => (Some(from), self.loaded),
            _ => (None, self.loaded),
        }
    }

    /// The counting element's value, 0 to 65536.
    fn count(&self, now: Tick) -> Tick {
        let (from, n) = self.loaded_at(now);
        let elapsed = match (self.state, from) {
            (State::Unprogrammed, _) => now,
            (State::Stopped { count }, _) => return count,
            (State::Paused { elapsed }, _) => elapsed,
            (State::Running { .. }, from) => (now - from.unwrap_or(now)).max(0),
        };
        match self.mode {
            Mode::RateGenerator => n - elapsed % n,
            Mode::SquareWave => {
                let half = high_half(n);
                let phase = elapsed % n;
                let step = if phase < half { phase } else { phase - half };
                // An odd count is loaded as the even one below it.
                n - n % 2 - 2 * step
            }
            _ => (n - elapsed).rem_euclid(self.modulus()),
        }
    }

    /// The value as 16 bits, in the counter's digits.
    fn digits(&self, now: Tick) -> u16 {
        let count = self.count(now) % self.modulus();
        if self.control & CONTROL_BCD == 0 {
            return count as u16;
        }
        let digit = |unit: Tick| (count / unit % 10) as u16;
        digit(1000) << 12 | digit(100) << 8 | digit(10) << 4 | digit(1)
    }

    /// A written count: 0 is the largest. Modes 2 and 3 don't know a count of 1.
    fn decode(&self, written: u16) -> Tick {
        let value = if self.control & CONTROL_BCD == 0 {
            Tick::from(written)
        } else {
            let digit = |shift: u16| Tick::from(written >> shift & 0xf);
            (digit(12) * 1000 + digit(8) * 100 + digit(4) * 10 + digit(0)) % BCD_MODULUS
        };
        match value {
            0 => self.modulus(),
            1 if self.mode.is_periodic() => 2,
            count => count,
        }
    }

    const fn modulus(&self) -> Tick {
        if self.control & CONTROL_BCD == 0 {
            BINARY_MODULUS
        } else {
            BCD_MODULUS
        }
    }

    fn status(&self, now: Tick) -> u8 {
        let to_be_loaded = matches!(self.state, State::Running { from } if from > now);
        let mut status = self.control;
        if self.out(now) {
            status |= STATUS_OUT;
        }
        if self.unloaded || to_be_loaded || self.next.is_some_and(|next| next.at > now) {
            status |= STATUS_NULL_COUNT;
        }
        status
    }
}

/// How much of a square wave's cycle OUT is high.
const fn high_half(n: Tick) -> Tick {
    (n + 1) / 2
}

/// The first tick after `after` with which OUT rises, if `n` was loaded at `from`.
fn rise(mode: Mode, from: Tick, n: Tick, after: Tick) -> Option<Tick> {
    let once = |at: Tick| (at > after).then_some(at);
    match mode {
        Mode::TerminalCount | Mode::OneShot => once(from + n),
        Mode::SoftwareStrobe | Mode::HardwareStrobe => once(from + n + 1),
        Mode::RateGenerator | Mode::SquareWave => {
            let cycles = (after - from).div_euclid(n).max(0) + 1;
            Some(from + cycles * n)
        }
    }
}

/// The same of a count that takes over.
fn rise_of(mode: Mode, next: Next, after: Tick) -> Option<Tick> {
    rise(mode, next.from, next.count, after.max(next.at))
}
