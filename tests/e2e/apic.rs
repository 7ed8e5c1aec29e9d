//! Interrupts in each of the ways that the CPU can take part in the local APIC: the guest
//! sees the same, and the statistics show which way it was.

use std::collections::BTreeMap;

use vmm_rs_e2e::lab::{CpuModel, LabConfig};

use crate::host::{Host, assert_guest_ok, on_bare_host};

/// A line of `bhyvectl --get-stats`.
const CR_ACCESS: &str = "number of times %cr access was intercepted";
const INTERRUPT_WINDOW: &str = "vm exits due to interrupt window opening";
const TPR: &str = "vm exits due to a task priority below the threshold";
const APIC_WRITE: &str = "vm exits due to writes in the virtual apic's page";
const EMULATED: &str = "vm exits for instruction emulation";

/// Virtual-interrupt delivery, where the CPU has it.
const VID: &str = "vmx.use_apic_vid=1";

/// Runs the guest program `apic` with these settings of the module, and returns what the
/// host counted.
fn interrupts(host: &mut Host, tunables: &str) -> BTreeMap<String, u64> {
    host.load_module_with(tunables);
    host.bhyveload("guest0", "apic", 64);
    // -x: with x2APIC mode, through which the program goes too.
    let output = host.run("bhyve -x -m 64 -l com1,stdio guest0 </dev/null");
    assert_guest_ok("apic", &output);
    // With virtual-interrupt delivery Bochs forgets about shadows now and then.
    assert!(
        tunables == VID || !output.text.contains("too early"),
        "{output}"
    );
    let text = host.check("bhyvectl --vm=guest0 --get-stats");
    host.destroy("guest0");
    host.unload_module();
    text.lines()
        .filter_map(|line| line.trim_end().rsplit_once(['\t', ' ']))
        .filter_map(|(what, number)| Some((what.trim().to_owned(), number.parse().ok()?)))
        .collect()
}

#[test]
fn interrupts_come_the_same_in_every_way_of_apic_virtualization() {
    on_bare_host(LabConfig::default(), |host| {
        // Virtual-interrupt delivery: neither windows nor CR8 exit, few instructions are
        // emulated, and writes of registers exit when they are done.
        let stats = interrupts(host, VID);
        assert_eq!(
            (stats[CR_ACCESS], stats[INTERRUPT_WINDOW]),
            (0, 0),
            "{stats:#?}"
        );
        assert!(stats[APIC_WRITE] > 0 && stats[EMULATED] < 100, "{stats:#?}");

        // A TPR shadow: MOV CR8 doesn't exit, unless it lets an interrupt through.
        let stats = interrupts(host, "vmx.use_apic_vid=0");
        assert_eq!((stats[CR_ACCESS], stats[APIC_WRITE]), (0, 0), "{stats:#?}");
        assert!(stats[TPR] > 0 && stats[INTERRUPT_WINDOW] > 0, "{stats:#?}");
        assert!(stats[EMULATED] > 100, "{stats:#?}");

        // Neither.
        let stats = interrupts(host, "vmx.use_tpr_shadowing=0");
        assert_eq!((stats[TPR], stats[APIC_WRITE]), (0, 0), "{stats:#?}");
        assert!(
            stats[CR_ACCESS] > 0 && stats[INTERRUPT_WINDOW] > 0,
            "{stats:#?}"
        );
    });
}

/// The module says what it uses; on this CPU there is no virtual-interrupt delivery.
#[test]
#[cfg_attr(native_host, ignore = "needs another CPU than this one")]
fn a_cpu_without_interrupt_delivery_uses_its_tpr_shadow() {
    let config = LabConfig {
        cpu_model: CpuModel::SandyBridge2600k,
        ..LabConfig::default()
    };
    on_bare_host(config, |host| {
        let stats = interrupts(host, VID);
        assert!(stats[TPR] > 0 && stats[APIC_WRITE] == 0, "{stats:#?}");
        host.load_module();
        assert_eq!(host.hw_vmm("vmx.cap.tpr_shadowing"), "1");
        assert_eq!(host.hw_vmm("vmx.cap.virtual_interrupt_delivery"), "0");
    });
}

/// Two guests with different values in their x87, SSE and AVX registers take turns on one
/// CPU, each with a bhyve that uses these registers too.
#[test]
fn the_fpu_of_a_guest_is_its_own() {
    let config = LabConfig {
        cpu_model: CpuModel::Haswell4770,
        ..LabConfig::default()
    };
    on_bare_host(config, |host| {
        host.load_module();
        for vm in ["one", "two"] {
            host.bhyveload(vm, "xsave", 64);
        }
        let both = "for vm in one two; do
                bhyve -m 64 -l com1,stdio $vm </dev/null >/tmp/$vm.log 2>&1 &
            done
            wait
            cat /tmp/one.log /tmp/two.log";
        let text = host.check(both);
        let ok = text.lines().filter(|line| line.trim_end() == "xsave: ok");
        assert_eq!(ok.count(), 2, "{text}");
        for vm in ["one", "two"] {
            host.destroy(vm);
        }
    });
}
