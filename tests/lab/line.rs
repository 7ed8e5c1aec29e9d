//! The harness's end of the serial line to the agent: a TCP connection from Bochs, read by
//! a thread of its own so that receiving can have a deadline.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use lab_agent::Frame;

pub struct Line {
    stream: TcpStream,
    frames: Receiver<Frame>,
    closed: bool,
}

impl Line {
    /// Takes over a connected stream.
    pub fn open(stream: TcpStream) -> io::Result<Line> {
        let (sender, frames) = channel();
        let mut reader = BufReader::new(stream.try_clone()?);
        thread::spawn(move || {
            // Ends with the connection, which is when the emulator ends.
            while let Ok(frame) = Frame::read(&mut reader) {
                if sender.send(frame).is_err() {
                    return;
                }
            }
        });
        Ok(Line {
            stream,
            frames,
            closed: false,
        })
    }

    /// A lost connection shows as a missing answer.
    pub fn send(&mut self, frame: &Frame) {
        let _ = self.stream.write_all(&frame.encode());
    }

    /// The next frame, or None at the deadline or when the line is closed.
    pub fn receive(&mut self, deadline: Instant) -> Option<Frame> {
        match self
            .frames
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(frame) => Some(frame),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.closed = true;
                None
            }
        }
    }

    /// Has the other end, the emulator, gone? Known after [`Line::receive`].
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}
