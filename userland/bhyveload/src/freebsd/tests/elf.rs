//! A small writer of ELF files: a kernel and modules as the tests want them.

#![forbid(unsafe_code)]

#[derive(Default)]
struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    address: u64,
    link: u32,
    info: u32,
    align: u64,
    /// For a section that occupies no room in the file.
    size: u64,
    data: Vec<u8>,
}

const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const RELA: u32 = 4;
const NOBITS: u32 = 8;
const ALLOC: u64 = 2;

/// An ELF64 file with these sections (a null one before, the names' behind them) and, if
/// there are any, segments (vaddr, section, memory size).
fn elf(kind: u16, entry: u64, sections: Vec<Section>, segments: &[(u64, usize, u64)]) -> Vec<u8> {
    let mut all = vec![Section::default()];
    all.extend(sections);
    let mut names = vec![0];
    let mut name_at = Vec::new();
    all.push(Section {
        name: ".shstrtab",
        kind: STRTAB,
        ..Section::default()
    });
    for section in &all {
        name_at.push(names.len() as u32);
        names.extend(section.name.bytes().chain([0]));
    }
    all.last_mut().unwrap().data = names;
    let mut offsets = Vec::new();
    let mut at = 64 + 56 * segments.len();
    for section in &all {
        at = at.next_multiple_of(16);
        offsets.push(at);
        at += section.data.len();
    }
    let shoff = at.next_multiple_of(8);

    let mut file = b"\x7fELF\x02\x01\x01\x09\0\0\0\0\0\0\0\0".to_vec();
    file.extend(kind.to_le_bytes());
    file.extend(62u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for word in [entry, 64, shoff as u64] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    let phnum = segments.len() as u16;
    for half in [64, 56, phnum, 64, all.len() as u16, all.len() as u16 - 1] {
        file.extend(half.to_le_bytes());
    }
    for (vaddr, section, memory) in segments {
        file.extend(1u32.to_le_bytes());
        file.extend(7u32.to_le_bytes());
        let len = all[*section].data.len() as u64;
        for word in [
            offsets[*section] as u64,
            *vaddr,
            *vaddr,
            len,
            *memory,
            0x1000,
        ] {
            file.extend(word.to_le_bytes());
        }
    }
    for (section, at) in all.iter().zip(&offsets) {
        file.resize(*at, 0);
        file.extend(&section.data);
    }
    file.resize(shoff, 0);
    for (n, section) in all.iter().enumerate() {
        file.extend(name_at[n].to_le_bytes());
        file.extend(section.kind.to_le_bytes());
        let size = section.size.max(section.data.len() as u64);
        for word in [section.flags, section.address, offsets[n] as u64, size] {
            file.extend(word.to_le_bytes());
        }
        file.extend(section.link.to_le_bytes());
        file.extend(section.info.to_le_bytes());
        file.extend(section.align.to_le_bytes());
        file.extend(0u64.to_le_bytes());
    }
    file
}

pub const BASE: u64 = 0xffff_ffff_8020_0000;

/// A kernel with modules "kernel" 1501000 and "acpi" 1, and symbols.
pub fn kernel() -> Vec<u8> {
    let data_at = BASE + 0x1000;
    let mut data = Vec::new();
    // Two records, their versions, their names, the set.
    let names = data_at + 56;
    for (n, name_at) in [(0, names), (1, names + 8)] {
        data.extend(1u32.to_le_bytes());
        data.extend(3u32.to_le_bytes());
        data.extend((data_at + 48 + 4 * n).to_le_bytes());
        data.extend(name_at.to_le_bytes());
    }
    data.extend(1_501_000u32.to_le_bytes());
    data.extend(1u32.to_le_bytes());
    data.extend(b"kernel\0\0acpi\0\0\0\0");
    let set_at = data_at + data.len() as u64;
    for n in 0..2 {
        data.extend((data_at + 24 * n).to_le_bytes());
    }
    let section = |name, kind, flags, address, data: Vec<u8>| Section {
        name,
        kind,
        flags,
        address,
        data,
        align: 8,
        ..Section::default()
    };
    let set = Section {
        size: 16,
        data: data[data.len() - 16..].to_vec(),
        ..section("set_modmetadata_set", PROGBITS, ALLOC, set_at, Vec::new())
    };
    let symbols = Section {
        link: 5,
        ..section(".symtab", SYMTAB, 0, 0, vec![0x5a; 48])
    };
    elf(
        2,
        BASE + 4,
        vec![
            section(".text", PROGBITS, ALLOC, BASE, b"kernel's code".to_vec()),
            section(".data", PROGBITS, ALLOC, data_at, data),
            set,
            symbols,
            section(".strtab", STRTAB, 0, 0, b"\0btext\0".to_vec()),
        ],
        &[(BASE, 1, 0x1000), (data_at, 2, 0x2345)],
    )
}

/// A module with one version, and what it needs: (name, minimum, preferred, maximum).
pub fn module(name: &str, version: u32, needs: &[(&str, u32, u32, u32)]) -> Vec<u8> {
    const DATA: u32 = 2;
    const SYMBOLS: u32 = 6;
    let count = 1 + needs.len() as u64;
    let record_at = |n: u64| 64 * n;
    let mut data = vec![0; 64 * count as usize];
    let mut relocations = Vec::new();
    let mut set_relocations = Vec::new();
    let rela = |to: &mut Vec<u8>, at: u64, addend: u64| {
        to.extend(at.to_le_bytes());
        // R_X86_64_64 against symbol 1, the section .data.
        to.extend((1u64 << 32 | 1).to_le_bytes());
        to.extend(addend.to_le_bytes());
    };
    let all = std::iter::once((name, vec![version], 3u32))
        .chain(needs.iter().map(|(n, a, b, c)| (*n, vec![*a, *b, *c], 1)));
    for (n, (text, numbers, kind)) in all.enumerate() {
        let at = record_at(n as u64);
        let place = &mut data[at as usize..][..64];
        place[..4].copy_from_slice(&1u32.to_le_bytes());
        place[4..8].copy_from_slice(&kind.to_le_bytes());
        for (number, to) in numbers.iter().zip(place[24..].chunks_mut(4)) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        place[40..40 + text.len()].copy_from_slice(text.as_bytes());
        rela(&mut relocations, at + 8, at + 24);
        rela(&mut relocations, at + 16, at + 40);
        rela(&mut set_relocations, 8 * n as u64, at);
    }
    let mut symbols = vec![0; 24];
    symbols.extend([0, 0, 0, 0, 3, 0]);
    symbols.extend((DATA as u16).to_le_bytes());
    symbols.extend([0; 16]);
    let rela_section = |name, info, data| Section {
        name,
        kind: RELA,
        link: SYMBOLS,
        info,
        align: 8,
        data,
        ..Section::default()
    };
    let section = |name, kind, flags, align, data: Vec<u8>| Section {
        name,
        kind,
        flags,
        align,
        data,
        ..Section::default()
    };
    let bss = Section {
        size: 0x1234,
        ..section(".bss", NOBITS, ALLOC, 64, Vec::new())
    };
    let symbols = Section {
        link: 7,
        ..section(".symtab", SYMTAB, 0, 8, symbols)
    };
    elf(
        1,
        0,
        vec![
            section(
                ".text",
                PROGBITS,
                ALLOC,
                16,
                format!("code of {name}").into_bytes(),
            ),
            section(".data", PROGBITS, ALLOC, 32, data),
            rela_section(".rela.data", DATA, relocations),
            section(
                "set_modmetadata_set",
                PROGBITS,
                ALLOC,
                8,
                vec![0; 8 * count as usize],
            ),
            rela_section(".relaset", 4, set_relocations),
            symbols,
            section(".strtab", STRTAB, 0, 1, vec![0]),
            bss,
            section(".comment", PROGBITS, 0, 1, b"not loaded".to_vec()),
        ],
        &[],
    )
}
