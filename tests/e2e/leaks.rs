//! How much of its memory the host uses, and tests that creating and destroying VMs does
//! not change that.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::host::{Host, bhyve, on_bare_host, on_host, one_cpu};

/// What the host's kernel has in use, in KiB, after dropping caches, by what it is used for.
pub struct Memory(BTreeMap<String, i64>);

impl Memory {
    pub fn of(host: &mut Host) -> Memory {
        let text = host.check("kernel_memory");
        let lines = text.lines().map(|line| {
            let (name, kib) = line.split_once(' ')?;
            Some((name.to_owned(), kib.parse().ok()?))
        });
        let memory: Option<BTreeMap<String, i64>> = lines.collect();
        Memory(memory.unwrap_or_else(|| panic!("kernel_memory says:\n{text}")))
    }

    /// How many KiB are in use now that were not before, by the line that shows the most.
    pub fn lost_since(&self, before: &Memory) -> i64 {
        let lost = self.0.iter().map(|(name, kib)| kib - before.0[name]);
        lost.max().unwrap_or(0)
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

        // The measure is good: it sees a VM, with memory that is there before the guest is.
        host.check("bhyveload -S -k /guests/modes -m 32 guest0");
        let lost = Memory::of(host).lost_since(&before);
        assert!(lost >= 150, "a VM costs only {lost} KiB");
        host.destroy("guest0");
    });
}

/// Also the memory that is wired, that a process still maps when its VM is destroyed, and that
/// has names.
#[test]
#[cfg_attr(
    not(freebsd_host),
    ignore = "minutes more on the Linux host, where life:: has a hundred loads"
)]
fn a_hundred_rounds_of_load_use_and_unload_lose_no_memory() {
    on_bare_host(one_cpu(), |host| {
        let rounds = |host: &mut Host, count: u32| {
            let output = host.run_within(
                Duration::from_secs(900),
                &format!(
                    "for i in $(seq {count}); do
                        load_module && vmmtest wired device_segments survives a_guest_by >/tmp/log 2>&1 &&
                            unload_module || {{ cat /tmp/log; exit 1; }}
                    done"
                ),
            );
            assert!(output.success(), "{output}");
        };
        rounds(host, 10);
        let before = Memory::of(host);
        rounds(host, 100);
        // One page for each load would be 400.
        Memory::of(host).assert_lost_less_than(300, &before);
    });
}
