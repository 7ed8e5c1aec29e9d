//! Any bytes are a disk with file systems to load a FreeBSD kernel from, or refused.
#![no_main]

use std::sync::Arc;

use bhyveload::fs::{gzip, open_source};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Structures are far apart on disks: the input is in pieces of a sector each, with its
    // number (of 512 bytes) before it.
    let mut disk = vec![0; 256 << 10];
    for piece in data.chunks(514) {
        if let [low, high, bytes @ ..] = piece {
            let at = 512 * usize::from(u16::from_le_bytes([*low, *high]) % 512);
            disk[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
    if let Ok(disk) = open_source(Arc::new(disk), "disk0") {
        for volume in disk.volumes {
            let _ = volume.label();
            for path in ["/boot", "/boot/kernel"] {
                let _ = volume.files.list(path);
            }
            for path in ["/boot/kernel/kernel", "/boot/loader.conf"] {
                if let Ok(Some(bytes)) = volume.files.read(path, 1 << 20) {
                    let _ = gzip::decompress(&bytes, path, 1 << 20);
                }
            }
        }
    }
});
