//! Numbered records, each flushed to the disk before the next is announced: what was
//! announced must be there, whatever happens to the machine afterwards.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

const RECORD: usize = 4096;
/// Together 4 MiB: less than what is free on the guest's disk.
const RECORDS: u64 = 1024;

/// Writes records and says `flushed N` when the first N are on the disk. Ends with the
/// last one, for whoever forgets to kill it.
pub fn write(path: &Path) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("write: {}: {e}", path.display());
    let mut file = File::create(path).map_err(failed)?;
    for number in 0..RECORDS {
        file.write_all(&record(number)).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        println!("flushed {}", number + 1);
    }
    Ok(format!("wrote all {RECORDS} records"))
}

/// Checks the first `count` records.
pub fn verify(path: &Path, count: u64) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("verify: {}: {e}", path.display());
    let mut file = File::open(path).map_err(failed)?;
    for number in 0..count {
        let mut found = [0; RECORD];
        file.read_exact(&mut found).map_err(failed)?;
        if found != record(number) {
            return Err(format!(
                "verify: {}: record {number} is not what was flushed",
                path.display()
            ));
        }
    }
    Ok(format!("{count} records are there"))
}

/// Its bytes follow from its number; no two are alike.
fn record(number: u64) -> [u8; RECORD] {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = [0; RECORD];
    for word in bytes.chunks_exact_mut(8) {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes
}
