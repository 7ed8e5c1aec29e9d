//! ELF executables (System V ABI, chapters 4 and 5; 32- and 64-bit, x86): PT_LOAD segments
//! at their physical addresses, the entry point translated to a physical address, and the
//! notes (PT_NOTE) that say how else an image can be entered.

#![forbid(unsafe_code)]

use crate::image::{Image, ImageError, Reader, Segment};

pub const MAGIC: [u8; 4] = *b"\x7fELF";
pub const CLASS_32: u8 = 1;
pub const CLASS_64: u8 = 2;

const ET_EXEC: u16 = 2;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;

/// One program header, widened to 64 bits.
struct Phdr {
    kind: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    file_size: u64,
    mem_size: u64,
    align: u64,
}

/// What an executable holds, before anyone asks how it is entered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contents<'a> {
    pub segments: Vec<Segment<'a>>,
    /// The entry point as the header has it.
    entry: u64,
    /// The same as a physical address, if it lies in a segment.
    physical_entry: Option<u64>,
    interpreter: bool,
    /// The contents and alignment of each PT_NOTE.
    notes: Vec<(&'a [u8], u64)>,
}

/// CLASS_32 or CLASS_64 of something that begins like an ELF file.
pub fn class(file: &[u8]) -> Result<u8, ImageError> {
    if !file.starts_with(&MAGIC) {
        return Err(ImageError::NotElf);
    }
    let ident = Reader { bytes: file }.slice("the ELF identification", 0, 16)?;
    match ident[4] {
        class @ (CLASS_32 | CLASS_64) => Ok(class),
        class => Err(ImageError::ElfClass(class)),
    }
}

/// Takes apart an ELF executable that is entered at the header's entry point.
pub fn parse(file: &[u8]) -> Result<Image<'_>, ImageError> {
    let contents = read(file)?;
    if contents.interpreter {
        return Err(ImageError::ElfInterpreter);
    }
    if contents.segments.is_empty() {
        return Err(ImageError::NothingToLoad);
    }
    let entry = contents
        .physical_entry
        .ok_or(ImageError::EntryOutside(contents.entry))?;
    Ok(Image {
        segments: contents.segments,
        entry,
    })
}

/// Takes an ELF executable apart.
pub fn read(file: &[u8]) -> Result<Contents<'_>, ImageError> {
    let class = class(file)?;
    let reader = Reader { bytes: file };
    if file[5] != 1 {
        return Err(ImageError::ElfByteOrder(file[5]));
    }
    let header = "the ELF header";
    match reader.u16(header, 16)? {
        ET_EXEC => {}
        kind => return Err(ImageError::ElfType(kind)),
    }
    match (class, reader.u16(header, 18)?) {
        (CLASS_32, EM_386) | (CLASS_64, EM_X86_64) => {}
        // Multiboot kernels for long mode are often 64-bit code in a 32-bit container; the
        // container's machine is i386 then. The reverse does not exist.
        (class, machine) => return Err(ImageError::ElfMachine { class, machine }),
    }
    match reader.u32(header, 20)? {
        1 => {}
        version => return Err(ImageError::ElfVersion(version)),
    }
    let (entry, phoff, phentsize_at) = if class == CLASS_32 {
        (
            u64::from(reader.u32(header, 24)?),
            u64::from(reader.u32(header, 28)?),
            42,
        )
    } else {
        (reader.u64(header, 24)?, reader.u64(header, 32)?, 54)
    };
    let phentsize = reader.u16(header, phentsize_at)?;
    let phnum = reader.u16(header, phentsize_at + 2)?;
    if phnum != 0 && phentsize != if class == CLASS_32 { 32 } else { 56 } {
        return Err(ImageError::ElfProgramHeaderSize(phentsize));
    }
    let table = reader.slice(
        "the ELF program header table",
        phoff,
        u64::from(phentsize) * u64::from(phnum),
    )?;

    let mut contents = Contents {
        segments: Vec::new(),
        entry,
        physical_entry: None,
        interpreter: false,
        notes: Vec::new(),
    };
    for (index, bytes) in table
        .chunks_exact(usize::from(phentsize).max(1))
        .enumerate()
    {
        let phdr = program_header(class, Reader { bytes })?;
        match phdr.kind {
            PT_INTERP => contents.interpreter = true,
            PT_NOTE => {
                let notes = reader.slice("an ELF note segment", phdr.offset, phdr.file_size)?;
                contents.notes.push((notes, phdr.align));
            }
            _ => {}
        }
        if phdr.kind != PT_LOAD || phdr.mem_size == 0 {
            continue;
        }
        let Phdr {
            vaddr,
            paddr: gpa,
            file_size,
            mem_size,
            ..
        } = phdr;
        if file_size > mem_size {
            return Err(ImageError::SegmentSizes {
                index,
                file_size,
                mem_size,
            });
        }
        if gpa.checked_add(mem_size).is_none() || vaddr.checked_add(mem_size).is_none() {
            return Err(ImageError::SegmentWraps {
                index,
                gpa,
                mem_size,
            });
        }
        // A segment of zeros only may point behind the end of the file.
        let offset = if file_size == 0 { 0 } else { phdr.offset };
        let data = reader.slice("an ELF segment", offset, file_size)?;
        if (vaddr..vaddr + mem_size).contains(&entry) {
            contents.physical_entry.get_or_insert(gpa + (entry - vaddr));
        }
        contents.segments.push(Segment {
            gpa,
            data,
            mem_size,
        });
    }
    Ok(contents)
}

