//! XCR0: which state components the guest may enable with XSETBV (SDM vol. 1, 13.3).
//!
//! A guest gets a component only if the host's kernel saves it, since the host's XSAVE
//! area is where a vcpu's FPU state lives while it is not running.

/// State-component bits of XCR0 (SDM vol. 1, 13.1).
pub const X87: u64 = 1 << 0;
pub const SSE: u64 = 1 << 1;
pub const AVX: u64 = 1 << 2;
/// BNDREGS and BNDCSR, together.
pub const MPX: u64 = 3 << 3;
/// Opmask, ZMM_Hi256 and Hi16_ZMM, together.
pub const AVX512: u64 = 7 << 5;

/// The components whose rules [`valid`] knows, and that guests are given.
const KNOWN: u64 = X87 | SSE | AVX | AVX512;

/// What a guest may set, given what the host kernel has in its own XCR0 (0 when it
/// doesn't use XSAVE: then the guest has no XSAVE).
pub const fn allowed(host_xcr0: u64) -> u64 {
    if host_xcr0 & X87 == 0 {
        return 0;
    }
    let mut allowed = host_xcr0 & KNOWN;
    if allowed & SSE == 0 {
        allowed &= X87;
    }
    if allowed & AVX == 0 || allowed & AVX512 != AVX512 {
        allowed &= !AVX512;
    }
    allowed
}

/// Whether XSETBV may load `value`; #GP(0) into the guest otherwise.
pub const fn valid(value: u64, allowed: u64) -> bool {
    let avx512 = value & AVX512;
    value & !allowed == 0
        && value & X87 != 0
        && (value & AVX == 0 || value & SSE != 0)
        && (avx512 == 0 || avx512 == AVX512 && value & AVX != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_gets_what_the_host_saves() {
        assert_eq!(allowed(0), 0);
        assert_eq!(allowed(X87 | SSE), X87 | SSE);
        assert_eq!(allowed(X87 | SSE | AVX | 1 << 9), X87 | SSE | AVX);
        assert_eq!(allowed(0xe7), 0xe7);
        // MPX and AMX state have no owner here.
        assert_eq!(allowed(0x6_00ff), 0xe7);
        // Half of AVX-512 is none.
        assert_eq!(allowed(X87 | SSE | AVX | 1 << 5), X87 | SSE | AVX);
    }

    #[test]
    fn xsetbv_rules() {
        let all = X87 | SSE | AVX | AVX512;
        assert!(valid(X87, all));
        assert!(valid(X87 | SSE, all));
        assert!(valid(X87 | SSE | AVX, all));
        assert!(valid(all, all));
        assert!(!valid(0, all), "x87 is always on");
        assert!(!valid(SSE, all));
        assert!(!valid(X87 | AVX, all), "AVX needs SSE");
        assert!(!valid(X87 | SSE | AVX512, all), "AVX-512 needs AVX");
        assert!(!valid(X87 | SSE | AVX | 1 << 6, all), "AVX-512 comes whole");
        assert!(!valid(X87 | SSE | AVX, X87 | SSE), "not saved by the host");
        assert!(!valid(X87 | 1 << 63, all));
    }
}
