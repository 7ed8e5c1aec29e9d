//! The dispatch on the exit reason (SDM vol. 3D, appendix C): one match over all of them.
//! Whoever adds a reason to `vmm_core::vmx::reason` must answer it here.
//!
//! What the handlers of the families do is in `exit_cr`, `exit_event`, `exit_io`,
//! `exit_memory` and `exit_msr`; here are the few-line ones.

use vmm_core::cpu::cpuid::CpuidContext;
use vmm_core::cpu::xcr0;
use vmm_core::devices::lapic::ApicMode;
use vmm_core::exit::{ExitKind, VmxExit};
use vmm_core::stats::Stat;
use vmm_core::types::Vector;
use vmm_core::vcpu::Capability;
use vmm_core::vmx::controls::ProcControls;
use vmm_core::vmx::field;
use vmm_core::vmx::interruption::InterruptionInfo;
use vmm_core::vmx::reason::{ExitReason, ExitReasonField};

use super::cpu;
use super::debug::DR6_BS;
use super::run::Run;
use super::vcpu::Blocking;
use crate::log_warn;

/// What becomes of the guest after an exit.
pub enum Outcome {
    /// The instruction has been emulated: on behind it.
    Advance,
    /// On where it stopped: something was queued for the entry, or nothing is to be done.
    Resume,
    /// Out of the run loop; the next run begins behind the instruction.
    Leave(ExitKind),
    /// Out of the run loop; the next run begins at the same RIP.
    LeaveRestart(ExitKind),
}

/// CR4.OSXSAVE.
const CR4_OSXSAVE: u64 = 1 << 18;
/// RFLAGS.TF, RFLAGS.RF.
const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_RF: u64 = 1 << 16;
/// IA32_DEBUGCTL.BTF.
const DEBUGCTL_BTF: u64 = 1 << 1;

