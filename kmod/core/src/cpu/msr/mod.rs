//! What each MSR does for a guest: one table ([`POLICY`]) for the MSR bitmap and for the
//! exits, and the values of those that are emulated ([`MsrState`]).
//!
//! An MSR that is not in the table goes to userland (VM_EXITCODE_RDMSR, _WRMSR), where
//! bhyve ignores it or injects #GP. Numbers and meanings: SDM vol. 4.

mod policy;

pub use self::policy::*;

use self::policy::Place::{Absent, Emulated, LocalApic, ReadPassed, Switched, Vmcs};
use super::mtrr::Mtrrs;

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
    /// It is the local APIC's.
    LocalApic,
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
    /// RDTSCP or RDPID is on for the vcpu: TSC_AUX exists.
    pub tsc_aux: bool,
}

/// The emulated MSRs of one vcpu.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MsrState {
    tsc_adjust: u64,
    tsc_aux: u32,
    mtrrs: Mtrrs,
}

/// IA32_MISC_ENABLE: fast strings; no branch trace storage, no PEBS.
const MISC_ENABLE: u64 = 1 << 0 | 1 << 11 | 1 << 12;
/// Its "XD bit disable", which guests clear when they want NX: they have it as CPUID says.
const MISC_ENABLE_XD_DISABLE: u64 = 1 << 34;

impl MsrState {
    /// As after reset; `maxphyaddr` is `CpuidPolicy`'s.
    pub fn new(maxphyaddr: u8) -> Self {
        Self {
            tsc_adjust: 0,
            tsc_aux: 0,
            mtrrs: Mtrrs::new(maxphyaddr),
        }
    }

    /// VM_REINIT.
    pub fn reset(&mut self) {
        *self = Self::new(self.mtrrs.maxphyaddr());
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
            Some(LocalApic) => return MsrAnswer::LocalApic,
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
            Some(LocalApic) => MsrAnswer::LocalApic,
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
            // Lock.
            IA32_FEATURE_CONTROL => 1,
            IA32_TSC_ADJUST => self.tsc_adjust,
            IA32_PLATFORM_ID
            | IA32_BIOS_SIGN_ID
            | IA32_MCG_CAP
            | IA32_MCG_STATUS
            | MSR_MISC_FEATURES_ENABLES => 0,
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
            IA32_TSC_ADJUST => {
                let delta = value.wrapping_sub(self.tsc_adjust);
                self.tsc_adjust = value;
                return MsrAnswer::TscOffset(ctx.tsc_offset.wrapping_add(delta));
            }
            IA32_BIOS_UPDT_TRIG | IA32_BIOS_SIGN_ID | IA32_MCG_STATUS => true,
            MSR_MISC_FEATURES_ENABLES => value == 0,
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
            _ => self.mtrrs.write(code, value).is_ok(),
        };
        if taken {
            MsrAnswer::Done
        } else {
            MsrAnswer::GeneralProtection
        }
    }
}

/// Whether the CPU takes the value for an MSR that the table passes through.
fn write_valid(code: u32, value: u64) -> bool {
    match code {
        IA32_SYSENTER_ESP | IA32_SYSENTER_EIP | IA32_LSTAR | IA32_CSTAR | IA32_FS_BASE
        | IA32_GS_BASE | IA32_KERNEL_GS_BASE => crate::cpu::paging::is_canonical(value, 48),
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
mod tests;
