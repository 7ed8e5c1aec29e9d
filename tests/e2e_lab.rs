//! The lab itself: what every other end-to-end test relies on.

use std::time::{Duration, Instant};

use vmm_rs_e2e::lab::{LabConfig, shared};

#[test]
fn commands_give_their_output_and_status() {
    let mut lab = shared(LabConfig::default());

    let output = lab.run("echo out; echo err >&2; exit 3");
    assert_eq!((output.text.as_str(), output.status), ("out\nerr\n", 3));

    let output = lab.run("kill -KILL $$");
    assert_eq!((output.text.as_str(), output.status), ("", 128 + 9));

    // Quotes, newlines and text that is not ASCII arrive as they are.
    assert_eq!(
        lab.check("printf '%s|' \"a  b\" 'ü\n~ end 1'"),
        "a  b|ü\n~ end 1|"
    );
}

#[test]
fn large_output_is_whole_and_in_order() {
    let mut lab = shared(LabConfig::default());
    let text = lab.check("seq 1 2000");
    let expected: String = (1..=2000).map(|number| format!("{number}\n")).collect();
    assert_eq!(text, expected);
}

#[test]
fn a_round_trip_is_fast_enough_for_many_small_commands() {
    let mut lab = shared(LabConfig::default());
    lab.check("true");
    let start = Instant::now();
    for _ in 0..5 {
        lab.check("true");
    }
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?} for five commands",
        start.elapsed()
    );
}

#[test]
fn the_host_has_vt_x_and_our_programs() {
    let mut lab = shared(LabConfig::default());
    let cpu = lab.check("grep -m 1 flags /proc/cpuinfo");
    assert!(cpu.split_whitespace().any(|flag| flag == "vmx"), "{cpu}");
    lab.check("command -v bhyve bhyveload bhyvectl && test -f /root/vmm_rs.ko");
}
