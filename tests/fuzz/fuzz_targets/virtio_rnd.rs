//! A guest that does anything with a virtio-rnd and its queue.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::machine::Machine;

fuzz_target!(|data: &[u8]| {
    let mut machine = Machine::new("virtio-rnd", "");
    machine.start_virtio();
    machine.run(data);
});
