//! The option table: FreeBSD 15's long options, the names that 2013's bhyvectl had for
//! some of them, and a few of our own. What the kernel's control structure offers depends
//! on the CPU: VMCS options on Intel's, VMCB options on AMD's.

use cli::getopt_long::{HasArg, LongOpt};
use vmmapi::{Reg, SegReg};

use crate::control::{self, Group};
use crate::platform::Vendor;

/// What an option is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Id {
    Vm,
    Cpu,
    SetMem,
    Capname,
    Setcap,
    Getcap,
    GetStats,
    GetMemmap,
    GetMemseg,
    GetAll,
    Run,
    Create,
    Destroy,
    ForceReset,
    ForcePoweroff,
    GetActiveCpus,
    GetDebugCpus,
    GetSuspendedCpus,
    GetCpuTopology,
    GetReg(Reg),
    SetReg(Reg),
    DescBase,
    DescLimit,
    DescAccess,
    GetDesc(SegReg),
    SetDesc(SegReg),
    GetX2apicState,
    SetX2apicState,
    UnassignPptdev,
    InjectNmi,
    AssertLapicLvt,
    GetIntinfo,
    GetGpaPmap,
    GetRtcTime,
    SetRtcTime,
    RtcNvramOffset,
    GetRtcNvram,
    SetRtcNvram,
    Control(Group),
    // 2013's.
    GetLowmem,
    GetHighmem,
    // Ours.
    Gla2gpa,
    Help,
}

/// Registers by option name. Those with a descriptor have the selector here.
pub const REGISTERS: [(&str, Reg); 37] = [
    ("efer", Reg::Efer),
    ("cr0", Reg::Cr0),
    ("cr2", Reg::Cr2),
    ("cr3", Reg::Cr3),
    ("cr4", Reg::Cr4),
    ("dr0", Reg::Dr0),
    ("dr1", Reg::Dr1),
    ("dr2", Reg::Dr2),
    ("dr3", Reg::Dr3),
    ("dr6", Reg::Dr6),
    ("dr7", Reg::Dr7),
    ("rsp", Reg::Rsp),
    ("rip", Reg::Rip),
    ("rax", Reg::Rax),
    ("rbx", Reg::Rbx),
    ("rcx", Reg::Rcx),
    ("rdx", Reg::Rdx),
    ("rsi", Reg::Rsi),
    ("rdi", Reg::Rdi),
    ("rbp", Reg::Rbp),
    ("r8", Reg::R8),
    ("r9", Reg::R9),
    ("r10", Reg::R10),
    ("r11", Reg::R11),
    ("r12", Reg::R12),
    ("r13", Reg::R13),
    ("r14", Reg::R14),
    ("r15", Reg::R15),
    ("rflags", Reg::Rflags),
    ("cs", Reg::Cs),
    ("ds", Reg::Ds),
    ("es", Reg::Es),
    ("fs", Reg::Fs),
    ("gs", Reg::Gs),
    ("ss", Reg::Ss),
    ("tr", Reg::Tr),
    ("ldtr", Reg::Ldtr),
];

/// Descriptors by option name, in the order in which they are shown.
pub const DESCRIPTORS: [(&str, SegReg); 10] = [
    ("ds", SegReg::Ds),
    ("es", SegReg::Es),
    ("fs", SegReg::Fs),
    ("gs", SegReg::Gs),
    ("ss", SegReg::Ss),
    ("cs", SegReg::Cs),
    ("tr", SegReg::Tr),
    ("ldtr", SegReg::Ldtr),
    ("gdtr", SegReg::Gdtr),
    ("idtr", SegReg::Idtr),
];

