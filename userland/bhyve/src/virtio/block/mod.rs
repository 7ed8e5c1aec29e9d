//! virtio-blk (virtio 1.2, 5.2): a [`Disk`] of the host, the [`config`] that tells drivers about it, and here the requests.

#![forbid(unsafe_code)]

pub mod config;

use std::fmt;
use std::io;
use std::sync::Arc;

use config::{CONFIG_LEN, MAX_RANGE_SECTORS, MAX_RANGES, SECTOR};

use super::chain::{Buffers, Chain, ChainError};
use super::device::{Identity, VirtioDevice};
use super::function::VirtioFunction;
use crate::block::options::text_field;
use crate::block::{self, Disk, DiskOptions, HostErrors, default_serial};
use crate::config::View;
use crate::pci::{DeviceContext, DeviceError, PciDevice};
use crate::platform::disk::is_unsupported;

/// Feature bits (5.2.3).
pub mod feature {
    pub const SEG_MAX: u64 = 1 << 2;
    pub const GEOMETRY: u64 = 1 << 4;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Types of requests (5.2.6).
mod request {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    /// A second number that flushes had before virtio 1.0.
    pub(super) const FLUSH_OUT: u32 = 5;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
    /// Drivers of before virtio 1.0 may set it with any type.
    pub(super) const BARRIER: u32 = 1 << 31;
}

/// Flag of a range to write zeroes to.
const RANGE_UNMAP: u32 = 1;

/// Bytes of a request's header: type, reserved, sector.
const HEADER_LEN: u64 = 16;
/// Bytes of a range of a discard or write-zeroes request: sector, sectors, flags.
const RANGE: usize = 16;

/// As in bhyve(8).
pub const QUEUE_SIZE: u16 = 128;
const THREADS: usize = 8;

/// The longest serial: what GET_ID has room for.
const MAX_SERIAL: usize = 20;

/// The device.
pub struct Block {
    disk: Disk,
    config: [u8; CONFIG_LEN],
    serial: [u8; MAX_SERIAL],
    errors: HostErrors,
}

/// How a request ends (5.2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// How a request fails.
enum Failure {
    /// The driver asks for what can't be.
    Invalid,
    Unsupported,
    /// The host can't do it.
    Host(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if is_unsupported(&error) {
            Self::Unsupported
        } else {
            Self::Host(error)
        }
    }
}

/// How a request begins.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u32,
    /// Of reads and writes.
    sector: u64,
}

impl Header {
    /// The guest's bytes, if these are all.
    fn read(buffers: &Buffers) -> Option<Self> {
        let mut bytes = [0; HEADER_LEN as usize];
        if buffers.copy_from(&mut bytes).ok()? < bytes.len() {
            return None;
        }
        let [t0, t1, t2, t3, _, _, _, _, s0, s1, s2, s3, s4, s5, s6, s7] = bytes;
        Some(Self {
            kind: u32::from_le_bytes([t0, t1, t2, t3]) & !request::BARRIER,
            sector: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        })
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            request::IN => write!(f, "a read at sector {}", self.sector),
            request::OUT => write!(f, "a write at sector {}", self.sector),
            request::FLUSH | request::FLUSH_OUT => f.write_str("a flush"),
            request::DISCARD => f.write_str("a discard"),
            request::WRITE_ZEROES => f.write_str("writing zeroes"),
            kind => write!(f, "a request of type {kind}"),
        }
    }
}

/// What a request carries besides header and status.
struct Data {
    /// For the device to read.
    out: Buffers,
    /// For the device to write.
    into: Buffers,
}

impl Block {
    /// From its node of the configuration.
    pub fn open(config: &View<'_>, context: &DeviceContext) -> Result<Self, DeviceError> {
        let options = DiskOptions::read(config)?;
        let disk = block::open(&options, &context.name, context)?;
        // Both names are read, whichever is set.
        let [long, short] = ["serial", "ser"].map(|it| text_field(config, it, MAX_SERIAL));
        let text = long.or(short);
        let text = text.unwrap_or_else(|| default_serial(&options.path.to_string_lossy()).into());
        let mut serial = [0; MAX_SERIAL];
        serial
            .iter_mut()
            .zip(text)
            .for_each(|(to, byte)| *to = byte);
        Ok(Self {
            config: config::config(&disk),
            disk,
            serial,
            errors: HostErrors::new(&context.name),
        })
    }

    /// Does it, and says how many bytes were written to `data.into`.
    fn perform(&self, header: Header, data: Data, features: u64) -> Result<u64, Failure> {
        let sector = header.sector;
        match header.kind {
            request::IN => {
                let len = data.into.len();
                let offset = self.range(sector, len)?;
                no_data(&data.out)?;
                self.disk.read(offset, data.into)?;
                Ok(len)
            }
            request::OUT => {
                self.writable()?;
                let offset = self.range(sector, data.out.len())?;
                no_data(&data.into)?;
                self.disk.write(offset, data.out)?;
                if features & feature::FLUSH == 0 {
                    // Such a driver takes what is written for safe (5.2.6.2).
                    self.disk.flush()?;
                }
                Ok(0)
            }
            request::FLUSH | request::FLUSH_OUT => {
                self.disk.flush()?;
                Ok(0)
            }
            request::GET_ID => {
                no_data(&data.out)?;
                let written = data.into.copy_to(&self.serial).map_err(io::Error::other)?;
                Ok(written as u64)
            }
            request::DISCARD if self.features() & feature::DISCARD != 0 => {
                for range in self.ranges(&data, 0)? {
                    self.disk.discard(range.offset, range.len)?;
                }
                Ok(0)
            }
            request::WRITE_ZEROES if self.features() & feature::WRITE_ZEROES != 0 => {
                for range in self.ranges(&data, RANGE_UNMAP)? {
                    let unmap = range.flags & RANGE_UNMAP != 0;
                    self.disk.write_zeroes(range.offset, range.len, unmap)?;
                }
                if features & feature::FLUSH == 0 {
                    self.disk.flush()?;
                }
                Ok(0)
            }
            _ => Err(Failure::Unsupported),
        }
    }

