//! Requests about vcpus, registers and events.

use vmm_sys::ioctl::*;

use super::super::{CpuSetKind, Readable, RegisterSet, Request, Topology, UserPtr};
use super::Param;
use crate::exit::SuspendHow;
use crate::regs::{Reg, SegDesc, SegReg};
use crate::types::Errno::{EINVAL, ERANGE};
use crate::types::{VcpuId, Vector};
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
    for (ioctl, expected) in [
        (VM_RUN_13, Request::Run13 { vcpu: V3 }),
        (VM_STATS_13, Request::Stats13 { vcpu: V3 }),
    ] {
        assert_eq!(Param::new(ioctl).i32(0, 3).decode(), Ok(expected.clone()));
        assert_eq!(expected.vcpu(), Some(V3));
        assert_eq!(Param::new(ioctl).i32(0, -1).decode(), Err(EINVAL));
    }
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