/// Names with fixed meaning; the argument's description makes it one with an argument.
const FIXED: [(&str, Option<&str>, Id); 40] = [
    ("vm", Some("vmname"), Id::Vm),
    ("cpu", Some("vcpu_number"), Id::Cpu),
    ("set-mem", Some("memory in units of MB"), Id::SetMem),
    ("capname", Some("capname"), Id::Capname),
    ("setcap", Some("0|1"), Id::Setcap),
    ("getcap", None, Id::Getcap),
    ("get-stats", None, Id::GetStats),
    ("get-memmap", None, Id::GetMemmap),
    ("get-memseg", None, Id::GetMemseg),
    ("get-all", None, Id::GetAll),
    ("run", None, Id::Run),
    ("create", None, Id::Create),
    ("destroy", None, Id::Destroy),
    ("force-reset", None, Id::ForceReset),
    ("force-poweroff", None, Id::ForcePoweroff),
    ("get-active-cpus", None, Id::GetActiveCpus),
    ("get-debug-cpus", None, Id::GetDebugCpus),
    ("get-suspended-cpus", None, Id::GetSuspendedCpus),
    ("get-cpu-topology", None, Id::GetCpuTopology),
    ("desc-base", Some("BASE"), Id::DescBase),
    ("desc-limit", Some("LIMIT"), Id::DescLimit),
    ("desc-access", Some("ACCESS"), Id::DescAccess),
    ("set-x2apic-state", Some("state"), Id::SetX2apicState),
    ("get-x2apic-state", None, Id::GetX2apicState),
    ("unassign-pptdev", Some("bus/slot/func"), Id::UnassignPptdev),
    ("get-gpa-pmap", Some("gpa"), Id::GetGpaPmap),
    ("assert-lapic-lvt", Some("pin"), Id::AssertLapicLvt),
    ("get-rtc-time", None, Id::GetRtcTime),
    ("set-rtc-time", Some("secs"), Id::SetRtcTime),
    ("rtc-nvram-offset", Some("offset"), Id::RtcNvramOffset),
    ("get-rtc-nvram", None, Id::GetRtcNvram),
    ("set-rtc-nvram", Some("val"), Id::SetRtcNvram),
    ("inject-nmi", None, Id::InjectNmi),
    ("get-intinfo", None, Id::GetIntinfo),
    // 2013's.
    ("get-lowmem", None, Id::GetLowmem),
    ("get-highmem", None, Id::GetHighmem),
    ("get-vmcs-ple-gap", None, Id::Control(Group::PleGap)),
    ("get-vmcs-ple-window", None, Id::Control(Group::PleWindow)),
    // Ours.
    ("gla2gpa", Some("gla"), Id::Gla2gpa),
    ("help", None, Id::Help),
];

/// One option with the description of its argument, for the usage.
#[derive(Clone, Debug)]
pub struct Described {
    pub option: LongOpt<Id>,
    pub argument: Option<&'static str>,
    /// Another name for an option that is listed already.
    pub alias: bool,
}

/// The whole table for a CPU.
pub fn table(vendor: Vendor) -> Vec<Described> {
    let mut table: Vec<Described> = FIXED
        .iter()
        .filter(|(_, _, id)| match id {
            Id::Control(group) => group.exists(vendor),
            _ => true,
        })
        .map(|(name, argument, id)| described(name, *argument, *id, false))
        .collect();
    for (name, reg) in REGISTERS {
        table.push(described(
            leak(format!("set-{name}")),
            Some(argument_of(name)),
            Id::SetReg(reg),
            false,
        ));
        table.push(described(
            leak(format!("get-{name}")),
            None,
            Id::GetReg(reg),
            false,
        ));
    }
    for (name, seg) in DESCRIPTORS {
        table.push(described(
            leak(format!("get-desc-{name}")),
            None,
            Id::GetDesc(seg),
            false,
        ));
        table.push(described(
            leak(format!("set-desc-{name}")),
            None,
            Id::SetDesc(seg),
            false,
        ));
    }
    for (name, group, alias) in control::options(vendor) {
        table.push(described(name, None, Id::Control(group), alias));
    }
    table
}

fn described(name: &'static str, argument: Option<&'static str>, id: Id, alias: bool) -> Described {
    let has_arg = if argument.is_some() {
        HasArg::Required
    } else {
        HasArg::No
    };
    Described {
        option: LongOpt { name, has_arg, id },
        argument,
        alias,
    }
}

/// The table is made once in the life of the program.
fn leak(name: String) -> &'static str {
    name.leak()
}

fn argument_of(name: &str) -> &'static str {
    leak(name.to_uppercase())
}

