//! RDMSR and WRMSR that exit: those that the MSR bitmap doesn't pass. What each MSR does is
//! the table in `vmm_core::cpu::msr`, but for the local APIC's (`apicv`).

use vmm_core::cpu::msr::{IA32_TSC_AUX, MsrAnswer, MsrContext, is_local_apic};
use vmm_core::devices::lapic::GeneralProtection;
use vmm_core::exit::ExitKind;
use vmm_core::stats::Stat;
use vmm_core::types::Vector;
use vmm_core::vmx::controls::ProcControls;
use vmm_core::vmx::field;

use super::cpu;
use super::exit::Outcome;
use super::run::Run;

impl Run<'_, '_> {
    pub fn rdmsr(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitRdmsr);
        let code = self.vcpu.ctx.guest_rcx as u32;
        let answer = if is_local_apic(code) {
            match self.apic_rdmsr(code) {
                Ok(value) => MsrAnswer::Value(value),
                Err(GeneralProtection) => MsrAnswer::GeneralProtection,
            }
        } else {
            self.env.msrs.read(code, &self.msr_context())
        };
        match answer {
            MsrAnswer::Value(value) => {
                self.vcpu.ctx.guest_rax = value & 0xffff_ffff;
                self.vcpu.ctx.guest_rdx = value >> 32;
                Outcome::Advance
            }
            MsrAnswer::GeneralProtection => self.inject_fault(Vector::GP, Some(0)),
            MsrAnswer::Userland => Outcome::Leave(ExitKind::Rdmsr { code }),
            // The first two are answers to writes, the local APIC's are dealt with above, and
            // what is the hardware's the bitmap passes.
            MsrAnswer::Done
            | MsrAnswer::TscOffset(_)
            | MsrAnswer::LocalApic
            | MsrAnswer::Hardware => self.unexpected(),
        }
    }

    pub fn wrmsr(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitWrmsr);
        let ctx = &self.vcpu.ctx;
        let code = ctx.guest_rcx as u32;
        let value = ctx.guest_rdx << 32 | ctx.guest_rax & 0xffff_ffff;
        if is_local_apic(code) {
            return match self.apic_wrmsr(code, value) {
                Ok(outcome) => outcome,
                Err(GeneralProtection) => self.inject_fault(Vector::GP, Some(0)),
            };
        }
        let context = self.msr_context();
        match self.env.msrs.write(code, value, &context) {
            MsrAnswer::Done => {
                if code == IA32_TSC_AUX && context.tsc_aux {
                    // The run has loaded it; RDTSCP is to see the new one.
                    // SAFETY: the guest has the MSR, so the CPU has it; the value has 32
                    // bits (MsrState), and the host's comes back when the run ends.
                    unsafe { cpu::wrmsr(cpu::msr::IA32_TSC_AUX, self.env.msrs.tsc_aux().into()) };
                }
                Outcome::Advance
            }
            MsrAnswer::TscOffset(offset) => self.set_tsc_offset(offset),
            MsrAnswer::GeneralProtection => self.inject_fault(Vector::GP, Some(0)),
            MsrAnswer::Userland => Outcome::Leave(ExitKind::Wrmsr { code, value }),
            MsrAnswer::Value(_) | MsrAnswer::LocalApic | MsrAnswer::Hardware => self.unexpected(),
        }
    }

    fn msr_context(&self) -> MsrContext {
        let backend = &self.vcpu.vm.backend;
        let tsc_offset = self.vcpu.tsc_offset;
        MsrContext {
            guest_tsc: cpu::rdtsc().wrapping_add(tsc_offset),
            tsc_offset,
            tsc_hz: backend.tsc_hz,
            tsc_aux: self.vcpu.has_tsc_aux(),
        }
    }

    /// The guest's TSC is the host's plus this. Without the control the TSC can't be set.
    fn set_tsc_offset(&mut self, offset: u64) -> Outcome {
        if !self
            .vcpu
            .controls
            .proc
            .contains(ProcControls::USE_TSC_OFFSETTING)
        {
            return self.inject_fault(Vector::GP, Some(0));
        }
        self.vcpu.tsc_offset = offset;
        self.vmcs.write(field::TSC_OFFSET, offset);
        let effect = self.env.apic.tsc_moved(&self.vcpu.apic_clock());
        self.apic_effect(effect, Outcome::Advance, Outcome::Leave)
    }
}
