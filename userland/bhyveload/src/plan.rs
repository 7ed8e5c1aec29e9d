//! From files to a plan: which bytes go where in guest memory and how the vcpu starts. The
//! whole plan is made, and everything that can be wrong with the files found, before a VM
//! is touched.

use std::borrow::Cow;
use std::fmt;

use crate::boot::{self, BootState};
use crate::elf;
use crate::flat;
use crate::image::{Image, ImageError};
use crate::layout::{Layout, LayoutError};
use crate::multiboot;

/// What an image is, and so how it is placed and started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Bytes as they are, started in real mode.
    Flat,
    /// ELF64, started in long mode.
    Elf,
    /// Multiboot1, started in 32-bit protected mode.
    Multiboot,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flat => "flat binary, real mode",
            Self::Elf => "ELF64, long mode",
            Self::Multiboot => "multiboot, 32-bit protected mode",
        })
    }
}

/// A file with the text that follows it on the command line (`--kernel=FILE,TEXT`).
#[derive(Clone, Debug)]
pub struct File {
    pub path: String,
    pub arguments: String,
    pub bytes: Vec<u8>,
}

impl File {
    /// The multiboot string of a kernel or module: path, then the arguments.
    fn string(&self) -> String {
        if self.arguments.is_empty() {
            self.path.clone()
        } else {
            format!("{} {}", self.path, self.arguments)
        }
    }
}

/// What to load.
#[derive(Clone, Debug)]
pub struct Request {
    pub kernel: File,
    pub modules: Vec<File>,
    /// `None`: told by the file's contents.
    pub format: Option<Format>,
    /// Flat binaries only.
    pub load_address: Option<u64>,
    /// Physical; instead of the image's own.
    pub entry: Option<u64>,
    /// Bytes of guest memory.
    pub memory: u64,
}

/// Bytes for guest memory: `data`, then zeros up to `len`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece<'a> {
    pub gpa: u64,
    pub data: Cow<'a, [u8]>,
    pub len: u64,
}

/// All there is to do to a VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan<'a> {
    pub format: Format,
    pub pieces: Vec<Piece<'a>>,
    pub state: BootState,
    pub entry: u64,
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlanError {
    Image {
        path: String,
        error: ImageError,
    },
    Layout(LayoutError),
    /// An option that doesn't go with the image's format.
    Option {
        option: &'static str,
        why: &'static str,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { path, error } => write!(f, "{path}: {error}"),
            Self::Layout(error) => error.fmt(f),
            Self::Option { option, why } => write!(f, "{option}: {why}"),
        }
    }
}

impl From<LayoutError> for PlanError {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}

/// Makes the plan.
pub fn plan(request: &Request) -> Result<Plan<'_>, PlanError> {
    let file = &request.kernel;
    let image_error = |error| PlanError::Image {
        path: file.path.clone(),
        error,
    };
    let format = detect(request).map_err(image_error)?;
    check_options(request, format)?;
    let load_address = request.load_address.unwrap_or(flat::DEFAULT_LOAD_ADDRESS);
    let mut image = match format {
        Format::Flat => flat::parse(&file.bytes, load_address, request.entry),
        Format::Elf => elf::parse(&file.bytes),
        Format::Multiboot => multiboot::parse(&file.bytes),
    }
    .map_err(image_error)?;
    if let Some(entry) = request.entry {
        image.entry = within(&image, entry).map_err(image_error)?;
    }

    let mut layout = Layout::new(request.memory);
    for (n, segment) in image.segments.iter().enumerate() {
        let what = format!("{}, segment {n}", file.path);
        layout.reserve(&what, segment.gpa, segment.mem_size)?;
    }
    let mut pieces: Vec<Piece<'_>> = image
        .segments
        .iter()
        .map(|s| Piece {
            gpa: s.gpa,
            data: Cow::Borrowed(s.data),
            len: s.mem_size,
        })
        .collect();
    let modules = place_modules(request, &image, &mut layout, &mut pieces)?;

    let mut state = match format {
        Format::Flat => boot::real_mode(image.entry, load_address),
        Format::Elf => boot::long_mode(&mut layout, image.entry, &file.string())?,
        Format::Multiboot => {
            let info = multiboot::build_info(&mut layout, &file.string(), &modules)?;
            boot::multiboot(&mut layout, image.entry, info)?
        }
    };
    pieces.extend(state.memory.drain(..).map(|(gpa, bytes)| {
        let len = bytes.len() as u64;
        Piece {
            gpa,
            data: Cow::Owned(bytes),
            len,
        }
    }));
    Ok(Plan {
        format,
        pieces,
        state,
        entry: image.entry,
    })
}

