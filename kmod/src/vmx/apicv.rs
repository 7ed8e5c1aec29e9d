//! The local APIC as far as the CPU takes part in it (SDM vol. 3C, chapter 30): its page in
//! the VMCS, what an entry has to know of it, the exits that come of it, and the MSRs
//! that a guest reaches it by. How much the CPU does is [`ApicVirtualization`]; the
//! state is always in the page, so that the local APIC finds it there after an exit.

use vmm_core::cpu::msr::{IA32_APIC_BASE, IA32_TSC_DEADLINE};
use vmm_core::devices::lapic::{APIC_BASE, ApicEffect, ApicMode, GeneralProtection};
use vmm_core::exit::{Access, ExitKind};
use vmm_core::stats::Stat;
use vmm_core::types::{Hpa, Vector};
use vmm_core::vmx::apic::{APIC_PROC2, ApicVirtualization};
use vmm_core::vmx::controls::Proc2Controls;
use vmm_core::vmx::field;
use vmm_core::vmx::qualification::{ApicAccess, ApicAccessType};

use core::sync::atomic::Ordering;

use super::exit::Outcome;
use super::run::Run;
use super::vcpu::{Vcpu, VcpuControls};
use super::vmcs::LoadedVmcs;
use super::vminit::VmShared;

const X2APIC_EOI: u32 = 0x80b;

/// What the VMCS of a vcpu says about its local APIC, to be written when it changes.
#[derive(Clone, Copy)]
pub struct VirtualApic {
    /// The virtual-APIC page.
    pub page: Hpa,
    /// The mode that the controls are for.
    mode: ApicMode,
    tpr_threshold: u8,
    eoi_exits: [u64; 4],
}

impl VirtualApic {
    /// After a reset.
    pub const fn new(page: Hpa) -> Self {
        Self {
            page,
            mode: ApicMode::Xapic,
            tpr_threshold: 0,
            eoi_exits: [0; 4],
        }
    }
}

/// The fields of a new VMCS; the controls are in `vcpu.controls` already.
pub fn vmcs_defaults(vmcs: &mut LoadedVmcs<'_>, vcpu: &Vcpu) {
    let way = vcpu.vm.backend.apic;
    if way == ApicVirtualization::Exits {
        return;
    }
    vmcs.write(field::VIRTUAL_APIC_ADDRESS, vcpu.apic.page.get());
    vmcs.write(field::TPR_THRESHOLD, 0);
    if let Some(page) = &vcpu.vm.apic_access {
        vmcs.write(field::APIC_ACCESS_ADDRESS, page.hpa().get());
        vmcs.write(field::GUEST_INTERRUPT_STATUS, 0);
        write_eoi_exits(vmcs, &[0; 4]);
    }
}

fn write_eoi_exits(vmcs: &mut LoadedVmcs<'_>, bitmap: &[u64; 4]) {
    vmcs.write(field::EOI_EXIT_BITMAP_0, bitmap[0]);
    vmcs.write(field::EOI_EXIT_BITMAP_1, bitmap[1]);
    vmcs.write(field::EOI_EXIT_BITMAP_2, bitmap[2]);
    vmcs.write(field::EOI_EXIT_BITMAP_3, bitmap[3]);
}

/// Makes `controls` those for that mode.
pub fn set_mode(controls: &mut VcpuControls, vm: &VmShared, mode: ApicMode) {
    controls.proc2.remove(APIC_PROC2);
    controls.proc2 |= vm.backend.apic.proc2(mode);
}

impl Run<'_, '_> {
    /// The CPU delivers the local APIC's interrupts itself.
    pub fn cpu_delivers(&self) -> bool {
        self.vcpu.vm.backend.apic.delivers(self.vcpu.apic.mode)
    }

    /// Follows the guest from xAPIC to x2APIC mode and back: since the last run, or by a
    /// write to IA32_APIC_BASE.
    pub fn follow_apic_mode(&mut self) {
        let mode = self.env.apic.mode();
        if mode == self.vcpu.apic.mode {
            return;
        }
        self.vcpu.apic.mode = mode;
        let vm = &*self.vcpu.vm;
        if vm.backend.apic != ApicVirtualization::InterruptDelivery {
            return;
        }
        set_mode(&mut self.vcpu.controls, vm, mode);
        let proc2 = self.vcpu.controls.proc2;
        self.vmcs
            .write(field::SECONDARY_PROCESSOR_BASED_CONTROLS, proc2.bits());
        let x2apic = proc2.contains(Proc2Controls::VIRTUALIZE_X2APIC_MODE);
        let bitmap = vm.msr_bitmap(x2apic).get();
        self.vmcs.write(field::MSR_BITMAPS_ADDRESS, bitmap);
        // Translations made while accesses were not virtualized must not be used any
        // more (30.4.6), on whatever CPU.
        vm.ept.generation.fetch_add(1, Ordering::Release);
        self.vcpu.interrupts.look = true;
    }

    /// Tells the CPU what the local APIC has come to since the last entry.
    pub fn sync_virtual_apic(&mut self) {
        match self.vcpu.vm.backend.apic {
            ApicVirtualization::Exits => {}
            ApicVirtualization::TprShadow => {
                let threshold = self.env.apic.tpr_threshold();
                if threshold != self.vcpu.apic.tpr_threshold {
                    self.vcpu.apic.tpr_threshold = threshold;
                    self.vmcs.write(field::TPR_THRESHOLD, threshold.into());
                }
            }
            ApicVirtualization::InterruptDelivery if self.cpu_delivers() => {
                self.sync_interrupt_status();
            }
            ApicVirtualization::InterruptDelivery => {}
        }
    }

