//! A run of the program, from its options to a VM with a kernel in it: which loader, which
//! files, which plan; every failure is one line and an exit status.

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use vmmapi::VcpuId;

use crate::console::Console;
use crate::freebsd::loader::{self, FreeBsdError, HostFile};
use crate::fs::{self, FileSystem, HostDir};
use crate::load;
use crate::options::{FileArg, LoaderChoice, OptionError, Options};
use crate::plan::{self, Format, Plan};
use crate::platform;
use crate::terminal::Terminal;
use crate::userboot::{self, Session, VmGuest};

/// sysexits(3), as FreeBSD's bhyveload uses them.
const EX_USAGE: u8 = 64;
const EX_OSERR: u8 = 71;
const EX_FAILURE: u8 = 1;

/// Why there is no VM with a kernel.
#[derive(Debug)]
pub struct Failure {
    pub status: u8,
    pub message: String,
}

impl Failure {
    fn new(message: impl ToString) -> Self {
        Self {
            status: EX_FAILURE,
            message: message.to_string(),
        }
    }

    fn usage(message: impl ToString) -> Self {
        Self {
            status: EX_USAGE,
            ..Self::new(message)
        }
    }
}

/// Does all that the options ask for.
pub fn run(options: &Options, progname: &str) -> Result<(), Failure> {
    if wants_userboot(options) {
        return run_userboot(options, progname);
    }
    let mut console = open_console(options, progname)?;
    if let Some(kernel) = &options.kernel {
        return load_kernel(options, kernel, &mut console);
    }
    if options.disks.is_empty() && options.host_directory.is_none() {
        return Err(Failure::usage(OptionError::NothingToLoad));
    }
    load_freebsd(options, None, Vec::new(), &mut console)
}

fn wants_userboot(options: &Options) -> bool {
    match options.loader {
        LoaderChoice::Userboot => true,
        LoaderChoice::Native => false,
        LoaderChoice::Auto => {
            options.os_loader.is_some() || (options.kernel.is_none() && userboot::is_here())
        }
    }
}

/// FreeBSD's own loader, in the guest's place until it hands a kernel over.
fn run_userboot(options: &Options, progname: &str) -> Result<(), Failure> {
    let os_error = |message: String| Failure {
        status: EX_OSERR,
        ..Failure::new(message)
    };
    let terminal = match &options.console {
        None => Terminal::stdio().map_err(|error| os_error(cli::io_error(&error)))?,
        Some(path) => {
            let device = open_device(path)?;
            let output = device.try_clone();
            let output = output.map_err(|error| os_error(cli::io_error(&error)))?;
            Terminal::new(device.into(), output.into())
        }
    };
    let disks = userboot::open_disks(&options.disks).map_err(Failure::usage)?;
    let directory = match &options.host_directory {
        Some(path) => Some(HostDir::open(path).map_err(|e| os_error(format!("-h: {e}")))?),
        None => None,
    };
    let object = userboot::object(options.os_loader.as_deref()).map_err(os_error)?;
    let variables = Options::default_variables().into_iter();
    let variables = variables.chain(options.variables_in_order());
    // An argument of a process has no NUL.
    let variables = variables
        .filter_map(|text| CString::new(text).ok())
        .collect();

    let opened = load::Opened::open(options).map_err(Failure::new)?;
    let guest = VmGuest {
        vm: opened.vm.clone(),
        vcpu: opened.vm.vcpu(VcpuId::BSP),
    };
    let mut session = Session::new(guest, terminal, progname);
    session.directory = directory;
    session.disks = disks;
    session.variables = variables;
    session.is_explicit = options.os_loader.is_some();
    session.terminal.make_raw();
    platform::userboot::run(&object, options.disks.len(), Box::new(session)).map_err(|why| {
        opened.discard();
        os_error(format!("{}: {why}", object.display()))
    })
}

/// An image that --kernel names.
fn load_kernel(options: &Options, kernel: &FileArg, console: &mut Console) -> Result<(), Failure> {
    let request = load::read_files(options, kernel).map_err(Failure::new)?;
    let format = plan::detect(&request)
        .map_err(|error| Failure::new(format!("{}: {error}", kernel.path)))?;
    if format == Format::FreeBsd {
        plan::check_options(&request, format).map_err(Failure::new)?;
        let modules = request.modules.into_iter().map(host_module).collect();
        return load_freebsd(options, Some(host_file(request.kernel)), modules, console);
    }
    // What FreeBSD's loader would take is a mistake beside another system's kernel.
    let given = [
        (!options.disks.is_empty(), "-d"),
        (options.host_directory.is_some(), "-h"),
        (!options.variables.is_empty(), "-e"),
    ];
    if let Some((_, option)) = given.iter().find(|(given, _)| *given) {
        return Err(Failure::usage(format!(
            "{option} goes with a FreeBSD kernel; {} is none ({format})",
            kernel.path
        )));
    }
    let files = [&request.kernel];
    for file in files
        .into_iter()
        .chain(&request.initrd)
        .chain(&request.modules)
    {
        console
            .reading(&file.path, file.bytes.len() as u64)
            .done("");
    }
    let plan = plan::plan(&request).map_err(Failure::new)?;
    carry_out(options, &plan, &kernel.path, console)
}

