//! The checks of a VM entry in software (SDM vol. 3C, 27.2 and 27.3.1), as tables of rules.
//! The CPU says only "invalid control fields" or "invalid guest state"; this names the
//! rule that a VMCS breaks, and the values that break it.
//!
//! The tables follow the SDM's order: [`controls`], [`host`], [`guest`], [`segments`]. What
//! depends on memory (the APIC page's TPR, MSR areas' contents, a shadow VMCS) is not
//! checked, nor are features that vmm_rs never turns on (SMM transfer, CET, FRED, Intel PT).

mod controls;
mod guest;
mod host;
mod segments;
#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::caps::VmxCaps;
use super::controls::{EntryControls, ExitControls, PinControls, Proc2Controls, ProcControls};
use super::cr::{Cr0, Cr4, Efer};
use super::field::{self, Field, FieldWidth, VmcsField};
use super::interruption::InterruptionInfo;
use super::segment::{AccessRights, SegFields};
use crate::regs::SegReg;

/// A VMCS to check.
pub trait VmcsView {
    /// A field's value; 0 for a field that the CPU doesn't have.
    fn read(&self, field: VmcsField) -> u64;
}

/// A rule that a VMCS breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Its name here, which stays the same: "guest-cr0-fixed".
    pub rule: &'static str,
    /// Of the SDM: "27.3.1.1".
    pub section: &'static str,
    /// What would be right, as a sentence without its full stop.
    pub requirement: &'static str,
    /// The fields that the rule looks at: "GUEST_CR0=0x10".
    pub values: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            section,
            requirement,
            values,
        } = self;
        write!(f, "{rule} (SDM {section}): {requirement}; {values}")
    }
}

/// All rules that the VMCS breaks, in the SDM's order; empty if VM entry should succeed.
pub fn check(view: &dyn VmcsView, caps: &VmxCaps) -> Vec<Violation> {
    let state = State { view, caps };
    let mut violations = Vec::new();
    for rule in [controls::RULES, host::RULES, guest::RULES]
        .into_iter()
        .flatten()
    {
        if !(rule.holds)(&state) {
            violations.push(Violation {
                rule: rule.name,
                section: rule.section,
                requirement: rule.requirement,
                values: state.values(rule.fields),
            });
        }
    }
    for rule in segments::RULES {
        for &seg in rule.segments {
            let segment = state.segment(seg);
            if !(rule.holds)(&state, &segment) {
                violations.push(Violation {
                    rule: rule.name,
                    section: segments::SECTION,
                    requirement: rule.requirement,
                    values: state.segment_values(&segment),
                });
            }
        }
    }
    violations
}

/// One line of a table.
struct Rule {
    name: &'static str,
    section: &'static str,
    requirement: &'static str,
    /// What to show if it is broken.
    fields: &'static [VmcsField],
    holds: fn(&State<'_>) -> bool,
}

/// A table of [`Rule`]s: `"name" "section" "requirement" [FIELDS] |state| holds;`
macro_rules! rules {
    ($($name:literal $section:literal $requirement:literal [$($field:ident)*] $holds:expr;)*) => {
        &[$(
            Rule {
                name: $name,
                section: $section,
                requirement: $requirement,
                fields: &[$(field::$field.field(),)*],
                holds: $holds,
            },
        )*]
    };
}
use rules;

/// A VMCS and its CPU, with the questions that many rules ask.
struct State<'a> {
    view: &'a dyn VmcsView,
    caps: &'a VmxCaps,
}

/// A guest segment register.
struct Segment {
    seg: SegReg,
    selector: u16,
    base: u64,
    limit: u32,
    access: AccessRights,
}

impl Segment {
    fn rpl(&self) -> u8 {
        self.selector as u8 & 3
    }

    /// Selector bit 2: from the LDT.
    fn ti(&self) -> bool {
        self.selector & 1 << 2 != 0
    }

    fn usable(&self) -> bool {
        !self.access.unusable()
    }
}

