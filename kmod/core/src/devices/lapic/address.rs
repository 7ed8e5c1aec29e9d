//! Whom a message is for (SDM vol. 3A, 11.6.2 and 11.12.10): physical and logical
//! destinations, flat and cluster model, 8 and 32 bits.

use super::Inbox;
use crate::devices::Destination;
use crate::types::Vector;

/// What senders know of a local APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Address {
    /// The id: the vcpu's number.
    pub id: u32,
    /// LDR; 0 if DFR selects no model that there is.
    pub logical: u32,
    /// DFR selects the cluster model (xAPIC mode).
    pub cluster: bool,
    pub x2apic: bool,
    /// Enabled by IA32_APIC_BASE: takes messages at all.
    pub present: bool,
    /// Enabled by IA32_APIC_BASE and by software (SVR): takes fixed interrupts. NMI, INIT
    /// and start-up need only `present` (SDM vol. 3A, 11.4.7.2).
    pub enabled: bool,
}

const ID: u64 = 0xffff;
const CLUSTER: u64 = 1 << 48;
const X2APIC: u64 = 1 << 49;
const PRESENT: u64 = 1 << 50;
const ENABLED: u64 = 1 << 51;

const fn flag(set: bool, bit: u64) -> u64 {
    if set { bit } else { 0 }
}

impl Address {
    /// Into one word; the id has 16 bits, as `VcpuId`.
    pub(super) const fn pack(self) -> u64 {
        (self.id as u64 & ID)
            | ((self.logical as u64) << 16)
            | flag(self.cluster, CLUSTER)
            | flag(self.x2apic, X2APIC)
            | flag(self.present, PRESENT)
            | flag(self.enabled, ENABLED)
    }

    const fn unpack(packed: u64) -> Self {
        Self {
            id: (packed & ID) as u32,
            logical: (packed >> 16) as u32,
            cluster: packed & CLUSTER != 0,
            x2apic: packed & X2APIC != 0,
            present: packed & PRESENT != 0,
            enabled: packed & ENABLED != 0,
        }
    }

    /// Whether this local APIC is among those that a message is for. `sender` is the id of
    /// the local APIC that sends it, if one does: the shorthands need it.
    pub fn accepts(&self, destination: &Destination, sender: Option<u32>) -> bool {
        self.present
            && match *destination {
                Destination::All => true,
                Destination::Myself => sender == Some(self.id),
                Destination::Others => sender != Some(self.id),
                Destination::Physical { id, wide } => broadcast(id, wide) || id == self.id,
                Destination::Logical { id, wide } => broadcast(id, wide) || self.matches(id),
            }
    }

    /// A logical destination. One of 8 bits is extended with zeros for an x2APIC.
    const fn matches(&self, id: u32) -> bool {
        if self.x2apic {
            return self.logical >> 16 == id >> 16 && self.logical & id & 0xffff != 0;
        }
        // LDR has the logical id in 31:24.
        let own = self.logical >> 24;
        if self.cluster {
            own >> 4 == id >> 4 && own & id & 0xf != 0
        } else {
            id <= 0xff && own & id != 0
        }
    }
}

/// All ones, in both modes.
const fn broadcast(id: u32, wide: bool) -> bool {
    id == if wide { u32::MAX } else { 0xff }
}

impl Inbox {
    /// What its owner told of itself last. Context: any.
    pub fn address(&self) -> Address {
        Address::unpack(self.packed_address())
    }
}

/// Which of `addresses` gets a lowest-priority message: the position of one that is
/// enabled and named by the destination, spread by the vector (as chipsets do that hash
/// it); `None` if there is none.
pub fn lowest_priority(
    addresses: impl Iterator<Item = Address> + Clone,
    destination: &Destination,
    sender: Option<u32>,
    vector: Vector,
) -> Option<usize> {
    let candidates = addresses
        .enumerate()
        .filter(|(_, address)| address.enabled && address.accepts(destination, sender))
        .map(|(position, _)| position);
    let count = candidates.clone().count();
    candidates
        .clone()
        .nth(usize::from(vector.0).checked_rem(count)?)
}
