//! From files to a plan: which bytes go where in guest memory and how the vcpu starts. The
//! whole plan is made, and everything that can be wrong with the files found, before a VM
//! is touched.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;

use vmmapi::address_map::EXTENDED_BASE;
use vmmapi::memory::HIGHMEM_BASE;

use crate::boot::{self, BootState};
use crate::bzimage;
use crate::elf;
use crate::flat;
use crate::freebsd;
use crate::image::{Image, ImageError, Module};
use crate::layout::{Layout, LayoutError};
use crate::linux::{self, Initrd};
use crate::multiboot;
use crate::pvh;

const PAGE: u64 = 4096;

/// What an image is, and so how it is placed and started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Bytes as they are, started in real mode.
    Flat,
    /// ELF64, started in long mode.
    Elf,
    /// Multiboot1, started in 32-bit protected mode.
    Multiboot,
    /// Linux bzImage, started at its 64-bit entry.
    Linux,
    /// ELF with a PVH entry point, started in 32-bit protected mode.
    Pvh,
    /// FreeBSD's kernel with modules and environment, started in long mode.
    FreeBsd,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flat => "flat binary, real mode",
            Self::Elf => "ELF64, long mode",
            Self::Multiboot => "multiboot, 32-bit protected mode",
            Self::Linux => "Linux bzImage, long mode",
            Self::Pvh => "PVH, 32-bit protected mode",
            Self::FreeBsd => "FreeBSD kernel, long mode",
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
    /// The initial RAM disk of Linux.
    pub initrd: Option<File>,
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
    pub start: Start,
    pub entry: u64,
}

/// What the first vcpu is set to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    State(BootState),
    /// As vm_setup_freebsd_registers() does it.
    FreeBsd {
        /// A virtual address.
        entry: u64,
        page_tables: u64,
        gdt: u64,
        stack: u64,
    },
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
    let format = detect(request).map_err(|error| image_error(&request.kernel, error))?;
    check_options(request, format)?;
    let planner = Planner {
        request,
        format,
        layout: Layout::new(request.memory),
        pieces: Vec::new(),
    };
    match format {
        Format::Flat => planner.flat(),
        Format::Elf => planner.elf(),
        Format::Multiboot => planner.multiboot(),
        Format::Linux => planner.linux(),
        Format::Pvh => planner.pvh(),
        // With its modules and its environment: freebsd::loader.
        Format::FreeBsd => Err(image_error(
            &request.kernel,
            ImageError::Unsupported("a FreeBSD kernel without its environment"),
        )),
    }
}

fn image_error(file: &File, error: ImageError) -> PlanError {
    PlanError::Image {
        path: file.path.clone(),
        error,
    }
}

/// A plan in the making.
struct Planner<'a> {
    request: &'a Request,
    format: Format,
    layout: Layout,
    pieces: Vec<Piece<'a>>,
}

