//! A client of a UNIX socket: sends one file while it gets what should be in another one.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

/// What doesn't come is waited for until the other side ends.
pub fn run(path: &Path, send: &Path, want: &Path) -> Result<String, String> {
    let file = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let (sent, wanted) = (file(send)?, file(want)?);
    let mut socket = UnixStream::connect(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut sender = socket
        .try_clone()
        .map_err(|e| format!("{}: {e}", path.display()))?;
    let len = sent.len();
    let sender = thread::spawn(move || sender.write_all(&sent));
    let mut got = vec![0; wanted.len()];
    let read = socket.read_exact(&mut got);
    read.map_err(|e| format!("{}: reading: {e}", path.display()))?;
    if got != wanted {
        let at = got.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
        return Err(format!(
            "{}: byte {at} isn't what it should be",
            path.display()
        ));
    }
    let written = sender.join().map_err(|_| "the sender panicked")?;
    written.map_err(|e| format!("{}: writing: {e}", path.display()))?;
    let got = got.len();
    Ok(format!("{}: sent {len} bytes, got {got}", path.display()))
}
