//! Lines in the host kernel's log, and the fixed buffer they are made in: logging has to
//! work in any context, so it neither allocates nor sleeps.

use core::fmt;

use vmm_core::limits::LogLimit;

use super::sync::SpinLock;
use super::{ffi, time};

/// The longest line; what is beyond is cut.
const LINE: usize = 400;

/// Text in place; what does not fit is dropped.
pub struct Line {
    buf: [u8; LINE],
    len: usize,
}

impl Line {
    pub const fn new() -> Self {
        Self {
            buf: [0; LINE],
            len: 0,
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.buf[..self.len]
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let n = s.len().min(LINE - self.len);
        self.buf[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

#[derive(Clone, Copy)]
pub enum Level {
    Info,
    Warn,
    Err,
}

/// What guests and users do is logged too, so that lines are limited.
static LIMIT: SpinLock<LogLimit> = SpinLock::new(LogLimit::new());

/// One line; the macros below call it. Context: any.
pub fn log(level: Level, args: fmt::Arguments<'_>) {
    let admitted = LIMIT.lock().admits(time::uptime_ns());
    match admitted {
        None => return,
        Some(0) => {}
        Some(left_out) => print(level, format_args!("{left_out} lines left out")),
    }
    print(level, args);
}

fn print(level: Level, args: fmt::Arguments<'_>) {
    let level = match level {
        Level::Info => ffi::HOST_LOG_INFO,
        Level::Warn => ffi::HOST_LOG_WARN,
        Level::Err => ffi::HOST_LOG_ERR,
    };
    let mut line = Line::new();
    // Writing to a Line cannot fail; a Display that fails leaves a shorter line.
    let _ = fmt::write(&mut line, args);
    let text = line.as_bytes();
    // SAFETY: the pointer and length describe initialized bytes, which host_log copies.
    unsafe { ffi::host_log(level, text.as_ptr().cast(), text.len()) }
}

#[macro_export]
macro_rules! log_info {
    ($($arg:tt)*) => { $crate::host::log::log($crate::host::log::Level::Info, format_args!($($arg)*)) };
}

#[macro_export]
macro_rules! log_warn {
    ($($arg:tt)*) => { $crate::host::log::log($crate::host::log::Level::Warn, format_args!($($arg)*)) };
}

#[macro_export]
macro_rules! log_err {
    ($($arg:tt)*) => { $crate::host::log::log($crate::host::log::Level::Err, format_args!($($arg)*)) };
}
