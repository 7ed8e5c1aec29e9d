use vmm_sys::ioctl::*;

use super::super::{
    AllocMemseg, Availability, CpuSetKind, GPA_LIMIT, Mapping, Numa, Prot, Readable, RegisterSet,
    Request, SegId, TABLE, Topology, UserPtr, VM_MAXCPU, decode,
};
use super::Param;
use crate::exit::{Access, SuspendHow};
use crate::regs::{CpuMode, GuestPaging, PagingMode, Reg, SegDesc, SegReg};
use crate::types::Errno::{EINVAL, ENAMETOOLONG, ENOMEM, ERANGE};
use crate::types::{Gla, Gpa, PAGE_SIZE, VcpuId, Vector};
use crate::vcpu::Capability;

const V3: VcpuId = VcpuId(3);

#[test]
fn a_vcpu_is_a_number_that_a_vm_can_have() {
    let run = |vcpu| Param::new(VM_RUN).i32(0, vcpu).decode();
    assert!(run(0).is_ok());
    assert!(run(1023).is_ok());
    for vcpu in [-1, 1024, 65_536, i32::MAX, i32::MIN] {
        assert_eq!(run(vcpu), Err(EINVAL), "{vcpu}");
    }
    // -1 is every vcpu where the header says so, and nothing else below 0 is.
    let suspend = |vcpu| Param::new(VM_SUSPEND_CPU).i32(0, vcpu).decode();
    assert_eq!(suspend(-1), Ok(Request::SuspendCpu { vcpu: None }));
    assert_eq!(suspend(3), Ok(Request::SuspendCpu { vcpu: Some(V3) }));
    assert_eq!(suspend(-2), Err(EINVAL));
    let resume = Param::new(VM_RESUME_CPU).i32(0, -1).decode();
    assert_eq!(resume, Ok(Request::ResumeCpu { vcpu: None }));
}

#[test]
fn run() {
    let run = Param::new(VM_RUN)
        .i32(0, 3)
        .u64(8, 0x1000)
        .u64(16, 128)
        .u64(24, 0x2000);
    let expected = Request::Run {
        vcpu: V3,
        exit: UserPtr(0x2000),
        cpuset: UserPtr(0x1000),
        cpuset_size: 128,
    };
    assert_eq!(run.decode(), Ok(expected.clone()));
    assert_eq!(expected.vcpu(), Some(V3));
}

#[test]
fn suspend_and_reinit() {
    let how = |how| Param::new(VM_SUSPEND).i32(0, how).decode();
    assert_eq!(
        how(1),
        Ok(Request::Suspend {
            how: SuspendHow::Reset
        })
    );
    assert_eq!(
        how(5),
        Ok(Request::Suspend {
            how: SuspendHow::Destroy
        })
    );
    for raw in [0, 6, -1] {
        assert_eq!(how(raw), Err(EINVAL));
    }
    assert_eq!(Param::new(VM_REINIT).decode(), Ok(Request::Reinit));
}

#[test]
fn capabilities_are_a_closed_list() {
    let set = |cap, on| {
        Param::new(VM_SET_CAPABILITY)
            .i32(0, 3)
            .i32(4, cap)
            .i32(8, on)
            .decode()
    };
    let expected = |on| Request::SetCapability {
        vcpu: V3,
        cap: Capability::HaltExit,
        on,
    };
    assert_eq!(set(0, 1), Ok(expected(true)));
    assert_eq!(set(0, -7), Ok(expected(true)));
    assert_eq!(set(0, 0), Ok(expected(false)));
    for cap in [11, -1, i32::MIN] {
        assert_eq!(set(cap, 1), Err(EINVAL));
        assert_eq!(
            Param::new(VM_GET_CAPABILITY).i32(4, cap).decode(),
            Err(EINVAL)
        );
    }
    let get = Param::new(VM_GET_CAPABILITY).i32(0, 3).i32(4, 10).decode();
    assert_eq!(
        get,
        Ok(Request::GetCapability {
            vcpu: V3,
            cap: Capability::RflagsTf
        })
    );
}

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
    for size in [0, 8, 31, 33, 64, u64::MAX] {
        assert_eq!(numa(0x5000, size, 3), Err(ERANGE), "{size}");
    }
}