impl<'a> Planner<'a> {
    fn flat(mut self) -> Result<Plan<'a>, PlanError> {
        let request = self.request;
        let load_address = request.load_address.unwrap_or(flat::DEFAULT_LOAD_ADDRESS);
        let image = flat::parse(&request.kernel.bytes, load_address, request.entry);
        let image = self.place_image(image)?;
        let state = boot::real_mode(image.entry, load_address);
        Ok(self.finish(image.entry, state))
    }

    fn elf(mut self) -> Result<Plan<'a>, PlanError> {
        let kernel = &self.request.kernel;
        let image = self.place_image(elf::parse(&kernel.bytes))?;
        let state = boot::long_mode(&mut self.layout, image.entry, &kernel.string())?;
        Ok(self.finish(image.entry, state))
    }

    fn multiboot(mut self) -> Result<Plan<'a>, PlanError> {
        let kernel = &self.request.kernel;
        let image = self.place_image(multiboot::parse(&kernel.bytes))?;
        let modules = self.place_modules(&image)?;
        let info = multiboot::build_info(&mut self.layout, &kernel.string(), &modules)?;
        let magic = multiboot::BOOTLOADER_MAGIC;
        let state = boot::protected_mode(&mut self.layout, image.entry, magic, info)?;
        Ok(self.finish(image.entry, state))
    }

    fn linux(mut self) -> Result<Plan<'a>, PlanError> {
        let file = &self.request.kernel;
        let kernel = bzimage::parse(&file.bytes).map_err(|error| image_error(file, error))?;
        kernel
            .check_command_line(&file.arguments)
            .map_err(|error| image_error(file, error))?;
        let image = self.place_image(Ok(kernel.image()))?;
        linux::reserve_room(&mut self.layout, &kernel)?;
        let initrd = match &self.request.initrd {
            Some(file) => {
                let len = file_len(file)?;
                let initrd = linux::place_initrd(&mut self.layout, &kernel, len)?;
                self.push_file(initrd.gpa, file);
                initrd
            }
            None => Initrd::default(),
        };
        let arguments = &file.arguments;
        let state = linux::hand_over(&mut self.layout, &kernel, image.entry, arguments, initrd)?;
        Ok(self.finish(image.entry, state))
    }

    fn pvh(mut self) -> Result<Plan<'a>, PlanError> {
        let kernel = &self.request.kernel;
        let image = self.place_image(pvh::parse(&kernel.bytes))?;
        let modules = self.place_pvh_modules()?;
        let info = pvh::start_info(&mut self.layout, &kernel.arguments, &modules)?;
        let state = boot::protected_mode(&mut self.layout, image.entry, 0, info)?;
        Ok(self.finish(image.entry, state))
    }

    /// Puts the image's segments where they belong, with the entry point that was asked for.
    fn place_image(
        &mut self,
        image: Result<Image<'a>, ImageError>,
    ) -> Result<Image<'a>, PlanError> {
        let file = &self.request.kernel;
        let mut image = image.map_err(|error| image_error(file, error))?;
        if let Some(entry) = self.request.entry {
            // One given by hand still has to lie in the image.
            if !image.contains(entry) {
                return Err(image_error(file, ImageError::EntryOutside(entry)));
            }
            image.entry = entry;
        }
        for (n, segment) in image.segments.iter().enumerate() {
            let what = format!("{}, segment {n}", file.path);
            self.layout.reserve(&what, segment.gpa, segment.mem_size)?;
            self.pieces.push(Piece {
                gpa: segment.gpa,
                data: Cow::Borrowed(segment.data),
                len: segment.mem_size,
            });
        }
        Ok(image)
    }

    /// Modules of multiboot lie behind the kernel, each on a page of its own.
    fn place_modules(&mut self, image: &Image<'_>) -> Result<Vec<Module>, PlanError> {
        let mut from = image.end().max(EXTENDED_BASE);
        let mut modules = Vec::new();
        for file in &self.request.modules {
            let len = file_len(file)?;
            let what = format!("module {}", file.path);
            let start = self.layout.allocate(&what, len, PAGE, from)?;
            from = start + len;
            modules.push(self.push_module(start, file, file.string()));
        }
        Ok(modules)
    }

    /// Modules of PVH lie high, out of the way of a kernel that grows. The initial RAM disk
    /// is the first one: that is where Linux looks for it.
    fn place_pvh_modules(&mut self) -> Result<Vec<Module>, PlanError> {
        let request = self.request;
        let mut modules = Vec::new();
        for file in request.initrd.iter().chain(&request.modules) {
            let what = format!("module {}", file.path);
            let len = file_len(file)?;
            let start = self.layout.allocate_high(&what, len, PAGE, HIGHMEM_BASE)?;
            modules.push(self.push_module(start, file, file.arguments.clone()));
        }
        Ok(modules)
    }

    fn push_module(&mut self, start: u64, file: &'a File, string: String) -> Module {
        self.push_file(start, file);
        Module {
            start,
            end: start + file.bytes.len() as u64,
            string,
        }
    }

    fn push_file(&mut self, gpa: u64, file: &'a File) {
        self.pieces.push(Piece {
            gpa,
            data: Cow::Borrowed(&file.bytes),
            len: file.bytes.len() as u64,
        });
    }

    fn finish(mut self, entry: u64, mut state: BootState) -> Plan<'a> {
        let own = state.memory.drain(..).map(|(gpa, bytes)| Piece {
            gpa,
            len: bytes.len() as u64,
            data: Cow::Owned(bytes),
        });
        self.pieces.extend(own);
        Plan {
            format: self.format,
            pieces: self.pieces,
            start: Start::State(state),
            entry,
        }
    }
}

/// A file that is loaded beside the kernel has to have something in it.
fn file_len(file: &File) -> Result<u64, PlanError> {
    match file.bytes.len() {
        0 => Err(image_error(file, ImageError::Empty)),
        len => Ok(len as u64),
    }
}

/// The format of the kernel: as told, or by what the file begins with.
pub fn detect(request: &Request) -> Result<Format, ImageError> {
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
            _ if freebsd::image::is_kernel(file) => Ok(Format::FreeBsd),
            _ if pvh::is_pvh(file) => Ok(Format::Pvh),
            elf::CLASS_64 => Ok(Format::Elf),
            _ => Err(ImageError::MultibootElf32WithoutHeader),
        };
    }
    if bzimage::is_bzimage(file) {
        return Ok(Format::Linux);
    }
    if request.load_address.is_some() {
        return Ok(Format::Flat);
    }
    Err(ImageError::Unrecognized)
}

