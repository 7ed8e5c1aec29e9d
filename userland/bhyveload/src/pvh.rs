//! PVH, the direct boot protocol of Xen's HVM guests, which Linux and FreeBSD kernels
//! understand without Xen too (xen/include/public/arch-x86/hvm/start_info.h): an ELF file
//! whose note XEN_ELFNOTE_PHYS32_ENTRY holds the physical address to enter at, in 32-bit
//! protected mode, with EBX pointing to the start information.

#![forbid(unsafe_code)]

use linux_loader::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::ByteValued;
use vmmapi::address_map::e820;

use crate::elf::{self, Contents};
use crate::image::{Image, ImageError, Module};
use crate::layout::{Layout, LayoutError};

/// XEN_ELFNOTE_PHYS32_ENTRY, and the name of its kind with the NUL that counts.
const NOTE_NAME: &[u8] = b"Xen\0";
const NOTE_PHYS32_ENTRY: u32 = 18;
/// The version with a memory map.
const VERSION: u32 = 1;

/// Whether an ELF file can be entered in PVH's way.
pub fn is_pvh(file: &[u8]) -> bool {
    elf::read(file).is_ok_and(|contents| note(&contents).is_some())
}

/// Takes an ELF file apart that is entered in PVH's way.
pub fn parse(file: &[u8]) -> Result<Image<'_>, ImageError> {
    let contents = elf::read(file)?;
    // 4 bytes, or 8 in what 64-bit assemblers make of an address.
    let entry = match note(&contents).ok_or(ImageError::PvhMissing)? {
        [a, b, c, d] | [a, b, c, d, 0, 0, 0, 0] => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => return Err(ImageError::PvhNote),
    };
    let entry = u64::from(entry);
    let image = Image {
        segments: contents.segments,
        entry,
    };
    if image.contains(entry) {
        Ok(image)
    } else {
        Err(ImageError::EntryOutside(entry))
    }
}

fn note<'a>(contents: &Contents<'a>) -> Option<&'a [u8]> {
    contents.note(NOTE_NAME, NOTE_PHYS32_ENTRY)
}

/// The start information and all it points to, as one block: (address, bytes). Behind the
/// structure come the list of modules, the memory map, the texts.
pub fn start_info(
    layout: &mut Layout,
    command_line: &str,
    modules: &[Module],
) -> Result<(u64, Vec<u8>), LayoutError> {
    let map = e820(layout.lowmem(), layout.highmem());
    let modules_at = size_of::<hvm_start_info>();
    let map_at = modules_at + modules.len() * size_of::<hvm_modlist_entry>();
    let texts_at = map_at + map.len() * size_of::<hvm_memmap_table_entry>();
    let texts_len: usize = modules.iter().map(|m| m.string.len() + 1).sum::<usize>();
    let len = texts_at + texts_len + command_line.len() + 1;
    let base = layout.allocate("the PVH start information", len as u64, 16, 0)?;
    let at = |offset: usize| base + offset as u64;

    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        nr_modules: modules.len() as u32,
        modlist_paddr: if modules.is_empty() {
            0
        } else {
            at(modules_at)
        },
        cmdline_paddr: at(texts_at + texts_len),
        // The kernel looks for it in the BIOS area: not every bhyve has it at the same place.
        rsdp_paddr: 0,
        memmap_paddr: at(map_at),
        memmap_entries: map.len() as u32,
        ..hvm_start_info::default()
    };
    let mut block = info.as_slice().to_vec();
    for module in modules_list(modules, at(texts_at)) {
        block.extend(module.as_slice());
    }
    for range in map {
        let entry = hvm_memmap_table_entry {
            addr: range.base,
            size: range.len,
            // The types are E820's.
            type_: range.kind as u32,
            reserved: 0,
        };
        block.extend(entry.as_slice());
    }
    let texts = modules.iter().map(|module| module.string.as_str());
    for text in texts.chain([command_line]) {
        block.extend(text.bytes());
        block.push(0);
    }
    Ok((base, block))
}

