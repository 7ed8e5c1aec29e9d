//! The limit of what guests may have of the host's memory (vm.max_user_wired on FreeBSD): one
//! that reaches it ends with an error that says so, and the host lives on.

use crate::host::{assert_guest_ok, on_host, one_cpu};

#[test]
fn a_guest_that_touches_more_than_the_host_gives_ends_with_an_error() {
    on_host(one_cpu(), |host| {
        // 16 MiB.
        host.check("limit_guest_memory 4096");
        host.bhyveload("guest0", "memory", 64);
        let output = host.bhyve("guest0", 64);
        assert!(
            output.status == 4 && output.text.contains("Cannot allocate memory"),
            "{output}"
        );
        let log = host.module_log();
        let complaints = log.iter().filter(|line| line.contains("no more memory"));
        assert_eq!(complaints.count(), 1, "{log:#?}");
        // Wired memory is refused before the guest begins.
        let output = host.run("bhyveload -S -k /guests/memory -m 64 guest1");
        assert!(
            !output.success() && output.text.contains("VM_MMAP_MEMSEG"),
            "{output}"
        );
        assert_eq!(host.vms(), ["guest0"]);

        host.destroy("guest0");
        host.check("limit_guest_memory");
        let text = host.run_guest("memory", 64);
        assert!(text.contains("pages kept their values"), "{text}");
        // Wired from the start, and all of it free again at the end.
        host.check("limit_guest_memory 20000");
        for _ in 0..2 {
            host.check("bhyveload -S -k /guests/memory -m 64 guest0");
            let output = host.run("bhyve -S -m 64 -l com1,stdio guest0 </dev/null");
            assert_guest_ok("memory", &output);
            host.destroy("guest0");
        }
        host.check("limit_guest_memory");
    });
}
