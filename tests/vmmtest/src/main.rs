//! vmmtest: tests of the loaded module, run on the host that has it (the lab, or a FreeBSD
//! host): `vmmtest [part of a test's name]…`. Each test makes its own VM, runs a few
//! hand-assembled instructions in it and checks what VM_RUN and the other calls answer.
//! The output has libtest's form, the exit status is 0 only if all passed.

mod abi;
mod compat;
mod devices;
mod emulate;
mod emulate_faults;
mod exits;
mod lifecycle;
mod machine;
mod mapping;
mod memory;
mod owner;
mod registers;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// A test, and the module it is from.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.first().is_some_and(|arg| arg == owner::AS_OTHER) {
        return owner::as_other();
    }
    let tests = [
        exits::TESTS,
        emulate::TESTS,
        emulate_faults::TESTS,
        registers::TESTS,
        memory::TESTS,
        mapping::TESTS,
        abi::TESTS,
        compat::TESTS,
        devices::TESTS,
        lifecycle::TESTS,
        owner::TESTS,
    ]
    .concat();
    let chosen: Vec<Test> = tests
        .into_iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| name.contains(w)))
        .collect();
    println!("running {} tests", chosen.len());
    let mut failed = Vec::new();
    for (name, test) in &chosen {
        let watch = watch(name);
        let ok = catch_unwind(test).is_ok();
        drop(watch);
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        if !ok {
            failed.push(*name);
        }
    }
    let passed = chosen.len() - failed.len();
    println!("test result: {passed} passed; {} failed", failed.len());
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Longer than any test takes, also on a slow emulated CPU.
const LIMIT: Duration = Duration::from_secs(60);

/// Ends the program with the test's name if it is still running after [`LIMIT`]; dropping
/// the sender says that it is not.
fn watch(name: &'static str) -> Sender<()> {
    let (done, ended) = channel();
    thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            println!("test {name} ... FAILED\nit did not end within {LIMIT:?}");
            std::process::exit(1);
        }
    });
    done
}

/// The list of a module's tests: `tests! { name, … }` for functions of these names.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub const TESTS: &[(&str, fn())] = &[$((concat!(module_path!(), "::", stringify!($name)), $name),)*];
    };
}
