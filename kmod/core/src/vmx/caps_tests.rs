//! Which CPU the module accepts, and what it says about one that it doesn't.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::*;
use crate::vmx::controls::{
    EntryControls, ExitControls, Need, POLICY, PinControls, Rule, policy_bits,
};
use crate::vmx::testing::{caps, haswell};

fn refused(change: impl Fn(&mut CapabilityMsrs)) -> LoadError {
    let mut msrs = haswell();
    change(&mut msrs);
    VmxCaps::check(&msrs).expect_err("this CPU lacks something")
}

/// The capability MSR that decides, and its plain twin.
fn msrs_of(m: &mut CapabilityMsrs, kind: ControlKind) -> [&mut u64; 2] {
    match kind {
        ControlKind::Pin => [&mut m.pinbased, &mut m.true_pinbased],
        ControlKind::Proc => [&mut m.procbased, &mut m.true_procbased],
        ControlKind::Proc2 => [&mut m.procbased2, &mut m.ept_vpid_cap],
        ControlKind::Exit => [&mut m.exit, &mut m.true_exit],
        ControlKind::Entry => [&mut m.entry, &mut m.true_entry],
    }
}

/// The CPU no longer allows `rule`'s control to be 1.
fn forbid(m: &mut CapabilityMsrs, rule: &Rule) {
    let count = if rule.kind == ControlKind::Proc2 {
        1
    } else {
        2
    };
    for msr in msrs_of(m, rule.kind).into_iter().take(count) {
        *msr &= !(u64::from(rule.bit) << 32 | u64::from(rule.bit));
    }
}

#[test]
fn a_good_cpu_is_described() {
    let caps = caps();
    assert_eq!((caps.revision_id, caps.region_size), (0x12, 1024));
    assert_eq!(caps.feature_control, FeatureControl::Enabled);
    assert_eq!(
        (caps.preemption_timer_shift, caps.cr3_target_values),
        (5, 4)
    );
    assert!(caps.has(Features::VPID | Features::EPT_2M | Features::EPT_1G));
    assert!(caps.has(Features::EPT_ACCESSED_DIRTY | Features::INVEPT_SINGLE_CONTEXT));
    assert!(caps.has(Features::POSTED_INTERRUPTS | Features::CR3_WITHOUT_EXITS));
    assert!(
        !caps
            .features
            .intersects(Features::TSC_SCALING | Features::PML | Features::XSAVES)
    );
}

#[test]
fn the_computed_controls_are_allowed_and_follow_the_policy() {
    let caps = caps();
    let c = caps.controls;
    let m = &caps.msrs;
    assert!(m.allowed(ControlKind::Pin).permits(c.pin.bits()));
    assert!(m.allowed(ControlKind::Proc).permits(c.proc.bits()));
    assert!(m.allowed(ControlKind::Proc2).permits(c.proc2.bits()));
    assert!(m.allowed(ControlKind::Exit).permits(c.exit.bits()));
    assert!(m.allowed(ControlKind::Entry).permits(c.entry.bits()));

    assert_eq!(c.pin.bits(), 0x16 | 0x29);
    assert!(
        !c.proc
            .intersects(ProcControls::CR3_LOAD_EXITING | ProcControls::INVLPG_EXITING)
    );
    assert!(!c.proc.intersects(ProcControls::INTERRUPT_WINDOW_EXITING));
    let proc2 = Proc2Controls::ENABLE_EPT
        | Proc2Controls::UNRESTRICTED_GUEST
        | Proc2Controls::ENABLE_VPID
        | Proc2Controls::ENABLE_RDTSCP
        | Proc2Controls::WBINVD_EXITING;
    assert_eq!(c.proc2, proc2);
    assert!(!c.exit.contains(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT));
    assert!(!c.entry.contains(EntryControls::IA32E_MODE_GUEST));
}

#[test]
fn without_true_msrs_default1_controls_stay_on() {
    let mut msrs = haswell();
    msrs.basic &= !(1 << 55);
    let caps = VmxCaps::check(&msrs).unwrap();
    assert!(caps.controls.proc.contains(ProcControls::CR3_LOAD_EXITING));
    assert!(!caps.has(Features::CR3_WITHOUT_EXITS));
}

#[test]
fn each_required_control_is_named_when_it_is_missing() {
    for rule in POLICY
        .iter()
        .filter(|r| matches!(r.need, Need::Required | Need::Switched))
    {
        let error = refused(|m| forbid(m, rule));
        let bit = rule.bit.trailing_zeros() as u8;
        match rule.kind.bit_name(bit).unwrap() {
            // These have an error of their own; without secondary controls there is no EPT.
            "ENABLE_EPT" => assert_eq!(error, LoadError::NoEpt),
            "UNRESTRICTED_GUEST" => assert_eq!(error, LoadError::NoUnrestrictedGuest),
            name => {
                let text = error.to_string();
                assert!(text.contains(name), "{name}: {text}");
                assert!(text.contains(&format!("bit {bit} ")), "{text}");
                assert!(text.contains(rule.kind.msr_name(true)), "{text}");
            }
        }
    }
}

