//! Leaves 15H and 16H: the frequencies of the guest's clocks (SDM vol. 3B, 18.18.3), so that
//! no guest has to measure its TSC against a timer whose interrupts may come late.
//!
//! The core crystal is the clock of the local APIC's timer, and guests take it for that. So
//! it is the timer's as it is here, and the host's own leaves say nothing.

use super::CpuidRegs;
use crate::devices::lapic::TIMER_HZ;

/// The largest ratio of TSC to crystal that guests can compute with in 32 bits: they
/// multiply the crystal's kHz by it.
const MAX_RATIO: u64 = u32::MAX as u64 / (TIMER_HZ / 1000);

/// Leaf 15H: EBX / EAX is the TSC's frequency in crystals, ECX the crystal's.
pub fn crystal(tsc_hz: u64) -> CpuidRegs {
    let (numerator, denominator) = approximate(tsc_hz, TIMER_HZ, MAX_RATIO);
    if numerator == 0 {
        return CpuidRegs::default();
    }
    CpuidRegs {
        eax: denominator as u32,
        ebx: numerator as u32,
        ecx: TIMER_HZ as u32,
        edx: 0,
    }
}

/// Leaf 16H: base, maximum and bus frequency in MHz.
pub fn processor(tsc_hz: u64) -> CpuidRegs {
    const BUS_MHZ: u32 = 100;
    // Each has 16 bits.
    let mhz = (tsc_hz.saturating_add(500_000) / 1_000_000).min(0xffff) as u32;
    CpuidRegs {
        eax: mhz,
        ebx: mhz,
        ecx: BUS_MHZ,
        edx: 0,
    }
}

/// The fraction nearest to `n / d` among its continued fraction's convergents whose parts
/// are at most `max`; 0 / 1 if there is none above 0.
fn approximate(mut n: u64, mut d: u64, max: u64) -> (u64, u64) {
    let (mut before, mut last) = ((0, 1), (1, 0));
    while let Some(whole) = n.checked_div(d) {
        let next = (
            whole.saturating_mul(last.0).saturating_add(before.0),
            whole.saturating_mul(last.1).saturating_add(before.1),
        );
        if next.0 > max || next.1 > max {
            break;
        }
        (before, last) = (last, next);
        (n, d) = (d, n % d);
    }
    if last.1 == 0 { (0, 1) } else { last }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_find_the_tsc_within_ten_millionths() {
        for hz in [
            100_000_000,
            128_000_000,
            999_999_999,
            2_399_998_765,
            2_400_000_000,
            2_994_373_000,
            3_312_001_000,
            5_800_123_456,
        ] {
            let leaf = crystal(hz);
            // As Linux computes it, in kHz and 32 bits.
            let khz = (leaf.ecx / 1000).checked_mul(leaf.ebx).unwrap() / leaf.eax;
            let error = (u64::from(khz) * 1000).abs_diff(hz);
            assert!(error <= hz / 100_000 + 1000, "{hz}: {khz} kHz");
        }
        assert_eq!(crystal(100_000_000).ebx, 25);
        assert_eq!(crystal(100_000_000).eax, 32);
        assert_eq!(crystal(100_000_000).ecx, 128_000_000);
        assert_eq!(crystal(0), CpuidRegs::default());
        assert_eq!(crystal(u64::MAX), CpuidRegs::default());
    }

    #[test]
    fn megahertz() {
        let leaf = processor(2_399_998_765);
        assert_eq!((leaf.eax, leaf.ebx, leaf.ecx), (2400, 2400, 100));
        assert_eq!(processor(u64::MAX).eax, 0xffff);
    }
}
