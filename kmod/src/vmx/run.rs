//! Running a guest: the seed article's `vmx_run`. What is fetched, checked or switched once
//! per run is done before and after the loop; what the loop itself does is the cost of
//! every exit, so it reads no VMCS field that it doesn't need.

use core::sync::atomic::Ordering;

use vmm_core::exit::{ExitKind, SuspendHow, VmExit};
use vmm_core::stats::Stat;
use vmm_core::types::{HostCpu, Vector};
use vmm_core::vmx::controls::ProcControls;
use vmm_core::vmx::field;
use vmm_core::vmx::interruption::InterruptionInfo;
use vmm_core::vmx::reason::{ExitReason, ExitReasonField};

use super::cpu;
use super::debug::{self, HostDebugRegs};
use super::exit::Outcome;
use super::fail;
use super::host_state::{self, SavedHost};
use super::instr::{self, InveptType, InvvpidType};
use super::switch::{VMX_RETURN_LONGJMP, vmx_enter};
use super::vcpu::{Blocking, Vcpu, VtxVcpu};
use super::vmcs::LoadedVmcs;
use crate::host::cpu::{World, critical};
use crate::host::thread::should_yield;
use crate::vm::ops::{RunEnv, RunRequests};

/// One run: the current VMCS, the rest of the vcpu, and what the vm layer lends.
pub struct Run<'a, 'e> {
    pub vmcs: LoadedVmcs<'a>,
    pub vcpu: &'a mut Vcpu,
    pub env: &'a mut RunEnv<'e>,
    /// The guest's DR0 to DR3 and DR6 are exchanged around each entry (see `debug`).
    pub owns_debug_regs: bool,
    /// An NMI-window exit has just said that an NMI can be delivered.
    pub nmi_window_open: bool,
}

/// Runs the guest from `rip` until something that the vm layer has to answer (⑦).
/// Context: thread; the vcpu is the caller's.
pub fn vmx_run(this: &mut VtxVcpu, rip: u64, env: &mut RunEnv<'_>) -> VmExit {
    let critical = critical();
    let world = World::begin(&critical);
    let host_cpu = critical.cpu();
    let set_running = env.set_running;
    set_running(Some(host_cpu));
    let began = cpu::rdtsc();

    let vm = this.vcpu.vm.clone();
    let vmcs = this.vmcs.load(&critical, &vm.backend.cpus); // VMPTRLD
    let mut run = Run {
        vmcs,
        vcpu: &mut this.vcpu,
        env,
        owns_debug_regs: false,
        nmi_window_open: false,
    };
    let host = SavedHost::save();
    run.prepare(host_cpu, rip);
    let tsc_aux = run.vcpu.has_tsc_aux().then(|| run.env.msrs.tsc_aux());
    let msrs = run.vcpu.msrs.enter(tsc_aux);
    run.vcpu.fpu.enter();

    let exit = run.enter_until_leaving(rip, host_cpu, &host);

    run.vcpu.fpu.leave();
    cpu::disable_interrupts();
    run.vcpu
        .msrs
        .leave(&msrs, &run.vmcs.host_cpu().syscall_msrs);
    host.restore();
    // SAFETY: they were on when the run began: this is a thread in a critical section.
    unsafe { cpu::enable_interrupts() };
    let stats = run.env.stats;
    drop(run); // VMCLEAR
    stats.add(Stat::VcpuTotalRuntime, cpu::rdtsc().wrapping_sub(began));
    set_running(None);
    drop(world);
    exit
}

impl Run<'_, '_> {
    /// What is done once per run: host state, the guest's RIP, debug registers.
    fn prepare(&mut self, host_cpu: HostCpu, rip: u64) {
        let Self {
            vmcs, vcpu, env, ..
        } = self;
        vmcs.write(field::GUEST_RIP, rip); // ⑧
        if vcpu.next_rip != Some(rip) {
            // Somebody set another RIP or the instruction was emulated: what blocked
            // interrupts for one instruction (STI, MOV SS) is over.
            Blocking::clear_shadow(vmcs);
        }
        if vcpu.last_cpu != Some(host_cpu) {
            vcpu.last_cpu = Some(host_cpu);
            vcpu.flush_vpid = true;
            env.stats.incr(Stat::VcpuMigrations);
            host_state::write_cpu_fields(vmcs);
        }
        vcpu.host.write_thread_fields(vmcs);
        if let Some(window) = vcpu.spin.as_mut().and_then(|s| s.entering(cpu::rdtsc())) {
            vmcs.write(field::PLE_WINDOW, window);
        }
        if vcpu.flush_vpid {
            vcpu.flush_vpid = false;
            self.invalidate_vpid(host_cpu);
        }
        self.follow_apic_mode();
        self.own_debug_regs(debug::wanted(self.vmcs.read(field::GUEST_DR7)));
    }