/// Options that say nothing to an image of this format are mistakes.
pub fn check_options(request: &Request, format: Format) -> Result<(), PlanError> {
    use Format::{Flat, FreeBsd, Linux, Multiboot, Pvh};
    let wrong = |option, why| Err(PlanError::Option { option, why });
    if request.load_address.is_some() && format != Flat {
        return wrong(
            "--load-address",
            "only a flat binary is loaded where told; this image has its own addresses",
        );
    }
    if !request.modules.is_empty() && !matches!(format, Multiboot | Pvh | FreeBsd) {
        return wrong(
            "--module",
            "only multiboot, PVH and FreeBSD kernels take modules (Linux takes an --initrd)",
        );
    }
    if request.initrd.is_some() && !matches!(format, Linux | Pvh) {
        return wrong(
            "--initrd",
            "only Linux and PVH kernels take an initial RAM disk (multiboot has --module)",
        );
    }
    if request.entry.is_some() && format == FreeBsd {
        return wrong(
            "--entry",
            "a FreeBSD kernel is entered where its header says",
        );
    }
    if format == Flat && !request.kernel.arguments.is_empty() {
        return wrong("--kernel", "a flat binary takes no arguments");
    }
    Ok(())
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
            initrd: None,
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

    fn registers(plan: &Plan<'_>) -> Vec<(Reg, u64)> {
        match &plan.start {
            Start::State(state) => state.registers.clone(),
            Start::FreeBsd { .. } => panic!("FreeBSD's state"),
        }
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
        let linux = crate::bzimage::tests::kernel();
        assert_eq!(plan(&request(&linux)).unwrap().format, Format::Linux);
        let pvh = crate::pvh::tests::kernel(b"\0\0\x10\0");
        assert_eq!(plan(&request(&pvh)).unwrap().format, Format::Pvh);
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
        r.initrd = Some(file(b"i"));
        assert!(error(&r).starts_with("--initrd"));
        let mut r = request(&crate::bzimage::tests::kernel());
        r.modules.push(file(b"m"));
        assert!(error(&r).contains("an --initrd"));
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

    /// The one piece with these contents.
    fn place(plan: &Plan<'_>, data: &[u8]) -> u64 {
        let mut found = plan.pieces.iter().filter(|p| *p.data == *data);
        let piece = found.next().expect("a piece");
        assert!(found.next().is_none());
        piece.gpa
    }

    #[test]
    fn linux_gets_its_ram_disk_high_and_nothing_where_it_unpacks_itself() {
        let mut r = request(&crate::bzimage::tests::kernel());
        r.kernel.arguments = "console=ttyS0,115200 root=/dev/vda1".into();
        r.initrd = Some(file(b"cpio"));
        let plan = plan(&r).unwrap();
        assert_eq!(place(&plan, b"cpio"), (64 << 20) - 4096);
        place(&plan, b"console=ttyS0,115200 root=/dev/vda1\0");
        assert!(registers(&plan).contains(&(Reg::Rip, 0x100_0200)));
        let kernel = 0x100_0000;
        let mut inside = plan
            .pieces
            .iter()
            .filter(|p| p.gpa < kernel + 0x3_0000 && kernel < p.gpa + p.len);
        assert_eq!(inside.next().unwrap().len, 0x1000, "the code");
        assert!(inside.next().is_none());
        r.kernel.arguments = "x".repeat(3000);
        assert!(error(&r).starts_with("kernel: the command line has 3000 bytes"));
        r.kernel.arguments.clear();
        r.memory = 16 << 20;
        assert!(error(&r).contains("a larger -m"));
        r.memory = 64 << 20;
        r.initrd = Some(file(b""));
        assert!(error(&r).contains("empty"));
    }

    #[test]
    fn pvh_finds_the_ram_disk_as_its_first_module() {
        let mut r = request(&crate::pvh::tests::kernel(b"\x04\0\x10\0"));
        r.kernel.arguments = "console=ttyS0".into();
        r.modules.push(file(b"module"));
        r.initrd = Some(file(b"cpio"));
        let plan = plan(&r).unwrap();
        let (initrd, module) = (place(&plan, b"cpio"), place(&plan, b"module"));
        assert_eq!((initrd, module), ((64 << 20) - 4096, (64 << 20) - 8192));
        let register = |reg| registers(&plan).iter().find(|(r, _)| *r == reg).unwrap().1;
        assert_eq!(register(Reg::Rip), 0x10_0004);
        let at = register(Reg::Rbx);
        let info = &plan.pieces.iter().find(|p| p.gpa == at).unwrap().data;
        assert_eq!(info[..4], 0x336e_c578_u32.to_le_bytes());
        assert_eq!(info[56..64], initrd.to_le_bytes());
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
        assert!(registers(&plan).contains(&(Reg::Rip, 0x10_0000)));
        assert!(registers(&plan).contains(&(Reg::Rax, 0x2bad_b002)));
    }

    proptest! {
        #[test]
        fn whatever_the_file_pieces_stay_in_memory_and_apart(
            kind in 0..5,
            changes in proptest::collection::vec((0usize..0x270, any::<u8>()), 0..6),
            cut in 0usize..0x2000,
        ) {
            let mut bytes = match kind {
                0 => multiboot_elf(),
                1 => crate::elf::tests::elf64(
                    0x10_0000, &[(0x10_0000, 0x10_0000, b"code", 16), (0x20_0000, 0x20_0000, b"data", 9)]),
                2 => crate::bzimage::tests::kernel(),
                3 => crate::pvh::tests::kernel(b"\0\0\x10\0"),
                _ => vec![0x90; 300],
            };
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.truncate(cut);
            let mut r = request(&bytes);
            if kind == 4 {
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