#[test]
fn each_wanted_control_can_be_missing() {
    for rule in POLICY
        .iter()
        .filter(|r| matches!(r.need, Need::Wanted | Need::Optional))
    {
        let mut msrs = haswell();
        forbid(&mut msrs, rule);
        let caps = VmxCaps::check(&msrs).unwrap();
        let fields = [
            (ControlKind::Pin, caps.controls.pin.bits()),
            (ControlKind::Proc, caps.controls.proc.bits()),
            (ControlKind::Proc2, caps.controls.proc2.bits()),
        ];
        let field = fields.iter().find(|(kind, _)| *kind == rule.kind);
        assert_eq!(
            field.map(|(_, bits)| bits & rule.bit),
            Some(0),
            "{}",
            rule.why
        );
    }
}

#[test]
fn a_window_that_cannot_be_closed_is_refused() {
    let window = ProcControls::INTERRUPT_WINDOW_EXITING;
    let error = refused(|m| m.true_procbased |= u64::from(window.bits()));
    assert_eq!(
        error.to_string(),
        "this CPU cannot set INTERRUPT_WINDOW_EXITING to 0 (bit 2 of the primary \
         processor-based VM-execution controls, IA32_VMX_TRUE_PROCBASED_CTLS)"
    );
}

#[test]
fn no_control_is_in_the_policy_twice() {
    for kind in ControlKind::ALL {
        let mut seen = 0;
        for rule in POLICY.iter().filter(|r| r.kind == kind) {
            assert_eq!(rule.bit.count_ones(), 1);
            assert_eq!(seen & rule.bit, 0, "{:?} {:#x}", kind, rule.bit);
            seen |= rule.bit;
        }
    }
    let switched = policy_bits(ControlKind::Entry, Need::Switched);
    assert_eq!(switched, EntryControls::IA32E_MODE_GUEST.bits());
    assert!(policy_bits(ControlKind::Pin, Need::Required) & PinControls::NMI_EXITING.bits() != 0);
}

#[test]
fn what_is_missing_is_said_in_one_sentence() {
    type Change = fn(&mut CapabilityMsrs);
    let cases: &[(Change, &str)] = &[
        (
            |m| m.cpuid_1_ecx = 0,
            "this CPU has no VT-x (CPUID.1:ECX.VMX is 0)",
        ),
        (
            |m| m.feature_control = 1,
            "VT-x is disabled by the firmware (IA32_FEATURE_CONTROL is 0x1, locked with VMX off); \
             enable it in the firmware's setup",
        ),
        (
            |m| m.cr4 |= CR4_VMXE,
            "another hypervisor on this host already uses VT-x (CR4.VMXE is 1); unload it first",
        ),
        (
            |m| m.basic = m.basic & !(0x1fff << 32) | 0x1100 << 32,
            "the CPU's VMCS region size is 4352 bytes, not 1 to 4096 (IA32_VMX_BASIC bits 44:32)",
        ),
        (
            |m| m.basic &= !(0xf << 50),
            "the CPU wants memory type 0 for a VMCS, not 6, write-back (IA32_VMX_BASIC bits 53:50)",
        ),
        (
            |m| m.procbased2 = 0,
            "this CPU has no EPT (IA32_VMX_PROCBASED_CTLS2 does not allow ENABLE_EPT, bit 1)",
        ),
        (
            |m| m.procbased2 &= !(1 << (32 + 7)),
            "this CPU has no unrestricted guest \
             (IA32_VMX_PROCBASED_CTLS2 does not allow UNRESTRICTED_GUEST, bit 7)",
        ),
        (
            |m| m.ept_vpid_cap &= !(1 << 6),
            "this CPU's EPT has no page walk of length 4 (IA32_VMX_EPT_VPID_CAP bit 6 is 0)",
        ),
        (
            |m| m.ept_vpid_cap &= !(1 << 14),
            "this CPU's EPT has no write-back memory type for its tables \
             (IA32_VMX_EPT_VPID_CAP bit 14 is 0)",
        ),
        (
            |m| m.ept_vpid_cap &= !(1 << 20),
            "this CPU has EPT but no INVEPT (IA32_VMX_EPT_VPID_CAP bits 20, 25 and 26)",
        ),
        (
            |m| m.cr0 &= !(1 << 5),
            "VMX operation needs CR0 bit 5 to be 1 (IA32_VMX_CR0_FIXED0/1), \
             and this host runs with the opposite",
        ),
        (
            |m| m.cr4 |= 1 << 12,
            "VMX operation needs CR4 bit 12 to be 0 (IA32_VMX_CR4_FIXED0/1), \
             and this host runs with the opposite",
        ),
    ];
    for (change, text) in cases {
        assert_eq!(refused(change).to_string(), *text);
    }
}

