//! FreeBSD's own loader, /boot/userboot.so or the file of -l: the program that runs in the
//! guest's place until it hands a kernel over. This is what it works with: terminal, files
//! beneath -h, disks, the guest's memory and its first vcpu (usr.sbin/bhyveload/bhyveload.c).
//!
//! The loader may ask to be started again, or for the other one of FreeBSD's two
//! interpreters (the guest's /boot/loader says which it has). The program is executed anew
//! for that: nothing of the first loader is left.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_int};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vmmapi::{Gpa, Reg, SegDesc, Vcpu, Vm};

use crate::fs::host::{HostEntry, HostNode};
use crate::fs::{FsError, HostDir};
use crate::platform::HAS_USERBOOT;
use crate::platform::userboot::{DirectoryEntry, Errno, Loader, Stat, Whence};
use crate::terminal::Terminal;

/// Where FreeBSD has its loaders.
const FOLDER: &str = "/boot";
/// The loader that is tried first; which of the two it is, is the host's choice.
const DEFAULT: &str = "userboot.so";
/// Set for the program that is executed anew: the interpreter that the guest asked for,
/// nothing for the same loader again.
const AGAIN: &str = "BHYVELOAD_INTERPRETER";

const EXIT_QUIT: c_int = 1;
const EXIT_REBOOT: c_int = 2;
/// Guest-physical addresses as the loader sees them; a kernel's virtual ones become them.
const ADDRESS_MASK: u64 = 0x7fff_ffff;
const MSR_EFER: c_int = 0xc000_0080_u32 as c_int;
/// The most files that the loader has open at a time.
const MAX_OPEN: usize = 1024;

/// Which loader to run.
pub fn object(explicit: Option<&str>) -> Result<PathBuf, String> {
    let path = match explicit {
        Some(path) => PathBuf::from(path),
        None => match std::env::var(AGAIN) {
            Ok(name) if !name.is_empty() => Path::new(FOLDER).join(interpreter(&name)?),
            _ => Path::new(FOLDER).join(DEFAULT),
        },
    };
    // A name without a slash would be looked for on the library path.
    std::fs::canonicalize(&path)
        .map_err(|error| format!("{}: {}", path.display(), cli::io_error(&error)))
}

/// Whether this host has FreeBSD's loader.
pub fn is_here() -> bool {
    HAS_USERBOOT && Path::new(FOLDER).join(DEFAULT).is_file()
}

/// The loader with an interpreter. Its name comes from the guest's disk.
fn interpreter(name: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 32 || !name.chars().all(is_name) {
        return Err("guest failed to request an interpreter".to_owned());
    }
    Ok(format!("userboot_{name}.so"))
}

/// The guest as the loader sees it.
pub trait Guest {
    fn copy_in(&mut self, from: &[u8], to: u64) -> Result<(), String>;
    fn copy_out(&mut self, from: u64, to: &mut [u8]) -> Result<(), String>;
    fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), String>;
    fn set_desc(&mut self, reg: Reg, desc: SegDesc) -> Result<(), String>;
    /// Bytes below and above 4 GiB.
    fn memory(&self) -> (u64, u64);
    /// A kernel is handed over: 64-bit with page tables, 32-bit without.
    fn start(&mut self, start: Handover) -> Result<(), String>;
}

/// Where a kernel begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Handover {
    pub entry: u64,
    /// 0: a 32-bit kernel.
    pub cr3: u64,
    pub gdt: u64,
    pub rsp: u64,
}

/// A VM and its first vcpu.
pub struct VmGuest {
    pub vm: Vm,
    pub vcpu: Vcpu,
}

impl Guest for VmGuest {
    fn copy_in(&mut self, from: &[u8], to: u64) -> Result<(), String> {
        let range = self.vm.map_gpa(Gpa(to), from.len());
        let copied = range.and_then(|range| range.copy_to(0, from));
        copied.map_err(|error| error.to_string())
    }

    fn copy_out(&mut self, from: u64, to: &mut [u8]) -> Result<(), String> {
        let range = self.vm.map_gpa(Gpa(from), to.len());
        let copied = range.and_then(|range| range.copy_from(0, to));
        copied.map_err(|error| error.to_string())
    }

    fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), String> {
        let set = self.vcpu.set_register(reg, value);
        set.map_err(|error| error.to_string())
    }

    fn set_desc(&mut self, reg: Reg, desc: SegDesc) -> Result<(), String> {
        let seg = reg.segment().ok_or("not a segment register")?;
        let set = self.vcpu.set_desc(seg, desc);
        set.map_err(|error| error.to_string())
    }

    fn memory(&self) -> (u64, u64) {
        (self.vm.lowmem_size(), self.vm.highmem_size())
    }

    fn start(&mut self, start: Handover) -> Result<(), String> {
        let Handover {
            entry,
            cr3,
            gdt,
            rsp,
        } = start;
        let done = if cr3 != 0 {
            self.vcpu.setup_freebsd_registers(entry, cr3, gdt, rsp)
        } else {
            let low = |what, value| {
                u32::try_from(value).map_err(|_| format!("{what} {value:#x} is beyond 32 bits"))
            };
            let (entry, gdt, rsp) = (low("entry", entry)?, low("GDT", gdt)?, low("stack", rsp)?);
            self.vcpu.setup_freebsd_registers_i386(entry, gdt, rsp)
        };
        done.map_err(|error| error.to_string())
    }
}

/// An open file of the host.
enum Open {
    File(File),
    Directory {
        directory: File,
        left: VecDeque<HostEntry>,
    },
}

/// A disk: writes go to it if it can be written to (nextboot(8) is one's wish).
pub struct DiskFile {
    file: File,
}

impl DiskFile {
    pub fn open(path: &str) -> io::Result<Self> {
        let mut options = File::options();
        let file = match options.read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    || error.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                File::open(path)?
            }
            Err(error) => return Err(error),
        };
        Ok(Self { file })
    }
}

/// What the loader works with.
pub struct Session<G: Guest> {
    pub guest: G,
    pub terminal: Terminal,
    pub directory: Option<HostDir>,
    pub disks: Vec<DiskFile>,
    pub variables: Vec<CString>,
    /// -l: there is no other loader to change to.
    pub is_explicit: bool,
    pub progname: String,
    files: Vec<Option<Open>>,
    start: Handover,
}

impl<G: Guest> Session<G> {
    /// What the loader's variables are: its defaults first.
    pub fn new(guest: G, terminal: Terminal, progname: &str) -> Self {
        Self {
            guest,
            terminal,
            directory: None,
            disks: Vec::new(),
            variables: Vec::new(),
            is_explicit: false,
            progname: progname.to_owned(),
            files: Vec::new(),
            start: Handover::default(),
        }
    }

    fn file(&mut self, number: usize) -> Result<&mut Open, Errno> {
        let file = self.files.get_mut(number).and_then(Option::as_mut);
        file.ok_or(libc::EBADF)
    }

    fn disk(&self, unit: c_int) -> Option<&DiskFile> {
        self.disks.get(usize::try_from(unit).ok()?)
    }

    /// Ends the program.
    fn end(&mut self, code: c_int) -> ! {
        self.terminal.restore();
        std::process::exit(code)
    }

    /// Executes this program again with what it was given.
    fn again(&mut self, interpreter: &str) -> ! {
        self.terminal.restore();
        let error = match std::env::current_exe() {
            Ok(program) => Command::new(program)
                .args(std::env::args_os().skip(1))
                .env(AGAIN, interpreter)
                .exec(),
            Err(error) => error,
        };
        let why = cli::io_error(&error);
        self.fail(&format!("the loader can't be started again: {why}"))
    }

    fn check(&mut self, what: &str, result: Result<(), String>) {
        if let Err(why) = result {
            self.fail(&format!("{what}: {why}"));
        }
    }

