//! A directory of the host and what lies beneath it, and nothing else. The kernel does the
//! confinement, at the open itself ([`open_beneath`]). Neither "..", nor a symbolic link, nor a path that changes meanwhile leads out
//! (FreeBSD-SA-24:01.bhyveload is what happens otherwise).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{FileRead, FileSystem, FsError};
use crate::platform::{is_outside, open_beneath};

/// The directory.
pub struct HostDir {
    fd: OwnedFd,
    path: String,
}

/// What a path beneath the directory names.
pub enum HostNode {
    /// A regular file, to be read with std's `Read`, `Seek` and `MetadataExt`.
    File(File),
    Directory(HostSubdir),
}

/// An open directory.
pub struct HostSubdir {
    fd: File,
}

/// A directory's entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostEntry {
    pub inode: u64,
    /// The file's type as in dirent(5): DT_REG, DT_DIR …
    pub kind: u8,
    pub name: Vec<u8>,
}

impl HostDir {
    pub fn open(path: &str) -> Result<Self, FsError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| FsError::io(path, error))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// What `path` names; an absolute path begins at this directory. `None` if there is
    /// nothing of that name.
    pub fn node(&self, path: &str) -> Result<Option<HostNode>, FsError> {
        let relative = match path.trim_start_matches('/') {
            "" => ".",
            relative => relative,
        };
        // Without O_NONBLOCK the open of a fifo waits for its writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match open_beneath(&self.fd, relative, flags) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) if is_outside(error) => {
                return Err(FsError::Outside {
                    path: path.to_owned(),
                    root: self.path.clone(),
                });
            }
            Err(Errno::LOOP) => {
                return Err(FsError::Symlinks {
                    path: self.named(path),
                });
            }
            Err(error) => return Err(FsError::io(self.named(path), error)),
        };
        let metadata = fd
            .metadata()
            .map_err(|error| FsError::io(self.named(path), error))?;
        if metadata.is_dir() {
            Ok(Some(HostNode::Directory(HostSubdir { fd })))
        } else if metadata.is_file() {
            Ok(Some(HostNode::File(fd)))
        } else {
            Err(FsError::NotAFile {
                path: self.named(path),
            })
        }
    }

    /// A path for errors.
    fn named(&self, path: &str) -> String {
        format!(
            "{}/{}",
            self.path.trim_end_matches('/'),
            path.trim_start_matches('/')
        )
    }
}

impl HostSubdir {
    /// The directory itself, for its metadata.
    pub fn file(&self) -> &File {
        &self.fd
    }

    /// All entries, "." and ".." among them, in the host's order.
    pub fn entries(&self) -> io::Result<Vec<HostEntry>> {
        let entry = |entry: rustix::io::Result<rustix::fs::DirEntry>| {
            let entry = entry?;
            Ok(HostEntry {
                inode: entry.ino(),
                kind: dirent_type(entry.file_type()),
                name: entry.file_name().to_bytes().to_vec(),
            })
        };
        // A descriptor of its own: the one here keeps its position.
        Dir::read_from(self.fd.as_fd())?.map(entry).collect()
    }
}

/// DT_* of dirent(5), the same numbers on FreeBSD and Linux.
fn dirent_type(kind: FileType) -> u8 {
    match kind {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        _ => 0,
    }
}

struct HostFile {
    file: File,
    size: u64,
    path: String,
}

impl FileSystem for HostDir {
    fn open(&self, path: &str) -> Result<Option<Box<dyn FileRead + '_>>, FsError> {
        let named = self.named(path);
        match self.node(path)? {
            None => Ok(None),
            Some(HostNode::Directory(_)) => Err(FsError::NotAFile { path: named }),
            Some(HostNode::File(file)) => {
                let metadata = file.metadata().map_err(|e| FsError::io(&named, e))?;
                Ok(Some(Box::new(HostFile {
                    file,
                    size: metadata.len(),
                    path: named,
                })))
            }
        }
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>, FsError> {
        let named = self.named(path);
        match self.node(path)? {
            None => Ok(None),
            Some(HostNode::File(_)) => Err(FsError::NotADirectory { path: named }),
            Some(HostNode::Directory(directory)) => {
                let entries = directory.entries().map_err(|e| FsError::io(named, e))?;
                Ok(Some(super::sorted_names(
                    entries.into_iter().map(|entry| entry.name),
                )))
            }
        }
    }
}

