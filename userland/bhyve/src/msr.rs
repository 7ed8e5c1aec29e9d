//! MSRs that the kernel leaves to userland (emulate_rdmsr and emulate_wrmsr of bhyve): a
//! short list of those that guests touch without need. The rest is unknown: #GP, or with
//! -w zeros; either way it is said once for each MSR.

#![forbid(unsafe_code)]

const PLATFORM_ID: u32 = 0x17;
const FEATURE_CONTROL: u32 = 0x3a;
const BIOS_UPDT_TRIG: u32 = 0x79;
const BIOS_SIGN_ID: u32 = 0x8b;
const MISC_FEATURES_ENABLES: u32 = 0x140;
const RAPL_POWER_UNIT: u32 = 0x606;
const PKG_ENERGY_STATUS: u32 = 0x611;
const DRAM_ENERGY_STATUS: u32 = 0x619;
const PP0_ENERGY_STATUS: u32 = 0x639;
const PP1_ENERGY_STATUS: u32 = 0x641;
/// Uncore performance counters of Sandy Bridge.
const UNCORE: [u32; 2] = [0xc24, 0xd04];

/// RAPL_POWER_UNIT's default (SDM vol. 3B, 16.10.1): 1/8 W, 2^-16 J, 2^-10 s.
const RAPL_UNITS: u64 = 0x000a_1003;
/// Locked, with VMX off: a guest must not try to turn it on.
const FEATURE_CONTROL_LOCKED: u64 = 1;

/// The value that a read gives, `None` if the MSR is unknown.
pub const fn read(code: u32) -> Option<u64> {
    Some(match code {
        BIOS_SIGN_ID | PLATFORM_ID | MISC_FEATURES_ENABLES => 0,
        PKG_ENERGY_STATUS | PP0_ENERGY_STATUS | PP1_ENERGY_STATUS | DRAM_ENERGY_STATUS => 0,
        RAPL_POWER_UNIT => RAPL_UNITS,
        FEATURE_CONTROL => FEATURE_CONTROL_LOCKED,
        _ => return None,
    })
}

/// Whether a write is known, and so without effect.
pub fn write_is_ignored(code: u32) -> bool {
    matches!(code, BIOS_UPDT_TRIG | BIOS_SIGN_ID) || UNCORE.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_control_is_locked_and_unknown_ones_stay_unknown() {
        assert_eq!(read(FEATURE_CONTROL), Some(1));
        assert!(!write_is_ignored(FEATURE_CONTROL));
        assert_eq!(read(0xdead), None);
        assert!(write_is_ignored(BIOS_UPDT_TRIG));
        assert_eq!(read(BIOS_UPDT_TRIG), None);
    }
}
