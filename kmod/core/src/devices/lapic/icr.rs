//! Interprocessor interrupts: the interrupt command register (SDM vol. 3A, 11.6.1,
//! 11.12.9) and the self-IPI register (11.12.11).

use super::error::Error;
use super::register::{ICR_HIGH, ICR_LOW, ICR_X2APIC_HIGH};
use super::{ApicEffect, ApicMemory, ApicMode, LocalApic};
use crate::devices::{ApicMessage, DeliveryMode, Destination, Trigger};
use crate::stats::Stat;
use crate::types::Vector;

const DESTINATION_LOGICAL: u32 = 1 << 11;
/// xAPIC mode: never pending here.
const DELIVERY_STATUS: u32 = 1 << 12;
const ASSERT: u32 = 1 << 14;
const LEVEL: u32 = 1 << 15;

/// Bits 19:18.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shorthand {
    None,
    Myself,
    All,
    Others,
}

impl Shorthand {
    const fn of(low: u32) -> Self {
        match low >> 18 & 3 {
            0 => Self::None,
            1 => Self::Myself,
            2 => Self::All,
            _ => Self::Others,
        }
    }
}

impl<P: ApicMemory> LocalApic<P> {
    /// A write to the ICR's lower half, which sends.
    pub(super) fn write_icr(&mut self, low: u32, high: u32) -> ApicEffect {
        let wide = self.mode() == ApicMode::X2apic;
        let low = low & !DELIVERY_STATUS;
        self.page.set(ICR_LOW, low);
        self.page
            .set(if wide { ICR_X2APIC_HIGH } else { ICR_HIGH }, high);

        let shorthand = Shorthand::of(low);
        // A reserved delivery mode sends nothing.
        let Some(mode) = DeliveryMode::from_bits((low >> 8) as u8) else {
            return ApicEffect::None;
        };
        if !valid(low, mode, shorthand) {
            return ApicEffect::None;
        }
        let vector = Vector(low as u8);
        let fixed = matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
        if fixed && vector.0 < 16 {
            self.error(Error::SendIllegalVector);
            return ApicEffect::None;
        }
        let id = if wide { high } else { high >> 24 };
        let destination = match shorthand {
            Shorthand::None if low & DESTINATION_LOGICAL != 0 => Destination::Logical { id, wide },
            Shorthand::None => Destination::Physical { id, wide },
            Shorthand::Myself => {
                self.self_request(vector);
                return ApicEffect::None;
            }
            Shorthand::All => Destination::All,
            Shorthand::Others => Destination::Others,
        };
        // IPIs are edge-triggered whatever the ICR says (table 11-3, note 3).
        ApicEffect::Ipi(ApicMessage {
            destination,
            mode,
            vector,
            trigger: Trigger::Edge,
        })
    }

    /// The self-IPI register: a fixed, edge-triggered interrupt to itself.
    pub(super) fn self_ipi(&mut self, vector: Vector) {
        if vector.0 < 16 {
            self.error(Error::SendIllegalVector);
        } else {
            self.self_request(vector);
        }
    }

    fn self_request(&mut self, vector: Vector) {
        self.stats.incr(Stat::VlapicIpiSend);
        if self.enabled() {
            self.stats.incr(Stat::VlapicIpiRecv);
            self.request(vector, Trigger::Edge);
        }
    }
}

/// Tables 11-3 and 11-4: the combinations that send. The rest do nothing; among them
/// INIT's level de-assert, by which the Pentium's local APICs set their arbitration ids.
fn valid(low: u32, mode: DeliveryMode, shorthand: Shorthand) -> bool {
    let sent = low & LEVEL == 0 || low & ASSERT != 0;
    match mode {
        DeliveryMode::Fixed => sent,
        DeliveryMode::LowestPriority
        | DeliveryMode::Smi
        | DeliveryMode::Nmi
        | DeliveryMode::Init => sent && matches!(shorthand, Shorthand::None | Shorthand::Others),
        // It has no trigger mode.
        DeliveryMode::StartUp => matches!(shorthand, Shorthand::None | Shorthand::Others),
        DeliveryMode::ExtInt => false,
    }
}
