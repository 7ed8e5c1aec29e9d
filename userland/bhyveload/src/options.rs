//! The command line: FreeBSD's bhyveload(8) options, and a group of long ones for what
//! this loader adds. An option whose feature isn't there is refused by name.

use std::fmt;

use cli::getopt::{self, Getopt};
use cli::getopt_long::{self, HasArg, LongOpt};
use cli::number::parse_digits;
use cli::size::{SizeError, parse_memsize};

use crate::plan::Format;

/// bhyveload(8)'s default.
const DEFAULT_MEMORY: u64 = 256 << 20;

/// A file to load and the text behind the first comma.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileArg {
    pub path: String,
    pub arguments: String,
}

/// What the command line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub vm: String,
    pub memory: u64,
    /// -S.
    pub wired: bool,
    /// -C.
    pub in_core: bool,
    pub kernel: FileArg,
    pub modules: Vec<FileArg>,
    pub initrd: Option<FileArg>,
    pub format: Option<Format>,
    pub load_address: Option<u64>,
    pub entry: Option<u64>,
}

/// What it says instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Load(Options),
    Help,
}

/// Why it makes no sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionError {
    /// The message of getopt, and the usage.
    Getopt(String),
    /// The usage alone: operands are missing or too many.
    Usage,
    MemSize {
        text: String,
        error: SizeError,
    },
    Number {
        option: &'static str,
        text: String,
    },
    Format(String),
    NotYet {
        option: String,
        what: &'static str,
    },
    NoKernel,
    Repeated(&'static str),
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Getopt(message) => f.write_str(message),
            Self::Usage => f.write_str("one VM name is wanted after the options"),
            Self::MemSize { text, error } => write!(f, "invalid memsize '{text}': {error}"),
            Self::Number { option, text } => {
                write!(f, "{option}: '{text}' is not a number (0x… is hexadecimal)")
            }
            Self::Format(name) => {
                write!(
                    f,
                    "--format: '{name}' is none of auto, flat, elf, multiboot, linux, pvh"
                )
            }
            Self::NotYet { option, what } => write!(f, "{option}: {what}"),
            Self::NoKernel => f.write_str(
                "nothing to load: name an image with --kernel=FILE (FreeBSD's userboot, which \
                 would load from a disk or a directory, is not part of this version)",
            ),
            Self::Repeated(option) => write!(f, "{option} is given twice"),
        }
    }
}

impl From<getopt::Error> for OptionError {
    fn from(error: getopt::Error) -> Self {
        Self::Getopt(error.to_string())
    }
}

impl From<getopt_long::Error> for OptionError {
    fn from(error: getopt_long::Error) -> Self {
        Self::Getopt(error.to_string())
    }
}

/// FreeBSD 15's option string, 2013's -M, and -k and -i, which are --kernel and --initrd.
const OPTSTRING: &str = "CSc:d:e:h:l:m:M:k:i:";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Long {
    Kernel,
    Module,
    Initrd,
    Format,
    Entry,
    LoadAddress,
    Help,
}

const LONG: [LongOpt<Long>; 7] = [
    LongOpt {
        name: "kernel",
        has_arg: HasArg::Required,
        id: Long::Kernel,
    },
    LongOpt {
        name: "module",
        has_arg: HasArg::Required,
        id: Long::Module,
    },
    LongOpt {
        name: "initrd",
        has_arg: HasArg::Required,
        id: Long::Initrd,
    },
    LongOpt {
        name: "format",
        has_arg: HasArg::Required,
        id: Long::Format,
    },
    LongOpt {
        name: "entry",
        has_arg: HasArg::Required,
        id: Long::Entry,
    },
    LongOpt {
        name: "load-address",
        has_arg: HasArg::Required,
        id: Long::LoadAddress,
    },
    LongOpt {
        name: "help",
        has_arg: HasArg::No,
        id: Long::Help,
    },
];

/// The synopsis, as usage errors print it.
pub fn usage(progname: &str) -> String {
    let indent = " ".repeat(progname.len());
    format!(
        "usage: {progname} [-CS] [-m memsize[K|k|M|m|G|g|T|t]] [--format=FORMAT]\n       \
         {indent} [--load-address=ADDRESS] [--entry=ADDRESS]\n       \
         {indent} --kernel=FILE[,ARGUMENTS] [--initrd=FILE] [--module=FILE[,ARGUMENTS]] vmname\n"
    )
}

