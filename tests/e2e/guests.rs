//! The guest programs on one and on two CPUs, and the host-side tests of the module
//! (tests/vmmtest).

use std::time::Duration;

use vmm_rs_e2e::lab::LabConfig;

use crate::host::{on_host, one_cpu, two_cpus};

fn programs(config: LabConfig) {
    on_host(config, |host| {
        for guest in ["modes", "exits"] {
            host.run_guest(guest, 64);
        }
    });
}

#[test]
fn every_mode_and_exit_of_the_guest_programs_works_on_one_cpu() {
    programs(one_cpu());
}

#[test]
fn every_mode_and_exit_of_the_guest_programs_works_on_two_cpus() {
    programs(two_cpus());
}

fn memory(config: LabConfig) {
    on_host(config, |host| {
        for memory_mb in [64, 256] {
            let text = host.run_guest("memory", memory_mb);
            let end = u64::from(memory_mb) << 20;
            assert!(text.contains(&format!("memory up to {end:#x}")), "{text}");
        }
    });
}

#[test]
fn every_page_of_guest_memory_is_zero_at_first_and_keeps_its_value_on_one_cpu() {
    memory(one_cpu());
}

#[test]
fn every_page_of_guest_memory_is_zero_at_first_and_keeps_its_value_on_two_cpus() {
    memory(two_cpus());
}

#[test]
fn the_firmwares_tables_are_right_on_one_cpu() {
    on_host(one_cpu(), |host| {
        let text = host.run_guest("tables", 64);
        assert!(text.contains("RSD PTR at 0xf2400"), "{text}");
        // Both kinds of table name the interrupt controllers.
        assert!(
            text.contains("MP table at 0xf0000") && text.contains("MADT: 1 processors"),
            "{text}"
        );
    });
}

/// What -f and bootindex say is in fw_cfg, and the guest's own exit code is bhyve's.
#[test]
fn a_guest_finds_the_test_device_and_fw_cfg_on_one_cpu() {
    on_host(one_cpu(), |host| {
        host.bhyveload("guest0", "testdev", 64);
        let output = host.run(
            "truncate -s 1M /tmp/image
            bhyve -m 64 -s 0,hostbridge -s 4:1,virtio-blk,/tmp/image,bootindex=7 -s 31,lpc -l com1,stdio \
                -l pc-testdev -o lpc.fwcfg=qemu -f opt/test,string=Hello guest0
            status=$?; rm /tmp/image; exit $status",
        );
        assert_eq!(output.status, 43, "{output}");
        for line in [
            r#"bootorder: "/pci@i0cf8/pci@4,1\n""#,
            r#"opt/test: "Hello\0""#,
            "ends with code 43",
        ] {
            assert!(output.text.contains(line), "{line}: {output}");
        }
        host.destroy("guest0");
    });
}

/// Runs vmmtest and fails with the names of its tests that failed.
fn vmmtest(config: LabConfig) {
    on_host(config, |host| {
        let output = host.run_within(Duration::from_secs(400), "timeout -s KILL 240 vmmtest");
        let failed: Vec<&str> = output
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
            .collect();
        let passed = output
            .text
            .lines()
            .filter(|line| line.ends_with(" ... ok"))
            .count();
        let all: Option<usize> = output.text.lines().find_map(|line| {
            line.strip_prefix("running ")?
                .strip_suffix(" tests")?
                .parse()
                .ok()
        });
        assert!(
            output.success() && failed.is_empty() && passed > 0 && all == Some(passed),
            "vmmtest: failed {failed:#?}, {passed} passed of {all:?}\n{output}"
        );
        assert_eq!(host.vms(), [""; 0], "vmmtest leaves no VM");
    });
}

#[test]
fn the_module_answers_every_request_as_it_should_on_one_cpu() {
    vmmtest(one_cpu());
}

#[test]
fn the_module_answers_every_request_as_it_should_on_two_cpus() {
    vmmtest(two_cpus());
}
