//! Valid states of each mode pass; each rule is broken by a state that breaks no other
//! rule than those named.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::vec::Vec;

use super::field::*;
use super::*;
use crate::vmx::cr::CrPolicy;
use crate::vmx::reset;
use crate::vmx::testing::{caps, haswell};

#[derive(Clone)]
struct Vmcs(BTreeMap<VmcsField, u64>);

impl VmcsView for Vmcs {
    fn read(&self, field: VmcsField) -> u64 {
        self.0.get(&field).copied().unwrap_or(0)
    }
}

impl Vmcs {
    fn with(mut self, changes: &[(VmcsField, u64)]) -> Self {
        self.0.extend(changes.iter().copied());
        self
    }

    /// Sets bits of a field.
    fn or(self, field: VmcsField, bits: u64) -> Self {
        let value = self.read(field) | bits;
        self.with(&[(field, value)])
    }
}

macro_rules! fields {
    ($($field:ident = $value:expr),* $(,)?) => { &[$(($field.field(), $value as u64)),*] };
}

/// A vcpu that was just reset, on a 64-bit host.
fn real() -> Vmcs {
    let caps = caps();
    let controls = caps.controls;
    let policy = CrPolicy::new(&caps, Cr4::from_bits_retain(0x0037_07ff));
    Vmcs(reset::GUEST_STATE.iter().copied().collect()).with(fields! {
        PIN_BASED_CONTROLS = controls.pin.bits(),
        PRIMARY_PROCESSOR_BASED_CONTROLS = controls.proc.bits(),
        SECONDARY_PROCESSOR_BASED_CONTROLS = controls.proc2.bits(),
        PRIMARY_EXIT_CONTROLS = controls.exit.bits(),
        ENTRY_CONTROLS = controls.entry.bits(),
        VIRTUAL_PROCESSOR_ID = 1,
        EPT_POINTER = 0x1234_505e,
        MSR_BITMAPS_ADDRESS = 0x5000,
        GUEST_CR0 = policy.cr0(reset::CR0).real,
        GUEST_CR4 = policy.cr4(reset::CR4).real,
        HOST_CR0 = 0x8005_0033,
        HOST_CR3 = 0x7a_1000,
        HOST_CR4 = 0x0017_26f0,
        HOST_CS_SELECTOR = 0x20,
        HOST_SS_SELECTOR = 0x28,
        HOST_TR_SELECTOR = 0x48,
        HOST_GS_BASE = 0xffff_8000_0000_1000_u64,
        HOST_GDTR_BASE = 0xffff_8000_0000_2000_u64,
        HOST_IDTR_BASE = 0xffff_8000_0000_3000_u64,
        HOST_TR_BASE = 0xffff_8000_0000_4000_u64,
        HOST_RIP = 0xffff_ffff_8123_4567_u64,
        HOST_IA32_PAT = reset::PAT,
        HOST_IA32_EFER = 0xd01,
    })
}

/// A flat 32-bit protected-mode kernel, paging off.
fn protected() -> Vmcs {
    let code = 0xc09b_u64;
    let data = 0xc093_u64;
    let mut vmcs = real().with(fields! {
        GUEST_CR0 = 0x31, GUEST_RIP = 0x10_0000, GUEST_RFLAGS = 0x202,
        GUEST_CS_SELECTOR = 0x8, GUEST_CS_BASE = 0, GUEST_CS_LIMIT = 0xffff_ffff_u32,
        GUEST_CS_ACCESS_RIGHTS = code,
    });
    for seg in [SegReg::Ss, SegReg::Ds, SegReg::Es, SegReg::Fs, SegReg::Gs] {
        let f = SegFields::of(seg);
        vmcs = vmcs.with(&[
            (f.selector.unwrap().field(), 0x10),
            (f.limit.field(), 0xffff_ffff),
            (f.access.unwrap().field(), data),
        ]);
    }
    vmcs.with(fields! {
        GUEST_TR_LIMIT = 0x67,
        GUEST_LDTR_ACCESS_RIGHTS = AccessRights::UNUSABLE.0,
        GUEST_GDTR_BASE = 0x1000,
    })
}

