//! How interrupts travel within a VM: from the chipset's devices and between local APICs
//! to the vcpus. The chipset is one state machine (`vmm_core::devices::chipset`) behind a
//! spin lock, with one host timer for its next deadline.
//!
//! Under that lock interrupts are delivered: into the inboxes of the vcpus, without
//! another lock of ours, and by notifying them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;
use vmm_core::devices::chipset::Chipset;
use vmm_core::devices::lapic::{Lvt, Signal, lowest_priority};
use vmm_core::devices::{ApicMessage, DeliveryMode, Destination, Nanos, Wires};
use vmm_core::stats::Stat;
use vmm_core::types::{Errno, VcpuId, Vector};

use super::cpuset::CpuSet;
use super::vcpu::Link;
use crate::host::sync::SpinLock;
use crate::host::time::{self, Alarm, Timer};

/// The chipset and the bus to the vcpus, of one VM.
pub struct Devices {
    timer: Timer,
    shared: Arc<Shared>,
}

struct Shared {
    chipset: SpinLock<Clocked>,
    bus: Bus,
}

/// The chipset and what its timer is set to.
struct Clocked {
    chipset: Chipset,
    armed: Option<Nanos>,
}

/// The vcpus as the APIC bus sees them.
struct Bus {
    vcpus: Box<[Once<Arc<Link>>]>,
    /// Only vcpus that VM_ACTIVATE_CPU named get interrupts.
    active: Arc<CpuSet>,
    /// The 8259s' INTR output.
    pic_intr: AtomicBool,
}

impl Devices {
    pub fn new(max_vcpus: u16, active: Arc<CpuSet>) -> Result<Self, Errno> {
        let mut vcpus = Vec::new();
        vcpus.resize_with(usize::from(max_vcpus), Once::new);
        let chipset = Chipset::new(time::now(), (time::wallclock_ns() / 1_000_000_000) as i64);
        let shared = Arc::new(Shared {
            chipset: SpinLock::new(Clocked {
                chipset,
                armed: None,
            }),
            bus: Bus {
                vcpus: vcpus.into_boxed_slice(),
                active,
                pic_intr: AtomicBool::new(false),
            },
        });
        let ticking = shared.clone();
        let timer = Timer::new(Box::new(move |alarm| {
            ticking.tick(alarm);
        }))?;
        Ok(Self { timer, shared })
    }

    /// A vcpu has come into being.
    pub fn connect(&self, vcpu: &Arc<Link>) {
        self.shared.bus.vcpus[vcpu.id.index()].call_once(|| vcpu.clone());
    }

    /// Works on the chipset. Context: any.
    pub fn access<R>(&self, f: impl FnOnce(&mut Chipset, Nanos, &mut dyn Wires) -> R) -> R {
        self.shared.access(&self.timer, f)
    }

    /// Back to power-on (VM_REINIT).
    pub fn reset(&self) {
        self.access(|chipset, now, wires| chipset.reset(now, wires));
        self.shared.bus.pic_intr.store(false, Ordering::SeqCst);
    }

    /// Sends a message to the local APICs; `sender` is the vcpu whose IPI it is. Context:
    /// any.
    pub fn deliver(&self, message: &ApicMessage, sender: Option<VcpuId>) {
        self.shared.bus.deliver(message, sender);
    }

    /// The vcpus that a message is for. Context: any.
    pub fn targets(&self, destination: &Destination, sender: VcpuId) -> CpuSet {
        let set = CpuSet::new();
        for vcpu in self.shared.bus.targets(destination, Some(sender)) {
            set.insert(vcpu.id);
        }
        set
    }

    /// Raises a local interrupt of one vcpu, or of all active ones.
    pub fn local_interrupt(&self, vcpu: Option<VcpuId>, lvt: Lvt) {
        self.shared.bus.local_interrupt(vcpu, lvt);
    }

    /// Calls `f` with each of the vcpus in the set.
    pub fn for_each(&self, set: &CpuSet, f: impl Fn(&Link)) {
        let vcpus = self.shared.bus.vcpus.iter().filter_map(Once::get);
        vcpus
            .filter(|vcpu| set.contains(vcpu.id))
            .for_each(|vcpu| f(vcpu));
    }

    /// The 8259s' INTR output is high.
    pub fn pic_pending(&self) -> bool {
        self.shared.bus.pic_intr.load(Ordering::SeqCst)
    }

