//! What VT-x a CPU has beyond what vmm_rs requires, each feature as one question; and the
//! EPT and VPID capabilities that several of them come from (SDM vol. 3D, A.10).

use bitflags::bitflags;

use super::caps::CapabilityMsrs;
use super::controls::{ControlKind, PinControls, Proc2Controls, ProcControls};

bitflags! {
    /// Features that vmm_rs can do without, each as one question.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Features: u64 {
        const VPID = 1 << 0;
        const EPT_ACCESSED_DIRTY = 1 << 1;
        const EPT_2M = 1 << 2;
        const EPT_1G = 1 << 3;
        const EPT_EXECUTE_ONLY = 1 << 4;
        const EPT_UNCACHEABLE = 1 << 5;
        /// EPT violations say whether the linear address was user-mode, writable, executable.
        const EPT_ADVANCED_EXIT_INFO = 1 << 6;
        const INVEPT_SINGLE_CONTEXT = 1 << 7;
        const INVEPT_ALL_CONTEXTS = 1 << 8;
        const INVVPID_INDIVIDUAL_ADDRESS = 1 << 9;
        const INVVPID_SINGLE_CONTEXT = 1 << 10;
        const INVVPID_ALL_CONTEXTS = 1 << 11;
        const INVVPID_SINGLE_RETAINING_GLOBALS = 1 << 12;
        const TPR_SHADOW = 1 << 13;
        const VIRTUALIZE_APIC_ACCESSES = 1 << 14;
        const VIRTUALIZE_X2APIC = 1 << 15;
        const APIC_REGISTER_VIRTUALIZATION = 1 << 16;
        const VIRTUAL_INTERRUPT_DELIVERY = 1 << 17;
        const POSTED_INTERRUPTS = 1 << 18;
        const PAUSE_EXITING = 1 << 19;
        const PAUSE_LOOP_EXITING = 1 << 20;
        const MONITOR_TRAP_FLAG = 1 << 21;
        const INVPCID = 1 << 22;
        /// RDTSCP; the same control also lets RDPID work.
        const RDTSCP = 1 << 23;
        const XSAVES = 1 << 24;
        const WBINVD_EXITING = 1 << 25;
        const PREEMPTION_TIMER = 1 << 26;
        const TSC_SCALING = 1 << 27;
        const PML = 1 << 28;
        const DESCRIPTOR_TABLE_EXITING = 1 << 29;
        const TRUE_CONTROLS = 1 << 30;
        /// INS and OUTS report their segment and address size (IA32_VMX_BASIC bit 54).
        const INS_OUTS_INFO = 1 << 31;
        /// VMWRITE to exit-information fields works (IA32_VMX_MISC bit 29).
        const VMWRITE_EXIT_INFO = 1 << 32;
        /// Software interrupts and exceptions of length 0 can be injected (IA32_VMX_MISC bit 30).
        const INJECT_LENGTH_0 = 1 << 33;
        /// Hardware exceptions can be injected with or without an error code, whatever
        /// their vector (IA32_VMX_BASIC bit 56).
        const INJECT_ANY_ERROR_CODE = 1 << 34;
        /// A shut-down or halted guest can be entered: activity states (IA32_VMX_MISC 6, 7, 8).
        const ACTIVITY_HLT = 1 << 35;
        const ACTIVITY_SHUTDOWN = 1 << 36;
        const ACTIVITY_WAIT_FOR_SIPI = 1 << 37;
        /// CR3-load and CR3-store exiting can be 0.
        const CR3_WITHOUT_EXITS = 1 << 38;
        /// INVLPG exiting can be 0.
        const INVLPG_WITHOUT_EXITS = 1 << 39;
        const MODE_BASED_EXECUTE_CONTROL = 1 << 40;
    }
}

/// IA32_VMX_EPT_VPID_CAP (A.10).
pub(super) mod ept_vpid {
    pub const EXECUTE_ONLY: u64 = 1 << 0;
    pub const WALK_LENGTH_4: u64 = 1 << 6;
    pub const UNCACHEABLE: u64 = 1 << 8;
    pub const WRITE_BACK: u64 = 1 << 14;
    pub const PAGE_2M: u64 = 1 << 16;
    pub const PAGE_1G: u64 = 1 << 17;
    pub const INVEPT: u64 = 1 << 20;
    pub const ACCESSED_DIRTY: u64 = 1 << 21;
    pub const ADVANCED_EXIT_INFO: u64 = 1 << 22;
    pub const INVEPT_SINGLE: u64 = 1 << 25;
    pub const INVEPT_ALL: u64 = 1 << 26;
    pub const INVVPID: u64 = 1 << 32;
    pub const INVVPID_ADDRESS: u64 = 1 << 40;
    pub const INVVPID_SINGLE: u64 = 1 << 41;
    pub const INVVPID_ALL: u64 = 1 << 42;
    pub const INVVPID_RETAINING_GLOBALS: u64 = 1 << 43;
}

