//! A guest that does anything with an AHCI controller that has a disk and a CD: commands are
//! in the memory that it writes.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::machine::Machine;

static IMAGE: LazyLock<String> = LazyLock::new(|| vmm_fuzz::image("ahci"));

fuzz_target!(|data: &[u8]| {
    let image = &*IMAGE;
    let mut machine = Machine::new("ahci", &format!("hd:{image},cd:{image}"));
    machine.start_ahci();
    machine.run(data);
});
