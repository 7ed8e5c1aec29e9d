//! The names of capabilities, as libvmmapi and bhyvectl have them.

use crate::Capability;

/// The name of a capability: "hlt_exit".
pub const fn capability_name(cap: Capability) -> &'static str {
    match cap {
        Capability::HaltExit => "hlt_exit",
        Capability::MtrapExit => "mtrap_exit",
        Capability::PauseExit => "pause_exit",
        Capability::UnrestrictedGuest => "unrestricted_guest",
        Capability::EnableInvpcid => "enable_invpcid",
        Capability::BptExit => "bpt_exit",
        Capability::Rdpid => "rdpid",
        Capability::Rdtscp => "rdtscp",
        Capability::IpiExit => "ipi_exit",
        Capability::MaskHwintr => "mask_hwintr",
        Capability::RflagsTf => "rflags_tf",
    }
}

/// The capability of that name.
pub fn capability_by_name(name: &str) -> Option<Capability> {
    Capability::ALL
        .into_iter()
        .find(|cap| capability_name(*cap) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for cap in Capability::ALL {
            assert_eq!(capability_by_name(capability_name(cap)), Some(cap));
        }
        assert_eq!(capability_by_name("no_such_exit"), None);
    }
}
