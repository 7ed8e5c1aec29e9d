//! The program: options, then all that they ask for; each failure is one line on stderr.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use bhyveload::options::{self, Answer, OptionError};
use bhyveload::run;

const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match cli::args() {
        Ok(args) => args,
        Err(message) => {
            eprintln!("bhyveload: {message}");
            return ExitCode::from(EX_USAGE);
        }
    };
    let progname = cli::progname(args.first());
    let options = match options::parse(args.get(1..).unwrap_or_default()) {
        Ok(Answer::Load(options)) => options,
        Ok(Answer::Help) => {
            print!("{}", options::help(progname));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{progname}: {error}");
            if matches!(error, OptionError::Getopt(_) | OptionError::Usage) {
                eprint!("{}", options::usage(progname));
                return ExitCode::FAILURE;
            }
            return ExitCode::from(EX_USAGE);
        }
    };
    match run::run(&options, progname) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{progname}: {}", failure.message);
            ExitCode::from(failure.status)
        }
    }
}
