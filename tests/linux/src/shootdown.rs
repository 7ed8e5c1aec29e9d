//! TLB shootdowns under load: one thread keeps mapping other pages of a file at the same
//! address, threads on the other CPUs keep reading there. After the mapping has changed,
//! and the writer has said so, nobody may see an older page: Linux has sent an IPI to each
//! CPU that could have the old translation, and has waited until it was gone. How long that
//! takes when CPUs wait for their turns is the host's: the work is so many mappings at least.

use std::ffi::c_void;
use std::io::Error;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
/// Pages of the file; page n begins with n.
const PAGES: u64 = 64;
/// So many are there at least, however long it takes. Every other one is replaced only when
/// another CPU has used it, so that this is a shootdown.
const MAPPINGS: u64 = 96;

/// The one address that all threads use.
#[derive(Clone, Copy)]
struct Window(*mut u64);
// SAFETY: an address of a mapping that stays until the process ends; all access is volatile.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

/// How many mappings are done: mapping g shows page g % PAGES.
static DONE: AtomicU64 = AtomicU64::new(0);
/// The last mapping that was seen on another CPU than the writer's.
static SEEN: AtomicU64 = AtomicU64::new(0);
/// How many mappings had to be.
static AWAITED: AtomicU64 = AtomicU64::new(0);
static WRITER: AtomicUsize = AtomicUsize::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

pub fn run(seconds: u64) -> Result<String, String> {
    let cpus = thread::available_parallelism().map_or(1, |n| n.get());
    let file = pages()?;
    let window = map(ptr::null_mut(), file, 0)?;
    let end = Instant::now() + Duration::from_secs(seconds);

    let (writes, reads) = thread::scope(|scope| {
        // One reader on each CPU, so that the writer's has one as well and is preempted.
        let readers: Vec<_> = (0..cpus)
            .map(|cpu| scope.spawn(move || reader(cpu, window)))
            .collect();
        let writes = writer(cpus, window, file, end);
        STOP.store(true, Ordering::SeqCst);
        let mut reads: Result<u64, String> = Ok(0);
        for reader in readers {
            let of_one = reader.join().unwrap_or_else(|_| Err("panic".to_owned()));
            reads = reads.and_then(|sum| Ok(sum + of_one?));
        }
        (writes, reads)
    });
    Ok(format!(
        "shootdown: {cpus} CPUs, {} mappings, {} seen elsewhere, {} reads, none stale",
        writes?,
        AWAITED.load(Ordering::SeqCst),
        reads?
    ))
}

/// A file in memory whose page n begins with n.
fn pages() -> Result<i32, String> {
    // SAFETY: a name and no flags; the descriptor stays open until the process ends.
    let file = unsafe { libc::memfd_create(c"pages".as_ptr(), 0) };
    for page in 0..PAGES {
        let offset = page as i64 * PAGE as i64;
        let bytes = page.to_le_bytes();
        // SAFETY: the buffer is as long as said.
        let written = unsafe { libc::pwrite(file, bytes.as_ptr().cast(), bytes.len(), offset) };
        if written != bytes.len() as isize {
            return Err(format!("memfd: {}", Error::last_os_error()));
        }
    }
    // The last page whole.
    // SAFETY: changes the length of our file.
    unsafe { libc::ftruncate(file, PAGES as i64 * PAGE as i64) };
    Ok(file)
}

/// Maps a page of the file, anywhere or over what is at `at`.
fn map(at: *mut c_void, file: i32, page: u64) -> Result<Window, String> {
    let fixed = if at.is_null() { 0 } else { libc::MAP_FIXED };
    // SAFETY: replaces nothing but our own mapping.
    let address = unsafe {
        libc::mmap(
            at,
            PAGE,
            libc::PROT_READ,
            libc::MAP_SHARED | fixed,
            file,
            page as i64 * PAGE as i64,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(format!("mmap: {}", Error::last_os_error()));
    }
    Ok(Window(address.cast()))
}

/// Changes the mapping until the time is over and the work is done, moving from CPU to CPU; how
/// often.
fn writer(cpus: usize, window: Window, file: i32, end: Instant) -> Result<u64, String> {
    let mut generation = 0;
    while (Instant::now() < end || generation < MAPPINGS) && !STOP.load(Ordering::Relaxed) {
        if generation % 64 == 0 {
            let cpu = (generation / 64) as usize % cpus;
            pin(cpu)?;
            WRITER.store(cpu, Ordering::SeqCst);
        }
        generation += 1;
        map(window.0.cast(), file, generation % PAGES)?;
        DONE.store(generation, Ordering::SeqCst);
        // A change of protection is a shootdown as well.
        // SAFETY: our own mapping stays readable.
        unsafe { libc::mprotect(window.0.cast(), PAGE, libc::PROT_READ | libc::PROT_WRITE) };
        if cpus > 1 && generation % 2 == 0 {
            while SEEN.load(Ordering::SeqCst) < generation && !STOP.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            AWAITED.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(generation)
}

/// Reads until told to stop; how often.
fn reader(cpu: usize, window: Window) -> Result<u64, String> {
    pin(cpu)?;
    let mut reads = 0;
    while !STOP.load(Ordering::Relaxed) {
        let before = DONE.load(Ordering::SeqCst);
        // SAFETY: something readable is always mapped there.
        let page = unsafe { window.0.read_volatile() };
        let after = DONE.load(Ordering::SeqCst);
        // The writer may have mapped the next one and not said so yet. After a whole round
        // any page is possible.
        let newer = (page + PAGES - before % PAGES) % PAGES;
        if after - before < PAGES - 1 && newer > after - before + 1 {
            STOP.store(true, Ordering::SeqCst);
            return Err(format!(
                "CPU {cpu} reads page {page} after mapping {before} of {} was done: a stale translation",
                before % PAGES
            ));
        }
        if newer == 0 && after == before && cpu != WRITER.load(Ordering::Relaxed) {
            SEEN.fetch_max(before, Ordering::SeqCst);
        }
        reads += 1;
        if reads % 1024 == 0 {
            thread::yield_now();
        }
    }
    Ok(reads)
}

/// This thread runs on one CPU.
fn pin(cpu: usize) -> Result<(), String> {
    // SAFETY: a set of plain bits, filled by the macro-like helpers of libc.
    let status = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if status != 0 {
        return Err(format!("CPU {cpu}: {}", Error::last_os_error()));
    }
    Ok(())
}
