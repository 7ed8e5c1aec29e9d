//! The command line: all options of FreeBSD 15's bhyveload(8), 2013's -M, and a group of
//! long ones for what this loader adds.

#![forbid(unsafe_code)]

use std::fmt;

use cli::getopt::{self, Getopt};
use cli::getopt_long::{self, HasArg, LongOpt};
use cli::number::parse_digits;
use cli::size::{SizeError, parse_memsize};

use crate::plan::Format;

/// bhyveload(8)'s default.
const DEFAULT_MEMORY: u64 = 256 << 20;
/// As many disks as FreeBSD's bhyveload takes.
const MAX_DISKS: usize = 32;

/// A file to load and the text behind the first comma.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileArg {
    pub path: String,
    pub arguments: String,
}

/// Which program finds FreeBSD's kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoaderChoice {
    /// FreeBSD's userboot.so where there is one, else ours.
    Auto,
    /// FreeBSD's userboot.so.
    Userboot,
    /// Ours.
    Native,
}

/// What the command line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub vm: String,
    /// -m and 2013's -M together.
    pub memory: u64,
    /// -S.
    pub wired: bool,
    /// -C.
    pub in_core: bool,
    /// -c; `None` is stdio.
    pub console: Option<String>,
    /// -d, in this order.
    pub disks: Vec<String>,
    /// -e, in this order.
    pub variables: Vec<String>,
    /// -h.
    pub host_directory: Option<String>,
    /// -l.
    pub os_loader: Option<String>,
    pub loader: LoaderChoice,
    pub kernel: Option<FileArg>,
    pub modules: Vec<FileArg>,
    pub initrd: Option<FileArg>,
    pub format: Option<Format>,
    pub load_address: Option<u64>,
    pub entry: Option<u64>,
}

