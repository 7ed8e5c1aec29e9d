//! Images for tests, made by hand: what no tool here makes, and what every machine can make.

pub mod iso;
pub mod table;
pub mod ufs;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::source::Source;

/// Memory that counts what is read of it.
pub struct Counted {
    bytes: Vec<u8>,
    read: AtomicU64,
}

impl Counted {
    pub fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            bytes,
            read: AtomicU64::new(0),
        })
    }

    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

impl Source for Counted {
    fn size(&self) -> u64 {
        self.bytes.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.bytes.read_at(offset, buf)
    }
}
