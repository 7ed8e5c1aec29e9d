//! The segment checks of a memory operand: logical to linear address (SDM vol. 3A, 3.4 and
//! 5.3–5.5), and the alignment check (6.15, interrupt 17). For instructions that run here
//! instead of on the CPU: accesses to devices, and bhyve's INS and OUTS.

use super::paging::is_canonical;
use crate::regs::{CpuMode, GuestPaging, PagingMode, SegDesc, SegReg};
use crate::types::Gla;

/// What an operand is accessed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Read,
    Write,
}

/// The exception that the access raises; both have error code 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentFault {
    GeneralProtection,
    Stack,
}

/// Access rights as in SDM table 25-2.
const TYPE_CODE: u32 = 1 << 3;
/// Writable for data, readable for code.
const TYPE_RW: u32 = 1 << 1;
const TYPE_EXPAND_DOWN: u32 = 1 << 2;
const PRESENT: u32 = 1 << 7;
const BIG: u32 = 1 << 14;
const UNUSABLE: u32 = 1 << 16;

/// The linear address of `len` bytes at `offset` in a segment. `addrsize` is the
/// instruction's address size in bytes, which the offset wraps at.
pub fn linear_address(
    paging: &GuestPaging,
    seg: SegReg,
    desc: &SegDesc,
    offset: u64,
    len: u64,
    addrsize: u8,
    operation: Operation,
) -> Result<Gla, SegmentFault> {
    let fault = if seg == SegReg::Ss {
        SegmentFault::Stack
    } else {
        SegmentFault::GeneralProtection
    };
    let offset = offset & address_mask(addrsize);
    let mode = paging.cpu_mode;
    if mode == CpuMode::Long64 {
        // Bases other than those of FS and GS count as 0, limits don't count.
        let base = if matches!(seg, SegReg::Fs | SegReg::Gs) {
            desc.base
        } else {
            0
        };
        let first = base.wrapping_add(offset);
        let last = first.wrapping_add(len - 1);
        let bits = if paging.paging_mode == PagingMode::Level5 {
            57
        } else {
            48
        };
        return if is_canonical(first, bits) && is_canonical(last, bits) {
            Ok(Gla(first))
        } else {
            Err(fault)
        };
    }
    // In real mode the access rights don't count, but the limit does.
    if mode != CpuMode::Real && !may_access(desc.access, operation) {
        return Err(fault);
    }
    if !within_limit(desc, offset, len) {
        return Err(fault);
    }
    Ok(Gla(desc.base.wrapping_add(offset) & u64::from(u32::MAX)))
}

/// The linear address `n` bytes on: outside 64-bit mode it wraps at 4 GiB.
pub fn linear_offset(paging: &GuestPaging, gla: Gla, n: u64) -> Gla {
    let sum = gla.get().wrapping_add(n);
    Gla(if paging.cpu_mode == CpuMode::Long64 {
        sum
    } else {
        sum & u64::from(u32::MAX)
    })
}

/// Whether an unaligned access raises #AC: at privilege level 3 with CR0.AM and RFLAGS.AC.
pub fn alignment_fault(cpl: u8, cr0: u64, rflags: u64, gla: Gla, len: u64) -> bool {
    const CR0_AM: u64 = 1 << 18;
    const RFLAGS_AC: u64 = 1 << 18;
    cpl == 3 && cr0 & CR0_AM != 0 && rflags & RFLAGS_AC != 0 && gla.get() % len != 0
}