    /// Where `len` bytes from a sector on are, if the disk has them all.
    fn range(&self, sector: u64, len: u64) -> Result<u64, Failure> {
        let offset = sector.checked_mul(SECTOR).ok_or(Failure::Invalid)?;
        let end = offset.checked_add(len).ok_or(Failure::Invalid)?;
        if len % SECTOR != 0 || end > self.disk.size() {
            return Err(Failure::Invalid);
        }
        Ok(offset)
    }

    fn writable(&self) -> Result<(), Failure> {
        if self.disk.read_only() {
            Err(Failure::Invalid)
        } else {
            Ok(())
        }
    }

    /// The ranges of a discard or write-zeroes request, all of them checked.
    fn ranges(&self, data: &Data, known_flags: u32) -> Result<Vec<Range>, Failure> {
        self.writable()?;
        no_data(&data.into)?;
        let len = data.out.len();
        if len == 0 || len % RANGE as u64 != 0 || len > (RANGE * MAX_RANGES as usize) as u64 {
            return Err(Failure::Invalid);
        }
        let mut bytes = vec![0; len as usize];
        data.out.copy_from(&mut bytes).map_err(io::Error::other)?;
        bytes
            .chunks_exact(RANGE)
            .map(|bytes| self.checked_range(bytes, known_flags))
            .collect()
    }

    fn checked_range(&self, bytes: &[u8], known_flags: u32) -> Result<Range, Failure> {
        let Ok(bytes) = <[u8; RANGE]>::try_from(bytes) else {
            return Err(Failure::Invalid);
        };
        let [
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            s6,
            s7,
            n0,
            n1,
            n2,
            n3,
            f0,
            f1,
            f2,
            f3,
        ] = bytes;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        if flags & !known_flags != 0 {
            return Err(Failure::Unsupported);
        }
        if sectors == 0 || sectors > MAX_RANGE_SECTORS {
            return Err(Failure::Invalid);
        }
        let len = u64::from(sectors) * SECTOR;
        Ok(Range {
            offset: self.range(sector, len)?,
            len,
            flags,
        })
    }

    fn status_of(&self, header: Header, failure: &Failure) -> Status {
        match failure {
            Failure::Invalid => Status::IoError,
            Failure::Unsupported => Status::Unsupported,
            Failure::Host(error) => {
                self.errors.tell(header, error);
                Status::IoError
            }
        }
    }
}

/// A checked range of bytes.
struct Range {
    offset: u64,
    len: u64,
    flags: u32,
}

fn no_data(buffers: &Buffers) -> Result<(), Failure> {
    if buffers.is_empty() {
        Ok(())
    } else {
        Err(Failure::Invalid)
    }
}

impl VirtioDevice for Block {
    fn identity(&self) -> Identity {
        Identity {
            device_type: 2,
            pci_device: 0x1001,
            // Mass storage, SCSI as bhyve(8) has it.
            class: 1,
            subclass: 0,
        }
    }

    fn features(&self) -> u64 {
        let mut features = feature::SEG_MAX
            | feature::GEOMETRY
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::TOPOLOGY;
        if self.disk.read_only() {
            features |= feature::RO;
        } else {
            features |= feature::WRITE_ZEROES;
        }
        if self.disk.can_discard() {
            features |= feature::DISCARD;
        }
        features
    }

    fn queues(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> Vec<u8> {
        self.config.to_vec()
    }

    fn threads(&self) -> usize {
        THREADS
    }

    fn handle(&self, _queue: usize, chain: Chain, features: u64) -> Result<u32, ChainError> {
        // The status is the last byte that the device may write.
        let before = chain.writable.len().checked_sub(1);
        let split = before.and_then(|len| chain.writable.split_at(len));
        let Some((into, status)) = split else {
            return Err(ChainError::Shape(
                "a disk request without room for its status",
            ));
        };
        let begin = chain.readable.split_at(HEADER_LEN);
        let request = begin.and_then(|(header, out)| Some((Header::read(&header)?, out)));
        let (code, written) = match request {
            None => (Status::IoError, 0),
            Some((header, out)) => match self.perform(header, Data { out, into }, features) {
                Ok(written) => (Status::Ok, written),
                Err(failure) => (self.status_of(header, &failure), 0),
            },
        };
        // Memory that was there when the chain was read stays.
        let _ = status.copy_to(&[code as u8]);
        Ok(u32::try_from(written + 1).unwrap_or(u32::MAX))
    }
}

/// `virtio-blk,path[,option…]`.
pub fn virtio_blk(
    config: &View<'_>,
    context: DeviceContext,
) -> Result<Arc<dyn PciDevice>, DeviceError> {
    let block = Block::open(config, &context)?;
    let threads = format!("blk-{}:{}", context.at.slot, context.at.function);
    Ok(VirtioFunction::new(Box::new(block), context, &threads)?)
}

#[cfg(test)]
mod tests;
