//! CR0 and CR4 through guest/host masks and read shadows (SDM vol. 3C, 25.6.6 and 26.3).
//!
//! A masked bit is the host's: the guest reads it from the shadow, and a MOV that would
//! change what it reads exits. The rest the guest writes as it likes; so most of its MOVs
//! don't exit, and the CPU itself does what depends on them: paging modes, PDPTEs, EFER.LMA,
//! TLB. An exit is answered by checking the value as the CPU would (`vmm_core::vmx::cr`),
//! letting the shadow have its masked bits, and executing the instruction again: now no
//! masked bit changes, and the CPU does the rest.

use vmm_core::types::Vector;
use vmm_core::vmx::cr::{self, Cr0, Cr4, CrFields, CrState, CrWrite, Efer};
use vmm_core::vmx::field;
use vmm_core::vmx::segment::AccessRights;

use super::exit::Outcome;
use super::run::Run;
use super::vcpu::Vcpu;
use super::vmcs::LoadedVmcs;

fn cr0_fields(vmcs: &LoadedVmcs<'_>) -> CrFields {
    CrFields {
        real: vmcs.read(field::GUEST_CR0),
        shadow: vmcs.read(field::CR0_READ_SHADOW),
        mask: vmcs.read(field::CR0_GUEST_HOST_MASK),
    }
}

fn cr4_fields(vmcs: &LoadedVmcs<'_>) -> CrFields {
    CrFields {
        real: vmcs.read(field::GUEST_CR4),
        shadow: vmcs.read(field::CR4_READ_SHADOW),
        mask: vmcs.read(field::CR4_GUEST_HOST_MASK),
    }
}

/// CR0 as the guest reads it.
pub fn guest_cr0(vmcs: &LoadedVmcs<'_>) -> u64 {
    cr0_fields(vmcs).guest_view()
}

/// CR4 as the guest reads it.
pub fn guest_cr4(vmcs: &LoadedVmcs<'_>) -> u64 {
    cr4_fields(vmcs).guest_view()
}

/// Sets what the guest reads; bits of the host's stay as they must be.
pub fn set_guest_cr0(vmcs: &mut LoadedVmcs<'_>, vcpu: &Vcpu, value: u64) {
    let fields = vcpu.vm.backend.cr.cr0(value);
    vmcs.write(field::GUEST_CR0, fields.real);
    vmcs.write(field::CR0_READ_SHADOW, fields.shadow);
    vmcs.write(field::CR0_GUEST_HOST_MASK, fields.mask);
}

/// Sets what the guest reads; bits of the host's stay as they must be.
pub fn set_guest_cr4(vmcs: &mut LoadedVmcs<'_>, vcpu: &Vcpu, value: u64) {
    let fields = vcpu.vm.backend.cr.cr4(value);
    vmcs.write(field::GUEST_CR4, fields.real);
    vmcs.write(field::CR4_READ_SHADOW, fields.shadow);
    vmcs.write(field::CR4_GUEST_HOST_MASK, fields.mask);
}

/// What the rules of CR0 and CR4 depend on.
fn state(vmcs: &LoadedVmcs<'_>) -> CrState {
    CrState {
        cr0: Cr0::from_bits_retain(guest_cr0(vmcs)),
        cr3: vmcs.read(field::GUEST_CR3),
        cr4: Cr4::from_bits_retain(guest_cr4(vmcs)),
        efer: Efer::from_bits_retain(vmcs.read(field::GUEST_IA32_EFER)),
        cs: AccessRights(vmcs.read(field::GUEST_CS_ACCESS_RIGHTS)),
        tr: AccessRights(vmcs.read(field::GUEST_TR_ACCESS_RIGHTS)),
    }
}

impl Run<'_, '_> {
    /// CR0.PE is set: descriptors and error codes exist.
    pub fn protected_mode(&self) -> bool {
        self.vmcs.read(field::GUEST_CR0) & Cr0::PE.bits() != 0
    }

    /// MOV to CR0 that changes a masked bit: CD, NW or NE, usually.
    pub fn mov_to_cr0(&mut self, value: u64) -> Outcome {
        let checked = cr::write_cr0(&self.vcpu.vm.backend.cr, state(&self.vmcs), value);
        self.adopt_cr0(checked, value, u64::MAX)
    }

    /// LMSW, whose four bits are masked on no CPU known; it can't clear PE.
    pub fn lmsw(&mut self, source: u16) -> Outcome {
        const LOW: Cr0 = Cr0::PE.union(Cr0::MP).union(Cr0::EM).union(Cr0::TS);
        let state = state(&self.vmcs);
        let checked = cr::write_lmsw(&self.vcpu.vm.backend.cr, state, source);
        let value = u64::from(source) | (state.cr0 & Cr0::PE).bits();
        self.adopt_cr0(checked, value, LOW.bits())
    }

    /// CLTS, as LMSW.
    pub fn clts(&mut self) -> Outcome {
        let checked = cr::clts(&self.vcpu.vm.backend.cr, state(&self.vmcs));
        self.adopt_cr0(checked, 0, Cr0::TS.bits())
    }

    /// The shadow takes the masked ones of `bits` from `value`.
    fn adopt_cr0(&mut self, checked: CrWrite, value: u64, bits: u64) -> Outcome {
        match checked {
            CrWrite::GeneralProtection => self.inject_fault(Vector::GP, Some(0)),
            CrWrite::Done(_) => {
                let CrFields { shadow, mask, .. } = cr0_fields(&self.vmcs);
                let bits = bits & mask;
                self.vmcs
                    .write(field::CR0_READ_SHADOW, shadow & !bits | value & bits);
                Outcome::Resume
            }
        }
    }

    /// MOV to CR4 that changes MCE or sets a bit that the guest doesn't have.
    pub fn mov_to_cr4(&mut self, value: u64) -> Outcome {
        match cr::write_cr4(&self.vcpu.vm.backend.cr, state(&self.vmcs), value) {
            CrWrite::GeneralProtection => self.inject_fault(Vector::GP, Some(0)),
            CrWrite::Done(_) => {
                let CrFields { shadow, mask, .. } = cr4_fields(&self.vmcs);
                self.vmcs
                    .write(field::CR4_READ_SHADOW, shadow & !mask | value & mask);
                Outcome::Resume
            }
        }
    }
}
