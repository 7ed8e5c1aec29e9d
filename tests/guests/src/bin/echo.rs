//! Sends back what comes in at COM1, by its interrupt, and sleeps between: what a console
//! passes on, and what a guest costs that has nothing to do. `Q` powers off, `R` resets.

#![no_std]
#![no_main]

use kit::{Boot, cpu, interrupt, println};

kit::main!(echo);

const COM1: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
const MODEM_CONTROL: u16 = COM1 + 4;
const LINE_STATUS: u16 = COM1 + 5;
const RECEIVED: u8 = 1;
const SENDER_EMPTY: u8 = 1 << 5;
const OUT2: u8 = 1 << 3;
/// The chipset's reset register, and its full reset.
const RESET: u16 = 0xcf9;

fn echo(_: Boot) {
    const BASE: u8 = interrupt::PIC_BASE;
    for (port, value) in [
        (0x20, 0x11),
        (0x21, BASE),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xef), // ICW1 to ICW4, and IRQ 4 only
        (INTERRUPT_ENABLE, RECEIVED),
        (MODEM_CONTROL, OUT2),
    ] {
        cpu::outb(port, value);
    }
    println!("echo: ready");
    loop {
        while cpu::inb(LINE_STATUS) & RECEIVED != 0 {
            let byte = cpu::inb(COM1);
            while cpu::inb(LINE_STATUS) & SENDER_EMPTY == 0 {}
            cpu::outb(COM1, byte);
            match byte {
                b'Q' => return,
                b'R' => cpu::outb(RESET, 6),
                _ => {}
            }
        }
        cpu::wait_for_interrupt();
    }
}
