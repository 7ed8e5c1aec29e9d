//! VMs of jails: a jail without allow.vmm has none, and one with it sees its own only.

use crate::host::{Host, on_host, one_cpu};

/// Runs a script in a jail of its own that shares the host's files and /dev. It ends at the
/// first command that fails, and where `refused COMMAND` does not.
fn in_jail(host: &mut Host, parameters: &str, script: &str) -> String {
    host.check(&format!(
        "cat >/tmp/in-jail <<'END'\nset -e\nrefused() {{ ! \"$@\" || exit 1; }}\n{script}\nEND
        jail -c path=/ {parameters} command=/bin/sh /tmp/in-jail 2>&1; status=$?
        rm -f /tmp/in-jail; exit $status"
    ))
}

#[test]
#[cfg_attr(not(freebsd_host), ignore = "jails are FreeBSD's")]
fn a_jail_with_allow_vmm_has_vms_that_it_and_the_host_see() {
    on_host(one_cpu(), |host| {
        host.check("bhyvectl --vm=hosts --create");
        in_jail(
            host,
            "",
            "test ! -e /dev/vmm/hosts
            refused bhyvectl --vm=jails --create
            refused sysctl hw.vmm.create=jails
            refused sysctl hw.vmm.destroy=hosts",
        );
        assert_eq!(host.vms(), ["hosts"]);
        in_jail(
            host,
            "allow.vmm",
            "bhyvectl --vm=jails --create
            test -c /dev/vmm/jails
            sysctl hw.vmm.create=another
            # The name is taken, by a VM that there isn't here.
            test ! -e /dev/vmm/hosts
            refused sysctl hw.vmm.create=hosts
            refused sysctl hw.vmm.destroy=hosts
            refused bhyvectl --vm=hosts --destroy
            refused sysctl hw.vmm.maxvmms=1
            sysctl hw.vmm.destroy=another",
        );
        assert_eq!(host.vms(), ["hosts", "jails"]);
        in_jail(
            host,
            "allow.vmm allow.vmm_ppt",
            "test ! -e /dev/vmm/jails
            refused sysctl hw.vmm.destroy=jails",
        );
        // Its jail is gone; it is the host's to destroy.
        host.destroy("jails");
        host.destroy("hosts");
    });
}
