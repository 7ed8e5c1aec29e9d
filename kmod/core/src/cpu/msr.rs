//! What each MSR does for a guest: one table ([`POLICY`]) for the MSR bitmap and for the
//! exits, and the values of those that are emulated ([`MsrState`]).
//!
//! An MSR that is not in the table goes to userland (VM_EXITCODE_RDMSR, _WRMSR), where
//! bhyve ignores it or injects #GP. Numbers and meanings: SDM vol. 4.

use super::LOCAL_APIC;
use super::mtrr::{self, Mtrrs};
use crate::types::VcpuId;

pub const IA32_TIME_STAMP_COUNTER: u32 = 0x10;
pub const IA32_PLATFORM_ID: u32 = 0x17;
pub const IA32_APIC_BASE: u32 = 0x1b;
pub const IA32_FEATURE_CONTROL: u32 = 0x3a;
pub const IA32_TSC_ADJUST: u32 = 0x3b;
pub const IA32_BIOS_UPDT_TRIG: u32 = 0x79;
pub const IA32_BIOS_SIGN_ID: u32 = 0x8b;
pub const MSR_PLATFORM_INFO: u32 = 0xce;
pub const IA32_SYSENTER_CS: u32 = 0x174;
pub const IA32_SYSENTER_ESP: u32 = 0x175;
pub const IA32_SYSENTER_EIP: u32 = 0x176;
pub const IA32_MCG_CAP: u32 = 0x179;
pub const IA32_MCG_STATUS: u32 = 0x17a;
pub const IA32_MISC_ENABLE: u32 = 0x1a0;
pub const MSR_TURBO_RATIO_LIMIT: u32 = 0x1ad;
pub const MSR_TURBO_RATIO_LIMIT1: u32 = 0x1ae;
pub const IA32_PAT: u32 = 0x277;
pub const IA32_EFER: u32 = 0xc000_0080;
pub const IA32_STAR: u32 = 0xc000_0081;
pub const IA32_LSTAR: u32 = 0xc000_0082;
pub const IA32_CSTAR: u32 = 0xc000_0083;
pub const IA32_FMASK: u32 = 0xc000_0084;
pub const IA32_FS_BASE: u32 = 0xc000_0100;
pub const IA32_GS_BASE: u32 = 0xc000_0101;
pub const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;
pub const IA32_TSC_AUX: u32 = 0xc000_0103;

/// Where an MSR of the guest lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the VMCS's guest-state area, loaded at VM entry and saved at VM exit: passed
    /// through.
    Vmcs,
    /// In the CPU's own MSR, which the backend switches around the guest: passed through.
    Switched,
    /// Reads come from the CPU (with the TSC offset); writes are emulated.
    ReadPassed,
    /// In [`MsrState`].
    Emulated,
    /// Not there, as CPUID says: #GP.
    Absent,
}

impl Place {
    /// Whether RDMSR runs without an exit (its read bit in the MSR bitmap is clear).
    pub const fn read_passes(self) -> bool {
        matches!(self, Self::Vmcs | Self::Switched | Self::ReadPassed)
    }

    /// Whether WRMSR runs without an exit.
    pub const fn write_passes(self) -> bool {
        matches!(self, Self::Vmcs | Self::Switched)
    }
}

/// One row: MSRs `first` to `last`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub first: u32,
    pub last: u32,
    pub place: Place,
    pub name: &'static str,
}

const fn one(code: u32, place: Place, name: &'static str) -> Row {
    Row {
        first: code,
        last: code,
        place,
        name,
    }
}

const fn range(first: u32, last: u32, place: Place, name: &'static str) -> Row {
    Row {
        first,
        last,
        place,
        name,
    }
}

use Place::{Absent, Emulated, ReadPassed, Switched, Vmcs};

