//! A connection that carries as much as it can in both directions at once. What is sent
//! follows from who sends it, so that each side knows what has to arrive.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

const LISTENER: u64 = 1;
const CONNECTOR: u64 = 2;

/// Waits for a connection at `address`, and says so.
pub fn listen(address: &str, mib: u64) -> Result<String, String> {
    let failed = |e: io::Error| format!("listen: {address}: {e}");
    let listener = TcpListener::bind(address).map_err(failed)?;
    println!("listens at {address}");
    let (stream, _) = listener.accept().map_err(failed)?;
    exchange(stream, LISTENER, CONNECTOR, mib << 20)
        .map_err(failed)
        .map(|()| format!("at {address} {mib} MiB went each way"))
}

pub fn connect(address: &str, mib: u64) -> Result<String, String> {
    let failed = |e: io::Error| format!("connect: {address}: {e}");
    let stream = TcpStream::connect(address).map_err(failed)?;
    exchange(stream, CONNECTOR, LISTENER, mib << 20)
        .map_err(failed)
        .map(|()| format!("with {address} {mib} MiB went each way"))
}

/// Sends `bytes` bytes, while as many have to arrive, and then the other side's end.
fn exchange(mut stream: TcpStream, ours: u64, theirs: u64, bytes: u64) -> io::Result<()> {
    let mut sender = stream.try_clone()?;
    let sending = thread::spawn(move || {
        io::copy(&mut Noise::new(ours).take(bytes), &mut sender)?;
        sender.flush()?;
        sender.shutdown(Shutdown::Write)
    });
    let mut expected = Noise::new(theirs);
    let (mut got, mut wanted) = ([0; 16384], [0; 16384]);
    let mut received = 0;
    loop {
        let len = stream.read(&mut got)?;
        if len == 0 {
            break;
        }
        expected.read_exact(&mut wanted[..len])?;
        if got[..len] != wanted[..len] {
            return Err(io::Error::other(format!(
                "what arrived behind {received} bytes is not what was sent"
            )));
        }
        received += len as u64;
    }
    if received != bytes {
        return Err(io::Error::other(format!(
            "{received} bytes arrived instead of {bytes}"
        )));
    }
    sending
        .join()
        .map_err(|_| io::Error::other("the sending thread panicked"))?
}

/// Bytes without an end that no others are like.
struct Noise {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Noise {
    fn new(seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            word: [0; 8],
            used: 8,
        }
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in &mut *buffer {
            if self.used == self.word.len() {
                // xorshift64
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                self.word = self.state.to_le_bytes();
                self.used = 0;
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
        Ok(buffer.len())
    }
}
