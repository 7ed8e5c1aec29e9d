//! `check_ko MODULE...`: says what keeps FreeBSD's kernel from loading and running these
//! modules, and where the shim's lists of the kernel's functions and layouts are wrong or
//! not complete.

use std::path::Path;
use std::process::ExitCode;

use vmm_rs_e2e::check_ko::{Checked, Kpi, check, check_headers, check_layouts, unneeded};

const SHIM: &str = "kmod/shim/freebsd";

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        eprintln!("usage: check_ko vmm_rs.ko ...");
        return ExitCode::from(2);
    }
    match run(&paths) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(n) => {
            eprintln!("*** check_ko: {n} problems");
            ExitCode::FAILURE
        }
        Err(message) => {
            eprintln!("check_ko: {message}");
            ExitCode::from(2)
        }
    }
}

/// Returns how many problems it has written.
fn run(paths: &[String]) -> Result<usize, String> {
    let list = std::fs::read_to_string(Kpi::PATH).map_err(|e| format!("{}: {e}", Kpi::PATH))?;
    let kpi = Kpi::parse(&list)?;
    let mut count = 0;
    let mut modules: Vec<Checked> = Vec::new();
    for path in paths {
        let bytes =
            std::fs::read(path).map_err(|e| format!("{path}: {e}; build it with `make ko`"))?;
        let module = check(&bytes, &kpi).map_err(|e| format!("{path}: {e}"))?;
        for problem in &module.problems {
            eprintln!("{path}: {problem}");
        }
        if module.problems.is_empty() {
            println!(
                "{path}: fit for FreeBSD {} ({} kernel symbols used)",
                module.version / 100_000,
                module.needed.len()
            );
        }
        count += module.problems.len();
        modules.push(module);
    }
    let headers = vmm_headers::find()?;
    let mut about_shim = unneeded(&kpi, &modules);
    for kernel in headers.kernels()? {
        about_shim.extend(check_headers(&headers, &kernel, &kpi)?);
        about_shim.extend(check_layouts(&headers, &kernel, Path::new(SHIM))?);
    }
    for problem in &about_shim {
        eprintln!("{problem}");
    }
    Ok(count + about_shim.len())
}
