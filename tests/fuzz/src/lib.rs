//! What the fuzz targets share: a machine of devices without a VM ([`machine`]).

pub mod machine;

/// The text of an input as a command line: one argument a line.
pub fn arguments(data: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(data).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}

/// The path of a disk image of 64 KiB, of this process and for `target`. It stays, as the
/// fuzzer ends without telling.
pub fn image(target: &str) -> String {
    let path = std::env::temp_dir().join(format!("vmm-fuzz-{target}-{}", std::process::id()));
    std::fs::write(&path, vec![0; 64 << 10]).unwrap();
    path.to_str().unwrap().to_owned()
}
