//! The program: options, request, action; each failure is one line on stderr, after the
//! errno on stdout that bhyvectl(8) prints.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use bhyvectl::request::{self, Answer};
use bhyvectl::{act, options, platform};

fn main() -> ExitCode {
    let args = match cli::args() {
        Ok(args) => args,
        Err(message) => {
            eprintln!("bhyvectl: {message}");
            return ExitCode::FAILURE;
        }
    };
    let progname = cli::progname(args.first());
    let vendor = match platform::vendor() {
        Ok(vendor) => vendor,
        Err(name) => {
            eprintln!("{progname}: unknown cpu vendor \"{name}\"");
            return ExitCode::FAILURE;
        }
    };
    let described = options::table(vendor);
    let [stock, added] = options::long_options(&described);
    let request = match request::parse(args.get(1..).unwrap_or_default(), &[&stock, &added]) {
        Ok(Answer::Run(request)) => request,
        Ok(Answer::Help) => {
            print!("{}", options::usage(progname, &described));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{progname}: {error}");
            if error.wants_usage() {
                eprint!("{}", options::usage(progname, &described));
            }
            return ExitCode::FAILURE;
        }
    };
    match act::run(&request, vendor, progname) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(errno) = failure.errno() {
                println!("errno = {errno}");
            }
            eprintln!("{progname}: {failure}");
            ExitCode::from(failure.status())
        }
    }
}