/// Every MSR that is not userland's, by number.
#[rustfmt::skip] // One row, one line.
pub const POLICY: &[Row] = &[
    one(IA32_TIME_STAMP_COUNTER, ReadPassed, "IA32_TIME_STAMP_COUNTER"),
    // 0: no platform, no microcode update flags.
    one(IA32_PLATFORM_ID, Emulated, "IA32_PLATFORM_ID"),
    one(IA32_APIC_BASE, Emulated, "IA32_APIC_BASE"),
    // Locked, with nothing on: Windows reads it though it has neither VMX nor SMX.
    one(IA32_FEATURE_CONTROL, Emulated, "IA32_FEATURE_CONTROL"),
    one(IA32_TSC_ADJUST, Emulated, "IA32_TSC_ADJUST"),
    range(0x48, 0x49, Absent, "IA32_SPEC_CTRL, IA32_PRED_CMD"),
    // Microcode is the host's: updates are dropped, the revision is 0.
    one(IA32_BIOS_UPDT_TRIG, Emulated, "IA32_BIOS_UPDT_TRIG"),
    one(IA32_BIOS_SIGN_ID, Emulated, "IA32_BIOS_SIGN_ID"),
    one(MSR_PLATFORM_INFO, Emulated, "MSR_PLATFORM_INFO"),
    one(mtrr::MTRRCAP, Emulated, "IA32_MTRRCAP"),
    one(0x10a, Absent, "IA32_ARCH_CAPABILITIES"),
    one(0x10b, Absent, "IA32_FLUSH_CMD"),
    one(IA32_SYSENTER_CS, Vmcs, "IA32_SYSENTER_CS"),
    one(IA32_SYSENTER_ESP, Vmcs, "IA32_SYSENTER_ESP"),
    one(IA32_SYSENTER_EIP, Vmcs, "IA32_SYSENTER_EIP"),
    // There are no MCA banks.
    one(IA32_MCG_CAP, Emulated, "IA32_MCG_CAP"),
    one(IA32_MCG_STATUS, Emulated, "IA32_MCG_STATUS"),
    one(IA32_MISC_ENABLE, Emulated, "IA32_MISC_ENABLE"),
    range(MSR_TURBO_RATIO_LIMIT, MSR_TURBO_RATIO_LIMIT1, Emulated, "MSR_TURBO_RATIO_LIMIT"),
    range(mtrr::PHYSBASE0, mtrr::PHYSMASK9, Emulated, "IA32_MTRR_PHYSBASE0 to PHYSMASK9"),
    one(mtrr::FIX64K_00000, Emulated, "IA32_MTRR_FIX64K_00000"),
    range(mtrr::FIX16K_80000, mtrr::FIX16K_A0000, Emulated, "IA32_MTRR_FIX16K"),
    range(mtrr::FIX4K_C0000, mtrr::FIX4K_F8000, Emulated, "IA32_MTRR_FIX4K"),
    one(IA32_PAT, Vmcs, "IA32_PAT"),
    one(mtrr::DEF_TYPE, Emulated, "IA32_MTRR_DEF_TYPE"),
    range(0x480, 0x493, Absent, "IA32_VMX_*"),
    one(0x6e0, Absent, "IA32_TSC_DEADLINE"),
    one(0xd90, Absent, "IA32_BNDCFGS"),
    one(0xda0, Absent, "IA32_XSS"),
    one(IA32_EFER, Vmcs, "IA32_EFER"),
    one(IA32_STAR, Switched, "IA32_STAR"),
    one(IA32_LSTAR, Switched, "IA32_LSTAR"),
    one(IA32_CSTAR, Switched, "IA32_CSTAR"),
    one(IA32_FMASK, Switched, "IA32_FMASK"),
    one(IA32_FS_BASE, Vmcs, "IA32_FS_BASE"),
    one(IA32_GS_BASE, Vmcs, "IA32_GS_BASE"),
    one(IA32_KERNEL_GS_BASE, Switched, "IA32_KERNEL_GS_BASE"),
    // RDTSCP and RDPID read the CPU's: the backend loads MsrState::tsc_aux() there.
    one(IA32_TSC_AUX, Emulated, "IA32_TSC_AUX"),
];

