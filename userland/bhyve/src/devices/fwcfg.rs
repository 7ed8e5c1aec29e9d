//! QEMU's firmware configuration device (QEMU, docs/specs/fw_cfg.rst), which bhyve has with
//! `lpc.fwcfg=qemu`: numbered items of bytes that firmware and kernels read through two
//! ports. Some numbers are fixed; behind the others are files, which a directory names. In
//! them are what `-f` gives, and the order in which to try the disks that have a bootindex.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::pci::Bdf;
use crate::ports::{PortDevice, Width};

/// The selector (a word), and the data (a byte) behind it: both begin in two ports.
pub const PORT: u16 = 0x510;
pub const PORTS: u16 = 2;
const DATA_OFFSET: u16 = 1;

/// Of the ACPI object.
pub const ACPI_ID: &str = "QEMU0002";

const SIGNATURE: u16 = 0;
const ID: u16 = 1;
const CPUS: u16 = 5;
const MAX_CPUS: u16 = 0x0f;
const DIRECTORY: u16 = 0x19;
const FIRST_FILE: u16 = 0x20;
/// Of a selector: the number. The other bits ask for writing, and for items of an
/// architecture, of which there are none.
const NUMBER: u16 = 0x3fff;
const ARCHITECTURE: u16 = 0x8000;

/// Only the ports, no DMA.
const INTERFACE: u32 = 1;

/// A file's name in the directory, with a zero behind it.
const NAME_LEN: usize = 56;
/// More files than there are numbers.
const MOST_FILES: usize = (NUMBER - FIRST_FILE) as usize + 1;
/// The largest file; a guest reads it byte by byte.
const LARGEST: u64 = 64 << 20;

/// Where the boot order is.
pub const BOOT_ORDER: &str = "bootorder";

/// A file for the guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    pub name: String,
    pub contents: Vec<u8>,
}

/// What is wrong with an item.
#[derive(Debug)]
pub enum ItemError {
    Syntax(String),
    Name(String),
    File { path: String, error: std::io::Error },
    Large { path: String },
    Twice(String),
    TooMany,
}

impl Error for ItemError {}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => write!(
                f,
                "\"{text}\": [name=]name,string=text or [name=]name,file=path is wanted"
            ),
            Self::Name(name) => write!(f, "\"{name}\": a name has 1 to {} bytes", NAME_LEN - 1),
            Self::File { path, error } => write!(f, "{path}: {}", cli::io_error(error)),
            Self::Large { path } => {
                write!(f, "{path} has more than {} MiB", LARGEST >> 20)
            }
            Self::Twice(name) => write!(f, "there are two items \"{name}\""),
            Self::TooMany => write!(f, "more than {MOST_FILES} items"),
        }
    }
}

impl Item {
    /// From `[name=]name,string=text` or `[name=]name,file=path`; the file is read. A text
    /// ends with a zero.
    pub fn parse(text: &str) -> Result<Self, ItemError> {
        let syntax = || ItemError::Syntax(text.to_owned());
        let (name, source) = text.split_once(',').ok_or_else(syntax)?;
        let name = name.strip_prefix("name=").unwrap_or(name);
        if name.is_empty() || name.len() >= NAME_LEN {
            return Err(ItemError::Name(name.to_owned()));
        }
        let contents = match source.split_once('=') {
            Some(("string", text)) => [text.as_bytes(), &[0]].concat(),
            Some(("file", path)) => read(path)?,
            _ => return Err(syntax()),
        };
        Ok(Self {
            name: name.to_owned(),
            contents,
        })
    }
}

fn read(path: &str) -> Result<Vec<u8>, ItemError> {
    use std::io::Read;

    let failed = |error| ItemError::File {
        path: path.to_owned(),
        error,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut contents = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut contents)
        .map_err(failed)?;
    if contents.len() as u64 > LARGEST {
        return Err(ItemError::Large {
            path: path.to_owned(),
        });
    }
    Ok(contents)
}

/// The devices to boot from, as they tell while they are made.
#[derive(Default, Debug)]
pub struct BootOrder(Mutex<BTreeMap<u64, Bdf>>);

