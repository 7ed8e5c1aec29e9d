//! ELF files of FreeBSD/amd64 in memory as loader(8) puts them there: kernels (ET_EXEC) at
//! their physical addresses and modules linked as shared objects (ET_DYN) where there is
//! room (stand/common/load_elf.c), each with its symbol table behind it; modules that are
//! relocatable objects are [`object`](super::object)'s.

#![forbid(unsafe_code)]

use std::fmt;

use ::object::LittleEndian;
use ::object::elf::{
    ELFOSABI_FREEBSD, EM_X86_64, ET_DYN, ET_EXEC, ET_REL, FileHeader64, PT_DYNAMIC, PT_INTERP,
    PT_LOAD, ProgramHeader64, SHT_STRTAB, SHT_SYMTAB, SectionHeader64,
};
use ::object::pod::bytes_of;
use ::object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

use super::modmetadata;
use super::preload::{KERNEL_TYPE, MODULE_TYPE, Preloaded, metadata};
use crate::plan::Piece;

pub(super) const LE: LittleEndian = LittleEndian;
pub(super) type Header = FileHeader64<LittleEndian>;
pub(super) type Section = SectionHeader64<LittleEndian>;
type Segment = ProgramHeader64<LittleEndian>;

/// Where a kernel's virtual addresses begin (KERNBASE).
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// A kernel's virtual addresses become physical ones without these bits.
const PHYSICAL_MASK: u64 = 0x00ff_ffff;
/// What the kernel's linker script names as the interpreter, so that exec(2) refuses it.
const KERNEL_INTERPRETER: &[u8] = b"/red/herring";

/// Why a file is no kernel or module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ElfError {
    NotElf,
    /// Not 64-bit, little-endian, x86-64.
    NotAmd64,
    /// It is something else: what.
    Kind(&'static str),
    /// Part of it lies outside the file, or contradicts another part: what.
    Damaged(&'static str),
    /// It needs memory from and up to here, and there is less.
    NoRoom {
        start: u64,
        end: u64,
        limit: u64,
    },
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => f.write_str("not an ELF file"),
            Self::NotAmd64 => f.write_str("not an ELF file for amd64 (64-bit, x86-64)"),
            Self::Kind(what) => f.write_str(what),
            Self::Damaged(what) => write!(f, "truncated or damaged: {what}"),
            Self::NoRoom { start, end, limit } => write!(
                f,
                "no room: it takes {start:#x} to {end:#x}, and what is loaded has to lie below \
                 {limit:#x} (the guest's memory, 1 GiB at most)"
            ),
        }
    }
}

/// What an ELF file is to a FreeBSD loader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Kernel,
    Shared,
    Object,
}

/// Whether this is a FreeBSD/amd64 kernel, and not another ELF file that is executed.
pub fn is_kernel(file: &[u8]) -> bool {
    let Ok((Kind::Kernel, header)) = kind(file) else {
        return false;
    };
    let Ok(segments) = header.program_headers(LE, file) else {
        return false;
    };
    let interpreter = segments.iter().find(|s| s.p_type(LE) == PT_INTERP);
    let named = |s: &Segment| {
        let text = s.data(LE, file).unwrap_or_default();
        text.strip_suffix(b"\0") == Some(KERNEL_INTERPRETER)
    };
    header.e_entry.get(LE) >= KERNEL_BASE
        && (header.e_ident.os_abi == ELFOSABI_FREEBSD || interpreter.is_some_and(named))
}

