//! A guest that does anything with the registers of a PCI serial port.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::machine::Machine;

fuzz_target!(|data: &[u8]| {
    Machine::new("uart", "").run(data);
});