/// The bits of an address of that many bytes.
pub const fn address_mask(addrsize: u8) -> u64 {
    match addrsize {
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

fn may_access(access: u32, operation: Operation) -> bool {
    if access & UNUSABLE != 0 || access & PRESENT == 0 {
        return false;
    }
    let code = access & TYPE_CODE != 0;
    match operation {
        Operation::Read => !code || access & TYPE_RW != 0,
        Operation::Write => !code && access & TYPE_RW != 0,
    }
}

fn within_limit(desc: &SegDesc, offset: u64, len: u64) -> bool {
    let Some(last) = offset.checked_add(len - 1) else {
        return false;
    };
    let limit = u64::from(desc.limit);
    if desc.access & (TYPE_CODE | TYPE_EXPAND_DOWN) == TYPE_EXPAND_DOWN {
        let top = if desc.access & BIG != 0 {
            u64::from(u32::MAX)
        } else {
            0xffff
        };
        offset > limit && last <= top
    } else {
        last <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DATA: u32 = 0xc093;

    fn paging(cpu_mode: CpuMode) -> GuestPaging {
        GuestPaging {
            cr3: 0,
            cpl: 0,
            cpu_mode,
            paging_mode: PagingMode::Level4,
        }
    }

    fn flat(access: u32) -> SegDesc {
        SegDesc {
            base: 0x1000,
            limit: u32::MAX,
            access,
        }
    }

    fn protected(desc: SegDesc, offset: u64, operation: Operation) -> Result<Gla, SegmentFault> {
        linear_address(
            &paging(CpuMode::Protected),
            SegReg::Ds,
            &desc,
            offset,
            4,
            4,
            operation,
        )
    }

    #[test]
    fn base_is_added_and_wraps_at_four_gigabytes() {
        assert_eq!(
            protected(flat(DATA), 0x234, Operation::Read),
            Ok(Gla(0x1234))
        );
        assert_eq!(
            protected(flat(DATA), 0xffff_f000, Operation::Read),
            Ok(Gla(0))
        );
    }

    #[test]
    fn limits_bound_the_last_byte() {
        let desc = SegDesc {
            base: 0,
            limit: 0xfff,
            access: 0x93,
        };
        assert!(protected(desc, 0xffc, Operation::Write).is_ok());
        assert_eq!(
            protected(desc, 0xffd, Operation::Write),
            Err(SegmentFault::GeneralProtection)
        );
        let down = SegDesc {
            base: 0,
            limit: 0xfff,
            access: 0x97,
        };
        assert!(protected(down, 0xfff, Operation::Write).is_err());
        assert!(protected(down, 0x1000, Operation::Write).is_ok());
        assert!(
            protected(down, 0xfffd, Operation::Write).is_err(),
            "16-bit expand-down"
        );
        let down = SegDesc {
            access: 0xc097,
            ..down
        };
        assert!(protected(down, 0xfffd, Operation::Write).is_ok());
    }

    #[test]
    fn access_rights_count_outside_real_mode() {
        for (access, read, write) in [
            (0x93, true, true),
            (0x91, true, false),
            (0x9b, true, false),
            (0x99, false, false),
            (0x13, false, false),
            (0x1_0093, false, false),
        ] {
            let desc = flat(access);
            assert_eq!(
                protected(desc, 0, Operation::Read).is_ok(),
                read,
                "{access:#x}"
            );
            assert_eq!(
                protected(desc, 0, Operation::Write).is_ok(),
                write,
                "{access:#x}"
            );
            let real = linear_address(
                &paging(CpuMode::Real),
                SegReg::Ds,
                &desc,
                0,
                1,
                2,
                Operation::Write,
            );
            assert_eq!(real, Ok(Gla(0x1000)));
        }
    }

    #[test]
    fn stack_segment_has_its_own_fault() {
        let desc = SegDesc {
            base: 0,
            limit: 0,
            access: 0x93,
        };
        let result = linear_address(
            &paging(CpuMode::Protected),
            SegReg::Ss,
            &desc,
            1,
            1,
            4,
            Operation::Read,
        );
        assert_eq!(result, Err(SegmentFault::Stack));
    }

    #[test]
    fn sixty_four_bit_mode_wants_canonical_addresses_and_ignores_most_bases() {
        let long = |seg, base, offset, addrsize| {
            let desc = SegDesc {
                base,
                limit: 0,
                access: UNUSABLE,
            };
            linear_address(
                &paging(CpuMode::Long64),
                seg,
                &desc,
                offset,
                4,
                addrsize,
                Operation::Write,
            )
        };
        assert_eq!(long(SegReg::Ds, 0x5000, 0x10, 8), Ok(Gla(0x10)));
        assert_eq!(long(SegReg::Gs, 0x5000, 0x10, 8), Ok(Gla(0x5010)));
        assert!(long(SegReg::Ds, 0, 0x8000_0000_0000, 8).is_err());
        assert!(
            long(SegReg::Ds, 0, 0x7fff_ffff_fffd, 8).is_err(),
            "its last byte is not"
        );
        assert!(long(SegReg::Ds, 0, 0xffff_8000_0000_0000, 8).is_ok());
        assert_eq!(long(SegReg::Ds, 0, 0xdead_0000_1234, 4), Ok(Gla(0x1234)));
    }

    #[test]
    fn alignment_check_needs_all_three() {
        let (am, ac) = (1 << 18, 1 << 18);
        assert!(alignment_fault(3, am, ac, Gla(1), 2));
        assert!(!alignment_fault(3, am, ac, Gla(2), 2));
        assert!(!alignment_fault(0, am, ac, Gla(1), 2));
        assert!(!alignment_fault(3, 0, ac, Gla(1), 2));
        assert!(!alignment_fault(3, am, 0, Gla(1), 2));
        assert!(!alignment_fault(3, am, ac, Gla(1), 1));
    }

    proptest! {
        #[test]
        fn no_operand_panics(base: u64, limit: u32, access: u32, offset: u64, mode in 0u8..4) {
            let mode = [CpuMode::Real, CpuMode::Protected, CpuMode::Compatibility, CpuMode::Long64]
                [usize::from(mode)];
            let desc = SegDesc { base, limit, access };
            for addrsize in [2, 4, 8] {
                let _ = linear_address(&paging(mode), SegReg::Es, &desc, offset, 4, addrsize, Operation::Read);
            }
        }
    }
}
