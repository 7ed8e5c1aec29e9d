//! `check_ko FILE`: says what keeps FreeBSD's kernel from loading and running the module.

use std::process::ExitCode;

use vmm_rs_e2e::check_ko::{Kpi, check};

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: check_ko vmm_rs.ko");
        return ExitCode::from(2);
    };
    match run(&path) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("check_ko: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(path: &str) -> Result<usize, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{path}: {e}; build it with `make ko`"))?;
    let list = std::fs::read_to_string(Kpi::PATH).map_err(|e| format!("{}: {e}", Kpi::PATH))?;
    let kpi = Kpi::parse(&list)?;
    let problems = check(&bytes, &kpi)?;
    for problem in &problems {
        eprintln!("{path}: {problem}");
    }
    match problems.len() {
        0 => println!(
            "{path}: fit for FreeBSD's kernel ({} kernel symbols used)",
            kpi.symbols().count()
        ),
        n => eprintln!("*** {path}: {n} problems"),
    }
    Ok(problems.len())
}