impl BootOrder {
    /// The device at `at` comes at that place. The answer is who has the place already.
    pub fn add(&self, index: u64, at: Bdf) -> Result<(), Bdf> {
        let mut order = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match order.get(&index) {
            Some(other) => Err(*other),
            None => {
                order.insert(index, at);
                Ok(())
            }
        }
    }

    /// Open Firmware paths, one a line; `None` if nobody has a place.
    pub fn file(&self) -> Option<Item> {
        let order = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = order
            .values()
            .map(|at| format!("/pci@i0cf8/pci@{},{}\n", at.slot, at.function));
        let contents = lines.collect::<String>().into_bytes();
        (!contents.is_empty()).then(|| Item {
            name: BOOT_ORDER.to_owned(),
            contents,
        })
    }
}

/// The device.
pub struct FwCfg {
    items: BTreeMap<u16, Vec<u8>>,
    at: Mutex<Position>,
}

#[derive(Clone, Copy, Default)]
struct Position {
    selector: u16,
    offset: usize,
}

impl FwCfg {
    /// For a guest with that many vcpus.
    pub fn new(cpus: u16, files: Vec<Item>) -> Result<Self, ItemError> {
        if files.len() > MOST_FILES {
            return Err(ItemError::TooMany);
        }
        let mut items = BTreeMap::from([
            (SIGNATURE, b"QEMU".to_vec()),
            (ID, INTERFACE.to_le_bytes().to_vec()),
            (CPUS, cpus.to_le_bytes().to_vec()),
            (MAX_CPUS, cpus.to_le_bytes().to_vec()),
        ]);
        // The directory is sorted by name; the numbers are in the order of the files.
        let mut directory = BTreeMap::new();
        for (number, file) in (FIRST_FILE..).zip(files) {
            let Item { name, contents } = file;
            if directory.contains_key(&name) {
                return Err(ItemError::Twice(name));
            }
            directory.insert(name, entry(number, &contents));
            items.insert(number, contents);
        }
        let mut bytes = (directory.len() as u32).to_be_bytes().to_vec();
        for (name, entry) in directory {
            bytes.extend(entry);
            let end = bytes.len() + NAME_LEN;
            bytes.extend(name.as_bytes());
            bytes.resize(end, 0);
        }
        items.insert(DIRECTORY, bytes);
        Ok(Self {
            items,
            at: Mutex::default(),
        })
    }
}

/// Size, number and a reserved field of a directory entry, big-endian.
fn entry(number: u16, contents: &[u8]) -> Vec<u8> {
    let size = contents.len() as u32;
    [&size.to_be_bytes()[..], &number.to_be_bytes(), &[0; 2]].concat()
}

impl PortDevice for FwCfg {
    fn widest(&self) -> Width {
        Width::Word
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        match (offset, width) {
            (0, Width::Word) => u32::from(at.selector),
            (DATA_OFFSET, Width::Byte) => {
                let item = match at.selector & ARCHITECTURE {
                    0 => self.items.get(&(at.selector & NUMBER)),
                    _ => None,
                };
                // Behind the end, and of no item at all, there are zeros.
                let byte = item.and_then(|item| item.get(at.offset));
                at.offset = at.offset.saturating_add(1);
                byte.map_or(0, |byte| u32::from(*byte))
            }
            _ => width.mask(),
        }
    }

