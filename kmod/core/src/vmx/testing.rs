//! A CPU for the tests of this module: the capability MSRs of a Haswell-like server CPU.

use super::caps::{CapabilityMsrs, VmxCaps};

/// Raw values. All controls that POLICY names may be 1; default1 bits as the SDM lists them
/// (A.3 to A.5), relaxed by the TRUE MSRs.
pub fn haswell() -> CapabilityMsrs {
    CapabilityMsrs {
        cpuid_1_ecx: 1 << 5,
        max_phys_addr_width: 39,
        cr0: 0x8005_0033,
        cr4: 0x0017_06f0,
        feature_control: 0x5,
        basic: 0x00da_0400_0000_0012,
        pinbased: 0x0000_00ff_0000_0016,
        procbased: 0xfff9_fffe_0401_e172,
        exit: 0x007f_ffff_0003_6dff,
        entry: 0x0000_ffff_0000_11ff,
        misc: 0x7004_01e5,
        cr0_fixed0: 0x8000_0021,
        cr0_fixed1: 0xffff_ffff,
        cr4_fixed0: 0x2000,
        cr4_fixed1: 0x0037_67ff,
        vmcs_enum: 0x2a,
        procbased2: 0x0000_7fff_0000_0000,
        ept_vpid_cap: 0x0000_0f01_0633_4141,
        true_pinbased: 0x0000_00ff_0000_0016,
        true_procbased: 0xfff9_fffe_0400_6172,
        true_exit: 0x007f_ffff_0003_6dfb,
        true_entry: 0x0000_ffff_0000_11fb,
        vmfunc: 1,
    }
}

/// The same, checked.
pub fn caps() -> VmxCaps {
    VmxCaps::check(&haswell()).expect("a Haswell is good enough")
}