/// What it says instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Load(Box<Options>),
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
    Loader(String),
    TooManyDisks(String),
    OsLoaderTwice,
    Repeated(&'static str),
    /// Two options that contradict each other.
    Conflict(&'static str, &'static str),
    /// Options of the formats of --kernel without it.
    WithoutKernel(&'static str),
    NothingToLoad,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Getopt(message) => f.write_str(message),
            Self::Usage => f.write_str("one VM name is wanted after the options"),
            Self::MemSize { text, error } => write!(f, "Invalid memsize '{text}': {error}"),
            Self::Number { option, text } => {
                write!(f, "{option}: '{text}' is not a number (0x… is hexadecimal)")
            }
            Self::Format(name) => {
                write!(
                    f,
                    "--format: '{name}' is none of auto, flat, elf, multiboot, linux, pvh, freebsd"
                )
            }
            Self::Loader(name) => {
                write!(f, "--loader: '{name}' is none of auto, userboot, native")
            }
            Self::TooManyDisks(path) => write!(
                f,
                "Could not open '{path}': there are {MAX_DISKS} disks already, no loader takes more"
            ),
            Self::OsLoaderTwice => f.write_str("-l can only be given once"),
            Self::Repeated(option) => write!(f, "{option} is given twice"),
            Self::Conflict(one, other) => write!(f, "{one} does not go with {other}"),
            Self::WithoutKernel(option) => write!(f, "{option} goes with --kernel only"),
            Self::NothingToLoad => f.write_str(
                "nothing to load: -d DISK or -h DIRECTORY has a FreeBSD kernel in it, or \
                 --kernel=FILE names an image",
            ),
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
pub const OPTSTRING: &str = "CSc:d:e:h:l:m:M:k:i:";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Long {
    Kernel,
    Module,
    Initrd,
    Format,
    Entry,
    LoadAddress,
    Loader,
    Help,
}

const LONG: [LongOpt<Long>; 8] = [
    long("kernel", Long::Kernel),
    long("module", Long::Module),
    long("initrd", Long::Initrd),
    long("format", Long::Format),
    long("entry", Long::Entry),
    long("load-address", Long::LoadAddress),
    long("loader", Long::Loader),
    LongOpt {
        name: "help",
        has_arg: HasArg::No,
        id: Long::Help,
    },
];

/// The names of the long options, for the documents' test.
pub fn long_names() -> impl Iterator<Item = &'static str> {
    LONG.iter().map(|option| option.name)
}

const fn long(name: &'static str, id: Long) -> LongOpt<Long> {
    LongOpt {
        name,
        has_arg: HasArg::Required,
        id,
    }
}

/// The synopsis, as usage errors print it: FreeBSD's, then what is this loader's own.
pub fn usage(progname: &str) -> String {
    let indent = " ".repeat(progname.len());
    format!(
        "usage: {progname} [-CS] [-c <console-device>] [-d <disk-path>] [-e <name=value>]\n       \
         {indent} [-h <host-path>] [-l <os-loader>] [-m memsize[K|k|M|m|G|g|T|t]]\n       \
         {indent} [--loader=auto|userboot|native] <vmname>\n       \
         {progname} [-CS] [-m memsize] --kernel=FILE[,ARGUMENTS] [--format=FORMAT]\n       \
         {indent} [--initrd=FILE] [--module=FILE[,ARGUMENTS]]\n       \
         {indent} [--load-address=ADDRESS] [--entry=ADDRESS] <vmname>\n"
    )
}

/// The whole help text.
pub fn help(progname: &str) -> String {
    format!(
        "{}\n\
         Creates the VM, or resets it if it exists, and loads a kernel into its memory: FreeBSD's\n\
         from a disk or directory, or the one that --kernel names.\n\n\
         \x20 -C                    include guest memory in core files\n\
         \x20 -S                    wire guest memory\n\
         \x20 -c cons-dev           where the loader's messages go: stdio (default) or a tty\n\
         \x20 -d disk-path          the guest's disk (UFS or ISO 9660); may be repeated\n\
         \x20 -e name=value         a variable of the loader, and so of the kernel; may be repeated\n\
         \x20 -h host-path          a directory of the host as the guest's root file system\n\
         \x20 -l os-loader          a userboot.so instead of /boot/userboot.so\n\
         \x20 -m memsize            guest memory (a plain number is in MB; default 256M)\n\
         \x20 -M memsize            more of it (2013's memory above 4 GB)\n\
         \x20 --loader=LOADER       auto (default): FreeBSD's /boot/userboot.so if there is one,\n\
         \x20                       else native, a loader of our own; or one of both names\n\
         \x20 --kernel=FILE[,ARGS]  the image to load, and the text it gets as its command line\n\
         \x20                       (-k FILE[,ARGS] is the same)\n\
         \x20 --initrd=FILE         the initial RAM disk of a Linux kernel (-i FILE is the same)\n\
         \x20 --module=FILE[,ARGS]  a file to load beside a multiboot, PVH or FreeBSD kernel; may be\n\
         \x20                       repeated; FreeBSD's FILE,type=TYPE is a file of that type\n\
         \x20                       (md_image, mfs_root …), not a kernel module\n\
         \x20 --format=FORMAT       auto (default), or one of\n\
         \x20     flat       the file as it is at --load-address (default 0x7c00), real mode\n\
         \x20     elf        ELF64 at its physical addresses, long mode, first 4 GiB mapped one\n\
         \x20                to one; RDI points to the command line, RSI is the memory size\n\
         \x20     multiboot  multiboot 1 (ELF32, ELF64 or address fields), 32-bit protected mode\n\
         \x20     linux      bzImage with a 64-bit entry point (vmlinuz of x86-64, Linux 3.8 on)\n\
         \x20     pvh        ELF with Xen's PVH note (vmlinux, FreeBSD's kernel), 32-bit\n\
         \x20                protected mode\n\
         \x20     freebsd    FreeBSD's kernel for amd64 with its environment and modules\n\
         \x20 --load-address=ADDR   physical address of a flat binary\n\
         \x20 --entry=ADDR          physical address of the first instruction\n",
        usage(progname)
    )
}

/// Takes the arguments (without `argv[0]`) apart.
pub fn parse(args: &[String]) -> Result<Answer, OptionError> {
    let mut getopt = Getopt::new(args, OPTSTRING);
    let mut options = Options::default();
    let (mut memory, mut more_memory) = (DEFAULT_MEMORY, 0);
    loop {
        if let Some(typed) = getopt.take_long() {
            let found = getopt_long::resolve(typed, &LONG, || getopt.take_if(|_| true))?;
            let arg = found.arg.unwrap_or_default();
            match found.id {
                Long::Help => return Ok(Answer::Help),
                Long::Kernel => set_once(&mut options.kernel, "--kernel", file_arg(arg))?,
                Long::Initrd => set_once(&mut options.initrd, "--initrd", plain_file(arg))?,
                Long::Module => options.modules.push(file_arg(arg)),
                Long::Format => options.format = format_by_name(arg)?,
                Long::Entry => options.entry = Some(address("--entry", arg)?),
                Long::LoadAddress => options.load_address = Some(address("--load-address", arg)?),
                Long::Loader => options.loader = loader_by_name(arg)?,
            }
            continue;
        }
        let Some(option) = getopt.next() else { break };
        let option = option?;
        let arg = option.arg.unwrap_or_default();
        match option.name {
            'C' => options.in_core = true,
            'S' => options.wired = true,
            // The same word as bhyve's, for scripts that give both the same.
            'c' => options.console = (arg != "stdio").then(|| arg.to_owned()),
            'd' if options.disks.len() == MAX_DISKS => {
                return Err(OptionError::TooManyDisks(arg.to_owned()));
            }
            'd' => options.disks.push(arg.to_owned()),
            'e' => options.variables.push(arg.to_owned()),
            'h' => options.host_directory = Some(arg.to_owned()),
            'l' if options.os_loader.is_some() => return Err(OptionError::OsLoaderTwice),
            'l' => options.os_loader = Some(arg.to_owned()),
            'k' => set_once(&mut options.kernel, "--kernel", file_arg(arg))?,
            'i' => set_once(&mut options.initrd, "--initrd", plain_file(arg))?,
            'm' => memory = memsize(arg)?,
            // None is what most of 2013's command lines had.
            _ => more_memory = if arg == "0" { 0 } else { memsize(arg)? },
        }
    }
    let [vm] = getopt.operands() else {
        return Err(OptionError::Usage);
    };
    options.vm = vm.clone();
    options.memory = memory
        .checked_add(more_memory)
        .ok_or(OptionError::MemSize {
            text: "-m and -M".to_owned(),
            error: SizeError::TooLarge,
        })?;
    options.check()?;
    Ok(Answer::Load(Box::new(options)))
}

impl Default for Options {
    fn default() -> Self {
        Self {
            vm: String::new(),
            memory: DEFAULT_MEMORY,
            wired: false,
            in_core: false,
            console: None,
            disks: Vec::new(),
            variables: Vec::new(),
            host_directory: None,
            os_loader: None,
            loader: LoaderChoice::Auto,
            kernel: None,
            modules: Vec::new(),
            initrd: None,
            format: None,
            load_address: None,
            entry: None,
        }
    }
}

impl Options {
    /// What FreeBSD's bhyveload sets in its loader for every guest.
    pub fn default_variables() -> Vec<String> {
        ["boot_serial=1", "smbios.bios.vendor=BHYVE"]
            .map(str::to_owned)
            .into()
    }

    /// -e in the order in which FreeBSD's bhyveload has them set: from the last to the first.
    pub fn variables_in_order(&self) -> Vec<String> {
        self.variables.iter().rev().cloned().collect()
    }

    /// Options that say nothing beside the others are mistakes. What depends on the kernel's
    /// format is for later.
    fn check(&self) -> Result<(), OptionError> {
        let native = self.loader == LoaderChoice::Native;
        let conflicts = [
            (self.os_loader.is_some() && native, "-l", "--loader=native"),
            (
                self.os_loader.is_some() && self.kernel.is_some(),
                "-l",
                "--kernel",
            ),
            (
                self.loader == LoaderChoice::Userboot && self.kernel.is_some(),
                "--loader=userboot",
                "--kernel",
            ),
        ];
        for (wrong, one, other) in conflicts {
            if wrong {
                return Err(OptionError::Conflict(one, other));
            }
        }
        if self.kernel.is_some() {
            return Ok(());
        }
        let given = [
            (!self.modules.is_empty(), "--module"),
            (self.initrd.is_some(), "--initrd"),
            (self.format.is_some(), "--format"),
            (self.entry.is_some(), "--entry"),
            (self.load_address.is_some(), "--load-address"),
        ];
        match given.iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(OptionError::WithoutKernel(option)),
            None => Ok(()),
        }
    }
}

