//! VM-execution, VM-exit and VM-entry control fields (27.2.1).

use super::super::caps::Features;
use super::super::controls::{
    ControlKind, EntryControls, ExitControls, PinControls, Proc2Controls, ProcControls,
};
use super::super::cr::Cr0;
use super::{Rule, State, field, rules};
use crate::vcpu::events::EventType;

impl State<'_> {
    fn permitted(&self, kind: ControlKind, value: u32) -> bool {
        self.caps.msrs.allowed(kind).permits(value)
    }

    fn msr_area(&self, count: u32, address: u64) -> bool {
        // 16 bytes each; the last byte must be addressable too.
        let last = u64::from(count).saturating_mul(16).saturating_sub(1);
        count == 0
            || self.physical_aligned(address, 4)
                && address
                    .checked_add(last)
                    .is_some_and(|end| self.physical(end))
    }

    fn eptp_valid(&self) -> bool {
        let eptp = self.get(field::EPT_POINTER);
        let memory_type = match eptp & 7 {
            0 => self.caps.has(Features::EPT_UNCACHEABLE),
            6 => true, // vmm_rs doesn't load without it
            _ => false,
        };
        let accessed_dirty = eptp & 1 << 6 == 0 || self.caps.has(Features::EPT_ACCESSED_DIRTY);
        let walk_length_4 = eptp >> 3 & 7 == 3;
        let reserved = eptp & 0xf80;
        memory_type && walk_length_4 && accessed_dirty && reserved == 0 && self.physical(eptp)
    }

    /// Vectors whose exceptions push an error code.
    fn error_code_vector(&self) -> bool {
        matches!(self.injection().vector().0, 8 | 10..=14 | 17)
    }
}

/// Implication.
fn when(condition: bool, then: bool) -> bool {
    !condition || then
}

