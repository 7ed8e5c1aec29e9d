//! A kernel in the eyes of FreeBSD's loaders: linked where FreeBSD/amd64's is (freebsd.ld),
//! entered at btext as that is (sys/amd64/amd64/locore.S). It walks what the loader left for
//! it in the kernel's own way (sys/kern/subr_module.c), says what it found on COM1, and
//! whether it makes sense: modules, environment, memory map, symbols.
//!
//! Its own program without the kit: the kit's first instructions are a multiboot kernel's.

#![no_std]
#![no_main]

#[path = "../console.rs"]
mod console;
#[path = "../cpu.rs"]
#[allow(dead_code)]
mod cpu;

use core::panic::PanicInfo;

// The words behind the return address that can't be used; then a stack of its own, and
// physical memory through the loader's page tables, in which each gigabyte is the first.
core::arch::global_asm!(
    ".section .text.btext, \"ax\"",
    ".globl btext",
    "btext:",
    "mov %rsp, %rbp",
    "mov $boot_stack_top, %rsp",
    "mov 4(%rbp), %edi",
    "mov 8(%rbp), %esi",
    "xor %ebp, %ebp",
    "call kernel_main",
    "ud2",
    ".section .bss",
    ".align 16",
    "boot_stack: .skip 32768",
    "boot_stack_top:",
    options(att_syntax)
);

unsafe extern "C" {
    fn btext();
    static _start_of_kernel: u8;
    static _end_of_kernel: u8;
}

/// struct mod_metadata (sys/sys/module.h).
#[repr(C)]
struct ModMetadata {
    version: i32,
    kind: i32,
    data: &'static i32,
    name: *const u8,
}

/// In the linker set.
#[repr(transparent)]
struct Record(&'static ModMetadata);

// SAFETY: nothing changes them.
unsafe impl Sync for ModMetadata {}
// SAFETY: as above.
unsafe impl Sync for Record {}

const MDT_VERSION: i32 = 3;

static KERNEL_VERSION: i32 = 1_501_000;
static KERNEL_MODULE: ModMetadata = ModMetadata {
    version: 1,
    kind: MDT_VERSION,
    data: &KERNEL_VERSION,
    name: c"kernel".as_ptr().cast(),
};
#[used]
#[unsafe(link_section = "set_modmetadata_set")]
static SET: Record = Record(&KERNEL_MODULE);

const KERNBASE: u64 = 0xffff_ffff_8000_0000;

/// Memory at a physical address, which has to be loaded memory: between the kernel and the
/// end of all that the loader put behind it.
fn memory(kernel_end: u64, at: u64, len: u64) -> &'static [u8] {
    let end = at.checked_add(len).expect("an address");
    assert!(
        at >= 0x20_0000 && end <= kernel_end,
        "{at:#x}+{len:#x} is loaded"
    );
    // SAFETY: the loader's page tables map it, and nobody writes there any more.
    unsafe { core::slice::from_raw_parts((KERNBASE + at) as *const u8, len as usize) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn text(bytes: &[u8]) -> &str {
    let text = bytes.split(|byte| *byte == 0).next().unwrap();
    core::str::from_utf8(text).expect("UTF-8")
}

/// One file of the list.
#[derive(Clone, Copy, Default)]
struct File {
    name: &'static str,
    kind: &'static str,
    arguments: &'static str,
    address: u64,
    size: u64,
    elf_header: &'static [u8],
    sections: &'static [u8],
}

const MODINFO_METADATA: u32 = 0x8000;

/// What the loader left: the list of files, the kernel's part of it.
struct Preload {
    kernel_end: u64,
    list: &'static [u8],
}

impl Preload {
    /// Each record: type, value.
    fn records(&self) -> impl Iterator<Item = (u32, &'static [u8])> {
        let list = self.list;
        let mut at = 0;
        core::iter::from_fn(move || {
            let (kind, len) = (u32_at(list, at), u32_at(list, at + 4) as usize);
            let value = &list[at + 8..at + 8 + len];
            at += 8 + len.next_multiple_of(8);
            (kind != 0).then_some((kind, value))
        })
    }

    /// The first metadata of a kind: the kernel's, which comes first.
    fn kernel_metadata(&self, kind: u32) -> Option<&'static [u8]> {
        let mut records = self.records();
        records.find_map(|(k, value)| (k == MODINFO_METADATA | kind).then_some(value))
    }

    fn files(&self, mut each: impl FnMut(File)) {
        let mut file: Option<File> = None;
        for (kind, value) in self.records() {
            if kind == 1 {
                let next = File {
                    name: text(value),
                    ..File::default()
                };
                if let Some(last) = file.replace(next) {
                    each(last);
                }
                continue;
            }
            let file = file.as_mut().expect("a name comes first");
            match kind {
                2 => file.kind = text(value),
                3 => file.address = u64_at(value, 0),
                4 => file.size = u64_at(value, 0),
                6 => file.arguments = text(value),
                0x8002 => file.elf_header = value,
                0x8009 => file.sections = value,
                _ => assert!(kind & MODINFO_METADATA != 0, "record {kind:#x}"),
            }
        }
        each(file.expect("a file"));
    }

    fn memory(&self, at: u64, len: u64) -> &'static [u8] {
        memory(self.kernel_end, at, len)
    }
}

