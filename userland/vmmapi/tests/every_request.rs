//! Every request of the header has a call in this crate.

use std::fs;
use std::path::Path;

/// All sources in a folder and the folders in it.
fn sources(folder: &Path) -> String {
    let paths = fs::read_dir(folder).unwrap();
    let paths = paths.map(|entry| entry.unwrap().path());
    paths
        .map(|path| match path.is_dir() {
            true => sources(&path),
            false => fs::read_to_string(&path).unwrap(),
        })
        .collect()
}

#[test]
fn every_request_of_the_header_has_a_call() {
    let code = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let words: Vec<&str> = code
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    let missing: Vec<_> = vmm_sys::ioctl::ALL
        .iter()
        .map(|(name, _)| name)
        // The module takes these from programs of FreeBSD 12 and 13, which this is none of.
        .filter(|name| !name.ends_with("_12") && !name.ends_with("_13"))
        .filter(|name| !words.contains(name))
        .collect();
    assert!(missing.is_empty(), "no call for {missing:?}");
}
