//! bhyve killed at any moment leaves a VM that can be run again or destroyed.

use std::time::Duration;

use vmm_rs_e2e::lab::LabConfig;

use crate::host::{Host, bhyve, on_host, one_cpu, two_cpus};

const ROUNDS: u32 = 20;
const LIMIT: Duration = Duration::from_secs(120);

/// Starts bhyve, lets it run for that long, and kills it. Status 137: it was alive, and
/// the signal ended it.
fn kill_after(host: &mut Host, microseconds: u32) -> String {
    let run = bhyve("guest0", 32);
    let seconds = f64::from(microseconds) / 1e6;
    let output = host.run_within(
        LIMIT,
        &format!(
            "{run} </dev/null >/tmp/log 2>&1 &
            bhyve=$!
            sleep {seconds}
            kill -9 $bhyve
            wait $bhyve
            status=$?
            cat /tmp/log
            exit $status"
        ),
    );
    assert_eq!(output.status, 128 + 9, "{output}");
    output.text
}

/// Runs it until the guest has counted on: a number that is larger than before.
fn runs_again(host: &mut Host, last: Option<u64>) {
    let run = bhyve("guest0", 32);
    let next = last.map_or(0, |last| last + 2);
    let output = host.run_within(
        LIMIT,
        &format!(
            "{run} </dev/null >/tmp/log 2>&1 &
            bhyve=$!
            while kill -0 $bhyve 2>/dev/null; do
                last=$(grep -o '^spin [0-9]*' /tmp/log | tail -n 1)
                [ \"${{last#spin }}\" -ge {next} ] 2>/dev/null && break
                sleep 0.02
            done
            kill -9 $bhyve
            wait $bhyve
            status=$?
            cat /tmp/log
            exit $status"
        ),
    );
    assert_eq!(output.status, 128 + 9, "bhyve ended by itself: {output}");
    if let (Some(last), Some(first)) = (last, first_whole_count(&output.text)) {
        assert!(
            first <= last + 2,
            "the guest went on at {first} after {last}: {output}"
        );
    }
}

/// The guest's count in the last line that is whole.
fn last_count(text: &str) -> Option<u64> {
    let (whole, _) = text.rsplit_once('\n')?;
    whole.lines().rev().find_map(count)
}

fn first_whole_count(text: &str) -> Option<u64> {
    text.lines().find_map(count)
}

fn count(line: &str) -> Option<u64> {
    line.trim_end().strip_prefix("spin ")?.parse().ok()
}

fn killed_at_random_moments(config: LabConfig) {
    on_host(config, |host| {
        // Any moment from the start of the program on, the same ones in each run.
        let mut random = 1u32;
        let mut counted = 0;
        for round in 0..ROUNDS {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let microseconds = 1000 + (random >> 8) % 400_000;
            host.bhyveload("guest0", "spin", 32);
            let text = kill_after(host, microseconds);
            let last = last_count(&text);
            counted += u32::from(last.is_some());
            if round % 2 == 0 {
                runs_again(host, last);
            }
            host.destroy("guest0");
            assert_eq!(host.vms(), [""; 0], "round {round}");
        }
        // Otherwise the moments are all before the guest's first line.
        assert!(
            counted >= ROUNDS / 4,
            "the guest ran in {counted} rounds of {ROUNDS}"
        );
        host.unload_module();
    });
}

#[test]
fn a_vm_whose_bhyve_was_killed_runs_again_or_goes_on_one_cpu() {
    killed_at_random_moments(one_cpu());
}

#[test]
fn a_vm_whose_bhyve_was_killed_runs_again_or_goes_on_two_cpus() {
    killed_at_random_moments(two_cpus());
}
