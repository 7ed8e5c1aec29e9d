//! A cable with two ends, for tests: what is sent at one end is received at the other one.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

use super::{NetBackend, Received};

#[derive(Default)]
struct Inbox {
    frames: VecDeque<Vec<u8>>,
    stopped: bool,
    cut: bool,
}

type Side = Arc<(Mutex<Inbox>, Condvar)>;

/// One end.
pub struct End {
    to: Side,
    from: Side,
}

pub fn cable() -> (Arc<End>, Arc<End>) {
    let (a, b) = (Side::default(), Side::default());
    let end = |to: &Side, from: &Side| {
        Arc::new(End {
            to: Arc::clone(to),
            from: Arc::clone(from),
        })
    };
    (end(&a, &b), end(&b, &a))
}

impl End {
    /// Cuts the cable: the other end is gone.
    pub fn cut(&self) {
        self.to.0.lock().unwrap().cut = true;
        self.to.1.notify_all();
    }

    /// The next frame.
    pub fn next(&self) -> Vec<u8> {
        let mut buffer = vec![0; super::MAX_FRAME];
        match self.receive(&mut buffer) {
            Received::Frame(len) => buffer[..len].to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// How many frames the other end hasn't received yet.
    pub fn waiting(&self) -> usize {
        self.to.0.lock().unwrap().frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.from.0.lock().unwrap().frames.is_empty()
    }
}

impl NetBackend for End {
    fn send(&self, frame: &[u8]) {
        self.to.0.lock().unwrap().frames.push_back(frame.to_vec());
        self.to.1.notify_all();
    }

    fn receive(&self, buffer: &mut [u8]) -> Received {
        let mut inbox = self.from.0.lock().unwrap();
        loop {
            if inbox.stopped {
                return Received::Stopped;
            }
            if let Some(frame) = inbox.frames.pop_front() {
                buffer[..frame.len()].copy_from_slice(&frame);
                return Received::Frame(frame.len());
            }
            if inbox.cut {
                return Received::Gone("the cable is cut".into());
            }
            inbox = self.from.1.wait(inbox).unwrap();
        }
    }

    fn stop(&self) {
        self.from.0.lock().unwrap().stopped = true;
        self.from.1.notify_all();
    }
}
