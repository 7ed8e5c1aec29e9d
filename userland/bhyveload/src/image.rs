//! A program image, before it is anywhere in guest memory: what every format is read into,
//! and every way an image can be wrong. Offsets and lengths come from the file and are
//! never trusted: each read is checked, each sum can fail.

#![forbid(unsafe_code)]

use std::fmt;

use crate::bzimage::BzImageError;

/// A part of guest memory to fill: `data` first, zeros up to `mem_size`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    pub gpa: u64,
    pub data: &'a [u8],
    pub mem_size: u64,
}

/// An image taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image<'a> {
    pub segments: Vec<Segment<'a>>,
    /// Guest-physical address of the first instruction.
    pub entry: u64,
}

impl Image<'_> {
    /// The first address behind all segments.
    pub fn end(&self) -> u64 {
        self.segments
            .iter()
            .map(|s| s.gpa.saturating_add(s.mem_size))
            .max()
            .unwrap_or(0)
    }

    /// Whether a segment has this address.
    pub fn contains(&self, gpa: u64) -> bool {
        self.segments.iter().any(|segment| {
            gpa.checked_sub(segment.gpa)
                .is_some_and(|offset| offset < segment.mem_size)
        })
    }
}

/// A file that lies in guest memory for the kernel to find.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    pub start: u64,
    pub end: u64,
    /// What the kernel is told about it.
    pub string: String,
}

/// Why a file is not an image that can be loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ImageError {
    Empty,
    /// It is none of the formats, and `--format` didn't say which to assume.
    Unrecognized,
    /// A format that is known but not loaded.
    Unsupported(&'static str),
    Truncated {
        what: &'static str,
        offset: u64,
        need: u64,
        file: u64,
    },
    NotElf,
    ElfClass(u8),
    ElfByteOrder(u8),
    ElfVersion(u32),
    ElfType(u16),
    ElfMachine {
        class: u8,
        machine: u16,
    },
    ElfProgramHeaderSize(u16),
    ElfInterpreter,
    NothingToLoad,
    SegmentSizes {
        index: usize,
        file_size: u64,
        mem_size: u64,
    },
    SegmentWraps {
        index: usize,
        gpa: u64,
        mem_size: u64,
    },
    EntryOutside(u64),
    Linux(BzImageError),
    /// No note says where to enter the image in PVH's way.
    PvhMissing,
    PvhNote,
    MultibootMissing,
    MultibootElf32WithoutHeader,
    MultibootFlags(u32),
    MultibootVideoMode,
    MultibootAddresses(&'static str),
    /// Beyond what 32-bit protected mode without paging, or real mode, can reach.
    EntryUnreachable {
        entry: u64,
        limit: u64,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the file is empty"),
            Self::Unrecognized => f.write_str(
                "neither an ELF nor a multiboot image nor a Linux kernel (a flat binary needs \
                 --format=flat)",
            ),
            Self::Unsupported(what) => write!(f, "{what} can't be loaded by this version"),
            Self::Truncated {
                what,
                offset,
                need,
                file,
            } => write!(
                f,
                "truncated: {what} takes {need} bytes at offset {offset}, the file has {file}"
            ),
            Self::NotElf => f.write_str("not an ELF file"),
            Self::ElfClass(class) => write!(f, "ELF class {class} is neither 32-bit nor 64-bit"),
            Self::ElfByteOrder(order) => {
                write!(f, "ELF data encoding {order} is not little-endian")
            }
            Self::ElfVersion(version) => write!(f, "ELF version {version} is unknown"),
            Self::ElfType(3) => {
                f.write_str("a position-independent ELF file (ET_DYN), not ET_EXEC")
            }
            Self::ElfType(kind) => write!(f, "ELF file of type {kind}, not executable (ET_EXEC)"),
            Self::ElfMachine { class, machine } => write!(
                f,
                "ELF machine {machine} is not {}",
                if *class == 1 {
                    "i386 (3)"
                } else {
                    "x86-64 (62)"
                }
            ),
            Self::ElfProgramHeaderSize(size) => {
                write!(f, "ELF program headers of {size} bytes each")
            }
            Self::ElfInterpreter => f.write_str(
                "the ELF file names an interpreter and has no PVH entry point: it is a user \
                 program, or a FreeBSD kernel that needs a loader of its own",
            ),
            Self::NothingToLoad => f.write_str("the ELF file has no segment to load"),
            Self::SegmentSizes {
                index,
                file_size,
                mem_size,
            } => write!(
                f,
                "ELF segment {index} is larger in the file ({file_size} bytes) than in memory \
                 ({mem_size} bytes)"
            ),
            Self::SegmentWraps {
                index,
                gpa,
                mem_size,
            } => write!(
                f,
                "ELF segment {index} of {mem_size} bytes at {gpa:#x} runs past the end of the \
                 address space"
            ),
            Self::EntryOutside(entry) => {
                write!(
                    f,
                    "the entry point {entry:#x} lies in no segment of the image"
                )
            }
            Self::Linux(error) => error.fmt(f),
            Self::PvhMissing => f.write_str(
                "the ELF file has no note XEN_ELFNOTE_PHYS32_ENTRY, so no PVH entry point",
            ),
            Self::PvhNote => {
                f.write_str("the ELF file's note XEN_ELFNOTE_PHYS32_ENTRY holds no address")
            }
            Self::MultibootMissing => {
                f.write_str("no multiboot header with a correct checksum in its first 8192 bytes")
            }
            Self::MultibootElf32WithoutHeader => f.write_str(
                "a 32-bit ELF file without a multiboot header: nothing says how to start it",
            ),
            Self::MultibootFlags(flags) => {
                write!(
                    f,
                    "the multiboot header requires unknown features (flags {flags:#x})"
                )
            }
            Self::MultibootVideoMode => f.write_str(
                "the multiboot header requires a video mode (flag bit 2); there is none",
            ),
            Self::MultibootAddresses(what) => {
                write!(
                    f,
                    "the multiboot header's address fields contradict each other: {what}"
                )
            }
            Self::EntryUnreachable { entry, limit } => {
                write!(f, "the entry point {entry:#x} lies at or above {limit:#x}")
            }
        }
    }
}

/// Checked little-endian reads from a file's bytes.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// `need` bytes at `offset`; `what` names them in the error.
    pub fn slice(
        &self,
        what: &'static str,
        offset: u64,
        need: u64,
    ) -> Result<&'a [u8], ImageError> {
        let range = || {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(need).ok()?)?;
            self.bytes.get(start..end)
        };
        let file = self.bytes.len() as u64;
        range().ok_or(ImageError::Truncated {
            what,
            offset,
            need,
            file,
        })
    }

    fn array<const N: usize>(
        &self,
        what: &'static str,
        offset: u64,
    ) -> Result<[u8; N], ImageError> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(what, offset, N as u64)?);
        Ok(out)
    }

    pub fn u16(&self, what: &'static str, offset: u64) -> Result<u16, ImageError> {
        Ok(u16::from_le_bytes(self.array(what, offset)?))
    }

    pub fn u32(&self, what: &'static str, offset: u64) -> Result<u32, ImageError> {
        Ok(u32::from_le_bytes(self.array(what, offset)?))
    }

    pub fn u64(&self, what: &'static str, offset: u64) -> Result<u64, ImageError> {
        Ok(u64::from_le_bytes(self.array(what, offset)?))
    }
}
