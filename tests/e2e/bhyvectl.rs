//! bhyvectl on a VM that stands still: what it shows agrees, what it sets is there, what
//! makes no sense is refused.

use crate::host::{on_host, one_cpu};

/// What --get-all can't show, as it says on stderr: this version has no RTC, and the lab's
/// kernel gives nobody its memory, where the MSR bitmap would be read.
const MISSING: [&str; 3] = [
    "bhyvectl: /dev/mem: Operation not permitted",
    "bhyvectl: VM_RTC_READ of ",
    "bhyvectl: VM_RTC_GETTIME of ",
];

#[test]
fn get_all_of_a_vm_that_stands_still_agrees_with_each_single_value() {
    on_host(one_cpu(), |host| {
        host.bhyveload("guest0", "demo", 64);
        let all = host.check("bhyvectl --vm=guest0 --get-all 2>/tmp/errors");
        let errors = host.check("cat /tmp/errors");
        assert!(
            errors
                .lines()
                .all(|line| MISSING.iter().any(|m| line.starts_with(m))),
            "{errors}"
        );
        let lines: Vec<&str> = all.lines().collect();
        for name in [
            "rip",
            "rsp",
            "rflags",
            "rax",
            "rbx",
            "r15",
            "cr0",
            "cr3",
            "cr4",
            "efer",
            "dr7",
            "cs",
            "desc-cs",
            "ss",
            "desc-ss",
            "desc-gdtr",
            "desc-idtr",
            "desc-tr",
            "vmcs-guest-physical-address",
            "vmcs-exit-reason",
            "exception-bitmap",
        ] {
            let one = host.check(&format!("bhyvectl --vm=guest0 --get-{name}"));
            let value = one.trim_end();
            assert!(
                !value.is_empty() && !value.contains('\n'),
                "--get-{name}: {one}"
            );
            assert!(
                lines.contains(&value),
                "--get-{name} says '{value}', --get-all:\n{all}"
            );
        }
        // Where the multiboot loader put it, in 32-bit protected mode (multiboot 3.2).
        let number = |host: &mut crate::host::Host, name: &str| {
            let text = host.check(&format!("bhyvectl --vm=guest0 --get-{name}"));
            let digits = text
                .trim_end()
                .rsplit_once("0x")
                .unwrap_or_default()
                .1
                .to_owned();
            u64::from_str_radix(&digits, 16).unwrap_or_else(|e| panic!("{text}: {e}"))
        };
        assert_eq!(number(host, "rax"), 0x2bad_b002);
        assert_eq!(number(host, "cr0") & 0x8000_0001, 1, "PE without PG");
        assert!((0x10_0000..0x20_0000).contains(&number(host, "rip")));
    });
}

#[test]
fn what_bhyvectl_sets_is_there_and_the_rest_is_as_before() {
    on_host(one_cpu(), |host| {
        host.bhyveload("guest0", "demo", 64);
        let before = host.check("bhyvectl --vm=guest0 --get-rbx --get-desc-ds --get-rip");
        host.check("bhyvectl --vm=guest0 --set-rcx=0x123456789abcdef0");
        assert_eq!(
            host.check("bhyvectl --vm=guest0 --get-rcx"),
            "rcx[0]\t\t0x123456789abcdef0\n"
        );
        host.check(
            "bhyvectl --vm=guest0 --set-desc-fs --desc-base=0x5000 --desc-limit=0xfff --desc-access=0x93",
        );
        assert_eq!(
            host.check("bhyvectl --vm=guest0 --get-desc-fs"),
            "fs desc[0]\t0x0000000000005000/0x00000fff/0x00000093\n"
        );
        assert_eq!(
            host.check("bhyvectl --vm=guest0 --get-rbx --get-desc-ds --get-rip"),
            before
        );
        // The guest does not mind.
        let output = host.bhyve("guest0", 64);
        crate::host::assert_guest_ok("demo", &output);
    });
}

#[test]
fn requests_that_make_no_sense_are_refused_by_name() {
    on_host(one_cpu(), |host| {
        host.check("bhyvectl --vm=guest0 --create");
        for (request, says) in [
            (
                "bhyvectl --vm=nobody --get-rip",
                "nobody could not be opened",
            ),
            (
                "bhyvectl --vm=nobody --destroy",
                "nobody could not be opened",
            ),
            (
                "bhyvectl --vm=guest0 --cpu=77 --get-rip",
                "vcpu 77 of guest0",
            ),
            ("bhyvectl --get-rip", "--vm=<vmname> is missing"),
            ("bhyvectl --vm=guest0 --get-nonsense", "`--get-nonsense'"),
            (
                "bhyve -m 64 nobody",
                "nobody: no such VM: create and load it with bhyveload first",
            ),
            (
                "bhyve -m 64 -s 3,nvme,disk guest0",
                "is not part of this version",
            ),
            (
                "bhyve -m 64 -s 3,virtio-blk,/no/such/disk guest0",
                "/no/such/disk",
            ),
            ("bhyveload -k /no/such/file -m 64 guest1", "/no/such/file"),
            (
                "bhyveload -k /etc/passwd -m nonsense guest1",
                "Invalid memsize 'nonsense'",
            ),
        ] {
            let output = host.run(request);
            assert!(
                !output.success() && output.text.contains(says),
                "'{says}' was expected: {output}"
            );
        }
        assert_eq!(host.vms(), ["guest0"], "a refused request creates nothing");
    });
}
