//! Any variables can be set, read and shown, however they refer to each other.
#![no_main]

use bhyve::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|lines: Vec<(&str, &str)>| {
    let mut config = Config::default();
    let mut known = Vec::new();
    for (path, value) in lines {
        if config.set(path, value).is_ok() {
            known.push(path);
        }
    }
    for path in known {
        // A variable may have been replaced by nothing but itself.
        assert!(config.get(path).is_some());
        let _ = config.bool(path, false);
    }
    let _ = (config.lines(), config.unread(), config.warnings());
});
