//! Every row has its answer, and each emulated MSR what the SDM says of it.

use super::*;
use crate::cpu::mtrr;

const CTX: MsrContext = MsrContext {
    guest_tsc: 5_000,
    tsc_offset: 1_000u64.wrapping_neg(),
    tsc_hz: 2_400_000_000,
    tsc_aux: true,
};

fn state() -> MsrState {
    MsrState::new(46)
}

#[test]
fn the_table_is_in_order_and_in_the_bitmap() {
    assert!(POLICY.iter().all(|row| row.first <= row.last));
    assert!(POLICY.windows(2).all(|pair| pair[0].last < pair[1].first));
    for row in POLICY.iter().filter(|row| row.place.read_passes()) {
        // SDM vol. 3C, 25.6.9: the bitmap has these two ranges.
        assert!(row.last <= 0x1fff || (0xc000_0000..=0xc000_1fff).contains(&row.first));
    }
    for row in POLICY {
        assert_eq!(place(row.first), Some(row.place));
        assert_eq!(place(row.last), Some(row.place));
    }
    assert_eq!(place(IA32_TIME_STAMP_COUNTER), Some(ReadPassed));
    assert_eq!(place(0), None);
    assert_eq!(place(0x201), Some(Emulated));
    assert_eq!(place(mtrr::PHYSMASK9 + 1), None);
    assert_eq!(place(u32::MAX), None);
}

#[test]
fn every_emulated_msr_has_an_answer_of_its_own() {
    for row in POLICY.iter().filter(|row| row.place == Emulated) {
        for code in row.first..=row.last {
            let answer = state().read(code, &CTX);
            let write_only = code == IA32_BIOS_UPDT_TRIG;
            assert_eq!(
                matches!(answer, MsrAnswer::Value(_)),
                !write_only,
                "{}",
                row.name
            );
            if let MsrAnswer::Value(value) = answer {
                let read_only = matches!(
                    code,
                    IA32_PLATFORM_ID
                        | IA32_FEATURE_CONTROL
                        | IA32_MCG_CAP
                        | MSR_PLATFORM_INFO
                        | MSR_TURBO_RATIO_LIMIT
                        | MSR_TURBO_RATIO_LIMIT1
                        | mtrr::MTRRCAP
                );
                let written = state().write(code, value, &CTX);
                let refused = written == MsrAnswer::GeneralProtection;
                assert_eq!(refused, read_only, "{} {code:#x}", row.name);
            }
        }
    }
}

#[test]
fn what_is_not_emulated() {
    let mut state = state();
    assert_eq!(state.read(0xc000_0010, &CTX), MsrAnswer::Userland);
    assert_eq!(state.write(0x1d9, 0, &CTX), MsrAnswer::Userland);
    assert_eq!(state.read(0x480, &CTX), MsrAnswer::GeneralProtection);
    assert_eq!(state.write(0x48, 0, &CTX), MsrAnswer::GeneralProtection);
    assert_eq!(state.read(IA32_EFER, &CTX), MsrAnswer::Hardware);
    assert_eq!(state.write(IA32_EFER, 0xd01, &CTX), MsrAnswer::Hardware);
    assert_eq!(
        state.write(IA32_EFER, 1 << 12, &CTX),
        MsrAnswer::GeneralProtection
    );
    assert_eq!(
        state.write(IA32_LSTAR, 1 << 47, &CTX),
        MsrAnswer::GeneralProtection
    );
    assert_eq!(state.write(IA32_LSTAR, !0 << 47, &CTX), MsrAnswer::Hardware);
    assert_eq!(
        state.write(IA32_PAT, 0x0007_0406_0007_0406, &CTX),
        MsrAnswer::Hardware
    );
    assert_eq!(state.write(IA32_PAT, 2, &CTX), MsrAnswer::GeneralProtection);
    assert_eq!(
        state.write(IA32_FMASK, 1 << 32, &CTX),
        MsrAnswer::GeneralProtection
    );
    assert_eq!(state, MsrState::new(46));
}

#[test]
fn tsc_and_tsc_adjust_move_together() {
    let mut state = state();
    assert_eq!(
        state.read(IA32_TIME_STAMP_COUNTER, &CTX),
        MsrAnswer::Value(5_000)
    );
    // 5000 on the clock becomes 0: 5000 back.
    assert_eq!(
        state.write(IA32_TIME_STAMP_COUNTER, 0, &CTX),
        MsrAnswer::TscOffset(6_000u64.wrapping_neg())
    );
    assert_eq!(
        state.read(IA32_TSC_ADJUST, &CTX),
        MsrAnswer::Value(5_000u64.wrapping_neg())
    );
    let ctx = MsrContext {
        tsc_offset: 6_000u64.wrapping_neg(),
        ..CTX
    };
    assert_eq!(
        state.write(IA32_TSC_ADJUST, 0, &ctx),
        MsrAnswer::TscOffset(1_000u64.wrapping_neg())
    );
    assert_eq!(state.read(IA32_TSC_ADJUST, &ctx), MsrAnswer::Value(0));
}

