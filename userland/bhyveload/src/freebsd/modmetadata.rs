//! Which modules a file has and which it needs: the records of its linker set
//! modmetadata_set (sys/sys/module.h). They are full of pointers, which in a file that is
//! not linked yet are relocations.

#![forbid(unsafe_code)]

use std::collections::HashMap;

use ::object::elf::{
    ET_EXEC, ProgramHeader64, R_X86_64_64, R_X86_64_RELATIVE, Rela64, SHT_DYNSYM, SHT_RELA, Sym64,
};
use ::object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use ::object::{LittleEndian, pod};

use super::image::{Header, LE, Section, section_data, section_name};
use super::preload::{Dependency, Preloaded};

const SET: &[u8] = b"set_modmetadata_set";
const MDT_DEPEND: u32 = 1;
const MDT_VERSION: u32 = 3;
/// More than any kernel has.
const LIMIT: u64 = 1 << 16;

/// A file's contents at the addresses that its pointers mean.
#[derive(Default)]
pub struct View<'a> {
    parts: Vec<(u64, &'a [u8])>,
    /// The values of pointers that have a relocation, by where they are.
    pointers: HashMap<u64, u64>,
}

impl<'a> View<'a> {
    pub fn add(&mut self, address: u64, bytes: &'a [u8]) {
        self.parts.push((address, bytes));
    }

    pub fn relocate(&mut self, at: u64, value: u64) {
        self.pointers.insert(at, value);
    }

    fn from(&self, at: u64) -> Option<&'a [u8]> {
        self.parts.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(at.checked_sub(*start)?).ok()?;
            bytes.get(offset..).filter(|rest| !rest.is_empty())
        })
    }

    fn word(&self, at: u64) -> Option<u32> {
        let bytes = self.from(at)?.get(..4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    fn pointer(&self, at: u64) -> Option<u64> {
        if let Some(value) = self.pointers.get(&at) {
            return Some(*value);
        }
        let bytes = self.from(at)?.get(..8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn text(&self, at: u64) -> Option<String> {
        let text = self.from(at)?.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// Reads the set at these addresses into `file`. A record that can't be read is skipped:
    /// the kernel, which reads it again, is the judge.
    pub fn read_set(&self, start: u64, len: u64, file: &mut Preloaded) {
        for n in 0..(len / 8).min(LIMIT) {
            let _ = self.read_record(start.saturating_add(8 * n), file);
        }
    }

    /// The record whose address is at `place`.
    fn read_record(&self, place: u64, file: &mut Preloaded) -> Option<()> {
        let at = self.pointer(place)?;
        let kind = self.word(at.checked_add(4)?)?;
        let data = self.pointer(at.checked_add(8)?)?;
        let name = self.text(self.pointer(at.checked_add(16)?)?)?;
        let number = |n: u64| Some(self.word(data.checked_add(4 * n)?)? as i32);
        match kind {
            MDT_VERSION => file.modules.push((name, number(0)?)),
            MDT_DEPEND => file.depends.push(Dependency {
                name,
                minimum: number(0)?,
                preferred: number(1)?,
                maximum: number(2)?,
            }),
            _ => {}
        }
        Some(())
    }
}

/// A kernel's or a shared object's. One that declares no version has a module of the file's
/// name; a kernel needs nothing.
pub fn of_linked(
    header: &Header,
    sections: &[Section],
    segments: &[ProgramHeader64<LittleEndian>],
    file: &[u8],
    image: &mut Preloaded,
) {
    let mut view = View::default();
    for segment in segments {
        view.add(
            segment.p_vaddr(LE),
            segment.data(LE, file).unwrap_or_default(),
        );
    }
    let is_kernel = header.e_type(LE) == ET_EXEC;
    if !is_kernel {
        relocations(sections, file, &mut view);
    }
    let set = sections
        .iter()
        .find(|s| section_name(header, sections, s, file) == Some(SET));
    if let Some(set) = set {
        view.read_set(set.sh_addr(LE), set.sh_size(LE), image);
    }
    if is_kernel {
        image.depends.clear();
    }
    if image.modules.is_empty() {
        let base = image.name.rsplit('/').next().unwrap_or_default();
        let name = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
        image.modules.push((name.to_owned(), 1));
    }
}

/// The section of the set, for files whose sections are loaded one by one.
pub fn set_section<'a>(
    header: &Header,
    sections: &'a [Section],
    file: &[u8],
) -> Option<(usize, &'a Section)> {
    sections
        .iter()
        .enumerate()
        .find(|(_, s)| section_name(header, sections, s, file) == Some(SET))
}

fn relocations(sections: &[Section], file: &[u8], view: &mut View<'_>) {
    let symbols = sections.iter().find(|s| s.sh_type(LE) == SHT_DYNSYM);
    let symbols = symbols.map_or(&[][..], |s| table::<Sym64<LittleEndian>>(s, file));
    for section in sections.iter().filter(|s| s.sh_type(LE) == SHT_RELA) {
        for rela in table::<Rela64<LittleEndian>>(section, file) {
            let symbol = symbols.get(rela.r_sym(LE, false) as usize);
            let base = match (rela.r_type(LE, false), symbol) {
                (R_X86_64_RELATIVE, _) => 0,
                (R_X86_64_64, Some(symbol)) => symbol.st_value.get(LE),
                _ => continue,
            };
            let value = base.wrapping_add_signed(rela.r_addend.get(LE));
            view.relocate(rela.r_offset.get(LE), value);
        }
    }
}

/// A section as a table of fixed-size entries.
pub(super) fn table<'a, T: pod::Pod>(section: &Section, file: &'a [u8]) -> &'a [T] {
    let data = section_data(section, file).unwrap_or_default();
    let entries = data.len() / size_of::<T>();
    pod::slice_from_bytes(data, entries).map_or(&[], |(entries, _)| entries)
}
