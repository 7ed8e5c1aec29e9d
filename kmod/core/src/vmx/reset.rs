//! The guest's state after power-up, RESET or INIT (SDM vol. 3A, 10.1.1, table 10-1), as
//! the guest-state area of a VMCS.
//!
//! CR0 and CR4 are not in the table: their fields, masks and read shadows follow from the
//! values here through [`super::cr::CrPolicy`]. Nor is what depends on the CPU or is no
//! VMCS field: general registers (0, but EDX has the signature), DR0 to DR3, DR6, CR2, XCR0,
//! the FPU.

use super::field::{self, VmcsField};

/// CR0 after a reset: CD, NW and ET.
pub const CR0: u64 = 0x6000_0010;
pub const CR4: u64 = 0;
pub const DR6: u64 = 0xffff_0ff0;
/// IA32_PAT: WB, WT, UC-, UC, twice (SDM vol. 3A, 12.12.4).
pub const PAT: u64 = 0x0007_0406_0007_0406;
/// The first instruction is at F000:FFF0 with a base of FFFF0000, 16 bytes below 4 GiB.
pub const RIP: u64 = 0xfff0;

/// A present, accessed, writable data segment. CS has it too: real-mode code is no less
/// executable, and 27.3.1.2 allows type 3 for the CS of an unrestricted guest.
const DATA_RW_ACCESSED: u64 = 0x93;
/// A present LDT.
const LDT: u64 = 0x82;
/// A present, busy TSS: 27.3.1.2 demands a busy one.
const TSS_BUSY: u64 = 0x8b;

macro_rules! table {
    ($($field:ident = $value:expr;)*) => {
        &[$((field::$field.field(), $value),)*]
    };
}

/// Field and value.
pub const GUEST_STATE: &[(VmcsField, u64)] = table! {
    GUEST_RIP = RIP;
    GUEST_RFLAGS = 0x2;
    GUEST_RSP = 0;
    GUEST_CR3 = 0;
    GUEST_DR7 = 0x400;

    GUEST_CS_SELECTOR = 0xf000;
    GUEST_CS_BASE = 0xffff_0000;
    GUEST_CS_LIMIT = 0xffff;
    GUEST_CS_ACCESS_RIGHTS = DATA_RW_ACCESSED;
    GUEST_SS_SELECTOR = 0;
    GUEST_SS_BASE = 0;
    GUEST_SS_LIMIT = 0xffff;
    GUEST_SS_ACCESS_RIGHTS = DATA_RW_ACCESSED;
    GUEST_DS_SELECTOR = 0;
    GUEST_DS_BASE = 0;
    GUEST_DS_LIMIT = 0xffff;
    GUEST_DS_ACCESS_RIGHTS = DATA_RW_ACCESSED;
    GUEST_ES_SELECTOR = 0;
    GUEST_ES_BASE = 0;
    GUEST_ES_LIMIT = 0xffff;
    GUEST_ES_ACCESS_RIGHTS = DATA_RW_ACCESSED;
    GUEST_FS_SELECTOR = 0;
    GUEST_FS_BASE = 0;
    GUEST_FS_LIMIT = 0xffff;
    GUEST_FS_ACCESS_RIGHTS = DATA_RW_ACCESSED;
    GUEST_GS_SELECTOR = 0;
    GUEST_GS_BASE = 0;
    GUEST_GS_LIMIT = 0xffff;
    GUEST_GS_ACCESS_RIGHTS = DATA_RW_ACCESSED;
    GUEST_LDTR_SELECTOR = 0;
    GUEST_LDTR_BASE = 0;
    GUEST_LDTR_LIMIT = 0xffff;
    GUEST_LDTR_ACCESS_RIGHTS = LDT;
    GUEST_TR_SELECTOR = 0;
    GUEST_TR_BASE = 0;
    GUEST_TR_LIMIT = 0xffff;
    GUEST_TR_ACCESS_RIGHTS = TSS_BUSY;
    GUEST_GDTR_BASE = 0;
    GUEST_GDTR_LIMIT = 0xffff;
    GUEST_IDTR_BASE = 0;
    GUEST_IDTR_LIMIT = 0xffff;

    GUEST_IA32_EFER = 0;
    GUEST_IA32_PAT = PAT;
    GUEST_IA32_DEBUGCTL = 0;
    GUEST_IA32_SYSENTER_CS = 0;
    GUEST_IA32_SYSENTER_ESP = 0;
    GUEST_IA32_SYSENTER_EIP = 0;

    // Not of table 10-1: nothing blocked, nothing pending, active, no shadow VMCS.
    GUEST_INTERRUPTIBILITY_STATE = 0;
    GUEST_ACTIVITY_STATE = 0;
    GUEST_PENDING_DEBUG_EXCEPTIONS = 0;
    VMCS_LINK_POINTER = u64::MAX;
    GUEST_PDPTE0 = 0;
    GUEST_PDPTE1 = 0;
    GUEST_PDPTE2 = 0;
    GUEST_PDPTE3 = 0;
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::field::{Kind, Width};

    #[test]
    fn values_fit_their_fields_and_none_is_twice() {
        for (i, &(field, value)) in GUEST_STATE.iter().enumerate() {
            assert_eq!(field.kind(), Kind::Guest, "{field:?}");
            match field.width() {
                Width::Bits16 => assert!(value <= 0xffff, "{field:?}"),
                Width::Bits32 => assert!(value <= 0xffff_ffff, "{field:?}"),
                Width::Bits64 | Width::Natural => {}
            }
            assert!(
                GUEST_STATE[i + 1..].iter().all(|(f, _)| *f != field),
                "{field:?} twice"
            );
        }
    }

    #[test]
    fn the_first_instruction_is_16_bytes_below_4_gib() {
        let of = |f: VmcsField| {
            GUEST_STATE
                .iter()
                .find(|(field, _)| *field == f)
                .map(|(_, v)| *v)
        };
        let base = of(field::GUEST_CS_BASE.field()).unwrap();
        let rip = of(field::GUEST_RIP.field()).unwrap();
        assert_eq!(base + rip, 0xffff_fff0);
    }
}
