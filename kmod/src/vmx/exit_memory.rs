//! Exits of the EPT (SDM vol. 3C, 29.3.3 and table 28-7). Whether a guest-physical address
//! is memory, a device or nothing at all the vm layer knows.

use vmm_core::exit::{Access, ExitKind, VmxExit};
use vmm_core::stats::Stat;
use vmm_core::types::{Gla, Gpa};
use vmm_core::vmx::field;
use vmm_core::vmx::qualification::EptViolation;
use vmm_core::vmx::reason::ExitReason;

use super::exit::Outcome;
use super::run::Run;
use crate::log_err;

impl Run<'_, '_> {
    pub fn ept_violation(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitNestedFault);
        let vectoring = self.requeue_interrupted_event(false);
        let violation = EptViolation::from_bits_retain(self.vmcs.read(field::EXIT_QUALIFICATION));
        if !vectoring.valid() && violation.contains(EptViolation::NMI_UNBLOCKING_DUE_TO_IRET) {
            self.reblock_nmis();
        }
        let access = if violation.contains(EptViolation::FETCH) {
            Access::Execute
        } else if violation.contains(EptViolation::WRITE) {
            Access::Write
        } else {
            Access::Read
        };
        // The linear address of the access itself: the walk of the guest's page tables
        // has one too, which is not what failed.
        let gla = violation
            .is_instruction_access()
            .then(|| Gla(self.vmcs.read(field::GUEST_LINEAR_ADDRESS)));
        let gpa = Gpa(self.vmcs.read(field::GUEST_PHYSICAL_ADDRESS));
        Outcome::LeaveRestart(ExitKind::Paging { gpa, gla, access })
    }

    /// An EPT entry that means nothing: a mistake of this module.
    #[cold]
    pub fn ept_misconfiguration(&mut self) -> Outcome {
        self.requeue_interrupted_event(false);
        log_err!(
            "vcpu {}: EPT misconfiguration at guest-physical address {:#x}, RIP {:#x}",
            self.vcpu.id.0,
            self.vmcs.read(field::GUEST_PHYSICAL_ADDRESS),
            self.vmcs.read(field::GUEST_RIP)
        );
        let reason = u32::from(ExitReason::EptMisconfiguration.number());
        Outcome::LeaveRestart(ExitKind::Vmx(VmxExit::Exit {
            reason,
            qualification: 0,
        }))
    }
}
