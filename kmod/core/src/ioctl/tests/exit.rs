//! `struct vm_exit`, as userland finds it.

use super::super::{VM_EXIT_SIZE, encode_exit};
use super::{i32_at, u64_at};
use crate::exit::*;
use crate::regs::{CpuMode, GuestPaging, PagingMode, SegDesc, SegReg};
use crate::types::{Gla, Gpa, VcpuId};

fn encode(kind: ExitKind) -> [u8; VM_EXIT_SIZE] {
    encode_exit(&VmExit {
        rip: 0x1122_3344_5566_7788,
        inst_length: 3,
        kind,
    })
}

const PAGING: GuestPaging = GuestPaging {
    cr3: 0xabcd_e000,
    cpl: 3,
    cpu_mode: CpuMode::Compatibility,
    paging_mode: PagingMode::Pae,
};

fn assert_paging(bytes: &[u8], at: usize) {
    assert_eq!(u64_at(bytes, at), 0xabcd_e000);
    let ints = [8, 12, 16].map(|field| i32_at(bytes, at + field));
    assert_eq!(ints, [3, 2, 2]);
}

const OUT: Inout = Inout {
    bytes: 2,
    input: false,
    string: false,
    rep: false,
    port: 0x3f8,
    eax: 0x41,
};

#[test]
fn the_common_part() {
    assert_eq!(VM_EXIT_SIZE, 136);
    let bytes = encode(ExitKind::Mtrap);
    assert_eq!((i32_at(&bytes, 0), i32_at(&bytes, 4)), (6, 3));
    assert_eq!(u64_at(&bytes, 8), 0x1122_3344_5566_7788);
    assert!(bytes[16..].iter().all(|&byte| byte == 0));
}

#[test]
fn exit_codes_are_the_headers() {
    let payload_free = [
        (ExitKind::Bogus, 2),
        (ExitKind::Mtrap, 6),
        (ExitKind::Pause, 7),
        (ExitKind::Rendezvous, 12),
        (ExitKind::Monitor, 17),
        (ExitKind::Mwait, 18),
        (ExitKind::Reqidle, 20),
        (ExitKind::Debug, 21),
        (ExitKind::Vminsn, 22),
    ];
    for (kind, code) in payload_free {
        assert_eq!(i32_at(&encode(kind), 0), code, "{kind:?}");
    }
}

#[test]
fn inout_bitfields_are_the_compilers() {
    for bytes in [1, 2, 4] {
        for flags in 0..8u8 {
            let [input, string, rep] = [0, 1, 2].map(|bit| flags >> bit & 1 != 0);
            let inout = Inout {
                bytes,
                input,
                string,
                rep,
                ..OUT
            };
            let encoded = encode(ExitKind::Inout(inout));
            let unit = vmm_sys::vm_inout::new_bitfield_1(
                bytes.into(),
                input.into(),
                string.into(),
                rep.into(),
            );
            let bits = u16::from_le_bytes([encoded[16], encoded[17]]);
            assert_eq!(u64::from(bits), unit.get(0, 8), "{inout:?}");
            assert_eq!(u16::from_le_bytes([encoded[18], encoded[19]]), 0x3f8);
            assert_eq!(i32_at(&encoded, 20), 0x41);
            assert_eq!(i32_at(&encoded, 0), 0);
        }
    }
}

#[test]
fn string_io() {
    let bytes = encode(ExitKind::InoutStr(InoutStr {
        inout: Inout {
            bytes: 1,
            input: true,
            string: true,
            rep: true,
            port: 0x1f0,
            eax: 0,
        },
        paging: PAGING,
        rflags: 0x202,
        cr0: 0x8000_0031,
        index: 0x7000,
        count: 512,
        addrsize: 4,
        seg: SegReg::Es,
        seg_desc: SegDesc {
            base: 0x10,
            limit: 0x20,
            access: 0x93,
        },
        cs_d: true,
        cs_base: 0x30,
    }));
    assert_eq!(i32_at(&bytes, 0), 15);
    let u = &bytes[16..];
    assert_eq!((u[0], u[2], u[3]), (0x39, 0xf0, 0x01));
    assert_paging(u, 8);
    assert_eq!(
        [32, 40, 48, 56].map(|at| u64_at(u, at)),
        [0x202, 0x8000_0031, 0x7000, 512]
    );
    assert_eq!((i32_at(u, 64), i32_at(u, 68)), (4, 22));
    assert_eq!(
        (u64_at(u, 72), i32_at(u, 80), i32_at(u, 84)),
        (0x10, 0x20, 0x93)
    );
    assert_eq!((i32_at(u, 88), u64_at(u, 96)), (1, 0x30));
}

#[test]
fn vmx() {
    let bytes = encode(ExitKind::Vmx(VmxExit::Exit {
        reason: 0x8000_0021,
        qualification: 4,
    }));
    assert_eq!(i32_at(&bytes, 0), 1);
    let u = &bytes[16..];
    assert_eq!(
        (i32_at(u, 0), i32_at(u, 4) as u32, u64_at(u, 8)),
        (0, 33, 4),
        "the basic reason, without the entry-failure flag"
    );
    let failed = |inst, status| encode(ExitKind::Vmx(VmxExit::EntryFailed { inst, status }));
    let bytes = failed(EntryInst::Vmlaunch, VmFail::Valid(7));
    let u = &bytes[16..];
    // status, inst_type, inst_error
    assert_eq!((i32_at(u, 0), i32_at(u, 16), i32_at(u, 20)), (2, 2, 7));
    let bytes = failed(EntryInst::Vmresume, VmFail::Invalid);
    let u = &bytes[16..];
    assert_eq!((i32_at(u, 0), i32_at(u, 16), i32_at(u, 20)), (1, 1, 0));
}

