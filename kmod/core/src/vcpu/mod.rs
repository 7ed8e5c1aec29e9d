//! What a vcpu is apart from VT-x: its capabilities by name, the state machine that says
//! who may use it ([`state`]), and the events that wait for its next VM entry ([`events`]).

pub mod events;
pub mod state;

/// The optional behaviour that VM_SET_CAPABILITY turns on and off (enum vm_cap_type).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Capability {
    /// HLT exits, and the vcpu sleeps in the kernel until something happens.
    HaltExit = 0,
    /// The monitor trap flag: an exit after each instruction.
    MtrapExit = 1,
    /// PAUSE exits.
    PauseExit = 2,
    /// Real mode and unpaged protected mode run natively.
    UnrestrictedGuest = 3,
    /// The guest may use INVPCID.
    EnableInvpcid = 4,
    /// #BP exits to userland.
    BptExit = 5,
    /// The guest may use RDPID; set by what the CPU has.
    Rdpid = 6,
    /// The guest may use RDTSCP; set by what the CPU has.
    Rdtscp = 7,
    /// Startup and init IPIs exit to userland.
    IpiExit = 8,
    /// External interrupts and NMIs are held back from the guest (single-stepping).
    MaskHwintr = 9,
    /// RFLAGS.TF belongs to the debugger, not to the guest.
    RflagsTf = 10,
}

impl Capability {
    /// All of them, in ABI order: the index is the ABI number.
    pub const ALL: [Self; 11] = [
        Self::HaltExit,
        Self::MtrapExit,
        Self::PauseExit,
        Self::UnrestrictedGuest,
        Self::EnableInvpcid,
        Self::BptExit,
        Self::Rdpid,
        Self::Rdtscp,
        Self::IpiExit,
        Self::MaskHwintr,
        Self::RflagsTf,
    ];

    /// The capability with that ABI number; VM_CAP_MAX and numbers past it are none.
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(raw).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abi_numbers_are_the_headers() {
        for (index, cap) in Capability::ALL.iter().enumerate() {
            assert_eq!(*cap as usize, index);
        }
        assert_eq!(Capability::ALL.len() as u32, vmm_sys::VM_CAP_MAX);
        assert_eq!(Capability::HaltExit as u32, vmm_sys::VM_CAP_HALT_EXIT);
        assert_eq!(
            Capability::EnableInvpcid as u32,
            vmm_sys::VM_CAP_ENABLE_INVPCID
        );
        assert_eq!(Capability::RflagsTf as u32, vmm_sys::VM_CAP_RFLAGS_TF);
        assert_eq!(Capability::from_raw(vmm_sys::VM_CAP_MAX), None);
        assert_eq!(Capability::from_raw(u32::MAX), None);
    }
}