/// The format of the kernel: as told, or by what the file begins with.
fn detect(request: &Request) -> Result<Format, ImageError> {
    let file = &request.kernel.bytes;
    if let Some(format) = request.format {
        if format == Format::Elf && elf::class(file)? == elf::CLASS_32 {
            return Err(ImageError::Unsupported(
                "a 32-bit ELF file as --format=elf (long mode)",
            ));
        }
        return Ok(format);
    }
    if file.is_empty() {
        return Err(ImageError::Empty);
    }
    if multiboot::find_header(file).is_some() {
        return Ok(Format::Multiboot);
    }
    if file.starts_with(&elf::MAGIC) {
        return match elf::class(file)? {
            elf::CLASS_64 => Ok(Format::Elf),
            _ => Err(ImageError::MultibootElf32WithoutHeader),
        };
    }
    // The setup header of Linux' boot protocol.
    if file.get(0x202..0x206) == Some(b"HdrS") {
        return Err(ImageError::Unsupported("a Linux bzImage"));
    }
    if request.load_address.is_some() {
        return Ok(Format::Flat);
    }
    Err(ImageError::Unrecognized)
}

fn check_options(request: &Request, format: Format) -> Result<(), PlanError> {
    if request.load_address.is_some() && format != Format::Flat {
        let why = "only a flat binary is loaded where told; this image has its own addresses";
        return Err(PlanError::Option {
            option: "--load-address",
            why,
        });
    }
    if !request.modules.is_empty() && format != Format::Multiboot {
        let why = "only a multiboot kernel takes modules";
        return Err(PlanError::Option {
            option: "--module",
            why,
        });
    }
    if format == Format::Flat && !request.kernel.arguments.is_empty() {
        let why = "a flat binary takes no arguments";
        return Err(PlanError::Option {
            option: "--kernel",
            why,
        });
    }
    Ok(())
}

/// An entry point given by hand still has to lie in the image.
fn within(image: &Image<'_>, entry: u64) -> Result<u64, ImageError> {
    let inside = |s: &crate::image::Segment<'_>| {
        entry
            .checked_sub(s.gpa)
            .is_some_and(|offset| offset < s.mem_size)
    };
    if image.segments.iter().any(inside) {
        Ok(entry)
    } else {
        Err(ImageError::EntryOutside(entry))
    }
}