fn pae() -> Vmcs {
    protected()
        .or(GUEST_CR0.field(), 0x8000_0000)
        .or(GUEST_CR4.field(), 1 << 5)
        .with(fields! { GUEST_PDPTE0 = 0x2001, GUEST_PDPTE3 = 0xffff_fffe_u32 })
}

fn long() -> Vmcs {
    protected()
        .or(GUEST_CR0.field(), 0x8001_0000)
        .or(GUEST_CR4.field(), 1 << 5)
        .or(ENTRY_CONTROLS.field(), 1 << 9)
        .with(fields! {
            GUEST_IA32_EFER = 0xd01, GUEST_CS_ACCESS_RIGHTS = 0xa09b,
            GUEST_RIP = 0xffff_ffff_8100_0000_u64, GUEST_CR3 = 0x1000,
        })
}

/// User code in 64-bit mode: CPL 3.
fn user() -> Vmcs {
    long().with(fields! {
        GUEST_CS_SELECTOR = 0x33, GUEST_CS_ACCESS_RIGHTS = 0xa0fb,
        GUEST_SS_SELECTOR = 0x2b, GUEST_SS_ACCESS_RIGHTS = 0xc0f3,
        GUEST_RIP = 0x40_1000,
    })
}

fn v8086() -> Vmcs {
    let mut vmcs = protected().or(GUEST_RFLAGS.field(), 1 << 17 | 3 << 12);
    for seg in [
        SegReg::Cs,
        SegReg::Ss,
        SegReg::Ds,
        SegReg::Es,
        SegReg::Fs,
        SegReg::Gs,
    ] {
        let f = SegFields::of(seg);
        vmcs = vmcs.with(&[
            (f.selector.unwrap().field(), 0x1000),
            (f.base.field(), 0x10000),
            (f.limit.field(), 0xffff),
            (f.access.unwrap().field(), 0xf3),
        ]);
    }
    vmcs.with(fields! { GUEST_RIP = 0x100 })
}

/// Without unrestricted guest, in 64-bit mode.
fn restricted() -> Vmcs {
    let vmcs = long();
    let proc2 = vmcs.read(SECONDARY_PROCESSOR_BASED_CONTROLS.field()) & !(1 << 7);
    vmcs.with(fields! { SECONDARY_PROCESSOR_BASED_CONTROLS = proc2, GUEST_TR_SELECTOR = 0x18 })
}

#[test]
fn valid_states_of_each_mode_pass() {
    for (name, vmcs) in [
        ("real", real()),
        ("protected", protected()),
        ("pae", pae()),
        ("long", long()),
        ("user", user()),
        ("v8086", v8086()),
        ("restricted", restricted()),
        (
            "halted",
            protected().with(fields! { GUEST_ACTIVITY_STATE = 1 }),
        ),
        (
            "null data segments",
            long().with(fields! {
                GUEST_DS_SELECTOR = 0, GUEST_DS_ACCESS_RIGHTS = 0x10000,
                GUEST_ES_SELECTOR = 0, GUEST_ES_ACCESS_RIGHTS = 0x10000,
            }),
        ),
        (
            "#PF injected",
            long().with(fields! {
                ENTRY_INTERRUPTION_INFO = 0x8000_0b0e_u32, ENTRY_EXCEPTION_ERROR_CODE = 2,
            }),
        ),
        (
            "#GP injected in real mode",
            real().with(fields! {
                ENTRY_INTERRUPTION_INFO = 0x8000_030d_u32,
            }),
        ),
        (
            "INT3 injected",
            long().with(fields! {
                ENTRY_INTERRUPTION_INFO = 0x8000_0603_u32, ENTRY_INSTRUCTION_LENGTH = 1,
            }),
        ),
        (
            "interrupt injected",
            protected().with(fields! {
                ENTRY_INTERRUPTION_INFO = 0x8000_0020_u32,
            }),
        ),
        (
            "single step over STI",
            protected().with(fields! {
                GUEST_RFLAGS = 0x302, GUEST_INTERRUPTIBILITY_STATE = 1,
                GUEST_PENDING_DEBUG_EXCEPTIONS = 1 << 14,
            }),
        ),
    ] {
        let violations = check(&vmcs, &caps());
        assert!(violations.is_empty(), "{name}: {violations:#?}");
    }
}