/// The whole help text.
pub fn help(progname: &str) -> String {
    format!(
        "{}\n\
         Creates the VM, or resets it if it exists, and loads a program into its memory.\n\n\
         \x20 -C                    include guest memory in core files\n\
         \x20 -S                    wire guest memory\n\
         \x20 -m memsize            guest memory (a plain number is in MB; default 256M)\n\
         \x20 --kernel=FILE[,ARGS]  the image to load, and the text it gets as its command line\n\
         \x20                       (-k FILE[,ARGS] is the same)\n\
         \x20 --initrd=FILE         the initial RAM disk of a Linux kernel (-i FILE is the same)\n\
         \x20 --module=FILE[,ARGS]  a file to load beside a multiboot or PVH kernel; may be repeated\n\
         \x20 --format=FORMAT       auto (default), or one of\n\
         \x20     flat       the file as it is at --load-address (default 0x7c00), real mode\n\
         \x20     elf        ELF64 at its physical addresses, long mode, first 4 GiB mapped one\n\
         \x20                to one; RDI points to the command line, RSI is the memory size\n\
         \x20     multiboot  multiboot 1 (ELF32, ELF64 or address fields), 32-bit protected mode\n\
         \x20     linux      bzImage with a 64-bit entry point (vmlinuz of x86-64, Linux 3.8 on)\n\
         \x20     pvh        ELF with Xen's PVH note (vmlinux, FreeBSD's kernel), 32-bit\n\
         \x20                protected mode\n\
         \x20 --load-address=ADDR   physical address of a flat binary\n\
         \x20 --entry=ADDR          physical address of the first instruction\n\n\
         -c, -d, -e, -h and -l belong to FreeBSD's userboot, which this version doesn't load.\n",
        usage(progname)
    )
}

/// Takes the arguments (without `argv[0]`) apart.
pub fn parse(args: &[String]) -> Result<Answer, OptionError> {
    let mut getopt = Getopt::new(args, OPTSTRING);
    let mut memory = DEFAULT_MEMORY;
    let (mut wired, mut in_core) = (false, false);
    let (mut kernel, mut modules, mut format) = (None, Vec::new(), None);
    let (mut load_address, mut entry, mut initrd) = (None, None, None);
    loop {
        if let Some(typed) = getopt.take_long() {
            let found = getopt_long::resolve(typed, &LONG, || getopt.take_if(|_| true))?;
            let arg = found.arg.unwrap_or_default();
            match found.id {
                Long::Help => return Ok(Answer::Help),
                Long::Kernel => set_once(&mut kernel, "--kernel", file_arg(arg))?,
                Long::Initrd => set_once(&mut initrd, "--initrd", plain_file(arg))?,
                Long::Module => modules.push(file_arg(arg)),
                Long::Format => format = format_by_name(arg)?,
                Long::Entry => entry = Some(address("--entry", arg)?),
                Long::LoadAddress => load_address = Some(address("--load-address", arg)?),
            }
            continue;
        }
        let Some(option) = getopt.next() else { break };
        let option = option?;
        let arg = option.arg.unwrap_or_default();
        match option.name {
            'C' => in_core = true,
            'S' => wired = true,
            'k' => set_once(&mut kernel, "--kernel", file_arg(arg))?,
            'i' => set_once(&mut initrd, "--initrd", plain_file(arg))?,
            'm' => {
                memory = parse_memsize(arg).map_err(|error| OptionError::MemSize {
                    text: arg.to_owned(),
                    error,
                })?;
            }
            // The loader has no console of its own: its messages go to stdio.
            'c' if arg == "stdio" => {}
            name => return Err(not_yet(name)),
        }
    }
    let [vm] = getopt.operands() else {
        return Err(OptionError::Usage);
    };
    let kernel = kernel.ok_or(OptionError::NoKernel)?;
    let vm = vm.clone();
    Ok(Answer::Load(Options {
        vm,
        memory,
        wired,
        in_core,
        kernel,
        modules,
        initrd,
        format,
        load_address,
        entry,
    }))
}

fn not_yet(name: char) -> OptionError {
    let what = match name {
        'c' => "a console device for FreeBSD's userboot, which is not part of this version",
        'd' => "a disk for FreeBSD's userboot, which is not part of this version",
        'e' => "an environment variable for FreeBSD's userboot, which is not part of this version",
        'h' => "a host directory for FreeBSD's userboot, which is not part of this version",
        'l' => "another userboot; this version loads none",
        _ => "memory above 4 GiB had an option of its own in 2013; -m is the whole size today",
    };
    OptionError::NotYet {
        option: format!("-{name}"),
        what,
    }
}

