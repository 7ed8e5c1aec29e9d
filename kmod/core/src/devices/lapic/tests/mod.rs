//! The local APIC along the SDM: a guest's accesses on one side, an inbox on the other.

mod accept;
mod access;
mod address;
mod base;
mod icr;
mod lvt;
mod priority;
mod timer;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::*;
use crate::devices::{DeliveryMode, Destination, Trigger};

const TSC_HZ: u64 = 2_000_000_000;

/// A local APIC, its inbox, and a clock whose TSC runs at 2 GHz.
struct Bench {
    apic: LocalApic<Box<ApicPage>>,
    inbox: Arc<Inbox>,
    stats: Arc<VcpuStats>,
    clock: ApicClock,
}

impl Bench {
    /// As after power-on.
    fn cold(vcpu: u16) -> Self {
        let inbox = Arc::new(Inbox::new());
        let stats = Arc::new(VcpuStats::new());
        Self {
            apic: LocalApic::new(
                Box::new(ApicPage::new()),
                VcpuId(vcpu),
                inbox.clone(),
                stats.clone(),
            ),
            inbox,
            stats,
            clock: ApicClock {
                now: Nanos(1_000_000),
                guest_tsc: 0,
                tsc_hz: TSC_HZ,
            },
        }
    }

    /// xAPIC mode, software-enabled.
    fn new(vcpu: u16) -> Self {
        let mut bench = Self::cold(vcpu);
        bench.enable();
        bench
    }

    /// x2APIC mode, software-enabled.
    fn x2apic(vcpu: u16) -> Self {
        let mut bench = Self::cold(vcpu);
        bench.apic.allow_x2apic(true);
        assert_eq!(bench.wrmsr(0x80f, 0x1ff), Ok(ApicEffect::None));
        bench
    }

    fn enable(&mut self) {
        assert_eq!(self.write(0xf0, 0x1ff), ApicEffect::None);
    }

    fn read(&mut self, offset: u16) -> u32 {
        self.apic.mmio_read(offset, &self.clock)
    }

    fn write(&mut self, offset: u16, value: u32) -> ApicEffect {
        self.apic.mmio_write(offset, value, &self.clock)
    }

    fn rdmsr(&mut self, msr: u32) -> Result<u64, GeneralProtection> {
        self.apic.msr_read(msr, &self.clock)
    }

    fn wrmsr(&mut self, msr: u32, value: u64) -> Result<ApicEffect, GeneralProtection> {
        self.apic.msr_write(msr, value, &self.clock)
    }

    fn accept(&mut self) -> Accepted {
        self.apic.accept(&self.clock)
    }

    fn post(&mut self, vector: u8, trigger: Trigger) {
        self.inbox.post(Vector(vector), trigger);
        self.accept();
    }

    fn pass(&mut self, nanos: u64) {
        self.clock.now = self.clock.now.after(nanos);
        self.clock.guest_tsc += nanos * (TSC_HZ / 1_000_000_000);
    }

    /// The CPU takes what is pending.
    fn take(&mut self) -> Option<u8> {
        let vector = self.apic.pending()?;
        self.apic.acknowledge(vector);
        Some(vector.0)
    }

    /// All vectors in IRR, ISR or TMR.
    fn vectors(&self, base: u16) -> Vec<u8> {
        (0..=255u8)
            .filter(|&v| self.apic.page().get(base + u16::from(v / 32) * 16) & 1 << (v % 32) != 0)
            .collect()
    }

    /// ESR after the write that latches it.
    fn esr(&mut self) -> u32 {
        assert_eq!(self.write(0x280, 0), ApicEffect::None);
        self.read(0x280)
    }
}
