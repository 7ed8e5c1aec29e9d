//! The session of the seed article, as a person types it, on two CPUs: a VM comes, runs,
//! stays after its bhyve, says what it did, and goes.

use std::collections::BTreeMap;

use crate::host::{assert_guest_ok, on_bare_host, two_cpus};

#[test]
fn a_vm_appears_runs_is_counted_and_goes() {
    on_bare_host(two_cpus(), |host| {
        host.load_module();
        let log = host.module_log();
        let vmxon = format!("VMXON on {} CPUs", host.cpus());
        assert!(log.contains(&vmxon), "{log:#?}");
        host.check("test -c /dev/vmmctl");
        assert_eq!(host.vms(), [""; 0]);

        host.bhyveload("guest0", "demo", 64);
        assert_eq!(host.vms(), ["guest0"]);
        host.check("test -c /dev/vmm/guest0");

        let output = host.bhyve("guest0", 64);
        assert!(
            output
                .text
                .contains("Hello from a guest of vmm_rs: 64-bit mode"),
            "{output}"
        );
        assert_guest_ok("demo", &output);

        assert_eq!(host.vms(), ["guest0"], "after bhyve has ended");
        let text = host.check("bhyvectl --vm=guest0 --get-stats");
        let stats = stats(&text);
        let did = did(&output.text);
        for (what, stat) in [
            ("cpuid", "number of times cpuid was intercepted"),
            ("rdmsr", "number of times rdmsr was intercepted"),
            ("inout", "number of times in/out was intercepted"),
        ] {
            assert_eq!(
                stats.get(stat),
                did.get(what),
                "{stat}\n{output}\n{stats:#?}"
            );
        }
        assert!(did["cpuid"] >= 1000 && did["rdmsr"] >= 1000, "{did:?}");
        let total = stats["total number of vm exits"];
        let by_kind: u64 = KINDS.iter().map(|kind| stats[*kind]).sum();
        assert_eq!(total, by_kind, "exits of all kinds\n{stats:#?}");

        host.destroy("guest0");
        assert_eq!(host.vms(), [""; 0]);
        host.unload_module();
        assert_eq!(host.check("module_traces"), "");
        // It refuses to load where CR4.VMXE is on, see refusal.rs: the CPUs are as before.
        host.clear_kernel_log();
        host.load_module();
        assert_eq!(host.module_log(), [vmxon]);
    });
}

/// The statistics that count exits by their kind; the demonstration has no others.
const KINDS: [&str; 10] = [
    "vm exits due to external interrupt",
    "number of times %cr access was intercepted",
    "number of times rdmsr was intercepted",
    "number of times wrmsr was intercepted",
    "number of times in/out was intercepted",
    "number of times cpuid was intercepted",
    "vm exits due to nested page fault",
    "vm exits due to NMIs of the host",
    "vm exits due to the end of a time slice",
    "number of vm exits due to exceptions",
];

/// `bhyvectl --get-stats`: a description and a number in each line.
fn stats(text: &str) -> BTreeMap<&str, u64> {
    text.lines()
        .filter_map(|line| line.trim_end().rsplit_once(['\t', ' ']))
        .filter_map(|(what, number)| Some((what.trim(), number.parse().ok()?)))
        .collect()
}

/// What the guest says it did: `did: cpuid 1000 rdmsr 1000`, `did: inout 00002345 in all`.
fn did(text: &str) -> BTreeMap<&str, u64> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("did: "));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let pairs = words.windows(2);
    pairs
        .filter_map(|pair| Some((pair[0], pair[1].parse().ok()?)))
        .collect()
}
