//! Any file is a kernel in some format with a place for all its pieces in memory, or refused.
#![no_main]

use bhyveload::plan::{File, Format, Request, plan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else {
        return;
    };
    let file = |bytes: &[u8]| File {
        path: "kernel".to_owned(),
        arguments: "console=ttyS0".to_owned(),
        bytes: bytes.to_vec(),
    };
    let format = match first & 7 {
        0 => Some(Format::Flat),
        1 => Some(Format::Elf),
        2 => Some(Format::Multiboot),
        3 => Some(Format::Linux),
        4 => Some(Format::Pvh),
        _ => None,
    };
    let extra = first & 8 != 0;
    let request = Request {
        kernel: file(bytes),
        modules: Vec::from_iter(extra.then(|| file(b"module"))),
        initrd: extra.then(|| file(&[1; 5000])),
        format,
        load_address: None,
        entry: None,
        memory: 64 << 20,
    };
    if let Ok(plan) = plan(&request) {
        for piece in &plan.pieces {
            assert!(piece.data.len() as u64 <= piece.len);
            assert!(piece.gpa + piece.len <= request.memory);
        }
    }
});
