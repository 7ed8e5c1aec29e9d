//! Never ends: counts on the console while it computes and exits. For what is done to a
//! running guest from outside (kill, suspend, destroy, statistics).

#![no_std]
#![no_main]

use kit::{Boot, cpu, println};

kit::main!(spin);

fn spin(_: Boot) {
    for round in 0u64.. {
        println!("spin {round}");
        for leaf in 0..2000 {
            cpu::cpuid(leaf % 8, 0);
            core::hint::spin_loop();
        }
    }
}
