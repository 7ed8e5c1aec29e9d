//! The option table: FreeBSD 15's long options, the names that 2013's bhyvectl (r245542) had
//! for some of them, and a few of our own. What the kernel's control structure offers depends
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
    /// A name that is known, but what it meant isn't to be had here: what there is instead.
    Gone(&'static str),
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
const FIXED: [(&str, Option<&str>, Id); 46] = [
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
    // Ours.
    ("gla2gpa", Some("gla"), Id::Gla2gpa),
    ("help", None, Id::Help),
    // 2013's.
    ("get-lowmem", None, Id::GetLowmem),
    ("get-highmem", None, Id::GetHighmem),
    ("get-vmcs-ple-gap", None, Id::Control(Group::PleGap)),
    ("get-vmcs-ple-window", None, Id::Control(Group::PleWindow)),
    // A kernel with snapshots has these two.
    (
        "checkpoint",
        Some("filename"),
        Id::Gone("it has no snapshots; shut the guest down and copy its disk"),
    ),
    (
        "suspend",
        Some("filename"),
        Id::Gone("it has no snapshots; --force-poweroff ends the guest at once"),
    ),
    // 2013's, of which only the name is left.
    (
        "set-pinning",
        Some("host_cpu"),
        Id::Gone("bhyve pins its vcpus itself: bhyve -p vcpu:hostcpu"),
    ),
    (
        "get-pinning",
        None,
        Id::Gone("vcpus are threads of bhyve, and cpuset -g -t shows where a thread may run"),
    ),
    (
        "set-vmcs-exception-bitmap",
        Some("bitmap"),
        Id::Gone("the module keeps it; --capname=bpt_exit --setcap=1 makes breakpoints exit"),
    ),
    (
        "set-vmcs-entry-interruption-info",
        Some("info"),
        Id::Gone("the module injects events; --inject-nmi and --assert-lapic-lvt ask it for one"),
    ),
];

/// FreeBSD 15's names in the order of its usage. Those from get-vmcs-pinbased-ctls to
/// get-virtual-apic-address are for Intel's CPUs, the ones behind them for AMD's.
const FREEBSD_15: &str = "vm cpu set-mem capname setcap getcap get-stats get-memmap get-memseg \
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
    get-x2apic-state inject-nmi get-intinfo \
    get-vmcs-pinbased-ctls get-vmcs-procbased-ctls get-vmcs-procbased-ctls2 \
    get-vmcs-guest-linear-address get-vmcs-guest-physical-address \
    get-vmcs-entry-interruption-info get-vmcs-cr0-mask get-vmcs-cr0-shadow get-vmcs-cr4-mask \
    get-vmcs-cr4-shadow get-vmcs-cr3-targets get-vmcs-tpr-threshold get-vmcs-vpid \
    get-vmcs-exit-ctls get-vmcs-entry-ctls get-vmcs-instruction-error get-vmcs-host-pat \
    get-vmcs-host-cr0 get-vmcs-exit-qualification get-vmcs-exit-inst-length \
    get-vmcs-interruptibility get-vmcs-exit-interruption-error \
    get-vmcs-exit-interruption-info get-vmcs-link get-vmcs-host-cr3 get-vmcs-host-cr4 \
    get-vmcs-host-rip get-vmcs-host-rsp get-apic-access-address get-virtual-apic-address \
    get-vmcb-intercepts get-vmcb-asid get-vmcb-exit-details get-vmcb-tlb-ctrl get-vmcb-virq \
    get-avic-apic-bar get-avic-backing-page get-avic-table";

/// Whose option it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// FreeBSD 15's, with its place in the usage.
    FreeBsd(usize),
    Ours,
    /// A name of 2013's, or one that is refused with a hint.
    Past,
}

/// One option with the description of its argument, for the usage.
#[derive(Clone, Debug)]
pub struct Described {
    pub option: LongOpt<Id>,
    pub argument: Option<&'static str>,
    pub origin: Origin,
}

/// The whole table for a CPU: FreeBSD's options in its order, ours, the past's.
pub fn table(vendor: Vendor) -> Vec<Described> {
    let mut table: Vec<Described> = FIXED
        .iter()
        .filter(|(_, _, id)| match id {
            Id::Control(group) => group.exists(vendor),
            _ => true,
        })
        .map(|(name, argument, id)| described(name, *argument, *id))
        .collect();
    for (name, reg) in REGISTERS {
        let argument = Some(leak(name.to_uppercase()));
        table.push(described(
            leak(format!("set-{name}")),
            argument,
            Id::SetReg(reg),
        ));
        table.push(described(
            leak(format!("get-{name}")),
            None,
            Id::GetReg(reg),
        ));
    }
    for (name, seg) in DESCRIPTORS {
        table.push(described(
            leak(format!("get-desc-{name}")),
            None,
            Id::GetDesc(seg),
        ));
        table.push(described(
            leak(format!("set-desc-{name}")),
            None,
            Id::SetDesc(seg),
        ));
    }
    for (name, group) in control::options(vendor) {
        table.push(described(name, None, Id::Control(group)));
    }
    table.sort_by_key(|d| d.origin);
    table
}