impl State<'_> {
    fn get<W: FieldWidth>(&self, field: Field<W>) -> W::Value {
        W::from_vmread(self.view.read(field.field()))
    }

    fn pin(&self, bits: PinControls) -> bool {
        PinControls::from_bits_retain(self.get(field::PIN_BASED_CONTROLS)).contains(bits)
    }

    fn proc(&self, bits: ProcControls) -> bool {
        let controls = self.get(field::PRIMARY_PROCESSOR_BASED_CONTROLS);
        ProcControls::from_bits_retain(controls).contains(bits)
    }

    /// Secondary controls count as 0 if they are not activated.
    fn proc2(&self, bits: Proc2Controls) -> bool {
        let controls = self.get(field::SECONDARY_PROCESSOR_BASED_CONTROLS);
        self.proc(ProcControls::ACTIVATE_SECONDARY_CONTROLS)
            && Proc2Controls::from_bits_retain(controls).contains(bits)
    }

    fn exit(&self, bits: ExitControls) -> bool {
        ExitControls::from_bits_retain(self.get(field::PRIMARY_EXIT_CONTROLS)).contains(bits)
    }

    fn entry(&self, bits: EntryControls) -> bool {
        EntryControls::from_bits_retain(self.get(field::ENTRY_CONTROLS)).contains(bits)
    }

    fn unrestricted(&self) -> bool {
        self.proc2(Proc2Controls::UNRESTRICTED_GUEST)
    }

    fn ia32e(&self) -> bool {
        self.entry(EntryControls::IA32E_MODE_GUEST)
    }

    fn cr0(&self) -> Cr0 {
        Cr0::from_bits_retain(self.get(field::GUEST_CR0))
    }

    fn cr4(&self) -> Cr4 {
        Cr4::from_bits_retain(self.get(field::GUEST_CR4))
    }

    fn efer(&self) -> Efer {
        Efer::from_bits_retain(self.get(field::GUEST_IA32_EFER))
    }

    /// RFLAGS.VM: the guest is in virtual-8086 mode.
    fn v8086(&self) -> bool {
        self.get(field::GUEST_RFLAGS) & 1 << 17 != 0
    }

    fn injection(&self) -> InterruptionInfo {
        InterruptionInfo(self.get(field::ENTRY_INTERRUPTION_INFO))
    }

    fn segment(&self, seg: SegReg) -> Segment {
        let fields = SegFields::of(seg);
        Segment {
            seg,
            selector: fields.selector.map_or(0, |f| self.get(f)),
            base: self.get(fields.base),
            limit: self.get(fields.limit),
            access: AccessRights(fields.access.map_or(0, |f| self.get(f))),
        }
    }

    /// Sign-extended from the CPU's linear-address width: 57 bits with LA57, else 48.
    fn canonical(&self, address: u64) -> bool {
        let la57 = Cr4::from_bits_retain(self.caps.msrs.cr4_fixed1).contains(Cr4::LA57);
        let unused = 64 - if la57 { 57 } else { 48 };
        ((address << unused) as i64 >> unused) as u64 == address
    }

    /// An address that the CPU's physical-address width has.
    fn physical(&self, address: u64) -> bool {
        let width = if self.caps.addresses_32bit {
            32
        } else {
            self.caps.max_phys_addr_width
        };
        address.checked_shr(u32::from(width)).unwrap_or(0) == 0
    }

    /// The same, with its low `bits` bits 0.
    fn physical_aligned(&self, address: u64, bits: u32) -> bool {
        address % (1 << bits) == 0 && self.physical(address)
    }

    fn values(&self, fields: &[VmcsField]) -> String {
        let mut text = String::new();
        for &field in fields {
            let space = if text.is_empty() { "" } else { " " };
            // Writing to a String can't fail.
            let _ = write!(text, "{space}{}={:#x}", field.name(), self.view.read(field));
        }
        text
    }

    fn segment_values(&self, segment: &Segment) -> String {
        let fields = SegFields::of(segment.seg);
        let own = [
            fields.selector.map(Field::field),
            Some(fields.base.field()),
            Some(fields.limit.field()),
            fields.access.map(Field::field),
        ];
        self.values(&own.into_iter().flatten().collect::<Vec<_>>())
    }
}

/// Whether each byte of a PAT is a memory type.
fn pat_valid(pat: u64) -> bool {
    pat.to_le_bytes()
        .iter()
        .all(|memory_type| matches!(memory_type, 0 | 1 | 4 | 5 | 6 | 7))
}

/// EFER bits that a CPU with Intel 64 has.
const EFER_DEFINED: Efer = Efer::SCE.union(Efer::LME).union(Efer::LMA).union(Efer::NXE);
