//! Any command line of bhyveload is understood or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(arguments) = vmm_fuzz::arguments(data) {
        let _ = bhyveload::options::parse(&arguments);
    }
});
