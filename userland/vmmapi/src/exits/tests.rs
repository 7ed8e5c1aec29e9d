//! Exits decoded from bytes at machine/vmm.h's offsets, and from what the module encodes.

use super::*;

/// A struct vm_exit with the given 32-bit words at byte offsets of machine/vmm.h's
/// layout; the payload begins at 16.
fn raw(words: &[(usize, u32)]) -> vmm_sys::vm_exit {
    let mut bytes = [0_u8; size_of::<vmm_sys::vm_exit>()];
    for (offset, word) in words {
        bytes[*offset..offset + 4].copy_from_slice(&word.to_le_bytes());
    }
    from_bytes(&bytes)
}

fn from_bytes(bytes: &[u8; size_of::<vmm_sys::vm_exit>()]) -> vmm_sys::vm_exit {
    // SAFETY: made of integers, so that all bytes are a value; read without alignment.
    unsafe { bytes.as_ptr().cast::<vmm_sys::vm_exit>().read_unaligned() }
}

fn decode(words: &[(usize, u32)]) -> Result<VmExit, Error> {
    VmExit::decode(&raw(words), &CpuSet::default())
}

#[test]
fn an_out_instruction_is_read_from_the_kernels_bytes() {
    // exitcode INOUT, 2 bytes long, at fff0; 1 byte to port 3f8, AL 'A'.
    let exit = decode(&[(0, 0), (4, 2), (8, 0xfff0), (16, 0x03f8_0001), (20, 0x41)]);
    let inout = Inout {
        bytes: 1,
        input: false,
        string: false,
        rep: false,
        port: 0x3f8,
        eax: 0x41,
    };
    assert_eq!(
        exit,
        Ok(VmExit {
            rip: 0xfff0,
            inst_length: 2,
            exit: Exit::Inout(inout)
        })
    );
    // The flags above the size: in, string, rep.
    for (bits, input, string, rep) in [
        (8, true, false, false),
        (16, false, true, false),
        (32, false, false, true),
    ] {
        let exit = decode(&[(16, 4 | bits)]).unwrap().exit;
        assert_eq!(
            exit,
            Exit::Inout(Inout {
                bytes: 4,
                input,
                string,
                rep,
                port: 0,
                eax: 0
            })
        );
    }
}

#[test]
fn msr_accesses_have_number_and_value() {
    let words = |code| {
        [
            (0, code),
            (16, 0xc000_0080),
            (24, 0x5555_6666),
            (28, 0x1111_2222),
        ]
    };
    assert_eq!(
        decode(&words(3)).unwrap().exit,
        Exit::Rdmsr { code: 0xc000_0080 }
    );
    assert_eq!(
        decode(&words(4)).unwrap().exit,
        Exit::Wrmsr {
            code: 0xc000_0080,
            value: 0x1111_2222_5555_6666
        }
    );
}

#[test]
fn a_failed_entry_is_told_from_an_exit_nobody_handles() {
    let entry = |status, error, inst| {
        decode(&[
            (0, 1),
            (16, status),
            (20, 0x8000_0021),
            (24, 7),
            (32, inst),
            (36, error),
        ])
    };
    assert_eq!(
        entry(0, 0, 0).unwrap().exit,
        Exit::Vmx(VmxExit::Exit {
            reason: 0x8000_0021,
            qualification: 7
        })
    );
    assert_eq!(
        entry(2, 7, 2).unwrap().exit,
        Exit::Vmx(VmxExit::EntryFailed {
            inst: EntryInst::Vmlaunch,
            status: VmFail::Valid(7)
        })
    );
    assert_eq!(
        entry(1, 0, 1).unwrap().exit,
        Exit::Vmx(VmxExit::EntryFailed {
            inst: EntryInst::Vmresume,
            status: VmFail::Invalid
        })
    );
}

#[test]
fn an_ipi_carries_its_destinations() {
    let mut dest = CpuSet::default();
    dest.0.__bits[0] = 0b110;
    let exit = VmExit::decode(&raw(&[(0, 24), (16, 6), (20, 0x9f)]), &dest).unwrap();
    assert_eq!(
        exit.exit,
        Exit::Ipi {
            mode: 6,
            vector: 0x9f,
            dest
        }
    );
}

#[test]
fn an_unknown_code_is_carried_and_not_guessed() {
    for exitcode in [vmm_sys::VM_EXITCODE_MAX, 0x7fff_ffff, u32::MAX] {
        assert_eq!(
            decode(&[(0, exitcode)]).unwrap().exit,
            Exit::Unknown { exitcode }
        );
    }
}

#[test]
fn every_code_of_the_header_is_decoded_to_a_variant_of_its_own() {
    let mut seen = Vec::new();
    for exitcode in 0..vmm_sys::VM_EXITCODE_MAX {
        // Right at once for a size of IN and OUT and a way to end (16), a fault type
        // (24), a VMX instruction (32), an address size (80) and a segment (84).
        let words = [
            (0, exitcode),
            (16, 1),
            (24, 1),
            (32, 1),
            (80, 8),
            (84, vmm_sys::VM_REG_GUEST_ES),
        ];
        let exit = decode(&words).unwrap().exit;
        assert_ne!(exit, Exit::Unknown { exitcode });
        let kind = std::mem::discriminant(&exit);
        assert!(!seen.contains(&kind), "{exit:?}");
        seen.push(kind);
    }
}

