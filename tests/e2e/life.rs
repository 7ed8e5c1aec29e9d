//! The module's life: it stays while a VM exists, and leaves the host as it found it.

use std::time::Duration;

use crate::host::{assert_guest_ok, on_bare_host, on_host, one_cpu, two_cpus};
use crate::leaks::Memory;

fn stays_while_a_vm_exists(config: vmm_rs_e2e::lab::LabConfig) {
    on_host(config, |host| {
        host.bhyveload("guest0", "modes", 64);
        let refused = host.run("unload_module && exit 1; echo; echo \"$BUSY\"");
        let (says, busy) = refused
            .text
            .trim_end()
            .rsplit_once('\n')
            .unwrap_or_default();
        assert!(refused.success() && says.contains(busy), "{refused}");
        host.check("module_loaded && test -c /dev/vmm/guest0");
        // It still does its work.
        let output = host.bhyve("guest0", 64);
        assert_guest_ok("modes", &output);
        host.destroy("guest0");
        host.check("unload_module && test ! -e /dev/vmmctl");
    });
}

#[test]
fn the_module_stays_while_a_vm_exists_and_unloads_after_on_one_cpu() {
    stays_while_a_vm_exists(one_cpu());
}

#[test]
fn the_module_stays_while_a_vm_exists_and_unloads_after_on_two_cpus() {
    stays_while_a_vm_exists(two_cpus());
}

/// That CR4.VMXE is off again shows by itself: the module refuses to load where it is on.
#[test]
fn a_hundred_loads_and_unloads_lose_no_memory() {
    on_bare_host(one_cpu(), |host| {
        let rounds = |host: &mut crate::host::Host, count: u32| {
            let output = host.run_within(
                Duration::from_secs(240),
                &format!(
                    "for i in $(seq {count}); do
                        load_module && test -c /dev/vmmctl && unload_module || exit 1
                    done"
                ),
            );
            assert!(output.success(), "{output}");
        };
        // What a first time allocates for good: slabs, page tables of the kernel.
        rounds(host, 10);
        let before = Memory::of(host);
        host.clear_kernel_log();
        rounds(host, 100);
        let (log, cpus) = (host.module_log(), host.cpus());
        let vmxon = format!("VMXON on {cpus} CPUs");
        assert_eq!(
            log.iter().filter(|line| **line == vmxon).count(),
            100,
            "{log:#?}"
        );
        // Half a page in each round.
        Memory::of(host).assert_lost_less_than(200, &before);
    });
}

/// What the administrator sets binds root, too.
#[test]
fn the_administrator_limits_vms_and_vcpus() {
    on_bare_host(one_cpu(), |host| {
        host.check("load_module maxvmms=2,maxcpu=0");
        assert_eq!(host.hw_vmm("maxcpu"), "1");
        host.check("bhyvectl --vm=a --create && bhyvectl --vm=b --create");
        let refused = host.run("bhyvectl --vm=c --create");
        assert!(
            !refused.success() && refused.text.contains("hw.vmm.maxvmms"),
            "{refused}"
        );
        host.check("set_hw_vmm maxvmms 3 && bhyvectl --vm=c --create");
        let refused = host.run("set_hw_vmm maxvmms many");
        assert!(!refused.success(), "{refused}");
        assert_eq!(host.hw_vmm("maxvmms"), "3");
        // Those that there are stay under a lower limit.
        host.check("set_hw_vmm maxvmms 0");
        assert_eq!(host.vms(), ["a", "b", "c"]);
        for vm in ["a", "b", "c"] {
            host.destroy(vm);
        }
        let refused = host.run("bhyvectl --vm=a --create");
        assert!(!refused.success(), "{refused}");
        host.check("unload_module");

        host.clear_kernel_log();
        host.check("load_module maxvmms=-5,maxcpu=5000");
        let (log, cpus) = (host.module_log(), host.cpus());
        let default = 4 * cpus.parse::<u32>().expect("CPUs");
        assert_eq!(
            log,
            [
                format!("VMXON on {cpus} CPUs"),
                "hw.vmm.maxcpu=5000 cannot be: using 1024".to_owned(),
                format!("hw.vmm.maxvmms=-5 is no number of VMs: using {default}"),
            ]
        );
        host.check("unload_module");
    });
}

/// Bochs's CPUs have the L1 terminal fault and no command to flush the cache. The labs' hosts
/// were told to do without mitigations; a tunable says otherwise, and the guest runs all the same.
#[test]
#[cfg_attr(native_host, ignore = "needs a CPU without IA32_FLUSH_CMD")]
fn the_l1_cache_is_flushed_before_entries_where_the_cpu_needs_it() {
    on_bare_host(one_cpu(), |host| {
        let flushing = |host: &mut crate::host::Host, tunables: &str| {
            host.load_module_with(tunables);
            let flushing = ["vmx.l1d_flush", "vmx.l1d_flush_sw"].map(|name| host.hw_vmm(name));
            host.bhyveload("guest0", "exits", 64);
            assert_guest_ok("exits", &host.bhyve("guest0", 64));
            host.destroy("guest0");
            host.unload_module();
            flushing
        };
        assert_eq!(flushing(host, "vmx.l1d_flush=0"), ["0", "0"]);
        assert_eq!(flushing(host, "vmx.l1d_flush=1"), ["1", "1"]);
        // Nothing is left to do it with.
        assert_eq!(
            flushing(host, "vmx.l1d_flush=1,vmx.l1d_flush_sw=0"),
            ["0", "0"]
        );
    });
}

/// Without `mitigations=off` a Linux host wants it, and so do FreeBSD's.
#[test]
#[cfg_attr(freebsd_host, ignore = "Linux: mitigations=")]
fn a_host_with_mitigations_has_the_l1_cache_flushed() {
    let config = vmm_rs_e2e::lab::LabConfig {
        kernel_args: "mitigations=auto".to_owned(),
        ..one_cpu()
    };
    on_host(config, |host| {
        assert_eq!(host.hw_vmm("vmx.l1d_flush"), "1");
        assert_eq!(host.hw_vmm("vmx.l1d_flush_sw"), "1");
        host.bhyveload("guest0", "exits", 64);
        assert_guest_ok("exits", &host.bhyve("guest0", 64));
        host.destroy("guest0");
    });
}