pub(super) const RULES: &[Rule] = rules! {
    "pin-controls-allowed" "27.2.1.1"
        "reserved pin-based controls have the values that IA32_VMX_(TRUE_)PINBASED_CTLS allows"
        [PIN_BASED_CONTROLS]
        |s| s.permitted(ControlKind::Pin, s.get(field::PIN_BASED_CONTROLS));
    "proc-controls-allowed" "27.2.1.1"
        "reserved primary processor-based controls have the values that IA32_VMX_(TRUE_)PROCBASED_CTLS allows"
        [PRIMARY_PROCESSOR_BASED_CONTROLS]
        |s| s.permitted(ControlKind::Proc, s.get(field::PRIMARY_PROCESSOR_BASED_CONTROLS));
    "proc2-controls-allowed" "27.2.1.1"
        "reserved secondary processor-based controls have the values that IA32_VMX_PROCBASED_CTLS2 allows"
        [SECONDARY_PROCESSOR_BASED_CONTROLS]
        |s| when(
            s.proc(ProcControls::ACTIVATE_SECONDARY_CONTROLS),
            s.permitted(ControlKind::Proc2, s.get(field::SECONDARY_PROCESSOR_BASED_CONTROLS)),
        );
    "cr3-target-count" "27.2.1.1"
        "the CR3-target count is at most what IA32_VMX_MISC bits 24:16 say"
        [CR3_TARGET_COUNT]
        |s| s.get(field::CR3_TARGET_COUNT) <= u32::from(s.caps.cr3_target_values);
    "io-bitmap-addresses" "27.2.1.1"
        "I/O bitmaps in use are page-aligned physical addresses"
        [IO_BITMAP_A_ADDRESS IO_BITMAP_B_ADDRESS]
        |s| when(
            s.proc(ProcControls::USE_IO_BITMAPS),
            s.physical_aligned(s.get(field::IO_BITMAP_A_ADDRESS), 12)
                && s.physical_aligned(s.get(field::IO_BITMAP_B_ADDRESS), 12),
        );
    "msr-bitmap-address" "27.2.1.1"
        "the MSR bitmap in use is a page-aligned physical address"
        [MSR_BITMAPS_ADDRESS]
        |s| when(
            s.proc(ProcControls::USE_MSR_BITMAPS),
            s.physical_aligned(s.get(field::MSR_BITMAPS_ADDRESS), 12),
        );
    "virtual-apic-address" "27.2.1.1"
        "with a TPR shadow the virtual-APIC address is a page-aligned physical address"
        [VIRTUAL_APIC_ADDRESS]
        |s| when(
            s.proc(ProcControls::USE_TPR_SHADOW),
            s.physical_aligned(s.get(field::VIRTUAL_APIC_ADDRESS), 12),
        );
    "tpr-threshold" "27.2.1.1"
        "with a TPR shadow and no virtual-interrupt delivery bits 31:4 of the TPR threshold are 0"
        [TPR_THRESHOLD]
        |s| when(
            s.proc(ProcControls::USE_TPR_SHADOW)
                && !s.proc2(Proc2Controls::VIRTUAL_INTERRUPT_DELIVERY),
            s.get(field::TPR_THRESHOLD) >> 4 == 0,
        );
    "virtual-nmis-need-nmi-exiting" "27.2.1.1"
        "without NMI exiting there are no virtual NMIs"
        [PIN_BASED_CONTROLS]
        |s| when(!s.pin(PinControls::NMI_EXITING), !s.pin(PinControls::VIRTUAL_NMIS));
    "nmi-window-needs-virtual-nmis" "27.2.1.1"
        "without virtual NMIs there is no NMI-window exiting"
        [PIN_BASED_CONTROLS PRIMARY_PROCESSOR_BASED_CONTROLS]
        |s| when(
            !s.pin(PinControls::VIRTUAL_NMIS),
            !s.proc(ProcControls::NMI_WINDOW_EXITING),
        );
    "apic-access-address" "27.2.1.1"
        "with virtualized APIC accesses the APIC-access address is a page-aligned physical address"
        [APIC_ACCESS_ADDRESS]
        |s| when(
            s.proc2(Proc2Controls::VIRTUALIZE_APIC_ACCESSES),
            s.physical_aligned(s.get(field::APIC_ACCESS_ADDRESS), 12),
        );
    "apic-virtualization-needs-tpr-shadow" "27.2.1.1"
        "without a TPR shadow there is no x2APIC, APIC-register or interrupt-delivery virtualization"
        [PRIMARY_PROCESSOR_BASED_CONTROLS SECONDARY_PROCESSOR_BASED_CONTROLS]
        |s| when(
            !s.proc(ProcControls::USE_TPR_SHADOW),
            !s.proc2(Proc2Controls::VIRTUALIZE_X2APIC_MODE)
                && !s.proc2(Proc2Controls::APIC_REGISTER_VIRTUALIZATION)
                && !s.proc2(Proc2Controls::VIRTUAL_INTERRUPT_DELIVERY),
        );
    "x2apic-excludes-apic-accesses" "27.2.1.1"
        "x2APIC mode and APIC accesses are not virtualized together"
        [SECONDARY_PROCESSOR_BASED_CONTROLS]
        |s| when(
            s.proc2(Proc2Controls::VIRTUALIZE_X2APIC_MODE),
            !s.proc2(Proc2Controls::VIRTUALIZE_APIC_ACCESSES),
        );
    "interrupt-delivery-needs-external-interrupt-exiting" "27.2.1.1"
        "virtual-interrupt delivery needs external-interrupt exiting"
        [PIN_BASED_CONTROLS SECONDARY_PROCESSOR_BASED_CONTROLS]
        |s| when(
            s.proc2(Proc2Controls::VIRTUAL_INTERRUPT_DELIVERY),
            s.pin(PinControls::EXTERNAL_INTERRUPT_EXITING),
        );
    "posted-interrupts" "27.2.1.1"
        "posted interrupts need virtual-interrupt delivery, acknowledgment on exit, a vector up to 255 and a 64-byte-aligned descriptor"
        [SECONDARY_PROCESSOR_BASED_CONTROLS PRIMARY_EXIT_CONTROLS
         POSTED_INTERRUPT_NOTIFICATION_VECTOR POSTED_INTERRUPT_DESCRIPTOR_ADDRESS]
        |s| when(
            s.pin(PinControls::PROCESS_POSTED_INTERRUPTS),
            s.proc2(Proc2Controls::VIRTUAL_INTERRUPT_DELIVERY)
                && s.exit(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT)
                && s.get(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR) <= 255
                && s.physical_aligned(s.get(field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS), 6),
        );
    "vpid-not-zero" "27.2.1.1"
        "with VPIDs the VPID is not 0, the host's"
        [VIRTUAL_PROCESSOR_ID]
        |s| when(
            s.proc2(Proc2Controls::ENABLE_VPID),
            s.get(field::VIRTUAL_PROCESSOR_ID) != 0,
        );
    "ept-pointer" "27.2.1.1"
        "the EPT pointer has a memory type and A/D flag that the CPU has, walk length 4, no reserved bits"
        [EPT_POINTER]
        |s| when(s.proc2(Proc2Controls::ENABLE_EPT), s.eptp_valid());
    "pml" "27.2.1.1"
        "page-modification logging needs EPT and a page-aligned log address"
        [SECONDARY_PROCESSOR_BASED_CONTROLS PML_ADDRESS]
        |s| when(
            s.proc2(Proc2Controls::ENABLE_PML),
            s.proc2(Proc2Controls::ENABLE_EPT)
                && s.physical_aligned(s.get(field::PML_ADDRESS), 12),
        );
    "unrestricted-guest-needs-ept" "27.2.1.1"
        "an unrestricted guest needs EPT"
        [SECONDARY_PROCESSOR_BASED_CONTROLS]
        |s| when(s.unrestricted(), s.proc2(Proc2Controls::ENABLE_EPT));
    "exit-controls-allowed" "27.2.1.2"
        "reserved VM-exit controls have the values that IA32_VMX_(TRUE_)EXIT_CTLS allows"
        [PRIMARY_EXIT_CONTROLS]
        |s| s.permitted(ControlKind::Exit, s.get(field::PRIMARY_EXIT_CONTROLS));
    "preemption-timer-saved-only-if-active" "27.2.1.2"
        "the VMX-preemption timer is not saved if it is not active"
        [PIN_BASED_CONTROLS PRIMARY_EXIT_CONTROLS]
        |s| when(
            !s.pin(PinControls::ACTIVATE_VMX_PREEMPTION_TIMER),
            !s.exit(ExitControls::SAVE_VMX_PREEMPTION_TIMER_VALUE),
        );
    "exit-msr-store-area" "27.2.1.2"
        "the VM-exit MSR-store area is 16-byte aligned and within the physical-address width"
        [EXIT_MSR_STORE_COUNT EXIT_MSR_STORE_ADDRESS]
        |s| s.msr_area(s.get(field::EXIT_MSR_STORE_COUNT), s.get(field::EXIT_MSR_STORE_ADDRESS));
    "exit-msr-load-area" "27.2.1.2"
        "the VM-exit MSR-load area is 16-byte aligned and within the physical-address width"
        [EXIT_MSR_LOAD_COUNT EXIT_MSR_LOAD_ADDRESS]
        |s| s.msr_area(s.get(field::EXIT_MSR_LOAD_COUNT), s.get(field::EXIT_MSR_LOAD_ADDRESS));
    "entry-controls-allowed" "27.2.1.3"
        "reserved VM-entry controls have the values that IA32_VMX_(TRUE_)ENTRY_CTLS allows"
        [ENTRY_CONTROLS]
        |s| s.permitted(ControlKind::Entry, s.get(field::ENTRY_CONTROLS));
    "injection-type" "27.2.1.3"
        "an injected event's type is not reserved, and type 7 (MTF) has vector 0"
        [ENTRY_INTERRUPTION_INFO]
        |s| {
            let info = s.injection();
            let mtf = info.0 >> 8 & 7 == 7
                && info.vector().0 == 0
                && s.caps.has(Features::MONITOR_TRAP_FLAG);
            when(info.valid(), info.kind().is_some() || mtf)
        };
    "injection-vector" "27.2.1.3"
        "an injected NMI has vector 2, a hardware exception at most 31"
        [ENTRY_INTERRUPTION_INFO]
        |s| {
            let info = s.injection();
            when(info.valid(), match info.kind() {
                Some(EventType::Nmi) => info.vector().0 == 2,
                Some(EventType::HardwareException) => info.vector().0 <= 31,
                _ => true,
            })
        };
    "injection-error-code-delivery" "27.2.1.3"
        "an error code is delivered with those hardware exceptions that have one, in protected mode, and with nothing else"
        [ENTRY_INTERRUPTION_INFO GUEST_CR0]
        |s| {
            let info = s.injection();
            let hardware = info.kind() == Some(EventType::HardwareException);
            let protected = !s.unrestricted() || s.cr0().contains(Cr0::PE);
            let possible = hardware && protected;
            let free = s.caps.has(Features::INJECT_ANY_ERROR_CODE);
            when(info.valid(), if possible && free {
                true
            } else {
                info.error_code_valid() == (possible && s.error_code_vector())
            })
        };
    "injection-reserved-bits" "27.2.1.3"
        "bits 30:12 of the VM-entry interruption information are 0"
        [ENTRY_INTERRUPTION_INFO]
        |s| when(s.injection().valid(), s.injection().0 & 0x7fff_f000 == 0);
    "injection-error-code" "27.2.1.3"
        "bits 31:16 of an error code to deliver are 0"
        [ENTRY_INTERRUPTION_INFO ENTRY_EXCEPTION_ERROR_CODE]
        |s| when(
            s.injection().valid() && s.injection().error_code_valid(),
            s.get(field::ENTRY_EXCEPTION_ERROR_CODE) >> 16 == 0,
        );
    "injection-instruction-length" "27.2.1.3"
        "a software interrupt or exception has an instruction length of 1 to 15 (0 if IA32_VMX_MISC bit 30 is set)"
        [ENTRY_INTERRUPTION_INFO ENTRY_INSTRUCTION_LENGTH]
        |s| {
            let software = s.injection().valid() && matches!(
                s.injection().kind(),
                Some(
                    EventType::SoftwareInterrupt
                        | EventType::PrivilegedSoftwareException
                        | EventType::SoftwareException,
                )
            );
            let length = s.get(field::ENTRY_INSTRUCTION_LENGTH);
            let zero = s.caps.has(Features::INJECT_LENGTH_0);
            when(software, length <= 15 && (length > 0 || zero))
        };
    "entry-msr-load-area" "27.2.1.3"
        "the VM-entry MSR-load area is 16-byte aligned and within the physical-address width"
        [ENTRY_MSR_LOAD_COUNT ENTRY_MSR_LOAD_ADDRESS]
        |s| s.msr_area(s.get(field::ENTRY_MSR_LOAD_COUNT), s.get(field::ENTRY_MSR_LOAD_ADDRESS));
    "entry-outside-smm" "27.2.1.3"
        "outside of SMM there is neither entry to SMM nor deactivation of dual-monitor treatment"
        [ENTRY_CONTROLS]
        |s| !s.entry(EntryControls::ENTRY_TO_SMM)
            && !s.entry(EntryControls::DEACTIVATE_DUAL_MONITOR_TREATMENT);
};
