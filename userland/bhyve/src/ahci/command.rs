//! A command as the driver puts it into guest memory (AHCI 1.3.1, 4.2.2 and 4.2.3): its
//! header in the command list, its table with the FIS, the packet of an ATAPI command, and
//! the PRDT, which says where its data is. Each is read once.

#![forbid(unsafe_code)]

use vmmapi::{Gpa, GuestMemory};

use super::fis::{COMMAND_LEN, FromHost};
use crate::buffers::Buffers;

/// Bytes of the command list's headers, of which there are 32.
const HEADER_LEN: u64 = 32;
/// The header's transferred byte count.
const PRDBC: u64 = 4;
/// Command tables lie on such a boundary.
const TABLE_ALIGN: u64 = 128;
/// Offsets in a command table.
const PACKET: u64 = 0x40;
const PRDT: u64 = 0x80;
/// Bytes of an entry of the PRDT, and the bits of its length less one.
const ENTRY_LEN: usize = 16;
const BYTE_COUNT: u32 = 0x3f_ffff;

/// Bytes of an ATAPI command.
pub const PACKET_LEN: usize = 16;

/// An address where there is no memory, or only a part of what should be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory(pub Gpa);

/// A command that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Issued {
    pub slot: u8,
    pub fis: FromHost,
    pub packet: [u8; PACKET_LEN],
    header: Gpa,
    table: Gpa,
    entries: u16,
}

impl Issued {
    /// From a slot of the command list at `list`.
    pub fn read(memory: &GuestMemory, list: Gpa, slot: u8) -> Result<Self, NoMemory> {
        let header = at(list, u64::from(slot) * HEADER_LEN)?;
        let mut bytes = [0; 16];
        copy(memory, header, &mut bytes)?;
        let [_, _, e0, e1, _, _, _, _, t0, t1, t2, t3, t4, t5, t6, t7] = bytes;
        let table = u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        let table = Gpa(table - table % TABLE_ALIGN);
        let (mut fis, mut packet) = ([0; COMMAND_LEN], [0; PACKET_LEN]);
        copy(memory, table, &mut fis)?;
        copy(memory, at(table, PACKET)?, &mut packet)?;
        Ok(Self {
            slot,
            fis: FromHost::parse(fis),
            packet,
            header,
            table,
            entries: u16::from_le_bytes([e0, e1]),
        })
    }

    /// The first `len` bytes of what the PRDT describes, or all of it if that is less.
    pub fn data(&self, memory: &GuestMemory, len: u64) -> Result<Buffers, NoMemory> {
        let mut buffers = Buffers::default();
        let mut left = len;
        let mut entry = at(self.table, PRDT)?;
        for _ in 0..self.entries {
            if left == 0 {
                break;
            }
            let mut bytes = [0; ENTRY_LEN];
            copy(memory, entry, &mut bytes)?;
            let [a0, a1, a2, a3, a4, a5, a6, a7, _, _, _, _, n0, n1, n2, n3] = bytes;
            let gpa = Gpa(u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]));
            let count = u32::from_le_bytes([n0, n1, n2, n3]) & BYTE_COUNT;
            let now = left.min(u64::from(count) + 1);
            // At most 4 MiB.
            let range = memory.slice(gpa, now as usize);
            buffers.push(range.map_err(|_| NoMemory(gpa))?);
            left -= now;
            entry = at(entry, ENTRY_LEN as u64)?;
        }
        Ok(buffers)
    }

    /// Tells the driver how many bytes were transferred.
    pub fn set_transferred(&self, memory: &GuestMemory, bytes: u32) {
        if let Ok(field) = at(self.header, PRDBC) {
            // The header was read from there.
            let _ = memory.write(field, bytes);
        }
    }
}

fn at(base: Gpa, offset: u64) -> Result<Gpa, NoMemory> {
    base.checked_add(offset).ok_or(NoMemory(base))
}

fn copy(memory: &GuestMemory, gpa: Gpa, to: &mut [u8]) -> Result<(), NoMemory> {
    memory.copy_from(gpa, to).map_err(|_| NoMemory(gpa))
}
