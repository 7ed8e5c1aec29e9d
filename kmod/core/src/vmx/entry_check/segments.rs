//! The guest's segment registers (27.3.1.2). Most rules are not for virtual-8086 mode,
//! which has its own, and most not for an unusable register; CS and TR are always usable.

use super::super::cr::Cr0;
use super::super::segment::AccessRights;
use super::{Segment, State};
use crate::regs::SegReg::{self, Cs, Ds, Es, Fs, Gs, Ldtr, Ss, Tr};

pub(super) const SECTION: &str = "27.3.1.2";

/// A rule for some of the registers.
pub(super) struct SegRule {
    pub name: &'static str,
    pub requirement: &'static str,
    pub segments: &'static [SegReg],
    pub holds: fn(&State<'_>, &Segment) -> bool,
}

const CODE_AND_DATA: &[SegReg] = &[Cs, Ss, Ds, Es, Fs, Gs];
const DATA: &[SegReg] = &[Ds, Es, Fs, Gs];
const ALL: &[SegReg] = &[Cs, Ss, Ds, Es, Fs, Gs, Ldtr, Tr];

impl State<'_> {
    /// The register is none whose access rights the rules look at.
    fn exempt(&self, s: &Segment) -> bool {
        match s.seg {
            Cs => self.v8086(),
            Tr => false,
            Ldtr => !s.usable(),
            _ => self.v8086() || !s.usable(),
        }
    }
}

macro_rules! segment_rules {
    ($($name:literal $segments:expr, $requirement:literal $holds:expr;)*) => {
        &[$(
            SegRule { name: $name, requirement: $requirement, segments: $segments, holds: $holds },
        )*]
    };
}

pub(super) const RULES: &[SegRule] = segment_rules! {
    "guest-seg-tr-ldtr-ti" &[Tr, Ldtr],
        "TR and a usable LDTR come from the GDT (TI 0)"
        |state, s| state.exempt(s) || !s.ti();
    "guest-seg-ss-rpl" &[Ss],
        "without unrestricted guest SS.RPL is CS.RPL"
        |state, s| state.v8086() || state.unrestricted() || s.rpl() == state.segment(Cs).rpl();
    "guest-seg-v8086-base" CODE_AND_DATA,
        "in virtual-8086 mode the base is the selector times 16"
        |state, s| !state.v8086() || s.base == u64::from(s.selector) << 4;
    "guest-seg-v8086-limit" CODE_AND_DATA,
        "in virtual-8086 mode the limit is FFFFH"
        |state, s| !state.v8086() || s.limit == 0xffff;
    "guest-seg-v8086-access" CODE_AND_DATA,
        "in virtual-8086 mode the access rights are F3H"
        |state, s| !state.v8086() || s.access.0 == 0xf3;
    "guest-seg-base-canonical" &[Tr, Fs, Gs, Ldtr],
        "the base is canonical"
        |state, s| s.seg == Ldtr && !s.usable() || state.canonical(s.base);
    "guest-seg-base-high" &[Cs, Ss, Ds, Es],
        "bits 63:32 of the base are 0"
        |_, s| s.seg != Cs && !s.usable() || s.base >> 32 == 0;
    "guest-seg-cs-type" &[Cs],
        "CS is accessed code (type 9, 11, 13 or 15), or with unrestricted guest accessed writable data (3)"
        |state, s| state.exempt(s) || match s.access.segment_type() {
            9 | 11 | 13 | 15 => true,
            3 => state.unrestricted(),
            _ => false,
        };
    "guest-seg-ss-type" &[Ss],
        "SS is accessed writable data (type 3 or 7)"
        |state, s| state.exempt(s) || matches!(s.access.segment_type(), 3 | 7);
    "guest-seg-data-type" DATA,
        "a data segment register is accessed, and readable if it is code"
        |state, s| state.exempt(s)
            || s.access.accessed()
                && (!s.access.is_code() || s.access.is_readable_or_writable());
    "guest-seg-s" CODE_AND_DATA,
        "the segment is code or data, not a system segment (S 1)"
        |state, s| state.exempt(s) || s.access.code_or_data();
    "guest-seg-cs-dpl" &[Cs],
        "CS.DPL is 0 for type 3, SS.DPL for nonconforming code, at most SS.DPL for conforming code"
        |state, s| {
            let ss_dpl = state.segment(Ss).access.dpl();
            state.exempt(s) || match s.access.segment_type() {
                3 => s.access.dpl() == 0,
                9 | 11 => s.access.dpl() == ss_dpl,
                13 | 15 => s.access.dpl() <= ss_dpl,
                _ => true, // guest-seg-cs-type's matter
            }
        };
    "guest-seg-ss-dpl" &[Ss],
        "SS.DPL is SS.RPL without unrestricted guest, and 0 in real mode or with a CS of type 3"
        |state, s| {
            let dpl = s.access.dpl();
            let real = !state.cr0().contains(Cr0::PE);
            let cs_data = state.segment(Cs).access.segment_type() == 3;
            state.v8086()
                || (state.unrestricted() || dpl == s.rpl())
                    && (dpl == 0 || !(real || cs_data))
        };
    "guest-seg-data-dpl" DATA,
        "without unrestricted guest the DPL of data or nonconforming code is at least its RPL"
        |state, s| state.exempt(s)
            || state.unrestricted()
            || s.access.segment_type() > 11
            || s.access.dpl() >= s.rpl();
    "guest-seg-present" ALL,
        "the segment is present"
        |state, s| state.exempt(s) || s.access.present();
    "guest-seg-reserved" ALL,
        "bits 11:8 and 31:17 of the access rights are 0"
        |state, s| state.exempt(s) || s.access.0 & AccessRights::RESERVED == 0;
    "guest-seg-cs-db" &[Cs],
        "CS.D is 0 in 64-bit mode"
        |state, s| state.exempt(s)
            || !(state.ia32e() && s.access.long() && s.access.default_big());
    "guest-seg-granularity" ALL,
        "G is 0 if one of the limit's bits 11:0 is 0, and 1 if one of its bits 31:20 is 1"
        |state, s| {
            let low = s.limit & 0xfff;
            let high = s.limit >> 20;
            let g = s.access.granularity();
            state.exempt(s) || (low == 0xfff || !g) && (high == 0 || g)
        };
    "guest-seg-tr-type" &[Tr],
        "TR is a busy TSS: type 11, or 3 outside of IA-32e mode"
        |state, s| match s.access.segment_type() {
            11 => true,
            3 => !state.ia32e(),
            _ => false,
        };
    "guest-seg-tr-usable" &[Tr],
        "TR is usable"
        |_, s| s.usable();
    "guest-seg-ldtr-type" &[Ldtr],
        "a usable LDTR is an LDT: type 2"
        |state, s| state.exempt(s) || s.access.segment_type() == 2;
    "guest-seg-system-s" &[Tr, Ldtr],
        "TR and a usable LDTR are system segments (S 0)"
        |state, s| state.exempt(s) || !s.access.code_or_data();
};
