//! Requests about memory: segments, mappings, translation.

use vmm_sys::ioctl::*;

use super::super::{AllocMemseg, Mapping, Numa, Prot, Request, SegId, UserPtr};
use super::Param;
use crate::exit::Access;
use crate::regs::{CpuMode, GuestPaging, PagingMode};
use crate::types::Errno::{EINVAL, ENAMETOOLONG, ENOMEM, ERANGE};
use crate::types::{Gla, Gpa, VcpuId};

const V3: VcpuId = VcpuId(3);

/// struct vm_memseg: segid 0, len 8, name 16, ds_mask 32, ds_mask_size 40, ds_policy 48.
fn memseg(segid: i32, len: u64, name: &str) -> Param {
    Param::new(VM_ALLOC_MEMSEG)
        .i32(0, segid)
        .u64(8, len)
        .bytes(16, name.as_bytes())
}

fn segment(param: Param) -> Result<AllocMemseg, crate::types::Errno> {
    param.decode().map(|request| match request {
        Request::AllocMemseg(segment) => segment,
        other => panic!("{other:?}"),
    })
}

#[test]
fn memory_segments() {
    let sysmem = segment(memseg(0, 1 << 30, "")).unwrap();
    assert_eq!(
        (sysmem.segid.index(), sysmem.len, sysmem.name),
        (0, 1 << 30, None)
    );
    let bootrom = segment(memseg(8, 0x20_0000, "bootrom")).unwrap();
    assert_eq!(bootrom.segid.index(), 8);
    assert_eq!(bootrom.name.unwrap().as_str(), "bootrom");
    for segid in [-1, 11, i32::MAX, i32::MIN] {
        assert_eq!(segment(memseg(segid, 0x1000, "")), Err(EINVAL));
    }
    for len in [0, 1, 0xfff, 0x1001, u64::MAX, 1 << 63 | 0x1000] {
        assert_eq!(segment(memseg(0, len, "")), Err(EINVAL), "{len:#x}");
    }
    assert_eq!(
        segment(memseg(8, 0x1000, "0123456789abcdef")),
        Err(ENAMETOOLONG)
    );
    assert_eq!(segment(memseg(8, 0x1000, "../mem")), Err(EINVAL));
}

#[test]
fn numa_policies() {
    let numa = |mask, size, policy| {
        let param = memseg(0, 0x1000, "")
            .u64(32, mask)
            .u64(40, size)
            .i32(48, policy);
        segment(param).map(|segment| segment.numa)
    };
    let mask = UserPtr(0x5000);
    assert_eq!(
        numa(0x5000, 32, 3),
        Ok(Some(Numa {
            policy: 3,
            mask,
            mask_size: 32
        }))
    );
    // Without a policy or a mask there is none, whatever the size.
    assert_eq!(numa(0x5000, 7, 0), Ok(None));
    assert_eq!(numa(0, 7, 3), Ok(None));
    for size in [8, 31] {
        let mask_size = size as usize;
        let expected = Numa {
            policy: 3,
            mask,
            mask_size,
        };
        assert_eq!(numa(0x5000, size, 3), Ok(Some(expected)));
    }
    for size in [0, 7, 33, 64, u64::MAX] {
        assert_eq!(numa(0x5000, size, 3), Err(ERANGE), "{size}");
    }
}

/// struct vm_memseg_12 and vm_memseg_14: as vm_memseg, up to the end of name.
#[test]
fn segments_of_freebsd_12_and_14() {
    for (ioctl, name_size) in [(VM_ALLOC_MEMSEG_12, 64), (VM_ALLOC_MEMSEG_14, 16)] {
        let alloc = |segid, name: &str| {
            let param = Param::new(ioctl).i32(0, segid).u64(8, 0x1000);
            segment(param.bytes(16, name.as_bytes()))
        };
        assert_eq!(alloc(0, "").unwrap().segid.index(), 0);
        assert_eq!(alloc(1, "bootrom").unwrap().segid.index(), 8);
        assert_eq!(alloc(3, "pcirom").unwrap().segid.index(), 10);
        for segid in [4, i32::MAX, -8, i32::MIN] {
            assert_eq!(alloc(segid, "x"), Err(EINVAL), "{segid}");
        }
        let longest = "x".repeat(name_size - 1);
        assert_eq!(alloc(1, &longest).unwrap().name.unwrap().as_str(), longest);
        assert_eq!(alloc(1, &"x".repeat(name_size)), Err(ENAMETOOLONG));
        assert!(alloc(1, &longest).unwrap().numa.is_none());
    }
    for (ioctl, raw, name_size) in [
        (VM_GET_MEMSEG_12, 2, 64),
        (VM_GET_MEMSEG_14, 2, 16),
        (VM_GET_MEMSEG, 9, 16),
    ] {
        assert_eq!(
            Param::new(ioctl).i32(0, raw).decode(),
            Ok(Request::GetMemseg {
                segid: SegId::from_raw(9).unwrap(),
                name_size,
            })
        );
        assert_eq!(Param::new(ioctl).i32(0, 11).decode(), Err(EINVAL));
    }
}

