//! What lies in memory for the kernel beside it, and the list that tells the kernel of it:
//! the preload metadata (sys/sys/linker.h, stand/common/modinfo.c). The list is a sequence
//! of records (type, length, value, padded to 8 bytes); a MODINFO_NAME begins each file.

#![forbid(unsafe_code)]

use crate::plan::Piece;

/// Record types (MODINFO_*).
pub mod modinfo {
    pub const END: u32 = 0;
    pub const NAME: u32 = 1;
    pub const TYPE: u32 = 2;
    pub const ADDR: u32 = 3;
    pub const SIZE: u32 = 4;
    pub const ARGS: u32 = 6;
    /// With one of [`super::metadata`] in the lower bits.
    pub const METADATA: u32 = 0x8000;
}

/// What a metadata record is about (MODINFOMD_*).
pub mod metadata {
    pub const ELFHDR: u32 = 0x2;
    pub const SSYM: u32 = 0x3;
    pub const ESYM: u32 = 0x4;
    pub const DYNAMIC: u32 = 0x5;
    pub const ENVP: u32 = 0x6;
    pub const HOWTO: u32 = 0x7;
    pub const KERNEND: u32 = 0x8;
    pub const SHDR: u32 = 0x9;
    pub const CTORS_ADDR: u32 = 0xa;
    pub const CTORS_SIZE: u32 = 0xb;
    pub const SMAP: u32 = 0x1001;
}

pub const KERNEL_TYPE: &str = "elf kernel";
pub const MODULE_TYPE: &str = "elf module";
pub const OBJECT_MODULE_TYPE: &str = "elf obj module";

/// A module that a file needs, by the versions it can do with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dependency {
    pub name: String,
    pub minimum: i32,
    pub preferred: i32,
    pub maximum: i32,
}

impl Dependency {
    pub fn admits(&self, version: i32) -> bool {
        version == self.preferred || (self.minimum..=self.maximum).contains(&version)
    }
}

/// A file in guest memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Preloaded {
    /// The path that the kernel is told.
    pub name: String,
    pub kind: String,
    pub arguments: Option<String>,
    pub address: u64,
    /// Bytes in memory, symbols included.
    pub size: u64,
    pub metadata: Vec<(u32, Vec<u8>)>,
    pub pieces: Vec<Piece<'static>>,
    /// The modules in it, with their versions.
    pub modules: Vec<(String, i32)>,
    pub depends: Vec<Dependency>,
}

impl Preloaded {
    /// A file that the kernel takes as it is: a disk image, entropy, a hostid.
    pub fn raw(name: String, kind: String, address: u64, bytes: Vec<u8>) -> Self {
        let size = bytes.len() as u64;
        Self {
            name,
            kind,
            address,
            size,
            pieces: vec![Piece {
                gpa: address,
                data: bytes.into(),
                len: size,
            }],
            ..Self::default()
        }
    }

    pub fn end(&self) -> u64 {
        self.address + self.size
    }

    pub fn add_metadata(&mut self, kind: u32, bytes: impl Into<Vec<u8>>) {
        self.metadata.push((kind, bytes.into()));
    }

    /// Whether it has a module that a dependency, or a name alone, asks for.
    pub fn provides(&self, name: &str, dependency: Option<&Dependency>) -> bool {
        self.modules
            .iter()
            .any(|(n, version)| n == name && dependency.is_none_or(|d| d.admits(*version)))
    }
}

/// The list of all files, the kernel first.
pub fn metadata_list(files: &[Preloaded]) -> Vec<u8> {
    let mut list = Vec::new();
    for file in files {
        text(&mut list, modinfo::NAME, &file.name);
        text(&mut list, modinfo::TYPE, &file.kind);
        if let Some(arguments) = &file.arguments {
            text(&mut list, modinfo::ARGS, arguments);
        }
        record(&mut list, modinfo::ADDR, &file.address.to_le_bytes());
        record(&mut list, modinfo::SIZE, &file.size.to_le_bytes());
        for (kind, bytes) in &file.metadata {
            record(&mut list, modinfo::METADATA | kind, bytes);
        }
    }
    record(&mut list, modinfo::END, &[]);
    list
}

fn text(list: &mut Vec<u8>, kind: u32, text: &str) {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    record(list, kind, &bytes);
}

fn record(list: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
    list.extend(kind.to_le_bytes());
    // Files are bounded by the first gigabyte of memory, and so are headers of them.
    list.extend((bytes.len() as u32).to_le_bytes());
    list.extend(bytes);
    list.resize(list.len().next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_padded_and_the_list_ends() {
        let mut file = Preloaded::raw("/k".into(), "t".into(), 0x20_0000, vec![1; 9]);
        file.add_metadata(metadata::HOWTO, [1, 2, 3, 4]);
        file.arguments = Some("-v".into());
        let list = metadata_list(&[file]);
        let words: Vec<u32> = list
            .chunks(4)
            .map(|w| u32::from_le_bytes(w.try_into().unwrap()))
            .collect();
        let expected = [
            [1, 3, u32::from_le_bytes(*b"/k\0\0"), 0],
            [2, 2, u32::from(b't'), 0],
            [6, 3, u32::from_le_bytes(*b"-v\0\0"), 0],
            [3, 8, 0x20_0000, 0],
            [4, 8, 9, 0],
            [0x8007, 4, 0x0403_0201, 0],
        ];
        assert_eq!(words, [expected.concat(), vec![0, 0]].concat());
    }

    #[test]
    fn a_dependency_is_met_by_a_version_within_its_bounds() {
        let file = Preloaded {
            modules: vec![("kernel".into(), 1_501_000), ("pci".into(), 1)],
            ..Preloaded::default()
        };
        let needs = |minimum, preferred, maximum| Dependency {
            name: "kernel".into(),
            minimum,
            preferred,
            maximum,
        };
        assert!(file.provides("kernel", Some(&needs(1_500_000, 1_500_000, 1_599_999))));
        assert!(!file.provides("kernel", Some(&needs(1_600_000, 1_600_000, 1_699_999))));
        assert!(file.provides("kernel", None) && file.provides("pci", None));
        assert!(!file.provides("usb", None));
    }
}
