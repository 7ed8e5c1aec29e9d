//! struct vie, byte for byte, as FreeBSD 15.1's vmm_decode_instruction() fills it for the
//! same instructions.

use alloc::format;
use alloc::string::String;

use crate::cpu::emulate::{decode, vie};
use crate::exit::{ExitKind, InstBytes, InstEmul, VmExit};
use crate::ioctl::encode_exit;
use crate::regs::{CpuMode, GuestPaging, PagingMode};
use crate::types::{Gla, Gpa};

/// The structure of an instruction's exit, and whether it is decoded.
fn encoded(bytes: &[u8], cpu_mode: CpuMode, cs_d: bool) -> ([u8; 64], bool) {
    let mut inst = InstBytes {
        bytes: [0; 15],
        len: bytes.len() as u8,
    };
    inst.bytes[..bytes.len()].copy_from_slice(bytes);
    let decoded = decode(bytes, cpu_mode, cs_d).unwrap();
    let known = vie::of(&decoded, cpu_mode).is_some();
    let exit = VmExit {
        rip: 0,
        inst_length: if known { decoded.len } else { 0 },
        kind: ExitKind::InstEmul(InstEmul {
            gpa: Gpa(0),
            gla: Gla(0),
            cs_base: 0,
            cs_d,
            paging: GuestPaging {
                cr3: 0,
                cpl: 0,
                cpu_mode,
                paging_mode: PagingMode::Flat,
            },
            inst,
        }),
    };
    let raw = encode_exit(&exit);
    let at = core::mem::offset_of!(vmm_sys::vm_exit, u)
        + core::mem::offset_of!(vmm_sys::vm_exit_inst_emul, vie);
    (raw[at..at + 64].try_into().unwrap(), known)
}

/// Instruction, mode, CS.D, and the structure behind its first 16 bytes.
#[rustfmt::skip]
const FREEBSD: [(&[u8], CpuMode, bool, &str); 10] = [
    (&[0x8b, 0x43, 0x10], CpuMode::Long64, false,
        "0348000403000100000000000100000031000000310000001000000000000000000000000000000001008b0100000000"),
    (&[0x4c, 0x89, 0x64, 0xa7, 0xf8], CpuMode::Long64, false,
        "058813c42474010000000000050000003100000031000000f8ffffffffffffff00000000000000000100890100000000"),
    (&[0x65, 0x67, 0x44, 0x89, 0x04, 0x1d, 0x78, 0x56, 0x34, 0x12], CpuMode::Long64, false,
        "0a441283045304000100000031000000010000001b000000785634120000000000000000000000000100890100000000"),
    (&[0x66, 0xc7, 0x05, 0xf0, 0xde, 0xbc, 0x9a, 0x34, 0x12], CpuMode::Long64, false,
        "092880000500040200000000140000003100000031000000f0debc9affffffff34120000000000000100c70101000000"),
    (&[0xf3, 0x48, 0xab], CpuMode::Long64, false,
        "038831000000000000000000310000003100000031000000000000000000000000000000000000000100ab0d18000000"),
    (&[0xa1, 0x00, 0xf0, 0xd0, 0xfe], CpuMode::Protected, true,
        "05440000000000000000000031000000310000003100000000f0d0fe0000000000000000000000000100a1010c000000"),
    (&[0x83, 0x0c, 0x0d, 0x00, 0x01, 0xd0, 0xfe, 0x80], CpuMode::Compatibility, true,
        "0844001004510401010000003100000002000000310000000001d0feffffffff80ffffffffffffff0100830c02000000"),
    (&[0x48, 0x0f, 0xba, 0x6f, 0x40, 0x07], CpuMode::Long64, false,
        "068811540700010100000000050000003100000031000000400000000000000007000000000000000100ba0e02000000"),
    (&[0x0f, 0xb6, 0x47, 0x20], CpuMode::Long64, false,
        "044800040700010000000000050000003100000031000000200000000000000000000000000000000100b60300000000"),
    (&[0xf6, 0x05, 0x10, 0x00, 0x00, 0xfe, 0x80], CpuMode::Protected, true,
        "074400000500040100000000310000003100000031000000100000feffffffff80ffffffffffffff0100f61102000000"),
];

#[test]
fn decoded_as_freebsd_does() {
    for (bytes, mode, cs_d, expected) in FREEBSD {
        let (raw, known) = encoded(bytes, mode, cs_d);
        assert!(known, "{bytes:02x?}");
        assert_eq!(&raw[..bytes.len()], bytes);
        assert_eq!(usize::from(raw[15]), bytes.len());
        let hex: String = raw[16..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected, "{bytes:02x?}");
    }
}

/// What stock bhyve would decode wrongly or can't execute: it is to see the bytes only.
#[test]
fn left_to_userland() {
    for (bytes, mode, cs_d) in [
        // 16-bit addresses with ModRM; real mode.
        (&[0x67, 0x8b, 0x47, 0x10][..], CpuMode::Protected, true),
        (&[0x8b, 0x05], CpuMode::Real, false),
        // NOT, of the group of which it knows TEST; INC, of PUSH's.
        (&[0xf7, 0x17], CpuMode::Long64, false),
        (&[0xff, 0x07], CpuMode::Long64, false),
        // XCHG
        (&[0x87, 0x07], CpuMode::Long64, false),
    ] {
        let (raw, known) = encoded(bytes, mode, cs_d);
        assert!(!known, "{bytes:02x?}");
        let decoded = core::mem::offset_of!(vmm_sys::vie, decoded);
        assert_eq!(raw[decoded], 0);
        let base = core::mem::offset_of!(vmm_sys::vie, base_register);
        assert_eq!(raw[base], vmm_sys::VM_REG_LAST as u8);
    }
}