#[test]
fn values_outside_their_enums_are_errors_that_name_the_field() {
    for (words, field) in [
        (&[(0, 0), (16, 3)][..], "u.inout.bytes"),
        (&[(0, 1), (16, 3)], "u.vmx.status"),
        (&[(0, 1), (16, 1), (32, 9)], "u.vmx.inst_type"),
        (&[(0, 8), (24, 3)], "u.paging.fault_type"),
        (&[(0, 9), (64, 5)], "paging.paging_mode"),
        (&[(0, 9), (87 - 3, 16 << 24)], "u.inst_emul.vie.num_valid"),
        (&[(0, 10), (16, 70_000)], "u.spinup_ap.vcpu"),
        (&[(0, 13), (16, u32::MAX)], "u.ioapic_eoi.vector"),
        (&[(0, 14), (16, 6)], "u.suspended.how"),
        (&[(0, 15), (16, 1), (80, 3)], "u.inout_str.addrsize"),
        (
            &[(0, 15), (16, 1), (80, 2), (84, vmm_sys::VM_REG_GUEST_RAX)],
            "u.inout_str.seg_name",
        ),
        (&[(0, 25), (40, 4)], "paging.cpl"),
        (&[(4, u32::MAX)], "inst_length"),
    ] {
        match decode(words) {
            Err(Error::BadExit { field: is, .. }) => assert_eq!(is, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

/// What the module encodes is what a program decodes.
#[test]
fn the_modules_encoding_and_this_decoding_agree() {
    use vmm_core::exit::{ExitKind, VmExit as KernelExit};

    let paging = GuestPaging {
        cr3: 0x1234_5000,
        cpl: 3,
        cpu_mode: CpuMode::Long64,
        paging_mode: PagingMode::Level5,
    };
    let inout = Inout {
        bytes: 2,
        input: true,
        string: true,
        rep: true,
        port: 0x1f0,
        eax: 0xffff_ffff,
    };
    let inout_str = InoutStr {
        inout,
        paging,
        rflags: 0x202,
        cr0: 0x8000_0031,
        index: u64::MAX,
        count: 512,
        addrsize: 8,
        seg: vmm_core::regs::SegReg::Es,
        seg_desc: SegDesc {
            base: 1,
            limit: 2,
            access: 0xf093,
        },
        cs_d: true,
        cs_base: 0x77,
    };
    let inst = InstBytes {
        bytes: *b"0123456789abcde",
        len: 15,
    };
    let emul = InstEmul {
        gpa: Gpa(0xfee0_0000),
        gla: Gla(u64::MAX),
        cs_base: 5,
        cs_d: true,
        paging,
        inst,
    };
    let switch = TaskSwitch {
        tss_selector: 0x28,
        ext: true,
        error_code: Some(0xabc),
        reason: TaskSwitchReason::IdtGate,
        paging,
    };
    let vmx = VmxExit::EntryFailed {
        inst: EntryInst::Vmresume,
        status: VmFail::Valid(12),
    };
    for (kind, exit) in [
        (ExitKind::Inout(inout), Exit::Inout(inout)),
        (ExitKind::InoutStr(inout_str), Exit::InoutStr(inout_str)),
        (ExitKind::InstEmul(emul), Exit::InstEmul(emul)),
        (ExitKind::TaskSwitch(switch), Exit::TaskSwitch(switch)),
        (ExitKind::Vmx(vmx), Exit::Vmx(vmx)),
        (
            ExitKind::Paging {
                gpa: Gpa(0x9000),
                gla: None,
                access: Access::Execute,
            },
            Exit::Paging {
                gpa: Gpa(0x9000),
                access: Access::Execute,
            },
        ),
        (
            ExitKind::SpinupAp {
                vcpu: VcpuId(7),
                rip: 0x9_f000,
            },
            Exit::SpinupAp {
                vcpu: VcpuId(7),
                rip: 0x9_f000,
            },
        ),
        (
            ExitKind::Suspended(SuspendHow::TripleFault),
            Exit::Suspended(SuspendHow::TripleFault),
        ),
        (
            ExitKind::IoapicEoi { vector: 0xff },
            Exit::IoapicEoi { vector: 0xff },
        ),
        (
            ExitKind::Hlt {
                rflags: 2,
                intr_status: 3,
            },
            Exit::Hlt {
                rflags: 2,
                intr_status: 3,
            },
        ),
        (
            ExitKind::Bpt { inst_length: 1 },
            Exit::Bpt { inst_length: 1 },
        ),
        (
            ExitKind::Db {
                trace_trap: true,
                pushf_intercept: false,
                tf_shadow: true,
                paging,
            },
            Exit::Db {
                trace_trap: true,
                pushf_intercept: false,
                tf_shadow: true,
                paging,
            },
        ),
    ] {
        let bytes = vmm_core::ioctl::encode_exit(&KernelExit {
            rip: u64::MAX - 1,
            inst_length: 15,
            kind,
        });
        let decoded = VmExit::decode(&from_bytes(&bytes), &CpuSet::default());
        assert_eq!(
            decoded,
            Ok(VmExit {
                rip: u64::MAX - 1,
                inst_length: 15,
                exit
            })
        );
    }
}
