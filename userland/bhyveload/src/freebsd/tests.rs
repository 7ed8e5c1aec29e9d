//! The loader against a volume in memory: what it makes is read back by an independent
//! reader of guest memory, along the kernel's own steps (preload_search_by_type, MD_FETCH),
//! with ELF files that a small writer makes.

use std::collections::BTreeMap;

use super::environment::howto;
use super::loader::{HostFile, Request, plan};
use crate::console::tests::recording;
use crate::fs::{FileRead, FileSystem, FsError};
use crate::plan::{Plan, Start};

/// A volume in memory.
pub struct Tree(BTreeMap<String, Vec<u8>>);

impl Tree {
    pub fn new<T: AsRef<[u8]>>(files: &[(&str, T)]) -> Self {
        let entry = |(path, bytes): &(&str, T)| ((*path).to_owned(), bytes.as_ref().to_vec());
        Self(files.iter().map(entry).collect())
    }

    fn with(mut self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.0.insert(path.to_owned(), bytes.as_ref().to_vec());
        self
    }
}

struct Bytes<'a>(&'a [u8]);

impl FileRead for Bytes<'_> {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl FileSystem for Tree {
    fn open(&self, path: &str) -> Result<Option<Box<dyn FileRead + '_>>, FsError> {
        let file = self.0.get(path);
        Ok(file.map(|bytes| Box::new(Bytes(bytes)) as Box<dyn FileRead>))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>, FsError> {
        let prefix = format!("{path}/");
        let names: Vec<String> = self
            .0
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix))
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .collect();
        Ok((!names.is_empty()).then_some(names))
    }
}

// ---- A writer of ELF files ----------------------------------------------------------

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

const BASE: u64 = 0xffff_ffff_8020_0000;

/// A kernel with modules "kernel" 1501000 and "acpi" 1, and symbols.
fn kernel() -> Vec<u8> {
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
fn module(name: &str, version: u32, needs: &[(&str, u32, u32, u32)]) -> Vec<u8> {
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

// ---- A reader of guest memory, as the kernel reads it ---------------------------------

struct Memory<'a>(&'a Plan<'static>);

impl Memory<'_> {
    /// Bytes at a physical address; what nothing was put at is zero.
    fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        for piece in &self.0.pieces {
            for (n, byte) in piece.data.iter().enumerate() {
                let at = piece.gpa + n as u64;
                if let Some(place) = at.checked_sub(gpa).and_then(|n| out.get_mut(n as usize)) {
                    *place = *byte;
                }
            }
        }
        out
    }

    fn u32(&self, gpa: u64) -> u32 {
        u32::from_le_bytes(self.bytes(gpa, 4).try_into().unwrap())
    }

    fn u64(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(self.bytes(gpa, 8).try_into().unwrap())
    }

    fn text(&self, gpa: u64) -> String {
        let bytes = self.bytes(gpa, 4096);
        String::from_utf8(bytes.split(|b| *b == 0).next().unwrap().to_vec()).unwrap()
    }

    /// What a virtual address is in the page tables that the vcpu begins with.
    fn translate(&self, page_tables: u64, address: u64) -> u64 {
        let mut table = page_tables;
        for shift in [39, 30] {
            let entry = self.u64(table + 8 * (address >> shift & 511));
            assert_eq!(entry & 0b1000_0011, 0b11);
            table = entry & !0xfff;
        }
        let entry = self.u64(table + 8 * (address >> 21 & 511));
        assert_eq!(entry & 0b1000_0011, 0b1000_0011);
        (entry & !0x1f_ffff) | address & 0x1f_ffff
    }
}

/// One file as the list tells it.
#[derive(Default, Debug)]
struct Entry {
    name: String,
    kind: String,
    arguments: String,
    address: u64,
    size: u64,
    metadata: BTreeMap<u32, (u64, u32)>,
}

/// What a kernel finds.
struct Found<'a> {
    memory: Memory<'a>,
    files: Vec<Entry>,
    environment: Vec<String>,
}

impl Found<'_> {
    fn metadata(&self, kind: u32) -> u64 {
        self.memory.u64(self.files[0].metadata[&kind].0)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let find = |v: &'_ String| v.split_once('=').is_some_and(|(n, _)| n == name);
        let variable = self.environment.iter().find(|v| find(v))?;
        variable.split_once('=').map(|(_, value)| value)
    }

    fn howto(&self) -> u32 {
        self.metadata(7) as u32
    }

    fn names(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.name.as_str()).collect()
    }
}