type Case = (&'static [&'static str], fn() -> Vmcs, fn(Vmcs) -> Vmcs);

macro_rules! cases {
    ($($base:ident [$($field:ident $op:tt $value:expr),* $(,)?] => $($rule:literal)+;)*) => {
        &[$((&[$($rule),+], $base, |vmcs| vmcs$(.with(&[cases!(@set vmcs $field $op $value)]))*),)*]
    };
    (@set $vmcs:ident $field:ident = $value:expr) => { ($field.field(), $value as u64) };
}

/// Control bits on top of the policy's, for the cases below.
fn with_tpr_shadow() -> Vmcs {
    real()
        .or(PRIMARY_PROCESSOR_BASED_CONTROLS.field(), 1 << 21)
        .with(fields! { VIRTUAL_APIC_ADDRESS = 0x9000 })
}

fn with_posted_interrupts() -> Vmcs {
    with_tpr_shadow()
        .or(PIN_BASED_CONTROLS.field(), 1 << 7)
        .or(SECONDARY_PROCESSOR_BASED_CONTROLS.field(), 1 << 9)
        .or(PRIMARY_EXIT_CONTROLS.field(), 1 << 15)
        .with(fields! { POSTED_INTERRUPT_DESCRIPTOR_ADDRESS = 0xa040 })
}

fn with_proc2(bits: u64) -> Vmcs {
    real().or(SECONDARY_PROCESSOR_BASED_CONTROLS.field(), bits)
}

fn with_io_bitmaps() -> Vmcs {
    real().or(PRIMARY_PROCESSOR_BASED_CONTROLS.field(), 1 << 25)
}

fn with_apic_accesses() -> Vmcs {
    with_proc2(1 << 0)
}

fn with_x2apic() -> Vmcs {
    with_tpr_shadow().or(SECONDARY_PROCESSOR_BASED_CONTROLS.field(), 1 << 4)
}

fn with_pml() -> Vmcs {
    with_proc2(1 << 17)
}

fn without(vmcs: &Vmcs, field: Field<u32>, bits: u64) -> u64 {
    vmcs.read(field.field()) & !bits
}

fn plus(vmcs: &Vmcs, field: Field<u32>, bits: u64) -> u64 {
    vmcs.read(field.field()) | bits
}

const NON_CANONICAL: u64 = 0x8000_0000_0000;

