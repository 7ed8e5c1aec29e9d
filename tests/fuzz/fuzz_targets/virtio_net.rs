//! A guest that does anything with a network card whose cable is out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::machine::Machine;

fuzz_target!(|data: &[u8]| {
    let mut machine = Machine::new("virtio-net", "");
    machine.start_virtio();
    machine.run(data);
});