fn read<'a>(plan: &'a Plan<'static>) -> Found<'a> {
    let memory = Memory(plan);
    let Start::FreeBsd {
        entry,
        page_tables,
        gdt,
        stack,
    } = plan.start
    else {
        panic!("not FreeBSD's state");
    };
    assert_eq!((entry, stack), (BASE + 4, 0x1000));
    // btext: the stack's words, through the page tables.
    let word = |n| memory.u32(memory.translate(page_tables, stack + n));
    let (modulep, kernel_end) = (u64::from(word(4)), u64::from(word(8)));
    assert_eq!(memory.u64(gdt + 8), 0x0020_9a00_0000_0000);
    assert_eq!(memory.u64(gdt + 16), 0x0000_9200_0000_0000);
    assert_eq!(memory.translate(page_tables, BASE), 0x20_0000);
    assert_eq!(memory.translate(page_tables, 0x20_0000), 0x20_0000);

    let mut files: Vec<Entry> = Vec::new();
    let mut at = modulep;
    loop {
        let (kind, len) = (memory.u32(at), memory.u32(at + 4));
        let value = at + 8;
        at = value + u64::from(len).next_multiple_of(8);
        match kind {
            0 => break,
            1 => files.push(Entry {
                name: memory.text(value),
                ..Entry::default()
            }),
            _ => {
                let file = files.last_mut().expect("a name comes first");
                match kind {
                    2 => file.kind = memory.text(value),
                    3 => file.address = memory.u64(value),
                    4 => file.size = memory.u64(value),
                    6 => file.arguments = memory.text(value),
                    _ => {
                        assert_eq!(kind & !0x7fff, 0x8000, "{kind:#x}");
                        file.metadata.insert(kind & 0x7fff, (value, len));
                    }
                }
            }
        }
    }
    let mut found = Found {
        memory,
        files,
        environment: Vec::new(),
    };
    // Nothing overlaps, and the kernel's free memory begins behind all of it.
    let mut end = 0;
    for file in &found.files {
        assert!(file.address >= end && file.address % 4096 == 0, "{file:?}");
        end = file.address + file.size;
    }
    let envp = found.metadata(6);
    assert!(envp >= end && modulep > envp && envp % 4096 == 0);
    assert_eq!(found.metadata(8), kernel_end);
    assert!(kernel_end >= at && kernel_end % 4096 == 0);
    let mut at = envp;
    loop {
        let variable = found.memory.text(at);
        at += variable.len() as u64 + 1;
        if variable.is_empty() {
            break;
        }
        found.environment.push(variable);
    }
    assert!(at <= modulep);
    found
}

// ---- Tests ---------------------------------------------------------------------------

fn request<'a>(tree: &'a Tree, variables: &[&str]) -> Request<'a> {
    Request {
        files: Some(tree),
        volume: "disk0p2",
        kernel: None,
        modules: Vec::new(),
        defaults: vec!["boot_serial=1".into(), "smbios.bios.vendor=BHYVE".into()],
        variables: variables.iter().map(|v| (*v).to_owned()).collect(),
        memory: 256 << 20,
    }
}

/// The plan, what was printed and what was warned about.
fn load(request: Request<'_>) -> (Plan<'static>, String, String) {
    let (mut console, out, errors) = recording(false);
    let plan = plan(request, &mut console).unwrap();
    (plan, out.text(), errors.text())
}

fn refusal(request: Request<'_>) -> String {
    let (mut console, _, _) = recording(false);
    plan(request, &mut console).unwrap_err().to_string()
}

fn disk() -> Tree {
    Tree::new(&[("/boot/kernel/kernel", kernel())])
        .with("/etc/fstab", "/dev/vtbd0p2 / ufs rw 1 1\n")
}

