//! The I/O port bus (init_inout() of bhyve, step (8)): which device answers which port.
//!
//! A device says how wide an access it takes whole. A wider one, or one that leaves the
//! device's ports, is split into halves down to bytes on consecutive ports, as an ISA bus
//! does. Ports without a device read as all ones and ignore writes.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::ranges::{Overlap, RangeMap};

/// How many ports there are.
const PORTS: u32 = 1 << 16;

/// The width of one access.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Width {
    Byte = 1,
    Word = 2,
    Dword = 4,
}

impl Width {
    pub const fn bytes(self) -> u16 {
        self as u16
    }

    /// From a number of bytes.
    pub const fn from_bytes(bytes: u8) -> Option<Self> {
        Some(match bytes {
            1 => Self::Byte,
            2 => Self::Word,
            4 => Self::Dword,
            _ => return None,
        })
    }

    /// The bits of a value that an access of this width carries.
    pub const fn mask(self) -> u32 {
        u32::MAX >> (32 - 8 * self.bytes())
    }

    const fn half(self) -> Option<Self> {
        match self {
            Self::Byte => None,
            Self::Word => Some(Self::Byte),
            Self::Dword => Some(Self::Word),
        }
    }
}

/// A device on the bus. It is shared by all vcpus and keeps its own lock; `offset` counts
/// from the first port of the range it was registered for.
pub trait PortDevice: Send + Sync {
    /// The widest access that it takes whole.
    fn widest(&self) -> Width {
        Width::Byte
    }
    fn read(&self, offset: u16, width: Width) -> u32;
    fn write(&self, offset: u16, width: Width, value: u32);
}

/// Two devices want the same port, or a range ends beyond the last one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RegisterError {
    Taken { name: String, by: String, port: u64 },
    BeyondLastPort { name: String },
    NoPort { name: String },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { name, by, port } => {
                write!(
                    f,
                    "{name} wants I/O port {port:#06x}, which belongs to {by}"
                )
            }
            Self::BeyondLastPort { name } => write!(f, "{name} wants I/O ports beyond 0xffff"),
            Self::NoPort { name } => write!(f, "{name} wants no I/O port at all"),
        }
    }
}

/// All ranges. They come and go while the guest runs, as it moves and enables PCI BARs.
#[derive(Default)]
pub struct PortBus {
    ranges: RwLock<RangeMap<dyn PortDevice>>,
}

impl PortBus {
    /// Puts a device at `len` ports from `first` on.
    pub fn register(
        &self,
        name: impl Into<String>,
        first: u16,
        len: u16,
        device: Arc<dyn PortDevice>,
    ) -> Result<(), RegisterError> {
        let name = name.into();
        if u32::from(first) + u32::from(len) > PORTS {
            return Err(RegisterError::BeyondLastPort { name });
        }
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        ranges
            .insert(name, first.into(), len.into(), device)
            .map_err(|overlap| match overlap {
                Overlap::Taken { name, by, at } => RegisterError::Taken { name, by, port: at },
                Overlap::NoAddress { name } => RegisterError::NoPort { name },
            })
    }

    /// Takes away the range that begins at that port.
    pub fn unregister(&self, first: u16) {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        ranges.remove(first.into());
    }

    /// IN. `None` when no device answers any part of it.
    pub fn read(&self, port: u16, width: Width) -> Option<u32> {
        if let Some((device, offset)) = self.whole(port, width) {
            return Some(device.read(offset, width) & width.mask());
        }
        let half = width.half()?;
        let low = self.read(port, half);
        let high = port
            .checked_add(half.bytes())
            .and_then(|port| self.read(port, half));
        if low.is_none() && high.is_none() {
            return None;
        }
        let or_ones = |value: Option<u32>| value.unwrap_or(half.mask());
        Some(or_ones(low) | or_ones(high) << (8 * half.bytes()))
    }

    /// OUT. False when no device takes any part of it.
    pub fn write(&self, port: u16, width: Width, value: u32) -> bool {
        if let Some((device, offset)) = self.whole(port, width) {
            device.write(offset, width, value & width.mask());
            return true;
        }
        let Some(half) = width.half() else {
            return false;
        };
        let low = self.write(port, half, value);
        let high = port
            .checked_add(half.bytes())
            .is_some_and(|port| self.write(port, half, value >> (8 * half.bytes())));
        low || high
    }

