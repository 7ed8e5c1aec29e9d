//! Answers, as userland finds them.

use vmm_sys::ioctl::*;

use super::super::{Mapping, Prot, Reply, SegId, Timeval, Topology, encode};
use super::{Param, i32_at, u64_at};
use crate::regs::SegDesc;
use crate::types::Gpa;

/// The structure after the answer; input that the answer must leave alone is 55H.
fn answer(ioctl: Ioctl, reply: &Reply<'_>) -> alloc::vec::Vec<u8> {
    let mut param = Param::new(ioctl);
    param.bytes.fill(0x55);
    encode(reply, &mut param.bytes);
    param.bytes
}

const INPUT: i32 = 0x5555_5555;

#[test]
fn registers_and_descriptors() {
    let data = answer(VM_GET_REGISTER, &Reply::Register(0x1122_3344_5566_7788));
    assert_eq!((i32_at(&data, 0), i32_at(&data, 4)), (INPUT, INPUT));
    assert_eq!(u64_at(&data, 8), 0x1122_3344_5566_7788);
    let desc = SegDesc {
        base: 0xffff_0000,
        limit: 0xffff,
        access: 0x1_0093,
    };
    let data = answer(VM_GET_SEGMENT_DESCRIPTOR, &Reply::SegDesc(desc));
    assert_eq!(i32_at(&data, 4), INPUT);
    assert_eq!(
        (u64_at(&data, 8), i32_at(&data, 16), i32_at(&data, 20)),
        (0xffff_0000, 0xffff, 0x1_0093)
    );
}

#[test]
fn capability_x2apic_intinfo() {
    for on in [false, true] {
        assert_eq!(
            i32_at(&answer(VM_GET_CAPABILITY, &Reply::Capability(on)), 8),
            i32::from(on)
        );
        let data = answer(VM_GET_X2APIC_STATE, &Reply::X2apicState(on));
        assert_eq!(i32_at(&data, 4), i32::from(on));
    }
    let data = answer(VM_GET_INTINFO, &Reply::Intinfo(1 << 40, 2));
    assert_eq!(
        (i32_at(&data, 0), u64_at(&data, 8), u64_at(&data, 16)),
        (INPUT, 1 << 40, 2)
    );
}

#[test]
fn memory_segments() {
    for (ioctl, name_size) in [
        (VM_GET_MEMSEG, 16),
        (VM_GET_MEMSEG_14, 16),
        (VM_GET_MEMSEG_12, 64),
    ] {
        let answer = |len, name| {
            let reply = Reply::Memseg {
                len,
                name,
                name_size,
            };
            answer(ioctl, &reply)
        };
        let data = answer(0x20_0000, "bootrom");
        assert_eq!(i32_at(&data, 0), INPUT);
        assert_eq!(u64_at(&data, 8), 0x20_0000);
        assert_eq!(&data[16..24], b"bootrom\0");
        let longest = "x".repeat(name_size - 1);
        let data = answer(0x1000, &longest);
        assert_eq!(&data[16..16 + name_size - 1], longest.as_bytes());
        assert_eq!(data[16 + name_size - 1], 0);
        let data = answer(0x1000, "");
        assert_eq!(data[16], 0);
        // No such segment: only the length says so.
        let data = answer(0, "");
        assert_eq!((u64_at(&data, 8), data[16]), (0, 0x55));
    }
}

/// struct vm_run_13: cpuid 0, vm_exit 8; in it the union 16; in that an IPI's dmask 8.
#[test]
fn the_exit_in_freebsd_13s_structure() {
    let exit = core::array::from_fn(|at| at as u8);
    let targets: [u8; 128] = core::array::from_fn(|at| 200 - at as u8);
    let run = |ipi_targets| {
        let reply = Reply::Run13 {
            exit: &exit,
            ipi_targets,
        };
        answer(VM_RUN_13, &reply)
    };
    let data = run(None);
    assert_eq!((data.len(), i32_at(&data, 0)), (144, INPUT));
    assert_eq!(data[8..], exit);
    // The vcpus from 256 on have no place.
    let data = run(Some(&targets));
    assert_eq!(data[8..32], exit[..24]);
    assert_eq!(data[32..64], targets[..32]);
    assert_eq!(data[64..], exit[56..]);
}

