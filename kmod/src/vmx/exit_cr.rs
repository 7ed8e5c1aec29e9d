//! Control-register accesses that exit (SDM vol. 3C, table 28-3): which register, from
//! where. What a new CR0 or CR4 means is in `cr`.

use vmm_core::regs::Reg;
use vmm_core::stats::Stat;
use vmm_core::types::Vector;
use vmm_core::vmx::field;
use vmm_core::vmx::qualification::CrAccess;

use super::exit::Outcome;
use super::regs::{memory_register, memory_register_mut};
use super::run::Run;

/// CR8 has four bits.
const CR8_MAX: u64 = 15;

impl Run<'_, '_> {
    pub fn cr_access(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitCrAccess);
        match CrAccess::from_raw(self.vmcs.read(field::EXIT_QUALIFICATION)) {
            CrAccess::MovToCr { cr: 0, reg } => self.mov_to_cr0(self.guest_reg(reg)),
            CrAccess::MovToCr { cr: 4, reg } => self.mov_to_cr4(self.guest_reg(reg)),
            CrAccess::MovToCr { cr: 8, reg } => self.mov_to_cr8(self.guest_reg(reg)),
            CrAccess::MovFromCr { cr: 8, reg } => {
                self.set_guest_reg(reg, self.env.apic.cr8().into());
                Outcome::Advance
            }
            CrAccess::Lmsw { source, .. } => self.lmsw(source),
            CrAccess::Clts => self.clts(),
            // CR3 doesn't exit (`backend`), CR0 and CR4 are read from their shadows.
            CrAccess::MovToCr { .. } | CrAccess::MovFromCr { .. } => self.unexpected(),
        }
    }

    /// The task priority (SDM vol. 3A, 11.8.6).
    fn mov_to_cr8(&mut self, value: u64) -> Outcome {
        if value > CR8_MAX {
            return self.inject_fault(Vector::GP, Some(0));
        }
        self.set_cr8(value as u8);
        Outcome::Advance
    }

    /// A general register.
    fn guest_reg(&self, reg: Reg) -> u64 {
        match memory_register(self.vcpu, reg) {
            Some(value) => value,
            // RSP alone is in the VMCS.
            None => self.vmcs.read(field::GUEST_RSP),
        }
    }

    fn set_guest_reg(&mut self, reg: Reg, value: u64) {
        match memory_register_mut(self.vcpu, reg) {
            Some(slot) => *slot = value,
            None => self.vmcs.write(field::GUEST_RSP, value),
        }
    }
}
