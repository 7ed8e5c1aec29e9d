//! What firmware leaves in the real-time clock (rtc_init() of bhyve): the date, and in its
//! NVRAM the sizes of memory, where UEFI's OvmfPkg and older loaders look for them.

#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime};

use vmmapi::Vm;

use super::FirmwareError;
use crate::platform;

/// Memory from 16 MiB to 4 GiB, in units of 64 KiB, little-endian.
const LOW: [u8; 2] = [0x34, 0x35];
const LOW_FROM: u64 = 16 << 20;
/// Memory from 4 GiB on, likewise.
const HIGH: [u8; 3] = [0x5b, 0x5c, 0x5d];
const UNIT: u64 = 64 << 10;

/// Sets date and sizes. The clock of a PC shows local time by habit, or UTC (-u). A kernel
/// without an RTC is left alone.
pub fn rtc_init(vm: &Vm, utc: bool) -> Result<(), FirmwareError> {
    match set(vm, utc) {
        Err(error) if !error.is(libc::ENXIO) => Err(FirmwareError::Kernel(error)),
        _ => Ok(()),
    }
}

fn set(vm: &Vm, utc: bool) -> Result<(), vmmapi::Error> {
    for (offset, value) in nvram(vm.lowmem_size(), vm.highmem_size()) {
        vm.rtc_write(offset, value)?;
    }
    let now = SystemTime::now();
    let offset = if utc { 0 } else { platform::utc_offset() };
    vm.rtc_settime(shifted(now, offset))
}

/// The bytes of the sizes and their places.
fn nvram(lowmem: u64, highmem: u64) -> Vec<(u8, u8)> {
    let low = lowmem.saturating_sub(LOW_FROM) / UNIT;
    let high = highmem / UNIT;
    let bytes = |places: &'static [u8], value: u64| places.iter().copied().zip(value.to_le_bytes());
    bytes(&LOW, low).chain(bytes(&HIGH, high)).collect()
}

fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let shifted = if seconds < 0 {
        time.checked_sub(by)
    } else {
        time.checked_add(by)
    };
    shifted.unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_units_of_64_kib() {
        assert_eq!(
            nvram(3 << 30, 5 << 30),
            [
                (0x34, 0x00),
                (0x35, 0xbf),
                (0x5b, 0x00),
                (0x5c, 0x40),
                (0x5d, 0x01)
            ]
        );
        assert_eq!(nvram(17 << 20, 0)[..2], [(0x34, 0x10), (0x35, 0)]);
        assert!(nvram(1 << 20, 0).iter().all(|(_, value)| *value == 0));
    }

    #[test]
    fn local_time_is_ahead_of_utc_or_behind() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(43_200);
        let seconds = |offset| {
            let shifted = shifted(noon, offset);
            shifted
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs()
        };
        assert_eq!(
            (seconds(3600), seconds(-7200), seconds(0)),
            (46_800, 36_000, 43_200)
        );
    }
}