fn host_file(file: plan::File) -> HostFile {
    HostFile {
        path: file.path,
        bytes: file.bytes,
        arguments: file.arguments,
        kind: None,
    }
}

/// `FILE,type=md_image` is a file of that type; other arguments are the module's own.
fn host_module(file: plan::File) -> HostFile {
    let (first, rest) = match file.arguments.split_once(',') {
        Some((first, rest)) => (first, rest.to_owned()),
        None => (file.arguments.as_str(), String::new()),
    };
    match first.strip_prefix("type=") {
        Some(kind) if !kind.is_empty() => HostFile {
            kind: Some(kind.to_owned()),
            arguments: rest,
            ..host_file(file)
        },
        _ => host_file(file),
    }
}

/// A file system that may have a kernel.
struct Root {
    /// In the loader's words: "disk0p2", "host0".
    device: String,
    files: Box<dyn FileSystem>,
}

/// FreeBSD's kernel by our own loader: from a disk or the directory, or from the host.
fn load_freebsd(
    options: &Options,
    kernel: Option<HostFile>,
    modules: Vec<HostFile>,
    console: &mut Console,
) -> Result<(), Failure> {
    let roots = open_roots(options, console)?;
    let request = |files, volume, kernel, modules| loader::Request {
        files,
        volume,
        kernel,
        modules,
        defaults: Options::default_variables(),
        variables: options.variables_in_order(),
        memory: options.memory,
    };
    if let Some(kernel) = kernel {
        let path = kernel.path.clone();
        let root = roots.first();
        let files = root.map(|root| root.files.as_ref());
        let device = root.map_or("", |root| root.device.as_str());
        let request = request(files, device, Some(kernel), modules);
        let plan = loader::plan(request, console).map_err(Failure::new)?;
        return carry_out(options, &plan, &path, console);
    }
    let mut tried = Vec::new();
    for root in &roots {
        let request = request(Some(root.files.as_ref()), &root.device, None, Vec::new());
        match loader::plan(request, console) {
            Ok(plan) => return carry_out(options, &plan, &root.device, console),
            Err(error @ FreeBsdError::NoKernel { .. }) => tried.push(error.to_string()),
            Err(error) => return Err(Failure::new(error)),
        }
    }
    Err(Failure::new(tried.join("; ")))
}

/// The file systems on the disks, or if there are no disks, the directory: those with a
/// /boot, or all if none has one.
fn open_roots(options: &Options, console: &mut Console) -> Result<Vec<Root>, Failure> {
    let mut roots = Vec::new();
    let mut refused = Vec::new();
    for (n, path) in options.disks.iter().enumerate() {
        let could_not = |error: std::io::Error| {
            let why = cli::io_error(&error);
            Failure::usage(format!("Could not open '{path}': {why}"))
        };
        let file = File::open(path).map_err(could_not)?;
        match fs::open_disk(file, &format!("disk{n}")) {
            Ok(disk) => {
                for volume in disk.volumes {
                    console.line(&format!("{path}: {}", volume.label()));
                    let (device, files) = (volume.device, volume.files);
                    roots.push(Root { device, files });
                }
            }
            // A disk for data is none of a loader's business.
            Err(error) => refused.push(format!("{path}: {error}")),
        }
    }
    if let Some(path) = &options.host_directory {
        let files = HostDir::open(path).map_err(|error| Failure {
            status: EX_OSERR,
            ..Failure::new(format!("-h: {error}"))
        })?;
        if options.disks.is_empty() {
            roots.push(Root {
                device: "host0".to_owned(),
                files: Box::new(files),
            });
        }
    }
    if roots.is_empty() && !refused.is_empty() {
        return Err(Failure::new(refused.join("; ")));
    }
    for text in refused {
        console.warn(&text);
    }
    let (mut with_boot, mut unreadable) = (Vec::new(), Vec::new());
    for root in &roots {
        with_boot.push(match root.files.list("/boot") {
            Ok(names) => names.is_some(),
            Err(error) => {
                unreadable.push(error.to_string());
                false
            }
        });
    }
    // A damaged file system is none of a loader's business as long as another one boots.
    if !unreadable.is_empty() && !with_boot.contains(&true) {
        return Err(Failure::new(unreadable.join("; ")));
    }
    for text in unreadable {
        console.warn(&text);
    }
    if with_boot.contains(&true) {
        let mut keep = with_boot.into_iter();
        roots.retain(|_| keep.next().unwrap_or(true));
    }
    Ok(roots)
}

