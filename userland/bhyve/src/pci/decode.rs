//! Who answers at a BAR's addresses: the BARs that functions decode, on the buses of ports
//! and of memory-mapped devices. While a guest moves BARs around, two may want the same
//! addresses; the later one gets them when the earlier one has left.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use vmmapi::Gpa;

use super::bar::BarRange;
use super::device::{Bdf, PciDevice};
use super::interrupts::Interrupts;
use crate::mmio::{MmioDevice, MmioMap};
use crate::ports::{PortBus, PortDevice, Width};

/// What answers behind a BAR.
pub enum Target {
    Device {
        device: Arc<dyn PciDevice>,
        bar: usize,
    },
    /// The MSI-X table and its pending bits.
    Msix(Interrupts),
}

impl Target {
    fn read(&self, offset: u64, width: Width) -> u32 {
        match self {
            Self::Device { device, bar } => device.bar_read(*bar, offset, width),
            Self::Msix(interrupts) => interrupts.msix_read(offset, width),
        }
    }

    fn write(&self, offset: u64, width: Width, value: u32) {
        match self {
            Self::Device { device, bar } => device.bar_write(*bar, offset, width, value),
            Self::Msix(interrupts) => interrupts.msix_write(offset, width, value),
        }
    }
}

impl PortDevice for Target {
    fn widest(&self) -> Width {
        Width::Dword
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        Target::read(self, offset.into(), width)
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        Target::write(self, offset.into(), width, value);
    }
}

impl MmioDevice for Target {
    fn read(&self, offset: u64, size: u8) -> u64 {
        pieces(size).fold(0, |value, (at, width)| {
            let piece = Target::read(self, offset + u64::from(at), width);
            value | u64::from(piece & width.mask()) << (8 * at)
        })
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        for (at, width) in pieces(size) {
            let piece = (value >> (8 * at)) as u32 & width.mask();
            Target::write(self, offset + u64::from(at), width, piece);
        }
    }
}

/// An access in pieces of 4, 2 and 1 bytes, from the lowest address on, each with its
/// distance from there.
pub fn pieces(size: u8) -> impl Iterator<Item = (u8, Width)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let width = match size.saturating_sub(at) {
            0 => return None,
            1 => Width::Byte,
            2 | 3 => Width::Word,
            4.. => Width::Dword,
        };
        let piece = (at, width);
        at += width as u8;
        Some(piece)
    })
}

struct Claim {
    name: String,
    range: BarRange,
    target: Arc<Target>,
    /// Whether it has the addresses.
    granted: bool,
}

/// All decoded BARs.
pub struct Decoder {
    ports: Arc<PortBus>,
    mmio: Arc<MmioMap>,
    /// By function and BAR.
    claims: Mutex<BTreeMap<(Bdf, usize), Claim>>,
}

impl Decoder {
    pub fn new(ports: Arc<PortBus>, mmio: Arc<MmioMap>) -> Self {
        Self {
            ports,
            mmio,
            claims: Mutex::default(),
        }
    }

    /// A BAR decodes these addresses from now on, or none.
    pub fn set(
        &self,
        bar: (Bdf, usize),
        name: &str,
        range: Option<BarRange>,
        target: &Arc<Target>,
    ) {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if claims.get(&bar).map(|claim| claim.range) == range {
            return;
        }
        if let Some(claim) = claims.remove(&bar).filter(|claim| claim.granted) {
            self.release(claim.range);
        }
        if let Some(range) = range {
            let claim = Claim {
                name: name.to_owned(),
                range,
                target: Arc::clone(target),
                granted: false,
            };
            claims.insert(bar, claim);
        }
        for claim in claims.values_mut().filter(|claim| !claim.granted) {
            claim.granted = self.grant(claim);
        }
    }

    fn grant(&self, claim: &Claim) -> bool {
        let name = claim.name.as_str();
        match claim.range {
            BarRange::Io { first, len } => {
                let target = Arc::clone(&claim.target);
                self.ports.register(name, first, len, target).is_ok()
            }
            BarRange::Memory { first, len } => {
                let target = Arc::clone(&claim.target);
                self.mmio.register(name, Gpa(first), len, target).is_ok()
            }
        }
    }

