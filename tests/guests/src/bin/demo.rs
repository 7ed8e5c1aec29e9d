//! The demonstration guest of `make run`: says where it is and what it sees, does a known
//! number of things that exit, and tells that number, which the host's statistics must
//! show.

#![no_std]
#![no_main]

use core::sync::atomic::Ordering;

use kit::{Boot, cpu, println};

kit::main!(demo);

/// IA32_MISC_ENABLE: emulated by the module.
const MISC_ENABLE: u32 = 0x1a0;
const ROUNDS: u64 = 1000;

fn demo(boot: Boot) {
    println!(
        "Hello from a guest of vmm_rs: 64-bit mode, multiboot magic {:#x}",
        boot.magic
    );
    let [_, ebx, ecx, edx] = cpu::cpuid(0x4000_0000, 0);
    let mut signature = [0; 12];
    for (to, word) in signature.chunks_exact_mut(4).zip([ebx, ecx, edx]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    println!(
        "hypervisor signature: {:?}",
        core::str::from_utf8(&signature).unwrap_or("?")
    );

    let cpuids = cpu::CPUID.load(Ordering::Relaxed);
    for _ in cpuids..ROUNDS {
        cpu::cpuid(1, 0);
    }
    for _ in 0..ROUNDS {
        // SAFETY: MISC_ENABLE exists on every CPU with VT-x.
        unsafe { cpu::rdmsr(MISC_ENABLE) };
    }
    let start = cpu::rdtsc();
    for _ in 0..ROUNDS {
        cpu::outb(0x84, 0);
    }
    let ticks = (cpu::rdtsc() - start) / ROUNDS;
    println!("an OUT to userland and back: {ticks} ticks");
    println!(
        "did: cpuid {} rdmsr {ROUNDS}",
        cpu::CPUID.load(Ordering::Relaxed)
    );

    // What is left to do from here: this line (two accesses a byte), GUEST-OK, poweroff.
    let last = "did: inout 00000000 in all\n".len() + "GUEST-OK\n".len();
    let total = cpu::IO.load(Ordering::Relaxed) + 2 * last as u64 + 1;
    println!("did: inout {total:08} in all");
}
