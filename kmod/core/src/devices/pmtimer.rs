//! The ACPI power-management timer (ACPI 6.5, 4.8.3.3): a counter of 3.579545 MHz that
//! never stops. 32 bits wide, which the FADT has to say (TMR_VAL_EXT).

use super::Nanos;
use super::frequency::Frequency;

const PM_TIMER: Frequency = Frequency(3_579_545);

/// The timer.
pub struct PmTimer {
    epoch: Nanos,
}

impl PmTimer {
    /// Counting from 0.
    pub const fn new(now: Nanos) -> Self {
        Self { epoch: now }
    }

    /// The TMR_VAL register.
    pub const fn read(&self, now: Nanos) -> u32 {
        PM_TIMER.ticks(now.since(self.epoch)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::{Nanos, PmTimer};

    #[test]
    fn it_counts_3579545_times_a_second_from_power_on() {
        let timer = PmTimer::new(Nanos(5_000_000_000));
        assert_eq!(timer.read(Nanos(5_000_000_000)), 0);
        assert_eq!(timer.read(Nanos(6_000_000_000)), 3_579_545);
        // Table 5-34's period: 279.365 ns.
        assert_eq!(timer.read(Nanos(5_000_000_279)), 0);
        assert_eq!(timer.read(Nanos(5_000_000_280)), 1);
    }

    #[test]
    fn it_uses_all_32_bits_and_wraps() {
        let timer = PmTimer::new(Nanos(0));
        // 1199 s: 4,291,874,455 ticks, above 2^24 and just below 2^32.
        assert_eq!(timer.read(Nanos(1_199_000_000_000)), 4_291_874_455);
        assert_eq!(
            timer.read(Nanos(1_200_000_000_000)),
            (1200u64 * 3_579_545 - (1 << 32)) as u32
        );
    }
}
