//! The program: options, run, and the one place where it ends, so that terminals are always
//! put back and the exit code is bhyve's.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use bhyve::options::{self, Answer, Options};
use bhyve::pci::registry;
use bhyve::platform;
use bhyve::start::{self, Outcome};
use bhyve::unix_socket;
use bhyve::usage;

const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match cli::args() {
        Ok(args) => args,
        Err(message) => {
            eprintln!("bhyve: {message}");
            return ExitCode::from(EX_USAGE);
        }
    };
    let progname = cli::progname(args.first());
    let environment = std::env::var(options::VARIABLE).ok();
    match options::parse(args.get(1..).unwrap_or_default(), environment.as_deref()) {
        Ok(Answer::Run(options)) => ExitCode::from(run(progname, &options)),
        // As bhyve(8), which counts this as no run.
        Ok(Answer::Dump(lines)) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::FAILURE
        }
        Ok(Answer::Help) => {
            eprint!("{}", usage::usage(progname));
            ExitCode::SUCCESS
        }
        Ok(Answer::PciDevices) => {
            registry::DEVICES
                .iter()
                .for_each(|device| println!("{}", device.name));
            ExitCode::SUCCESS
        }
        Ok(Answer::LpcDevices) => {
            options::LPC_DEVICES
                .iter()
                .for_each(|name| println!("{name}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{progname}: {error}");
            if error.shows_usage() {
                eprint!("{}", usage::usage(progname));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(progname: &str, options: &Options) -> u8 {
    for note in &options.notes {
        eprintln!("{progname}: {note}");
    }
    let print_panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        platform::restore_terminals();
        print_panic(info);
    }));
    let result = start::run(options);
    platform::restore_terminals();
    unix_socket::remove_all();
    match result {
        Ok(Outcome { end, report }) => {
            if let Some(report) = report {
                eprintln!("{progname}: {}", report.trim_end());
            }
            end.exit_code()
        }
        Err(failure) => {
            eprintln!("{progname}: {}", failure.message);
            failure.exit_code
        }
    }
}
