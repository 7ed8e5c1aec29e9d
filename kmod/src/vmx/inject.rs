//! What the next VM entry delivers (SDM vol. 3C, 25.8.3 and 27.6), in the order of SDM
//! vol. 3A, 6.9: an exception or an event whose delivery an exit interrupted, an NMI, an
//! interrupt. One at a time; for the others a window is asked for, an exit as soon as the
//! guest can take them.
//!
//! An interrupt counts as in service from here on: should an exit interrupt its delivery,
//! it comes back as an event, and the local APIC isn't asked again. Where the CPU delivers
//! interrupts by itself (`apicv`), only those of the 8259s are left for here.

use core::sync::atomic::Ordering;

use vmm_core::exit::ExitKind;
use vmm_core::stats::Stat;
use vmm_core::types::Vector;
use vmm_core::vcpu::events::{EntryEvent, EventType, IntInfo};
use vmm_core::vmx::controls::ProcControls;
use vmm_core::vmx::field;
use vmm_core::vmx::interruption::EntryInterruption;

use super::run::Run;
use super::vcpu::Blocking;
use crate::vm::ops::{self, RunEnv};

const RFLAGS_IF: u64 = 1 << 9;

/// What the backend remembers about interrupts between two entries.
pub struct Interrupts {
    /// Look again although the local APIC hasn't changed ([`crate::vm::ops::Watched`]): the
    /// guest has become interruptible, say.
    pub look: bool,
    /// The local APIC lets the 8259s' interrupts through.
    takes_extint: bool,
}

impl Interrupts {
    /// After a reset.
    pub const START: Self = Self {
        look: true,
        takes_extint: false,
    };
}

/// An interrupt that waits.
#[derive(Clone, Copy)]
enum Source {
    /// The 8259s, which say the vector when they are asked for it.
    ExtInt,
    Apic(Vector),
}

impl Run<'_, '_> {
    /// Gives the next entry what it is to deliver; an exit if that is a shutdown.
    /// Interrupts of the host are off.
    #[inline(always)]
    pub fn inject_events(&mut self) -> Option<ExitKind> {
        if !self.env.inbox.is_empty() {
            self.accept();
        }
        let mut injected = false;
        if !self.env.events.is_empty() {
            match self.env.events.take_entry_event() {
                EntryEvent::None => {}
                EntryEvent::Inject(event) => {
                    self.inject(event);
                    injected = true;
                }
                EntryEvent::TripleFault => return Some(self.triple_fault()),
            }
        }
        if self.env.requests.nmi.load(Ordering::Acquire) && !self.vcpu.masks_interrupts() {
            injected |= self.inject_nmi(injected);
        }
        let known = &self.vcpu.interrupts;
        if known.look
            || self.env.apic.changed()
            || known.takes_extint && self.env.platform.pic_pending()
        {
            self.inject_interrupt(injected);
        }
        None
    }

    /// Takes what others have sent to the local APIC.
    #[inline(never)]
    pub fn accept(&mut self) {
        let RunEnv {
            apic,
            requests,
            platform,
            ..
        } = &mut *self.env;
        let clock = self.vcpu.apic_clock();
        ops::accept(apic, &clock, requests, |deadline| {
            platform.arm_apic_timer(deadline);
        });
    }

    /// Something waits that ends a HLT, given the guest's RFLAGS.
    pub fn wakes(&self, rflags: u64) -> bool {
        let env = &*self.env;
        let interrupts_on = rflags & RFLAGS_IF != 0;
        ops::ends_hlt(env.events, env.requests, env.apic, interrupts_on, || {
            env.platform.pic_pending()
        })
    }

