//! The memory bus: which device answers at a guest-physical address where no memory is.
//! Ranges come and go while the guest runs, for PCI BARs move.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use vmmapi::Gpa;

use crate::ranges::{Overlap, RangeMap};

/// A device with registers in memory. `offset` is the access' in the device's range; the
/// whole access is within it.
pub trait MmioDevice: Send + Sync {
    /// `size` is 1 to 8 bytes.
    fn read(&self, offset: u64, size: u8) -> u64;
    /// The value's bits above `size` are 0.
    fn write(&self, offset: u64, size: u8, value: u64);
}

/// What executes instructions asks: every access of 1 to 8 bytes, within one page.
pub trait MmioBus {
    /// `None`: no device is there.
    fn read(&self, gpa: Gpa, size: u8) -> Option<u64>;
    /// Whether a device took it.
    fn write(&self, gpa: Gpa, size: u8, value: u64) -> bool;
}

/// Two devices want the same addresses, or a range ends beyond the last one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MmioError {
    Taken { name: String, by: String, gpa: Gpa },
    BadRange { name: String, gpa: Gpa, len: u64 },
}

impl fmt::Display for MmioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { name, by, gpa } => write!(
                f,
                "{name} wants the guest-physical address {gpa:#x}, which belongs to {by}"
            ),
            Self::BadRange { name, gpa, len } => {
                write!(
                    f,
                    "{name} wants {len:#x} bytes at {gpa:#x}, which is no range"
                )
            }
        }
    }
}

/// All ranges.
#[derive(Default)]
pub struct MmioMap {
    ranges: RwLock<RangeMap<dyn MmioDevice>>,
}

impl MmioMap {
    /// Puts a device at `len` bytes from `gpa` on.
    pub fn register(
        &self,
        name: impl Into<String>,
        gpa: Gpa,
        len: u64,
        device: Arc<dyn MmioDevice>,
    ) -> Result<(), MmioError> {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        ranges
            .insert(name.into(), gpa.get(), len, device)
            .map_err(|overlap| match overlap {
                Overlap::Taken { name, by, at } => MmioError::Taken {
                    name,
                    by,
                    gpa: Gpa(at),
                },
                Overlap::NoAddress { name } => MmioError::BadRange { name, gpa, len },
            })
    }

    /// Takes the device away whose range begins at `gpa`; whether one did. An access that
    /// another vcpu is in the middle of still ends at the device.
    pub fn unregister(&self, gpa: Gpa) -> bool {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        ranges.remove(gpa.get())
    }

    /// The device that has all `size` bytes at `gpa`, and the offset in it. The lock is
    /// free again when it is called: a device may move ranges.
    fn find(&self, gpa: Gpa, size: u8) -> Option<(Arc<dyn MmioDevice>, u64)> {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let (device, offset) = ranges.find(gpa.get(), size.into())?;
        Some((Arc::clone(device), offset))
    }
}

impl MmioBus for MmioMap {
    fn read(&self, gpa: Gpa, size: u8) -> Option<u64> {
        let (device, offset) = self.find(gpa, size)?;
        Some(device.read(offset, size) & mask(size))
    }

    fn write(&self, gpa: Gpa, size: u8, value: u64) -> bool {
        let Some((device, offset)) = self.find(gpa, size) else {
            return false;
        };
        device.write(offset, size, value & mask(size));
        true
    }
}

/// The bits of a value of that many bytes.
fn mask(size: u8) -> u64 {
    match size {
        0 => 0,
        1..=7 => (1 << (u32::from(size) * 8)) - 1,
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Answers reads with all ones and keeps the writes.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<(u64, u8, u64)>>);

    impl MmioDevice for Recorder {
        fn read(&self, offset: u64, _size: u8) -> u64 {
            u64::MAX - offset
        }
        fn write(&self, offset: u64, size: u8, value: u64) {
            self.0.lock().unwrap().push((offset, size, value));
        }
    }

    #[test]
    fn accesses_reach_the_device_with_their_offset_and_only_their_bits() {
        let (map, device) = (MmioMap::default(), Arc::new(Recorder::default()));
        map.register("r", Gpa(0xc000_0000), 0x1000, device.clone())
            .unwrap();
        assert_eq!(map.read(Gpa(0xc000_0004), 4), Some(0xffff_fffb));
        assert_eq!(map.read(Gpa(0xc000_0000), 8), Some(u64::MAX));
        assert!(map.write(Gpa(0xc000_0ffe), 2, 0x1234_5678));
        assert_eq!(*device.0.lock().unwrap(), [(0xffe, 2, 0x5678)]);
    }

    #[test]
    fn accesses_outside_or_across_the_end_find_nobody() {
        let map = MmioMap::default();
        let device = Arc::new(Recorder::default());
        map.register("r", Gpa(0x1000), 0x10, device.clone())
            .unwrap();
        assert_eq!(map.read(Gpa(0xfff), 1), None);
        assert_eq!(map.read(Gpa(0x100e), 4), None);
        assert!(!map.write(Gpa(0x1010), 1, 0));
        assert!(map.unregister(Gpa(0x1000)));
        assert!(!map.unregister(Gpa(0x1000)));
        assert_eq!(map.read(Gpa(0x1000), 1), None);
        assert!(device.0.lock().unwrap().is_empty());
    }

    #[test]
    fn ranges_that_overlap_or_wrap_are_refused_by_name() {
        let map = MmioMap::default();
        let device = || Arc::new(Recorder::default());
        map.register("first", Gpa(0x2000), 0x1000, device())
            .unwrap();
        for (gpa, len, taken) in [
            (0x1000, 0x1001, 0x2000),
            (0x2fff, 1, 0x2fff),
            (0, 0x9000, 0x2000),
        ] {
            assert_eq!(
                map.register("second", Gpa(gpa), len, device()),
                Err(MmioError::Taken {
                    name: "second".to_owned(),
                    by: "first".to_owned(),
                    gpa: Gpa(taken)
                })
            );
        }
        map.register("below", Gpa(0x1000), 0x1000, device())
            .unwrap();
        map.register("above", Gpa(0x3000), 0x1000, device())
            .unwrap();
        for (gpa, len) in [(0x8000, 0), (u64::MAX, 2)] {
            assert!(matches!(
                map.register("odd", Gpa(gpa), len, device()),
                Err(MmioError::BadRange { .. })
            ));
        }
    }
}
