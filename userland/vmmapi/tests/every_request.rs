//! Every request of the header has a call in this crate.

use std::fs;
use std::path::Path;

#[test]
fn every_request_of_the_header_has_a_call() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let code: String = fs::read_dir(src)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let words: Vec<&str> = code
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    let missing: Vec<_> = vmm_sys::ioctl::ALL
        .iter()
        .map(|(name, _)| name)
        .filter(|name| !words.contains(name))
        .collect();
    assert!(missing.is_empty(), "no call for {missing:?}");
}
