//! SMBIOS (smbios_build() of bhyve, step (14)): who made the machine and what it is made of,
//! for tools and for operating systems that know machines by name. DMTF DSP0134, version
//! 2.8; chapter 5 is the entry point, chapter 7 the structures.

#![forbid(unsafe_code)]

use std::fmt;

use vmmapi::memory::HIGHMEM_BASE;
use vmmapi::{CpuTopology, Vm};

use super::{Description, FirmwareError};
use crate::config::Config;
use crate::platform;

const NAME: &str = "SMBIOS table";
const VERSION: (u8, u8) = (2, 8);
const ENTRY_POINT_LEN: usize = 31;
/// Where the intermediate part of the entry point begins.
const INTERMEDIATE: usize = 16;

/// Types of structures.
mod kind {
    pub const BIOS: u8 = 0;
    pub const SYSTEM: u8 = 1;
    pub const BASEBOARD: u8 = 2;
    pub const CHASSIS: u8 = 3;
    pub const PROCESSOR: u8 = 4;
    pub const MEMORY_ARRAY: u8 = 16;
    pub const MEMORY_DEVICE: u8 = 17;
    pub const MEMORY_ARRAY_MAPPED: u8 = 19;
    pub const BOOT: u8 = 32;
    pub const END: u8 = 127;
}

/// BIOS characteristics (7.1.1): ISA, PCI, shadowing, boot from CD, EDD; and in the
/// extension bytes ACPI, BIOS boot specification, virtual machine.
const BIOS_CHARACTERISTICS: u64 = 1 << 4 | 1 << 7 | 1 << 12 | 1 << 15 | 1 << 19;
const BIOS_EXTENSION: [u8; 2] = [1 << 0, 1 << 0 | 1 << 4];
const NONE: &str = "None";

/// The texts of a structure, in the order of the numbers that its fields have: the variable
/// of bhyve_config(5) for each, and what it is without one. bhyve's release and date are what
/// guests know it by.
type Texts = [(&'static str, &'static str)];

const BIOS_TEXTS: &Texts = &[
    ("bios.vendor", "BHYVE"),
    ("bios.version", "14.0"),
    ("bios.release_date", "10/17/2021"),
];
const SYSTEM_TEXTS: &Texts = &[
    ("system.manufacturer", "FreeBSD"),
    ("system.product_name", "BHYVE"),
    ("system.version", "1.0"),
    ("system.serial_number", NONE),
    ("system.sku", NONE),
    ("system.family_name", "Virtual Machine"),
];
const BOARD_TEXTS: &Texts = &[
    ("board.manufacturer", "FreeBSD"),
    ("board.product_name", "BHYVE"),
    ("board.version", "1.0"),
    ("board.serial_number", NONE),
    ("board.asset_tag", NONE),
    ("board.location", NONE),
];
const CHASSIS_TEXTS: &Texts = &[
    ("chassis.manufacturer", "FreeBSD"),
    ("chassis.version", "1.0"),
    ("chassis.serial_number", NONE),
    ("chassis.asset_tag", NONE),
    ("chassis.sku", NONE),
];

const NO_TEXTS: &[&str] = &[];

/// The handle of error information, which there is none of.
const NO_ERROR_INFORMATION: u16 = 0xfffe;
/// In the fields of 16 bits: the size is in the extended field.
const EXTENDED_SIZE: u16 = 0x7fff;
const SIZE_IN_KB: u16 = 1 << 15;

/// FreeBSD's MAXHOSTNAMELEN.
const HOSTNAME_LEN: usize = 256;

/// The machine's UUID, in the order of its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uuid([u8; 16]);

/// Why a text is no UUID.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UuidError;

impl fmt::Display for UuidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID is wanted, as 6ba7b810-9dad-11d1-80b4-00c04fd430c8")
    }
}

/// What the structures say.
struct Machine<'a> {
    config: &'a Config,
    uuid: Uuid,
    topology: &'a CpuTopology,
    lowmem: u64,
    highmem: u64,
}

