//! Two VMs at once, and a VM destroyed under its running guest.

use std::time::Duration;

use crate::host::{bhyve, on_host, one_cpu, two_cpus};

const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn two_guests_run_at_once_on_two_cpus() {
    on_host(two_cpus(), |host| {
        host.bhyveload("first", "exits", 64);
        host.bhyveload("second", "memory", 64);
        assert_eq!(host.vms(), ["first", "second"]);
        let (first, second) = (bhyve("first", 64), bhyve("second", 64));
        let output = host.run_within(
            LIMIT,
            &format!(
                "{first} </dev/null >/tmp/first 2>&1 & one=$!
                {second} </dev/null >/tmp/second 2>&1 & two=$!
                wait $one; one=$?
                wait $two; two=$?
                cat /tmp/first
                echo ======
                cat /tmp/second
                [ $one = 1 ] && [ $two = 1 ]"
            ),
        );
        assert!(output.success(), "{output}");
        let (first, second) = output.text.split_once("======\n").unwrap_or_default();
        for (guest, said) in [(first, "others: ok"), (second, "pages kept their values")] {
            assert!(
                guest.contains(said) && guest.ends_with("GUEST-OK\n"),
                "{output}"
            );
        }
        // The one goes, the other stays.
        host.destroy("first");
        assert_eq!(host.vms(), ["second"]);
        host.check("bhyvectl --vm=second --get-stats >/dev/null");
        host.destroy("second");
    });
}

fn destroyed_while_it_runs(config: vmm_rs_e2e::lab::LabConfig) {
    on_host(config, |host| {
        host.bhyveload("guest0", "spin", 32);
        let run = bhyve("guest0", 32);
        let output = host.run_within(
            LIMIT,
            &format!(
                "{run} </dev/null >/tmp/log 2>&1 & bhyve=$!
                until grep -q 'spin 2' /tmp/log; do sleep 0.05; done
                bhyvectl --vm=guest0 --destroy || exit 99
                wait $bhyve
                status=$?
                tail -n 1 /tmp/log # the guest may not have ended its line
                exit $status"
            ),
        );
        assert_eq!(output.status, 4, "{output}");
        assert!(
            output.text.contains("bhyve: guest0: the VM was destroyed"),
            "{output}"
        );
        assert_eq!(host.vms(), [""; 0]);
        let again = host.run("bhyvectl --vm=guest0 --destroy");
        assert!(!again.success() && again.text.contains("guest0"), "{again}");
        host.unload_module();
    });
}

#[test]
fn a_vm_destroyed_while_it_runs_ends_its_bhyve_with_a_message_on_one_cpu() {
    destroyed_while_it_runs(one_cpu());
}

#[test]
fn a_vm_destroyed_while_it_runs_ends_its_bhyve_with_a_message_on_two_cpus() {
    destroyed_while_it_runs(two_cpus());
}