/// Where that MSR lives; `None` for userland's.
pub fn place(code: u32) -> Option<Place> {
    let at = POLICY.partition_point(|row| row.last < code);
    POLICY
        .get(at)
        .filter(|row| row.first <= code)
        .map(|row| row.place)
}

/// What a RDMSR or WRMSR that exited comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MsrAnswer {
    /// Of a read: for EDX:EAX.
    Value(u64),
    /// Of a write: nothing more to do.
    Done,
    /// Of a write to the TSC or TSC_ADJUST: the vcpu's TSC offset (guest TSC = host TSC +
    /// offset, wrapping) becomes this.
    TscOffset(u64),
    /// #GP(0) into the guest.
    GeneralProtection,
    /// To userland.
    Userland,
    /// The MSR lives in the VMCS or in the CPU, and this access exited all the same: read
    /// or write it where it is. A write's value is one that the CPU takes.
    Hardware,
}

/// What the emulation depends on besides its own state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsrContext {
    /// The guest's TSC now.
    pub guest_tsc: u64,
    /// Its TSC offset now.
    pub tsc_offset: u64,
    /// The TSC's frequency.
    pub tsc_hz: u64,
    /// `CpuidPolicy::maxphyaddr`
    pub maxphyaddr: u8,
    /// RDTSCP or RDPID is on for the vcpu: TSC_AUX exists.
    pub tsc_aux: bool,
    /// VM_SET_X2APIC_STATE.
    pub x2apic: bool,
}

/// The emulated MSRs of one vcpu.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MsrState {
    vcpu: VcpuId,
    /// IA32_APIC_BASE.EXTD: the guest is in x2APIC mode.
    x2apic_mode: bool,
    tsc_adjust: u64,
    tsc_aux: u32,
    mtrrs: Mtrrs,
}

const APIC_BASE_BSP: u64 = 1 << 8;
const APIC_BASE_EXTD: u64 = 1 << 10;
const APIC_BASE_EN: u64 = 1 << 11;
const APIC_BASE_ADDRESS: u64 = 0xfee0_0000;

/// IA32_MISC_ENABLE: fast strings; no branch trace storage, no PEBS.
const MISC_ENABLE: u64 = 1 << 0 | 1 << 11 | 1 << 12;
/// Its "XD bit disable", which guests clear when they want NX: they have it as CPUID says.
const MISC_ENABLE_XD_DISABLE: u64 = 1 << 34;

impl MsrState {
    /// As after reset.
    pub fn new(vcpu: VcpuId) -> Self {
        Self {
            vcpu,
            x2apic_mode: false,
            tsc_adjust: 0,
            tsc_aux: 0,
            mtrrs: Mtrrs::default(),
        }
    }

    /// VM_REINIT.
    pub fn reset(&mut self) {
        *self = Self::new(self.vcpu);
    }

    /// What IA32_TSC_AUX holds while the guest runs.
    pub const fn tsc_aux(&self) -> u32 {
        self.tsc_aux
    }

    /// RDMSR.
    pub fn read(&self, code: u32, ctx: &MsrContext) -> MsrAnswer {
        MsrAnswer::Value(match place(code) {
            None => return MsrAnswer::Userland,
            Some(Absent) => return MsrAnswer::GeneralProtection,
            Some(Vmcs | Switched) => return MsrAnswer::Hardware,
            Some(ReadPassed) => ctx.guest_tsc,
            Some(Emulated) => match self.read_emulated(code, ctx) {
                Some(value) => value,
                None => return MsrAnswer::GeneralProtection,
            },
        })
    }