#[test]
fn mappings() {
    let mapping = Mapping {
        gpa: Gpa(1 << 32),
        segid: SegId::from_raw(8).unwrap(),
        segoff: 0x3000,
        len: 0x2000,
        prot: Prot::READ | Prot::EXEC,
        wired: true,
    };
    let data = answer(VM_MMAP_GETNEXT, &Reply::Mapping(mapping));
    assert_eq!((u64_at(&data, 0), i32_at(&data, 8)), (1 << 32, 8));
    assert_eq!((u64_at(&data, 16), u64_at(&data, 24)), (0x3000, 0x2000));
    assert_eq!((i32_at(&data, 32), i32_at(&data, 36)), (5, 1));
}

#[test]
fn page_walks() {
    let data = answer(VM_GET_GPA_PMAP, &Reply::GpaPmap(&[7, 8, 9]));
    let entries = [8, 16, 24, 32].map(|at| u64_at(&data, at));
    assert_eq!((entries, i32_at(&data, 40)), ([7, 8, 9, 0], 3));
    assert_eq!(i32_at(&data, 0), INPUT);
    let data = answer(VM_GLA2GPA, &Reply::Gla2gpa(Some(Gpa(0x1234))));
    assert_eq!((i32_at(&data, 40), u64_at(&data, 48)), (0, 0x1234));
    let data = answer(VM_GLA2GPA, &Reply::Gla2gpa(None));
    assert_eq!((i32_at(&data, 40), i32_at(&data, 48)), (1, INPUT));
}

#[test]
fn statistics() {
    let values: alloc::vec::Vec<u64> = (100..200).collect();
    let now = Timeval::from_ns(1_763_661_600_123_456_789);
    let data = answer(
        VM_STATS,
        &Reply::Stats {
            now,
            values: &values,
        },
    );
    // cpuid 0, index 4, num_entries 8, tv 16, statbuf 32.
    assert_eq!(
        (i32_at(&data, 0), i32_at(&data, 4), i32_at(&data, 8)),
        (INPUT, INPUT, 64)
    );
    assert_eq!(
        (u64_at(&data, 16), u64_at(&data, 24)),
        (1_763_661_600, 123_456)
    );
    assert_eq!((u64_at(&data, 32), u64_at(&data, 32 + 63 * 8)), (100, 163));
    // cpuid 0, num_entries 4, tv 8, statbuf 24.
    let data = answer(
        VM_STATS_13,
        &Reply::Stats13 {
            now,
            values: &values,
        },
    );
    assert_eq!((i32_at(&data, 0), i32_at(&data, 4)), (INPUT, 64));
    assert_eq!(
        (u64_at(&data, 8), u64_at(&data, 16)),
        (1_763_661_600, 123_456)
    );
    assert_eq!((u64_at(&data, 24), u64_at(&data, 24 + 63 * 8)), (100, 163));
    let data = answer(VM_STATS, &Reply::Stats { now, values: &[] });
    assert_eq!((i32_at(&data, 8), i32_at(&data, 32)), (0, INPUT));
    let data = answer(VM_STAT_DESC, &Reply::StatDesc("total number of vm exits"));
    assert_eq!(&data[4..29], b"total number of vm exits\0");
    let long = "x".repeat(200);
    let data = answer(VM_STAT_DESC, &Reply::StatDesc(&long));
    assert_eq!((data.len(), data[130], data[131]), (132, b'x', 0));
}

#[test]
fn topology() {
    let topology = Topology {
        sockets: 1,
        cores: 2,
        threads: 3,
        maxcpus: 0x0405,
    };
    let data = answer(VM_GET_TOPOLOGY, &Reply::Topology(topology));
    assert_eq!(data, [1, 0, 2, 0, 3, 0, 5, 4]);
}