#[test]
fn an_unlocked_feature_control_can_be_set() {
    assert_eq!(
        FeatureControl::decode(0),
        FeatureControl::Unlocked { write: 5 }
    );
    assert_eq!(
        FeatureControl::decode(0x10_0000),
        FeatureControl::Unlocked { write: 0x10_0005 }
    );
    assert_eq!(FeatureControl::decode(5), FeatureControl::Enabled);
    assert_eq!(
        FeatureControl::decode(3),
        FeatureControl::DisabledByFirmware
    );
    let mut msrs = haswell();
    msrs.feature_control = 0;
    let caps = VmxCaps::check(&msrs).unwrap();
    assert_eq!(caps.feature_control, FeatureControl::Unlocked { write: 5 });
}

#[test]
fn cpus_must_agree() {
    let caps = caps();
    assert_eq!(caps.check_same(&haswell()), Ok(()));
    let mut other = haswell();
    other.procbased2 &= !(1 << (32 + 5));
    assert_eq!(
        caps.check_same(&other).unwrap_err().to_string(),
        "the CPUs of this host differ in IA32_VMX_PROCBASED_CTLS2 (0x7fff00000000 and \
         0x7fdf00000000), so a guest could not move between them"
    );
    let mut locked = haswell();
    locked.feature_control = 1;
    assert!(matches!(
        caps.check_same(&locked),
        Err(LoadError::DisabledByFirmware { .. })
    ));
}

/// A CPU that remembers what was read, since reading an MSR that is not there faults.
struct Cpu {
    msrs: CapabilityMsrs,
    read: RefCell<Vec<u32>>,
}

impl CapabilitySource for Cpu {
    fn rdmsr(&self, number: u32) -> u64 {
        self.read.borrow_mut().push(number);
        let m = &self.msrs;
        match number {
            msr::IA32_FEATURE_CONTROL => m.feature_control,
            msr::IA32_VMX_BASIC => m.basic,
            msr::IA32_VMX_PINBASED_CTLS => m.pinbased,
            msr::IA32_VMX_PROCBASED_CTLS => m.procbased,
            msr::IA32_VMX_EXIT_CTLS => m.exit,
            msr::IA32_VMX_ENTRY_CTLS => m.entry,
            msr::IA32_VMX_MISC => m.misc,
            msr::IA32_VMX_CR0_FIXED0 => m.cr0_fixed0,
            msr::IA32_VMX_CR0_FIXED1 => m.cr0_fixed1,
            msr::IA32_VMX_CR4_FIXED0 => m.cr4_fixed0,
            msr::IA32_VMX_CR4_FIXED1 => m.cr4_fixed1,
            msr::IA32_VMX_VMCS_ENUM => m.vmcs_enum,
            msr::IA32_VMX_PROCBASED_CTLS2 => m.procbased2,
            msr::IA32_VMX_EPT_VPID_CAP => m.ept_vpid_cap,
            msr::IA32_VMX_TRUE_PINBASED_CTLS => m.true_pinbased,
            msr::IA32_VMX_TRUE_PROCBASED_CTLS => m.true_procbased,
            msr::IA32_VMX_TRUE_EXIT_CTLS => m.true_exit,
            msr::IA32_VMX_TRUE_ENTRY_CTLS => m.true_entry,
            msr::IA32_VMX_VMFUNC => m.vmfunc,
            other => panic!("MSR {other:#x} is none of VT-x"),
        }
    }
    fn cpuid_1_ecx(&self) -> u32 {
        self.msrs.cpuid_1_ecx
    }
    fn max_phys_addr_width(&self) -> u8 {
        self.msrs.max_phys_addr_width
    }
    fn cr0(&self) -> u64 {
        self.msrs.cr0
    }
    fn cr4(&self) -> u64 {
        self.msrs.cr4
    }
}

fn read(change: impl Fn(&mut CapabilityMsrs)) -> (CapabilityMsrs, Vec<u32>) {
    let mut msrs = haswell();
    change(&mut msrs);
    let cpu = Cpu {
        msrs,
        read: RefCell::default(),
    };
    let found = CapabilityMsrs::read(&cpu);
    (found, cpu.read.into_inner())
}

#[test]
fn everything_there_is_read() {
    let (found, read) = read(|_| ());
    assert_eq!(found, haswell());
    assert_eq!(read.len(), 19);
}

#[test]
fn msrs_that_do_not_exist_are_not_read() {
    let (_, none) = read(|m| m.cpuid_1_ecx = 0);
    assert!(none.is_empty());
    let (_, plain) = read(|m| m.basic &= !(1 << 55));
    assert!(!plain.contains(&msr::IA32_VMX_TRUE_PINBASED_CTLS));
    let (found, no_secondary) = read(|m| m.true_procbased &= !(1 << 63));
    assert!(!no_secondary.contains(&msr::IA32_VMX_PROCBASED_CTLS2));
    assert!(!no_secondary.contains(&msr::IA32_VMX_EPT_VPID_CAP));
    assert_eq!(VmxCaps::check(&found), Err(LoadError::NoEpt));
    let (_, no_vmfunc) = read(|m| m.procbased2 &= !(1 << (32 + 13)));
    assert!(!no_vmfunc.contains(&msr::IA32_VMX_VMFUNC));
}
