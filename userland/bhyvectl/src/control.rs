//! The fields of the control structure that options can show: the VMCS (SDM vol. 3D,
//! appendix B) or AMD's VMCB (APM vol. 2, appendix B), with the labels and number formats
//! of bhyvectl(8).

use vmm_core::vmx::field::{self, VmcsField};

use crate::platform::Vendor;

/// What one option shows: one or more fields.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Group {
    // In the order in which --get-all shows them.
    Cr0Mask,
    Cr0Shadow,
    Cr4Mask,
    Cr4Shadow,
    Cr3Targets,
    PinbasedCtls,
    ProcbasedCtls,
    ProcbasedCtls2,
    GuestLinearAddress,
    GuestPhysicalAddress,
    EntryInterruptionInfo,
    TprThreshold,
    InstructionError,
    ExitCtls,
    EntryCtls,
    HostPat,
    HostCr0,
    HostCr3,
    HostCr4,
    HostRip,
    HostRsp,
    Link,
    ExitInterruptionInfo,
    ExitInterruptionError,
    Interruptibility,
    ExitInstLength,
    ExitQualification,
    PleGap,
    PleWindow,
    Intercepts,
    TlbCtrl,
    ExitDetails,
    Virq,
    ApicAccessAddress,
    VirtualApicAddress,
    AvicTable,
    Eptp,
    ExceptionBitmap,
    IoBitmapAddress,
    TscOffset,
    MsrBitmapAddress,
    MsrBitmap,
    VpidAsid,
    GuestPat,
    GuestSysenter,
    ExitReason,
}

/// How a value is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// 0x and sixteen digits.
    Hex16,
    /// 0x and eight digits, of the low half.
    Hex8,
    /// 0x and four digits.
    Hex4,
    /// C's %#lx: no more digits than needed, and plain 0.
    Alternate,
}

/// One line of output. The label has `[]` where the vcpu's number goes.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub label: &'static str,
    /// What VM_GET_REGISTER takes.
    pub number: u32,
    pub format: Format,
}

const fn vmcs(label: &'static str, field: VmcsField, format: Format) -> Line {
    Line {
        label,
        number: 1 << 31 | field.encoding() as u32,
        format,
    }
}

/// VMCB_ACCESS of the stock module's amd/vmcb.h.
const fn vmcb(label: &'static str, offset: u32, bytes: u32, format: Format) -> Line {
    Line {
        label,
        number: 1 << 31 | bytes << 16 | offset,
        format,
    }
}

/// Where a VMCB keeps the guest's state.
const STATE: u32 = 0x400;

impl Group {
    /// Whether this CPU's control structure has it.
    pub fn exists(self, vendor: Vendor) -> bool {
        self == Self::MsrBitmap || !self.lines(vendor).is_empty()
    }

