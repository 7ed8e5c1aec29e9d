//! Whatever bytes userland passes: no panic, and what decodes is what the types promise.

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
                assert!((1..=15).contains(&name.as_str().len()));
                assert!(!name.as_str().contains(['/', ' ', '\0', '\n']));
            }
            if let Some(numa) = segment.numa {
                assert_eq!(numa.mask_size, 32);
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
        Just(0),
        Just(1),
        Just(u32::MAX),
        0u32..64,
        (0u32..16).prop_map(|n| n << 12),
        Just(0x8000_0000),
        any::<u32>(),
    ]
}

proptest::proptest! {
    #[test]
    fn what_decodes_is_valid(
        row in 0..TABLE.len(),
        words in proptest::collection::vec(word(), 140),
        cut in 0usize..8,
    ) {
        let entry = &TABLE[row];
        let bytes: alloc::vec::Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let len = entry.ioctl.size.saturating_sub(cut).min(bytes.len());
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