    /// WRMSR.
    pub fn write(&mut self, code: u32, value: u64, ctx: &MsrContext) -> MsrAnswer {
        match place(code) {
            None => MsrAnswer::Userland,
            Some(Absent) => MsrAnswer::GeneralProtection,
            Some(Vmcs | Switched) if write_valid(code, value) => MsrAnswer::Hardware,
            Some(Vmcs | Switched) => MsrAnswer::GeneralProtection,
            Some(ReadPassed) => {
                // Writing the TSC moves TSC_ADJUST as far (SDM vol. 3B, 18.17.3).
                let delta = value.wrapping_sub(ctx.guest_tsc);
                self.tsc_adjust = self.tsc_adjust.wrapping_add(delta);
                MsrAnswer::TscOffset(ctx.tsc_offset.wrapping_add(delta))
            }
            Some(Emulated) => self.write_emulated(code, value, ctx),
        }
    }

    fn read_emulated(&self, code: u32, ctx: &MsrContext) -> Option<u64> {
        Some(match code {
            IA32_APIC_BASE => self.apic_base(),
            // Lock.
            IA32_FEATURE_CONTROL => 1,
            IA32_TSC_ADJUST => self.tsc_adjust,
            IA32_PLATFORM_ID | IA32_BIOS_SIGN_ID | IA32_MCG_CAP | IA32_MCG_STATUS => 0,
            MSR_PLATFORM_INFO => {
                // Maximum non-turbo ratio in 15:8, maximum efficiency ratio in 47:40.
                let ratio = tsc_ratio(ctx.tsc_hz);
                ratio << 8 | ratio << 40
            }
            MSR_TURBO_RATIO_LIMIT | MSR_TURBO_RATIO_LIMIT1 => {
                // A byte per number of active cores.
                u64::from_ne_bytes([tsc_ratio(ctx.tsc_hz) as u8; 8])
            }
            IA32_MISC_ENABLE => MISC_ENABLE,
            IA32_TSC_AUX if ctx.tsc_aux => self.tsc_aux.into(),
            // IA32_BIOS_UPDT_TRIG is write-only.
            IA32_TSC_AUX | IA32_BIOS_UPDT_TRIG => return None,
            _ => return self.mtrrs.read(code).ok(),
        })
    }

    fn write_emulated(&mut self, code: u32, value: u64, ctx: &MsrContext) -> MsrAnswer {
        let taken = match code {
            IA32_APIC_BASE => self.write_apic_base(value, ctx),
            IA32_TSC_ADJUST => {
                let delta = value.wrapping_sub(self.tsc_adjust);
                self.tsc_adjust = value;
                return MsrAnswer::TscOffset(ctx.tsc_offset.wrapping_add(delta));
            }
            IA32_BIOS_UPDT_TRIG | IA32_BIOS_SIGN_ID | IA32_MCG_STATUS => true,
            IA32_MISC_ENABLE => {
                // Another bit is a feature that isn't there: userland's to decide.
                if (value ^ MISC_ENABLE) & !MISC_ENABLE_XD_DISABLE != 0 {
                    return MsrAnswer::Userland;
                }
                true
            }
            IA32_TSC_AUX => match u32::try_from(value) {
                Ok(aux) if ctx.tsc_aux => {
                    self.tsc_aux = aux;
                    true
                }
                _ => false,
            },
            IA32_PLATFORM_ID
            | IA32_FEATURE_CONTROL
            | IA32_MCG_CAP
            | MSR_PLATFORM_INFO
            | MSR_TURBO_RATIO_LIMIT
            | MSR_TURBO_RATIO_LIMIT1 => false,
            _ => self.mtrrs.write(code, value, ctx.maxphyaddr).is_ok(),
        };
        if taken {
            MsrAnswer::Done
        } else {
            MsrAnswer::GeneralProtection
        }
    }

    fn apic_base(&self) -> u64 {
        let mut value = APIC_BASE_ADDRESS;
        if self.vcpu == VcpuId::BSP {
            value |= APIC_BASE_BSP;
        }
        if LOCAL_APIC {
            value |= APIC_BASE_EN;
        }
        if self.x2apic_mode {
            value |= APIC_BASE_EXTD | APIC_BASE_EN;
        }
        value
    }