#[unsafe(no_mangle)]
extern "C" fn kernel_main(metadata: u32, kernel_end: u32) -> ! {
    println!("btext: metadata at {metadata:#x}, the end at {kernel_end:#x}");
    let (metadata, kernel_end) = (u64::from(metadata), u64::from(kernel_end));
    assert!(metadata % 4096 == 0 && kernel_end % 4096 == 0, "pages");
    let preload = Preload {
        kernel_end,
        list: memory(kernel_end, metadata, kernel_end - metadata),
    };
    files(&preload, metadata);
    environment(&preload);
    memory_map(&preload);
    symbols(&preload);
    println!("GUEST-OK");
    poweroff()
}

fn files(preload: &Preload, metadata: u64) {
    let mut end = 0;
    let mut count = 0;
    preload.files(|file| {
        println!(
            "file {} ({}) at {:#x}, {} bytes{}{}",
            file.name,
            file.kind,
            file.address,
            file.size,
            if file.arguments.is_empty() {
                ""
            } else {
                ", arguments "
            },
            file.arguments
        );
        assert!(
            file.address >= end && file.address % 4096 == 0,
            "files overlap"
        );
        end = file.address + file.size;
        assert!(end <= metadata, "the list lies in a file");
        count += 1;
        match file.kind {
            "elf kernel" => {
                assert_eq!(count, 1, "the kernel is first");
                let start = &raw const _start_of_kernel as u64;
                let len = &raw const _end_of_kernel as u64 - start;
                assert_eq!(file.address, start - KERNBASE);
                assert!(file.size >= len);
                assert_eq!(
                    u64_at(file.elf_header, 24),
                    btext as *const () as u64,
                    "e_entry"
                );
            }
            "elf obj module" => module(preload, &file),
            _ => {
                let bytes = preload.memory(file.address, file.size);
                let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
                println!("  the sum of its bytes is {sum}");
            }
        }
    });
    let stored = u64_at(preload.kernel_metadata(8).expect("KERNEND"), 0);
    assert_eq!(stored, preload.kernel_end);
}

/// Finds the module's .data by the section headers, as the kernel's linker does.
fn module(preload: &Preload, file: &File) {
    assert!(file.elf_header.starts_with(b"\x7fELF"));
    let count = usize::from(u16::from_le_bytes([
        file.elf_header[60],
        file.elf_header[61],
    ]));
    let names = usize::from(u16::from_le_bytes([
        file.elf_header[62],
        file.elf_header[63],
    ]));
    assert_eq!(file.sections.len(), 64 * count);
    let section = |n: usize| &file.sections[64 * n..64 * n + 64];
    let bytes = |n: usize| preload.memory(u64_at(section(n), 16), u64_at(section(n), 32));
    let names = bytes(names);
    for n in 1..count {
        let (address, size) = (u64_at(section(n), 16), u64_at(section(n), 32));
        if address == 0 {
            continue;
        }
        assert!(address >= file.address && address + size <= file.address + file.size);
        if text(&names[u32_at(section(n), 0) as usize..]) == ".data" {
            println!("  its .data says: {}", text(bytes(n)));
        }
    }
}

fn environment(preload: &Preload) {
    let at = u64_at(preload.kernel_metadata(6).expect("ENVP"), 0);
    let mut bytes = preload.memory(at, preload.kernel_end - at);
    while bytes[0] != 0 {
        let variable = text(bytes);
        assert!(variable.contains('='), "{variable}");
        println!("kenv {variable}");
        bytes = &bytes[variable.len() + 1..];
    }
    let howto = u32_at(preload.kernel_metadata(7).expect("HOWTO"), 0);
    println!("howto {howto:#x}");
}

fn memory_map(preload: &Preload) {
    let map = preload.kernel_metadata(0x1001).expect("SMAP");
    assert!(map.len() % 20 == 0, "{} bytes", map.len());
    let mut end = 0;
    for range in map.chunks_exact(20) {
        let (base, len, kind) = (u64_at(range, 0), u64_at(range, 8), u32_at(range, 16));
        println!("smap {base:#x} {len:#x} type {kind}");
        assert!(base >= end, "ranges overlap");
        end = base + len;
    }
}

/// Finds btext in the symbol table that lies behind the kernel.
fn symbols(preload: &Preload) {
    let pointer = |kind| u64_at(preload.kernel_metadata(kind).expect("symbols"), 0);
    let (start, end) = (pointer(3), pointer(4));
    let table_len = u64_at(preload.memory(start, 8), 0);
    let table = preload.memory(start + 8, table_len);
    let strings_at = (start + 8 + table_len).next_multiple_of(8);
    let strings_len = u64_at(preload.memory(strings_at, 8), 0);
    let strings = preload.memory(strings_at + 8, strings_len);
    assert_eq!((strings_at + 8 + strings_len).next_multiple_of(8), end);
    let found = table.chunks_exact(24).find(|symbol| {
        let name = u32_at(symbol, 0) as usize;
        text(&strings[name..]) == "btext"
    });
    let value = u64_at(found.expect("btext among the symbols"), 8);
    assert_eq!(value, btext as *const () as u64);
    println!("{} symbols, btext at {value:#x}", table.len() / 24);
}

/// S5 in PM1a_CNT at bhyve's port (ACPI 4.8.3.2.1).
fn poweroff() -> ! {
    cpu::outw(0x404, 5 << 10 | 1 << 13);
    loop {
        cpu::halt();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("GUEST-FAIL: {info}");
    poweroff()
}
