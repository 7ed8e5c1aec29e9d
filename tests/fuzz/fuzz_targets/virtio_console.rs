//! A guest that does anything with a console of two ports, one of which somebody is
//! connected to.
#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::machine::Machine;

fuzz_target!(|data: &[u8]| {
    let socket = |n| std::env::temp_dir().join(format!("port-{}-{n}", std::process::id()));
    let options = format!("one={},two={}", socket(1).display(), socket(2).display());
    let mut machine = Machine::new("virtio-console", &options);
    let mut client = UnixStream::connect(socket(1)).unwrap();
    client.set_nonblocking(true).unwrap();
    client.write_all(b"input").unwrap();
    machine.start_virtio();
    machine.run(data);
    let _ = client.read(&mut [0; 4096]);
});