fn carry_out(
    options: &Options,
    plan: &Plan<'_>,
    what: &str,
    console: &mut Console,
) -> Result<(), Failure> {
    load::load(options, plan).map_err(Failure::new)?;
    console.line(&format!(
        "{}: {what} loaded ({}), {} of memory, entry {:#x}",
        options.vm,
        plan.format,
        cli::size::memsize(options.memory),
        plan.entry
    ));
    Ok(())
}

fn open_console(options: &Options, progname: &str) -> Result<Console, Failure> {
    match &options.console {
        None => Ok(Console::stdio(progname)),
        Some(path) => Ok(Console::new(Box::new(open_device(path)?), true, progname)),
    }
}

/// A terminal device for -c.
fn open_device(path: &str) -> Result<File, Failure> {
    let could_not = |why: &str| Failure::usage(format!("Could not open '{path}': {why}"));
    let is_device = std::fs::metadata(path)
        .map_err(|error| could_not(&cli::io_error(&error)))?
        .file_type()
        .is_char_device();
    if !is_device {
        return Err(could_not("not a terminal device"));
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| could_not(&cli::io_error(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{self, Answer};

    fn failure(line: &str) -> Failure {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match options::parse(&args).unwrap() {
            Answer::Load(options) => run(&options, "bhyveload").unwrap_err(),
            Answer::Help => panic!("help"),
        }
    }

    #[test]
    fn what_cannot_be_opened_is_named_before_any_vm() {
        for (line, status, message) in [
            (
                "-d /no/disk vm",
                EX_USAGE,
                "Could not open '/no/disk': No such file or directory",
            ),
            (
                "-c /etc/passwd -d /no/disk vm",
                EX_USAGE,
                "Could not open '/etc/passwd': not a terminal device",
            ),
            (
                "-h /no/directory vm",
                EX_OSERR,
                "-h: /no/directory: No such file or directory",
            ),
            (
                "--kernel=/no/kernel vm",
                EX_FAILURE,
                "/no/kernel: No such file or directory",
            ),
        ] {
            let failure = failure(line);
            assert_eq!(
                (failure.status, failure.message.as_str()),
                (status, message)
            );
        }
        let nothing = failure("vm");
        assert!(nothing.message.starts_with("nothing to load") && nothing.status == EX_USAGE);
    }

    #[test]
    fn a_volume_without_a_kernel_and_one_without_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let failure = failure(&format!("--loader=native -h {path} vm"));
        assert!(
            failure
                .message
                .starts_with("host0 has no kernel: there is no /boot/kernel")
        );
        let image = dir.path().join("image");
        std::fs::write(&image, vec![0; 100_000]).unwrap();
        let image = image.to_str().unwrap();
        let failure = self::failure(&format!("--loader=native -d {image} vm"));
        assert!(
            failure
                .message
                .starts_with(&format!("{image}: disk0 has neither UFS nor ISO 9660"))
        );
        std::fs::create_dir_all(dir.path().join("boot/kernel")).unwrap();
        std::fs::write(dir.path().join("boot/kernel/kernel"), "text").unwrap();
        let failure = self::failure(&format!("--loader=native -h {path} vm"));
        assert_eq!(
            failure.message,
            "host0:/boot/kernel/kernel: not an ELF file"
        );
    }

    #[test]
    fn a_boot_that_is_no_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("boot"), "").unwrap();
        let path = dir.path().to_str().unwrap();
        let failure = failure(&format!("--loader=native -h {path} vm"));
        assert!(failure.message.contains("boot"), "{}", failure.message);
    }

    #[test]
    fn options_of_freebsds_loader_do_not_go_with_other_kernels() {
        let elf = crate::elf::tests::elf64(0x10_0000, &[(0x10_0000, 0x10_0000, b"code", 16)]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        std::fs::write(&path, elf).unwrap();
        for option in ["-d disk", "-h /", "-e a=b"] {
            let failure = failure(&format!("{option} --kernel={} vm", path.display()));
            assert!(
                failure.message.starts_with(&option[..2]),
                "{}",
                failure.message
            );
            assert!(failure.message.contains("is none (ELF64, long mode)"));
        }
    }

    #[test]
    fn a_module_of_a_type_is_told_from_one_with_arguments() {
        let module = |arguments: &str| {
            let module = host_module(plan::File {
                path: "f".into(),
                arguments: arguments.into(),
                bytes: Vec::new(),
            });
            (module.kind, module.arguments)
        };
        assert_eq!(
            module("type=md_image"),
            (Some("md_image".into()), "".into())
        );
        assert_eq!(module("type=t,a=b"), (Some("t".into()), "a=b".into()));
        assert_eq!(module("debug=1,x"), (None, "debug=1,x".into()));
        assert_eq!(module(""), (None, String::new()));
    }
}
