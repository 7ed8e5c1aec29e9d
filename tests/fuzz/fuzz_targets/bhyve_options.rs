//! Any command line of bhyve is understood or refused, and so is the machine that it means.
#![no_main]

use bhyve::options::{self, Answer};
use bhyve::pci::slots;
use bhyve::settings::Settings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(arguments) = vmm_fuzz::arguments(data) {
        let year = data.first().filter(|byte| **byte > 127).map(|_| "2013");
        if let Ok(Answer::Run(options)) = options::parse(&arguments, year) {
            let _ = Settings::read(&options.config);
            let _ = slots::slots(&options.config);
        }
    }
});
