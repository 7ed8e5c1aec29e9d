//! Image files behind disks.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// An image file that is gone with the test.
pub struct Image(PathBuf);

impl Image {
    pub fn new(bytes: &[u8]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("bhyve-disk-{}-{number}", std::process::id());
        // Not below /tmp, which may be a tmpfs: no O_DIRECT there.
        let path = std::env::current_exe().unwrap().with_file_name(name);
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    /// The text behind virtio-blk, with more options.
    pub fn with(&self, options: &str) -> String {
        format!("{}{options}", self.0.display())
    }

    pub fn file(&self) -> File {
        File::options()
            .read(true)
            .write(true)
            .open(&self.0)
            .unwrap()
    }

    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file().read_exact_at(&mut bytes, at).unwrap();
        bytes
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