/// Builds the entry point and the structures behind it.
pub fn smbios_build(vm: &Vm, machine: &Description<'_>) -> Result<(), FirmwareError> {
    let uuid = machine
        .uuid
        .unwrap_or_else(|| Uuid::of_machine(machine.name, &platform::hostname()));
    let machine = Machine {
        config: machine.config,
        uuid,
        topology: &machine.topology,
        lowmem: vm.lowmem_size(),
        highmem: vm.highmem_size(),
    };
    super::install(vm, NAME, super::SMBIOS, &tables(&machine))
}

fn tables(machine: &Machine<'_>) -> Vec<u8> {
    let structures = structures(machine);
    let mut bytes = entry_point(&structures);
    bytes.extend(structures.bytes);
    bytes
}

/// 5.2.1.
fn entry_point(structures: &Structures) -> Vec<u8> {
    let (major, minor) = VERSION;
    let mut bytes = b"_SM_\0".to_vec();
    bytes.extend([ENTRY_POINT_LEN as u8, major, minor]);
    bytes.extend((structures.longest as u16).to_le_bytes());
    // Revision 0 has nothing in its five bytes.
    bytes.extend([0; 6]);
    bytes.extend(b"_DMI_\0");
    bytes.extend((structures.bytes.len() as u16).to_le_bytes());
    let first = super::SMBIOS.start as u32 + ENTRY_POINT_LEN as u32;
    bytes.extend(first.to_le_bytes());
    bytes.extend(structures.count.to_le_bytes());
    bytes.push(major << 4 | minor);
    bytes[INTERMEDIATE + 5] = super::checksum(&bytes[INTERMEDIATE..]);
    bytes[4] = super::checksum(&bytes);
    bytes
}

/// Structures one behind the other; a structure's handle is its number.
#[derive(Default)]
struct Structures {
    bytes: Vec<u8>,
    count: u16,
    longest: usize,
}

impl Structures {
    /// Appends a structure (6.1): what follows its header, then its strings, which the
    /// fields name by their numbers from 1 on. The answer is its handle.
    fn add<S: AsRef<str>>(&mut self, kind: u8, fields: Vec<u8>, strings: &[S]) -> u16 {
        let handle = self.count;
        let start = self.bytes.len();
        self.bytes.extend([kind, 4 + fields.len() as u8]);
        self.bytes.extend(handle.to_le_bytes());
        self.bytes.extend(fields);
        for string in strings {
            self.bytes.extend(string.as_ref().bytes());
            self.bytes.push(0);
        }
        if strings.is_empty() {
            self.bytes.push(0);
        }
        self.bytes.push(0);
        self.count += 1;
        self.longest = self.longest.max(self.bytes.len() - start);
        handle
    }
}

/// A text that is empty would end the structure's texts (6.1.3).
fn texts(config: &Config, texts: &Texts) -> Vec<String> {
    let text = |(variable, default): &(&str, &str)| {
        let value = config.get(variable).filter(|value| !value.is_empty());
        value.unwrap_or_else(|| (*default).to_owned())
    };
    texts.iter().map(text).collect()
}