    /// Drops the guest's cached translations. INVEPT would drop them too (29.4.3.1), so
    /// if one is due before the entry it does for both.
    fn invalidate_vpid(&mut self, host_cpu: HostCpu) {
        let Some(vpid) = &self.vcpu.vpid else { return };
        if self.vcpu.vm.ept_is_stale(host_cpu) {
            self.env.stats.incr(Stat::VcpuInvvpidSaved);
            return;
        }
        let kind = self.vcpu.vm.backend.invvpid;
        // SAFETY: in VMX operation, and the CPU has the type (Backend).
        unsafe { instr::invvpid(kind, vpid_operand(kind, vpid.get())) }.expect("INVVPID");
        self.env.stats.incr(Stat::VcpuInvvpidDone);
    }

    /// Loads the guest's debug registers around entries from now on, or leaves them out
    /// and makes MOV DR and #DB exit instead.
    pub fn own_debug_regs(&mut self, own: bool) {
        let own = own || !self.vcpu.vm.backend.mov_dr_exiting;
        self.owns_debug_regs = own;
        let controls = &mut self.vcpu.controls;
        let before = (controls.proc, controls.exception_bitmap);
        if self.vcpu.vm.backend.mov_dr_exiting {
            controls.proc.set(ProcControls::MOV_DR_EXITING, !own);
        }
        let db = 1 << Vector::DB.0;
        let db_exits = !own || self.vcpu.traced_tf.is_some();
        controls.exception_bitmap = controls.exception_bitmap & !db | if db_exits { db } else { 0 };
        if controls.proc != before.0 {
            self.vmcs.write(
                field::PRIMARY_PROCESSOR_BASED_CONTROLS,
                controls.proc.bits(),
            );
        }
        if controls.exception_bitmap != before.1 {
            self.vmcs
                .write(field::EXCEPTION_BITMAP, controls.exception_bitmap);
        }
    }

    /// The loop (⑨): entries and exits until one that is not answered here.
    fn enter_until_leaving(&mut self, rip: u64, host_cpu: HostCpu, host: &SavedHost) -> VmExit {
        let mut rip = Some(rip); // known before the first entry only
        loop {
            // From here to the entry interrupts are off: a request made after the check
            // comes with an interrupt, which then exits at once.
            cpu::disable_interrupts();
            if let Some(kind) = self.leave_requested().or_else(|| self.inject_events()) {
                // SAFETY: they were on before disable_interrupts above.
                unsafe { cpu::enable_interrupts() };
                let rip = rip.unwrap_or_else(|| self.vmcs.read(field::GUEST_RIP));
                return self.leave(VmExit {
                    rip,
                    inst_length: 0,
                    kind,
                });
            }
            let entered = self.enter(host_cpu, host);
            self.env.stats.incr(Stat::VmexitCount);
            let reason = ExitReasonField(self.vmcs.read(field::EXIT_REASON));
            if entered != VMX_RETURN_LONGJMP || reason.entry_failure() {
                let exit = self.entry_failed(entered, reason);
                match exit {
                    Some(exit) => return self.leave(exit),
                    None => continue,
                }
            }
            self.vmcs.set_launched();
            rip = None;
            let interruption = self.host_nmi(reason);
            // SAFETY: they were on before disable_interrupts above. What interrupted the
            // guest (reason 1) is taken here.
            unsafe { cpu::enable_interrupts() };
            let outcome = match reason.basic() {
                Ok(reason) => self.vmx_exit_process(reason, interruption),
                Err(_) => self.unknown_exit(),
            };
            match outcome {
                Outcome::Advance => {
                    self.advance();
                    if self.steps() {
                        // The trap comes behind each instruction, emulated ones too.
                        let rip = self.vmcs.read(field::GUEST_RIP);
                        self.env.stats.incr(Stat::VmexitMtrap);
                        return self.leave(VmExit {
                            rip,
                            inst_length: 0,
                            kind: ExitKind::Mtrap,
                        });
                    }
                }
                Outcome::Resume => {}
                Outcome::Leave(kind) => {
                    let rip = self.vmcs.read(field::GUEST_RIP);
                    let inst_length = self.instruction_length();
                    return self.leave(VmExit {
                        rip,
                        inst_length,
                        kind,
                    });
                }
                Outcome::LeaveRestart(kind) => {
                    let rip = self.vmcs.read(field::GUEST_RIP);
                    return self.leave(VmExit {
                        rip,
                        inst_length: 0,
                        kind,
                    });
                }
            }
        }
    }

    /// VM_CAP_MTRAP_EXIT is on.
    #[inline(always)]
    fn steps(&self) -> bool {
        let proc = self.vcpu.controls.proc;
        proc.contains(ProcControls::MONITOR_TRAP_FLAG)
    }

