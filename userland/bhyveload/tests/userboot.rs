//! userboot.so's interface, with a loader in C (userboot.c) that the test compiles and runs in
//! a process of its own: each function is called back, and what it does is seen on both
//! sides. The guest is memory and a list of what was set.

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bhyveload::fs::HostDir;
use bhyveload::platform;
use bhyveload::terminal::Terminal;
use bhyveload::userboot::{Guest, Handover, Session, open_disks};
use vmmapi::{Reg, SegDesc};

/// Set for the process that runs the loader; with these, what it is given.
const OBJECT: &str = "USERBOOT_TEST_OBJECT";
const ROOT: &str = "USERBOOT_TEST_ROOT";
const DISK: &str = "USERBOOT_TEST_DISK";
const MODE: &str = "USERBOOT_TEST_MODE";
/// Where the guest's memory is left at the end, if it is wanted.
const MEMORY: &str = "USERBOOT_TEST_MEMORY";

/// A guest of 64 MiB that prints what is set.
struct Fake {
    memory: Vec<u8>,
}

impl Fake {
    fn range(&mut self, at: u64, len: usize) -> Result<&mut [u8], String> {
        assert_ne!(at, 0x6660_0000, "a panic that the test asked for");
        let at = at as usize;
        self.memory.get_mut(at..at + len).ok_or("outside".into())
    }
}

impl Guest for Fake {
    fn copy_in(&mut self, from: &[u8], to: u64) -> Result<(), String> {
        self.range(to, from.len())?.copy_from_slice(from);
        Ok(())
    }

    fn copy_out(&mut self, from: u64, to: &mut [u8]) -> Result<(), String> {
        to.copy_from_slice(self.range(from, to.len())?);
        Ok(())
    }

    fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), String> {
        println!("set {reg:?} {value:x}");
        Ok(())
    }

    fn set_desc(&mut self, reg: Reg, desc: SegDesc) -> Result<(), String> {
        let SegDesc {
            base,
            limit,
            access,
        } = desc;
        println!("set {reg:?} {base:x} {limit:x} {access:x}");
        Ok(())
    }

    fn memory(&self) -> (u64, u64) {
        (self.memory.len() as u64, 0)
    }

    fn start(&mut self, start: Handover) -> Result<(), String> {
        let Handover {
            entry,
            cr3,
            gdt,
            rsp,
        } = start;
        println!("start {entry:x} {cr3:x} {gdt:x} {rsp:x}");
        if let Some(path) = std::env::var_os(MEMORY) {
            std::fs::write(path, &self.memory).unwrap();
        }
        Ok(())
    }
}

/// The process that runs the loader. It ends with it.
fn child(object: &Path) {
    let guest = Fake {
        memory: vec![0; 64 << 20],
    };
    let mut session = Session::new(guest, Terminal::stdio().unwrap(), "bhyveload");
    let variable = |name| std::env::var(name).ok();
    session.directory = variable(ROOT).map(|path| HostDir::open(&path).unwrap());
    let disks: Vec<String> = variable(DISK).into_iter().collect();
    session.disks = open_disks(&disks).unwrap();
    let mut variables = vec!["boot_serial=1".to_owned()];
    if variable("BHYVELOAD_INTERPRETER").is_some() {
        variables.push("mode=exit".to_owned());
    }
    variables.extend(variable(MODE).map(|mode| format!("mode={mode}")));
    session.is_explicit = variable(MODE).as_deref() == Some("swap");
    session.variables = variables
        .iter()
        .map(|v| CString::new(v.as_str()).unwrap())
        .collect();
    session.terminal.make_raw();
    platform::userboot::run(object, disks.len(), Box::new(session)).unwrap();
    println!("the loader came back");
    std::process::exit(0);
}

struct Loader {
    folder: tempfile::TempDir,
    object: PathBuf,
}