/// The header and what the file is.
pub fn kind(file: &[u8]) -> Result<(Kind, &Header), ElfError> {
    if !file.starts_with(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    let header = Header::parse(file).map_err(|_| ElfError::NotAmd64)?;
    if header.endian().is_err() || header.e_machine(LE) != EM_X86_64 {
        return Err(ElfError::NotAmd64);
    }
    match header.e_type(LE) {
        ET_EXEC => Ok((Kind::Kernel, header)),
        ET_DYN => Ok((Kind::Shared, header)),
        ET_REL => Ok((Kind::Object, header)),
        _ => Err(ElfError::Kind(
            "an ELF file that is neither kernel nor module",
        )),
    }
}

/// A kernel in memory, and where it is entered (a virtual address).
pub fn load_kernel(name: &str, file: &[u8], limit: u64) -> Result<(Preloaded, u64), ElfError> {
    let (Kind::Kernel, header) = kind(file)? else {
        return Err(ElfError::Kind("a kernel module, not a kernel"));
    };
    let entry = header.e_entry.get(LE);
    if entry < KERNEL_BASE {
        return Err(ElfError::Kind(
            "an executable, but no FreeBSD kernel: its entry point lies below KERNBASE, \
             0xffffffff80000000",
        ));
    }
    let offset = (entry & !PHYSICAL_MASK).wrapping_neg();
    let kernel = load(name, file, header, offset, limit)?;
    Ok((kernel, entry))
}

/// A module that was linked as a shared object, in memory from `address` on.
pub fn load_shared(
    name: &str,
    file: &[u8],
    address: u64,
    limit: u64,
) -> Result<Preloaded, ElfError> {
    match kind(file)? {
        (Kind::Shared, header) => load(name, file, header, address, limit),
        _ => Err(ElfError::Kind("not a shared object")),
    }
}

/// The part of the file that a section is; a section that occupies no room in it has none.
pub(super) fn section_data<'a>(section: &Section, file: &'a [u8]) -> Result<&'a [u8], ElfError> {
    section
        .data(LE, file)
        .map_err(|_| ElfError::Damaged("a section lies outside the file"))
}

pub(super) fn sections<'a>(header: &Header, file: &'a [u8]) -> Result<&'a [Section], ElfError> {
    header
        .section_headers(LE, file)
        .map_err(|_| ElfError::Damaged("the section headers lie outside the file"))
}

/// A section's name, from the string table that the header names.
pub(super) fn section_name<'a>(
    header: &Header,
    sections: &[Section],
    section: &Section,
    file: &'a [u8],
) -> Option<&'a [u8]> {
    let strings = sections.get(usize::from(header.e_shstrndx.get(LE).0))?;
    let text = section_data(strings, file).ok()?;
    let name = text.get(section.sh_name.get(LE) as usize..)?;
    name.split(|byte| *byte == 0).next()
}

/// Segments at their virtual addresses plus `offset`, then the symbols.
fn load(
    name: &str,
    file: &[u8],
    header: &Header,
    offset: u64,
    limit: u64,
) -> Result<Preloaded, ElfError> {
    let segments = header
        .program_headers(LE, file)
        .map_err(|_| ElfError::Damaged("the program headers lie outside the file"))?;
    let mut image = Preloaded {
        name: name.to_owned(),
        address: u64::MAX,
        ..Preloaded::default()
    };
    let mut end = 0;
    for segment in segments.iter().filter(|s| s.p_type(LE) == PT_LOAD) {
        let data = segment
            .data(LE, file)
            .map_err(|()| ElfError::Damaged("a segment lies outside the file"))?;
        let len = segment.p_memsz(LE);
        if (data.len() as u64) > len {
            return Err(ElfError::Damaged(
                "a segment is larger in the file than in memory",
            ));
        }
        let start = segment.p_vaddr(LE).wrapping_add(offset);
        let last = room(start, len, limit)?;
        image.address = image.address.min(start);
        end = end.max(last);
        image.pieces.push(Piece {
            gpa: start,
            data: data.to_vec().into(),
            len,
        });
    }
    if image.pieces.is_empty() {
        return Err(ElfError::Damaged("there is no segment to load"));
    }
    let mut symbols = Symbols::new(end.next_multiple_of(8));
    let sections = sections(header, file)?;
    if !sections.is_empty() {
        let bytes: Vec<u8> = sections.iter().flat_map(bytes_of).copied().collect();
        image.add_metadata(metadata::SHDR, bytes);
        constructors(header, sections, file, &mut image);
        symbols.add(sections, segments, file)?;
    }
    if let Some((start, end)) = symbols.range() {
        image.add_metadata(metadata::SSYM, start.to_le_bytes());
        image.add_metadata(metadata::ESYM, end.to_le_bytes());
    }
    let end = symbols.end;
    image.size = room(image.address, end - image.address, limit)? - image.address;
    image.pieces.extend(symbols.piece());
    if let Some(dynamic) = segments.iter().find(|s| s.p_type(LE) == PT_DYNAMIC) {
        image.add_metadata(metadata::DYNAMIC, dynamic.p_vaddr(LE).to_le_bytes());
    }
    image.add_metadata(metadata::ELFHDR, bytes_of(header));
    let is_kernel = header.e_type(LE) == ET_EXEC;
    image.kind = if is_kernel { KERNEL_TYPE } else { MODULE_TYPE }.to_owned();
    modmetadata::of_linked(header, sections, segments, file, &mut image);
    Ok(image)
}

