//! A console over TCP (`tcp=address:port`): bhyve listens, and whoever connects has the
//! console until the connection ends. There is one at a time; another one is told so and
//! closed. Without a connection output is lost, as on a serial line without a cable.

#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A peer that takes nothing for so long has to go, for the guest waits for it.
const PATIENCE: Duration = Duration::from_secs(1);
/// bhyve's words.
const OCCUPIED: &[u8] = b"Socket already connected\n";

/// The listening end.
pub struct TcpServer {
    connection: Mutex<Option<Arc<TcpStream>>>,
    connected: Condvar,
}

impl TcpServer {
    /// Listens, in a thread of its own. The address is the one that is bound, also where
    /// port 0 was asked for.
    pub fn start(address: SocketAddr) -> io::Result<(Arc<Self>, SocketAddr)> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let server = Arc::new(Self {
            connection: Mutex::default(),
            connected: Condvar::new(),
        });
        let acceptor = Arc::clone(&server);
        thread::Builder::new()
            .name(format!("tcp {}", address.port()))
            .spawn(move || acceptor.accept_all(&listener))?;
        Ok((server, address))
    }

    /// Waits for bytes, and for a connection before that.
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        loop {
            let connection = self.connection();
            let connection = self
                .connected
                .wait_while(connection, |connection| connection.is_none())
                .unwrap_or_else(PoisonError::into_inner);
            let Some(stream) = connection.clone() else {
                continue;
            };
            drop(connection);
            match (&*stream).read(buffer) {
                Ok(0) => self.disconnect(&stream),
                Ok(bytes) => return bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.disconnect(&stream),
            }
        }
    }

    /// Sends the bytes to whoever is connected.
    pub fn write(&self, bytes: &[u8]) {
        let Some(stream) = self.connection().clone() else {
            return;
        };
        if (&*stream).write_all(bytes).is_err() {
            self.disconnect(&stream);
        }
    }

    fn accept_all(&self, listener: &TcpListener) {
        loop {
            match listener.accept() {
                Ok((stream, _)) => self.connect(stream),
                // Out of descriptors, perhaps: somebody may close one.
                Err(_) => thread::sleep(PATIENCE),
            }
        }
    }

    fn connect(&self, mut stream: TcpStream) {
        // Characters go out as they are typed; a peer without these options is served too.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let mut connection = self.connection();
        if connection.is_some() {
            drop(connection);
            let _ = stream.write_all(OCCUPIED);
            return;
        }
        *connection = Some(Arc::new(stream));
        self.connected.notify_all();
    }

    fn disconnect(&self, stream: &Arc<TcpStream>) {
        // Another thread may be reading from it.
        let _ = stream.shutdown(Shutdown::Both);
        let mut connection = self.connection();
        if connection
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, stream))
        {
            *connection = None;
        }
    }

    fn connection(&self) -> MutexGuard<'_, Option<Arc<TcpStream>>> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    fn server() -> (Arc<TcpServer>, SocketAddr) {
        TcpServer::start(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
    }

    fn connect(to: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(to).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }

    /// Reads as a serial port does, in a thread.
    fn received(server: &Arc<TcpServer>) -> mpsc::Receiver<u8> {
        let server = Arc::clone(server);
        let (sender, bytes) = mpsc::channel();
        thread::spawn(move || {
            let mut byte = [0];
            while server.read(&mut byte) == 1 && sender.send(byte[0]).is_ok() {}
        });
        bytes
    }

    #[test]
    fn one_after_the_other_has_the_console() {
        let (server, address) = server();
        let bytes = received(&server);
        server.write(b"nobody hears this");
        for greeting in [b'1', b'2'] {
            let mut peer = connect(address);
            peer.write_all(&[greeting]).unwrap();
            assert_eq!(bytes.recv_timeout(Duration::from_secs(10)), Ok(greeting));
            server.write(b"Hello");
            let mut got = [0; 5];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"Hello");
            drop(peer);
            let end = Instant::now() + Duration::from_secs(10);
            while server.connection().is_some() && Instant::now() < end {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn a_second_connection_is_told_and_closed() {
        let (server, address) = server();
        let mut first = connect(address);
        let bytes = received(&server);
        first.write_all(b"x").unwrap();
        assert_eq!(bytes.recv_timeout(Duration::from_secs(10)), Ok(b'x'));
        let mut second = connect(address);
        let mut told = Vec::new();
        second.read_to_end(&mut told).unwrap();
        assert_eq!(told, OCCUPIED);
        server.write(b"still");
        let mut got = [0; 5];
        first.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"still");
    }
}
