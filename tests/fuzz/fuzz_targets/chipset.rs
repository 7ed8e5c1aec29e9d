//! The kernel's chipset (8259s, 8254, RTC, HPET, I/O APIC, PM timer) under any accesses, at
//! any times.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm_core::devices::chipset::Chipset;
use vmm_core::devices::{ApicMessage, Nanos, Wires};
use vmm_core::types::Gpa;

#[derive(Arbitrary, Debug)]
enum Op {
    In {
        port: u8,
        bytes: u8,
    },
    Out {
        port: u8,
        bytes: u8,
        value: u32,
    },
    Read {
        hpet: bool,
        offset: u16,
        bytes: u8,
    },
    Write {
        hpet: bool,
        offset: u16,
        bytes: u8,
        value: u64,
    },
    Acknowledge,
    Wait {
        ns: u32,
    },
    WaitLong {
        ns: u64,
    },
}

struct Nobody;

impl Wires for Nobody {
    fn message(&mut self, _: ApicMessage) {}
    fn pic_intr(&mut self, _: bool) {}
}

/// The ports that somebody is behind.
const PORTS: [u16; 16] = [
    0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x70, 0x71, 0x408, 0x72,
    0x0,
];

fn width(bytes: u8) -> u8 {
    [1, 2, 4, 8][usize::from(bytes % 4)]
}

fuzz_target!(|ops: Vec<Op>| {
    let mut chipset = Chipset::new(Nanos(0), 1_700_000_000);
    let mut now = Nanos(1);
    let port = |n: u8| PORTS[usize::from(n % 16)];
    let gpa = |hpet, offset: u16| {
        Gpa(if hpet { 0xfed0_0000 } else { 0xfec0_0000 } + u64::from(offset % 0x400))
    };
    for op in ops {
        match op {
            Op::In { port: n, bytes } => {
                let _ = chipset.port_in(port(n), width(bytes).min(4), now, &mut Nobody);
            }
            Op::Out {
                port: n,
                bytes,
                value,
            } => {
                chipset.port_out(port(n), width(bytes).min(4), value, now, &mut Nobody);
            }
            Op::Read {
                hpet,
                offset,
                bytes,
            } => {
                let _ = chipset.mmio_read(gpa(hpet, offset), width(bytes), now, &mut Nobody);
            }
            Op::Write {
                hpet,
                offset,
                bytes,
                value,
            } => {
                chipset.mmio_write(gpa(hpet, offset), width(bytes), value, now, &mut Nobody);
            }
            Op::Acknowledge => {
                if chipset.pic_pending() {
                    chipset.pic_acknowledge(&mut Nobody);
                }
            }
            Op::Wait { ns } => now = now.after(ns.into()),
            Op::WaitLong { ns } => now = now.after(ns >> 16),
        }
        if chipset.deadline().is_some_and(|deadline| deadline <= now) {
            chipset.tick(now, &mut Nobody);
        }
    }
});