/// Where something ends that has to lie below `limit`, and not where page tables, stack and
/// BIOS have their memory.
pub(super) fn room(start: u64, len: u64, limit: u64) -> Result<u64, ElfError> {
    let no_room = |end| ElfError::NoRoom { start, end, limit };
    let end = start.checked_add(len).ok_or(no_room(u64::MAX))?;
    if start < 0x10_0000 || end > limit {
        return Err(no_room(end));
    }
    Ok(end)
}

fn constructors(header: &Header, sections: &[Section], file: &[u8], image: &mut Preloaded) {
    let ctors = sections
        .iter()
        .find(|s| section_name(header, sections, s, file) == Some(b".ctors"));
    if let Some(ctors) = ctors {
        image.add_metadata(metadata::CTORS_ADDR, ctors.sh_addr(LE).to_le_bytes());
        image.add_metadata(metadata::CTORS_SIZE, ctors.sh_size(LE).to_le_bytes());
    }
}

/// The symbol table and its strings behind the segments, each with its length before it.
struct Symbols {
    start: u64,
    bytes: Vec<u8>,
    end: u64,
}

impl Symbols {
    fn new(start: u64) -> Self {
        Self {
            start,
            bytes: Vec::new(),
            end: start,
        }
    }

    fn add(
        &mut self,
        sections: &[Section],
        segments: &[Segment],
        file: &[u8],
    ) -> Result<(), ElfError> {
        // One that lies in a segment is in memory already.
        let loaded = |s: &&Section| {
            let end = s.sh_offset(LE).saturating_add(s.sh_size(LE));
            segments.iter().any(|p| {
                p.p_type(LE) == PT_LOAD
                    && s.sh_offset(LE) >= p.p_offset(LE)
                    && end <= p.p_offset(LE).saturating_add(p.p_filesz(LE))
            })
        };
        let table = sections
            .iter()
            .rfind(|s| s.sh_type(LE) == SHT_SYMTAB && s.sh_size(LE) != 0 && !loaded(s));
        let Some(table) = table else {
            return Ok(());
        };
        let strings = sections
            .get(table.sh_link(LE) as usize)
            .filter(|s| s.sh_type(LE) == SHT_STRTAB)
            .ok_or(ElfError::Damaged("the symbol table has no strings"))?;
        for section in [table, strings] {
            let data = section_data(section, file)?;
            self.bytes.extend((data.len() as u64).to_le_bytes());
            self.bytes.extend(data);
            self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        }
        self.end = self.start.saturating_add(self.bytes.len() as u64);
        Ok(())
    }

    fn range(&self) -> Option<(u64, u64)> {
        (!self.bytes.is_empty()).then_some((self.start, self.end))
    }

    fn piece(self) -> Option<Piece<'static>> {
        let len = self.bytes.len() as u64;
        (len != 0).then_some(Piece {
            gpa: self.start,
            data: self.bytes.into(),
            len,
        })
    }
}