/// The usage: each option on a line, as bhyvectl(8) prints it.
pub fn usage(progname: &str, table: &[Described]) -> String {
    let mut text = format!("Usage: {progname} --vm=<vmname>\n");
    for described in table.iter().filter(|d| d.option.id != Id::Vm && !d.alias) {
        let name = described.option.name;
        match described.argument {
            Some(argument) => text.push_str(&format!("       [--{name}=<{argument}>]\n")),
            None => text.push_str(&format!("       [--{name}]\n")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The long options of FreeBSD 15's bhyvectl(8).
    const COMMON: &str = "vm cpu set-mem capname setcap getcap get-stats get-memmap get-memseg \
        get-all run create destroy force-reset force-poweroff get-active-cpus get-debug-cpus \
        get-suspended-cpus get-cpu-topology set-efer set-cr0 set-cr2 set-cr3 set-cr4 set-dr0 \
        set-dr1 set-dr2 set-dr3 set-dr6 set-dr7 set-rsp set-rip set-rax set-rflags desc-base \
        desc-limit desc-access set-cs set-ds set-es set-fs set-gs set-ss set-tr set-ldtr \
        set-x2apic-state unassign-pptdev get-gpa-pmap assert-lapic-lvt get-rtc-time set-rtc-time \
        rtc-nvram-offset get-rtc-nvram set-rtc-nvram get-desc-ds set-desc-ds get-desc-es \
        set-desc-es get-desc-ss set-desc-ss get-desc-cs set-desc-cs get-desc-fs set-desc-fs \
        get-desc-gs set-desc-gs get-desc-tr set-desc-tr set-desc-ldtr get-desc-ldtr \
        set-desc-gdtr get-desc-gdtr set-desc-idtr get-desc-idtr get-efer get-cr0 get-cr2 get-cr3 \
        get-cr4 get-dr0 get-dr1 get-dr2 get-dr3 get-dr6 get-dr7 get-rsp get-rip get-rax get-rbx \
        get-rcx get-rdx get-rsi get-rdi get-rbp get-r8 get-r9 get-r10 get-r11 get-r12 get-r13 \
        get-r14 get-r15 get-rflags get-cs get-ds get-es get-fs get-gs get-ss get-tr get-ldtr \
        get-eptp get-exception-bitmap get-io-bitmap-address get-tsc-offset get-msr-bitmap \
        get-msr-bitmap-address get-guest-pat get-guest-sysenter get-exit-reason \
        get-x2apic-state inject-nmi get-intinfo";
    const INTEL: &str = "get-vmcs-pinbased-ctls get-vmcs-procbased-ctls get-vmcs-procbased-ctls2 \
        get-vmcs-guest-linear-address get-vmcs-guest-physical-address \
        get-vmcs-entry-interruption-info get-vmcs-cr0-mask get-vmcs-cr0-shadow get-vmcs-cr4-mask \
        get-vmcs-cr4-shadow get-vmcs-cr3-targets get-vmcs-tpr-threshold get-vmcs-vpid \
        get-vmcs-exit-ctls get-vmcs-entry-ctls get-vmcs-instruction-error get-vmcs-host-pat \
        get-vmcs-host-cr0 get-vmcs-exit-qualification get-vmcs-exit-inst-length \
        get-vmcs-interruptibility get-vmcs-exit-interruption-error \
        get-vmcs-exit-interruption-info get-vmcs-link get-vmcs-host-cr3 get-vmcs-host-cr4 \
        get-vmcs-host-rip get-vmcs-host-rsp get-apic-access-address get-virtual-apic-address";
    const AMD: &str = "get-vmcb-intercepts get-vmcb-asid get-vmcb-exit-details get-vmcb-tlb-ctrl \
        get-vmcb-virq get-avic-apic-bar get-avic-backing-page get-avic-table";
    const OF_2013: &str = "get-vmcs-eptp get-vmcs-exception-bitmap get-vmcs-io-bitmap-address \
        get-vmcs-tsc-offset get-vmcs-guest-pat get-vmcs-apic-access-address \
        get-vmcs-virtual-apic-address get-vmcs-msr-bitmap get-vmcs-msr-bitmap-address \
        get-vmcs-guest-sysenter get-vmcs-exit-reason get-vmcs-ple-gap get-vmcs-ple-window";

    fn names(vendor: Vendor) -> BTreeSet<&'static str> {
        table(vendor).iter().map(|d| d.option.name).collect()
    }

    #[test]
    fn every_option_of_freebsd_15_and_of_2013_is_there() {
        let (intel, amd) = (names(Vendor::Intel), names(Vendor::Amd));
        for name in COMMON.split_whitespace() {
            assert!(intel.contains(name) && amd.contains(name), "{name}");
        }
        for name in INTEL.split_whitespace().chain(OF_2013.split_whitespace()) {
            assert!(intel.contains(name), "{name}");
        }
        for name in AMD.split_whitespace() {
            assert!(amd.contains(name) && !intel.contains(name), "{name}");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            assert_eq!(names(vendor).len(), table(vendor).len());
        }
    }

    #[test]
    fn usage_lists_options_with_their_arguments_and_no_aliases() {
        let text = usage("bhyvectl", &table(Vendor::Intel));
        assert!(text.starts_with("Usage: bhyvectl --vm=<vmname>\n       [--cpu=<vcpu_number>]\n"));
        for line in [
            "[--set-cr0=<CR0>]",
            "[--get-desc-cs]",
            "[--get-vmcs-vpid]",
            "[--get-eptp]",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("get-vmcs-eptp"));
    }
}
