//! The loader against a volume in memory: what it makes is read back by an independent
//! reader of guest memory, along the kernel's own steps (preload_search_by_type, MD_FETCH),
//! with ELF files that a small writer makes.

mod elf;
mod memory;

use std::collections::BTreeMap;

use super::environment::howto;
use super::loader::{HostFile, Request, plan};
use crate::console::tests::recording;
use crate::fs::{FileRead, FileSystem, FsError};
use crate::plan::Plan;
use elf::{kernel, module};
use memory::read;

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