#[test]
fn a_kernel_finds_itself_its_environment_and_its_memory() {
    let tree = disk().with("/boot/loader.conf", "boot_verbose=\"YES\"\nkern.hz=100\n");
    let (plan, out, warnings) = load(Request {
        memory: 5 << 30,
        ..request(&tree, &[])
    });
    assert_eq!(warnings, "");
    assert!(out.contains("disk0p2:/boot/loader.conf\n"), "{out}");
    let line = format!("disk0p2:/boot/kernel/kernel, {} bytes\n", kernel().len());
    assert!(out.contains(&line), "{out}");

    let found = read(&plan);
    let file = &found.files[0];
    assert_eq!(
        (file.name.as_str(), file.kind.as_str()),
        ("/boot/kernel/kernel", "elf kernel")
    );
    assert_eq!(file.address, 0x20_0000);
    assert_eq!(found.memory.bytes(0x20_0000, 13), b"kernel's code");
    assert_eq!(found.howto(), howto::SERIAL | howto::VERBOSE);
    for (name, value) in [
        ("kern.hz", "100"),
        ("boot_verbose", "YES"),
        ("smbios.bios.vendor", "BHYVE"),
        ("kernelname", "/boot/kernel/kernel"),
        ("kernel_path", "/boot/kernel"),
        ("module_path", "/boot/kernel;/boot/modules;/boot/firmware"),
        ("currdev", "disk0p2:"),
        ("vfs.root.mountfrom", "ufs:/dev/vtbd0p2"),
        ("vfs.root.mountfrom.options", "rw"),
    ] {
        assert_eq!(found.variable(name), Some(value), "{name}");
    }

    // SSYM and ESYM: length, table, length, strings, each padded to 8 bytes.
    let (start, end) = (found.metadata(3), found.metadata(4));
    assert_eq!(start, (0x20_1000 + 0x2345_u64).next_multiple_of(8));
    assert_eq!(found.memory.u64(start), 48);
    assert_eq!(found.memory.bytes(start + 8, 48), [0x5a; 48]);
    assert_eq!(found.memory.u64(start + 56), 7);
    assert_eq!(found.memory.bytes(start + 64, 7), b"\0btext\0");
    assert_eq!(end, start + 72);
    assert_eq!(file.address + file.size, end);
    // The ELF header, the section headers.
    let (header, len) = file.metadata[&2];
    assert_eq!(found.memory.bytes(header, 64), kernel()[..64]);
    assert_eq!((len, file.metadata[&9].1), (64, 7 * 64));

    let (smap, len) = file.metadata[&0x1001];
    let ranges: Vec<_> = (0..u64::from(len) / 20)
        .map(|n| smap + 20 * n)
        .map(|at| {
            (
                found.memory.u64(at),
                found.memory.u64(at + 8),
                found.memory.u32(at + 16),
            )
        })
        .filter(|(_, _, kind)| *kind == 1)
        .collect();
    assert_eq!(
        ranges,
        [
            (0, 0xa_0000, 1),
            (0x10_0000, (3 << 30) - 0x10_0000, 1),
            (4 << 30, 2 << 30, 1)
        ]
    );
}

#[test]
fn modules_come_with_what_they_need_and_their_sections_are_found() {
    let any = (1, 1, 9);
    let needs = |name: &'static str| (name, any.0, any.1, any.2);
    let kernel_needed = ("kernel", 1_500_000, 1_500_000, 1_599_999);
    let tree = disk()
        .with(
            "/boot/loader.conf",
            "if_bridge_load=\"YES\"\nif_bridge_flags=\"debug=1\"\nacpi_load=\"YES\"\n\
             bridgestp_load=\"YES\"\nold_load=\"YES\"\n",
        )
        .with(
            "/boot/kernel/if_bridge.ko",
            module("if_bridge", 1, &[needs("bridgestp"), kernel_needed]),
        )
        .with(
            "/boot/kernel/stp.ko",
            module("bridgestp", 1, &[kernel_needed]),
        )
        .with(
            "/boot/kernel/linker.hints",
            super::hints::tests::hints(&[("bridgestp", 1, "stp.ko")]),
        )
        .with(
            "/boot/modules/old.ko",
            module("old", 1, &[("kernel", 1_400_000, 1_400_000, 1_499_999)]),
        );
    let (plan, out, warnings) = load(request(&tree, &[]));
    let found = read(&plan);
    let expected = [
        "/boot/kernel/kernel",
        "/boot/kernel/if_bridge.ko",
        "/boot/kernel/stp.ko",
    ];
    assert_eq!(found.names(), expected, "{out}");
    assert_eq!(warnings.lines().count(), 1, "{warnings}");
    assert!(warnings.contains("old.ko needs module kernel in version 1400000 to 1499999"));
    let bridge = &found.files[1];
    assert_eq!(bridge.kind, "elf obj module");
    assert_eq!(bridge.arguments, "debug=1");

    // link_elf_obj.c: sections with an address are loaded, there.
    let (headers, len) = bridge.metadata[&9];
    let field = |n: u64, at: u64| found.memory.u64(headers + 64 * n + at);
    assert_eq!(u64::from(len), 11 * 64);
    let address = |n| field(n, 16);
    assert_eq!(address(1), bridge.address);
    assert_eq!(found.memory.bytes(address(1), 17), b"code of if_bridge");
    for n in [1, 2, 3, 4, 5, 6, 7, 8, 10] {
        let align = field(n, 48).max(1);
        assert!(address(n) != 0 && address(n) % align == 0, "section {n}");
        assert!(
            address(n) + field(n, 32) <= bridge.address + bridge.size,
            "section {n}"
        );
    }
    assert_eq!(address(9), 0, ".comment");
    let names = found.memory.bytes(address(10), 64);
    assert!(names.windows(5).any(|w| w == b".text"));
    assert_eq!(found.memory.bytes(bridge.metadata[&2].0, 4), b"\x7fELF");
}

