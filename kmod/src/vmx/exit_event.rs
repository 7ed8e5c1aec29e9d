//! Exits about events: exceptions and NMIs, task switches, and events whose delivery an
//! exit interrupted (SDM vol. 3C, 28.2.2 to 28.2.4 and 32.7).

use vmm_core::exit::{ExitKind, TaskSwitch, TaskSwitchReason};
use vmm_core::stats::Stat;
use vmm_core::types::Vector;
use vmm_core::vcpu::Capability;
use vmm_core::vcpu::events::{EventType, IntInfo};
use vmm_core::vmx::field;
use vmm_core::vmx::interruption::InterruptionInfo;
use vmm_core::vmx::qualification::{DebugExceptions, TaskSwitchQualification};

use super::cpu;
use super::debug::{DR6_BS, DR7_GD};
use super::exit::Outcome;
use super::run::Run;
use super::vcpu::Blocking;

const RFLAGS_TF: u64 = 1 << 8;
/// IA32_DEBUGCTL.LBR.
const DEBUGCTL_LBR: u64 = 1;

impl Run<'_, '_> {
    /// Queues a fault of the instruction that exited; the guest stays at it.
    pub fn inject_fault(&mut self, vector: Vector, error_code: Option<u32>) -> Outcome {
        // The run loop drops the error code in real mode. The queue is empty since the
        // last entry, and what the exit itself interrupted is in the other slot.
        self.env
            .events
            .inject_exception(vector, error_code)
            .expect("no exception waits between an exit and its handling");
        Outcome::Resume
    }

    /// The event whose delivery this exit interrupted goes back into the queue (28.2.4).
    /// Returns the IDT-vectoring information.
    pub fn requeue_interrupted_event(&mut self, task_switch: bool) -> InterruptionInfo {
        let info = InterruptionInfo(self.vmcs.read(field::IDT_VECTORING_INFO));
        if !info.valid() {
            return info;
        }
        let error_code = self.vmcs.read(field::IDT_VECTORING_ERROR_CODE);
        if let Some(event) = info.to_intinfo(error_code) {
            self.env
                .events
                .set_exit_intinfo(event.raw())
                .expect("the CPU delivers events that exist");
        }
        match info.kind() {
            // The delivery set blocking by NMI, with which an NMI can't be injected
            // again. A new task begins with NMIs blocked, though (26.4.2).
            Some(EventType::Nmi) if !task_switch => Blocking::set_nmi(&mut self.vmcs, false),
            Some(
                EventType::SoftwareInterrupt
                | EventType::PrivilegedSoftwareException
                | EventType::SoftwareException,
            ) => {
                let length = u32::from(self.instruction_length());
                self.vmcs.write(field::ENTRY_INSTRUCTION_LENGTH, length);
            }
            Some(EventType::Nmi | EventType::ExternalInterrupt | EventType::HardwareException)
            | None => {}
        }
        info
    }

    /// An IRET that faulted has unblocked NMIs nevertheless: they are to be blocked when
    /// it is executed again (28.2.2 and 28.2.1, "NMI unblocking due to IRET").
    pub fn reblock_nmis(&mut self) {
        Blocking::set_nmi(&mut self.vmcs, true);
    }

    /// Exceptions that the bitmap selects, and NMIs of the host, which are done already.
    pub fn exception_or_nmi(&mut self, info: InterruptionInfo) -> Outcome {
        let vectoring = self.requeue_interrupted_event(false);
        if !vectoring.valid() && !info.is_exception(Vector::DF) && info.nmi_unblocking_due_to_iret()
        {
            self.reblock_nmis();
        }
        if info.is_nmi() {
            self.env.stats.incr(Stat::VmexitHostNmi);
            return Outcome::Resume;
        }
        self.env.stats.incr(Stat::VmexitException);
        if info.is_exception(Vector::MC) {
            // SAFETY: right after such an exit.
            unsafe { cpu::host_machine_check() };
            return Outcome::Resume;
        }
        if info.is_exception(Vector::BP) && self.vcpu.capability(Capability::BptExit) {
            let inst_length = self.instruction_length();
            return Outcome::LeaveRestart(ExitKind::Bpt { inst_length });
        }
        if info.is_exception(Vector::DB) {
            if let Some(exit) = self.traced_step() {
                return exit;
            }
        }
        self.reflect(info)
    }

