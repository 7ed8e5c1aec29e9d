//! A guest that does anything with a disk on virtio-blk: an image of 64 KiB.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::machine::Machine;

static IMAGE: LazyLock<String> = LazyLock::new(|| vmm_fuzz::image("virtio-blk"));

fuzz_target!(|data: &[u8]| {
    let mut machine = Machine::new("virtio-blk", &IMAGE);
    machine.start_virtio();
    machine.run(data);
});
