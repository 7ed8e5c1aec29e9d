//! A VM entry that fails says why: bhyve what the CPU says, by names, and the host's log
//! which rule of the SDM the guest's state breaks.

use crate::host::{assert_guest_ok, on_host, one_cpu};

#[test]
fn a_failed_vm_entry_is_reported_with_the_rule_that_the_guest_state_breaks() {
    on_host(one_cpu(), |host| {
        host.bhyveload("guest0", "demo", 64);
        let good = host.check("bhyvectl --vm=guest0 --get-desc-cs");
        // Type 2, a data segment: no code segment can have it.
        host.check(
            "bhyvectl --vm=guest0 --set-desc-cs --desc-base=0 --desc-limit=0xffffffff --desc-access=0xc092",
        );
        let output = host.bhyve("guest0", 64);
        assert_eq!(output.status, 4, "{output}");
        for says in [
            "the VM entry failed",
            "invalid guest state (33)",
            "qualification 0x0: invalid guest state",
            "cs     0010 base 0000000000000000 limit ffffffff access 0c092",
        ] {
            assert!(
                output.text.contains(says),
                "'{says}' was expected: {output}"
            );
        }
        let log = host.module_log();
        assert!(
            log.iter().any(|line| line.contains("invalid guest state")),
            "{log:#?}"
        );
        let rules: Vec<&String> = log.iter().filter(|line| line.contains("(SDM ")).collect();
        assert!(
            rules.len() == 1 && rules[0].contains("guest-seg-cs-type (SDM 27.3.1.2)"),
            "one broken rule was expected: {log:#?}"
        );
        let stats = host.check("bhyvectl --vm=guest0 --get-stats");
        assert!(
            stats
                .lines()
                .any(|line| line.starts_with("number of vm entries that failed")
                    && line.ends_with("\t1")),
            "{stats}"
        );

        // Nothing else is broken: with the old segment the guest runs.
        let (_, values) = good.trim_end().split_once("\t").unwrap_or_default();
        let values: Vec<&str> = values.split('/').collect();
        let [base, limit, access] = values[..] else {
            panic!("{good}");
        };
        host.check(&format!(
            "bhyvectl --vm=guest0 --set-desc-cs --desc-base={base} --desc-limit={limit} --desc-access={access}"
        ));
        let output = host.bhyve("guest0", 64);
        assert_guest_ok("demo", &output);
        host.destroy("guest0");
    });
}
