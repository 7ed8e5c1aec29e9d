//! Any command line of bhyvectl is understood or refused.
#![no_main]

use std::sync::LazyLock;

use bhyvectl::options::Described;
use bhyvectl::{options, platform, request};
use libfuzzer_sys::fuzz_target;

static OPTIONS: LazyLock<Vec<Described>> =
    LazyLock::new(|| options::table(platform::vendor().unwrap()));

fuzz_target!(|data: &[u8]| {
    if let Some(arguments) = vmm_fuzz::arguments(data) {
        let [stock, added] = options::long_options(&OPTIONS);
        let _ = request::parse(&arguments, &[&stock, &added]);
    }
});