    /// What is written to an item is lost, as since QEMU 2.4.
    fn write(&self, offset: u16, width: Width, value: u32) {
        if (offset, width) == (0, Width::Word) {
            *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Position {
                selector: value as u16,
                offset: 0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(name: &str, contents: &[u8]) -> Item {
        Item {
            name: name.to_owned(),
            contents: contents.to_vec(),
        }
    }

    fn read_item(device: &FwCfg, selector: u16, len: usize) -> Vec<u8> {
        device.write(0, Width::Word, selector.into());
        (0..len)
            .map(|_| device.read(DATA_OFFSET, Width::Byte) as u8)
            .collect()
    }

    #[test]
    fn a_driver_finds_signature_cpus_and_files_by_name() {
        let files = vec![item("opt/b", b"second"), item("opt/a", b"first")];
        let device = FwCfg::new(3, files).unwrap();
        assert_eq!(read_item(&device, 0, 4), b"QEMU");
        assert_eq!(read_item(&device, 1, 4), [1, 0, 0, 0]);
        assert_eq!(read_item(&device, 5, 3), [3, 0, 0]);
        assert_eq!(read_item(&device, 0x0f, 2), [3, 0]);
        let directory = read_item(&device, 0x19, 4 + 2 * 64);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        for (n, (name, contents)) in [("opt/a", "first"), ("opt/b", "second")].iter().enumerate() {
            let entry = &directory[4 + 64 * n..][..64];
            let size = u32::from_be_bytes(entry[..4].try_into().unwrap());
            let number = u16::from_be_bytes(entry[4..6].try_into().unwrap());
            assert_eq!(&entry[8..8 + name.len()], name.as_bytes());
            assert!(entry[8 + name.len()..].iter().all(|byte| *byte == 0));
            assert_eq!(
                read_item(&device, number, size as usize),
                contents.as_bytes()
            );
        }
    }

    #[test]
    fn what_is_not_there_reads_as_zeros() {
        let device = FwCfg::new(1, vec![item("f", b"x")]).unwrap();
        assert_eq!(read_item(&device, 0x20, 3), [b'x', 0, 0]);
        assert_eq!(read_item(&device, 0x21, 2), [0, 0]);
        assert_eq!(read_item(&device, 0x8000, 4), [0; 4]);
        assert_eq!(device.read(0, Width::Word), 0x8000);
    }

    #[test]
    fn the_boot_order_follows_the_indices() {
        let order = BootOrder::default();
        assert_eq!(order.file(), None);
        let at = |slot| Bdf {
            bus: 0,
            slot,
            function: 1,
        };
        order.add(7, at(3)).unwrap();
        order.add(1, at(5)).unwrap();
        assert_eq!(order.add(7, at(6)), Err(at(3)));
        let file = order.file().unwrap();
        assert_eq!(file.name, "bootorder");
        assert_eq!(
            String::from_utf8(file.contents).unwrap(),
            "/pci@i0cf8/pci@5,1\n/pci@i0cf8/pci@3,1\n"
        );
    }

    #[test]
    fn items_of_the_command_line_are_texts_or_files() {
        let parsed = Item::parse("opt/com.example/x,string=Hello, world").unwrap();
        assert_eq!(parsed, item("opt/com.example/x", b"Hello, world\0"));
        assert_eq!(Item::parse("name=a,string=").unwrap(), item("a", b"\0"));
        let path = std::env::current_exe().unwrap();
        let path = path.with_file_name(format!("fwcfg-{}", std::process::id()));
        std::fs::write(&path, b"bytes").unwrap();
        let parsed = Item::parse(&format!("f,file={}", path.display()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(parsed.unwrap(), item("f", b"bytes"));
        let long = format!("{},string=x", "n".repeat(56));
        for (text, part) in [
            ("a", "\"a\": [name="),
            ("a,b", "\"a,b\""),
            ("a,text=b", "\"a,text=b\""),
            (",string=b", "1 to 55 bytes"),
            (long.as_str(), "1 to 55 bytes"),
            ("a,file=/nonexistent/x", "/nonexistent/x: No such file"),
        ] {
            let message = Item::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
        let twice = FwCfg::new(1, vec![item("a", b""), item("a", b"")]);
        assert!(twice.err().unwrap().to_string().contains("\"a\""));
    }

    proptest! {
        #[test]
        fn whatever_is_done_to_the_ports_items_stay(
            accesses in proptest::collection::vec((0u16..2, 0u8..3, any::<u32>(), any::<bool>()), 0..100)
        ) {
            let device = FwCfg::new(2, vec![item("a", b"abc")]).unwrap();
            for (offset, width, value, write) in accesses {
                let width = [Width::Byte, Width::Word, Width::Dword][usize::from(width)];
                if write {
                    device.write(offset, width, value);
                } else {
                    let _ = device.read(offset, width);
                }
            }
            prop_assert_eq!(read_item(&device, 0x20, 4), b"abc\0");
        }
    }
}
