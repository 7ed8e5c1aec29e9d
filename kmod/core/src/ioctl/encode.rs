//! Answers, written back into the parameter structure of their request.

use vmm_sys as sys;

use super::fields::{put, put_bytes};
use super::request::{Mapping, Topology};
use super::table::{Command, Entry};
use crate::regs::SegDesc;
use crate::types::Gpa;

/// What a request answers with when it succeeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply<'a> {
    /// Nothing but success.
    None,
    Register(u64),
    SegDesc(SegDesc),
    Capability(bool),
    /// `len` 0 is a segment that doesn't exist; `name` is empty for system memory.
    Memseg { len: u64, name: &'a str },
    Mapping(Mapping),
    /// The entries of the EPT walk from the root down, at most four.
    GpaPmap(&'a [u64]),
    /// `None`: translating faults.
    Gla2gpa(Option<Gpa>),
    /// As `EventQueue::intinfo` gives them.
    Intinfo(u64, u64),
    /// At most [`super::MAX_VM_STATS`] values, and the wall clock.
    Stats { now: Timeval, values: &'a [u64] },
    StatDesc(&'a str),
    X2apicState(bool),
    Topology(Topology),
}

/// struct timeval: since 1970, UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeval {
    pub sec: i64,
    pub usec: i64,
}

impl Timeval {
    pub const fn from_ns(ns: u64) -> Self {
        Self {
            sec: (ns / 1_000_000_000) as i64,
            usec: (ns % 1_000_000_000 / 1_000) as i64,
        }
    }
}

