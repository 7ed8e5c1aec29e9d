//! The limit of what guests may have of the host's memory: one that reaches it ends with an
//! error that says so, and the host lives on. (On FreeBSD that is vm.max_user_wired; the
//! lab's Linux has a parameter of the module.)

use crate::host::{assert_guest_ok, on_host, one_cpu};

/// Pages: 16 MiB.
const LIMIT: u32 = 4096;

#[test]
fn a_guest_that_touches_more_than_the_host_gives_ends_with_an_error() {
    on_host(one_cpu(), |host| {
        host.check(&format!(
            "echo {LIMIT} >/sys/module/vmm_rs/parameters/max_guest_pages"
        ));
        host.bhyveload("guest0", "memory", 64);
        let output = host.bhyve("guest0", 64);
        assert!(
            output.status == 4 && output.text.contains("Cannot allocate memory"),
            "{output}"
        );
        let log = host.module_log();
        let complaints = log.iter().filter(|line| line.contains("no more memory"));
        assert_eq!(complaints.count(), 1, "{log:#?}");
        // Another one doesn't get any either, and is told before it runs.
        let output = host.run("bhyveload -S -k /guests/memory -m 64 guest1");
        assert!(
            !output.success() && output.text.contains("VM_MMAP_MEMSEG"),
            "{output}"
        );
        // What the first one had is free again.
        host.destroy("guest0");
        host.check("[ ! -e /dev/vmm/guest1 ] || bhyvectl --vm=guest1 --destroy");
        host.check("echo 0 >/sys/module/vmm_rs/parameters/max_guest_pages");
        host.bhyveload("guest0", "memory", 64);
        let output = host.bhyve("guest0", 64);
        assert_guest_ok("memory", &output);
        host.destroy("guest0");
    });
}