    /// The world switch itself (⑩ to ⑭). Interrupts are off, before and after.
    #[inline(always)]
    fn enter(&mut self, host_cpu: HostCpu, host: &SavedHost) -> u32 {
        self.vcpu.host.write_volatile_fields(&mut self.vmcs);
        self.invalidate_ept(host_cpu);
        let guest_debug_regs = self.owns_debug_regs.then_some(&self.vcpu.debug_regs);
        let host_debug_regs = HostDebugRegs::enter(guest_debug_regs);
        let launched = self.vmcs.launched();
        self.vcpu.vm.backend.l1d_flush.run();
        // SAFETY: interrupts are off; the VMCS is current, its HOST_RSP is this VmxCtx
        // and its HOST_RIP vmx_longjmp (vminit), its host state this CPU's and thread's
        // (prepare, write_volatile_fields); launched is its launch state.
        let entered = unsafe { vmx_enter(&raw mut *self.vcpu.ctx, launched) };
        host_debug_regs.leave(&mut self.vcpu.debug_regs);
        if host.debugctl != 0 {
            // SAFETY: the host's own value, which the VM exit cleared.
            unsafe { cpu::wrmsr(cpu::msr::IA32_DEBUGCTL, host.debugctl) };
        }
        entered
    }

    /// INVEPT, if a mapping of the EPT became stricter since this CPU last entered the VM.
    #[inline(always)]
    fn invalidate_ept(&mut self, host_cpu: HostCpu) {
        let vm = &self.vcpu.vm;
        let generation = vm.ept.generation.load(Ordering::Acquire);
        let seen = &vm.ept_seen[host_cpu.0 as usize];
        if seen.load(Ordering::Relaxed) == generation {
            return;
        }
        seen.store(generation, Ordering::Relaxed);
        let kind = vm.backend.invept;
        let operand = match kind {
            InveptType::SingleContext => vm.eptp,
            InveptType::AllContexts => 0,
        };
        // SAFETY: in VMX operation, and the CPU has the type (Backend).
        unsafe { instr::invept(kind, operand) }.expect("INVEPT");
        self.env.stats.incr(Stat::EptInvept);
    }

    /// A reason to leave the loop instead of entering. Interrupts are off.
    #[inline(always)]
    fn leave_requested(&mut self) -> Option<ExitKind> {
        let requests = self.env.requests;
        if let Some(how) = suspended(requests) {
            return Some(ExitKind::Suspended(how));
        }
        if requests.reqidle.load(Ordering::Acquire) != 0 {
            self.env.stats.incr(Stat::VmexitReqidle);
            return Some(ExitKind::Reqidle);
        }
        if should_yield() {
            self.env.stats.incr(Stat::VmexitAstpending);
            return Some(ExitKind::Bogus);
        }
        if requests.debug.load(Ordering::Acquire) {
            return Some(ExitKind::Debug);
        }
        None
    }

    /// An NMI of the host that exited is the host's to handle, before interrupts are on
    /// again: an interrupt's IRET would unblock NMIs too early. Reads the interruption
    /// information for that and returns it for the exit's handling.
    #[inline(always)]
    fn host_nmi(&mut self, reason: ExitReasonField) -> InterruptionInfo {
        if reason.basic() != Ok(ExitReason::ExceptionOrNmi) {
            return InterruptionInfo(0);
        }
        let info = InterruptionInfo(self.vmcs.read(field::EXIT_INTERRUPTION_INFO));
        if info.is_nmi() {
            // SAFETY: interrupts have been off since the exit.
            unsafe { cpu::host_nmi() };
        }
        info
    }

    /// The guest's shutdown. Making it the end of the whole VM is the vm layer's.
    pub fn triple_fault(&mut self) -> ExitKind {
        ExitKind::Suspended(SuspendHow::TripleFault)
    }

    /// The entry didn't reach the guest. `None` after a machine check, which the host's
    /// handler has dealt with by then. Turns interrupts on.
    #[cold]
    fn entry_failed(&mut self, entered: u32, reason: ExitReasonField) -> Option<VmExit> {
        let machine_check = entered == VMX_RETURN_LONGJMP
            && reason.basic() == Ok(ExitReason::EntryFailureMachineCheck);
        if machine_check {
            // SAFETY: right after such an exit.
            unsafe { cpu::host_machine_check() };
        }
        // SAFETY: they were on before the loop's disable_interrupts.
        unsafe { cpu::enable_interrupts() };
        if machine_check {
            fail::keep_event(&mut self.vmcs, self.env.events);
            return None;
        }
        self.env.stats.incr(Stat::VmentryFailed);
        let rip = self.vmcs.read(field::GUEST_RIP);
        let kind = ExitKind::Vmx(fail::entry_failure(self, entered, reason));
        Some(VmExit {
            rip,
            inst_length: 0,
            kind,
        })
    }

    /// The end of the loop: the next run goes on where the guest stopped.
    fn leave(&mut self, exit: VmExit) -> VmExit {
        self.vcpu.next_rip = Some(exit.rip);
        exit
    }
}

fn vpid_operand(kind: InvvpidType, vpid: u16) -> u16 {
    match kind {
        InvvpidType::SingleContext => vpid,
        InvvpidType::AllContexts => 0,
    }
}

/// How the VM is to end, if it is.
fn suspended(requests: &RunRequests) -> Option<SuspendHow> {
    SuspendHow::from_raw(requests.suspend.load(Ordering::Acquire))
}
