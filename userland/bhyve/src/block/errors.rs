//! What a person is told when the host can't do what a guest's disk wants: a full file
//! system, a broken disk. The guest gets an I/O error each time, the person the first few
//! as lines.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

/// That many are told.
const TOLD: u32 = 10;

/// The errors of one disk.
#[derive(Debug)]
pub struct HostErrors {
    /// "virtio-blk@pci.0.3.0".
    name: String,
    count: AtomicU32,
}

impl HostErrors {
    /// Of the device with that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            count: AtomicU32::new(0),
        }
    }

    /// "`what` has failed", if that wasn't said too often before.
    pub fn tell(&self, what: impl fmt::Display, error: &io::Error) {
        if self.count.fetch_add(1, Ordering::Relaxed) < TOLD {
            let why = cli::io_error(error);
            eprintln!("bhyve: {}: {what} has failed: {why}\r", self.name);
        }
    }
}
