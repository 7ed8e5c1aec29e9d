//! The host's side of a disk: a raw image file or a disk device. What [`Disk::flush`] has
//! reported as done is on stable storage, whatever becomes of this process or the host.

#![forbid(unsafe_code)]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use vmmapi::GuestRange;

use super::options::{DiskOptions, MIN_SECTOR};
use crate::buffers::Buffers;
use crate::pci::Bdf;
use crate::platform::disk as host;

/// Why a disk can't be opened.
#[derive(Debug)]
pub enum OpenError {
    Io {
        path: PathBuf,
        error: io::Error,
    },
    NoDisk(PathBuf),
    Empty {
        path: PathBuf,
        sector: u32,
    },
    SectorSize {
        path: PathBuf,
        wanted: u32,
        is: u32,
    },
    /// Another device has that place among those to boot from.
    BootIndex {
        index: u64,
        by: Bdf,
    },
}

impl std::error::Error for OpenError {}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => {
                write!(f, "{}: {}", path.display(), cli::io_error(error))
            }
            Self::NoDisk(path) => {
                write!(f, "{} is neither a file nor a disk device", path.display())
            }
            Self::Empty { path, sector } => write!(
                f,
                "{} is smaller than one sector of {sector} bytes; give it a size, with \
                 truncate(1) for example",
                path.display()
            ),
            Self::SectorSize { path, wanted, is } => write!(
                f,
                "{} has sectors of {is} bytes: sectorsize={wanted} is no multiple of that",
                path.display()
            ),
            Self::BootIndex { index, by } => {
                write!(f, "bootindex={index} is that of the device in slot {by}")
            }
        }
    }
}

/// Which memory the host can do I/O with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pieces {
    Any,
    /// Past the cache: sectors only.
    Sectors,
    /// FreeBSD's disk devices want one piece of memory.
    One,
}

/// The alignment of bounce buffers: a page.
const BOUNCE_ALIGN: usize = 4096;
/// Their size.
const BOUNCE_LEN: usize = 1 << 20;

/// An open disk. Several threads use it at once.
#[derive(Debug)]
pub struct Disk {
    file: File,
    /// A device, and not a file.
    device: bool,
    pieces: Pieces,
    /// In bytes, a multiple of the sector size.
    size: u64,
    sector: u32,
    /// Of a physical sector, and where the first one begins; 0 if unknown.
    physical: u64,
    physical_offset: u64,
    read_only: bool,
    can_discard: bool,
    /// A flush has failed. What was not written then may never be, and the host reports
    /// that only once: nothing that is flushed later counts.
    flush_failed: AtomicBool,
}

impl Disk {
    /// Opens what the options name. A file that can't be written is opened read-only, as
    /// in bhyve(8).
    pub fn open(options: &DiskOptions) -> Result<Self, OpenError> {
        let path = || options.path.clone();
        let io = |error| OpenError::Io {
            path: path(),
            error,
        };
        let mut flags = 0;
        if options.no_cache {
            flags |= libc::O_DIRECT;
        }
        if options.sync {
            flags |= libc::O_SYNC;
        }
        let open = |write| {
            OpenOptions::new()
                .read(true)
                .write(write)
                .custom_flags(flags)
                .open(&options.path)
        };
        let (file, read_only) = match open(!options.read_only) {
            Ok(file) => (file, options.read_only),
            Err(error) if !options.read_only && is_write_protected(&error) => {
                (open(false).map_err(|_| io(error))?, true)
            }
            Err(error) => return Err(io(error)),
        };
        let metadata = file.metadata().map_err(io)?;
        let geometry = host::device_geometry(&file).map_err(io)?;
        let device = geometry.is_some();
        let geometry = match geometry {
            Some(geometry) => geometry,
            None if metadata.is_file() => host::Geometry {
                size: metadata.len(),
                sector: MIN_SECTOR,
                physical: metadata.blksize(),
                physical_offset: 0,
                can_delete: !read_only && host::can_deallocate(&file, metadata.len()),
            },
            None => return Err(OpenError::NoDisk(path())),
        };
        let (sector, physical, physical_offset) = match options.sector_size {
            None => (geometry.sector, geometry.physical, geometry.physical_offset),
            Some((sector, _)) if device && sector % geometry.sector != 0 => {
                return Err(OpenError::SectorSize {
                    path: path(),
                    wanted: sector,
                    is: geometry.sector,
                });
            }
            Some((sector, physical)) => (sector, u64::from(physical), 0),
        };
        let size = geometry.size - geometry.size % u64::from(sector);
        if size == 0 {
            return Err(OpenError::Empty {
                path: path(),
                sector,
            });
        }
        Ok(Self {
            pieces: match (device, options.no_cache) {
                (true, _) if host::DEVICES_WANT_ONE_PIECE => Pieces::One,
                (_, true) => Pieces::Sectors,
                (_, false) => Pieces::Any,
            },
            file,
            device,
            size,
            sector,
            physical,
            physical_offset,
            read_only,
            can_discard: geometry.can_delete && !read_only && !options.no_delete,
            flush_failed: AtomicBool::new(false),
        })
    }

