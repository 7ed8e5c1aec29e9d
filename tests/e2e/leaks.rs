//! How much of its memory the host uses, and tests that creating and destroying VMs does
//! not change that.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::host::{Host, bhyve, on_host, one_cpu};

/// What the host's kernel has in use, in KiB, after dropping caches.
pub struct Memory(BTreeMap<String, i64>);

/// Lines of /proc/meminfo that a leak in the kernel shows in. The first falls, the others
/// rise. MemFree lacks the pages that a CPU keeps for itself, which /proc/zoneinfo counts.
const LINES: [&str; 7] = [
    "MemFree",
    "SUnreclaim",
    "VmallocUsed",
    "Percpu",
    "PageTables",
    "KernelStack",
    "Shmem",
];

impl Memory {
    pub fn of(host: &mut Host) -> Memory {
        // What is freed later (RCU, work queues) gets the time to be.
        let text = host.check(
            "sleep 2; sync; echo 3 >/proc/sys/vm/drop_caches; sleep 1; cat /proc/meminfo
            grep count: /proc/zoneinfo",
        );
        let kept = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("count:"));
        let kept: i64 = kept
            .map(|pages| pages.trim().parse::<i64>().unwrap_or(0))
            .sum();
        let lines = text.lines().filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let kib = rest.trim().strip_suffix(" kB")?.parse().ok()?;
            LINES.contains(&name).then(|| (name.to_owned(), kib))
        });
        let mut memory = Memory(lines.collect());
        assert_eq!(memory.0.len(), LINES.len(), "{text}");
        memory
            .0
            .entry("MemFree".to_owned())
            .and_modify(|kib| *kib += 4 * kept);
        memory
    }

    /// How many KiB are in use now that were not before, by the line that shows the most.
    pub fn lost_since(&self, before: &Memory) -> i64 {
        let lost = |name: &str| match name {
            "MemFree" => before.0[name] - self.0[name],
            _ => self.0[name] - before.0[name],
        };
        LINES.into_iter().map(lost).max().unwrap_or(0)
    }

    pub fn assert_lost_less_than(&self, kib: i64, before: &Memory) {
        let lost = self.lost_since(before);
        println!("lost {lost} KiB: {:?} -> {:?}", before.0, self.0);
        assert!(
            lost < kib,
            "{lost} KiB of the host's memory are lost\nbefore: {:#?}\nafter: {:#?}",
            before.0,
            self.0
        );
    }
}

#[test]
fn fifty_vms_created_run_and_destroyed_lose_no_memory() {
    on_host(one_cpu(), |host| {
        let rounds = |host: &mut Host, count: u32| {
            let run = bhyve("guest0", 32);
            let output = host.run_within(
                Duration::from_secs(300),
                &format!(
                    "for i in $(seq {count}); do
                        bhyveload -k /guests/modes -m 32 guest0 >/tmp/log || break
                        {run} </dev/null >>/tmp/log
                        [ $? = 1 ] && grep -q GUEST-OK /tmp/log && bhyvectl --vm=guest0 --destroy || break
                        [ $i != {count} ] || exit 0
                    done
                    cat /tmp/log
                    exit 1"
                ),
            );
            assert!(output.success(), "{output}");
        };
        rounds(host, 5);
        let before = Memory::of(host);
        rounds(host, 50);
        // One page for each VM would be 200.
        Memory::of(host).assert_lost_less_than(150, &before);

        // The measure is good: it sees a VM.
        host.bhyveload("guest0", "modes", 32);
        let lost = Memory::of(host).lost_since(&before);
        assert!(lost >= 150, "a VM costs only {lost} KiB");
        host.destroy("guest0");
    });
}
