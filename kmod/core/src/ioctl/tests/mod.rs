//! The ABI from outside: structures as bytes, with offsets counted by hand from the
//! headers rather than taken from bindgen, so that each side checks the other.

mod decode;
mod exit;
mod interrupt;
mod memory;
mod property;
mod reply;
mod table;

use alloc::vec;
use alloc::vec::Vec;

use vmm_sys::ioctl::Ioctl;

use super::{Entry, Request, lookup};
use crate::types::Errno;

fn entry(ioctl: Ioctl) -> &'static Entry {
    lookup(u64::from(ioctl.code())).expect("a request of the header has a row")
}

/// A parameter structure.
struct Param {
    ioctl: Ioctl,
    bytes: Vec<u8>,
}

impl Param {
    fn new(ioctl: Ioctl) -> Self {
        Self {
            ioctl,
            bytes: vec![0; ioctl.size],
        }
    }

    fn i32(self, at: usize, value: i32) -> Self {
        self.bytes(at, &value.to_le_bytes())
    }

    fn u64(self, at: usize, value: u64) -> Self {
        self.bytes(at, &value.to_le_bytes())
    }

    fn bytes(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn decode(&self) -> Result<Request, Errno> {
        super::decode(entry(self.ioctl), &self.bytes)
    }
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