    /// The APIC can't be moved or disabled; the guest may enter x2APIC mode if it has it,
    /// which only a reset leaves (SDM vol. 3A, 11.12.5).
    fn write_apic_base(&mut self, value: u64, ctx: &MsrContext) -> bool {
        let now = self.apic_base();
        if value == now {
            return true;
        }
        if ctx.x2apic && value == now | APIC_BASE_EXTD | APIC_BASE_EN {
            self.x2apic_mode = true;
            return true;
        }
        false
    }
}

/// Whether the CPU takes the value for an MSR that the table passes through.
fn write_valid(code: u32, value: u64) -> bool {
    match code {
        IA32_SYSENTER_ESP | IA32_SYSENTER_EIP | IA32_LSTAR | IA32_CSTAR | IA32_FS_BASE
        | IA32_GS_BASE | IA32_KERNEL_GS_BASE => super::paging::is_canonical(value, 48),
        IA32_PAT => value
            .to_le_bytes()
            .into_iter()
            .all(|pa| matches!(pa, 0 | 1 | 4..=7)),
        // SCE, LME, LMA, NXE
        IA32_EFER => value & !0xd01 == 0,
        IA32_FMASK => value >> 32 == 0,
        _ => true,
    }
}

/// The TSC's frequency as a multiple of the bus clock of 100 MHz; it has 8 bits.
fn tsc_ratio(tsc_hz: u64) -> u64 {
    (tsc_hz / 100_000_000).min(0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CTX: MsrContext = MsrContext {
        guest_tsc: 5_000,
        tsc_offset: 1_000u64.wrapping_neg(),
        tsc_hz: 2_400_000_000,
        maxphyaddr: 46,
        tsc_aux: true,
        x2apic: false,
    };

    fn state() -> MsrState {
        MsrState::new(VcpuId(1))
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
        assert_eq!(state, MsrState::new(VcpuId(1)));
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
    fn apic_base_names_the_bsp_and_cannot_move() {
        let bsp = MsrState::new(VcpuId::BSP);
        let MsrAnswer::Value(base) = bsp.read(IA32_APIC_BASE, &CTX) else {
            panic!("IA32_APIC_BASE can be read");
        };
        assert_eq!(base & APIC_BASE_BSP, APIC_BASE_BSP);
        assert_eq!(base & APIC_BASE_EN != 0, LOCAL_APIC);
        let mut ap = state();
        let MsrAnswer::Value(base) = ap.read(IA32_APIC_BASE, &CTX) else {
            panic!("IA32_APIC_BASE can be read");
        };
        assert_eq!(base & 0xffff_f000, 0xfee0_0000);
        assert_eq!(base & APIC_BASE_BSP, 0);
        assert_eq!(ap.write(IA32_APIC_BASE, base, &CTX), MsrAnswer::Done);
        for change in [
            0x1000,
            APIC_BASE_BSP,
            APIC_BASE_EXTD | APIC_BASE_EN,
            1 << 46,
        ] {
            let answer = ap.write(IA32_APIC_BASE, base ^ change, &CTX);
            assert_eq!(answer, MsrAnswer::GeneralProtection, "{change:#x}");
        }
        // With x2APIC there is a way in, and none out.
        let ctx = MsrContext {
            x2apic: true,
            ..CTX
        };
        let on = base | APIC_BASE_EXTD | APIC_BASE_EN;
        assert_eq!(ap.write(IA32_APIC_BASE, on, &ctx), MsrAnswer::Done);
        assert_eq!(ap.read(IA32_APIC_BASE, &ctx), MsrAnswer::Value(on));
        assert_eq!(
            ap.write(IA32_APIC_BASE, base, &ctx),
            MsrAnswer::GeneralProtection
        );
        ap.reset();
        assert_eq!(ap.read(IA32_APIC_BASE, &ctx), MsrAnswer::Value(base));
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
}