#[test]
fn segments_of_freebsd_14() {
    let alloc = |segid, name: &str| {
        let param = Param::new(VM_ALLOC_MEMSEG_14).i32(0, segid).u64(8, 0x1000);
        segment(param.bytes(16, name.as_bytes()))
    };
    assert_eq!(alloc(0, "").unwrap().segid.index(), 0);
    assert_eq!(alloc(1, "bootrom").unwrap().segid.index(), 8);
    assert_eq!(alloc(3, "pcirom").unwrap().segid.index(), 10);
    for segid in [4, i32::MAX, -8, i32::MIN] {
        assert_eq!(alloc(segid, "x"), Err(EINVAL), "{segid}");
    }
    let get = Param::new(VM_GET_MEMSEG_14).i32(0, 2).decode();
    assert_eq!(
        get,
        Ok(Request::GetMemseg {
            segid: SegId::from_raw(9).unwrap()
        })
    );
    let get = Param::new(VM_GET_MEMSEG).i32(0, 9).decode();
    assert_eq!(
        get,
        Ok(Request::GetMemseg {
            segid: SegId::from_raw(9).unwrap()
        })
    );
    assert_eq!(Param::new(VM_GET_MEMSEG).i32(0, 11).decode(), Err(EINVAL));
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

#[test]
fn registers_are_a_closed_list() {
    let get = |reg| Param::new(VM_GET_REGISTER).i32(0, 3).i32(4, reg).decode();
    let set = |reg| {
        Param::new(VM_SET_REGISTER)
            .i32(0, 3)
            .i32(4, reg)
            .u64(8, !0)
            .decode()
    };
    for (raw, reg) in Reg::ALL.into_iter().enumerate() {
        let readable = Readable::Reg(reg);
        assert_eq!(
            get(raw as i32),
            Ok(Request::GetRegister {
                vcpu: V3,
                reg: readable
            })
        );
        assert_eq!(
            set(raw as i32),
            Ok(Request::SetRegister {
                vcpu: V3,
                reg,
                value: !0
            })
        );
    }
    for raw in [49, 50, 0x681e, i32::MAX] {
        assert_eq!(get(raw), Err(EINVAL), "{raw:#x}");
        assert_eq!(set(raw), Err(EINVAL), "{raw:#x}");
    }
    // A VMCS field can be named to read it, and never to write it: GUEST_RIP, 681EH.
    let rip = 0x8000_681e_u32 as i32;
    let field = Readable::VmcsField(0x681e);
    assert_eq!(
        get(rip),
        Ok(Request::GetRegister {
            vcpu: V3,
            reg: field
        })
    );
    assert_eq!(set(rip), Err(EINVAL));
    for raw in [
        -1,
        i32::MIN | 0x1_0000,
        i32::MIN | 0x8000,
        i32::MIN | 0x1000,
    ] {
        assert_eq!(get(raw), Err(EINVAL), "{raw:#x}");
        assert_eq!(set(raw), Err(EINVAL), "{raw:#x}");
    }
}

#[test]
fn register_sets() {
    let set = |count| {
        let param = Param::new(VM_GET_REGISTER_SET).i32(0, 3).i32(4, count);
        param.u64(8, 0x1000).u64(16, 0x2000).decode()
    };
    let expected = |count| {
        let (regnums, values) = (UserPtr(0x1000), UserPtr(0x2000));
        Request::GetRegisterSet(RegisterSet {
            vcpu: V3,
            count,
            regnums,
            values,
        })
    };
    assert_eq!(set(0), Ok(expected(0)));
    assert_eq!(set(49), Ok(expected(49)));
    for count in [50, -1, i32::MIN] {
        assert_eq!(set(count), Err(EINVAL));
    }
}

#[test]
fn segment_descriptors() {
    // cpuid 0, regnum 4, base 8, limit 16, access 20.
    let set = |reg| {
        let param = Param::new(VM_SET_SEGMENT_DESCRIPTOR)
            .i32(0, 3)
            .i32(4, reg)
            .u64(8, 0xf0000);
        param.i32(16, 0xffff).i32(20, 0x9b).decode()
    };
    let desc = SegDesc {
        base: 0xf0000,
        limit: 0xffff,
        access: 0x9b,
    };
    assert_eq!(
        set(23),
        Ok(Request::SetSegDesc {
            vcpu: V3,
            seg: SegReg::Cs,
            desc
        })
    );
    assert_eq!(
        set(31),
        Ok(Request::SetSegDesc {
            vcpu: V3,
            seg: SegReg::Gdtr,
            desc
        })
    );
    for reg in [0, 21, 32, 49, -1] {
        assert_eq!(set(reg), Err(EINVAL));
        assert_eq!(
            Param::new(VM_GET_SEGMENT_DESCRIPTOR).i32(4, reg).decode(),
            Err(EINVAL)
        );
    }
}

#[test]
fn events() {
    // cpuid 0, vector 4, error_code 8, error_code_valid 12, restart_instruction 16.
    let inject = |vector, valid, restart| {
        let param = Param::new(VM_INJECT_EXCEPTION)
            .i32(0, 3)
            .i32(4, vector)
            .i32(8, 0x18);
        param.i32(12, valid).i32(16, restart).decode()
    };
    let expected = |error_code, restart| Request::InjectException {
        vcpu: V3,
        vector: Vector::GP,
        error_code,
        restart,
    };
    assert_eq!(inject(13, 1, 0), Ok(expected(Some(0x18), false)));
    assert_eq!(inject(13, 0, 1), Ok(expected(None, true)));
    for vector in [8, 32, 256 + 13, -1, i32::MIN] {
        assert_eq!(inject(vector, 0, 0), Err(EINVAL), "{vector}");
    }
    let set = Param::new(VM_SET_INTINFO)
        .i32(0, 3)
        .u64(8, 0x8000_0b0d)
        .decode();
    assert_eq!(
        set,
        Ok(Request::SetIntinfo {
            vcpu: V3,
            info: 0x8000_0b0d
        })
    );
    let get = Param::new(VM_GET_INTINFO).i32(0, 3).decode();
    assert_eq!(get, Ok(Request::GetIntinfo { vcpu: V3 }));
    let nmi = Param::new(VM_INJECT_NMI).i32(0, 3).decode();
    assert_eq!(nmi, Ok(Request::InjectNmi { vcpu: V3 }));
    let restart = Param::new(VM_RESTART_INSTRUCTION).i32(0, 3).decode();
    assert_eq!(restart, Ok(Request::RestartInstruction { vcpu: V3 }));
}

#[test]
fn statistics_x2apic_topology() {
    let stats = |index| Param::new(VM_STATS).i32(0, 3).i32(4, index).decode();
    assert_eq!(
        stats(64),
        Ok(Request::Stats {
            vcpu: V3,
            index: 64
        })
    );
    assert_eq!(stats(-1), Err(EINVAL));
    assert_eq!(Param::new(VM_STAT_DESC).i32(0, -1).decode(), Err(EINVAL));
    let state = |state| {
        Param::new(VM_SET_X2APIC_STATE)
            .i32(0, 3)
            .i32(4, state)
            .decode()
    };
    assert_eq!(
        state(0),
        Ok(Request::SetX2apicState {
            vcpu: V3,
            enabled: false
        })
    );
    assert_eq!(
        state(1),
        Ok(Request::SetX2apicState {
            vcpu: V3,
            enabled: true
        })
    );
    assert_eq!(state(2), Err(EINVAL));
    assert_eq!(state(-1), Err(EINVAL));
    let topology = |s: u16, c: u16, t: u16| {
        let words = [s, c, t, 9].map(u16::to_le_bytes);
        Param::new(VM_SET_TOPOLOGY)
            .bytes(0, words.as_flattened())
            .decode()
    };
    let expected = Topology {
        sockets: 2,
        cores: 4,
        threads: 1,
        maxcpus: 9,
    };
    assert_eq!(topology(2, 4, 1), Ok(Request::SetTopology(expected)));
    assert_eq!(expected.vcpus(), 8);
    for (s, c, t) in [
        (0, 1, 1),
        (1, 0, 1),
        (1, 1, 0),
        (1025, 1, 1),
        (!0, !0, !0),
        (1 << 8, 1 << 8, 1 << 8),
    ] {
        assert_eq!(topology(s, c, t), Err(EINVAL));
    }
    assert_eq!(
        Param::new(VM_GET_TOPOLOGY).decode(),
        Ok(Request::GetTopology)
    );
}

#[test]
fn sets_of_vcpus() {
    // which 0, cpusetsize 4, cpus 8.
    let get = |which, size| {
        Param::new(VM_GET_CPUS)
            .i32(0, which)
            .i32(4, size)
            .u64(8, 0x1000)
            .decode()
    };
    let mask = UserPtr(0x1000);
    for (raw, which) in [
        (0, CpuSetKind::Active),
        (1, CpuSetKind::Suspended),
        (2, CpuSetKind::Debug),
    ] {
        assert_eq!(
            get(raw, 128),
            Ok(Request::GetCpus {
                which,
                mask,
                size: 128
            })
        );
    }
    for size in [0, -1, 129, i32::MAX] {
        assert_eq!(get(0, size), Err(ERANGE));
        // The size is looked at first.
        assert_eq!(get(9, size), Err(ERANGE));
    }
    assert_eq!(get(3, 8), Err(EINVAL));
    assert_eq!(get(-1, 8), Err(EINVAL));
    let activate = Param::new(VM_ACTIVATE_CPU).i32(0, 3).decode();
    assert_eq!(activate, Ok(Request::ActivateCpu { vcpu: V3 }));
}

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