fn set_once(
    place: &mut Option<FileArg>,
    option: &'static str,
    file: FileArg,
) -> Result<(), OptionError> {
    match place.replace(file) {
        None => Ok(()),
        Some(_) => Err(OptionError::Repeated(option)),
    }
}

/// A file that takes no arguments, so that a comma is part of its name.
fn plain_file(path: &str) -> FileArg {
    FileArg {
        path: path.to_owned(),
        arguments: String::new(),
    }
}

fn file_arg(text: &str) -> FileArg {
    let (path, arguments) = text.split_once(',').unwrap_or((text, ""));
    FileArg {
        path: path.to_owned(),
        arguments: arguments.to_owned(),
    }
}

fn format_by_name(name: &str) -> Result<Option<Format>, OptionError> {
    Ok(match name {
        "auto" => None,
        "flat" => Some(Format::Flat),
        "elf" => Some(Format::Elf),
        "multiboot" => Some(Format::Multiboot),
        "linux" => Some(Format::Linux),
        "pvh" => Some(Format::Pvh),
        _ => return Err(OptionError::Format(name.to_owned())),
    })
}

fn address(option: &'static str, text: &str) -> Result<u64, OptionError> {
    parse_digits(text).ok_or_else(|| OptionError::Number {
        option,
        text: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Answer, OptionError> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&args)
    }

    fn load(line: &str) -> Options {
        match run(line).unwrap() {
            Answer::Load(options) => options,
            Answer::Help => panic!("help"),
        }
    }

    fn refusal(line: &str) -> String {
        run(line).unwrap_err().to_string()
    }

    #[test]
    fn freebsd_and_own_options_mix() {
        let o = load("-CSm 512M --kernel=k,console=com1,a --module m1 --format=multiboot guest0");
        assert_eq!((o.vm.as_str(), o.memory), ("guest0", 512 << 20));
        assert!(o.wired && o.in_core);
        assert_eq!(
            (o.kernel.path.as_str(), o.kernel.arguments.as_str()),
            ("k", "console=com1,a")
        );
        assert_eq!(o.modules.len(), 1);
        assert_eq!(o.format, Some(Format::Multiboot));
        let o = load("-k boot.bin --load-address=0x8000 --entry 0x8002 -m1024 guest0");
        assert_eq!(
            (o.load_address, o.entry, o.memory),
            (Some(0x8000), Some(0x8002), 1 << 30)
        );
        assert_eq!(load("-c stdio --kernel k g").memory, 256 << 20);
        for line in ["--initrd=a,b --kernel=k g", "-i a,b -k k g"] {
            let initrd = load(line).initrd.unwrap();
            assert_eq!(
                (initrd.path.as_str(), initrd.arguments.as_str()),
                ("a,b", "")
            );
        }
        assert_eq!(load("--format=pvh -k k g").format, Some(Format::Pvh));
    }

    #[test]
    fn what_needs_userboot_is_refused_by_name() {
        assert!(refusal("-d diskdev -m 1024 guest0").starts_with("-d: a disk for FreeBSD's"));
        for line in [
            "-e a=b g",
            "-h /boot g",
            "-l /x g",
            "-c /dev/nmdm0A g",
            "-M 512 g",
        ] {
            assert!(refusal(line).starts_with(&line[..2]), "{line}");
        }
        assert!(refusal("guest0").contains("--kernel=FILE"));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(refusal("-q guest0"), "illegal option -- q");
        assert_eq!(refusal("-m"), "option requires an argument -- m");
        assert_eq!(refusal("--nope g"), "unrecognized option `--nope'");
        assert!(refusal("-m 12Q --kernel k g").starts_with("invalid memsize '12Q'"));
        assert!(refusal("--kernel k --entry x g").starts_with("--entry: 'x'"));
        assert!(refusal("--kernel k --format pe g").contains("'pe'"));
        assert!(refusal("--kernel k --kernel k g").contains("twice"));
        assert!(refusal("-k k --kernel k g").contains("twice"));
        assert!(refusal("-k k -i i --initrd=i g").starts_with("--initrd is given twice"));
        assert_eq!(run("--kernel k"), Err(OptionError::Usage));
        assert_eq!(run("--kernel k a b"), Err(OptionError::Usage));
        assert_eq!(run("--help"), Ok(Answer::Help));
    }
}