impl Run<'_, '_> {
    /// Answers an exit. `interruption` is the exit's interruption information if the
    /// reason is "exception or NMI".
    pub fn vmx_exit_process(
        &mut self,
        reason: ExitReason,
        interruption: InterruptionInfo,
    ) -> Outcome {
        match reason {
            ExitReason::Cpuid => self.cpuid(),
            ExitReason::Rdmsr => self.rdmsr(),
            ExitReason::Wrmsr => self.wrmsr(),
            ExitReason::IoInstruction => self.io_instruction(),
            ExitReason::EptViolation => self.ept_violation(),
            // The interrupt itself was taken by the host when interrupts came on.
            ExitReason::ExternalInterrupt => {
                self.env.stats.incr(Stat::VmexitExtint);
                Outcome::Resume
            }
            ExitReason::Hlt => self.hlt(),
            ExitReason::CrAccess => self.cr_access(),
            ExitReason::ExceptionOrNmi => self.exception_or_nmi(interruption),
            ExitReason::Pause => {
                self.env.stats.incr(Stat::VmexitPause);
                if let Some(spin) = &mut self.vcpu.spin {
                    spin.exited(cpu::rdtsc());
                }
                Outcome::Leave(ExitKind::Pause)
            }

            ExitReason::InterruptWindow => {
                self.env.stats.incr(Stat::VmexitIntrWindow);
                self.set_proc_control(ProcControls::INTERRUPT_WINDOW_EXITING, false);
                self.vcpu.interrupts.look = true;
                Outcome::Resume
            }
            ExitReason::NmiWindow => {
                self.env.stats.incr(Stat::VmexitNmiWindow);
                self.set_proc_control(ProcControls::NMI_WINDOW_EXITING, false);
                self.nmi_window_open = true;
                Outcome::Resume
            }
            ExitReason::TprBelowThreshold => self.tpr_below_threshold(),
            ExitReason::ApicAccess => self.apic_access(),
            ExitReason::ApicWrite => self.apic_write(),
            ExitReason::VirtualizedEoi => self.virtualized_eoi(),
            // The end of a time slice (`backend`): the loop looks at its requests.
            ExitReason::PreemptionTimer => {
                self.env.stats.incr(Stat::VmexitTimeSlice);
                Outcome::Resume
            }
            ExitReason::MonitorTrapFlag => {
                self.env.stats.incr(Stat::VmexitMtrap);
                Outcome::LeaveRestart(ExitKind::Mtrap)
            }

            ExitReason::TripleFault => Outcome::LeaveRestart(self.triple_fault()),
            ExitReason::TaskSwitch => self.task_switch(),
            ExitReason::MovDr => {
                self.own_debug_regs(true);
                Outcome::Resume
            }
            ExitReason::Xsetbv => self.xsetbv(),
            ExitReason::EptMisconfiguration => self.ept_misconfiguration(),

            // The caches belong to the host, and its memory types keep them coherent.
            ExitReason::Invd | ExitReason::Wbinvd => Outcome::Advance,

            // CPUID shows no VMX (nor SMX, for GETSEC): they don't exist.
            ExitReason::Vmcall
            | ExitReason::Vmclear
            | ExitReason::Vmlaunch
            | ExitReason::Vmptrld
            | ExitReason::Vmptrst
            | ExitReason::Vmread
            | ExitReason::Vmresume
            | ExitReason::Vmwrite
            | ExitReason::Vmxoff
            | ExitReason::Vmxon
            | ExitReason::Invept
            | ExitReason::Invvpid
            | ExitReason::Vmfunc => {
                self.env.stats.incr(Stat::VmexitVmxInsn);
                self.inject_fault(Vector::UD, None)
            }
            // Instructions that CPUID doesn't show either (26.1.2, 26.1.3).
            ExitReason::Monitor
            | ExitReason::Mwait
            | ExitReason::Getsec
            | ExitReason::Rsm
            | ExitReason::Encls
            | ExitReason::Enclv
            | ExitReason::Pconfig
            | ExitReason::Umwait
            | ExitReason::Tpause
            | ExitReason::Loadiwkey
            | ExitReason::Seamcall
            | ExitReason::Tdcall
            | ExitReason::Rdmsrlist
            | ExitReason::Wrmsrlist
            | ExitReason::Urdmsr
            | ExitReason::Uwrmsr
            | ExitReason::RdmsrImmediate
            | ExitReason::WrmsrnsImmediate
            | ExitReason::EnqcmdPasid
            | ExitReason::EnqcmdsPasid => self.inject_fault(Vector::UD, None),
            // CPUID leaf 0AH shows no counters: every index is out of range (vol. 2, RDPMC).
            ExitReason::Rdpmc => self.inject_fault(Vector::GP, Some(0)),

            // Signals to the CPU, which the host's firmware or another CPU sent. INIT is
            // blocked in VMX operation and a start-up IPI needs the wait-for-SIPI state,
            // which no guest has; SMIs exit under dual-monitor treatment only.
            ExitReason::InitSignal
            | ExitReason::StartupIpi
            | ExitReason::IoSmi
            | ExitReason::OtherSmi
            // Controls that no vcpu has set (vmm_core::vmx::controls::POLICY).
            | ExitReason::Invlpg
            | ExitReason::Invpcid
            | ExitReason::Rdtsc
            | ExitReason::Rdtscp
            | ExitReason::GdtrIdtrAccess
            | ExitReason::LdtrTrAccess
            | ExitReason::Rdrand
            | ExitReason::Rdseed
            | ExitReason::Xsaves
            | ExitReason::Xrstors
            | ExitReason::PageModificationLogFull
            | ExitReason::SppEvent
            | ExitReason::BusLock
            | ExitReason::InstructionTimeout
            // Failed entries have bit 31 set too and never come here (Run::entry_failed).
            | ExitReason::EntryFailureGuestState
            | ExitReason::EntryFailureMsrLoading
            | ExitReason::EntryFailureMachineCheck => self.unexpected(),
        }
    }

