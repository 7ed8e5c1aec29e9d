//! Hosts that can't run the module: it says in one line what is missing, and leaves nothing
//! behind. (What no Bochs model lacks, such as a single capability bit, is for the unit
//! tests of vmm_core::vmx::caps.)

use vmm_rs_e2e::lab::{CpuModel, FeatureControl, LabConfig};

use crate::host::{Host, on_bare_host, two_cpus};
use crate::leaks::Memory;

/// Tries twice: the first try must not have left anything in the second one's way.
fn refuses(host: &mut Host, because: &str) {
    for attempt in ["first", "second"] {
        host.clear_kernel_log();
        let output = host.run("load_module");
        assert!(!output.success(), "the module loads: {output}");
        // busybox's insmod tries finit_module and then init_module.
        let mut log = host.module_log();
        log.dedup();
        assert!(
            log.len() == 1 && log[0].contains(because),
            "{attempt} attempt: one line with '{because}' was expected, not {log:#?}"
        );
        let left = host.check("module_traces");
        assert_eq!(left, "", "{attempt} attempt");
    }
}

fn refuses_on(cpu_model: CpuModel, because: &str) {
    let config = LabConfig {
        cpu_model,
        ..LabConfig::default()
    };
    on_bare_host(config, |host| refuses(host, because));
}

#[test]
#[cfg_attr(native_host, ignore = "needs another CPU than this one")]
fn a_cpu_without_vt_x_is_refused() {
    refuses_on(
        CpuModel::Prescott336,
        "cannot use VT-x: this CPU has no VT-x (CPUID.1:ECX.VMX is 0)",
    );
}

#[test]
#[cfg_attr(native_host, ignore = "needs another CPU than this one")]
fn a_cpu_without_ept_is_refused() {
    refuses_on(
        CpuModel::Core2PenrynT9600,
        "cannot use VT-x: this CPU has no EPT",
    );
}

#[test]
#[cfg_attr(
    not(freebsd_host),
    ignore = "minutes more on the Linux host, which is refused twice above"
)]
#[cfg_attr(native_host, ignore = "needs another CPU than this one")]
fn a_hundred_refused_loads_lose_no_memory() {
    let config = LabConfig {
        cpu_model: CpuModel::Core2PenrynT9600,
        ..LabConfig::default()
    };
    on_bare_host(config, |host| {
        let loads = |host: &mut Host, count: u32| {
            host.check(&format!(
                "for i in $(seq {count}); do ! load_module 2>/tmp/log || exit 1; done"
            ));
        };
        loads(host, 10);
        let before = Memory::of(host);
        loads(host, 100);
        // One page for each load would be 400.
        Memory::of(host).assert_lost_less_than(200, &before);
    });
}

#[test]
#[cfg_attr(native_host, ignore = "needs another CPU than this one")]
fn a_cpu_without_unrestricted_guest_is_refused() {
    refuses_on(
        CpuModel::Lynnfield750,
        "cannot use VT-x: this CPU has no unrestricted guest",
    );
}

#[test]
#[cfg_attr(native_host, ignore = "needs another firmware than this one")]
fn vt_x_that_the_firmware_has_turned_off_is_refused() {
    let config = LabConfig {
        feature_control: FeatureControl::LockedOff,
        ..LabConfig::default()
    };
    on_bare_host(config, |host| {
        refuses(
            host,
            "cannot use VT-x: VT-x is disabled by the firmware (IA32_FEATURE_CONTROL is 0x1, \
             locked with VMX off); enable it in the firmware's setup",
        );
    });
}

/// KVM sets CR4.VMXE and executes VMXON while a VM of its exists, and refuses to where
/// CR4.VMXE is set: each hypervisor finds the CPUs as the other one left them.
#[test]
#[cfg_attr(
    freebsd_host,
    ignore = "KVM is Linux's; vmm.ko is for FreeBSD's own tests"
)]
fn vt_x_that_another_hypervisor_uses_is_refused_until_that_has_ended() {
    on_bare_host(two_cpus(), |host| {
        host.check("for m in irqbypass kvm kvm-intel; do gunzip -c /root/kvm/$m.ko.gz >/tmp/$m.ko && insmod /tmp/$m.ko || exit; rm /tmp/$m.ko; done");
        host.check(
            "kvm_vm sleep 1000 >/tmp/kvm.log 2>&1 &
            until grep -q created /tmp/kvm.log; do sleep 0.05; done",
        );
        refuses(
            host,
            "cannot use VT-x: another hypervisor on this host already uses VT-x (CR4.VMXE is 1)",
        );
        host.check("kill $(pidof sleep); while pidof kvm_vm; do sleep 0.05; done");

        host.load_module();
        host.unload_module();
        host.check("kvm_vm true");
        host.check("rmmod kvm-intel && rmmod kvm && rmmod irqbypass");
    });
}
