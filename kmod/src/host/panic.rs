//! What a broken invariant of our own does: the host panics with our message.

use core::fmt::Write;
use core::panic::PanicInfo;

use super::ffi;
use super::log::Line;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut line = Line::new();
    // Writing to a Line cannot fail.
    let _ = write!(line, "{info}");
    let text = line.as_bytes();
    // SAFETY: the pointer and length describe initialized bytes; the call doesn't return.
    unsafe { ffi::host_panic(text.as_ptr().cast(), text.len()) }
}
