//! The guest programs as files: 64-bit ELF at fixed physical addresses.

use std::fs;
use std::path::Path;

/// A program ready to be copied into memory.
pub struct Program {
    pub entry: u64,
    /// Physical address and bytes of each segment; what follows them in memory is zero.
    pub segments: Vec<(u64, Vec<u8>)>,
}

const PT_LOAD: u32 = 1;

pub fn read(path: &Path) -> Result<Program, String> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&bytes).ok_or_else(|| format!("{}: not a program of tests/guests", path.display()))
}

/// ELF header and program headers, as in the System V ABI, chapters 4 and 5.
fn parse(bytes: &[u8]) -> Option<Program> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = word(bytes, 32)?;
    let (size, count) = (half(bytes, 54)?, half(bytes, 56)?);
    let mut segments = Vec::new();
    for number in 0..count {
        let header = table.checked_add(number * size)?;
        let at = |offset| word(bytes, header.checked_add(offset)?);
        if at(0)? as u32 != PT_LOAD {
            continue;
        }
        let (offset, address, length) = (at(8)?, at(24)?, at(32)?);
        let end = offset.checked_add(length)?;
        let content = bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)?;
        segments.push((address, content.to_vec()));
    }
    Some(Program {
        entry: word(bytes, 24)?,
        segments,
    })
}

fn word(bytes: &[u8], offset: u64) -> Option<u64> {
    let start = usize::try_from(offset).ok()?;
    let field = bytes.get(start..start.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

fn half(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..offset + 2)?;
    Some(u64::from(u16::from_le_bytes(field.try_into().ok()?)))
}
