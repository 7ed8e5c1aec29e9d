//! x87, SSE, AVX and AVX-512 state across exits to the module and to userland, and across
//! changes of XCR0: what is in the registers is the guest's own, and stays.

#![no_std]
#![no_main]

use core::arch::asm;

use kit::{Boot, cpu, println};

kit::main!(xsave);

const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
const AVX512: u64 = 7 << 5;
/// Exits of each kind between writing and reading back.
const EXITS: u32 = 20;
const ROUNDS: u32 = 100;

/// The registers ymm0 to ymm15, or zmm16 to zmm31 in their lower halves.
type Registers = [[u64; 4]; 16];

fn xsave(_: Boot) {
    // SAFETY: the FPU is the program's own; Rust's code here uses none of it. CR0: EM and TS
    // off, MP on. CR4: OSFXSR.
    unsafe {
        asm!("mov {0}, cr0", "and {0}, -13", "or {0}, 2", "mov cr0, {0}", out(reg) _);
        asm!("mov {0}, cr4", "or {0}, 0x200", "mov cr4, {0}", "fninit", out(reg) _);
    }
    // Another run of this program has other values.
    let seed = cpu::rdtsc() | 1;
    if cpu::cpuid(1, 0)[2] & 1 << 26 == 0 {
        for round in 0..ROUNDS {
            sse(seed.wrapping_mul((round + 1).into()));
        }
        println!("no XSAVE here: SSE only");
        return;
    }
    // SAFETY: CPUID shows XSAVE.
    unsafe { asm!("mov {0}, cr4", "or {0}, 0x40000", "mov cr4, {0}", out(reg) _) };
    assert!(xgetbv() == 1, "XCR0 is {:#x} after a reset", xgetbv());
    let [low, size_now, size_max, high] = cpu::cpuid(0xd, 0);
    let all = u64::from(high) << 32 | u64::from(low);
    assert!(all & 3 == 3, "XCR0 can have {all:#x}");
    assert!(size_now == 576, "{size_now} bytes for x87");
    xsetbv(all);
    let [_, size_all, ..] = cpu::cpuid(0xd, 0);
    assert!(
        size_all == size_max,
        "{size_all} bytes of {size_max} for all components"
    );
    println!("XCR0 {all:#x}, {size_max} bytes");

    for round in 0..ROUNDS {
        let seed = seed.wrapping_mul((round + 1).into());
        sse(seed);
        if all & AVX != 0 {
            avx(seed);
        }
        if all & AVX512 == AVX512 {
            avx512(seed);
        }
    }
    if all & AVX != 0 {
        turned_off_and_on(seed, all);
    }
    println!("xsave: ok");
}

fn xgetbv() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: CR4.OSXSAVE is set.
    unsafe { asm!("xgetbv", in("ecx") 0u32, out("eax") low, out("edx") high) };
    u64::from(high) << 32 | u64::from(low)
}

fn xsetbv(value: u64) {
    // SAFETY: what CPUID shows.
    unsafe {
        asm!("xsetbv", in("ecx") 0u32, in("eax") value as u32, in("edx") (value >> 32) as u32);
    }
    assert!(
        xgetbv() == value,
        "XCR0 {:#x} after writing {value:#x}",
        xgetbv()
    );
}

fn pattern(seed: u64) -> Registers {
    let mut values = Registers::default();
    for (i, value) in values.as_flattened_mut().iter_mut().enumerate() {
        *value = seed.rotate_left(i as u32) ^ i as u64;
    }
    values
}

/// Exits that the module answers, and exits that userland does.
fn exits() {
    for _ in 0..EXITS {
        cpu::cpuid(0, 0);
        cpu::outb(0xe0, 0);
    }
}

/// `$load` and `$store` for each register, with exits between.
macro_rules! through_exits {
    ($values:expr, $between:expr, $load:literal, $store:literal, $prefix:literal, [$($n:literal)*]) => {{
        let values: &Registers = $values;
        let mut found = Registers::default();
        // SAFETY: reads and writes these arrays of 16 registers of up to 32 bytes; no code
        // between uses the registers.
        unsafe {
            asm!($(concat!($load, " ", $prefix, $n, ", [{0} + 32 * (", $n, " % 16)]"),)* in(reg) values);
            $between;
            asm!($(concat!($store, " [{0} + 32 * (", $n, " % 16)], ", $prefix, $n),)* in(reg) &mut found);
        }
        found
    }};
}