impl Loader {
    fn compile() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let object = folder.path().join("userboot.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/userboot.c");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
            .arg(&object)
            .arg(source)
            .status()
            .expect("cc, a C compiler, is needed (`make setup` installs one)");
        assert!(status.success(), "cc does not compile {source}");
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("boot")).unwrap();
        std::fs::write(root.join("boot/file"), "a host's file\n").unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        std::fs::write(folder.path().join("keys"), "k").unwrap();
        let disk: Vec<u8> = (0..1024).map(|n| b'a' + (n % 26) as u8).collect();
        std::fs::write(folder.path().join("disk"), disk).unwrap();
        Self { folder, object }
    }

    /// Runs it in a process that executes `test` of this program again.
    fn run(&self, test: &str, mode: Option<&str>) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(OBJECT, &self.object)
            .env(ROOT, self.folder.path().join("root"))
            .env(DISK, self.folder.path().join("disk"))
            // A byte, then the end.
            .stdin(File::open(self.folder.path().join("keys")).unwrap());
        if let Some(mode) = mode {
            command.env(MODE, mode);
        }
        command.output().unwrap()
    }
}

/// For each test: in the process that it starts, the loader runs instead.
fn is_child() -> bool {
    match std::env::var_os(OBJECT) {
        Some(object) => {
            child(Path::new(&object));
            true
        }
        None => false,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_function_does_what_the_interface_says() {
    if is_child() {
        return;
    }
    let loader = Loader::compile();
    let output = loader.run("every_function_does_what_the_interface_says", None);
    let all = text(&output.stdout);
    let from = all.find("version").unwrap_or_else(|| {
        panic!("the loader did not run: {all}{}", text(&output.stderr));
    });
    let expected = "\
version 5
disks 1
env boot_serial=1
poll 1
getc 6b
getc ffffffffffffffff
open missing 2
open outside 2
open 0
isdir 0
read 0
resid 2
a host's file
seek 0
read 0
hos
seek badly 16
stat 0
mode 81a4
size e
mtime 1
opendir 0
isdir 1
read directory 16
file type 8
length 4
inode 1
close 0
close 0
close again 9
close nothing 9
diskread 0
resid 0
bcde
diskread end 0
resid 2
diskwrite 0
resid 0
diskread none 5
sector 0
sector 200
media 0
media 400
ioctl unknown 19
ioctl none 9
low 4000000
high 0
copyin 0
copyout 0
kernel
copyin far e
set Rdx 77
vm_set_register 0
vm_set_register 16
set Cs 1000 ffff 9b
vm_set_desc 0
set Rsp 1000
set Efer 500
set Cr4 20
set Cr3 2000
set Cr0 80000021
set Gdtr 5000 17 0
start ffffffff80200000 2000 5000 1000
";
    assert_eq!(all[from..], *expected);
    assert_eq!(output.status.code(), Some(0));
    let disk = std::fs::read(loader.folder.path().join("disk")).unwrap();
    assert_eq!(&disk[..5], b"abXYe");
}

#[test]
fn a_loader_ends_in_each_way() {
    if is_child() {
        return;
    }
    let loader = Loader::compile();
    for (mode, status, stdout, stderr) in [
        ("exit", 5, "env mode=exit", ""),
        // Once more in a new process, which the variable tells to exit.
        ("reboot", 5, "env mode=exit", ""),
        (
            "swap",
            1,
            "",
            "bhyveload: requested loader interpreter does not match guest userboot",
        ),
        (
            "swap-badly",
            1,
            "",
            "bhyveload: guest failed to request an interpreter",
        ),
        ("panic", 1, "", "bhyveload: an internal error, see above"),
        ("setreg", 1, "", "bhyveload: setreg(5): not implemented"),
        ("return", 0, "the loader came back", ""),
    ] {
        let output = loader.run("a_loader_ends_in_each_way", Some(mode));
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{mode}: {out}{err}");
        assert!(
            out.contains(stdout) && err.contains(stderr),
            "{mode}: {out}{err}"
        );
    }
}

#[test]
fn what_is_no_loader_is_refused() {
    if is_child() {
        return;
    }
    let loader = Loader::compile();
    let no_object = loader.folder.path().join("text.so");
    std::fs::write(&no_object, "text").unwrap();
    let empty = loader.folder.path().join("empty.so");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-x", "c", "/dev/null", "-o"])
        .arg(&empty)
        .status()
        .unwrap();
    assert!(status.success());
    let refusal = |object: &Path| {
        let guest = Fake { memory: Vec::new() };
        let session = Session::new(guest, Terminal::stdio().unwrap(), "bhyveload");
        platform::userboot::run(object, 0, Box::new(session)).unwrap_err()
    };
    assert!(refusal(&no_object).starts_with("dlopen: "));
    assert!(refusal(&empty).starts_with("dlsym: "));
}