/// Modules lie behind the kernel, each on a page of its own.
fn place_modules<'a>(
    request: &'a Request,
    image: &Image<'_>,
    layout: &mut Layout,
    pieces: &mut Vec<Piece<'a>>,
) -> Result<Vec<multiboot::Module>, PlanError> {
    let mut from = image.end().max(1 << 20);
    let mut modules = Vec::new();
    for module in &request.modules {
        let len = module.bytes.len() as u64;
        if len == 0 {
            let path = module.path.clone();
            return Err(PlanError::Image {
                path,
                error: ImageError::Empty,
            });
        }
        let what = format!("module {}", module.path);
        let start = layout.allocate(&what, len, 4096, from)?;
        from = start + len;
        pieces.push(Piece {
            gpa: start,
            data: Cow::Borrowed(&module.bytes),
            len,
        });
        modules.push(multiboot::Module {
            start,
            end: start + len,
            string: module.string(),
        });
    }
    Ok(modules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vmmapi::Reg;

    fn file(bytes: &[u8]) -> File {
        File {
            path: "kernel".into(),
            arguments: String::new(),
            bytes: bytes.to_vec(),
        }
    }

    fn request(bytes: &[u8]) -> Request {
        Request {
            kernel: file(bytes),
            modules: Vec::new(),
            format: None,
            load_address: None,
            entry: None,
            memory: 64 << 20,
        }
    }

    fn multiboot_elf() -> Vec<u8> {
        let mut head = Vec::new();
        for word in [0x1bad_b002u32, 0, 0u32.wrapping_sub(0x1bad_b002)] {
            head.extend(word.to_le_bytes());
        }
        crate::elf::tests::elf32(0x10_0000, 0x10_0000, &head, 0x3000)
    }

    fn error(request: &Request) -> String {
        plan(request).unwrap_err().to_string()
    }

    #[test]
    fn formats_are_told_apart() {
        let elf = crate::elf::tests::elf64(0x10_0000, &[(0x10_0000, 0x10_0000, b"code", 16)]);
        assert_eq!(plan(&request(&elf)).unwrap().format, Format::Elf);
        assert_eq!(
            plan(&request(&multiboot_elf())).unwrap().format,
            Format::Multiboot
        );
        let mut flat = request(b"\xf4");
        assert!(error(&flat).contains("--format=flat"));
        flat.format = Some(Format::Flat);
        assert_eq!(plan(&flat).unwrap().entry, 0x7c00);
        let mut linux = vec![0; 0x300];
        linux[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(error(&request(&linux)).contains("bzImage"));
        let elf32 = crate::elf::tests::elf32(0x10_0000, 0x10_0000, b"code", 16);
        assert!(error(&request(&elf32)).contains("without a multiboot header"));
        assert!(error(&request(b"")).contains("empty"));
    }

    #[test]
    fn options_that_do_not_fit_the_format_are_refused() {
        let mut r = request(&multiboot_elf());
        r.load_address = Some(0x1000);
        assert!(error(&r).starts_with("--load-address"));
        let mut r = request(b"\xf4");
        r.format = Some(Format::Flat);
        r.modules.push(file(b"m"));
        assert!(error(&r).starts_with("--module"));
        let mut r = request(&multiboot_elf());
        r.entry = Some(0x5000);
        assert!(error(&r).contains("entry point 0x5000"));
        r.entry = Some(0x10_0008);
        assert_eq!(plan(&r).unwrap().entry, 0x10_0008);
    }

    #[test]
    fn modules_follow_the_kernel_on_pages_of_their_own() {
        let mut r = request(&multiboot_elf());
        r.modules = vec![file(b"first"), file(b"second")];
        let plan = plan(&r).unwrap();
        let at = |data: &[u8]| plan.pieces.iter().find(|p| *p.data == *data).unwrap().gpa;
        assert_eq!((at(b"first"), at(b"second")), (0x10_3000, 0x10_4000));
    }

    #[test]
    fn an_image_beyond_memory_is_refused() {
        let mut r = request(&multiboot_elf());
        r.memory = 1 << 20;
        assert!(error(&r).contains("a larger -m"));
    }

    #[test]
    fn vcpu_starts_at_the_entry() {
        let r = request(&multiboot_elf());
        let plan = plan(&r).unwrap();
        assert!(plan.state.registers.contains(&(Reg::Rip, 0x10_0000)));
        assert!(plan.state.registers.contains(&(Reg::Rax, 0x2bad_b002)));
    }

    proptest! {
        #[test]
        fn whatever_the_file_pieces_stay_in_memory_and_apart(
            kind in 0..3,
            changes in proptest::collection::vec((0usize..200, any::<u8>()), 0..6),
            cut in 0usize..400,
        ) {
            let mut bytes = match kind {
                0 => multiboot_elf(),
                1 => crate::elf::tests::elf64(
                    0x10_0000, &[(0x10_0000, 0x10_0000, b"code", 16), (0x20_0000, 0x20_0000, b"data", 9)]),
                _ => vec![0x90; 300],
            };
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.truncate(cut);
            let mut r = request(&bytes);
            if kind == 2 {
                r.format = Some(Format::Flat);
            }
            if let Ok(plan) = plan(&r) {
                let mut ranges: Vec<_> =
                    plan.pieces.iter().map(|p| (p.gpa, p.gpa + p.len)).collect();
                ranges.sort_unstable();
                prop_assert!(ranges.windows(2).all(|w| w[0].1 <= w[1].0));
                prop_assert!(ranges.iter().all(|(_, end)| *end <= r.memory));
                prop_assert!(plan.pieces.iter().all(|p| p.data.len() as u64 <= p.len));
            }
        }
    }
}