/// The table for `getopt_long::parse`: FreeBSD's abbreviations stay what they are.
pub fn long_options(table: &[Described]) -> [Vec<LongOpt<Id>>; 2] {
    let (stock, added): (Vec<_>, Vec<_>) = table
        .iter()
        .cloned()
        .partition(|d| matches!(d.origin, Origin::FreeBsd(_)));
    [stock, added].map(|part| part.into_iter().map(|d| d.option).collect())
}

fn described(name: &'static str, argument: Option<&'static str>, id: Id) -> Described {
    let has_arg = if argument.is_some() {
        HasArg::Required
    } else {
        HasArg::No
    };
    let place = FREEBSD_15.split_whitespace().position(|n| n == name);
    let origin = match (place, id) {
        (Some(place), _) => Origin::FreeBsd(place),
        (None, Id::SetReg(_) | Id::Gla2gpa | Id::Help) => Origin::Ours,
        (None, _) => Origin::Past,
    };
    Described {
        option: LongOpt { name, has_arg, id },
        argument,
        origin,
    }
}

/// The table is made once in the life of the program.
fn leak(name: String) -> &'static str {
    name.leak()
}

/// The usage: each option on a line, as bhyvectl(8) prints it.
pub fn usage(progname: &str, table: &[Described]) -> String {
    let mut text = format!("Usage: {progname} --vm=<vmname>\n");
    let shown = |d: &&Described| d.option.id != Id::Vm && d.origin != Origin::Past;
    for described in table.iter().filter(shown) {
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

    /// The 131 long options of r245542 (January 2013).
    const OF_2013: &str = "vm cpu set-mem set-efer set-cr0 set-cr3 set-cr4 set-dr7 set-rsp set-rip \
        set-rax set-rflags desc-base desc-limit desc-access set-cs set-ds set-es set-fs set-gs \
        set-ss set-tr set-ldtr set-x2apic-state set-vmcs-exception-bitmap \
        set-vmcs-entry-interruption-info set-pinning capname unassign-pptdev setcap getcap \
        get-stats get-desc-ds set-desc-ds get-desc-es set-desc-es get-desc-ss set-desc-ss \
        get-desc-cs set-desc-cs get-desc-fs set-desc-fs get-desc-gs set-desc-gs get-desc-tr \
        set-desc-tr set-desc-ldtr get-desc-ldtr set-desc-gdtr get-desc-gdtr set-desc-idtr \
        get-desc-idtr get-lowmem get-highmem get-efer get-cr0 get-cr3 get-cr4 get-dr7 get-rsp \
        get-rip get-rax get-rbx get-rcx get-rdx get-rsi get-rdi get-rbp get-r8 get-r9 get-r10 \
        get-r11 get-r12 get-r13 get-r14 get-r15 get-rflags get-cs get-ds get-es get-fs get-gs \
        get-ss get-tr get-ldtr get-vmcs-pinbased-ctls get-vmcs-procbased-ctls \
        get-vmcs-procbased-ctls2 get-vmcs-guest-linear-address get-vmcs-guest-physical-address \
        get-vmcs-entry-interruption-info get-vmcs-eptp get-vmcs-exception-bitmap \
        get-vmcs-io-bitmap-address get-vmcs-tsc-offset get-vmcs-cr0-mask get-vmcs-cr0-shadow \
        get-vmcs-cr4-mask get-vmcs-cr4-shadow get-vmcs-cr3-targets get-vmcs-apic-access-address \
        get-vmcs-virtual-apic-address get-vmcs-tpr-threshold get-vmcs-msr-bitmap \
        get-vmcs-msr-bitmap-address get-vmcs-vpid get-vmcs-ple-gap get-vmcs-ple-window \
        get-vmcs-instruction-error get-vmcs-exit-ctls get-vmcs-entry-ctls get-vmcs-guest-pat \
        get-vmcs-host-pat get-vmcs-host-cr0 get-vmcs-host-cr3 get-vmcs-host-cr4 \
        get-vmcs-host-rip get-vmcs-host-rsp get-vmcs-guest-sysenter get-vmcs-link \
        get-vmcs-exit-reason get-vmcs-exit-qualification get-vmcs-exit-interruption-info \
        get-vmcs-exit-interruption-error get-vmcs-interruptibility get-x2apic-state get-pinning \
        get-all run create destroy";

    /// What FreeBSD's usage calls the arguments of options that have one.
    const ARGUMENTS: &str = "vm=vmname cpu=vcpu_number capname=capname setcap=0|1 set-efer=EFER \
        set-cr0=CR0 set-cr2=CR2 set-cr3=CR3 set-cr4=CR4 set-dr0=DR0 set-dr1=DR1 set-dr2=DR2 \
        set-dr3=DR3 set-dr6=DR6 set-dr7=DR7 set-rsp=RSP set-rip=RIP set-rax=RAX \
        set-rflags=RFLAGS desc-base=BASE desc-limit=LIMIT desc-access=ACCESS set-cs=CS set-ds=DS \
        set-es=ES set-fs=FS set-gs=GS set-ss=SS set-tr=TR set-ldtr=LDTR set-x2apic-state=state \
        get-gpa-pmap=gpa assert-lapic-lvt=pin set-rtc-time=secs rtc-nvram-offset=offset \
        set-rtc-nvram=val set-mem=memory_in_units_of_MB unassign-pptdev=bus/slot/func";

    const BOTH: [Vendor; 2] = [Vendor::Intel, Vendor::Amd];

    fn of_freebsd(vendor: Vendor) -> Vec<Described> {
        let mut table = table(vendor);
        table.retain(|d| matches!(d.origin, Origin::FreeBsd(_)));
        table
    }

    #[test]
    fn every_option_of_freebsd_15_is_there_in_its_order_for_its_cpu() {
        let stock: Vec<_> = FREEBSD_15.split_whitespace().collect();
        // Two more, checkpoint and suspend, need a kernel with BHYVE_SNAPSHOT.
        assert_eq!(stock.len(), 161);
        let names = |vendor| -> Vec<_> {
            let table = of_freebsd(vendor);
            table.iter().map(|d| d.option.name).collect()
        };
        let (common, own) = stock.split_at(123);
        let (intel, amd) = own.split_at(30);
        assert_eq!(names(Vendor::Intel), [common, intel].concat());
        assert_eq!(names(Vendor::Amd), [common, amd].concat());
    }

    #[test]
    fn options_have_the_arguments_that_they_have_on_freebsd() {
        for vendor in BOTH {
            let mut given: Vec<_> = of_freebsd(vendor)
                .into_iter()
                .filter_map(|d| Some((d.option.name, d.argument?.replace(' ', "_"))))
                .map(|(name, argument)| format!("{name}={argument}"))
                .collect();
            let mut wanted: Vec<_> = ARGUMENTS.split_whitespace().collect();
            given.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(given, wanted);
        }
    }

    #[test]
    fn every_name_of_2013_is_known() {
        let table = table(Vendor::Intel);
        let names: BTreeSet<_> = table.iter().map(|d| d.option.name).collect();
        assert_eq!(OF_2013.split_whitespace().count(), 131);
        for name in OF_2013.split_whitespace() {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn a_name_of_2013_with_vmcs_in_it_means_the_one_without() {
        let table = table(Vendor::Intel);
        let id = |name: &str| {
            let found = table.iter().find(|d| d.option.name == name);
            found.unwrap_or_else(|| panic!("{name}")).option.id
        };
        let renamed = "eptp exception-bitmap io-bitmap-address tsc-offset guest-pat \
            apic-access-address virtual-apic-address msr-bitmap msr-bitmap-address \
            guest-sysenter exit-reason";
        for name in renamed.split_whitespace() {
            assert_eq!(id(&format!("get-vmcs-{name}")), id(&format!("get-{name}")));
        }
    }

    #[test]
    fn no_name_stands_twice() {
        for vendor in BOTH {
            let table = table(vendor);
            let names: BTreeSet<_> = table.iter().map(|d| d.option.name).collect();
            assert_eq!(names.len(), table.len());
        }
    }

    #[test]
    fn the_usage_begins_with_freebsds_and_has_nothing_of_the_past() {
        for vendor in BOTH {
            let text = usage("bhyvectl", &table(vendor));
            let stock = usage("bhyvectl", &of_freebsd(vendor));
            assert!(text.starts_with(&stock));
            assert!(stock.starts_with(
                "Usage: bhyvectl --vm=<vmname>\n       [--cpu=<vcpu_number>]\n       \
                 [--set-mem=<memory in units of MB>]\n"
            ));
            assert!(text.contains("[--help]\n"));
            for past in ["get-vmcs-eptp", "get-lowmem", "suspend=", "pinning"] {
                assert!(!text.contains(past), "{past}");
            }
        }
    }
}