    /// Bytes, a multiple of [`Disk::sector`].
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a logical sector.
    pub const fn sector(&self) -> u32 {
        self.sector
    }

    /// Bytes of a physical sector and where the first one begins; zeros if unknown.
    pub const fn physical(&self) -> (u64, u64) {
        (self.physical, self.physical_offset)
    }

    pub const fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether [`Disk::discard`] does something.
    pub const fn can_discard(&self) -> bool {
        self.can_discard
    }

    /// Whether what was discarded reads as zeros. A device of FreeBSD's doesn't promise that.
    pub const fn discards_to_zeros(&self) -> bool {
        self.can_discard && (!self.device || host::DEVICES_DELETE_TO_ZEROS)
    }

    /// Fills guest memory from `offset` on.
    pub fn read(&self, offset: u64, to: Buffers) -> io::Result<()> {
        let direct =
            |offset, ranges: &[GuestRange]| vmmapi::io::read_at(self.file.as_fd(), offset, ranges);
        self.transfer(offset, to, direct, |offset, part, bounce| {
            self.file.read_exact_at(bounce, offset)?;
            part.copy_to(bounce).map(drop).map_err(io::Error::other)
        })
    }

    /// Writes guest memory from `offset` on.
    pub fn write(&self, offset: u64, from: Buffers) -> io::Result<()> {
        let direct =
            |offset, ranges: &[GuestRange]| vmmapi::io::write_at(self.file.as_fd(), offset, ranges);
        self.transfer(offset, from, direct, |offset, part, bounce| {
            part.copy_from(bounce).map_err(io::Error::other)?;
            self.file.write_all_at(bounce, offset)
        })
    }

    /// Returns when all that was written before is on stable storage.
    pub fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        let result = if self.device {
            host::flush_device(&self.file)
        } else {
            self.file.sync_data()
        };
        if result.is_err() {
            self.flush_failed.store(true, Ordering::Relaxed);
        } else if self.flush_failed.load(Ordering::Relaxed) {
            return Err(io::Error::other(
                "an earlier flush has failed, so that older writes may be lost",
            ));
        }
        result
    }

    /// The bytes are not needed any more. What they read as then is anything.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        host::deallocate(&self.file, offset, len)
    }

    /// Makes the bytes read as zeros; `may_unmap` lets their space go.
    pub fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        let result = if may_unmap && self.discards_to_zeros() {
            host::deallocate(&self.file, offset, len)
        } else {
            host::zero_range(&self.file, offset, len)
        };
        match result {
            Err(error) if host::is_unsupported(&error) => each_part(len, |done, bounce| {
                self.file.write_all_at(bounce, offset + done)
            }),
            other => other,
        }
    }

    /// Moves all bytes: straight between file and guest memory where the host can do that,
    /// else through a buffer.
    fn transfer(
        &self,
        mut offset: u64,
        mut rest: Buffers,
        direct: impl Fn(u64, &[GuestRange]) -> io::Result<usize>,
        bounced: impl Fn(u64, &Buffers, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while !rest.is_empty() {
            if !self.takes(rest.ranges()) {
                return bounce(offset, rest, bounced);
            }
            match direct(offset, rest.ranges()) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(done) => {
                    offset += done as u64;
                    rest = match rest.split_at(done as u64) {
                        Some((_, rest)) => rest,
                        None => return Err(io::Error::other("more bytes than were asked for")),
                    };
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Sectors are larger than we thought.
                Err(error)
                    if self.pieces == Pieces::Sectors
                        && error.kind() == ErrorKind::InvalidInput =>
                {
                    return bounce(offset, rest, bounced);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn takes(&self, ranges: &[GuestRange]) -> bool {
        let aligned = |n: usize| n % MIN_SECTOR as usize == 0;
        match self.pieces {
            Pieces::Any => true,
            Pieces::Sectors => ranges
                .iter()
                .all(|range| aligned(range.as_ptr() as usize) && aligned(range.len())),
            Pieces::One => ranges.len() == 1,
        }
    }
}

fn is_write_protected(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
}

fn bounce(
    offset: u64,
    rest: Buffers,
    bounced: impl Fn(u64, &Buffers, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut rest = Some(rest);
    let len = rest.as_ref().map_or(0, Buffers::len);
    each_part(len, |done, buffer| {
        let (part, after) = rest
            .take()
            .and_then(|rest| rest.split_at(buffer.len() as u64))
            .ok_or(ErrorKind::UnexpectedEof)?;
        rest = Some(after);
        bounced(offset + done, &part, buffer)
    })
}

/// Calls `part` with how much is done already and an aligned buffer, zeroed at first, for
/// the next part of `len` bytes.
fn each_part(len: u64, mut part: impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> io::Result<()> {
    let most = usize::try_from(len).unwrap_or(BOUNCE_LEN).min(BOUNCE_LEN);
    let mut memory = vec![0; most + BOUNCE_ALIGN];
    let start = memory.as_ptr().align_offset(BOUNCE_ALIGN).min(BOUNCE_ALIGN);
    let mut done = 0;
    while done < len {
        let now = (len - done).min(most as u64) as usize;
        part(done, &mut memory[start..start + now])?;
        done += now as u64;
    }
    Ok(())
}