impl Features {
    /// Those that a CPU with these capability MSRs has.
    pub fn of(m: &CapabilityMsrs) -> Self {
        use ControlKind::{Pin, Proc, Proc2};
        let pin = |c: PinControls| m.allowed(Pin).can_set(c.bits());
        let proc = |c: ProcControls| m.allowed(Proc).can_set(c.bits());
        let proc2 = |c: Proc2Controls| m.allowed(Proc2).can_set(c.bits());
        let proc_clear = |c: ProcControls| m.allowed(Proc).can_clear(c.bits());
        let cap = |bit: u64| m.ept_vpid_cap & bit != 0;
        let basic = |bit: u8| m.basic & 1 << bit != 0;
        let misc = |bit: u8| m.misc & 1 << bit != 0;

        let vpid = proc2(Proc2Controls::ENABLE_VPID) && cap(ept_vpid::INVVPID);
        let tpr_shadow = proc(ProcControls::USE_TPR_SHADOW);
        // Each of these needs the ones before it to be of use (27.2.1.1).
        let interrupt_delivery = tpr_shadow && proc2(Proc2Controls::VIRTUAL_INTERRUPT_DELIVERY);
        let posted = interrupt_delivery && pin(PinControls::PROCESS_POSTED_INTERRUPTS);
        let cr3 = ProcControls::CR3_LOAD_EXITING.union(ProcControls::CR3_STORE_EXITING);

        let table = [
            (Features::VPID, vpid),
            (Features::EPT_ACCESSED_DIRTY, cap(ept_vpid::ACCESSED_DIRTY)),
            (Features::EPT_2M, cap(ept_vpid::PAGE_2M)),
            (Features::EPT_1G, cap(ept_vpid::PAGE_1G)),
            (Features::EPT_EXECUTE_ONLY, cap(ept_vpid::EXECUTE_ONLY)),
            (Features::EPT_UNCACHEABLE, cap(ept_vpid::UNCACHEABLE)),
            (
                Features::EPT_ADVANCED_EXIT_INFO,
                cap(ept_vpid::ADVANCED_EXIT_INFO),
            ),
            (
                Features::INVEPT_SINGLE_CONTEXT,
                cap(ept_vpid::INVEPT_SINGLE),
            ),
            (Features::INVEPT_ALL_CONTEXTS, cap(ept_vpid::INVEPT_ALL)),
            (
                Features::INVVPID_INDIVIDUAL_ADDRESS,
                vpid && cap(ept_vpid::INVVPID_ADDRESS),
            ),
            (
                Features::INVVPID_SINGLE_CONTEXT,
                vpid && cap(ept_vpid::INVVPID_SINGLE),
            ),
            (
                Features::INVVPID_ALL_CONTEXTS,
                vpid && cap(ept_vpid::INVVPID_ALL),
            ),
            (
                Features::INVVPID_SINGLE_RETAINING_GLOBALS,
                vpid && cap(ept_vpid::INVVPID_RETAINING_GLOBALS),
            ),
            (Features::TPR_SHADOW, tpr_shadow),
            (
                Features::VIRTUALIZE_APIC_ACCESSES,
                tpr_shadow && proc2(Proc2Controls::VIRTUALIZE_APIC_ACCESSES),
            ),
            (
                Features::VIRTUALIZE_X2APIC,
                tpr_shadow && proc2(Proc2Controls::VIRTUALIZE_X2APIC_MODE),
            ),
            (
                Features::APIC_REGISTER_VIRTUALIZATION,
                tpr_shadow && proc2(Proc2Controls::APIC_REGISTER_VIRTUALIZATION),
            ),
            (Features::VIRTUAL_INTERRUPT_DELIVERY, interrupt_delivery),
            (Features::POSTED_INTERRUPTS, posted),
            (Features::PAUSE_EXITING, proc(ProcControls::PAUSE_EXITING)),
            (
                Features::PAUSE_LOOP_EXITING,
                proc2(Proc2Controls::PAUSE_LOOP_EXITING),
            ),
            (
                Features::MONITOR_TRAP_FLAG,
                proc(ProcControls::MONITOR_TRAP_FLAG),
            ),
            (Features::INVPCID, proc2(Proc2Controls::ENABLE_INVPCID)),
            (Features::RDTSCP, proc2(Proc2Controls::ENABLE_RDTSCP)),
            (Features::XSAVES, proc2(Proc2Controls::ENABLE_XSAVES)),
            (
                Features::WBINVD_EXITING,
                proc2(Proc2Controls::WBINVD_EXITING),
            ),
            (
                Features::PREEMPTION_TIMER,
                pin(PinControls::ACTIVATE_VMX_PREEMPTION_TIMER),
            ),
            (Features::TSC_SCALING, proc2(Proc2Controls::USE_TSC_SCALING)),
            (
                Features::PML,
                proc2(Proc2Controls::ENABLE_PML) && cap(ept_vpid::ACCESSED_DIRTY),
            ),
            (
                Features::DESCRIPTOR_TABLE_EXITING,
                proc2(Proc2Controls::DESCRIPTOR_TABLE_EXITING),
            ),
            (Features::TRUE_CONTROLS, m.has_true_controls()),
            (Features::INS_OUTS_INFO, basic(54)),
            (Features::VMWRITE_EXIT_INFO, misc(29)),
            (Features::INJECT_LENGTH_0, misc(30)),
            (Features::INJECT_ANY_ERROR_CODE, basic(56)),
            (Features::ACTIVITY_HLT, misc(6)),
            (Features::ACTIVITY_SHUTDOWN, misc(7)),
            (Features::ACTIVITY_WAIT_FOR_SIPI, misc(8)),
            (Features::CR3_WITHOUT_EXITS, proc_clear(cr3)),
            (
                Features::INVLPG_WITHOUT_EXITS,
                proc_clear(ProcControls::INVLPG_EXITING),
            ),
            (
                Features::MODE_BASED_EXECUTE_CONTROL,
                proc2(Proc2Controls::MODE_BASED_EXECUTE_CONTROL),
            ),
        ];
        table
            .iter()
            .filter(|(_, has)| *has)
            .map(|(feature, _)| *feature)
            .collect()
    }
}