#[test]
fn other_files_lie_on_pages_of_their_own() {
    let tree = disk()
        .with(
            "/boot/loader.conf",
            "mfsroot_load=YES\nmfsroot_type=\"mfs_root\"\nmfsroot_name=\"/boot/mfsroot\"\n\
             boot_single=YES\nvfs.root.mountfrom=\"ufs:md0\"\n",
        )
        .with("/boot/mfsroot", vec![7; 5000]);
    let (plan, _, warnings) = load(request(&tree, &[]));
    let found = read(&plan);
    assert_eq!(warnings, "");
    assert_eq!(found.names(), ["/boot/kernel/kernel", "/boot/mfsroot"]);
    let image = &found.files[1];
    assert_eq!((image.kind.as_str(), image.size), ("mfs_root", 5000));
    assert_eq!(found.memory.bytes(image.address, 5000), [7; 5000]);
    assert_eq!(found.howto(), howto::SINGLE | howto::SERIAL);
    assert_eq!(found.variable("vfs.root.mountfrom"), Some("ufs:md0"));

    let missing = disk().with(
        "/boot/loader.conf",
        "mfsroot_load=YES\nmfsroot_type=\"mfs_root\"\nmfsroot_name=\"/boot/mfsroot\"\n",
    );
    let error = refusal(request(&missing, &[]));
    assert_eq!(error, "disk0p2:/boot/mfsroot: there is no such file");
}

#[test]
fn the_kernel_is_looked_for_as_loader_does() {
    let other = |path: &str, variables: &[&str]| {
        let tree = Tree::new(&[(path, kernel())]);
        let (plan, _, _) = load(request(&tree, variables));
        read(&plan).names()[0].to_owned()
    };
    assert_eq!(other("/boot/kernel/kernel", &[]), "/boot/kernel/kernel");
    // Compressed; the kernel is told the name without .gz.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &kernel()).unwrap();
    let tree = Tree::new(&[("/boot/kernel/kernel.gz", packed.finish().unwrap())]);
    let (plan, _, _) = load(request(&tree, &[]));
    assert_eq!(read(&plan).names(), ["/boot/kernel/kernel"]);
    let conf = |text: &str, path: &str| {
        let tree = Tree::new(&[
            ("/boot/loader.conf", text.as_bytes().to_vec()),
            (path, kernel()),
        ]);
        let (plan, _, _) = load(request(&tree, &[]));
        read(&plan).names()[0].to_owned()
    };
    assert_eq!(
        conf("kernel=\"GENERIC\"", "/boot/GENERIC/kernel"),
        "/boot/GENERIC/kernel"
    );
    assert_eq!(conf("kernel=\"/k\"", "/k/kernel"), "/k/kernel");
    assert_eq!(
        conf("bootfile=\"k.new;k\"", "/boot/kernel/k"),
        "/boot/kernel/k"
    );
    assert_eq!(conf("bootfile=\"/my/kernel\"", "/my/kernel"), "/my/kernel");

    let error = refusal(request(&Tree::new(&[("/etc/x", "")]), &[]));
    assert_eq!(
        error,
        "disk0p2 has no kernel: there is no /boot/kernel/kernel, kernel/kernel"
    );
    let error = refusal(request(
        &Tree::new(&[("/boot/kernel/kernel", "#!/bin/sh")]),
        &[],
    ));
    assert_eq!(error, "disk0p2:/boot/kernel/kernel: not an ELF file");
    let tree = Tree::new(&[("/boot/kernel/kernel", module("x", 1, &[]))]);
    assert!(refusal(request(&tree, &[])).ends_with("kernel: a kernel module, not a kernel"));
}