    /// VM_CAP_RFLAGS_TF: a step that a debugger has asked for is not the guest's to see.
    fn traced_step(&mut self) -> Option<Outcome> {
        let own = self.vcpu.traced_tf?;
        let what = DebugExceptions::from_bits_retain(self.vmcs.read(field::EXIT_QUALIFICATION));
        if !what.contains(DebugExceptions::SINGLE_STEP) {
            return None;
        }
        if self.vmcs.read(field::GUEST_RFLAGS) & RFLAGS_TF == 0 {
            // The instruction itself has cleared it (POPF, IRET, SYSCALL).
            self.vcpu.traced_tf = Some(false);
        }
        // The next entry has TF too, see `capability`.
        Blocking::clear_shadow(&mut self.vmcs);
        Some(Outcome::LeaveRestart(ExitKind::Db {
            trace_trap: true,
            pushf_intercept: false,
            tf_shadow: own,
            paging: self.guest_paging(),
        }))
    }

    /// The guest gets the exception as if it had not exited.
    fn reflect(&mut self, info: InterruptionInfo) -> Outcome {
        let (vector, kind) = (info.vector(), info.kind());
        if vector == Vector::DB {
            self.note_db(kind);
        }
        if vector == Vector::PF {
            self.vcpu.ctx.guest_cr2 = self.vmcs.read(field::EXIT_QUALIFICATION);
        }
        if let Some(
            kind @ (EventType::SoftwareException | EventType::PrivilegedSoftwareException),
        ) = kind
        {
            // INT3, INTO and INT1 are traps of an instruction: its length goes along.
            let length = u32::from(self.instruction_length());
            self.vmcs.write(field::ENTRY_INSTRUCTION_LENGTH, length);
            let event = IntInfo::new(kind, vector, None);
            self.env
                .events
                .set_exit_intinfo(event.raw())
                .expect("it exists");
            return Outcome::Resume;
        }
        let error_code = info
            .error_code_valid()
            .then(|| self.vmcs.read(field::EXIT_INTERRUPTION_ERROR_CODE));
        self.inject_fault(vector, error_code)
    }

    /// A #DB that exits leaves DR6, DR7 and IA32_DEBUGCTL as they were (28.1): they get
    /// here what its delivery would have put there. The guest is about to read DR6.
    fn note_db(&mut self, kind: Option<EventType>) {
        let qualification = self.vmcs.read(field::EXIT_QUALIFICATION);
        self.vcpu.debug_regs.note_db(qualification);
        let dr7 = self.vmcs.read(field::GUEST_DR7);
        self.vmcs.write(field::GUEST_DR7, dr7 & !DR7_GD);
        let debugctl = self.vmcs.read(field::GUEST_IA32_DEBUGCTL);
        self.vmcs
            .write(field::GUEST_IA32_DEBUGCTL, debugctl & !DEBUGCTL_LBR);
        self.own_debug_regs(true);
        // Single-stepping in the shadow of STI or MOV SS: VM entry wants BS pending then
        // (27.3.1.5), and this exit, unlike others, does not leave it so.
        let stepping = self.vmcs.read(field::GUEST_RFLAGS) & RFLAGS_TF != 0;
        if stepping
            && kind == Some(EventType::HardwareException)
            && Blocking::read(&self.vmcs).shadow()
        {
            let pending = self.vmcs.read(field::GUEST_PENDING_DEBUG_EXCEPTIONS);
            self.vmcs
                .write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, pending | DR6_BS);
        }
    }

    /// A task switch by hardware, which VMX non-root operation doesn't do (26.4.2 and
    /// table 28-2): userland does it.
    pub fn task_switch(&mut self) -> Outcome {
        let vectoring = self.requeue_interrupted_event(true);
        let TaskSwitchQualification {
            tss_selector,
            reason,
        } = TaskSwitchQualification::from_raw(self.vmcs.read(field::EXIT_QUALIFICATION));
        // Through a task gate by an event that no instruction asked for: RIP is what the
        // old TSS is to have, and no instruction is behind it.
        let ext = reason == TaskSwitchReason::IdtGate
            && vectoring.valid()
            && matches!(
                vectoring.kind(),
                Some(EventType::ExternalInterrupt | EventType::Nmi | EventType::HardwareException)
            );
        let error_code = (ext && vectoring.error_code_valid())
            .then(|| self.vmcs.read(field::IDT_VECTORING_ERROR_CODE));
        let exit = ExitKind::TaskSwitch(TaskSwitch {
            tss_selector,
            ext,
            error_code,
            reason,
            paging: self.guest_paging(),
        });
        if ext {
            Outcome::LeaveRestart(exit)
        } else {
            Outcome::Leave(exit)
        }
    }
}