    /// The device that takes all of this access at once, and the offset in it. The bus is
    /// not locked while the device works, for that may move ranges.
    fn whole(&self, port: u16, width: Width) -> Option<(Arc<dyn PortDevice>, u16)> {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let (device, offset) = ranges.find(port.into(), width.bytes().into())?;
        // A range of ports is no longer than 65536.
        let offset = u16::try_from(offset).ok()?;
        (width <= device.widest()).then(|| (Arc::clone(device), offset))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;

    /// Answers each port with its offset and notes what is written.
    #[derive(Default)]
    pub struct Recorder {
        pub widest: Option<Width>,
        pub writes: Mutex<Vec<(u16, Width, u32)>>,
    }

    impl PortDevice for Recorder {
        fn widest(&self) -> Width {
            self.widest.unwrap_or(Width::Byte)
        }
        fn read(&self, offset: u16, width: Width) -> u32 {
            match width {
                Width::Byte => u32::from(offset),
                Width::Word => 0x1111,
                Width::Dword => 0x4444_4444,
            }
        }
        fn write(&self, offset: u16, width: Width, value: u32) {
            self.writes.lock().unwrap().push((offset, width, value));
        }
    }

    #[test]
    fn ports_without_a_device_are_told() {
        let bus = PortBus::default();
        assert_eq!(bus.read(0x80, Width::Dword), None);
        assert!(!bus.write(0xffff, Width::Dword, 0));
    }

    #[test]
    fn wide_accesses_are_split_for_narrow_devices() {
        let bus = PortBus::default();
        let device = Arc::new(Recorder::default());
        bus.register("uart", 0x3f8, 8, device.clone()).unwrap();
        assert_eq!(bus.read(0x3f8, Width::Dword), Some(0x0302_0100));
        assert_eq!(bus.read(0x3fa, Width::Word), Some(0x0302));
        assert!(bus.write(0x3f8, Width::Word, 0xbbaa));
        let expected = [(0, Width::Byte, 0xaa), (1, Width::Byte, 0xbb)];
        assert_eq!(*device.writes.lock().unwrap(), expected);
    }

    #[test]
    fn an_access_over_the_edge_reads_ones_where_nothing_is() {
        let bus = PortBus::default();
        bus.register("edge", 0xfffe, 2, Arc::new(Recorder::default()))
            .unwrap();
        assert_eq!(bus.read(0xffff, Width::Dword), Some(0xffff_ff01));
        assert_eq!(bus.read(0xfffd, Width::Word), Some(0x00ff));
    }

    #[test]
    fn wide_devices_get_wide_accesses_whole() {
        let bus = PortBus::default();
        let device = Arc::new(Recorder {
            widest: Some(Width::Dword),
            ..Recorder::default()
        });
        bus.register("pci", 0xcfc, 4, device.clone()).unwrap();
        assert_eq!(bus.read(0xcfc, Width::Dword), Some(0x4444_4444));
        // Not whole: two bytes are outside.
        assert_eq!(bus.read(0xcfe, Width::Dword), Some(0xffff_1111));
        assert!(bus.write(0xcfc, Width::Word, 0xffff_1234));
        assert_eq!(*device.writes.lock().unwrap(), [(0, Width::Word, 0x1234)]);
    }

    #[test]
    fn ranges_do_not_overlap() {
        let bus = PortBus::default();
        let device = || Arc::new(Recorder::default());
        bus.register("com1", 0x3f8, 8, device()).unwrap();
        let error = bus.register("x", 0x3f0, 9, device()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "x wants I/O port 0x03f8, which belongs to com1"
        );
        assert!(bus.register("y", 0x3ff, 1, device()).is_err());
        assert!(bus.register("z", 0xffff, 2, device()).is_err());
        bus.register("w", 0xffff, 1, device()).unwrap();
        bus.register("v", 0x400, 1, device()).unwrap();
    }

    proptest! {
        #[test]
        fn any_access_ends_and_stays_within_its_width(port: u16, value: u32, dword: bool) {
            let bus = PortBus::default();
            for (n, first) in [0u16, 0x70, 0x3f8, 0xcf8, 0xfff0].into_iter().enumerate() {
                bus.register(n.to_string(), first, 8, Arc::new(Recorder::default())).unwrap();
            }
            let width = if dword { Width::Dword } else { Width::Word };
            if let Some(read) = bus.read(port, width) {
                prop_assert_eq!(read & !width.mask(), 0);
            }
            bus.write(port, width, value);
        }
    }
}