/// The modules' entries, with their texts one behind the other from `text` on.
fn modules_list(modules: &[Module], mut text: u64) -> Vec<hvm_modlist_entry> {
    let entry = |module: &Module| {
        let entry = hvm_modlist_entry {
            paddr: module.start,
            size: module.end - module.start,
            cmdline_paddr: if module.string.is_empty() { 0 } else { text },
            reserved: 0,
        };
        text += module.string.len() as u64 + 1;
        entry
    };
    modules.iter().map(entry).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A kernel of one segment at 1 MiB whose PT_NOTE, after a note of somebody else, says
    /// where to enter; its own entry point is none of PVH's business.
    pub fn kernel(desc: &[u8]) -> Vec<u8> {
        let mut notes = Vec::new();
        for (name, kind, desc) in [
            (&b"GNU\0"[..], NOTE_PHYS32_ENTRY, &b"abcde"[..]),
            (b"Xen\0", 5, b""),
            (b"Xen\0", NOTE_PHYS32_ENTRY, desc),
        ] {
            for word in [name.len(), desc.len(), kind as usize] {
                notes.extend((word as u32).to_le_bytes());
            }
            notes.extend(name);
            notes.extend(desc);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        let code: &[u8] = b"some code";
        let mut file =
            elf::tests::elf64(0x1, &[(0x10_0000, 0x10_0000, code, 64), (0, 0, &notes, 0)]);
        let second_header = 64 + 56;
        file[second_header..second_header + 4].copy_from_slice(&4_u32.to_le_bytes());
        file[second_header + 48..second_header + 56].copy_from_slice(&4_u64.to_le_bytes());
        file
    }

    #[test]
    fn the_note_says_where_to_enter() {
        for desc in [&b"\x04\0\x10\0"[..], b"\x04\0\x10\0\0\0\0\0"] {
            let file = kernel(desc);
            assert!(is_pvh(&file));
            let image = parse(&file).unwrap();
            assert_eq!(image.entry, 0x10_0004);
            assert_eq!(image.segments.len(), 1);
        }
        let error = |desc: &[u8]| parse(&kernel(desc)).unwrap_err();
        assert_eq!(error(b"\x40\0\x10\0"), ImageError::EntryOutside(0x10_0040));
        assert_eq!(error(b"\x04\0\x10"), ImageError::PvhNote);
        assert_eq!(error(b"\x04\0\x10\0\x01\0\0\0"), ImageError::PvhNote);
        let plain = elf::tests::elf64(0x10_0000, &[(0x10_0000, 0x10_0000, b"code", 16)]);
        assert!(!is_pvh(&plain));
        assert_eq!(parse(&plain), Err(ImageError::PvhMissing));
    }

    #[test]
    fn notes_that_end_early_are_no_notes() {
        let whole = kernel(b"\x04\0\x10\0");
        let note_len_at = 64 + 56 + 32;
        let len = u64::from(whole[note_len_at]);
        for short in 0..len {
            let mut file = whole.clone();
            file[note_len_at..note_len_at + 8].copy_from_slice(&short.to_le_bytes());
            assert!(!is_pvh(&file), "{short} of {len}");
        }
    }

    #[test]
    fn start_information_describes_memory_command_line_and_modules() {
        let mut layout = Layout::new(5 << 30);
        let module = |start, string: &str| Module {
            start,
            end: start + 0x10,
            string: string.into(),
        };
        let modules = [module(0x20_0000, ""), module(0x30_0000, "b c")];
        let (base, block) = start_info(&mut layout, "console=ttyS0", &modules).unwrap();
        let at = |gpa: u64| (gpa - base) as usize;
        let word = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().unwrap());
        let text = |gpa: u64| {
            let text = block[at(gpa)..].split(|b| *b == 0).next().unwrap();
            String::from_utf8(text.to_vec()).unwrap()
        };
        assert_eq!(
            [0, 4, 8, 12].map(word),
            [0x336e_c578, 1, 0, 2],
            "magic, version, flags, modules"
        );
        assert_eq!(text(long(24)), "console=ttyS0");
        assert_eq!(long(32), 0, "RSDP");
        let list = at(long(16));
        assert_eq!([0, 8, 16].map(|n| long(list + n)), [0x20_0000, 0x10, 0]);
        assert_eq!([32, 40].map(|n| long(list + n)), [0x30_0000, 0x10]);
        assert_eq!(text(long(list + 48)), "b c");
        let map = at(long(40));
        let map: Vec<_> = (0..word(48) as usize)
            .map(|n| map + 24 * n)
            .map(|at| (long(at), long(at + 8), word(at + 16)))
            .collect();
        let expected = e820(3 << 30, 2 << 30);
        let expected: Vec<_> = expected
            .iter()
            .map(|e| (e.base, e.len, e.kind as u32))
            .collect();
        assert_eq!(map, expected);

        let mut layout = Layout::new(64 << 20);
        let (_, block) = start_info(&mut layout, "", &[]).unwrap();
        assert_eq!(block[12..24], [0; 12], "no module, no list");
    }
}
