//! What travels between APICs: interrupt messages (SDM vol. 3A, 11.6, 11.11; I/O APIC
//! datasheet 290566, 3.2.4). An MSI is one too, packed into an address and a data word.

use crate::types::Vector;

/// One message, to every local APIC that its destination names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicMessage {
    pub destination: Destination,
    pub mode: DeliveryMode,
    /// Ignored for NMI, INIT and ExtINT; the start page for a start-up IPI.
    pub vector: Vector,
    pub trigger: Trigger,
}

/// Who gets a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// An APIC id: 8 bits in xAPIC mode (0xff is all), 32 bits in x2APIC mode (all ones is
    /// all). `wide` says which: a message with 8 bits reaches x2APICs too.
    Physical {
        id: u32,
        wide: bool,
    },
    /// A logical id, matched against LDR (and DFR in xAPIC mode).
    Logical {
        id: u32,
        wide: bool,
    },
    /// Shorthands of the ICR: the sender, all, all but the sender.
    Myself,
    All,
    Others,
}

/// Table 11-18's delivery modes (3 bits; 3 is reserved).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DeliveryMode {
    Fixed = 0,
    LowestPriority = 1,
    Smi = 2,
    Nmi = 4,
    Init = 5,
    StartUp = 6,
    ExtInt = 7,
}

impl DeliveryMode {
    /// From its 3 bits; `None` for the reserved one.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => return None,
        })
    }
}

/// Level-triggered interrupts are told to the I/O APIC again at their EOI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    Edge,
    Level,
}

impl ApicMessage {
    /// A message-signalled interrupt (SDM vol. 3A, 11.11): `None` if the address is none of
    /// the local APICs' or the delivery mode is reserved. Bit 2 of the address is the
    /// destination mode; bit 3, a hint that one of several destinations is enough, is not
    /// needed for that; bits 11:5 are bits 14:8 of the destination, which CPUID tells
    /// guests of (`cpu::cpuid`). As in FreeBSD's vmm it is
    /// edge-triggered whatever the data says: PCI knows no other, and no I/O APIC waits for
    /// its EOI.
    pub fn from_msi(address: u64, data: u64) -> Option<Self> {
        const MSI_BASE: u64 = 0xfee0_0000;
        const DEST_LOGICAL: u64 = 1 << 2;
        if address & 0xffff_ffff_fff0_0000 != MSI_BASE {
            return None;
        }
        let id = (address >> 12 & 0xff | (address >> 5 & 0x7f) << 8) as u32;
        // FreeBSD's vmm takes a destination without the hint for a physical one; but CPUs
        // don't need it, and Linux in flat mode leaves it out.
        let destination = if address & DEST_LOGICAL != 0 {
            Destination::Logical { id, wide: false }
        } else {
            Destination::Physical { id, wide: false }
        };
        Some(Self {
            destination,
            mode: DeliveryMode::from_bits((data >> 8 & 7) as u8)?,
            vector: Vector(data as u8),
            trigger: Trigger::Edge,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_msi_is_a_message() {
        let message = ApicMessage::from_msi(0xfee0_3000, 0x4031).unwrap();
        let expected = ApicMessage {
            destination: Destination::Physical { id: 3, wide: false },
            mode: DeliveryMode::Fixed,
            vector: Vector(0x31),
            trigger: Trigger::Edge,
        };
        assert_eq!(message, expected);
        let logical = ApicMessage::from_msi(0xfeef_f00c, 0x8131).unwrap();
        assert_eq!(
            logical.destination,
            Destination::Logical {
                id: 0xff,
                wide: false
            }
        );
        assert_eq!(logical.mode, DeliveryMode::LowestPriority);
        assert_eq!(logical.trigger, Trigger::Edge, "bit 15 doesn't count");
        // The hint alone changes nothing; the destination mode counts without it.
        let hint = ApicMessage::from_msi(0xfee0_2008, 0x31).unwrap();
        assert_eq!(
            hint.destination,
            Destination::Physical { id: 2, wide: false }
        );
        let flat = ApicMessage::from_msi(0xfee0_2004, 0x31).unwrap();
        assert_eq!(
            flat.destination,
            Destination::Logical { id: 2, wide: false }
        );
        // 15 bits of destination.
        let far = ApicMessage::from_msi(0xfee2_c020, 0x31).unwrap();
        assert_eq!(
            far.destination,
            Destination::Physical {
                id: 300,
                wide: false
            }
        );
        assert_eq!(ApicMessage::from_msi(0xfec0_0000, 0x31), None);
        assert_eq!(ApicMessage::from_msi(0x1_fee0_0000, 0x31), None);
        assert_eq!(ApicMessage::from_msi(0xfee0_0000, 0x331), None);
    }
}