/// struct vm_memmap: gpa 0, segid 8, segoff 16, len 24, prot 32, flags 36.
fn mmap(gpa: u64, segoff: u64, len: u64) -> Param {
    let param = Param::new(VM_MMAP_MEMSEG).u64(0, gpa).u64(16, segoff);
    param.u64(24, len).i32(32, 7)
}

#[test]
fn mappings() {
    let map = mmap(0x10_0000, 0x3000, 0x2000)
        .i32(8, 8)
        .i32(32, 5)
        .i32(36, 1)
        .decode();
    let expected = Mapping {
        gpa: Gpa(0x10_0000),
        segid: SegId::from_raw(8).unwrap(),
        segoff: 0x3000,
        len: 0x2000,
        prot: Prot::READ | Prot::EXEC,
        wired: true,
    };
    assert_eq!(map, Ok(Request::MmapMemseg(expected)));
    assert_eq!(expected.gpa_end(), Gpa(0x10_2000));
    assert_eq!(expected.segoff_end(), 0x5000);
    assert!(mmap(0, 0, 0x1000).decode().is_ok());
    assert!(mmap((1 << 47) - 0x1000, 0, 0x1000).decode().is_ok());
    let bad = [
        // Empty; not pages.
        (0, 0, 0),
        (0, 0, 0x800),
        (0x800, 0, 0x1000),
        (0, 0x800, 0x1000),
        (0, 0, 0x1001),
        // Past the end of 64 bits, of an offset, of both.
        (u64::MAX - 0xfff, 0, 0x1000),
        (u64::MAX - 0xfff, 0, 0x2000),
        (0, u64::MAX - 0xfff, 0x2000),
        (0, 1 << 63, 0x1000),
        (0, 0x1000, 1 << 63),
        (0x1000, 0x1000, u64::MAX - 0xfff),
    ];
    for (gpa, segoff, len) in bad {
        assert_eq!(
            mmap(gpa, segoff, len).decode(),
            Err(EINVAL),
            "{gpa:#x} {segoff:#x} {len:#x}"
        );
    }
    // Past the guest's address space.
    assert_eq!(mmap(1 << 47, 0, 0x1000).decode(), Err(ENOMEM));
    assert_eq!(mmap((1 << 47) - 0x1000, 0, 0x2000).decode(), Err(ENOMEM));
    for prot in [0, 8, -1, 0x107] {
        assert_eq!(mmap(0, 0, 0x1000).i32(32, prot).decode(), Err(EINVAL));
    }
    // VM_MEMMAP_F_IOMMU is the kernel's own.
    for flags in [2, 3, -1] {
        assert_eq!(mmap(0, 0, 0x1000).i32(36, flags).decode(), Err(EINVAL));
    }
    assert_eq!(mmap(0, 0, 0x1000).i32(8, -1).decode(), Err(EINVAL));
}

#[test]
fn overlapping_mappings() {
    let map = |gpa, len| match mmap(gpa, 0, len).decode() {
        Ok(Request::MmapMemseg(mapping)) => mapping,
        other => panic!("{other:?}"),
    };
    let middle = map(0x4000, 0x4000);
    for (gpa, len, overlaps) in [
        (0x0000, 0x4000, false),
        (0x8000, 0x1000, false),
        (0x0000, 0x5000, true),
        (0x7000, 0x9000, true),
        (0x5000, 0x1000, true),
        (0x0000, 0x10_0000, true),
    ] {
        assert_eq!(
            middle.overlaps(&map(gpa, len)),
            overlaps,
            "{gpa:#x} {len:#x}"
        );
        assert_eq!(
            map(gpa, len).overlaps(&middle),
            overlaps,
            "{gpa:#x} {len:#x}"
        );
    }
}