fn structures(machine: &Machine<'_>) -> Structures {
    let mut all = Structures::default();
    let texts = |texts| self::texts(machine.config, texts);
    all.add(kind::BIOS, bios(), &texts(BIOS_TEXTS));
    let system = self::system(&machine.uuid);
    all.add(kind::SYSTEM, system, &texts(SYSTEM_TEXTS));
    // The chassis is the next structure.
    let board = baseboard(all.count + 1);
    all.add(kind::BASEBOARD, board, &texts(BOARD_TEXTS));
    all.add(kind::CHASSIS, chassis(), &texts(CHASSIS_TEXTS));
    for socket in 0..machine.topology.sockets {
        let socket = format!("CPU #{socket}");
        let strings = [socket.as_str(), " ", " ", NONE, NONE, NONE];
        all.add(kind::PROCESSOR, processor(machine.topology), &strings);
    }
    let memory = machine.lowmem + machine.highmem;
    let array = all.add(kind::MEMORY_ARRAY, memory_array(memory), NO_TEXTS);
    let device = [" ", " ", " ", NONE, NONE, NONE];
    all.add(kind::MEMORY_DEVICE, memory_device(array, memory), &device);
    for (first, len) in [(0, machine.lowmem), (HIGHMEM_BASE, machine.highmem)] {
        if len > 0 {
            let mapped = memory_mapped(array, first, first + len - 1);
            all.add(kind::MEMORY_ARRAY_MAPPED, mapped, NO_TEXTS);
        }
    }
    // 7.33: reserved bytes, no error at boot.
    all.add(kind::BOOT, vec![0; 7], NO_TEXTS);
    all.add(kind::END, Vec::new(), NO_TEXTS);
    all
}

/// 7.1.
fn bios() -> Vec<u8> {
    let mut fields = vec![1, 2];
    fields.extend(0xf000_u16.to_le_bytes());
    // Release date, size in units of 64 KiB less one.
    fields.extend([3, 0]);
    fields.extend(BIOS_CHARACTERISTICS.to_le_bytes());
    fields.extend(BIOS_EXTENSION);
    // No release numbers; no embedded controller.
    fields.extend([0, 0, 0xff, 0xff]);
    fields
}

/// 7.2.
fn system(uuid: &Uuid) -> Vec<u8> {
    const WAKE_UP_POWER_SWITCH: u8 = 6;
    let mut fields = vec![1, 2, 3, 4];
    fields.extend(uuid.encoded());
    fields.extend([WAKE_UP_POWER_SWITCH, 5, 6]);
    fields
}

/// 7.3.
fn baseboard(chassis: u16) -> Vec<u8> {
    const HOSTING_BOARD: u8 = 1 << 0;
    const MOTHERBOARD: u8 = 0x0a;
    let mut fields = vec![1, 2, 3, 4, 5, HOSTING_BOARD, 6];
    fields.extend(chassis.to_le_bytes());
    // No contained objects.
    fields.extend([MOTHERBOARD, 0]);
    fields
}

/// 7.4.
fn chassis() -> Vec<u8> {
    const UNKNOWN: u8 = 2;
    const SAFE: u8 = 3;
    const SECURITY_NONE: u8 = 3;
    let mut fields = vec![1, UNKNOWN, 2, 3, 4, SAFE, SAFE, SAFE, SECURITY_NONE];
    // OEM data; height, power cords and contained elements are unspecified or none.
    fields.extend([0; 8]);
    fields.push(5);
    fields
}

/// 7.5: a socket with its cores and threads. Zero stands for unknown, also for counts that
/// the field can't hold.
fn processor(topology: &CpuTopology) -> Vec<u8> {
    const CENTRAL: u8 = 3;
    const OTHER: u8 = 1;
    const POPULATED_ENABLED: u8 = 1 << 6 | 1;
    const UPGRADE_NONE: u8 = 6;
    const CAPABLE_64_BIT: u16 = 1 << 2;
    let count = |n: u32| u8::try_from(n).ok().filter(|n| *n < 0xff).unwrap_or(0);
    let (cores, threads) = (u32::from(topology.cores), u32::from(topology.threads));
    let mut fields = vec![1, CENTRAL, OTHER, 2];
    // Processor ID.
    fields.extend([0; 8]);
    fields.push(3);
    // Voltage and three clock rates.
    fields.extend([0; 7]);
    fields.extend([POPULATED_ENABLED, UPGRADE_NONE]);
    // Caches of levels 1 to 3 have no structures.
    fields.extend([0xff; 6]);
    fields.extend([4, 5, 6]);
    fields.extend([count(cores), count(cores), count(cores * threads)]);
    fields.extend(CAPABLE_64_BIT.to_le_bytes());
    fields.extend(u16::from(OTHER).to_le_bytes());
    fields
}

