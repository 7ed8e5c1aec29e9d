//! CPUs of the host that go offline and come back while the module is loaded, as they do
//! when a machine sleeps: they leave VMX operation and enter it again.

use std::time::Duration;

use crate::host::{bhyve, on_bare_host, two_cpus};

const LIMIT: Duration = Duration::from_secs(180);
const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";

#[test]
#[cfg_attr(freebsd_host, ignore = "FreeBSD's CPUs don't go offline")]
fn guests_run_on_a_cpu_that_came_online_after_the_module() {
    on_bare_host(two_cpus(), |host| {
        host.check(&format!("echo 0 >{ONLINE}"));
        host.load_module();
        assert_eq!(host.module_log(), ["VMXON on 1 CPUs"]);
        host.check(&format!("echo 1 >{ONLINE}"));
        host.bhyveload("guest0", "exits", 64);
        let run = bhyve("guest0", 64);
        let output = host.run_within(LIMIT, &format!("taskset 2 {run} </dev/null"));
        assert!(output.text.ends_with("GUEST-OK\n"), "{output}");
        host.destroy("guest0");

        // Under a running guest: it goes on elsewhere, and can come back.
        host.bhyveload("guest0", "spin", 32);
        let run = bhyve("guest0", 32);
        let output = host.run_within(
            LIMIT,
            &format!(
                "wait_for() {{ until grep -q \"spin $1\\$\" /tmp/log; do usleep 50000; done; }}
                taskset 2 {run} </dev/null >/tmp/log 2>&1 & bhyve=$!
                wait_for 2
                echo 0 >{ONLINE} || exit 98
                seen=$(wc -l </tmp/log); wait_for $((seen + 2))
                echo 1 >{ONLINE} || exit 97
                taskset -pa 2 $bhyve >/dev/null || exit 96
                seen=$(wc -l </tmp/log); wait_for $((seen + 2))
                bhyvectl --vm=guest0 --destroy || exit 95
                wait $bhyve
                [ $? = 4 ] && grep -c spin /tmp/log"
            ),
        );
        assert!(output.success(), "{output}");
        host.check(&format!(
            "echo 0 >{ONLINE} && rmmod vmm_rs && echo 1 >{ONLINE}"
        ));
    });
}
