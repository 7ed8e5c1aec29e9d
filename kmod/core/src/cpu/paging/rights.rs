//! Access rights (SDM vol. 3A, 4.6) and the error code of a page fault (4.7).

use super::{AccessBy, PagingRegs, Path, WalkError};
use crate::exit::Access;
use crate::regs::PagingMode;

const P: u32 = 1 << 0;
const WR: u32 = 1 << 1;
const US: u32 = 1 << 2;
const RSVD: u32 = 1 << 3;
const ID: u32 = 1 << 4;
const PK: u32 = 1 << 5;

/// Whether the page that `path` leads to allows the access.
pub(super) fn check(regs: &PagingRegs, by: AccessBy, path: &Path) -> Result<(), WalkError> {
    let allowed = match (by.access, by.user) {
        (Access::Read, true) => path.user,
        (Access::Write, true) => path.user && path.writable,
        (Access::Execute, true) => path.user && path.executable,
        // CR0.WP: whether supervisors mind read-only pages. SMAP: whether they keep off
        // users' pages, RFLAGS.AC being an exception that they make explicitly.
        (Access::Read, false) => smap_allows(regs, by, path),
        (Access::Write, false) => smap_allows(regs, by, path) && (path.writable || !regs.wp),
        (Access::Execute, false) => path.executable && !(regs.smep && path.user),
    };
    if !allowed {
        return Err(fault(regs, by, P));
    }
    if protection_key_denies(regs, by, path) {
        return Err(fault(regs, by, P | PK));
    }
    Ok(())
}

/// #PF because an entry is not present.
pub(super) fn not_present(regs: &PagingRegs, by: AccessBy) -> WalkError {
    fault(regs, by, 0)
}

/// #PF because an entry has a reserved bit set.
pub(super) fn reserved(regs: &PagingRegs, by: AccessBy) -> WalkError {
    fault(regs, by, P | RSVD)
}

fn fault(regs: &PagingRegs, by: AccessBy, cause: u32) -> WalkError {
    let mut error_code = cause;
    if by.access == Access::Write {
        error_code |= WR;
    }
    if by.user {
        error_code |= US;
    }
    // I/D is there only when fetches have rights of their own.
    let xd = regs.nxe && regs.mode != PagingMode::Bits32;
    if by.access == Access::Execute && (regs.smep || xd) {
        error_code |= ID;
    }
    WalkError::PageFault { error_code }
}

fn smap_allows(regs: &PagingRegs, by: AccessBy, path: &Path) -> bool {
    !regs.smap || !path.user || regs.ac && !by.implicit
}

/// 4.6.2: data accesses to users' pages, by the key in bits 62:59 of the last entry. (The
/// rights of PKRU: access disable and write disable.)
fn protection_key_denies(regs: &PagingRegs, by: AccessBy, path: &Path) -> bool {
    let Some(pkru) = regs.pkru else { return false };
    let long = matches!(regs.mode, PagingMode::Level4 | PagingMode::Level5);
    if !long || !path.user || by.access == Access::Execute {
        return false;
    }
    let Some(leaf) = path
        .depth
        .checked_sub(1)
        .and_then(|last| path.entries[last])
    else {
        return false;
    };
    let key = leaf.value >> 59 & 0xf;
    let rights = pkru >> (2 * key);
    let access_disabled = rights & 1 != 0;
    let write_disabled = rights & 2 != 0;
    access_disabled || by.access == Access::Write && write_disabled && (by.user || regs.wp)
}
