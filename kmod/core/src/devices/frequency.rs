//! A clock's frequency: how many ticks it makes in a time, and when a tick comes.

/// Ticks per second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frequency(pub u64);

const NANOS_PER_SEC: u128 = 1_000_000_000;

impl Frequency {
    /// Whole ticks within `ns` nanoseconds.
    pub const fn ticks(self, ns: u64) -> u64 {
        saturate(ns as u128 * self.0 as u128 / NANOS_PER_SEC)
    }

    /// The nanoseconds until `ticks` ticks have been made, rounded up: [`Self::ticks`] of
    /// it is at least `ticks`. `u64::MAX` stands for all that is longer, too.
    pub const fn nanos(self, ticks: u64) -> u64 {
        saturate((ticks as u128 * NANOS_PER_SEC).div_ceil(self.0 as u128))
    }
}

const fn saturate(value: u128) -> u64 {
    if value > u64::MAX as u128 {
        u64::MAX
    } else {
        value as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Frequency;

    #[test]
    fn a_tick_has_come_when_nanos_says_so_and_not_a_nanosecond_earlier() {
        for hz in [1, 32_768, 1_193_182, 3_579_545, 1 << 24, 3_000_000_000] {
            let f = Frequency(hz);
            for tick in [1, 2, 3, 1000, 65_536, 123_456_789, 1 << 33] {
                let at = f.nanos(tick);
                assert!(f.ticks(at) >= tick, "{hz} Hz, tick {tick}");
                assert!(f.ticks(at - 1) < tick, "{hz} Hz, tick {tick}");
            }
        }
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        assert_eq!(Frequency(1).nanos(u64::MAX), u64::MAX);
        assert_eq!(Frequency(3_000_000_000).ticks(u64::MAX), u64::MAX);
    }
}
