//! Any bytes are decoded as an instruction of any mode, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_core::cpu::emulate::decode;
use vmm_core::regs::CpuMode;

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else {
        return;
    };
    let mode = match first & 3 {
        0 => CpuMode::Real,
        1 => CpuMode::Protected,
        2 => CpuMode::Compatibility,
        _ => CpuMode::Long64,
    };
    let _ = decode(&bytes[..bytes.len().min(15)], mode, first & 4 != 0);
});