#[test]
fn what_of_a_segment_only_one_map_shows() {
    let map = |segid, segoff, len| match mmap(0, segoff, len).i32(8, segid).decode() {
        Ok(Request::MmapMemseg(mapping)) => mapping,
        other => panic!("{other:?}"),
    };
    let this = map(0, 0x4000, 0x4000);
    let whole = [(0x4000, 0x4000)];
    assert_eq!(this.parts_only_here(&[]), whole);
    // Another segment; right before and right behind.
    let others = [
        map(1, 0, 0x10_0000),
        map(0, 0, 0x4000),
        map(0, 0x8000, 0x1000),
    ];
    assert_eq!(this.parts_only_here(&others), whole);
    assert_eq!(this.parts_only_here(&[this]), []);
    assert_eq!(this.parts_only_here(&[map(0, 0, 0x10_0000)]), []);
    // In the middle, over both edges, over one another.
    let middle = [map(0, 0x5000, 0x1000)];
    let expected = [(0x4000, 0x1000), (0x6000, 0x2000)];
    assert_eq!(this.parts_only_here(&middle), expected);
    let edges = [map(0, 0x7000, 0x2000), map(0, 0x3000, 0x2000)];
    assert_eq!(this.parts_only_here(&edges), [(0x5000, 0x2000)]);
    let nested = [map(0, 0x5000, 0x1000), map(0, 0x3000, 0x4000)];
    assert_eq!(this.parts_only_here(&nested), [(0x7000, 0x1000)]);
}

#[test]
fn unmapping_and_looking() {
    let munmap = |gpa, len| {
        Param::new(VM_MUNMAP_MEMSEG)
            .u64(0, gpa)
            .u64(8, len)
            .decode()
    };
    let expected = Request::MunmapMemseg {
        gpa: Gpa(0x1000),
        len: 0x2000,
    };
    assert_eq!(munmap(0x1000, 0x2000), Ok(expected));
    for (gpa, len) in [
        (0, 0),
        (0x1000, 0),
        (1, 0x1000),
        (0x1000, u64::MAX),
        (u64::MAX, 1),
    ] {
        assert_eq!(munmap(gpa, len), Err(EINVAL));
    }
    let next = Param::new(VM_MMAP_GETNEXT).u64(0, u64::MAX).decode();
    assert_eq!(next, Ok(Request::MmapGetnext { gpa: u64::MAX }));
    let pmap = Param::new(VM_GET_GPA_PMAP).u64(0, 0xabc).decode();
    assert_eq!(pmap, Ok(Request::GetGpaPmap { gpa: Gpa(0xabc) }));
}

#[test]
fn translation() {
    // vcpuid 0, prot 4, gla 8, cr3 16, cpl 24, cpu_mode 28, paging_mode 32.
    let ask = |prot, cpl, cpu_mode, paging_mode| {
        let param = Param::new(VM_GLA2GPA)
            .i32(0, 3)
            .i32(4, prot)
            .u64(8, 0xffff_8000_0000_1000);
        param
            .u64(16, 0x7000)
            .i32(24, cpl)
            .i32(28, cpu_mode)
            .i32(32, paging_mode)
            .decode()
    };
    let expected = |access| Request::Gla2gpa {
        vcpu: V3,
        paging: GuestPaging {
            cr3: 0x7000,
            cpl: 3,
            cpu_mode: CpuMode::Long64,
            paging_mode: PagingMode::Level4,
        },
        gla: Gla(0xffff_8000_0000_1000),
        access,
        inject_fault: true,
    };
    for (prot, access) in [
        (0, Access::Read),
        (1, Access::Read),
        (2, Access::Write),
        (3, Access::Write),
        (5, Access::Execute),
    ] {
        assert_eq!(ask(prot, 3, 3, 3), Ok(expected(access)));
    }
    for (prot, cpl, cpu_mode, paging_mode) in [
        (6, 0, 3, 3),
        (8, 0, 3, 3),
        (-1, 0, 3, 3),
        (1, 4, 3, 3),
        (1, -1, 3, 3),
        (1, 0, 4, 3),
        (1, 0, 3, 5),
        (1, 0, -1, 3),
    ] {
        assert_eq!(ask(prot, cpl, cpu_mode, paging_mode), Err(EINVAL));
    }
    match Param::new(VM_GLA2GPA_NOFAULT).decode() {
        Ok(Request::Gla2gpa { inject_fault, .. }) => assert!(!inject_fault),
        other => panic!("{other:?}"),
    }
}