impl FileRead for HostFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset.saturating_add(done as u64);
            match self.file.read_at(&mut buf[done..], at) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FsError::io(&self.path, error)),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// DIR/secret, and DIR/root with what the tests read.
    fn tree() -> (tempfile::TempDir, HostDir) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("boot/kernel")).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("boot/kernel/kernel"), "kernel").unwrap();
        std::fs::write(root.join("boot/loader.conf"), "a=\"b\"\n").unwrap();
        let host = HostDir::open(root.to_str().unwrap()).unwrap();
        (dir, host)
    }

    #[test]
    fn files_are_read_and_directories_listed() {
        let (_dir, host) = tree();
        for path in [
            "/boot/kernel/kernel",
            "boot/kernel/kernel",
            "//boot/./kernel/../kernel/kernel",
        ] {
            assert_eq!(host.read(path, 6).unwrap().unwrap(), b"kernel", "{path}");
        }
        assert_eq!(
            host.list("/boot").unwrap().unwrap(),
            ["kernel", "loader.conf"]
        );
        assert_eq!(host.list("/").unwrap().unwrap(), ["boot"]);
        assert!(host.read("/boot/none", 9).unwrap().is_none());
        assert!(host.read("/boot/loader.conf/x", 9).unwrap().is_none());
        assert!(host.list("/none").unwrap().is_none());
        let mut file = host.open("/boot/kernel/kernel").unwrap().unwrap();
        let mut buf = [0; 4];
        assert_eq!(file.read_at(3, &mut buf).unwrap(), 3);
        assert_eq!(&buf[..3], b"nel");
    }

    #[test]
    fn what_is_no_file_or_too_large_is_named() {
        let (dir, host) = tree();
        let text = |result: Result<Option<Vec<u8>>, FsError>| result.unwrap_err().to_string();
        assert!(text(host.read("/boot", 9)).ends_with("root/boot is not a regular file"));
        assert!(text(host.read("/boot/kernel/kernel", 5)).contains("6 bytes, more than the 5"));
        let error = host.list("/boot/loader.conf").unwrap_err();
        assert!(error.to_string().ends_with("is not a directory"));
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            dir.path().join("root/fifo"),
            Mode::RUSR | Mode::WUSR,
        )
        .unwrap();
        assert!(text(host.read("/fifo", 9)).ends_with("/fifo is not a regular file"));
    }

    #[test]
    fn neither_dots_nor_links_lead_out() {
        let (dir, host) = tree();
        let root = dir.path().join("root");
        symlink("../secret", root.join("relative")).unwrap();
        symlink(dir.path().join("secret"), root.join("absolute")).unwrap();
        symlink("..", root.join("boot/up")).unwrap();
        symlink("../..", root.join("boot/out")).unwrap();
        symlink("boot/kernel/kernel", root.join("inside")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(host.read("/inside", 9).unwrap().unwrap(), b"kernel");
        assert_eq!(host.read("/boot/up/inside", 9).unwrap().unwrap(), b"kernel");
        for path in [
            "../secret",
            "/relative",
            "/absolute",
            "/boot/out/secret",
            "/boot/../../secret",
        ] {
            let error = host.read(path, 9).unwrap_err();
            assert!(matches!(error, FsError::Outside { .. }), "{path}: {error}");
        }
        assert!(matches!(
            host.list("/boot/out"),
            Err(FsError::Outside { .. })
        ));
        assert!(matches!(
            host.read("/loop", 9),
            Err(FsError::Symlinks { .. })
        ));
    }
}
