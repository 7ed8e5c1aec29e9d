//! The right to run a lab: each takes a CPU of the build machine, so that only two may run
//! at a time, whoever started them. File locks end with the process that holds them.

use std::env;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use super::shared;

const SLOTS: u32 = 2;
/// Longer than any test run: another one is stuck.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// Held while a lab runs.
#[derive(Debug)]
pub struct Slot {
    _lock: File,
}

/// Waits for a free slot; labs that tests of this process share and nobody uses give way.
pub fn acquire() -> io::Result<Slot> {
    // The machine's, not this checkout's, and any user's.
    let folder = env::temp_dir().join("vmm_rs-lab-slots");
    if fs::create_dir(&folder).is_ok() {
        fs::set_permissions(&folder, Permissions::from_mode(0o777))?;
    }
    let deadline = Instant::now() + LIMIT;
    let mut told = false;
    loop {
        for number in 0..SLOTS {
            let path = folder.join(number.to_string());
            // Another user's is locked as well through a descriptor that only reads.
            let lock = File::open(&path).or_else(|_| File::create(&path))?;
            if lock.try_lock().is_ok() {
                return Ok(Slot { _lock: lock });
            }
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "two other labs hold {}",
                folder.display()
            )));
        }
        shared::end_idle();
        if !told {
            eprintln!("==> two other labs run; waiting for one to end");
            told = true;
        }
        thread::sleep(Duration::from_millis(200));
    }
}
