//! The paravirtual console of early FreeBSD guests at port 0x220 (old bhyve's -b), and the
//! line of their kernel debugger at 0x224 (-g), which is the same: a word read gives the
//! signature, a double word is one character, all ones when none waits.

#![forbid(unsafe_code)]

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::Backend;
use crate::ports::{PortDevice, Width};

pub const PORTS: u16 = 4;

/// Where one is, and how the guest knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    pub name: &'static str,
    pub port: u16,
    signature: u16,
}

pub const CONSOLE: Kind = Kind {
    name: "bvmcons",
    port: 0x220,
    signature: u16::from_be_bytes(*b"bv"),
};

pub const DEBUG: Kind = Kind {
    name: "bvmdebug",
    port: 0x224,
    signature: u16::from_be_bytes(*b"BV"),
};

/// Characters that wait for the guest; more wait in the backend.
const WAITING: usize = 64;

pub struct BvmConsole {
    signature: u16,
    backend: Arc<Backend>,
    input: Mutex<Receiver<u8>>,
}

/// The console, its input read by a thread of its own.
pub fn start(kind: Kind, backend: Backend) -> std::io::Result<Arc<BvmConsole>> {
    let backend = Arc::new(backend);
    let (sender, input) = sync_channel(WAITING);
    let source = Arc::clone(&backend);
    std::thread::Builder::new()
        .name(format!("{} input", kind.name))
        .spawn(move || {
            let mut byte = [0];
            while source.read(&mut byte) == 1 && sender.send(byte[0]).is_ok() {}
        })?;
    Ok(Arc::new(BvmConsole {
        signature: kind.signature,
        backend,
        input: Mutex::new(input),
    }))
}

impl PortDevice for BvmConsole {
    fn widest(&self) -> Width {
        Width::Dword
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        match (offset, width) {
            (0, Width::Word) => self.signature.into(),
            (0, Width::Dword) => {
                let input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
                input.try_recv().map_or(u32::MAX, u32::from)
            }
            _ => u32::MAX,
        }
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        if (offset, width) == (0, Width::Dword) {
            self.backend.write(&[value as u8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn signature_and_characters_pass() {
        let (guest_side, mut host) = UnixStream::pair().unwrap();
        let console = start(CONSOLE, Backend::of_stream("test", guest_side.into())).unwrap();
        assert_eq!(console.read(0, Width::Word), 0x6276);
        assert_eq!(console.read(0, Width::Dword), u32::MAX);
        console.write(0, Width::Dword, u32::from(b'x'));
        let mut got = [0];
        host.read_exact(&mut got).unwrap();
        assert_eq!(got, *b"x");
        host.write_all(b"y").unwrap();
        let byte = loop {
            match console.read(0, Width::Dword) {
                u32::MAX => std::thread::yield_now(),
                byte => break byte,
            }
        };
        assert_eq!(byte, u32::from(b'y'));
    }
}