fn memsize(text: &str) -> Result<u64, OptionError> {
    parse_memsize(text).map_err(|error| OptionError::MemSize {
        text: text.to_owned(),
        error,
    })
}

fn loader_by_name(name: &str) -> Result<LoaderChoice, OptionError> {
    Ok(match name {
        "auto" => LoaderChoice::Auto,
        "userboot" => LoaderChoice::Userboot,
        "native" => LoaderChoice::Native,
        _ => return Err(OptionError::Loader(name.to_owned())),
    })
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
        "freebsd" => Some(Format::FreeBsd),
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
            Answer::Load(options) => *options,
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
            o.kernel,
            Some(FileArg {
                path: "k".into(),
                arguments: "console=com1,a".into()
            })
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
    fn freebsds_command_lines_and_2013s_are_taken() {
        let o = load("-d diskdev -m 1024 guest0");
        assert_eq!((o.disks, o.memory), (vec!["diskdev".into()], 1 << 30));
        assert_eq!((o.vm.as_str(), o.loader), ("guest0", LoaderChoice::Auto));
        let o = load("-m 1024 -M 2048 -h / guest0");
        assert_eq!((o.memory, o.host_directory), (3 << 30, Some("/".into())));
        assert_eq!(load("-M 0 -d x g").memory, 256 << 20);
        // The examples of bhyveload(8).
        let o = load("-m 1G -d /freebsd/release.iso freebsd-vm");
        assert_eq!((o.memory, o.disks.len()), (1 << 30, 1));
        let o = load("-m 256MB -h /usr/images/test -c /dev/nmdm1B test-vm");
        assert_eq!(o.console, Some("/dev/nmdm1B".into()));
        // vmrun.sh.
        let o = load("-c stdio -m 512M -d a -d b -e x=1 -e y -l /boot/userboot_4th.so -SC vm0");
        assert_eq!(o.variables, ["x=1", "y"]);
        assert_eq!(o.os_loader, Some("/boot/userboot_4th.so".into()));
        assert_eq!((o.disks.len(), o.console), (2, None));
        assert!(o.wired && o.in_core);
        assert_eq!(load("--loader=native -d x g").loader, LoaderChoice::Native);
        assert_eq!(
            load("--format=freebsd -k k g").format,
            Some(Format::FreeBsd)
        );
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        assert_eq!(refusal("-l a -l b g"), "-l can only be given once");
        for line in [
            "-l a --loader=native g",
            "-l a -k k g",
            "--loader=userboot -k k g",
        ] {
            assert!(refusal(line).contains("does not go with"), "{line}");
        }
        for option in [
            "--module=m",
            "--initrd=i",
            "--format=elf",
            "--entry=1",
            "--load-address=1",
        ] {
            let line = format!("-d disk {option} g");
            assert!(
                refusal(&line).ends_with("goes with --kernel only"),
                "{line}"
            );
        }
        let many = "-d x ".repeat(33);
        assert!(refusal(&format!("{many}g")).starts_with("Could not open 'x': there are 32"));
        assert!(refusal("--loader=x g").starts_with("--loader: 'x'"));
        let line = format!("-m {} -M 1G -d x g", u64::MAX);
        assert!(refusal(&line).starts_with("Invalid memsize '-m and -M'"));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(refusal("-q guest0"), "illegal option -- q");
        assert_eq!(refusal("-m"), "option requires an argument -- m");
        assert_eq!(refusal("--nope g"), "unrecognized option `--nope'");
        assert!(refusal("-m 12Q --kernel k g").starts_with("Invalid memsize '12Q'"));
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
