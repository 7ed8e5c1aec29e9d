//! Memory: every page of what the loader says there is gets its own value, and keeps it;
//! holes read as they should.

#![no_std]
#![no_main]

use kit::{Boot, println};

kit::main!(memory);

const PAGE: u64 = 4096;
/// Above this program and its tables.
const FIRST: u64 = 4 << 20;
/// boot.s maps this much.
const MAPPED: u64 = 4 << 30;

fn memory(boot: Boot) {
    assert!(
        boot.magic == 0x2bad_b002,
        "not started by a multiboot loader"
    );
    // SAFETY: the multiboot information is at that address; mem_upper is its third word.
    let (flags, upper_kib) = unsafe {
        let info = boot.info as *const u32;
        (info.read_volatile(), info.add(2).read_volatile())
    };
    assert!(flags & 1 != 0, "the loader gives no memory size");
    let end = ((1 << 20) + u64::from(upper_kib) * 1024).min(MAPPED);
    println!("memory up to {end:#x}");

    let pages = (FIRST..end).step_by(PAGE as usize);
    for page in pages.clone() {
        // SAFETY: memory above this program that nobody else uses.
        unsafe {
            let first = page as *mut u64;
            assert!(
                first.read_volatile() == 0,
                "page {page:#x} is not zero at first"
            );
            first.write_volatile(page ^ 0x5a5a);
            first.add(511).write_volatile(!page);
        }
    }
    for page in pages {
        // SAFETY: as above.
        unsafe {
            let first = page as *const u64;
            assert!(
                first.read_volatile() == page ^ 0x5a5a,
                "page {page:#x} lost its first word"
            );
            assert!(
                first.add(511).read_volatile() == !page,
                "page {page:#x} lost its last word"
            );
        }
    }
    println!("{} pages kept their values", (end - FIRST) / PAGE);
}
