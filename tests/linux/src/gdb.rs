//! The debugger's side of GDB's remote serial protocol, as far as a script needs it: packets
//! go out, and what comes back is printed.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

/// Time for a guest to get somewhere, and for a stop that nobody has asked for to be over.
const MEANWHILE: Duration = Duration::from_secs(1);

/// Sends each of `packets` and prints "PACKET: ANSWER". `^C` interrupts a guest that has been
/// told to go on by `c&`, which waits for no answer. The connection's end sets the guest free.
pub fn run(address: &str, packets: &[&str]) -> Result<String, String> {
    let failed = |what: &str, error: std::io::Error| format!("{address}: {what}: {error}");
    let mut socket = TcpStream::connect(address).map_err(|e| failed("connecting", e))?;
    let reader = socket.try_clone().map_err(|e| failed("connecting", e))?;
    let mut reader = BufReader::new(reader);
    for &packet in packets {
        let bytes = match packet {
            "^C" => vec![3],
            "c&" => {
                thread::sleep(MEANWHILE);
                framed("c")
            }
            _ => framed(packet),
        };
        socket.write_all(&bytes).map_err(|e| failed(packet, e))?;
        if packet == "c&" {
            thread::sleep(MEANWHILE);
            continue;
        }
        let text = answer(&mut reader).map_err(|e| failed(packet, e))?;
        socket.write_all(b"+").map_err(|e| failed(packet, e))?;
        println!("{packet}: {text}");
    }
    Ok(format!("gdb: {} packets", packets.len()))
}

/// `$packet#` and the sum of its bytes.
fn framed(packet: &str) -> Vec<u8> {
    let sum = packet.bytes().fold(0u8, u8::wrapping_add);
    format!("${packet}#{sum:02x}").into_bytes()
}

/// What is between $ and #, behind any acknowledgements.
fn answer(reader: &mut impl Read) -> Result<String, std::io::Error> {
    let mut next = || {
        let mut byte = [0];
        reader.read_exact(&mut byte).map(|()| char::from(byte[0]))
    };
    while next()? != '$' {}
    let mut text = String::new();
    loop {
        match next()? {
            '#' => break,
            c => text.push(c),
        }
    }
    next()?;
    next()?;
    Ok(text)
}