fn broken() -> Vec<Case> {
    let table: &[Case] = cases! {
        real [PIN_BASED_CONTROLS = 0x2b] => "pin-controls-allowed";
        real [SECONDARY_PROCESSOR_BASED_CONTROLS = 0x8000_00a2_u32] => "proc2-controls-allowed";
        real [CR3_TARGET_COUNT = 5] => "cr3-target-count";
        with_io_bitmaps [IO_BITMAP_B_ADDRESS = 0x5800] => "io-bitmap-addresses";
        real [MSR_BITMAPS_ADDRESS = 0x5008] => "msr-bitmap-address";
        real [MSR_BITMAPS_ADDRESS = 1u64 << 39] => "msr-bitmap-address";
        with_tpr_shadow [VIRTUAL_APIC_ADDRESS = 0x9010] => "virtual-apic-address";
        with_tpr_shadow [TPR_THRESHOLD = 0x10] => "tpr-threshold";
        with_apic_accesses [APIC_ACCESS_ADDRESS = 0xfee0_0010_u32] => "apic-access-address";
        with_posted_interrupts [POSTED_INTERRUPT_NOTIFICATION_VECTOR = 0x100] => "posted-interrupts";
        with_posted_interrupts [POSTED_INTERRUPT_DESCRIPTOR_ADDRESS = 0xa020] => "posted-interrupts";
        real [VIRTUAL_PROCESSOR_ID = 0] => "vpid-not-zero";
        real [EPT_POINTER = 0x1234_5046] => "ept-pointer";
        real [EPT_POINTER = 0x1234_505d] => "ept-pointer";
        real [EPT_POINTER = 0x1234_515e] => "ept-pointer";
        real [EPT_POINTER = 1u64 << 40 | 0x5e] => "ept-pointer";
        with_pml [PML_ADDRESS = 0x10] => "proc2-controls-allowed" "pml";
        real [EXIT_MSR_STORE_COUNT = 1, EXIT_MSR_STORE_ADDRESS = 0x8] => "exit-msr-store-area";
        real [EXIT_MSR_LOAD_COUNT = 2, EXIT_MSR_LOAD_ADDRESS = (1u64 << 39) - 16] => "exit-msr-load-area";
        real [ENTRY_MSR_LOAD_COUNT = 1, ENTRY_MSR_LOAD_ADDRESS = 0x4] => "entry-msr-load-area";
        long [ENTRY_INTERRUPTION_INFO = 0x8000_0120_u32] => "injection-type";
        long [ENTRY_INTERRUPTION_INFO = 0x8000_0701_u32] => "injection-type";
        long [ENTRY_INTERRUPTION_INFO = 0x8000_0203_u32] => "injection-vector";
        long [ENTRY_INTERRUPTION_INFO = 0x8000_0320_u32] => "injection-vector";
        long [ENTRY_INTERRUPTION_INFO = 0x8000_030e_u32] => "injection-error-code-delivery";
        long [ENTRY_INTERRUPTION_INFO = 0x8000_0b06_u32] => "injection-error-code-delivery";
        real [ENTRY_INTERRUPTION_INFO = 0x8000_0b0d_u32] => "injection-error-code-delivery";
        long [ENTRY_INTERRUPTION_INFO = 0x8000_1b0d_u32] => "injection-reserved-bits";
        long [ENTRY_INTERRUPTION_INFO = 0x8000_0b0d_u32, ENTRY_EXCEPTION_ERROR_CODE = 0x10000] => "injection-error-code";
        long [ENTRY_INTERRUPTION_INFO = 0x8000_0480_u32, ENTRY_INSTRUCTION_LENGTH = 16] => "injection-instruction-length";

        real [HOST_CR0 = 0x8005_0013_u32] => "host-cr0-fixed";
        real [HOST_CR4 = 0x0017_06f0] => "host-cr4-fixed";
        real [HOST_CR4 = 0x0017_26d0] => "host-cr4-pae";
        real [HOST_CR3 = 1u64 << 39] => "host-cr3-width";
        real [HOST_IA32_SYSENTER_ESP = NON_CANONICAL] => "host-sysenter-canonical";
        real [HOST_IA32_PAT = 2] => "host-pat";
        real [HOST_IA32_EFER = 0x501 | 2] => "host-efer";
        real [HOST_IA32_EFER = 0x901] => "host-efer";
        real [HOST_SS_SELECTOR = 0x2b] => "host-selectors-rpl-ti";
        real [HOST_FS_SELECTOR = 0x4] => "host-selectors-rpl-ti";
        real [HOST_TR_SELECTOR = 0] => "host-cs-tr-not-null";
        real [HOST_IDTR_BASE = NON_CANONICAL] => "host-bases-canonical";
        real [HOST_RIP = NON_CANONICAL] => "host-rip-canonical";

        real [GUEST_CR0 = 0x10] => "guest-cr0-fixed";
        restricted [GUEST_CR0 = 0x31] => "guest-cr0-fixed" "guest-ia32e-needs-paging";
        protected [GUEST_CR0 = 0x8000_0030_u32] => "guest-cr0-pg-needs-pe";
        real [GUEST_CR4 = 0] => "guest-cr4-fixed";
        real [GUEST_CR4 = 0x2000 | 1 << 23] => "guest-cr4-fixed" "guest-cr4-cet-needs-wp";
        real [GUEST_IA32_DEBUGCTL = 8] => "guest-debugctl";
        long [GUEST_CR4 = 0x2000] => "guest-ia32e-needs-paging";
        protected [GUEST_CR4 = 0x2000 | 1 << 17] => "guest-pcide-needs-ia32e";
        long [GUEST_CR3 = 1u64 << 39] => "guest-cr3-width";
        real [GUEST_DR7 = 1u64 << 32 | 0x400] => "guest-dr7-high";
        real [GUEST_IA32_SYSENTER_EIP = NON_CANONICAL] => "guest-sysenter-canonical";
        real [GUEST_IA32_PAT = 0x0300] => "guest-pat";
        long [GUEST_IA32_EFER = 0xd03] => "guest-efer-reserved";
        protected [GUEST_IA32_EFER = 0x500] => "guest-efer-lma";
        long [GUEST_IA32_EFER = 0xc01] => "guest-efer-lme";
        pae [GUEST_IA32_EFER = 0x100] => "guest-efer-lme";
        long [GUEST_GDTR_BASE = NON_CANONICAL] => "guest-gdtr-idtr-canonical";
        long [GUEST_IDTR_LIMIT = 0x10000] => "guest-gdtr-idtr-limit";
        protected [GUEST_RIP = 1u64 << 32] => "guest-rip";
        long [GUEST_RIP = NON_CANONICAL] => "guest-rip";
        real [GUEST_RFLAGS = 0] => "guest-rflags-reserved";
        real [GUEST_RFLAGS = 0x400002] => "guest-rflags-reserved";
        v8086 [GUEST_CR0 = 0x30] => "guest-rflags-vm";
        real [ENTRY_INTERRUPTION_INFO = 0x8000_0020_u32] => "guest-rflags-if";
        real [GUEST_ACTIVITY_STATE = 4] => "guest-activity-supported";
        user [GUEST_ACTIVITY_STATE = 1] => "guest-activity-hlt-cpl";
        protected [GUEST_ACTIVITY_STATE = 1, GUEST_INTERRUPTIBILITY_STATE = 1] => "guest-activity-blocking";
        protected [GUEST_ACTIVITY_STATE = 2, ENTRY_INTERRUPTION_INFO = 0x8000_0020_u32] => "guest-activity-injection";
        protected [GUEST_ACTIVITY_STATE = 1, ENTRY_INTERRUPTION_INFO = 0x8000_0306_u32] => "guest-activity-injection";
        real [GUEST_INTERRUPTIBILITY_STATE = 0x20] => "guest-interruptibility-reserved";
        protected [GUEST_INTERRUPTIBILITY_STATE = 3] => "guest-sti-and-mov-ss";
        real [GUEST_INTERRUPTIBILITY_STATE = 1] => "guest-sti-needs-if";
        protected [GUEST_INTERRUPTIBILITY_STATE = 2, ENTRY_INTERRUPTION_INFO = 0x8000_0020_u32] => "guest-blocking-external-interrupt";
        protected [GUEST_INTERRUPTIBILITY_STATE = 8, ENTRY_INTERRUPTION_INFO = 0x8000_0202_u32] => "guest-blocking-nmi";
        real [GUEST_INTERRUPTIBILITY_STATE = 4] => "guest-blocking-smi";
        real [GUEST_PENDING_DEBUG_EXCEPTIONS = 0x10] => "guest-pending-debug-reserved";
        protected [GUEST_INTERRUPTIBILITY_STATE = 2, GUEST_RFLAGS = 0x102] => "guest-pending-single-step";
        protected [GUEST_INTERRUPTIBILITY_STATE = 2, GUEST_PENDING_DEBUG_EXCEPTIONS = 1 << 14] => "guest-pending-single-step";
        real [VMCS_LINK_POINTER = 0x1001] => "guest-link-pointer";
        pae [GUEST_PDPTE1 = 0x3003] => "guest-pdptes";
        pae [GUEST_PDPTE1 = 1u64 << 39 | 1] => "guest-pdptes";

        protected [GUEST_TR_SELECTOR = 0x4] => "guest-seg-tr-ldtr-ti";
        real [GUEST_LDTR_SELECTOR = 0x4] => "guest-seg-tr-ldtr-ti";
        restricted [GUEST_CS_SELECTOR = 0xb] => "guest-seg-ss-rpl";
        v8086 [GUEST_FS_BASE = 0x20000] => "guest-seg-v8086-base";
        v8086 [GUEST_SS_LIMIT = 0xfffff] => "guest-seg-v8086-limit";
        v8086 [GUEST_DS_ACCESS_RIGHTS = 0x93] => "guest-seg-v8086-access";
        long [GUEST_FS_BASE = NON_CANONICAL] => "guest-seg-base-canonical";
        protected [GUEST_DS_BASE = 1u64 << 32] => "guest-seg-base-high";
        protected [GUEST_CS_ACCESS_RIGHTS = 0xc09a] => "guest-seg-cs-type";
        restricted [GUEST_CS_ACCESS_RIGHTS = 0xa093] => "guest-seg-cs-type";
        protected [GUEST_SS_ACCESS_RIGHTS = 0xc091] => "guest-seg-ss-type";
        protected [GUEST_DS_ACCESS_RIGHTS = 0xc092] => "guest-seg-data-type";
        protected [GUEST_ES_ACCESS_RIGHTS = 0xc099] => "guest-seg-data-type";
        protected [GUEST_GS_ACCESS_RIGHTS = 0xc083] => "guest-seg-s";
        protected [GUEST_CS_ACCESS_RIGHTS = 0xc0fb] => "guest-seg-cs-dpl";
        real [GUEST_SS_ACCESS_RIGHTS = 0xf3] => "guest-seg-ss-dpl";
        restricted [GUEST_DS_SELECTOR = 0x13] => "guest-seg-data-dpl";
        protected [GUEST_ES_ACCESS_RIGHTS = 0xc013] => "guest-seg-present";
        protected [GUEST_ES_ACCESS_RIGHTS = 0xc193] => "guest-seg-reserved";
        long [GUEST_CS_ACCESS_RIGHTS = 0xe09b] => "guest-seg-cs-db";
        protected [GUEST_DS_ACCESS_RIGHTS = 0x4093] => "guest-seg-granularity";
        protected [GUEST_DS_LIMIT = 0xffff_f000_u32] => "guest-seg-granularity";
        long [GUEST_TR_ACCESS_RIGHTS = 0x83] => "guest-seg-tr-type";
        protected [GUEST_TR_ACCESS_RIGHTS = 0x89] => "guest-seg-tr-type";
        protected [GUEST_TR_ACCESS_RIGHTS = 0x1008b] => "guest-seg-tr-usable";
        real [GUEST_LDTR_ACCESS_RIGHTS = 0x8b] => "guest-seg-ldtr-type";
        protected [GUEST_TR_ACCESS_RIGHTS = 0x9b] => "guest-seg-system-s";
    };
    let mut cases = table.to_vec();
    // What changes single bits of the policy's controls.
    let bits: &[Case] = &[
        (&["proc-controls-allowed"], real, |v| {
            let value = plus(&v, PRIMARY_PROCESSOR_BASED_CONTROLS, 1);
            v.with(fields! { PRIMARY_PROCESSOR_BASED_CONTROLS = value })
        }),
        (
            &["pin-controls-allowed", "virtual-nmis-need-nmi-exiting"],
            real,
            |v| {
                // Without the default1 bits too, to show that rules are independent.
                v.with(fields! { PIN_BASED_CONTROLS = 1 << 5 })
            },
        ),
        (&["nmi-window-needs-virtual-nmis"], real, |v| {
            let pin = without(&v, PIN_BASED_CONTROLS, 1 << 5);
            let proc = plus(&v, PRIMARY_PROCESSOR_BASED_CONTROLS, 1 << 22);
            v.with(fields! { PIN_BASED_CONTROLS = pin, PRIMARY_PROCESSOR_BASED_CONTROLS = proc })
        }),
        (&["apic-virtualization-needs-tpr-shadow"], real, |v| {
            let proc2 = plus(&v, SECONDARY_PROCESSOR_BASED_CONTROLS, 1 << 8);
            v.with(fields! { SECONDARY_PROCESSOR_BASED_CONTROLS = proc2 })
        }),
        (&["x2apic-excludes-apic-accesses"], with_x2apic, |v| {
            let proc2 = plus(&v, SECONDARY_PROCESSOR_BASED_CONTROLS, 1);
            v.with(fields! { SECONDARY_PROCESSOR_BASED_CONTROLS = proc2 })
        }),
        (
            &["interrupt-delivery-needs-external-interrupt-exiting"],
            with_posted_interrupts,
            |v| {
                let pin = without(&v, PIN_BASED_CONTROLS, 1);
                v.with(fields! { PIN_BASED_CONTROLS = pin })
            },
        ),
        (&["posted-interrupts"], with_posted_interrupts, |v| {
            let exit = without(&v, PRIMARY_EXIT_CONTROLS, 1 << 15);
            v.with(fields! { PRIMARY_EXIT_CONTROLS = exit })
        }),
        (&["unrestricted-guest-needs-ept"], long, |v| {
            let proc2 = without(&v, SECONDARY_PROCESSOR_BASED_CONTROLS, 1 << 1);
            v.with(fields! { SECONDARY_PROCESSOR_BASED_CONTROLS = proc2 })
        }),
        (&["exit-controls-allowed"], real, |v| {
            let exit = plus(&v, PRIMARY_EXIT_CONTROLS, 1 << 29);
            v.with(fields! { PRIMARY_EXIT_CONTROLS = exit })
        }),
        (&["preemption-timer-saved-only-if-active"], real, |v| {
            let exit = plus(&v, PRIMARY_EXIT_CONTROLS, 1 << 22);
            v.with(fields! { PRIMARY_EXIT_CONTROLS = exit })
        }),
        (&["host-efer", "host-address-space-size"], real, |v| {
            let exit = without(&v, PRIMARY_EXIT_CONTROLS, 1 << 9);
            v.with(fields! { PRIMARY_EXIT_CONTROLS = exit })
        }),
        (&["entry-controls-allowed"], real, |v| {
            let entry = plus(&v, ENTRY_CONTROLS, 1 << 22);
            v.with(fields! { ENTRY_CONTROLS = entry })
        }),
        (&["entry-outside-smm"], real, |v| {
            let entry = plus(&v, ENTRY_CONTROLS, 1 << 10);
            v.with(fields! { ENTRY_CONTROLS = entry })
        }),
    ];
    cases.extend_from_slice(bits);
    cases
}