    fn release(&self, range: BarRange) {
        match range {
            BarRange::Io { first, .. } => self.ports.unregister(first),
            BarRange::Memory { first, .. } => {
                self.mmio.unregister(Gpa(first));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::device::FunctionSpec;

    /// Reads give its number and the offset.
    struct Numbered(u32);

    impl PciDevice for Numbered {
        fn spec(&self) -> FunctionSpec {
            FunctionSpec::default()
        }
        fn bar_read(&self, bar: usize, offset: u64, width: Width) -> u32 {
            (self.0 << 24 | (bar as u32) << 16 | offset as u32) & width.mask()
        }
        fn bar_write(&self, _bar: usize, _offset: u64, _width: Width, _value: u32) {}
    }

    fn target(number: u32, bar: usize) -> Arc<Target> {
        let device = Arc::new(Numbered(number));
        Arc::new(Target::Device { device, bar })
    }

    fn at(slot: u8) -> Bdf {
        Bdf {
            bus: 0,
            slot,
            function: 0,
        }
    }

    #[test]
    fn pieces_cover_an_access_from_the_lowest_address_on() {
        let all = |size| pieces(size).collect::<Vec<_>>();
        assert_eq!(all(8), [(0, Width::Dword), (4, Width::Dword)]);
        assert_eq!(
            all(7),
            [(0, Width::Dword), (4, Width::Word), (6, Width::Byte)]
        );
        assert_eq!(all(2), [(0, Width::Word)]);
        assert_eq!(all(0), []);
    }

    #[test]
    fn a_bar_moves_with_its_register() {
        let (ports, mmio) = (Arc::new(PortBus::default()), Arc::new(MmioMap::default()));
        let decoder = Decoder::new(Arc::clone(&ports), Arc::clone(&mmio));
        let io = |first| Some(BarRange::Io { first, len: 32 });
        let target = target(7, 1);
        decoder.set((at(1), 1), "d", io(0x2000), &target);
        assert_eq!(ports.read(0x2004, Width::Dword), Some(0x0701_0004));
        decoder.set((at(1), 1), "d", io(0x3000), &target);
        assert_eq!(ports.read(0x2004, Width::Dword), None);
        assert_eq!(ports.read(0x3004, Width::Word), Some(4));
        decoder.set((at(1), 1), "d", None, &target);
        assert_eq!(ports.read(0x3004, Width::Dword), None);
    }

    #[test]
    fn two_bars_may_swap_their_places() {
        use crate::mmio::MmioBus;
        let (ports, mmio) = (Arc::new(PortBus::default()), Arc::new(MmioMap::default()));
        let decoder = Decoder::new(ports, Arc::clone(&mmio));
        let memory = |first| Some(BarRange::Memory { first, len: 0x1000 });
        let targets = [target(1, 0), target(2, 0)];
        let set = |slot: usize, range| {
            decoder.set((at(slot as u8), 0), "d", range, &targets[slot]);
        };
        let owner = |gpa| mmio.read(Gpa(gpa), 4).map(|value| value >> 24);
        set(0, memory(0xc000_0000));
        set(1, memory(0xc000_1000));
        set(0, memory(0xc000_1000));
        assert_eq!(owner(0xc000_1000), Some(2), "the earlier one stays");
        assert_eq!(owner(0xc000_0000), None);
        set(1, memory(0xc000_0000));
        assert_eq!((owner(0xc000_0000), owner(0xc000_1000)), (Some(2), Some(1)));
        // All ones while the guest finds the size: nobody else is there.
        set(0, memory(0xffff_f000));
        assert_eq!(owner(0xffff_f004), Some(1));
        assert_eq!(mmio.read(Gpa(0xffff_f000), 8), Some(0x0100_0004_0100_0000));
    }
}
