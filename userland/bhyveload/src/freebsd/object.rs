//! Kernel modules of FreeBSD/amd64, relocatable objects (ET_REL), in memory as the kernel's
//! linker takes them over: sections in a row, then the symbols, their strings, the section
//! names and the relocations; the section headers say where each is
//! (stand/common/load_elf_obj.c, sys/kern/link_elf_obj.c).

#![forbid(unsafe_code)]

use ::object::LittleEndian;
use ::object::elf::{
    R_X86_64_64, Rela64, SHF_ALLOC, SHT_FINI_ARRAY, SHT_INIT_ARRAY, SHT_NOBITS, SHT_PROGBITS,
    SHT_REL, SHT_RELA, SHT_STRTAB, SHT_SYMTAB, SHT_X86_64_UNWIND, Sym64,
};
use ::object::pod::bytes_of;
use ::object::read::elf::SectionHeader;

use super::image::{ElfError, Header, Kind, LE, Section, kind, room, section_data, sections};
use super::modmetadata::{self, View, table};
use super::preload::{OBJECT_MODULE_TYPE, Preloaded, metadata};
use crate::plan::Piece;

/// The largest alignment that a section may ask for: a page of 2 MiB.
const MAX_ALIGN: u64 = 2 << 20;

/// A module in memory from `address` on.
pub fn load(name: &str, file: &[u8], address: u64, limit: u64) -> Result<Preloaded, ElfError> {
    let (Kind::Object, header) = kind(file)? else {
        return Err(ElfError::Kind("not a relocatable object"));
    };
    let sections = sections(header, file)?;
    let placed = place(header, sections, address, limit)?;
    let mut module = Preloaded {
        name: name.to_owned(),
        kind: OBJECT_MODULE_TYPE.to_owned(),
        address,
        size: placed.end - address,
        ..Preloaded::default()
    };
    // The whole range is written, so that what lies between sections is zero.
    let len = usize::try_from(module.size).map_err(|_| ElfError::Damaged("its size"))?;
    let mut image = vec![0; len];
    for (section, at) in sections.iter().zip(&placed.addresses) {
        if *at == 0 || section.sh_type(LE) == SHT_NOBITS {
            continue;
        }
        let data = section_data(section, file)?;
        let offset = (*at - address) as usize;
        image
            .get_mut(offset..)
            .and_then(|rest| rest.get_mut(..data.len()))
            .ok_or(ElfError::Damaged("a section is longer than it says"))?
            .copy_from_slice(data);
    }
    module.pieces.push(Piece {
        gpa: address,
        data: image.into(),
        len: module.size,
    });
    let mut headers = Vec::new();
    for (section, at) in sections.iter().zip(&placed.addresses) {
        let mut section = *section;
        section.sh_addr.set(LE, *at);
        headers.extend(bytes_of(&section));
    }
    module.add_metadata(metadata::SHDR, headers);
    module.add_metadata(metadata::ELFHDR, bytes_of(header));
    read_modmetadata(header, sections, &placed, file, &mut module);
    Ok(module)
}

struct Placed {
    /// Of each section; 0: not loaded.
    addresses: Vec<u64>,
    symbols: usize,
    end: u64,
}

/// Gives the sections their addresses: code and data, the symbols, their strings, the names
/// of sections, the relocations of what is loaded.
fn place(
    header: &Header,
    sections: &[Section],
    address: u64,
    limit: u64,
) -> Result<Placed, ElfError> {
    let mut placed = Placed {
        addresses: vec![0; sections.len()],
        symbols: 0,
        end: address,
    };
    let mut put = |index: usize, section: &Section| -> Result<(), ElfError> {
        let align = section.sh_addralign(LE).max(1);
        if !align.is_power_of_two() || align > MAX_ALIGN {
            return Err(ElfError::Damaged("a section's alignment"));
        }
        let start = placed.end.next_multiple_of(align);
        placed.end = room(start, section.sh_size(LE), limit)?;
        placed.addresses[index] = start;
        Ok(())
    };
    let is_allocated = |s: &Section| s.sh_flags(LE).contains(SHF_ALLOC) && s.sh_size(LE) != 0;
    for (index, section) in sections.iter().enumerate() {
        let kind = section.sh_type(LE);
        let kinds = [
            SHT_PROGBITS,
            SHT_NOBITS,
            SHT_X86_64_UNWIND,
            SHT_INIT_ARRAY,
            SHT_FINI_ARRAY,
        ];
        if kinds.contains(&kind) && is_allocated(section) {
            put(index, section)?;
        }
    }
    let mut tables = sections
        .iter()
        .enumerate()
        .filter(|(_, s)| s.sh_type(LE) == SHT_SYMTAB);
    let (Some((symbols, table)), None) = (tables.next(), tables.next()) else {
        return Err(ElfError::Damaged("it has no symbol table, or several"));
    };
    let strings = |index: usize, what| {
        let section = sections.get(index).filter(|s| s.sh_type(LE) == SHT_STRTAB);
        section.map(|s| (index, s)).ok_or(ElfError::Damaged(what))
    };
    put(symbols, table)?;
    let link = table.sh_link(LE) as usize;
    let (index, section) = strings(link, "the symbol table has no strings")?;
    put(index, section)?;
    let names = usize::from(header.e_shstrndx.get(LE).0);
    let (index, section) = strings(names, "it has no names of sections")?;
    put(index, section)?;
    for (index, section) in sections.iter().enumerate() {
        if !matches!(section.sh_type(LE), SHT_REL | SHT_RELA) {
            continue;
        }
        let target = sections
            .get(section.sh_info(LE) as usize)
            .ok_or(ElfError::Damaged("relocations of no section"))?;
        if target.sh_flags(LE).contains(SHF_ALLOC) {
            put(index, section)?;
        }
    }
    placed.symbols = symbols;
    Ok(placed)
}

fn read_modmetadata(
    header: &Header,
    sections: &[Section],
    placed: &Placed,
    file: &[u8],
    module: &mut Preloaded,
) {
    let Some((index, set)) = modmetadata::set_section(header, sections, file) else {
        return;
    };
    let address_of = |index: usize| placed.addresses.get(index).copied().filter(|at| *at != 0);
    let symbols = table::<Sym64<LittleEndian>>(&sections[placed.symbols], file);
    let symbol_address = |n: u32| {
        let symbol = symbols.get(n as usize)?;
        let section = address_of(usize::from(symbol.st_shndx.get(LE).0))?;
        section.checked_add(symbol.st_value.get(LE))
    };
    let mut view = View::default();
    for (section, at) in sections.iter().zip(&placed.addresses) {
        if *at != 0 && section.sh_type(LE) != SHT_NOBITS {
            view.add(*at, section_data(section, file).unwrap_or_default());
        }
        let target = address_of(section.sh_info(LE) as usize);
        let (SHT_RELA, Some(target)) = (section.sh_type(LE), target) else {
            continue;
        };
        for rela in table::<Rela64<LittleEndian>>(section, file) {
            if rela.r_type(LE, false) != R_X86_64_64 {
                continue;
            }
            if let Some(symbol) = symbol_address(rela.r_sym(LE, false)) {
                let value = symbol.wrapping_add_signed(rela.r_addend.get(LE));
                view.relocate(target.wrapping_add(rela.r_offset.get(LE)), value);
            }
        }
    }
    if let Some(at) = address_of(index) {
        view.read_set(at, set.sh_size(LE), module);
    }
}