impl<'a> Contents<'a> {
    /// The descriptor of the first note with that name and type. Notes that are malformed
    /// end the search in their segment.
    pub fn note(&self, name: &[u8], kind: u32) -> Option<&'a [u8]> {
        self.notes
            .iter()
            .find_map(|(notes, align)| find_note(notes, *align, name, kind))
    }
}

/// System V ABI, chapter 5, "Note Section": sizes of name and descriptor, type, and then
/// both, each padded to 4 bytes (to 8 in segments that say so).
fn find_note<'a>(notes: &'a [u8], align: u64, name: &[u8], kind: u32) -> Option<&'a [u8]> {
    let reader = Reader { bytes: notes };
    let align = if align == 8 { 8 } else { 4 };
    let mut at = 0_u64;
    loop {
        let word = |n: u64| reader.u32("a note", at + 4 * n).ok();
        let (name_len, desc_len, note_kind) = (word(0)?, word(1)?, word(2)?);
        let name_at = at + 12;
        let desc_at = (name_at + u64::from(name_len)).next_multiple_of(align);
        let note_name = reader.slice("a note's name", name_at, name_len.into());
        let desc = reader.slice("a note", desc_at, desc_len.into()).ok()?;
        if note_kind == kind && note_name == Ok(name) {
            return Some(desc);
        }
        at = (desc_at + u64::from(desc_len)).next_multiple_of(align);
    }
}