#[test]
fn tsc_aux_is_there_with_its_instructions() {
    let mut state = state();
    assert_eq!(state.write(IA32_TSC_AUX, 7, &CTX), MsrAnswer::Done);
    assert_eq!(state.read(IA32_TSC_AUX, &CTX), MsrAnswer::Value(7));
    assert_eq!(state.tsc_aux(), 7);
    assert_eq!(
        state.write(IA32_TSC_AUX, 1 << 32, &CTX),
        MsrAnswer::GeneralProtection
    );
    let without = MsrContext {
        tsc_aux: false,
        ..CTX
    };
    assert_eq!(
        state.read(IA32_TSC_AUX, &without),
        MsrAnswer::GeneralProtection
    );
    assert_eq!(
        state.write(IA32_TSC_AUX, 1, &without),
        MsrAnswer::GeneralProtection
    );
    state.reset();
    assert_eq!(state.tsc_aux(), 0);
}

#[test]
fn the_local_apics_are_left_to_it() {
    let mut state = state();
    for code in 0..0x2000 {
        let its = is_local_apic(code);
        assert_eq!(place(code) == Some(Place::LocalApic), its, "{code:#x}");
        assert_eq!(state.read(code, &CTX) == MsrAnswer::LocalApic, its);
        assert_eq!(state.write(code, 0, &CTX) == MsrAnswer::LocalApic, its);
    }
    assert!(is_local_apic(0x1b) && is_local_apic(0x6e0));
    assert!(is_local_apic(0x800) && is_local_apic(0x8ff));
    assert!(!is_local_apic(0x7ff) && !is_local_apic(0x900));
}

#[test]
fn misc_enable_ignores_xd_and_tells_userland_the_rest() {
    let mut state = state();
    let MsrAnswer::Value(value) = state.read(IA32_MISC_ENABLE, &CTX) else {
        panic!("IA32_MISC_ENABLE can be read");
    };
    assert_eq!(state.write(IA32_MISC_ENABLE, value, &CTX), MsrAnswer::Done);
    let xd = value | MISC_ENABLE_XD_DISABLE;
    assert_eq!(state.write(IA32_MISC_ENABLE, xd, &CTX), MsrAnswer::Done);
    // MONITOR FSM.
    assert_eq!(
        state.write(IA32_MISC_ENABLE, value | 1 << 18, &CTX),
        MsrAnswer::Userland
    );
    assert_eq!(state.read(IA32_MISC_ENABLE, &CTX), MsrAnswer::Value(value));
}

#[test]
fn platform_info_is_the_tsc() {
    let state = state();
    assert_eq!(
        state.read(MSR_PLATFORM_INFO, &CTX),
        MsrAnswer::Value(24 << 8 | 24 << 40)
    );
    assert_eq!(
        state.read(MSR_TURBO_RATIO_LIMIT, &CTX),
        MsrAnswer::Value(0x1818_1818_1818_1818)
    );
    let fast = MsrContext {
        tsc_hz: u64::MAX,
        ..CTX
    };
    assert_eq!(
        state.read(MSR_PLATFORM_INFO, &fast),
        MsrAnswer::Value(0xff << 8 | 0xff << 40)
    );
}

#[test]
fn mtrrs_are_checked() {
    let mut state = state();
    assert_eq!(state.write(mtrr::DEF_TYPE, 0xc06, &CTX), MsrAnswer::Done);
    assert_eq!(state.read(mtrr::DEF_TYPE, &CTX), MsrAnswer::Value(0xc06));
    assert_eq!(
        state.write(mtrr::DEF_TYPE, 0xc07, &CTX),
        MsrAnswer::GeneralProtection
    );
    assert_eq!(
        state.write(mtrr::PHYSBASE0, 1 << 46, &CTX),
        MsrAnswer::GeneralProtection
    );
}

proptest::proptest! {
    #[test]
    fn any_access_has_an_answer(code: u32, low in 0u32..0x2000, value: u64) {
        let mut state = state();
        for code in [code, low, low | 0xc000_0000] {
            let read = state.read(code, &CTX);
            let write = state.write(code, value, &CTX);
            assert_eq!(read == MsrAnswer::Userland, place(code).is_none());
            assert!(!matches!(read, MsrAnswer::Done | MsrAnswer::TscOffset(_)));
            assert!(!matches!(write, MsrAnswer::Value(_)));
        }
    }
}