    /// INTA of the 8259s.
    pub fn pic_acknowledge(&self) -> Vector {
        self.access(|chipset, _, wires| chipset.pic_acknowledge(wires))
    }
}

impl Shared {
    /// The timer has gone off.
    fn tick(&self, alarm: &Alarm) {
        let mut clocked = self.chipset.lock();
        clocked.armed = None;
        clocked.access(alarm, &self.bus, |chipset, now, wires| {
            chipset.tick(now, wires)
        });
    }

    fn access<R>(
        &self,
        alarm: &Alarm,
        f: impl FnOnce(&mut Chipset, Nanos, &mut dyn Wires) -> R,
    ) -> R {
        self.chipset.lock().access(alarm, &self.bus, f)
    }
}

impl Clocked {
    /// The timer is set under the chipset's lock, so that the last word is the right one.
    fn access<R>(
        &mut self,
        alarm: &Alarm,
        mut bus: &Bus,
        f: impl FnOnce(&mut Chipset, Nanos, &mut dyn Wires) -> R,
    ) -> R {
        let answer = f(&mut self.chipset, time::now(), &mut bus);
        let deadline = self.chipset.deadline();
        if deadline != self.armed {
            self.armed = deadline;
            alarm.set(deadline);
        }
        answer
    }
}

impl Wires for &Bus {
    fn message(&mut self, message: ApicMessage) {
        self.deliver(&message, None);
    }

    fn pic_intr(&mut self, high: bool) {
        let was = self.pic_intr.swap(high, Ordering::SeqCst);
        if high && !was {
            self.local_interrupt(None, Lvt::Lint0);
        }
    }
}

impl Bus {
    /// The vcpus that are on the bus.
    fn powered(&self) -> impl Iterator<Item = &Arc<Link>> + Clone {
        self.vcpus
            .iter()
            .filter_map(Once::get)
            .filter(|vcpu| self.active.contains(vcpu.id))
    }

    fn targets(
        &self,
        destination: &Destination,
        sender: Option<VcpuId>,
    ) -> impl Iterator<Item = &Arc<Link>> {
        let sender = sender.map(|id| u32::from(id.0));
        self.powered()
            .filter(move |vcpu| vcpu.inbox.address().accepts(destination, sender))
    }

    fn deliver(&self, message: &ApicMessage, sender: Option<VcpuId>) {
        let targets = || self.targets(&message.destination, sender);
        // The sender looks at its own inbox before it goes on.
        let notify = |vcpu: &Link| {
            if sender != Some(vcpu.id) {
                vcpu.notify();
            }
        };
        let from = sender.and_then(|id| self.vcpus[id.index()].get());
        let post = |vcpu: &Link| {
            if let Some(from) = from {
                from.stats.incr(Stat::VlapicIpiSend);
                vcpu.stats.incr(Stat::VlapicIpiRecv);
            }
            vcpu.inbox.post(message.vector, message.trigger);
            notify(vcpu);
        };
        match message.mode {
            DeliveryMode::Fixed => targets().for_each(|vcpu| post(vcpu)),
            DeliveryMode::LowestPriority => {
                let addresses = self.powered().map(|vcpu| vcpu.inbox.address());
                let sender = sender.map(|id| id.0.into());
                let chosen =
                    lowest_priority(addresses, &message.destination, sender, message.vector);
                if let Some(vcpu) = chosen.and_then(|position| self.powered().nth(position)) {
                    post(vcpu);
                }
            }
            DeliveryMode::Nmi => targets().for_each(|vcpu| {
                vcpu.requests.nmi.store(true, Ordering::SeqCst);
                notify(vcpu);
            }),
            DeliveryMode::ExtInt => targets().for_each(|vcpu| {
                vcpu.inbox.signal(Signal::ExtInt);
                notify(vcpu);
            }),
            // There is no SMM. INIT and start-up come as IPIs only, and those need userland.
            DeliveryMode::Smi | DeliveryMode::Init | DeliveryMode::StartUp => {}
        }
    }

    fn local_interrupt(&self, vcpu: Option<VcpuId>, lvt: Lvt) {
        for link in self.vcpus.iter().filter_map(Once::get) {
            if vcpu.map_or_else(|| self.active.contains(link.id), |id| id == link.id) {
                link.inbox.signal(Signal::Local(lvt));
                link.notify();
            }
        }
    }
}
