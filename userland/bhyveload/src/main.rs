//! The program: options, files, plan, load; each failure is one line on stderr.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use bhyveload::options::{self, Answer, OptionError, Options};
use bhyveload::{load, plan};

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
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{progname}: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let request = load::read_files(options)?;
    let plan = plan::plan(&request).map_err(|e| e.to_string())?;
    load::load(options, &plan).map_err(|e| e.to_string())?;
    println!(
        "{}: {} loaded ({}), {} of memory, entry {:#x}",
        options.vm,
        options.kernel.path,
        plan.format,
        cli::size::memsize(options.memory),
        plan.entry
    );
    Ok(())
}