    fn unknown(&mut self, what: &str, number: c_int) -> ! {
        self.fail(&format!("{what}({number}): not implemented"))
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// A vcpu that is not the first one, or a register that is none, is EINVAL.
fn register(vcpu: c_int, number: c_int) -> Result<Reg, Errno> {
    match Reg::from_raw(number) {
        Some(reg) if vcpu == 0 => Ok(reg),
        _ => Err(libc::EINVAL),
    }
}

impl<G: Guest> Loader for Session<G> {
    fn putc(&mut self, byte: u8) {
        self.terminal.put(byte);
    }

    fn getc(&mut self) -> Option<u8> {
        self.terminal.get()
    }

    fn poll(&mut self) -> bool {
        self.terminal.poll()
    }

    fn open(&mut self, path: &[u8]) -> Result<usize, Errno> {
        let directory = self.directory.as_ref().ok_or(libc::ENOENT)?;
        let path = std::str::from_utf8(path).map_err(|_| libc::ENOENT)?;
        let node = directory.node(path).map_err(|error| match error {
            FsError::Io { error, .. } => errno(&error),
            FsError::NotAFile { .. } => libc::EINVAL,
            // Nothing outside is there.
            _ => libc::ENOENT,
        })?;
        let open = match node.ok_or(libc::ENOENT)? {
            HostNode::File(file) => Open::File(file),
            HostNode::Directory(subdir) => Open::Directory {
                left: subdir.entries().map_err(|error| errno(&error))?.into(),
                directory: subdir.file().try_clone().map_err(|error| errno(&error))?,
            },
        };
        match self.files.iter().position(Option::is_none) {
            Some(free) => {
                self.files[free] = Some(open);
                Ok(free)
            }
            None if self.files.len() < MAX_OPEN => {
                self.files.push(Some(open));
                Ok(self.files.len() - 1)
            }
            None => Err(libc::EMFILE),
        }
    }

    fn close(&mut self, file: usize) -> Result<(), Errno> {
        self.file(file)?;
        self.files[file] = None;
        Ok(())
    }

    fn is_directory(&mut self, file: usize) -> bool {
        matches!(self.file(file), Ok(Open::Directory { .. }))
    }

    fn read(&mut self, file: usize, buf: &mut [u8]) -> Result<usize, Errno> {
        match self.file(file)? {
            Open::File(file) => file.read(buf).map_err(|_| libc::EINVAL),
            Open::Directory { .. } => Err(libc::EINVAL),
        }
    }

    fn read_directory(&mut self, file: usize) -> Result<DirectoryEntry, Errno> {
        let Open::Directory { left, .. } = self.file(file)? else {
            return Err(libc::EINVAL);
        };
        let entry = left.pop_front().ok_or(libc::ENOENT)?;
        Ok(DirectoryEntry {
            // The interface has 32 bits for it.
            inode: entry.inode as u32,
            kind: entry.kind,
            name: entry.name,
        })
    }

    fn seek(&mut self, file: usize, offset: i64, whence: Whence) -> Result<(), Errno> {
        let Open::File(file) = self.file(file)? else {
            return Err(libc::EINVAL);
        };
        let to = match whence {
            Whence::Start => SeekFrom::Start(u64::try_from(offset).map_err(|_| libc::EINVAL)?),
            Whence::Current => SeekFrom::Current(offset),
            Whence::End => SeekFrom::End(offset),
        };
        file.seek(to).map(drop).map_err(|error| errno(&error))
    }

    fn stat(&mut self, file: usize) -> Result<Stat, Errno> {
        let metadata = match self.file(file)? {
            Open::File(file) => file.metadata(),
            Open::Directory { directory, .. } => directory.metadata(),
        };
        let metadata = metadata.map_err(|error| errno(&error))?;
        Ok(Stat {
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            size: i64::try_from(metadata.size()).unwrap_or(i64::MAX),
            modified: metadata.mtime(),
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    fn disk_read(&mut self, unit: c_int, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let disk = self.disk(unit).ok_or(libc::EIO)?;
        let read = disk.file.read_at(buf, offset);
        read.map_err(|error| errno(&error))
    }

    fn disk_write(&mut self, unit: c_int, offset: u64, buf: &[u8]) -> Result<usize, Errno> {
        let disk = self.disk(unit).ok_or(libc::EIO)?;
        let written = disk.file.write_at(buf, offset);
        written.map_err(|error| errno(&error))
    }

    fn disk_size(&mut self, unit: c_int) -> Result<u64, Errno> {
        let disk = self.disk(unit).ok_or(libc::EBADF)?;
        // Of a disk device as of a file.
        let size = (&disk.file).seek(SeekFrom::End(0));
        size.map_err(|_| libc::ENOTTY)
    }

    fn copy_in(&mut self, from: &[u8], to: u64) -> Result<(), Errno> {
        let copied = self.guest.copy_in(from, to & ADDRESS_MASK);
        copied.map_err(|_| libc::EFAULT)
    }

    fn copy_out(&mut self, from: u64, to: &mut [u8]) -> Result<(), Errno> {
        let copied = self.guest.copy_out(from & ADDRESS_MASK, to);
        copied.map_err(|_| libc::EFAULT)
    }

    fn set_reg(&mut self, number: c_int, value: u64) {
        // In the order of instructions' register numbers; the stack pointer is all that any
        // loader sets.
        match number {
            4 => {
                self.start.rsp = value;
                let result = self.guest.set_register(Reg::Rsp, value);
                self.check("setreg", result);
            }
            _ => self.unknown("setreg", number),
        }
    }

    fn set_msr(&mut self, number: c_int, value: u64) {
        match number {
            MSR_EFER => {
                let result = self.guest.set_register(Reg::Efer, value);
                self.check("setmsr", result);
            }
            _ => self.unknown("setmsr", number),
        }
    }

    fn set_cr(&mut self, number: c_int, value: u64) {
        let reg = match number {
            0 => Reg::Cr0,
            3 => {
                self.start.cr3 = value;
                Reg::Cr3
            }
            4 => Reg::Cr4,
            _ => self.unknown("setcr", number),
        };
        let result = self.guest.set_register(reg, value);
        self.check("setcr", result);
    }

    fn set_gdt(&mut self, base: u64, size: u64) {
        let desc = SegDesc {
            base,
            limit: u32::try_from(size.saturating_sub(1)).unwrap_or(u32::MAX),
            access: 0,
        };
        let result = self.guest.set_desc(Reg::Gdtr, desc);
        self.check("setgdt", result);
        self.start.gdt = base;
    }

    fn set_register(&mut self, vcpu: c_int, number: c_int, value: u64) -> Result<(), Errno> {
        let reg = register(vcpu, number)?;
        let set = self.guest.set_register(reg, value);
        set.map_err(|_| libc::EINVAL)
    }

    fn set_desc(
        &mut self,
        vcpu: c_int,
        number: c_int,
        base: u64,
        limit: u32,
        access: u32,
    ) -> Result<(), Errno> {
        let reg = register(vcpu, number)?;
        let desc = SegDesc {
            base,
            limit,
            access,
        };
        let set = self.guest.set_desc(reg, desc);
        set.map_err(|_| libc::EINVAL)
    }

    fn exec(&mut self, entry: u64) -> ! {
        self.start.entry = entry;
        let result = self.guest.start(self.start);
        self.check("exec", result);
        self.end(0)
    }

    fn delay(&mut self, microseconds: u64) {
        std::thread::sleep(Duration::from_micros(microseconds));
    }

    fn exit(&mut self, code: c_int) -> ! {
        match code {
            EXIT_REBOOT => self.again(""),
            code => self.end(code),
        }
    }

    fn memory(&mut self) -> (u64, u64) {
        self.guest.memory()
    }

    fn variable(&mut self, number: usize) -> Option<&CStr> {
        self.variables.get(number).map(CString::as_c_str)
    }

    fn swap_interpreter(&mut self, name: &[u8]) -> ! {
        let name = String::from_utf8_lossy(name).into_owned();
        if self.is_explicit {
            self.fail("requested loader interpreter does not match guest userboot");
        }
        match interpreter(&name) {
            Ok(file) if Path::new(FOLDER).join(&file).is_file() => self.again(&name),
            Ok(file) => self.fail(&format!(
                "the guest asks for {FOLDER}/{file}, which is not there"
            )),
            Err(why) => self.fail(&why),
        }
    }

    fn fail(&mut self, why: &str) -> ! {
        self.terminal.restore();
        eprintln!("{}: {why}", self.progname);
        self.end(EXIT_QUIT)
    }
}

/// The disks of -d, in the order of their numbers.
pub fn open_disks(paths: &[String]) -> Result<Vec<DiskFile>, String> {
    let open = |path: &String| {
        DiskFile::open(path)
            .map_err(|error| format!("Could not open '{path}': {}", cli::io_error(&error)))
    };
    paths.iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_names_an_interpreter_and_no_file() {
        assert_eq!(interpreter("lua"), Ok("userboot_lua.so".to_owned()));
        assert_eq!(interpreter("4th"), Ok("userboot_4th.so".to_owned()));
        for name in ["", "../../tmp/x", "a/b", "a.so", "a b", &"x".repeat(33)] {
            assert!(interpreter(name).is_err(), "{name}");
        }
    }

    #[test]
    fn registers_are_those_of_the_first_vcpu() {
        assert_eq!(register(0, 0), Ok(Reg::Rax));
        assert_eq!(register(0, 32), Ok(Reg::Efer));
        assert_eq!(register(1, 0), Err(libc::EINVAL));
        assert_eq!(register(0, 999), Err(libc::EINVAL));
        assert_eq!(register(0, -1), Err(libc::EINVAL));
    }

    #[test]
    fn a_loader_that_is_not_there_is_named() {
        let error = object(Some("/no/userboot.so")).unwrap_err();
        assert_eq!(error, "/no/userboot.so: No such file or directory");
    }
}
