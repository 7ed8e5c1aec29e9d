//! The kit of the guest programs: boot into long mode (boot.s), a console on COM1,
//! exceptions that can be expected, and an end that the host sees. A program is a binary
//! with `kit::main!(function)`; it ends with [`finish`], and whatever it prints last is
//! `GUEST-OK` or `GUEST-FAIL: why`.

#![no_std]

pub mod apic;
pub mod console;
pub mod cpu;
pub mod exception;
pub mod interrupt;

use core::panic::PanicInfo;

core::arch::global_asm!(include_str!("boot.s"), options(att_syntax));

/// Names the function that the program begins with, in long mode with exceptions handled.
#[macro_export]
macro_rules! main {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn kit_main(magic: u32, info: u32) -> ! {
            $crate::exception::init();
            $main($crate::Boot { magic, info });
            $crate::finish();
        }
    };
}

/// What the loader passed.
#[derive(Clone, Copy)]
pub struct Boot {
    /// 0x2BADB002 from a multiboot loader.
    pub magic: u32,
    /// The address of the multiboot information.
    pub info: u32,
}

/// The end of a program that found everything right: powers the VM off.
pub fn finish() -> ! {
    println!("GUEST-OK");
    poweroff()
}

/// Powers the VM off by ACPI: S5 in PM1a_CNT at bhyve's port (ACPI 4.8.3.2.1).
pub fn poweroff() -> ! {
    cpu::outw(0x404, 5 << 10 | 1 << 13);
    loop {
        cpu::halt();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("GUEST-FAIL: {info}");
    poweroff()
}
