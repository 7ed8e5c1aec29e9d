//! Values in all vector registers, kept over interrupts and switches of threads and of
//! machines: the guest and its host run this at the same time with different values.

use std::arch::asm;
use std::time::{Duration, Instant};

const REGISTERS: usize = 16;

/// Sixteen XMM registers as they lie in memory.
#[repr(C, align(16))]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Xmm([[u64; 2]; REGISTERS]);

/// Sixteen YMM registers as they lie in memory.
#[repr(C, align(32))]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ymm([[u64; 4]; REGISTERS]);

/// 32 ZMM registers and 8 mask registers.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Zmm([[u64; 8]; 32], [u64; 8]);

pub fn run(seed: u64, seconds: u64) -> Result<String, String> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0u64;
    let mut value = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while Instant::now() < end {
        value = value.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(seed);
        round(value)?;
        rounds += 1;
    }
    Ok(format!(
        "vectors: {} kept their values {rounds} times",
        kind()
    ))
}

/// Keeps values that are made of this one in all registers, once.
pub fn round(value: u64) -> Result<(), String> {
    keep_xmm(value)?;
    if has_avx() {
        // SAFETY: AVX is there.
        unsafe { keep_ymm(value ^ 0x33)? };
    }
    if has_avx512() {
        // SAFETY: AVX-512 F and BW are there.
        unsafe { keep_zmm(value ^ 0x66)? };
    }
    Ok(())
}

/// The registers that this CPU has.
pub fn kind() -> &'static str {
    match (has_avx(), has_avx512()) {
        (false, _) => "SSE",
        (true, false) => "SSE and AVX",
        (true, true) => "SSE, AVX and AVX-512",
    }
}

fn has_avx() -> bool {
    is_x86_feature_detected!("avx")
}

fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

/// Between loading and storing: long enough for an interrupt now and then.
pub const SPIN: u64 = 50_000;

fn keep_xmm(value: u64) -> Result<(), String> {
    let mut wanted = Xmm([[0; 2]; REGISTERS]);
    fill(wanted.0.as_flattened_mut(), value);
    let mut found = Xmm([[0; 2]; REGISTERS]);
    // SAFETY: every x86-64 CPU has SSE2; reads and writes two structures of sixteen times
    // 16 bytes.
    unsafe {
        asm!(
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "movdqa xmm\\n, [{wanted} + 16 * \\n]",
            ".endr",
            "2: dec {spin}",
            "jnz 2b",
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "movdqa [{found} + 16 * \\n], xmm\\n",
            ".endr",
            wanted = in(reg) &wanted,
            found = in(reg) &mut found,
            spin = inout(reg) SPIN => _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack),
        );
    }
    compare("xmm", wanted.0.as_flattened(), found.0.as_flattened(), 2)
}

/// # Safety
/// The CPU has AVX.
unsafe fn keep_ymm(value: u64) -> Result<(), String> {
    let mut wanted = Ymm([[0; 4]; REGISTERS]);
    fill(wanted.0.as_flattened_mut(), value);
    let mut found = Ymm([[0; 4]; REGISTERS]);
    // SAFETY: reads and writes two structures of sixteen times 32 bytes.
    unsafe {
        asm!(
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "vmovdqa ymm\\n, [{wanted} + 32 * \\n]",
            ".endr",
            "2: dec {spin}",
            "jnz 2b",
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "vmovdqa [{found} + 32 * \\n], ymm\\n",
            ".endr",
            "vzeroupper",
            wanted = in(reg) &wanted,
            found = in(reg) &mut found,
            spin = inout(reg) SPIN => _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack),
        );
    }
    compare("ymm", wanted.0.as_flattened(), found.0.as_flattened(), 4)
}

/// # Safety
/// The CPU has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn keep_zmm(value: u64) -> Result<(), String> {
    let mut wanted = Zmm([[0; 8]; 32], [0; 8]);
    fill(wanted.0.as_flattened_mut(), value ^ 0x55);
    fill(&mut wanted.1, value ^ 0xaa);
    let mut found = Zmm([[0; 8]; 32], [0; 8]);
    // SAFETY: reads and writes two structures of 32 times 64 bytes and 8 times 8.
    unsafe {
        asm!(
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "vmovdqa64 zmm\\n, [{wanted} + 64 * \\n]",
            ".endr",
            ".irp n, 0,1,2,3,4,5,6,7",
            "kmovq k\\n, [{wanted} + 2048 + 8 * \\n]",
            ".endr",
            "2: dec {spin}",
            "jnz 2b",
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "vmovdqa64 [{found} + 64 * \\n], zmm\\n",
            ".endr",
            ".irp n, 0,1,2,3,4,5,6,7",
            "kmovq [{found} + 2048 + 8 * \\n], k\\n",
            ".endr",
            "vzeroupper",
            wanted = in(reg) &wanted,
            found = in(reg) &mut found,
            spin = inout(reg) SPIN => _,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
            out("zmm4") _, out("zmm5") _, out("zmm6") _, out("zmm7") _,
            out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
            out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
            out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
            out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _,
            out("zmm28") _, out("zmm29") _, out("zmm30") _, out("zmm31") _,
            out("k1") _, out("k2") _, out("k3") _, out("k4") _,
            out("k5") _, out("k6") _, out("k7") _,
            options(nostack),
        );
    }
    compare("zmm", wanted.0.as_flattened(), found.0.as_flattened(), 8)?;
    compare("k", &wanted.1, &found.1, 1)
}

fn fill(words: &mut [u64], value: u64) {
    for (number, word) in words.iter_mut().enumerate() {
        *word = value.rotate_left(number as u32) ^ number as u64;
    }
}

fn compare(name: &str, wanted: &[u64], found: &[u64], words: usize) -> Result<(), String> {
    match wanted.iter().zip(found).position(|(w, f)| w != f) {
        None => Ok(()),
        Some(at) => Err(format!(
            "vectors: {name}{} word {} is {:#x} instead of {:#x}",
            at / words,
            at % words,
            found[at],
            wanted[at]
        )),
    }
}