fn sse(seed: u64) {
    let values = pattern(seed);
    let found = through_exits!(&values, exits(), "movdqu", "movdqu", "xmm",
        ["0" "1" "2" "3" "4" "5" "6" "7" "8" "9" "10" "11" "12" "13" "14" "15"]);
    for (n, (found, value)) in found.iter().zip(&values).enumerate() {
        assert!(
            found[..2] == value[..2],
            "xmm{n}: {found:x?} instead of {value:x?}"
        );
    }
    // x87: a number of its own, and the control word; MXCSR.
    let (mut number, mut control, mut mxcsr) = (0u64, 0u16, 0u32);
    let integer = seed >> 2;
    // SAFETY: pushes one number and pops it again.
    unsafe {
        asm!("fild qword ptr [{}]", in(reg) &integer);
        asm!("fldcw [{}]", in(reg) &0x0f7fu16);
        asm!("ldmxcsr [{}]", in(reg) &0x1fa0u32);
        exits();
        asm!("fnstcw [{}]", in(reg) &mut control);
        asm!("fistp qword ptr [{}]", in(reg) &mut number);
        asm!("stmxcsr [{}]", in(reg) &mut mxcsr);
        asm!("fldcw [{}]", in(reg) &0x037fu16);
    }
    assert!(
        number == integer,
        "st(0) {number:#x} instead of {integer:#x}"
    );
    assert!(
        control == 0x0f7f && mxcsr == 0x1fa0,
        "FCW {control:#x}, MXCSR {mxcsr:#x}"
    );
}

fn avx(seed: u64) {
    let values = pattern(seed);
    let found = through_exits!(&values, exits(), "vmovdqu", "vmovdqu", "ymm",
        ["0" "1" "2" "3" "4" "5" "6" "7" "8" "9" "10" "11" "12" "13" "14" "15"]);
    assert!(found == values, "AVX: {found:x?} instead of {values:x?}");
}

fn avx512(seed: u64) {
    let values = pattern(!seed);
    let found = through_exits!(&values, exits(), "vmovdqu64", "vmovdqu64", "ymm",
        ["16" "17" "18" "19" "20" "21" "22" "23" "24" "25" "26" "27" "28" "29" "30" "31"]);
    assert!(
        found == values,
        "zmm16 to 31: {found:x?} instead of {values:x?}"
    );
    // The upper halves, and an opmask.
    let (value, mut found, mask): ([u64; 8], [u64; 8], u32);
    value = core::array::from_fn(|i| seed.rotate_right(i as u32));
    found = [0; 8];
    // SAFETY: 64 bytes each.
    unsafe {
        asm!("vmovdqu64 zmm5, [{}]", in(reg) &value);
        asm!("kmovw k3, {:e}", in(reg) seed as u32);
        exits();
        asm!("vmovdqu64 [{}], zmm5", in(reg) &mut found);
        asm!("kmovw {:e}, k3", out(reg) mask);
    }
    assert!(found == value, "zmm5: {found:x?} instead of {value:x?}");
    assert!(mask == seed as u32 & 0xffff, "k3: {mask:#x}");
}

/// A component that XCR0 turns off keeps its state (SDM vol. 1, 13.3).
fn turned_off_and_on(seed: u64, all: u64) {
    let values = pattern(seed ^ 0x5555);
    let between = || {
        xsetbv(1 | SSE);
        exits();
        xsetbv(all);
    };
    let found = through_exits!(&values, between(), "vmovdqu", "vmovdqu", "ymm",
        ["0" "1" "2" "3" "4" "5" "6" "7" "8" "9" "10" "11" "12" "13" "14" "15"]);
    assert!(
        found == values,
        "AVX turned off and on: {found:x?} instead of {values:x?}"
    );
}
