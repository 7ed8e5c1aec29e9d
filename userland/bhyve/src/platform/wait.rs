//! Waiting for one of several files, in the host's own way (the crate mio: kqueue(2) on
//! FreeBSD).
//!
//! Changes are told, not states, and each one once: who waits has tried before, until the
//! file said EWOULDBLOCK. A file that never says so (a plain one, /dev/null) needs no waiting.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// The key of the waker's own event.
const WAKER: Token = Token(usize::MAX);
/// More events than these come with the next wait.
const AT_ONCE: usize = 64;

/// The files that somebody waits for.
#[derive(Debug)]
pub struct Files {
    poll: Poll,
    events: Events,
}

/// What has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Which file, in the words of [`Files::add`].
    pub key: usize,
    /// There is something to read, or the end.
    pub readable: bool,
    /// The other side takes nothing any more. There may be something to read.
    pub gone: bool,
}

/// Ends a wait from another thread: the one that goes on, or the next one.
#[derive(Debug)]
pub struct Waker(mio::Waker);

impl Files {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(AT_ONCE),
        })
    }

    /// There can be one.
    pub fn waker(&self) -> io::Result<Waker> {
        mio::Waker::new(self.poll.registry(), WAKER).map(Waker)
    }

    /// Looks at a file from now on, until it is closed, by a key other than `usize::MAX`.
    /// What is there now is told as well.
    pub fn add(&self, file: BorrowedFd<'_>, key: usize) -> io::Result<()> {
        self.register(file, key, Interest::READABLE | Interest::WRITABLE)
    }

    /// As [`Files::add`], for somebody who only reads.
    pub fn add_input(&self, file: BorrowedFd<'_>, key: usize) -> io::Result<()> {
        self.register(file, key, Interest::READABLE)
    }

    /// As [`Files::add`], for somebody who only writes.
    pub fn add_output(&self, file: BorrowedFd<'_>, key: usize) -> io::Result<()> {
        self.register(file, key, Interest::WRITABLE)
    }

    fn register(&self, file: BorrowedFd<'_>, key: usize, what: Interest) -> io::Result<()> {
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&file.as_raw_fd()), Token(key), what)
    }

    /// Waits until something changes, or for that long. There may be nothing without a reason.
    pub fn wait(
        &mut self,
        limit: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = Change> + '_> {
        self.events.clear();
        match self.poll.poll(&mut self.events, limit) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let files = self.events.iter().filter(|event| event.token() != WAKER);
        Ok(files.map(|event| Change {
            key: event.token().0,
            readable: event.is_readable() || event.is_read_closed(),
            gone: event.is_write_closed() || event.is_error(),
        }))
    }
}

impl Waker {
    pub fn wake(&self) {
        // Nothing of the host's is missing: it has all it needs since it was made.
        let _ = self.0.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn changes(files: &mut Files) -> (bool, bool) {
        let changes = files.wait(Some(Duration::ZERO)).unwrap();
        changes.fold((false, false), |(readable, gone), change| {
            assert_eq!(change.key, 7);
            (readable || change.readable, gone || change.gone)
        })
    }

    #[test]
    fn what_happens_to_a_file_is_told_once() {
        let mut files = Files::new().unwrap();
        let (mut ours, mut other) = UnixStream::pair().unwrap();
        files.add(ours.as_fd(), 7).unwrap();
        assert_eq!(changes(&mut files), (false, false));
        other.write_all(b"x").unwrap();
        assert_eq!(changes(&mut files), (true, false));
        assert_eq!(changes(&mut files), (false, false));
        ours.read_exact(&mut [0]).unwrap();
        other.shutdown(Shutdown::Write).unwrap();
        assert_eq!(changes(&mut files), (true, false), "it may still read");
        drop(other);
        assert!(changes(&mut files).1);
    }

    #[test]
    fn a_file_that_is_closed_is_looked_at_no_more() {
        let mut files = Files::new().unwrap();
        let (ours, mut other) = UnixStream::pair().unwrap();
        files.add_input(ours.as_fd(), 7).unwrap();
        other.write_all(b"x").unwrap();
        drop(ours);
        assert_eq!(changes(&mut files), (false, false));
    }

    #[test]
    fn a_wait_ends_by_the_waker_also_by_an_earlier_call() {
        let mut files = Files::new().unwrap();
        let waker = files.waker().unwrap();
        waker.wake();
        waker.wake();
        assert_eq!(files.wait(None).unwrap().count(), 0);
        assert_eq!(files.wait(Some(Duration::ZERO)).unwrap().count(), 0);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| files.wait(None).unwrap().count());
            waker.wake();
            assert_eq!(waiting.join().unwrap(), 0);
        });
    }
}
