//! What an exit costs, in ticks of the guest's TSC: minimum, median and mean of many single
//! measurements, the two RDTSC included (the row `empty`). The same program runs under
//! Linux's KVM (tests/bench-kvm), so it keeps to what both have: PCI's configuration port
//! and a window to configuration space at 0xe0000000, which go to userland.

#![no_std]
#![no_main]

use kit::{Boot, cpu, println};

kit::main!(bench);

const SAMPLES: usize = 1000;
/// PCI's CONFIG_ADDRESS: 32 bits wide, kept by userland.
const PCI_ADDRESS: u16 = 0xcf8;
/// The 8259's mask: in the kernel.
const PIC_MASK: u16 = 0x21;
/// PCI Express's configuration space: vendor and device of 0:0.0.
const PCI_MMIO: u64 = 0xe000_0000;
const APIC_BASE: u32 = 0x1b;
const X2APIC_ENABLE: u64 = 1 << 10;
const X2APIC_ID: u32 = 0x802;
const X2APIC_TPR: u32 = 0x808;
const X2APIC_EOI: u32 = 0x80b;
/// Emulated in the kernel by both.
const MISC_ENABLE: u32 = 0x1a0;
/// Memory that nothing has touched: behind this program, pages; further on, chunks.
const PAGES: u64 = 16 << 20;
const CHUNKS: u64 = 64 << 20;
const CHUNK: u64 = 2 << 20;

fn bench(_: Boot) {
    measure("empty", SAMPLES, |_| ());
    measure("cpuid", SAMPLES, |_| {
        cpu::cpuid(1, 0);
    });
    measure("rdmsr", SAMPLES, |_| {
        // SAFETY: every CPU with VT-x has it.
        unsafe { cpu::rdmsr(MISC_ENABLE) };
    });
    measure("out_userland", SAMPLES, |_| cpu::outl(PCI_ADDRESS, 0));
    measure("in_userland", SAMPLES, |_| {
        cpu::inl(PCI_ADDRESS);
    });
    measure("in_kernel_8259", SAMPLES, |_| {
        cpu::inb(PIC_MASK);
    });
    measure("mmio_read_userland", SAMPLES, |_| {
        // SAFETY: a device's register.
        unsafe { (PCI_MMIO as *const u32).read_volatile() };
    });
    measure("mmio_write_userland", SAMPLES, |_| {
        // SAFETY: as above; vendor and device can't be written.
        unsafe { (PCI_MMIO as *mut u32).write_volatile(0) };
    });
    x2apic();
    measure("first_touch_4k", SAMPLES, |n| touch(PAGES + n * 4096));
    measure("next_touch_4k", SAMPLES, |n| touch(PAGES + n * 4096 + 64));
    measure("first_touch_2m", 24, |n| touch(CHUNKS + n * CHUNK));
}

fn x2apic() {
    if cpu::cpuid(1, 0)[2] & 1 << 21 == 0 {
        println!("bench: no x2APIC here");
        return;
    }
    // SAFETY: the APIC is in xAPIC mode, from which x2APIC mode can be entered (SDM 12.12.1);
    // these registers can be read and written there. An EOI without an interrupt is none.
    unsafe {
        cpu::wrmsr(APIC_BASE, cpu::rdmsr(APIC_BASE) | X2APIC_ENABLE);
        measure("x2apic_id", SAMPLES, |_| {
            cpu::rdmsr(X2APIC_ID);
        });
        measure("x2apic_tpr", SAMPLES, |_| cpu::wrmsr(X2APIC_TPR, 0));
        measure("x2apic_eoi", SAMPLES, |_| cpu::wrmsr(X2APIC_EOI, 0));
    }
}

fn touch(address: u64) {
    // SAFETY: memory that nobody else uses.
    unsafe { (address as *mut u64).write_volatile(address) };
}

/// A line: the minimum, the median and the mean of what `action` costs.
fn measure(name: &str, samples: usize, mut action: impl FnMut(u64)) {
    let mut ticks = [0u64; SAMPLES];
    let ticks = &mut ticks[..samples];
    for (number, sample) in ticks.iter_mut().enumerate() {
        let start = cpu::rdtsc();
        action(number as u64);
        *sample = cpu::rdtsc() - start;
    }
    ticks.sort_unstable();
    let mean = ticks.iter().sum::<u64>() / samples as u64;
    println!(
        "bench: {name} min {} median {} mean {mean}",
        ticks[0],
        ticks[samples / 2]
    );
}
