//! The lab itself: what every other end-to-end test relies on.

use std::process::Command;
use std::time::{Duration, Instant};

use vmm_rs_e2e::lab::{Lab, LabConfig, shared};

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
    lab.check("has_vt_x");
    lab.check(
        "for program in bhyve bhyveload bhyvectl; do command -v $program || exit; done
        test -f /root/vmm_rs.ko",
    );
}

/// As on a FreeBSD host with VT-x, where `make test` needs no emulated machine.
#[test]
#[cfg_attr(native_host, ignore = "all other tests run that way")]
fn this_machine_can_be_the_lab() {
    let build = env!("CARGO_MANIFEST_DIR");
    let mut agent = Command::new(format!("{build}/build/lab/userland/lab_agent"));
    agent.arg("-");
    let mut lab = Lab::with_agent(agent, &format!("{build}/tests/lab/linux/words.sh"));
    let output = lab.run("echo out; echo err >&2; kill -KILL $$");
    assert_eq!(
        (output.text.as_str(), output.status),
        ("out\nerr\n", 128 + 9)
    );
    // Its words are there.
    lab.check("pid_of lab_agent");

    // The agent's end is noticed, and said.
    let killed = std::thread::spawn(move || lab.run("kill -KILL $PPID; sleep 10"));
    assert!(killed.join().is_err());
}
