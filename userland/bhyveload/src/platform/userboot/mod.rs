//! userboot.so's interface (stand/userboot/userboot.h, version 5): the loader is a shared
//! object whose loader_main() calls back for console, files, disks, memory and registers.
//!
//! What it calls back is a [`Loader`], safe code. Nothing here trusts what C passes beyond
//! what the interface says of it: handles are numbers that are looked up, texts end with a
//! NUL, buffers have the size that comes with them. A panic never unwinds into C: it ends
//! the process, after the terminal has been set back.

use std::cell::RefCell;
use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use callbacks::{CALLBACKS, Callbacks};
use libloading::Library;

mod callbacks;

/// An errno, in FreeBSD's numbers (those used here are the same everywhere).
pub type Errno = c_int;

/// USERBOOT_VERSION_5.
const VERSION: c_int = 5;

/// What a file or directory is to the loader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: i64,
    pub modified: i64,
    pub device: u64,
    pub inode: u64,
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    pub inode: u32,
    pub kind: u8,
    /// At most 255 bytes.
    pub name: Vec<u8>,
}

/// Where to go on from (lseek(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whence {
    Start,
    Current,
    End,
}

/// What the loader asks its host for. Functions that return `!` end the process.
pub trait Loader {
    fn putc(&mut self, byte: u8);
    /// Waits for a key. `None`: there will be none.
    fn getc(&mut self) -> Option<u8>;
    fn poll(&mut self) -> bool;

    fn open(&mut self, path: &[u8]) -> Result<usize, Errno>;
    fn close(&mut self, file: usize) -> Result<(), Errno>;
    fn is_directory(&mut self, file: usize) -> bool;
    /// How many bytes were read, at most the buffer's.
    fn read(&mut self, file: usize, buf: &mut [u8]) -> Result<usize, Errno>;
    fn read_directory(&mut self, file: usize) -> Result<DirectoryEntry, Errno>;
    fn seek(&mut self, file: usize, offset: i64, whence: Whence) -> Result<(), Errno>;
    fn stat(&mut self, file: usize) -> Result<Stat, Errno>;

    fn disk_read(&mut self, unit: c_int, offset: u64, buf: &mut [u8]) -> Result<usize, Errno>;
    fn disk_write(&mut self, unit: c_int, offset: u64, buf: &[u8]) -> Result<usize, Errno>;
    fn disk_size(&mut self, unit: c_int) -> Result<u64, Errno>;

    fn copy_in(&mut self, from: &[u8], to: u64) -> Result<(), Errno>;
    fn copy_out(&mut self, from: u64, to: &mut [u8]) -> Result<(), Errno>;
    fn set_reg(&mut self, number: c_int, value: u64);
    fn set_msr(&mut self, number: c_int, value: u64);
    fn set_cr(&mut self, number: c_int, value: u64);
    fn set_gdt(&mut self, base: u64, size: u64);
    fn set_register(&mut self, vcpu: c_int, number: c_int, value: u64) -> Result<(), Errno>;
    fn set_desc(
        &mut self,
        vcpu: c_int,
        number: c_int,
        base: u64,
        limit: u32,
        access: u32,
    ) -> Result<(), Errno>;
    fn exec(&mut self, entry: u64) -> !;

    fn delay(&mut self, microseconds: u64);
    fn exit(&mut self, code: c_int) -> !;
    /// Bytes below and above 4 GiB.
    fn memory(&mut self) -> (u64, u64);
    /// The variable of that number; text that stays where it is.
    fn variable(&mut self, number: usize) -> Option<&CStr>;
    fn swap_interpreter(&mut self, name: &[u8]) -> !;
    /// Something here went wrong; the process ends.
    fn fail(&mut self, why: &str) -> !;
}

type LoaderMain = unsafe extern "C" fn(*const Callbacks, *mut c_void, c_int, c_int);

thread_local! {
    /// Whom the loader calls back. It runs on one thread, the one that called it.
    static LOADER: RefCell<Option<Box<dyn Loader>>> = const { RefCell::new(None) };
}

/// Loads the shared object and runs its loader_main(). Comes back if it can't be loaded (the
/// reason) or if the loader returns, which it does after its exit() only.
pub fn run(object: &Path, disks: usize, loader: Box<dyn Loader>) -> Result<(), String> {
    // SAFETY: the object's initializers run: whoever names it wants its code run.
    let library = unsafe { Library::new(object) }.map_err(|error| format!("dlopen: {error}"))?;
    // SAFETY: a function of this name has this type, in each version of the interface.
    let loader_main = unsafe { library.get::<LoaderMain>(b"loader_main") };
    let loader_main = *loader_main.map_err(|error| format!("dlsym: {error}"))?;
    // It stays: whatever it has handed out is used until the end.
    std::mem::forget(library);
    LOADER.with(|place| *place.borrow_mut() = Some(loader));
    let disks = c_int::try_from(disks).unwrap_or(c_int::MAX);
    // SAFETY: the table lives for ever and is laid out as version 5 has it.
    unsafe { loader_main(&raw const CALLBACKS, std::ptr::null_mut(), VERSION, disks) };
    Ok(())
}

/// Calls the loader's host; what panics there ends the process here.
fn with<T>(call: impl FnOnce(&mut dyn Loader) -> T) -> T {
    let result = catch_unwind(AssertUnwindSafe(|| {
        LOADER.with(|place| {
            let mut place = place.borrow_mut();
            let loader = place.as_mut().expect("the loader runs on its own thread");
            call(loader.as_mut())
        })
    }));
    result.unwrap_or_else(|_| {
        let fail = || {
            LOADER.with(|place| match place.try_borrow_mut().as_deref_mut() {
                Ok(Some(loader)) => loader.fail("an internal error, see above"),
                _ => std::process::exit(1),
            })
        };
        catch_unwind(AssertUnwindSafe(fail)).unwrap_or_else(|_| std::process::exit(1))
    })
}
