//! A volume with any kernel, module and loader.conf is loaded, or refused.
#![no_main]

use bhyveload::console::Console;
use bhyveload::freebsd::loader::{HostFile, Request, plan};
use bhyveload::fs::{FileRead, FileSystem, FsError};
use libfuzzer_sys::fuzz_target;

/// Three files.
struct Files<'a> {
    conf: &'a [u8],
    kernel: &'a [u8],
    module: &'a [u8],
}

struct Bytes<'a>(&'a [u8]);

impl FileRead for Bytes<'_> {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl FileSystem for Files<'_> {
    fn open(&self, path: &str) -> Result<Option<Box<dyn FileRead + '_>>, FsError> {
        let bytes = match path.trim_start_matches('/') {
            "boot/loader.conf" => self.conf,
            "boot/kernel/kernel" => self.kernel,
            "boot/kernel/m.ko" => self.module,
            _ => return Ok(None),
        };
        Ok(Some(Box::new(Bytes(bytes))))
    }

    fn list(&self, _: &str) -> Result<Option<Vec<String>>, FsError> {
        Ok(None)
    }
}

fuzz_target!(|input: (&[u8], &[u8], &[u8])| {
    let (conf, kernel, module) = input;
    let files = Files {
        conf,
        kernel,
        module,
    };
    let host_module = HostFile {
        path: "m.ko".to_owned(),
        bytes: module.to_vec(),
        arguments: String::new(),
        kind: None,
    };
    let request = Request {
        files: Some(&files),
        volume: "disk0p2",
        kernel: None,
        modules: vec![host_module],
        defaults: Vec::new(),
        variables: Vec::new(),
        memory: 64 << 20,
    };
    let nobody = || Box::new(std::io::sink());
    let _ = plan(request, &mut Console::recording(nobody(), nobody(), false));
});
