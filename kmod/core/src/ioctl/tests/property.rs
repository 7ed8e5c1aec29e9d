//! Whatever bytes userland passes: no panic, and what decodes is what the types promise.

use alloc::vec::Vec;

use super::super::{Availability, GPA_LIMIT, Request, TABLE, VM_MAXCPU, decode};
use crate::types::Errno::{EINVAL, ENAMETOOLONG, ENOMEM, ERANGE};
use crate::types::{PAGE_SIZE, Vector};

/// What the layers below rely on.
fn assert_valid(request: &Request) {
    if let Some(vcpu) = request.vcpu() {
        assert!(vcpu.0 < VM_MAXCPU);
    }
    let pages = |start: u64, len: u64| {
        assert!(len > 0 && len % PAGE_SIZE == 0 && start % PAGE_SIZE == 0);
        start.checked_add(len).unwrap()
    };
    match request {
        Request::AllocMemseg(segment) => {
            pages(0, segment.len);
            if let Some(name) = &segment.name {
                assert!((1..=63).contains(&name.as_str().len()));
                assert!(!name.as_str().contains(['/', ' ', '\0', '\n']));
            }
            if let Some(numa) = segment.numa {
                assert!((8..=32).contains(&numa.mask_size));
            }
        }
        Request::MmapMemseg(mapping) => {
            assert!(pages(mapping.gpa.0, mapping.len) <= GPA_LIMIT.0);
            assert!(pages(mapping.segoff, mapping.len) <= 1 << 63);
            assert!(!mapping.prot.is_empty());
        }
        Request::MunmapMemseg { gpa, len } => {
            assert!(pages(gpa.0, *len) <= GPA_LIMIT.0);
        }
        Request::GetRegisterSet(set) | Request::SetRegisterSet(set) => assert!(set.count <= 49),
        Request::Gla2gpa { paging, .. } => assert!(paging.cpl <= 3),
        Request::InjectException { vector, .. } => {
            assert!(vector.0 < 32 && *vector != Vector::DF);
        }
        Request::GetCpus { size, .. } => assert!((1..=128).contains(size)),
        Request::SetTopology(topology) => {
            assert!((1..=u64::from(VM_MAXCPU)).contains(&topology.vcpus()));
        }
        _ => {}
    }
}

/// Words that requests are made of more often than chance would have it.
fn word() -> impl proptest::strategy::Strategy<Value = u32> {
    use proptest::prelude::*;
    prop_oneof![
        8 => Just(0),
        4 => 1u32..9,
        4 => (1u32..16).prop_map(|n| n << 12),
        1 => 9u32..64,
        // Two small u16.
        2 => (1u32..5).prop_map(|n| n << 16 | n),
        1 => Just(u32::MAX),
        1 => Just(0x8000_0000),
        1 => any::<u32>(),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(2000))]

    /// Each case is tried as the parameter of every request.
    #[test]
    fn what_decodes_is_valid(words in proptest::collection::vec(word(), 16), cut in 0usize..32) {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        // Behind these are names' ends and what is output.
        bytes.resize(vmm_sys::IOCPARM_MAX as usize, 0);
        for entry in TABLE {
            // Now and then the structure is not there whole.
            let missing = if cut < 4 { cut } else { 0 };
            let len = entry.ioctl.size.saturating_sub(missing);
            match decode(entry, &bytes[..len]) {
                Ok(request) => {
                    assert_eq!(entry.availability, Availability::Served);
                    assert_eq!(len, entry.ioctl.size);
                    assert_valid(&request);
                }
                Err(errno) => {
                    let absent = entry.availability == Availability::Absent(errno);
                    assert!(absent || matches!(errno, EINVAL | ENOMEM | ERANGE | ENAMETOOLONG));
                }
            }
        }
    }
}
