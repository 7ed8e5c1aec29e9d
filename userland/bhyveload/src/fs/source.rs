//! Bytes that can be read at any offset: a disk image, a disk device, a part of one, memory.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::sync::Arc;

/// A disk, or a part of one.
pub trait Source: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// Fills `buf`. What lies beyond the end is an error ([`io::ErrorKind::UnexpectedEof`]).
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| beyond())?;
        let end = start.checked_add(buf.len()).ok_or_else(beyond)?;
        buf.copy_from_slice(self.get(start..end).ok_or_else(beyond)?);
        Ok(())
    }
}

fn beyond() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the disk")
}

/// Disk devices of FreeBSD read whole sectors only; no disk has larger ones.
const SECTOR: u64 = 4096;

/// A file or a disk device.
pub struct FileSource {
    file: File,
    size: u64,
    /// Reads must begin and end with a sector.
    sectors: bool,
}

impl FileSource {
    pub fn new(mut file: File) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        let device = kind.is_char_device() || kind.is_block_device();
        if !device && !kind.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a file nor a disk device",
            ));
        }
        // FreeBSD gives a disk's size here as well (vn_seek asks DIOCGMEDIASIZE).
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file,
            size,
            sectors: device,
        })
    }
}

impl Source for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = end_within(offset, buf, self.size)?;
        if !self.sectors || (offset % SECTOR == 0 && buf.len() as u64 % SECTOR == 0) {
            return self.file.read_exact_at(buf, offset);
        }
        let start = offset - offset % SECTOR;
        // The last sectors of a disk needn't be a multiple of 4096.
        let end = end.next_multiple_of(SECTOR).min(self.size);
        let mut sectors = vec![0; usize::try_from(end - start).map_err(|_| beyond())?];
        self.file.read_exact_at(&mut sectors, start)?;
        let skip = (offset - start) as usize;
        buf.copy_from_slice(&sectors[skip..skip + buf.len()]);
        Ok(())
    }
}

/// Where a read ends, if it does so within `size` bytes.
fn end_within(offset: u64, buf: &[u8], size: u64) -> io::Result<u64> {
    let end = offset.checked_add(buf.len() as u64).ok_or_else(beyond)?;
    if end > size { Err(beyond()) } else { Ok(end) }
}

/// A partition. It ends where the disk does if its table says otherwise.
#[derive(Clone)]
pub struct Part {
    disk: Arc<dyn Source>,
    start: u64,
    size: u64,
}

impl Part {
    pub fn new(disk: Arc<dyn Source>, start: u64, size: u64) -> Self {
        let size = size.min(disk.size().saturating_sub(start));
        Self { disk, start, size }
    }

    /// All of a disk.
    pub fn whole(disk: Arc<dyn Source>) -> Self {
        let size = disk.size();
        Self::new(disk, 0, size)
    }

    /// A part of this part.
    pub fn part(&self, start: u64, size: u64) -> Self {
        let start = start.min(self.size);
        let size = size.min(self.size - start);
        Self::new(Arc::clone(&self.disk), self.start + start, size)
    }

    /// Where it begins on the disk.
    pub fn start(&self) -> u64 {
        self.start
    }
}

impl Source for Part {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        end_within(offset, buf, self.size)?;
        let at = self.start.checked_add(offset).ok_or_else(beyond)?;
        self.disk.read_at(at, buf)
    }
}

/// The bytes at `offset`. `len` is what the caller asks for, never a number from the disk
/// that wasn't checked against a small limit.
pub fn bytes_at(source: &(impl Source + ?Sized), offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    source.read_at(offset, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unaligned_reads_of_a_device_are_made_of_whole_sectors() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..10_240_u32).map(|n| (n / 7) as u8).collect();
        io::Write::write_all(&mut file, &bytes).unwrap();
        let mut source = FileSource::new(file).unwrap();
        assert_eq!(source.size(), 10_240);
        for sectors in [false, true] {
            source.sectors = sectors;
            for (offset, len) in [
                (0, 10_240),
                (4096, 4096),
                (1, 5000),
                (10_239, 1),
                (512, 512),
            ] {
                let read = bytes_at(&source, offset as u64, len).unwrap();
                assert_eq!(read, bytes[offset..offset + len], "{offset}+{len}");
            }
            assert!(bytes_at(&source, 10_240, 1).is_err());
            assert!(bytes_at(&source, u64::MAX, 2).is_err());
        }
    }

    #[test]
    fn a_part_is_confined_to_its_bytes() {
        let disk: Arc<dyn Source> = Arc::new((0..100).collect::<Vec<u8>>());
        let part = Part::new(Arc::clone(&disk), 90, u64::MAX);
        assert_eq!(part.size(), 10);
        assert_eq!(bytes_at(&part, 8, 2).unwrap(), [98, 99]);
        assert!(bytes_at(&part, 9, 2).is_err());
        let inner = part.part(2, 3);
        assert_eq!((inner.start(), inner.size()), (92, 3));
        assert!(bytes_at(&inner, 3, 1).is_err());
        assert_eq!(Part::new(disk, 200, 5).size(), 0);
    }
}