fn program_header(class: u8, reader: Reader<'_>) -> Result<Phdr, ImageError> {
    let what = "an ELF program header";
    let word = |offset| Ok(u64::from(reader.u32(what, offset)?));
    let kind = reader.u32(what, 0)?;
    Ok(if class == CLASS_32 {
        Phdr {
            kind,
            offset: word(4)?,
            vaddr: word(8)?,
            paddr: word(12)?,
            file_size: word(16)?,
            mem_size: word(20)?,
            align: word(28)?,
        }
    } else {
        Phdr {
            kind,
            offset: reader.u64(what, 8)?,
            vaddr: reader.u64(what, 16)?,
            paddr: reader.u64(what, 24)?,
            file_size: reader.u64(what, 32)?,
            mem_size: reader.u64(what, 40)?,
            align: reader.u64(what, 48)?,
        }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A 64-bit executable with the given (vaddr, paddr, data, mem_size) segments.
    pub fn elf64(entry: u64, segments: &[(u64, u64, &[u8], u64)]) -> Vec<u8> {
        let mut file = Vec::from(MAGIC);
        file.extend([CLASS_64, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        file.extend(ET_EXEC.to_le_bytes());
        file.extend(EM_X86_64.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(entry.to_le_bytes());
        file.extend(64u64.to_le_bytes()); // e_phoff
        file.extend(0u64.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 56, segments.len() as u16, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut data_at = 64 + 56 * segments.len() as u64;
        for (vaddr, paddr, data, mem_size) in segments {
            file.extend(PT_LOAD.to_le_bytes());
            file.extend(7u32.to_le_bytes());
            for word in [data_at, *vaddr, *paddr, data.len() as u64, *mem_size, 1] {
                file.extend(word.to_le_bytes());
            }
            data_at += data.len() as u64;
        }
        for (_, _, data, _) in segments {
            file.extend(*data);
        }
        file
    }

    /// A 32-bit executable with one segment whose addresses are physical.
    pub fn elf32(entry: u32, paddr: u32, data: &[u8], mem_size: u32) -> Vec<u8> {
        let mut file = Vec::from(MAGIC);
        file.extend([CLASS_32, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        file.extend(ET_EXEC.to_le_bytes());
        file.extend(EM_386.to_le_bytes());
        for word in [1, entry, 52, 0, 0] {
            file.extend(word.to_le_bytes());
        }
        for half in [52u16, 32, 1, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        for word in [PT_LOAD, 84, paddr, paddr, data.len() as u32, mem_size, 7, 1] {
            file.extend(word.to_le_bytes());
        }
        file.extend(data);
        file
    }

    #[test]
    fn segments_are_placed_physically_and_the_entry_is_translated() {
        let high = 0xffff_ffff_8010_0000;
        let file = elf64(
            high + 2,
            &[(high, 0x10_0000, b"code", 0x1000), (0, 0x20_0000, b"", 8)],
        );
        let image = parse(&file).unwrap();
        assert_eq!(image.entry, 0x10_0002);
        assert_eq!(
            image.segments,
            [
                Segment {
                    gpa: 0x10_0000,
                    data: b"code",
                    mem_size: 0x1000
                },
                Segment {
                    gpa: 0x20_0000,
                    data: b"",
                    mem_size: 8
                }
            ]
        );
        assert_eq!(image.end(), 0x20_0008);
    }

    #[test]
    fn thirty_two_bit_files_are_read_too() {
        let file = elf32(0x10_0004, 0x10_0000, b"codecode", 16);
        let image = parse(&file).unwrap();
        assert_eq!(image.entry, 0x10_0004);
        assert_eq!(image.segments[0].data, b"codecode");
    }

    #[test]
    fn malformed_files_are_named() {
        let good = elf64(0x10_0000, &[(0x10_0000, 0x10_0000, b"code", 16)]);
        let with = |at: usize, bytes: &[u8]| {
            let mut file = good.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            parse(&file).map(|image| image.entry).unwrap_err()
        };
        assert_eq!(with(0, b"MZ"), ImageError::NotElf);
        assert_eq!(with(4, &[3]), ImageError::ElfClass(3));
        assert_eq!(with(5, &[2]), ImageError::ElfByteOrder(2));
        assert_eq!(with(16, &[3]), ImageError::ElfType(3));
        assert_eq!(
            with(18, &[183]),
            ImageError::ElfMachine {
                class: 2,
                machine: 183
            }
        );
        assert_eq!(with(54, &[55]), ImageError::ElfProgramHeaderSize(55));
        assert!(matches!(
            with(56, &[0xff, 0xff]),
            ImageError::Truncated { .. }
        ));
        assert!(matches!(with(32, &[0xff; 8]), ImageError::Truncated { .. }));
        assert_eq!(with(64, &[2]), ImageError::NothingToLoad);
        assert_eq!(with(64, &[3]), ImageError::ElfInterpreter);
        assert!(matches!(with(72, &[0xff; 8]), ImageError::Truncated { .. }));
        assert!(matches!(
            with(64 + 32, &[17]),
            ImageError::SegmentSizes { index: 0, .. }
        ));
        assert!(matches!(
            with(64 + 40, &[0xff; 8]),
            ImageError::SegmentWraps { index: 0, .. }
        ));
        assert_eq!(with(24, &[0x10]), ImageError::EntryOutside(0x10_0010));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let good = elf64(0x10_0000, &[(0x10_0000, 0x10_0000, b"code", 16)]);
        for len in 0..good.len() {
            assert!(parse(&good[..len]).is_err(), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(
            changes in proptest::collection::vec((0usize..128, any::<u8>()), 1..8),
            cut in 0usize..160,
        ) {
            let mut file = elf64(0x10_0000, &[(0x10_0000, 0x10_0000, b"code", 16)]);
            for (at, byte) in changes {
                if let Some(place) = file.get_mut(at) {
                    *place = byte;
                }
            }
            file.truncate(cut);
            if let Ok(image) = parse(&file) {
                for segment in &image.segments {
                    prop_assert!(segment.data.len() as u64 <= segment.mem_size);
                    prop_assert!(segment.gpa.checked_add(segment.mem_size).is_some());
                }
            }
        }
    }
}