    /// RVI, which the entry looks at (27.3.2.5, 30.2.1), SVI, and whose EOI exits.
    fn sync_interrupt_status(&mut self) {
        let apic = &*self.env.apic;
        let number = |vector: Option<Vector>| vector.map_or(0, |vector| u16::from(vector.0));
        // While a debugger steps they wait for a later run.
        let requested = if self.vcpu.masks_interrupts() {
            0
        } else {
            number(apic.highest_irr())
        };
        let status = number(apic.highest_isr()) << 8 | requested;
        self.vmcs.write(field::GUEST_INTERRUPT_STATUS, status);
        let eoi_exits = apic.eoi_exit_bitmap();
        if eoi_exits != self.vcpu.apic.eoi_exits {
            self.vcpu.apic.eoi_exits = eoi_exits;
            write_eoi_exits(&mut self.vmcs, &eoi_exits);
        }
    }

    /// The guest lowered TPR below the class of an interrupt that waits (30.1.2). The
    /// instruction is done.
    pub fn tpr_below_threshold(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitTpr);
        self.vcpu.interrupts.look = true;
        Outcome::Resume
    }

    /// An access to the APIC-access page that the CPU doesn't know (30.4.1): the vm layer
    /// emulates the instruction, as it does for devices without a page.
    pub fn apic_access(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitApicAccess);
        self.requeue_interrupted_event(false);
        let raw = self.vmcs.read(field::EXIT_QUALIFICATION);
        let ApicAccess { offset, kind } = ApicAccess::from_raw(raw);
        let access = match kind {
            Some(ApicAccessType::LinearRead) => Access::Read,
            Some(ApicAccessType::LinearWrite) => Access::Write,
            Some(ApicAccessType::LinearFetch) => Access::Execute,
            // Page tables, a stack or descriptors in the APIC's registers.
            Some(
                ApicAccessType::LinearEventDelivery
                | ApicAccessType::PhysicalEventDelivery
                | ApicAccessType::PhysicalOther,
            )
            | None => return self.unexpected(),
        };
        Outcome::LeaveRestart(ExitKind::Paging {
            gpa: vmm_core::types::Gpa(APIC_BASE.get() + u64::from(offset)),
            gla: None,
            access,
        })
    }

    /// A write that the CPU has carried out in the page (30.4.3.3). The instruction is
    /// done; what the register is to do is done here.
    pub fn apic_write(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitApicWrite);
        let offset = self.vmcs.read(field::EXIT_QUALIFICATION) as u16 & 0xfff;
        let clock = self.vcpu.apic_clock();
        let effect = self.env.apic.virtual_apic_write(offset, &clock);
        self.apic_effect(effect, Outcome::Resume, Outcome::LeaveRestart)
    }

    /// The CPU has carried out the EOI of an interrupt that others wait for (30.1.4). The
    /// instruction is done.
    pub fn virtualized_eoi(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitVirtualizedEoi);
        let vector = Vector(self.vmcs.read(field::EXIT_QUALIFICATION) as u8);
        let effect = self.env.apic.eoi_done(vector);
        self.apic_effect(effect, Outcome::Resume, Outcome::LeaveRestart)
    }

    /// Does what the local APIC wants done; then `on`, or out of the loop by `leave`.
    pub fn apic_effect(
        &mut self,
        effect: ApicEffect,
        on: Outcome,
        leave: fn(ExitKind) -> Outcome,
    ) -> Outcome {
        match self.env.platform.apic_effect(self.env.apic, effect) {
            Some(kind) => leave(kind),
            None => on,
        }
    }

    /// RDMSR of one of the local APIC's ([`vmm_core::cpu::msr::is_local_apic`]).
    pub fn apic_rdmsr(&mut self, code: u32) -> Result<u64, GeneralProtection> {
        match code {
            IA32_APIC_BASE => Ok(self.env.apic.apic_base()),
            IA32_TSC_DEADLINE => Ok(self.env.apic.tsc_deadline(&self.vcpu.apic_clock())),
            _ => self.env.apic.msr_read(code, &self.vcpu.apic_clock()),
        }
    }

    /// WRMSR to one of the local APIC's ([`vmm_core::cpu::msr::is_local_apic`]).
    pub fn apic_wrmsr(&mut self, code: u32, value: u64) -> Result<Outcome, GeneralProtection> {
        let apic = &mut *self.env.apic;
        let effect = match code {
            IA32_APIC_BASE => {
                apic.set_apic_base(value)?;
                self.follow_apic_mode();
                // Its timer stops if it is off now.
                ApicEffect::Timer
            }
            IA32_TSC_DEADLINE => apic.set_tsc_deadline(value, &self.vcpu.apic_clock()),
            // The most frequent one needs no clock.
            X2APIC_EOI if value == 0 && apic.mode() == ApicMode::X2apic => apic.eoi(),
            _ => apic.msr_write(code, value, &self.vcpu.apic_clock())?,
        };
        Ok(self.apic_effect(effect, Outcome::Advance, Outcome::Leave))
    }

    /// MOV to CR8 that exits.
    pub fn set_cr8(&mut self, value: u8) {
        self.env.apic.set_cr8(value);
    }
}