#[test]
fn each_rule_is_broken_by_what_breaks_it_and_no_other() {
    for (rules, base, change) in broken() {
        let found = check(&change(base()), &caps());
        let names: Vec<_> = found.iter().map(|v| v.rule).collect();
        assert_eq!(names, rules, "{found:#?}");
    }
}

#[test]
fn every_rule_has_a_case() {
    let tested: BTreeSet<_> = broken()
        .iter()
        .flat_map(|(rules, ..)| rules.iter().copied())
        .collect();
    let all = [controls::RULES, host::RULES, guest::RULES]
        .into_iter()
        .flatten();
    let all = all
        .map(|r| r.name)
        .chain(segments::RULES.iter().map(|r| r.name));
    let mut seen = BTreeSet::new();
    for name in all {
        assert!(seen.insert(name), "{name} twice");
        assert!(tested.contains(name), "no case breaks {name}");
    }
}

#[test]
fn what_a_cpu_lacks_is_not_allowed_to_it() {
    let mut msrs = haswell();
    msrs.misc &= !(1 << 6 | 1 << 30);
    let poor = VmxCaps::check(&msrs).unwrap();
    let halted = protected().with(fields! { GUEST_ACTIVITY_STATE = 1 });
    assert_eq!(check(&halted, &poor)[0].rule, "guest-activity-supported");
    let int3 = long().with(fields! { ENTRY_INTERRUPTION_INFO = 0x8000_0603_u32 });
    assert_eq!(check(&int3, &poor)[0].rule, "injection-instruction-length");
    assert!(check(&int3, &caps()).is_empty());
}

#[test]
fn a_violation_shows_rule_section_and_values() {
    let vmcs = real().with(fields! { GUEST_RFLAGS = 0 });
    let violations = check(&vmcs, &caps());
    assert_eq!(
        violations[0].to_string(),
        "guest-rflags-reserved (SDM 27.3.1.4): \
         bits 63:22, 15, 5 and 3 of RFLAGS are 0, bit 1 is 1; GUEST_RFLAGS=0x0"
    );
    let vmcs = protected().with(fields! { GUEST_DS_ACCESS_RIGHTS = 0xc092 });
    assert_eq!(
        check(&vmcs, &caps())[0].values,
        "GUEST_DS_SELECTOR=0x10 GUEST_DS_BASE=0x0 GUEST_DS_LIMIT=0xffffffff \
         GUEST_DS_ACCESS_RIGHTS=0xc092"
    );
}