/// 7.17.
fn memory_array(bytes: u64) -> Vec<u8> {
    const SYSTEM_BOARD: u8 = 3;
    const SYSTEM_MEMORY: u8 = 3;
    const NO_ERROR_CORRECTION: u8 = 3;
    const EXTENDED: u32 = 0x8000_0000;
    let mut fields = vec![SYSTEM_BOARD, SYSTEM_MEMORY, NO_ERROR_CORRECTION];
    fields.extend(EXTENDED.to_le_bytes());
    fields.extend(NO_ERROR_INFORMATION.to_le_bytes());
    // One device.
    fields.extend(1_u16.to_le_bytes());
    fields.extend(bytes.to_le_bytes());
    fields
}

/// 7.18.
fn memory_device(array: u16, bytes: u64) -> Vec<u8> {
    const UNKNOWN: u8 = 2;
    const DETAIL_UNKNOWN: u16 = 1 << 2;
    const BITS: u16 = 64;
    let (size, extended) = memory_size(bytes);
    let mut fields = Vec::new();
    for word in [array, NO_ERROR_INFORMATION, BITS, BITS, size] {
        fields.extend(word.to_le_bytes());
    }
    // Form factor, no set, two locators, type.
    fields.extend([UNKNOWN, 0, 1, 2, UNKNOWN]);
    fields.extend(DETAIL_UNKNOWN.to_le_bytes());
    // Speed; four strings; attributes.
    fields.extend([0, 0, 3, 4, 5, 6, 0]);
    fields.extend(extended.to_le_bytes());
    // Configured speed and three voltages.
    fields.extend([0; 8]);
    fields
}

/// The two size fields of a memory device: KiB or MiB, and MiB where the first is too small.
fn memory_size(bytes: u64) -> (u16, u32) {
    let (kib, mib) = (bytes >> 10, bytes >> 20);
    if kib < u64::from(EXTENDED_SIZE) {
        (kib as u16 | SIZE_IN_KB, 0)
    } else if mib < u64::from(EXTENDED_SIZE) {
        (mib as u16, 0)
    } else {
        (
            EXTENDED_SIZE,
            u32::try_from(mib).unwrap_or(u32::MAX) & (u32::MAX >> 1),
        )
    }
}

/// 7.20, in its form for addresses beyond 4 GiB.
fn memory_mapped(array: u16, first: u64, last: u64) -> Vec<u8> {
    let mut fields = vec![0xff; 8];
    fields.extend(array.to_le_bytes());
    // One device forms a row.
    fields.push(1);
    fields.extend(first.to_le_bytes());
    fields.extend(last.to_le_bytes());
    fields
}

impl Uuid {
    /// Eight, four, four, four and twelve hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, UuidError> {
        let groups: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        let digits = groups.concat();
        if lengths != [8, 4, 4, 4, 12] || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(UuidError);
        }
        let value = u128::from_str_radix(&digits, 16).map_err(|_| UuidError)?;
        Ok(Self(value.to_be_bytes()))
    }

    /// The same for each start of this machine on this host, and hardly for any other: as
    /// bhyve makes one of version 3 (RFC 9562, 5.3), from both names.
    fn of_machine(name: &str, host: &str) -> Self {
        let mut text = name.as_bytes().to_vec();
        let mut padded = host.as_bytes().to_vec();
        padded.resize(HOSTNAME_LEN, 0);
        text.extend(padded);
        let mut bytes = md5::compute(text).0;
        bytes[6] = bytes[6] & 0x0f | 0x30;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// 7.2.1: the first three groups are little-endian.
    fn encoded(&self) -> [u8; 16] {
        let mut bytes = self.0;
        bytes[0..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        bytes
    }
}

#[cfg(test)]
mod tests;
