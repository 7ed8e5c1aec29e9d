//! Multiboot specification 0.6.96 ("multiboot1"): the header in the kernel image (3.1),
//! with ELF images of both classes and the a.out kludge, and the boot information that the
//! kernel finds through EBX (3.3).

#![forbid(unsafe_code)]

use vmmapi::address_map::{CONVENTIONAL_END, EXTENDED_BASE, e820};

use crate::elf;
use crate::image::{Image, ImageError, Module, Reader, Segment};
use crate::layout::{Layout, LayoutError};

/// What EAX holds when the kernel starts (3.2).
pub const BOOTLOADER_MAGIC: u32 = 0x2bad_b002;

const HEADER_MAGIC: u32 = 0x1bad_b002;
/// The header lies wholly within this many bytes of the file.
const SEARCH: usize = 8192;
const FLAG_PAGE_ALIGN: u32 = 1 << 0;
const FLAG_MEMORY_INFO: u32 = 1 << 1;
const FLAG_VIDEO_MODE: u32 = 1 << 2;
/// The lower half of the flags are requirements, the upper half may be ignored.
const FLAGS_REQUIRED: u32 = 0xffff;
const FLAG_AOUT_KLUDGE: u32 = 1 << 16;
const FOUR_GIB: u64 = 1 << 32;

/// A multiboot header: where in the file, and its flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    offset: u64,
    flags: u32,
}

/// The header, if the file has one.
pub fn find_header(file: &[u8]) -> Option<Header> {
    let searched = &file[..file.len().min(SEARCH)];
    let word = |at: usize| {
        let bytes = searched.get(at..at + 4)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    (0..searched.len()).step_by(4).find_map(|at| {
        let (magic, flags, checksum) = (word(at)?, word(at + 4)?, word(at + 8)?);
        let valid = magic == HEADER_MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0;
        valid.then_some(Header {
            offset: at as u64,
            flags,
        })
    })
}

/// Takes a multiboot kernel apart. Everything of it lies below 4 GiB.
pub fn parse(file: &[u8]) -> Result<Image<'_>, ImageError> {
    let header = find_header(file).ok_or(ImageError::MultibootMissing)?;
    if header.flags & FLAG_VIDEO_MODE != 0 {
        return Err(ImageError::MultibootVideoMode);
    }
    let unknown = header.flags & FLAGS_REQUIRED & !(FLAG_PAGE_ALIGN | FLAG_MEMORY_INFO);
    if unknown != 0 {
        return Err(ImageError::MultibootFlags(unknown));
    }
    let image = if header.flags & FLAG_AOUT_KLUDGE != 0 {
        parse_address_fields(file, header)?
    } else {
        elf::parse(file)?
    };
    if image.entry >= FOUR_GIB {
        return Err(ImageError::EntryUnreachable {
            entry: image.entry,
            limit: FOUR_GIB,
        });
    }
    Ok(image)
}

/// The "a.out kludge": the header itself says what to load where (3.1.3).
fn parse_address_fields(file: &[u8], header: Header) -> Result<Image<'_>, ImageError> {
    let reader = Reader { bytes: file };
    let field = |n: u64| {
        let what = "the multiboot header's address fields";
        Ok(u64::from(reader.u32(what, header.offset + 12 + 4 * n)?))
    };
    let (header_addr, load_addr) = (field(0)?, field(1)?);
    let (load_end, bss_end, entry) = (field(2)?, field(3)?, field(4)?);
    let contradiction = ImageError::MultibootAddresses;

    let before_header = header_addr
        .checked_sub(load_addr)
        .ok_or(contradiction("load_addr lies above header_addr"))?;
    let start = header
        .offset
        .checked_sub(before_header)
        .ok_or(contradiction(
            "load_addr lies before the beginning of the file",
        ))?;
    let data_len = match load_end {
        // Zero means: up to the end of the file.
        0 => file.len() as u64 - start,
        end => end
            .checked_sub(load_addr)
            .ok_or(contradiction("load_end_addr lies below load_addr"))?,
    };
    let data = reader.slice("the multiboot kernel", start, data_len)?;
    let mem_size = match bss_end {
        // Zero means: there is no bss.
        0 => data_len,
        end => end
            .checked_sub(load_addr)
            .filter(|size| *size >= data_len)
            .ok_or(contradiction("bss_end_addr lies below load_end_addr"))?,
    };
    if mem_size == 0 {
        return Err(contradiction("nothing to load"));
    }
    if !(load_addr..load_addr + mem_size).contains(&entry) {
        return Err(ImageError::EntryOutside(entry));
    }
    Ok(Image {
        segments: vec![Segment {
            gpa: load_addr,
            data,
            mem_size,
        }],
        entry,
    })
}