    /// Fills the VM-entry interruption-information field (25.8.3). The length of an INT n,
    /// INT3 or INTO is in the VMCS already: from the exit that interrupted its delivery,
    /// or set by userland (Reg::EntryInstLength).
    fn inject(&mut self, event: IntInfo) {
        let vector = event.vector();
        // Whoever injects #BP or #OF means the instruction, INT3 or INTO.
        let instruction = event.kind() == EventType::HardwareException
            && matches!(vector, Vector::BP | Vector::OF);
        let event = if instruction {
            IntInfo::new(EventType::SoftwareException, vector, None)
        } else {
            event
        };
        let entry = EntryInterruption::new(event, self.protected_mode());
        self.vmcs
            .write(field::ENTRY_EXCEPTION_ERROR_CODE, entry.error_code);
        self.vmcs.write(field::ENTRY_INTERRUPTION_INFO, entry.info);
    }

    /// Delivers the waiting NMI, or asks for an exit when it can be delivered. Says
    /// whether it did.
    #[cold]
    fn inject_nmi(&mut self, injected: bool) -> bool {
        let mut blocking = Blocking::read(&self.vmcs);
        if self.nmi_window_open {
            // The window is open although STI blocks interrupts; some CPUs refuse an
            // NMI at entry then (27.3.1.5), and it may come one instruction early.
            self.nmi_window_open = false;
            blocking.set_sti(&mut self.vmcs, false);
        }
        if injected || blocking.nmi() {
            self.set_proc_control(ProcControls::NMI_WINDOW_EXITING, true);
            return false;
        }
        self.env.requests.nmi.store(false, Ordering::Release);
        let event = IntInfo::new(EventType::Nmi, Vector::NMI, None);
        self.vmcs
            .write(field::ENTRY_INTERRUPTION_INFO, event.entry_field());
        self.env.stats.incr(Stat::VcpuNmiCount);
        true
    }

    /// Delivers the highest interrupt that waits, or asks for an exit when the guest can
    /// take it: when it sets RFLAGS.IF or a shadow ends (interrupt window), or when it
    /// lowers its priority (TPR threshold).
    #[inline(never)]
    fn inject_interrupt(&mut self, injected: bool) {
        self.vcpu.interrupts.look = false;
        self.vcpu.interrupts.takes_extint = self.env.apic.takes_extint();
        let mut window = false;
        // While a debugger steps they wait for a later run.
        if !self.vcpu.masks_interrupts() {
            if let Some(source) = self.to_inject() {
                window = injected || !self.interruptible();
                if !window {
                    self.inject_from(source);
                    // One of another source may wait behind it.
                    window = self.to_inject().is_some();
                }
            }
        }
        self.set_proc_control(ProcControls::INTERRUPT_WINDOW_EXITING, window);
        self.sync_virtual_apic();
        self.env.apic.seen();
    }

    /// What waits and isn't delivered by the CPU itself.
    fn to_inject(&self) -> Option<Source> {
        if self.extint() {
            return Some(Source::ExtInt);
        }
        if self.cpu_delivers() {
            return None;
        }
        self.env.apic.pending().map(Source::Apic)
    }

    fn extint(&self) -> bool {
        self.env.apic.takes_extint() && self.env.platform.pic_pending()
    }

    /// The guest takes an interrupt at the next entry (25.4.2, table 25-3).
    fn interruptible(&self) -> bool {
        self.vmcs.read(field::GUEST_RFLAGS) & RFLAGS_IF != 0 && !Blocking::read(&self.vmcs).shadow()
    }

    fn inject_from(&mut self, source: Source) {
        let vector = match source {
            Source::ExtInt => {
                let vector = self.env.platform.pic_acknowledge();
                self.env.apic.extint_taken();
                self.env.stats.incr(Stat::VcpuExtintCount);
                vector
            }
            Source::Apic(vector) => {
                self.env.apic.acknowledge(vector);
                vector
            }
        };
        let event = IntInfo::new(EventType::ExternalInterrupt, vector, None);
        self.vmcs
            .write(field::ENTRY_INTERRUPTION_INFO, event.entry_field());
    }
}
