//! A guest that does anything with a console of two ports that nobody is connected to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::machine::Machine;

fuzz_target!(|data: &[u8]| {
    let socket = |n| std::env::temp_dir().join(format!("port-{}-{n}", std::process::id()));
    let options = format!("one={},two={}", socket(1).display(), socket(2).display());
    let mut machine = Machine::new("virtio-console", &options);
    machine.start_virtio();
    machine.run(data);
});