const INFO_LEN: usize = 116;
const MODULE_LEN: usize = 16;
const MMAP_ENTRY_LEN: usize = 24;
const INFO_MEMORY: u32 = 1 << 0;
const INFO_CMDLINE: u32 = 1 << 2;
const INFO_MODS: u32 = 1 << 3;
const INFO_MMAP: u32 = 1 << 6;
const INFO_LOADER_NAME: u32 = 1 << 9;
const LOADER_NAME: &str = "vmm_rs bhyveload";

/// The boot information and all it points to, as one block: (address of the multiboot_info
/// structure, its bytes and those of what follows it).
pub fn build_info(
    layout: &mut Layout,
    command_line: &str,
    modules: &[Module],
) -> Result<(u64, Vec<u8>), LayoutError> {
    let mmap = e820(layout.lowmem(), layout.highmem());
    let mods_at = INFO_LEN;
    let mmap_at = mods_at + modules.len() * MODULE_LEN;
    let strings_at = mmap_at + mmap.len() * MMAP_ENTRY_LEN;
    let strings_len: usize = modules.iter().map(|m| m.string.len() + 1).sum::<usize>()
        + command_line.len()
        + LOADER_NAME.len()
        + 2;
    let what = "the multiboot information";
    let base = layout.allocate(what, (strings_at + strings_len) as u64, 16, 0)?;
    let mut block = vec![0; strings_at];
    // All of it lies below 3 GiB (Layout::allocate), so that addresses fit 32 bits.
    let low = |gpa: u64| gpa as u32;
    let add_string = |block: &mut Vec<u8>, text: &str| {
        let at = low(base) + block.len() as u32;
        block.extend(text.bytes());
        block.push(0);
        at
    };
    let put = |block: &mut Vec<u8>, at: usize, value: u32| {
        block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };

    let mut flags = INFO_MEMORY | INFO_CMDLINE | INFO_MMAP | INFO_LOADER_NAME;
    let contiguous = |start: u64, end: u64| low(end.saturating_sub(start) / 1024);
    put(
        &mut block,
        4,
        contiguous(0, layout.lowmem().min(CONVENTIONAL_END)),
    );
    put(&mut block, 8, contiguous(EXTENDED_BASE, layout.lowmem()));
    let at = add_string(&mut block, command_line);
    put(&mut block, 16, at);
    if !modules.is_empty() {
        flags |= INFO_MODS;
        put(&mut block, 20, modules.len() as u32);
        put(&mut block, 24, low(base) + mods_at as u32);
    }
    for (n, module) in modules.iter().enumerate() {
        let entry = mods_at + n * MODULE_LEN;
        put(&mut block, entry, low(module.start));
        put(&mut block, entry + 4, low(module.end));
        let at = add_string(&mut block, &module.string);
        put(&mut block, entry + 8, at);
    }
    put(&mut block, 44, (mmap.len() * MMAP_ENTRY_LEN) as u32);
    put(&mut block, 48, low(base) + mmap_at as u32);
    for (n, range) in mmap.into_iter().enumerate() {
        let entry = mmap_at + n * MMAP_ENTRY_LEN;
        // The size field does not count itself.
        put(&mut block, entry, MMAP_ENTRY_LEN as u32 - 4);
        block[entry + 4..entry + 12].copy_from_slice(&range.base.to_le_bytes());
        block[entry + 12..entry + 20].copy_from_slice(&range.len.to_le_bytes());
        put(&mut block, entry + 20, range.kind as u32);
    }
    let at = add_string(&mut block, LOADER_NAME);
    put(&mut block, 64, at);
    put(&mut block, 0, flags);
    Ok((base, block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(flags: u32, address_fields: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let checksum = 0u32.wrapping_sub(HEADER_MAGIC).wrapping_sub(flags);
        for word in [HEADER_MAGIC, flags, checksum].iter().chain(address_fields) {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    fn kludge(fields: [u32; 5]) -> Vec<u8> {
        let mut file = vec![0x90; 8];
        file.extend(header(FLAG_AOUT_KLUDGE, &fields));
        file.resize(64, 0xaa);
        file
    }

    #[test]
    fn elf_kernels_of_both_classes_are_taken() {
        let head = header(3, &[]);
        let file = elf::tests::elf32(0x10_000c, 0x10_0000, &head, 64);
        assert_eq!(parse(&file).unwrap().entry, 0x10_000c);
        let file = elf::tests::elf64(0x10_000c, &[(0x10_0000, 0x10_0000, &head, 64)]);
        assert_eq!(parse(&file).unwrap().entry, 0x10_000c);
        let file = elf::tests::elf64(1 << 32, &[(1 << 32, 1 << 32, &head, 64)]);
        assert!(matches!(
            parse(&file),
            Err(ImageError::EntryUnreachable { .. })
        ));
    }

    #[test]
    fn header_needs_alignment_checksum_and_place() {
        assert_eq!(
            find_header(&header(0, &[])),
            Some(Header {
                offset: 0,
                flags: 0
            })
        );
        let mut damaged = header(0, &[]);
        damaged[8] ^= 1;
        assert_eq!(find_header(&damaged), None);
        let at = |offset: usize| {
            let mut file = vec![0; offset];
            file.extend(header(0, &[]));
            find_header(&file)
        };
        assert!(at(4).is_some());
        assert!(at(6).is_none());
        assert!(at(SEARCH - 12).is_some());
        assert!(at(SEARCH - 8).is_none());
    }

    #[test]
    fn requirements_that_cannot_be_met_are_refused() {
        assert_eq!(parse(&header(4, &[])), Err(ImageError::MultibootVideoMode));
        assert_eq!(parse(&header(0x8, &[])), Err(ImageError::MultibootFlags(8)));
        // Unknown bits of the upper half may be ignored; what follows then is "not ELF".
        assert_eq!(parse(&header(1 << 20, &[])), Err(ImageError::NotElf));
        assert_eq!(parse(b"hello"), Err(ImageError::MultibootMissing));
    }

    #[test]
    fn address_fields_say_what_to_load_where() {
        let file = kludge([0x10_0008, 0x10_0000, 0x10_0030, 0x10_0100, 0x10_0020]);
        let image = parse(&file).unwrap();
        assert_eq!(image.entry, 0x10_0020);
        assert_eq!(image.segments[0].gpa, 0x10_0000);
        assert_eq!(image.segments[0].data, &file[..0x30]);
        assert_eq!(image.segments[0].mem_size, 0x100);
        // Zeros: to the end of the file, no bss. Loading may begin at the header.
        let file = kludge([0x10_0008, 0x10_0008, 0, 0, 0x10_0020]);
        let image = parse(&file).unwrap();
        assert_eq!(image.segments[0].data, &file[8..]);
        assert_eq!(image.segments[0].mem_size, 56);
    }

    #[test]
    fn contradicting_address_fields_are_named() {
        let why = |fields| parse(&kludge(fields)).unwrap_err().to_string();
        assert!(why([0x100, 0x200, 0, 0, 0]).contains("load_addr lies above header_addr"));
        assert!(why([0x1000, 0x200, 0, 0, 0]).contains("before the beginning of the file"));
        assert!(why([0x208, 0x200, 0x1ff, 0, 0]).contains("load_end_addr lies below load_addr"));
        assert!(why([0x208, 0x200, 0x230, 0x22f, 0x200]).contains("bss_end_addr"));
        assert!(why([0x208, 0x200, 0x1000, 0, 0x200]).contains("truncated"));
        assert!(why([0x208, 0x200, 0, 0, 0x300]).contains("entry point 0x300"));
    }

    #[test]
    fn information_describes_memory_command_line_and_modules() {
        let mut layout = Layout::new(5 << 30);
        let module = Module {
            start: 0x20_0000,
            end: 0x20_0010,
            string: "initrd a=b".into(),
        };
        let (base, block) = build_info(&mut layout, "kernel -v", &[module]).unwrap();
        let word = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap());
        let text = |gpa: u32| {
            let from = &block[(u64::from(gpa) - base) as usize..];
            String::from_utf8(from.split(|b| *b == 0).next().unwrap().to_vec()).unwrap()
        };
        assert_eq!(word(0), 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
        assert_eq!((word(4), word(8)), (640, (3 << 20) - 1024));
        assert_eq!(text(word(16)), "kernel -v");
        assert_eq!(text(word(64)), "vmm_rs bhyveload");
        assert_eq!(word(20), 1);
        let module = (u64::from(word(24)) - base) as usize;
        assert_eq!((word(module), word(module + 4)), (0x20_0000, 0x20_0010));
        assert_eq!(text(word(module + 8)), "initrd a=b");
        let mmap = (u64::from(word(48)) - base) as usize;
        let entries: Vec<_> = (0..word(44) as usize / 24)
            .map(|n| mmap + 24 * n)
            .map(|at| {
                assert_eq!(word(at), 20);
                let long = |a: usize| u64::from(word(a)) | u64::from(word(a + 4)) << 32;
                (long(at + 4), long(at + 12), word(at + 20))
            })
            .collect();
        assert_eq!(
            entries,
            [
                (0, 0xa_0000, 1),
                (0xf_0000, 0x1_0000, 2),
                (0x10_0000, (3 << 30) - 0x10_0000, 1),
                (0xe000_0000, 0x1000_0000, 2),
                (4 << 30, 2 << 30, 1)
            ]
        );
    }

    proptest! {
        #[test]
        fn damaged_kernels_never_panic(
            fields: [u32; 5],
            near: [u8; 5],
            pick: bool,
            cut in 0usize..70,
        ) {
            // Near each other, the fields are more likely to make sense.
            let fields = if pick { fields } else { near.map(|n| 0x10_0000 + u32::from(n)) };
            let mut file = kludge(fields);
            file.truncate(cut);
            if let Ok(image) = parse(&file) {
                prop_assert!(image.segments[0].data.len() as u64 <= image.segments[0].mem_size);
            }
        }
    }
}
