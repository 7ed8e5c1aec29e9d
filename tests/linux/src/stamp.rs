//! The monotonic clock, and lines with the time of their arrival: what the host's clock says
//! when the guest's says something.

use std::io::{self, BufRead, Write};

/// Seconds of CLOCK_MONOTONIC.
pub fn monotonic() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock exists on every system, and the structure is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Copies standard input, each line with the clock in front, until it ends.
pub fn run() -> Result<String, String> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut line = Vec::new();
    loop {
        line.clear();
        match input.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(format!("{:.6} end", monotonic())),
            Ok(_) => {
                let now = monotonic();
                write!(output, "{now:.6} ")
                    .and_then(|()| output.write_all(&line))
                    .and_then(|()| output.flush())
                    .map_err(|e| format!("stamp: {e}"))?;
            }
            Err(e) => return Err(format!("stamp: {e}")),
        }
    }
}
