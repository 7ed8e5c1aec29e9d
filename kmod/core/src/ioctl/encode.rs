//! Answers, written back into the parameter structure of their request.

use core::mem::offset_of;

use vmm_sys as sys;

use super::exit::VM_EXIT_SIZE;
use super::fields::{put, store, store_str};
use super::request::{MAX_VM_STATS, Mapping, Topology};
use crate::regs::SegDesc;
use crate::types::Gpa;

/// What a request answers with when it succeeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply<'a> {
    /// Nothing but success.
    None,
    /// FreeBSD 13's VM_RUN: `struct vm_exit`, and for an IPI exit the destinations, of
    /// which it has room for the vcpus below 256.
    Run13 {
        exit: &'a [u8; VM_EXIT_SIZE],
        ipi_targets: Option<&'a [u8]>,
    },
    Register(u64),
    SegDesc(SegDesc),
    Capability(bool),
    /// `len` 0 is a segment that doesn't exist; `name` is empty for system memory.
    /// `name_size` is the request's; the name has to fit.
    Memseg {
        len: u64,
        name: &'a str,
        name_size: usize,
    },
    Mapping(Mapping),
    /// The entries of the EPT walk from the root down, at most four.
    GpaPmap(&'a [u64]),
    /// `None`: translating faults.
    Gla2gpa(Option<Gpa>),
    /// As `EventQueue::intinfo` gives them.
    Intinfo(u64, u64),
    /// At most [`super::MAX_VM_STATS`] values, and the wall clock.
    Stats {
        now: Timeval,
        values: &'a [u64],
    },
    /// As in FreeBSD 13.
    Stats13 {
        now: Timeval,
        values: &'a [u64],
    },
    StatDesc(&'a str),
    X2apicState(bool),
    IoapicPincount(usize),
    Kernemu(u64),
    /// The low half of its capabilities register.
    HpetCapabilities(u32),
    RtcData(u8),
    /// Seconds since 1970, UTC.
    RtcTime(i64),
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

/// Writes the answer into the structure that its request came in. What is input there
/// stays as it is.
///
/// Panics when `data` is smaller than the structure that the answer belongs to: the reply
/// to another request than the one that was decoded from it.
pub fn encode(reply: &Reply<'_>, data: &mut [u8]) {
    match *reply {
        Reply::None => {}
        Reply::Run13 { exit, ipi_targets } => {
            const EXIT: usize = offset_of!(sys::vm_run_13, vm_exit);
            // What has changed since is who copies it.
            const _: () = assert!(
                size_of::<sys::vm_exit_13>() == VM_EXIT_SIZE
                    && offset_of!(sys::vm_exit_13, rip) == offset_of!(sys::vm_exit, rip)
                    && offset_of!(sys::vm_exit_13, u) == offset_of!(sys::vm_exit, u)
            );
            store(data, EXIT, exit);
            if let Some(targets) = ipi_targets {
                const DMASK: usize =
                    EXIT + offset_of!(sys::vm_exit_13, u) + offset_of!(sys::vm_exit_ipi_13, dmask);
                const BYTES: usize =
                    size_of::<sys::vm_exit_ipi_13>() - offset_of!(sys::vm_exit_ipi_13, dmask);
                store(data, DMASK, &targets[..targets.len().min(BYTES)]);
            }
        }
        Reply::Register(value) => put!(data, sys::vm_register, regval: u64 = value),
        Reply::SegDesc(desc) => {
            put!(data, sys::vm_seg_desc, desc.base: u64 = desc.base);
            put!(data, sys::vm_seg_desc, desc.limit: u32 = desc.limit);
            put!(data, sys::vm_seg_desc, desc.access: u32 = desc.access);
        }
        Reply::Capability(on) => put!(data, sys::vm_capability, capval: i32 = on.into()),
        Reply::Memseg {
            len,
            name,
            name_size,
        } => {
            // The older structures begin like this one.
            put!(data, sys::vm_memseg, len: usize = len as usize);
            if len != 0 {
                let at = offset_of!(sys::vm_memseg, name);
                const _: () = assert!(
                    offset_of!(sys::vm_memseg, name) == offset_of!(sys::vm_memseg_14, name)
                        && offset_of!(sys::vm_memseg, len) == offset_of!(sys::vm_memseg_14, len)
                        && offset_of!(sys::vm_memseg, name) == offset_of!(sys::vm_memseg_12, name)
                        && offset_of!(sys::vm_memseg, len) == offset_of!(sys::vm_memseg_12, len)
                );
                store_str(data, at, name_size, name);
            }
        }
        Reply::Mapping(mapping) => {
            put!(data, sys::vm_memmap, gpa: u64 = mapping.gpa.0);
            put!(data, sys::vm_memmap, segid: i32 = mapping.segid.index() as i32);
            put!(data, sys::vm_memmap, segoff: u64 = mapping.segoff);
            put!(data, sys::vm_memmap, len: usize = mapping.len as usize);
            put!(data, sys::vm_memmap, prot: i32 = mapping.prot.bits().into());
            let flags = if mapping.wired {
                sys::VM_MEMMAP_F_WIRED
            } else {
                0
            };
            put!(data, sys::vm_memmap, flags: i32 = flags as i32);
        }
        Reply::GpaPmap(entries) => {
            let mut pte = [0; 4];
            pte[..entries.len()].copy_from_slice(entries);
            let at = offset_of!(sys::vm_gpa_pte, pte);
            store_all(data, at, &pte);
            put!(data, sys::vm_gpa_pte, ptenum: i32 = entries.len() as i32);
        }
        Reply::Gla2gpa(gpa) => {
            put!(data, sys::vm_gla2gpa, fault: i32 = gpa.is_none().into());
            if let Some(gpa) = gpa {
                put!(data, sys::vm_gla2gpa, gpa: u64 = gpa.0);
            }
        }
        Reply::Intinfo(info1, info2) => {
            put!(data, sys::vm_intinfo, info1: u64 = info1);
            put!(data, sys::vm_intinfo, info2: u64 = info2);
        }
        Reply::Stats { now, values } => {
            let values = &values[..values.len().min(MAX_VM_STATS)];
            put!(data, sys::vm_stats, num_entries: i32 = values.len() as i32);
            put!(data, sys::vm_stats, tv.tv_sec: i64 = now.sec);
            put!(data, sys::vm_stats, tv.tv_usec: i64 = now.usec);
            store_all(data, offset_of!(sys::vm_stats, statbuf), values);
        }
        Reply::Stats13 { now, values } => {
            let values = &values[..values.len().min(MAX_VM_STATS)];
            put!(data, sys::vm_stats_13, num_entries: i32 = values.len() as i32);
            put!(data, sys::vm_stats_13, tv.tv_sec: i64 = now.sec);
            put!(data, sys::vm_stats_13, tv.tv_usec: i64 = now.usec);
            store_all(data, offset_of!(sys::vm_stats_13, statbuf), values);
        }
        Reply::StatDesc(desc) => {
            let at = offset_of!(sys::vm_stat_desc, desc);
            store_str(data, at, size_of::<sys::vm_stat_desc>() - at, desc);
        }
        Reply::IoapicPincount(pins) => store(data, 0, &(pins as i32).to_ne_bytes()),
        Reply::Kernemu(value) => {
            put!(data, sys::vm_readwrite_kernemu_device, value: u64 = value);
        }
        Reply::HpetCapabilities(low) => {
            put!(data, sys::vm_hpet_cap, capabilities: u32 = low);
        }
        Reply::RtcData(value) => put!(data, sys::vm_rtc_data, value: u8 = value),
        Reply::RtcTime(seconds) => put!(data, sys::vm_rtc_time, secs: i64 = seconds),
        Reply::X2apicState(enabled) => {
            let state = if enabled {
                sys::X2APIC_ENABLED
            } else {
                sys::X2APIC_DISABLED
            };
            put!(data, sys::vm_x2apic, state: u32 = state);
        }
        Reply::Topology(topology) => {
            put!(data, sys::vm_cpu_topology, sockets: u16 = topology.sockets);
            put!(data, sys::vm_cpu_topology, cores: u16 = topology.cores);
            put!(data, sys::vm_cpu_topology, threads: u16 = topology.threads);
            put!(data, sys::vm_cpu_topology, maxcpus: u16 = topology.maxcpus);
        }
    }
}

/// Stores an array of u64.
fn store_all(data: &mut [u8], at: usize, values: &[u64]) {
    for (slot, value) in data[at..].chunks_exact_mut(8).zip(values) {
        slot.copy_from_slice(&value.to_ne_bytes());
    }
}
