//! What bhyve's options do to the host: which host CPUs the vcpus run on.

use std::time::Duration;

use vmm_rs_e2e::lab::LabConfig;

use crate::host::{Host, on_host, on_host_for_kernels, two_cpus};

/// Where the vcpu of a guest that never ends runs, with these options.
fn runs_on(host: &mut Host, options: &str) -> String {
    host.bhyveload("guest0", "spin", 32);
    let text = host.check(&format!(
        "bhyve {options} -m 32 -l com1,stdio guest0 </dev/null >/tmp/log 2>&1 &
        until grep -q 'spin 2' /tmp/log; do kill -0 $! || {{ cat /tmp/log; exit 1; }}; sleep 0.05; done
        vcpu_affinity
        bhyvectl --vm=guest0 --destroy
        wait $! || true"
    ));
    text.trim_end().to_owned()
}

#[test]
#[cfg_attr(native_host, ignore = "needs a host with two CPUs")]
fn vcpus_are_pinned_to_the_host_cpus_that_options_name() {
    on_host(two_cpus(), |host| {
        for (options, cpus) in [
            ("", "0-1"),
            ("-p 0:1", "1"),
            ("-p 0:0 -p 0:1", "0-1"),
            ("-o vcpu.0.cpuset=0", "0"),
            ("-p 1", "1"),
        ] {
            let found = runs_on(host, options);
            assert_eq!(found, format!("vcpu 0: {cpus}"), "{options}");
        }
        let output = host.run("bhyveload -k /guests/spin -m 32 guest0; bhyve -p 0:77 -m 32 guest0");
        assert_eq!(output.status, 4, "{output}");
        assert!(
            output.text.contains("can't be pinned to host CPUs [77]"),
            "{output}"
        );
        host.destroy("guest0");
    });
}

/// 2013's -x: both vcpus of Debian's kernel run on one host CPU, in turns, and neither waits
/// for the other in vain.
#[test]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn vcpus_that_take_turns_on_one_host_cpu_work_together() {
    let config = LabConfig {
        cpus: 2,
        memory_mb: 1024,
        linux_guest: true,
        ..LabConfig::default()
    };
    on_host_for_kernels(config, |host| {
        host.check(
            "cat >/tmp/script <<'END'
guestcheck shootdown 1 || exit 1
echo online $(cat /sys/devices/system/cpu/online)
END",
        );
        let output = host.run_within(
            Duration::from_secs(900),
            "/linux/run-guest -c 2 -m 256 -a quiet -s /tmp/script -- -o compat.year=2013 -x -p 1 \
                    </dev/null >/tmp/log 2>&1 &
                guest=$!
                until grep -q 'none stale' /tmp/log || ! kill -0 $guest; do
                    where=$(vcpu_affinity)
                    # Before its threads run it doesn't expect the signal.
                    case $where in *'vcpu 1'*) kill -USR1 $(pid_of bhyve) ;; esac
                    sleep 2
                done
                wait $guest; status=$?
                cat /tmp/log
                echo \"$where\"
                exit $status",
        );
        assert_eq!(output.status, 1, "{output}");
        let text = output.text.replace('\r', "");
        for part in [
            "none stale\n",
            "online 0-1\n",
            "vcpu 0: 1\nvcpu 1: 1\n",
            "switch ",
        ] {
            assert!(text.contains(part), "{part}: {output}");
        }
        host.check("rm -f /tmp/disk* /tmp/script* /tmp/log*");
        host.destroy("guest0");
    });
}
