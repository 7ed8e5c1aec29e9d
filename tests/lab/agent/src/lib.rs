//! The protocol between the test harness and the agent on the lab host, over one raw
//! serial line. Both sides send frames: a header line, then as many bytes as it says.
//!
//! ```text
//! ~ <kind> <id> <value> <check>\n  <payload>
//! ```
//!
//! `value` is the payload's length, or for `end` the exit status; `check` is a sum over
//! header and payload. A UART may lose bytes: a receiver drops what doesn't check, and the
//! harness sends a request again when no answer starts.

use std::io::{self, BufRead, Read};

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Agent: ready for requests.
    Hello,
    /// Harness: run this with `sh -c`. A repeated id is not run again.
    Run { id: u32, command: Vec<u8> },
    /// Agent: request `id` has come in.
    Started { id: u32 },
    /// Agent: what the command printed (stdout and stderr).
    Output { id: u32, bytes: Vec<u8> },
    /// Agent: it has ended; a signal counts as 128 + number, as in sh.
    End { id: u32, status: u32 },
}

/// More than this in one payload is no frame of ours.
const MAX_PAYLOAD: usize = 64 * 1024;

impl Frame {
    pub fn encode(&self) -> Vec<u8> {
        let (kind, id, value, payload): (_, u32, u32, &[u8]) = match self {
            Frame::Hello => ("hello", 0, 0, &[]),
            Frame::Run { id, command } => ("run", *id, command.len() as u32, command),
            Frame::Started { id } => ("started", *id, 0, &[]),
            Frame::Output { id, bytes } => ("output", *id, bytes.len() as u32, bytes),
            Frame::End { id, status } => ("end", *id, *status, &[]),
        };
        let mut out = format!(
            "~ {kind} {id} {value} {:08x}\n",
            check(kind, id, value, payload)
        )
        .into_bytes();
        out.extend_from_slice(payload);
        out
    }

    /// The next frame that is whole; anything else on the line is skipped.
    pub fn read(from: &mut impl BufRead) -> io::Result<Frame> {
        loop {
            let mut line = Vec::new();
            if from.read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some(header) = Header::parse(&line) else {
                continue;
            };
            let mut payload = vec![0; header.payload_len()];
            from.read_exact(&mut payload)?;
            if let Some(frame) = header.frame(payload) {
                return Ok(frame);
            }
        }
    }
}

struct Header {
    kind: String,
    id: u32,
    value: u32,
    check: u32,
}

impl Header {
    fn parse(line: &[u8]) -> Option<Header> {
        let line = std::str::from_utf8(line).ok()?;
        // What comes before the mark is noise or the rest of a damaged payload.
        let (_, header) = line.trim_end().rsplit_once("~ ")?;
        let mut words = header.split(' ');
        let header = Header {
            kind: words.next()?.to_owned(),
            id: words.next()?.parse().ok()?,
            value: words.next()?.parse().ok()?,
            check: u32::from_str_radix(words.next()?, 16).ok()?,
        };
        (words.next().is_none() && header.payload_len() <= MAX_PAYLOAD).then_some(header)
    }

    fn payload_len(&self) -> usize {
        match self.kind.as_str() {
            "run" | "output" => self.value as usize,
            _ => 0,
        }
    }

    fn frame(self, payload: Vec<u8>) -> Option<Frame> {
        if self.check != check(&self.kind, self.id, self.value, &payload) {
            return None;
        }
        let id = self.id;
        match self.kind.as_str() {
            "hello" => Some(Frame::Hello),
            "run" => Some(Frame::Run {
                id,
                command: payload,
            }),
            "started" => Some(Frame::Started { id }),
            "output" => Some(Frame::Output { id, bytes: payload }),
            "end" => Some(Frame::End {
                id,
                status: self.value,
            }),
            _ => None,
        }
    }
}

/// FNV-1a.
fn check(kind: &str, id: u32, value: u32, payload: &[u8]) -> u32 {
    let numbers = id.to_le_bytes().into_iter().chain(value.to_le_bytes());
    let bytes = kind.bytes().chain(numbers).chain(payload.iter().copied());
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Copies a command's output into frames as it comes.
pub fn send_output(
    id: u32,
    mut from: impl Read,
    mut send: impl FnMut(Frame) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => send(Frame::Output {
                id,
                bytes: buffer[..n].to_vec(),
            })?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Hello,
            Frame::Run {
                id: 7,
                command: b"echo 'a\nb'; false".to_vec(),
            },
            Frame::Output {
                id: 7,
                bytes: vec![0, 255, b'\n', b'~', b' '],
            },
            Frame::End { id: 7, status: 139 },
        ]
    }

    #[test]
    fn frames_survive_the_line() {
        let line: Vec<u8> = frames().iter().flat_map(Frame::encode).collect();
        let mut from = line.as_slice();
        for frame in frames() {
            assert_eq!(Frame::read(&mut from).unwrap(), frame);
        }
        assert_eq!(
            Frame::read(&mut from).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn a_frame_that_lost_or_changed_a_byte_is_dropped_and_the_next_is_read() {
        let good = Frame::End { id: 9, status: 0 };
        let sent = Frame::Run {
            id: 8,
            command: b"ls /dev/vmm\n".to_vec(),
        }
        .encode();
        for position in 0..sent.len() {
            for lost in [true, false] {
                let mut damaged = sent.clone();
                if lost {
                    damaged.remove(position);
                } else {
                    damaged[position] ^= 0x01;
                }
                // A lost byte may eat into one good frame; what follows is read again.
                let line = [damaged, b"?\n".to_vec(), good.encode(), good.encode()].concat();
                assert_eq!(
                    Frame::read(&mut line.as_slice()).unwrap(),
                    good,
                    "byte {position}, lost: {lost}"
                );
            }
        }
    }

    #[test]
    fn a_length_beyond_reason_is_no_frame() {
        let good = Frame::Started { id: 1 };
        let line = [b"~ output 1 4294967295 00000000\n".to_vec(), good.encode()].concat();
        assert_eq!(Frame::read(&mut line.as_slice()).unwrap(), good);
    }
}
