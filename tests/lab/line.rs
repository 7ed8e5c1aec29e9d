//! The harness's end of the line to the agent: a TCP connection from Bochs, or a socket to the
//! agent itself, read by a thread of its own so that receiving can have a deadline.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use lab_agent::Frame;

pub struct Line {
    writer: Box<dyn Write + Send>,
    frames: Receiver<Frame>,
    closed: bool,
}

impl Line {
    /// Takes over the emulator's connection.
    pub fn of_emulator(stream: TcpStream) -> io::Result<Line> {
        Ok(Line::open(stream.try_clone()?, stream))
    }

    /// Takes over the connection to an agent on this machine.
    pub fn of_agent(stream: UnixStream) -> io::Result<Line> {
        Ok(Line::open(stream.try_clone()?, stream))
    }

    fn open(reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) -> Line {
        let (sender, frames) = channel();
        let mut reader = BufReader::new(reader);
        thread::spawn(move || {
            // Ends with the connection, which is when the other end has ended.
            while let Ok(frame) = Frame::read(&mut reader) {
                if sender.send(frame).is_err() {
                    return;
                }
            }
        });
        Line {
            writer: Box::new(writer),
            frames,
            closed: false,
        }
    }

    /// A lost connection shows as a missing answer.
    pub fn send(&mut self, frame: &Frame) {
        let _ = self.writer.write_all(&frame.encode());
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

    /// Has the other end, emulator or agent, gone? Known after [`Line::receive`].
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}
