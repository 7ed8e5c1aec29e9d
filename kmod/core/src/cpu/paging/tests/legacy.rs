//! 32-bit and PAE paging, where they differ.

use super::*;

const BITS32: PagingRegs = PagingRegs {
    cpu_mode: CpuMode::Protected,
    mode: PagingMode::Bits32,
    pse: true,
    nxe: false,
    ..LONG
};

const PAE: PagingRegs = PagingRegs {
    cpu_mode: CpuMode::Protected,
    mode: PagingMode::Pae,
    cr3: 0x1020,
    ..LONG
};

#[test]
fn bits_32() {
    // Directory at 1000H, table at 2000H; index 0x301, 0x123.
    let gla = Gla(0xc052_3456);
    let mut mem = Memory::default();
    mem.set32(0x1000 + 0x301 * 4, 0x2000 | RWU as u32);
    mem.set32(0x2000 + 0x123 * 4, 0xabcd_e000 | P as u32 | U as u32);
    assert_eq!(at(&mut mem, &BITS32, gla, USER_READ), Ok(Gpa(0xabcd_e456)));
    assert_eq!(at(&mut mem, &BITS32, gla, USER_WRITE), fault(7));
    assert_eq!(at(&mut mem, &BITS32, gla, USER_FETCH), Ok(Gpa(0xabcd_e456)));
    // There is no execute disable, hence no I/D flag, whatever EFER says; SMEP has one.
    let nxe = PagingRegs {
        nxe: true,
        ..BITS32
    };
    assert_eq!(at(&mut mem, &nxe, Gla(0), USER_FETCH), fault(4));
    let smep = PagingRegs {
        smep: true,
        ..BITS32
    };
    assert_eq!(at(&mut mem, &smep, gla, FETCH), fault(0x11));
    translate(
        &mut mem,
        &PagingRegs {
            wp: false,
            ..BITS32
        },
        gla,
        WRITE,
        Flags::Update,
    )
    .unwrap();
    assert_eq!(mem.words[&(0x1000 + 0x301 * 4)], 0x2027);
    assert_eq!(mem.words[&(0x2000 + 0x123 * 4)], 0xabcd_e065);
}

#[test]
fn bits_32_large_pages() {
    let gla = Gla(0xc052_3456);
    let pde = 0x1000 + 0x301 * 4;
    let mut mem = Memory::default();
    // Address bits 39:32 in 20:13 (PSE-36).
    mem.set32(pde, 0x8040_0000 | 0x5a << 13 | (RWU | PS) as u32);
    assert_eq!(
        at(&mut mem, &BITS32, gla, USER_WRITE),
        Ok(Gpa(0x5a_8052_3456))
    );
    let narrow = PagingRegs {
        maxphyaddr: 36,
        ..BITS32
    };
    assert_eq!(at(&mut mem, &narrow, gla, READ), fault(9));
    mem.set32(pde, 0x8040_0000 | 1 << 21 | (RWU | PS) as u32);
    assert_eq!(at(&mut mem, &BITS32, gla, READ), fault(9));
    // Without CR4.PSE the bit is ignored: a table.
    mem.set32(pde, 0x2000 | (RWU | PS) as u32);
    mem.set32(0x2000 + 0x123 * 4, 0x7000 | RWU as u32);
    let no_pse = PagingRegs {
        pse: false,
        ..BITS32
    };
    assert_eq!(at(&mut mem, &no_pse, gla, READ), Ok(Gpa(0x7456)));
}

#[test]
fn pae() {
    // PDPT at 1020H, directory at 2000H, table at 3000H; index 3, 2, 0x123.
    let gla = Gla(0xc052_3456);
    let mut mem = Memory::default();
    mem.set64(0x1038, 0x2000 | P);
    mem.set64(0x2010, 0x3000 | RWU);
    mem.set64(0x3000 + 0x123 * 8, 0x1_2345_6000 | RWU | XD);
    assert_eq!(at(&mut mem, &PAE, gla, USER_WRITE), Ok(Gpa(0x1_2345_6456)));
    assert_eq!(at(&mut mem, &PAE, gla, USER_FETCH), fault(0x15));
    assert_eq!(at(&mut mem, &PAE, Gla(0), USER_READ), fault(4));
    translate(&mut mem, &PAE, gla, USER_WRITE, Flags::Update).unwrap();
    assert_eq!(mem.get64(0x1038), 0x2001, "a PDPTE has no accessed flag");
    assert_eq!(mem.get64(0x2010), 0x3000 | RWU | ACCESSED);
    // Bits 62:52 are reserved here.
    mem.set64(0x2010, 0x3000 | RWU | 1 << 52);
    assert_eq!(at(&mut mem, &PAE, gla, READ), fault(9));
    mem.set64(0x2010, 0x1_2340_0000 | RWU | PS);
    assert_eq!(at(&mut mem, &PAE, gla, READ), Ok(Gpa(0x1_2352_3456)));
    for bit in [1, 2, 5, 8, 46, 52, 63] {
        mem.set64(0x1038, 0x2000 | P | 1 << bit);
        assert_eq!(at(&mut mem, &PAE, gla, READ), fault(9), "PDPTE bit {bit}");
    }
}