    /// A reason that the SDM didn't know when this was written.
    #[cold]
    pub fn unknown_exit(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitUnknown);
        self.unexpected()
    }

    /// An exit that nothing has asked for: to userland, with all that the CPU said.
    #[cold]
    pub fn unexpected(&mut self) -> Outcome {
        self.requeue_interrupted_event(false);
        let reason = ExitReasonField(self.vmcs.read(field::EXIT_REASON));
        let qualification = self.vmcs.read(field::EXIT_QUALIFICATION);
        log_warn!(
            "vcpu {}: VM exit that no control asks for: {reason}, qualification {qualification:#x}, RIP {:#x}",
            self.vcpu.id.0,
            self.vmcs.read(field::GUEST_RIP)
        );
        Outcome::LeaveRestart(ExitKind::Vmx(VmxExit::Exit {
            reason: reason.0,
            qualification,
        }))
    }

    /// The length of the instruction that exited. (Instructions are at most 15 bytes.)
    #[inline(always)]
    pub fn instruction_length(&self) -> u8 {
        self.vmcs.read(field::EXIT_INSTRUCTION_LENGTH) as u8
    }

    /// Completes an emulated instruction: RIP, the interrupt shadow, RFLAGS.RF, and the
    /// single-step trap that it would have ended with.
    #[inline(always)]
    pub fn advance(&mut self) {
        let rip = self.vmcs.read(field::GUEST_RIP);
        let mut next = rip.wrapping_add(u64::from(self.vmcs.read(field::EXIT_INSTRUCTION_LENGTH)));
        if (rip ^ next) >> 32 != 0 {
            next = self.wrapped_rip(next);
        }
        self.vmcs.write(field::GUEST_RIP, next);
        Blocking::clear_shadow(&mut self.vmcs);
        let rflags = self.vmcs.read(field::GUEST_RFLAGS);
        if rflags & (RFLAGS_TF | RFLAGS_RF) != 0 {
            self.trace_trap(rflags);
        }
    }

    /// Outside of 64-bit mode EIP wraps at 4 GiB.
    #[cold]
    fn wrapped_rip(&self, next: u64) -> u64 {
        if self.long64() {
            next
        } else {
            next & 0xffff_ffff
        }
    }

    #[cold]
    fn trace_trap(&mut self, rflags: u64) {
        if rflags & RFLAGS_RF != 0 {
            self.vmcs.write(field::GUEST_RFLAGS, rflags & !RFLAGS_RF);
        }
        let btf = self.vmcs.read(field::GUEST_IA32_DEBUGCTL) & DEBUGCTL_BTF != 0;
        if rflags & RFLAGS_TF != 0 && !btf {
            let pending = self.vmcs.read(field::GUEST_PENDING_DEBUG_EXCEPTIONS);
            self.vmcs
                .write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, pending | DR6_BS);
        }
    }

    /// Sets or clears a primary processor-based control of this vcpu.
    pub fn set_proc_control(&mut self, control: ProcControls, on: bool) {
        let controls = &mut self.vcpu.controls.proc;
        if controls.contains(control) != on {
            controls.set(control, on);
            self.vmcs
                .write(field::PRIMARY_PROCESSOR_BASED_CONTROLS, controls.bits());
        }
    }

    #[inline(always)]
    fn cpuid(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitCpuid);
        let ctx = CpuidContext {
            vcpu: self.vcpu.id,
            cr4_osxsave: self.vmcs.read(field::GUEST_CR4) & CR4_OSXSAVE != 0,
            xcr0: self.vcpu.fpu.xcr0(),
            apic: self.env.apic.mode() != ApicMode::Disabled,
            x2apic: self.env.apic.x2apic_allowed(),
            invpcid: self.vcpu.capability(Capability::EnableInvpcid),
            rdpid: self.vcpu.capability(Capability::Rdpid),
            rdtscp: self.vcpu.capability(Capability::Rdtscp),
        };
        let regs = &mut self.vcpu.ctx;
        let answer = self
            .env
            .cpuid
            .emulate(regs.guest_rax as u32, regs.guest_rcx as u32, &ctx);
        regs.guest_rax = u64::from(answer.eax);
        regs.guest_rbx = u64::from(answer.ebx);
        regs.guest_rcx = u64::from(answer.ecx);
        regs.guest_rdx = u64::from(answer.edx);
        Outcome::Advance
    }

    /// A HLT with an event behind it takes no longer than NOP (vol. 2A, HLT); without one
    /// the vm layer sleeps.
    fn hlt(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitHlt);
        let rflags = self.vmcs.read(field::GUEST_RFLAGS);
        if !self.env.inbox.is_empty() {
            self.accept();
        }
        if self.wakes(rflags) {
            return Outcome::Advance;
        }
        let intr_status = if self.cpu_delivers() {
            self.vmcs.read(field::GUEST_INTERRUPT_STATUS).into()
        } else {
            0
        };
        Outcome::Leave(ExitKind::Hlt {
            rflags,
            intr_status,
        })
    }

    /// XSETBV (vol. 2C). The CPU has checked CPL before the exit (26.1.1); the rest is ours.
    fn xsetbv(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitXsetbv);
        let allowed = self.vcpu.fpu.allowed();
        if allowed == 0 || self.vmcs.read(field::GUEST_CR4) & CR4_OSXSAVE == 0 {
            return self.inject_fault(Vector::UD, None);
        }
        let ctx = &self.vcpu.ctx;
        let value = ctx.guest_rdx << 32 | ctx.guest_rax & 0xffff_ffff;
        if ctx.guest_rcx as u32 != 0 || !xcr0::valid(value, allowed) {
            return self.inject_fault(Vector::GP, Some(0));
        }
        self.vcpu.fpu.set_xcr0(value);
        Outcome::Advance
    }
}