#[test]
fn instruction_emulation() {
    let mut inst = InstBytes {
        len: 3,
        ..InstBytes::default()
    };
    inst.bytes[..3].copy_from_slice(&[0x8a, 0x04, 0x25]);
    let bytes = encode(ExitKind::InstEmul(InstEmul {
        gpa: Gpa(0xfee0_0020),
        gla: Gla(0xffff_8000_fee0_0020),
        cs_base: 0x10,
        cs_d: true,
        paging: PAGING,
        inst,
    }));
    assert_eq!(i32_at(&bytes, 0), 9);
    let u = &bytes[16..];
    assert_eq!(
        [0, 8, 16].map(|at| u64_at(u, at)),
        [0xfee0_0020, 0xffff_8000_fee0_0020, 0x10]
    );
    assert_eq!(i32_at(u, 24), 1);
    assert_paging(u, 32);
    let vie = &u[56..];
    assert_eq!(&vie[..4], &[0x8a, 0x04, 0x25, 0]);
    assert_eq!(vie[15], 3);
    // base, index and segment register: none; not decoded.
    assert_eq!([28, 32, 36].map(|at| i32_at(vie, at)), [49; 3]);
    assert_eq!(vie[56], 0);
}

#[test]
fn msr_hlt_paging() {
    let bytes = encode(ExitKind::Wrmsr {
        code: 0xc001_0015,
        value: 1 << 40,
    });
    assert_eq!(
        (
            i32_at(&bytes, 0),
            i32_at(&bytes, 16) as u32,
            u64_at(&bytes, 24)
        ),
        (4, 0xc001_0015, 1 << 40)
    );
    let bytes = encode(ExitKind::Rdmsr { code: 0x8b });
    assert_eq!((i32_at(&bytes, 0), i32_at(&bytes, 16)), (3, 0x8b));
    let bytes = encode(ExitKind::Hlt {
        rflags: 0x46,
        intr_status: 5,
    });
    assert_eq!(
        (i32_at(&bytes, 0), u64_at(&bytes, 16), u64_at(&bytes, 24)),
        (5, 0x46, 5)
    );
    for (access, fault_type) in [(Access::Read, 1), (Access::Write, 2), (Access::Execute, 4)] {
        let bytes = encode(ExitKind::Paging {
            gpa: Gpa(1 << 33),
            gla: None,
            access,
        });
        assert_eq!(
            (i32_at(&bytes, 0), u64_at(&bytes, 16), i32_at(&bytes, 24)),
            (8, 1 << 33, fault_type)
        );
    }
}

#[test]
fn task_switch() {
    let switch = TaskSwitch {
        tss_selector: 0x28,
        ext: true,
        error_code: Some(0x11),
        reason: TaskSwitchReason::IdtGate,
        paging: PAGING,
    };
    let bytes = encode(ExitKind::TaskSwitch(switch));
    assert_eq!(i32_at(&bytes, 0), 16);
    let u = &bytes[16..];
    assert_eq!(
        [0, 4, 8, 12, 16].map(|at| i32_at(u, at)),
        [0x28, 1, 0x11, 1, 3]
    );
    assert_paging(u, 24);
    let bytes = encode(ExitKind::TaskSwitch(TaskSwitch {
        error_code: None,
        ..switch
    }));
    assert_eq!((i32_at(&bytes, 24), i32_at(&bytes, 28)), (0, 0));
}

#[test]
fn the_rest() {
    let bytes = encode(ExitKind::SpinupAp {
        vcpu: VcpuId(3),
        rip: 0x9_f000,
    });
    assert_eq!(
        (i32_at(&bytes, 0), i32_at(&bytes, 16), u64_at(&bytes, 24)),
        (10, 3, 0x9_f000)
    );
    let bytes = encode(ExitKind::IoapicEoi { vector: 0x31 });
    assert_eq!((i32_at(&bytes, 0), i32_at(&bytes, 16)), (13, 0x31));
    let bytes = encode(ExitKind::Suspended(SuspendHow::TripleFault));
    assert_eq!((i32_at(&bytes, 0), i32_at(&bytes, 16)), (14, 4));
    let bytes = encode(ExitKind::Bpt { inst_length: 1 });
    assert_eq!((i32_at(&bytes, 0), i32_at(&bytes, 16)), (23, 1));
    let bytes = encode(ExitKind::Ipi {
        mode: 0x600,
        vector: 0x9f,
    });
    assert_eq!(
        (i32_at(&bytes, 0), i32_at(&bytes, 16), bytes[20]),
        (24, 0x600, 0x9f)
    );
    let bytes = encode(ExitKind::Db {
        trace_trap: true,
        pushf_intercept: false,
        tf_shadow: true,
        paging: PAGING,
    });
    assert_eq!(i32_at(&bytes, 0), 25);
    assert_eq!([16, 20, 24].map(|at| i32_at(&bytes, at)), [1, 0, 1]);
    assert_paging(&bytes, 32);
}
