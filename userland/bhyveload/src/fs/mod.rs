//! Read-only file systems to load a FreeBSD kernel from: a directory of the host ([`host`]),
//! or a disk or disk image. What is read may be anybody's: every offset and length is
//! checked, every walk is bounded, and an error names the file, partition or disk it is about.
//!
//! Paths are text with `/` between names and begin at the file system's root, with or
//! without a leading `/`.

#![forbid(unsafe_code)]

mod bytes;
pub mod disk;
pub mod error;
pub mod gzip;
pub mod host;
pub mod iso;
pub mod partition;
pub mod path;
mod signature;
pub mod source;
#[cfg(test)]
mod testing;
pub mod ufs;

pub use disk::{Disk, Format, Volume, open_disk, open_source};
pub use error::FsError;
pub use host::HostDir;
pub use source::Source;

/// A tree of files to load from. Symbolic links are followed, a bounded number of them.
pub trait FileSystem {
    /// Opens a regular file; `None` if there is nothing of that name. Anything else of that
    /// name is an error.
    fn open(&self, path: &str) -> Result<Option<Box<dyn FileRead + '_>>, FsError>;

    /// The names in a directory, sorted, without "." and ".."; `None` if there is nothing of
    /// that name. Names that are not UTF-8 are left out.
    fn list(&self, path: &str) -> Result<Option<Vec<String>>, FsError>;

    /// A whole file; `None` if there is nothing of that name. A file of more than `limit`
    /// bytes is an error.
    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, FsError> {
        match self.open(path)? {
            Some(mut file) => read_all(file.as_mut(), path, limit).map(Some),
            None => Ok(None),
        }
    }
}

/// An open file.
pub trait FileRead {
    fn size(&self) -> u64;

    /// Fills `buf` from the file's bytes at `offset` on; returns how many there are, fewer
    /// than asked for only at the file's end.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, FsError>;
}

/// How much of a file is read at once: sizes come from the disk, memory is only taken for
/// bytes that are there.
const CHUNK: usize = 1 << 20;

fn read_all(file: &mut dyn FileRead, path: &str, limit: u64) -> Result<Vec<u8>, FsError> {
    let too_large = || FsError::TooLarge {
        path: path.to_owned(),
        size: file.size(),
        limit,
    };
    let size = usize::try_from(file.size()).map_err(|_| too_large())?;
    if file.size() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while bytes.len() < size {
        let at = bytes.len();
        let len = CHUNK.min(size - at);
        bytes.resize(at + len, 0);
        let read = file.read_at(at as u64, &mut bytes[at..])?;
        if read < len {
            // A file of the host that became shorter.
            bytes.truncate(at + read);
            break;
        }
    }
    Ok(bytes)
}

/// A directory's names as [`FileSystem::list`] gives them.
fn sorted_names(names: impl Iterator<Item = Vec<u8>>) -> Vec<String> {
    let mut names: Vec<String> = names
        .filter(|name| name != b"." && name != b"..")
        .filter_map(|name| String::from_utf8(name).ok())
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests;
