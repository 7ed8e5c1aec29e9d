//! Flat binaries: the file's bytes as they are, started in real mode.

#![forbid(unsafe_code)]

use crate::image::{Image, ImageError, Segment};

/// Where the BIOS would put a boot sector.
pub const DEFAULT_LOAD_ADDRESS: u64 = 0x7c00;
/// Real mode starts below 1 MiB.
pub const ENTRY_LIMIT: u64 = 1 << 20;

/// The whole file at `load_address`, started at `entry` (default: its first byte).
pub fn parse(file: &[u8], load_address: u64, entry: Option<u64>) -> Result<Image<'_>, ImageError> {
    if file.is_empty() {
        return Err(ImageError::Empty);
    }
    let entry = entry.unwrap_or(load_address);
    if entry >= ENTRY_LIMIT {
        return Err(ImageError::EntryUnreachable {
            entry,
            limit: ENTRY_LIMIT,
        });
    }
    if !load_address
        .checked_add(file.len() as u64)
        .is_some_and(|end| (load_address..end).contains(&entry))
    {
        return Err(ImageError::EntryOutside(entry));
    }
    let segment = Segment {
        gpa: load_address,
        data: file,
        mem_size: file.len() as u64,
    };
    Ok(Image {
        segments: vec![segment],
        entry,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_file_is_loaded_where_told() {
        let image = parse(b"\xf4\x90", 0x7c00, None).unwrap();
        assert_eq!(image.entry, 0x7c00);
        assert_eq!(
            image.segments,
            [Segment {
                gpa: 0x7c00,
                data: b"\xf4\x90",
                mem_size: 2
            }]
        );
        assert_eq!(
            parse(b"\xf4\x90", 0x1_0000, Some(0x1_0001)).unwrap().entry,
            0x1_0001
        );
    }

    #[test]
    fn entries_out_of_reach_are_refused() {
        assert_eq!(parse(b"", 0x7c00, None), Err(ImageError::Empty));
        assert_eq!(
            parse(b"x", 0x7c00, Some(0x7c01)),
            Err(ImageError::EntryOutside(0x7c01))
        );
        assert_eq!(
            parse(b"x", u64::MAX, Some(0)),
            Err(ImageError::EntryOutside(0))
        );
        let error = parse(b"x", 1 << 20, None).unwrap_err();
        assert_eq!(
            error,
            ImageError::EntryUnreachable {
                entry: 1 << 20,
                limit: 1 << 20
            }
        );
    }
}