    /// What --get-all shows, in its order: what FreeBSD's shows, no more.
    pub fn in_get_all(vendor: Vendor) -> Vec<Self> {
        let mut groups: Vec<Self> = options(vendor)
            .into_iter()
            .map(|(_, group)| group)
            .collect();
        // FreeBSD 15 has options for these two on Intel too, but shows them on AMD only.
        let hidden = |group: &Self| {
            vendor == Vendor::Intel
                && matches!(group, Self::ApicAccessAddress | Self::VirtualApicAddress)
        };
        groups.retain(|group| !hidden(group));
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The lines it shows. None if the CPU hasn't got it; the MSR bitmap is not a line.
    pub fn lines(self, vendor: Vendor) -> Vec<Line> {
        match vendor {
            Vendor::Intel => self.vmcs_lines(),
            Vendor::Amd => self.vmcb_lines(),
        }
    }

    /// The field with the physical address of the MSR bitmap.
    pub fn msr_bitmap_address(vendor: Vendor) -> u32 {
        match vendor {
            Vendor::Intel => 1 << 31 | field::MSR_BITMAPS_ADDRESS.field().encoding() as u32,
            Vendor::Amd => 1 << 31 | 8 << 16 | 0x48,
        }
    }

    fn vmcs_lines(self) -> Vec<Line> {
        use Format::{Alternate, Hex4, Hex8, Hex16};
        use field as f;
        let one = |label, field, format| vec![vmcs(label, field, format)];
        match self {
            Self::Cr0Mask => one("cr0_mask[]\t\t", f::CR0_GUEST_HOST_MASK.field(), Hex16),
            Self::Cr0Shadow => one("cr0_shadow[]\t\t", f::CR0_READ_SHADOW.field(), Hex16),
            Self::Cr4Mask => one("cr4_mask[]\t\t", f::CR4_GUEST_HOST_MASK.field(), Hex16),
            Self::Cr4Shadow => one("cr4_shadow[]\t\t", f::CR4_READ_SHADOW.field(), Hex16),
            Self::Cr3Targets => vec![
                vmcs("cr3_target_count[]\t", f::CR3_TARGET_COUNT.field(), Hex16),
                vmcs("cr3_target0[]\t\t", f::CR3_TARGET_VALUE_0.field(), Hex16),
                vmcs("cr3_target1[]\t\t", f::CR3_TARGET_VALUE_1.field(), Hex16),
                vmcs("cr3_target2[]\t\t", f::CR3_TARGET_VALUE_2.field(), Hex16),
                vmcs("cr3_target3[]\t\t", f::CR3_TARGET_VALUE_3.field(), Hex16),
            ],
            Self::PinbasedCtls => one("pinbased_ctls[]\t", f::PIN_BASED_CONTROLS.field(), Hex16),
            Self::ProcbasedCtls => one(
                "procbased_ctls[]\t",
                f::PRIMARY_PROCESSOR_BASED_CONTROLS.field(),
                Hex16,
            ),
            Self::ProcbasedCtls2 => one(
                "procbased_ctls2[]\t",
                f::SECONDARY_PROCESSOR_BASED_CONTROLS.field(),
                Hex16,
            ),
            Self::GuestLinearAddress => one("gla[]\t\t", f::GUEST_LINEAR_ADDRESS.field(), Hex16),
            Self::GuestPhysicalAddress => {
                one("gpa[]\t\t", f::GUEST_PHYSICAL_ADDRESS.field(), Hex16)
            }
            Self::EntryInterruptionInfo => one(
                "entry_interruption_info[]\t",
                f::ENTRY_INTERRUPTION_INFO.field(),
                Hex16,
            ),
            Self::TprThreshold => one("tpr_threshold[]\t", f::TPR_THRESHOLD.field(), Hex16),
            Self::InstructionError => one(
                "instruction_error[]\t",
                f::VM_INSTRUCTION_ERROR.field(),
                Hex16,
            ),
            Self::ExitCtls => one("exit_ctls[]\t\t", f::PRIMARY_EXIT_CONTROLS.field(), Hex16),
            Self::EntryCtls => one("entry_ctls[]\t\t", f::ENTRY_CONTROLS.field(), Hex16),
            Self::HostPat => one("host_pat[]\t\t", f::HOST_IA32_PAT.field(), Hex16),
            Self::HostCr0 => one("host_cr0[]\t\t", f::HOST_CR0.field(), Hex16),
            Self::HostCr3 => one("host_cr3[]\t\t", f::HOST_CR3.field(), Hex16),
            Self::HostCr4 => one("host_cr4[]\t\t", f::HOST_CR4.field(), Hex16),
            Self::HostRip => one("host_rip[]\t\t", f::HOST_RIP.field(), Hex16),
            Self::HostRsp => one("host_rsp[]\t\t", f::HOST_RSP.field(), Hex16),
            Self::Link => one("vmcs_pointer[]\t", f::VMCS_LINK_POINTER.field(), Hex16),
            Self::ExitInterruptionInfo => one(
                "vmcs_exit_interruption_info[]\t",
                f::EXIT_INTERRUPTION_INFO.field(),
                Hex16,
            ),
            Self::ExitInterruptionError => one(
                "vmcs_exit_interruption_error[]\t",
                f::EXIT_INTERRUPTION_ERROR_CODE.field(),
                Hex16,
            ),
            Self::Interruptibility => one(
                "vmcs_guest_interruptibility[]\t",
                f::GUEST_INTERRUPTIBILITY_STATE.field(),
                Hex16,
            ),
            Self::ExitInstLength => one(
                "vmcs_exit_inst_length[]\t",
                f::EXIT_INSTRUCTION_LENGTH.field(),
                Hex8,
            ),
            Self::ExitQualification => one(
                "vmcs_exit_qualification[]\t",
                f::EXIT_QUALIFICATION.field(),
                Hex16,
            ),
            Self::PleGap => one("ple_gap[]\t\t", f::PLE_GAP.field(), Hex16),
            Self::PleWindow => one("ple_window[]\t\t", f::PLE_WINDOW.field(), Hex16),
            Self::ApicAccessAddress => one(
                "apic_access_addr[]\t",
                f::APIC_ACCESS_ADDRESS.field(),
                Hex16,
            ),
            Self::VirtualApicAddress => one(
                "virtual_apic_addr[]\t",
                f::VIRTUAL_APIC_ADDRESS.field(),
                Hex16,
            ),
            Self::Eptp => one("eptp[]\t\t", f::EPT_POINTER.field(), Hex16),
            Self::ExceptionBitmap => one(
                "exception_bitmap[]\t",
                f::EXCEPTION_BITMAP.field(),
                Alternate,
            ),
            Self::IoBitmapAddress => vec![
                vmcs("io_bitmap_a[]\t", f::IO_BITMAP_A_ADDRESS.field(), Alternate),
                vmcs("io_bitmap_b[]\t", f::IO_BITMAP_B_ADDRESS.field(), Alternate),
            ],
            Self::TscOffset => one("tsc_offset[]\t", f::TSC_OFFSET.field(), Hex16),
            Self::MsrBitmapAddress => one(
                "msr_bitmap[]\t\t",
                f::MSR_BITMAPS_ADDRESS.field(),
                Alternate,
            ),
            Self::VpidAsid => one("vpid[]\t\t", f::VIRTUAL_PROCESSOR_ID.field(), Hex4),
            Self::GuestPat => one("guest_pat[]\t\t", f::GUEST_IA32_PAT.field(), Hex16),
            Self::GuestSysenter => vec![
                vmcs(
                    "guest_sysenter_cs[]\t",
                    f::GUEST_IA32_SYSENTER_CS.field(),
                    Alternate,
                ),
                vmcs(
                    "guest_sysenter_sp[]\t",
                    f::GUEST_IA32_SYSENTER_ESP.field(),
                    Alternate,
                ),
                vmcs(
                    "guest_sysenter_ip[]\t",
                    f::GUEST_IA32_SYSENTER_EIP.field(),
                    Alternate,
                ),
            ],
            Self::ExitReason => one("exit_reason[]\t", f::EXIT_REASON.field(), Alternate),
            Self::Intercepts
            | Self::TlbCtrl
            | Self::ExitDetails
            | Self::Virq
            | Self::AvicTable
            | Self::MsrBitmap => Vec::new(),
        }
    }

    fn vmcb_lines(self) -> Vec<Line> {
        use Format::{Alternate, Hex4, Hex8, Hex16};
        let one = |label, offset, bytes, format| vec![vmcb(label, offset, bytes, format)];
        match self {
            Self::Intercepts => vec![
                vmcb("cr_intercept[]\t", 0x00, 4, Hex8),
                vmcb("dr_intercept[]\t", 0x04, 4, Hex8),
                vmcb("exc_intercept[]\t", 0x08, 4, Hex8),
                vmcb("inst1_intercept[]\t", 0x0c, 4, Hex8),
                vmcb("inst2_intercept[]\t", 0x10, 4, Hex8),
            ],
            Self::TlbCtrl => one("TLB ctrl[]\t", 0x5c, 4, Hex16),
            Self::ExitDetails => vec![
                vmcb("exitinfo1[]\t", 0x78, 8, Hex16),
                vmcb("exitinfo2[]\t", 0x80, 8, Hex16),
                vmcb("exitintinfo[]\t", 0x88, 8, Hex16),
            ],
            Self::Virq => one("v_irq/tpr[]\t", 0x60, 8, Hex16),
            Self::ApicAccessAddress => one("AVIC apic_bar[]\t", 0x98, 8, Hex16),
            Self::VirtualApicAddress => one("AVIC backing page[]\t", 0xe0, 8, Hex16),
            Self::AvicTable => vec![
                vmcb("AVIC logical table[]\t", 0xf0, 8, Hex16),
                vmcb("AVIC physical table[]\t", 0xf8, 8, Hex16),
            ],
            Self::Eptp => one("rvi/npt[]\t\t", 0xb0, 8, Hex16),
            Self::ExceptionBitmap => one("exception_bitmap[]\t", 0x08, 4, Alternate),
            Self::IoBitmapAddress => one("io_bitmap[]\t", 0x40, 8, Alternate),
            Self::TscOffset => one("tsc_offset[]\t", 0x50, 8, Hex16),
            Self::MsrBitmapAddress => one("msr_bitmap[]\t\t", 0x48, 8, Alternate),
            Self::VpidAsid => one("asid[]\t\t", 0x58, 4, Hex4),
            Self::GuestPat => one("guest_pat[]\t\t", STATE + 0x268, 8, Hex16),
            Self::GuestSysenter => vec![
                vmcb("guest_sysenter_cs[]\t", STATE + 0x228, 8, Alternate),
                vmcb("guest_sysenter_sp[]\t", STATE + 0x230, 8, Alternate),
                vmcb("guest_sysenter_ip[]\t", STATE + 0x238, 8, Alternate),
            ],
            Self::ExitReason => one("exit_reason[]\t", 0x70, 8, Alternate),
            _ => Vec::new(),
        }
    }
}

/// Option names. Those from get-vmcs-eptp on are 2013's, for what has another name today.
const INTEL: [(&str, Group); 41] = [
    ("get-vmcs-pinbased-ctls", Group::PinbasedCtls),
    ("get-vmcs-procbased-ctls", Group::ProcbasedCtls),
    ("get-vmcs-procbased-ctls2", Group::ProcbasedCtls2),
    ("get-vmcs-guest-linear-address", Group::GuestLinearAddress),
    (
        "get-vmcs-guest-physical-address",
        Group::GuestPhysicalAddress,
    ),
    (
        "get-vmcs-entry-interruption-info",
        Group::EntryInterruptionInfo,
    ),
    ("get-vmcs-cr0-mask", Group::Cr0Mask),
    ("get-vmcs-cr0-shadow", Group::Cr0Shadow),
    ("get-vmcs-cr4-mask", Group::Cr4Mask),
    ("get-vmcs-cr4-shadow", Group::Cr4Shadow),
    ("get-vmcs-cr3-targets", Group::Cr3Targets),
    ("get-vmcs-tpr-threshold", Group::TprThreshold),
    ("get-vmcs-vpid", Group::VpidAsid),
    ("get-vmcs-exit-ctls", Group::ExitCtls),
    ("get-vmcs-entry-ctls", Group::EntryCtls),
    ("get-vmcs-instruction-error", Group::InstructionError),
    ("get-vmcs-host-pat", Group::HostPat),
    ("get-vmcs-host-cr0", Group::HostCr0),
    ("get-vmcs-host-cr3", Group::HostCr3),
    ("get-vmcs-host-cr4", Group::HostCr4),
    ("get-vmcs-host-rip", Group::HostRip),
    ("get-vmcs-host-rsp", Group::HostRsp),
    ("get-vmcs-exit-qualification", Group::ExitQualification),
    ("get-vmcs-exit-inst-length", Group::ExitInstLength),
    ("get-vmcs-interruptibility", Group::Interruptibility),
    (
        "get-vmcs-exit-interruption-error",
        Group::ExitInterruptionError,
    ),
    (
        "get-vmcs-exit-interruption-info",
        Group::ExitInterruptionInfo,
    ),
    ("get-vmcs-link", Group::Link),
    ("get-apic-access-address", Group::ApicAccessAddress),
    ("get-virtual-apic-address", Group::VirtualApicAddress),
    ("get-vmcs-eptp", Group::Eptp),
    ("get-vmcs-exception-bitmap", Group::ExceptionBitmap),
    ("get-vmcs-io-bitmap-address", Group::IoBitmapAddress),
    ("get-vmcs-tsc-offset", Group::TscOffset),
    ("get-vmcs-guest-pat", Group::GuestPat),
    ("get-vmcs-apic-access-address", Group::ApicAccessAddress),
    ("get-vmcs-virtual-apic-address", Group::VirtualApicAddress),
    ("get-vmcs-msr-bitmap", Group::MsrBitmap),
    ("get-vmcs-msr-bitmap-address", Group::MsrBitmapAddress),
    ("get-vmcs-guest-sysenter", Group::GuestSysenter),
    ("get-vmcs-exit-reason", Group::ExitReason),
];

const AMD: [(&str, Group); 8] = [
    ("get-vmcb-intercepts", Group::Intercepts),
    ("get-vmcb-asid", Group::VpidAsid),
    ("get-vmcb-exit-details", Group::ExitDetails),
    ("get-vmcb-tlb-ctrl", Group::TlbCtrl),
    ("get-vmcb-virq", Group::Virq),
    ("get-avic-apic-bar", Group::ApicAccessAddress),
    ("get-avic-backing-page", Group::VirtualApicAddress),
    ("get-avic-table", Group::AvicTable),
];

const BOTH: [(&str, Group); 9] = [
    ("get-eptp", Group::Eptp),
    ("get-exception-bitmap", Group::ExceptionBitmap),
    ("get-io-bitmap-address", Group::IoBitmapAddress),
    ("get-tsc-offset", Group::TscOffset),
    ("get-msr-bitmap", Group::MsrBitmap),
    ("get-msr-bitmap-address", Group::MsrBitmapAddress),
    ("get-guest-pat", Group::GuestPat),
    ("get-guest-sysenter", Group::GuestSysenter),
    ("get-exit-reason", Group::ExitReason),
];

/// The options for a CPU's control structure.
pub fn options(vendor: Vendor) -> Vec<(&'static str, Group)> {
    let own: &[_] = match vendor {
        Vendor::Intel => &INTEL,
        Vendor::Amd => &AMD,
    };
    BOTH.iter().chain(own).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_shows_something() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            for (name, group) in options(vendor) {
                assert!(group.exists(vendor), "{name}");
            }
        }
    }

    #[test]
    fn numbers_are_the_stock_modules() {
        let number = |group: Group, vendor| group.lines(vendor)[0].number;
        assert_eq!(number(Group::Eptp, Vendor::Intel), 0x8000_201a);
        assert_eq!(number(Group::ExitReason, Vendor::Intel), 0x8000_4402);
        assert_eq!(number(Group::VpidAsid, Vendor::Intel), 0x8000_0000);
        assert_eq!(number(Group::VpidAsid, Vendor::Amd), 0x8004_0058);
        assert_eq!(number(Group::GuestPat, Vendor::Amd), 0x8008_0668);
    }
}