#[test]
fn the_hosts_files_can_be_the_kernel_and_modules() {
    let host = |path: &str, bytes: Vec<u8>, kind: Option<&str>| HostFile {
        path: path.to_owned(),
        bytes,
        arguments: "-v".to_owned(),
        kind: kind.map(str::to_owned),
    };
    let (plan, out, warnings) = load(Request {
        files: None,
        kernel: Some(host("/tmp/kernel", kernel(), None)),
        modules: vec![
            host("x.ko", module("x", 1, &[("kernel", 1, 1, 2_000_000)]), None),
            host("image", vec![9; 100], Some("md_image")),
        ],
        ..request(&disk(), &["vfs.root.mountfrom=ufs:/dev/md0"])
    });
    let found = read(&plan);
    assert_eq!(found.names(), ["/tmp/kernel", "x.ko", "image"]);
    assert_eq!(found.files[2].kind, "md_image");
    assert_eq!(found.howto(), howto::VERBOSE | howto::SERIAL);
    assert_eq!(found.variable("currdev"), None);
    assert!(
        out.contains("image, 100 bytes") && warnings.is_empty(),
        "{out}{warnings}"
    );
    let error = refusal(Request {
        files: None,
        kernel: Some(host("k", kernel(), None)),
        modules: vec![host("y.ko", module("y", 1, &[("usb", 1, 1, 1)]), None)],
        ..request(&disk(), &[])
    });
    assert!(error.starts_with("y.ko: y.ko needs module usb"), "{error}");
}

#[test]
fn what_has_no_room_is_named() {
    let tree = disk()
        .with(
            "/boot/loader.conf",
            "x_load=YES\nx_type=\"md_image\"\nx_name=\"/x\"\n",
        )
        .with("/x", vec![0; 3 << 20]);
    let (plan, _, warnings) = load(Request {
        memory: 4 << 20,
        ..request(&tree, &[])
    });
    assert_eq!(read(&plan).names().len(), 1);
    assert!(
        warnings.contains("no room for /x (3145728 bytes)"),
        "{warnings}"
    );
    let error = refusal(Request {
        memory: 1 << 20,
        ..request(&tree, &[])
    });
    assert!(
        error.contains("/boot/kernel/kernel: no room: it takes 0x200000 to"),
        "{error}"
    );
}

#[test]
fn what_the_command_line_sets_can_be_set_again_by_the_disk_and_is_said() {
    let tree = disk().with("/boot/loader.conf", "a=\"2\"\n");
    let (plan, _, warnings) = load(request(&tree, &["a=1", "b=1"]));
    let found = read(&plan);
    assert_eq!(
        (found.variable("a"), found.variable("b")),
        (Some("2"), Some("1"))
    );
    assert_eq!(
        warnings,
        "bhyveload: warning: -e a=1: loader.conf sets it to \"2\"\n"
    );
    let tree = Tree::new(&[("/boot/kernel/kernel", kernel())]);
    let (_, _, warnings) = load(request(&tree, &[]));
    assert!(
        warnings.contains("disk0p2:/etc/fstab has no entry for /"),
        "{warnings}"
    );
}

#[test]
fn kernels_are_told_from_other_elf_files() {
    use super::image::is_kernel;
    assert!(is_kernel(&kernel()));
    let mut file = kernel();
    file[7] = 0;
    assert!(!is_kernel(&file), "an executable of another system");
    assert!(!is_kernel(&module("x", 1, &[])));
    let low = crate::elf::tests::elf64(0x10_0000, &[(0x10_0000, 0x10_0000, b"code", 16)]);
    assert!(!is_kernel(&low));
    assert!(!is_kernel(b""));
}

mod damaged {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn kernels_and_modules_never_panic(
            changes in proptest::collection::vec((0usize..4096, any::<u8>()), 0..8),
            of_kernel: bool,
            cut in proptest::option::of(0usize..3000),
        ) {
            let mut files = [kernel(), module("x", 1, &[("kernel", 1, 1, 9)])];
            let file = &mut files[usize::from(!of_kernel)];
            for (at, byte) in changes {
                let len = file.len();
                file[at % len] = byte;
            }
            if let Some(cut) = cut {
                file.truncate(cut);
            }
            let [kernel, module] = files;
            let tree = Tree::new(&[
                ("/boot/kernel/kernel", kernel),
                ("/boot/kernel/x.ko", module),
                ("/boot/loader.conf", b"x_load=YES".to_vec()),
            ]);
            let (mut console, _, _) = recording(false);
            if let Ok(plan) = plan(request(&tree, &[]), &mut console) {
                let fits = plan.pieces.iter().all(|p| p.gpa + p.len <= 256 << 20);
                prop_assert!(fits);
            }
        }
    }
}
