//! UNIX sockets that others connect to. The file is there as long as the program runs: one
//! that an earlier run left behind is replaced, one that somebody listens on is not.

#![forbid(unsafe_code)]

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The sockets that exist now.
static BOUND: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// The file that belongs to a socket of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
struct File {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// A socket, and its file. Nothing it does blocks.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: File,
}

/// Why a path can't be a socket.
#[derive(Debug)]
pub enum BindError {
    TooLong(PathBuf),
    NoDirectory(PathBuf),
    /// Somebody else accepts connections there.
    InUse(PathBuf),
    /// There is a file, which we don't delete.
    NoSocket(PathBuf),
    Other {
        path: PathBuf,
        error: io::Error,
    },
}

impl std::error::Error for BindError {}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(path) => write!(
                f,
                "{}: too long for the path of a socket, which has {} bytes at most",
                path.display(),
                LONGEST
            ),
            Self::NoDirectory(path) => write!(
                f,
                "{}: there is no such directory to make a socket in",
                path.display()
            ),
            Self::InUse(path) => write!(
                f,
                "{}: another program listens on this socket",
                path.display()
            ),
            Self::NoSocket(path) => write!(
                f,
                "{}: there is a file of that name already, which is no socket",
                path.display()
            ),
            Self::Other { path, error } => {
                let why = cli::io_error(error);
                write!(f, "{}: the socket can't be made: {why}", path.display())
            }
        }
    }
}

/// Bytes of sun_path, without the zero at its end.
const LONGEST: usize = size_of::<libc::sockaddr_un>() - offset_of!(libc::sockaddr_un, sun_path) - 1;

impl Listener {
    /// Makes the file, and listens.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let other = |error| BindError::Other {
            path: path.to_owned(),
            error,
        };
        if path.as_os_str().len() > LONGEST {
            return Err(BindError::TooLong(path.to_owned()));
        }
        let socket = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                make_room(path)?;
                UnixListener::bind(path)
            }
            result => result,
        };
        let socket = socket.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let directory = path.parent().unwrap_or(path);
                BindError::NoDirectory(directory.to_owned())
            }
            io::ErrorKind::AddrInUse => BindError::InUse(path.to_owned()),
            _ => other(error),
        })?;
        let metadata = fs::symlink_metadata(path).map_err(other)?;
        let file = File::new(path, &metadata);
        bound(|files| files.push(file.clone()));
        // From here on dropping it removes the file.
        let listener = Self { socket, file };
        listener.socket.set_nonblocking(true).map_err(other)?;
        Ok(listener)
    }

    /// The next connection, if somebody waits.
    pub fn accept(&self) -> io::Result<Option<UnixStream>> {
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    return Ok(Some(stream));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        bound(|files| {
            if let Some(at) = files.iter().position(|file| *file == self.file) {
                files.swap_remove(at).remove();
            }
        });
    }
}

/// Removes the files of all sockets, for the end of the program, whose threads still have
/// them.
pub fn remove_all() {
    bound(|files| files.drain(..).for_each(|file| file.remove()));
}

fn bound<T>(change: impl FnOnce(&mut Vec<File>) -> T) -> T {
    change(&mut BOUND.lock().unwrap_or_else(PoisonError::into_inner))
}

impl File {
    fn new(path: &Path, metadata: &Metadata) -> Self {
        Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Removes it, unless somebody has put another one in its place.
    fn remove(self) {
        let metadata = fs::symlink_metadata(&self.path);
        if metadata.is_ok_and(|metadata| Self::new(&self.path, &metadata) == self) {
            // If it can't be removed the next run replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket that nobody listens on.
fn make_room(path: &Path) -> Result<(), BindError> {
    let other = |error| BindError::Other {
        path: path.to_owned(),
        error,
    };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        // It has gone meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(other(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NoSocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(other)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(BindError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory of a test, removed with all that is in it.
    pub struct Directory(PathBuf);

    impl Directory {
        pub fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!(
                "vmm_rs-sock-{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            );
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        pub fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_file_is_there_as_long_as_the_socket() {
        let directory = Directory::new();
        let path = directory.file("a");
        let listener = Listener::bind(&path).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let _client = UnixStream::connect(&path).unwrap();
        assert!(listener.accept().unwrap().is_some());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_an_earlier_run_left_is_replaced() {
        let directory = Directory::new();
        let path = directory.file("a");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _listener = Listener::bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn what_somebody_else_uses_stays() {
        let directory = Directory::new();
        let path = directory.file("a");
        let other = UnixListener::bind(&path).unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert!(matches!(error, BindError::InUse(_)), "{error}");
        assert!(error.to_string().contains("another program listens"));
        drop(other);
        let listener = Listener::bind(&path).unwrap();
        // Somebody puts his own in its place.
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
        let file = directory.file("file");
        fs::write(&file, "text").unwrap();
        let error = Listener::bind(&file).unwrap_err();
        assert!(matches!(error, BindError::NoSocket(_)), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"text");
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let directory = Directory::new();
        let error = Listener::bind(&directory.file("no/a")).unwrap_err();
        assert!(matches!(error, BindError::NoDirectory(_)), "{error}");
        assert!(error.to_string().contains("/no:"), "{error}");
        let error = Listener::bind(&directory.file(&"x".repeat(110))).unwrap_err();
        assert!(matches!(error, BindError::TooLong(_)), "{error}");
    }
}
