//! Linux' bzImage (Documentation/arch/x86/boot.rst of Linux, "The Linux/x86 Boot
//! Protocol"): the setup header at offset 0x1F1 of the file, and the code behind the
//! real-mode part. Only kernels with a 64-bit entry point are taken: protocol 2.12, which
//! x86-64 kernels have since Linux 3.8.

#![forbid(unsafe_code)]

use std::fmt;

use linux_loader::bootparam::{
    LOADED_HIGH, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_KERNEL_64, setup_header as SetupHeader,
};
use vm_memory::ByteValued;

use crate::image::{Image, ImageError, Reader, Segment};

/// Where the setup header begins in the file and in the boot parameters.
const HEADER: u64 = 0x1f1;
/// The magic of protocol 2.00 and later, and where it is.
const MAGIC: [u8; 4] = *b"HdrS";
const MAGIC_AT: u64 = 0x202;
const BOOT_FLAG: u16 = 0xaa55;
/// The second byte of the jump before the magic tells where the header ends.
const LENGTH_AT: usize = 0x201;
/// The first protocol with a 64-bit entry point.
const VERSION_64: u16 = 0x20c;
const SECTOR: u64 = 512;
/// setup_sects is zero in kernels that are older than the field.
const DEFAULT_SETUP_SECTS: u8 = 4;
/// From the beginning of the code to startup_64.
const ENTRY_64: u64 = 0x200;

/// A kernel taken apart.
#[derive(Clone, Debug)]
pub struct BzImage<'a> {
    pub header: SetupHeader,
    /// The protected-mode part.
    pub code: &'a [u8],
}

/// Why a file is not a kernel that can be started in 64-bit mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BzImageError {
    NoHeader,
    Version(u16),
    LoadedLow,
    Not64Bit,
    /// Where the kernel wants to be.
    OutOfReach(u64),
    CommandLine {
        len: usize,
        most: u32,
    },
}

impl fmt::Display for BzImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader => {
                f.write_str("no setup header (\"HdrS\" at offset 0x202): not a Linux bzImage")
            }
            Self::Version(version) => write!(
                f,
                "a Linux kernel of boot protocol {}.{:02}, which knows no 64-bit entry point; 2.12 \
                 (Linux 3.8) is the oldest that does",
                version >> 8,
                version & 0xff
            ),
            Self::LoadedLow => f.write_str("a Linux zImage, loaded below 1 MiB; build a bzImage"),
            Self::Not64Bit => f.write_str(
                "a Linux kernel without a 64-bit entry point (XLF_KERNEL_64), so one for 32-bit \
                 processors: only x86-64 kernels are loaded",
            ),
            Self::OutOfReach(at) => write!(
                f,
                "the Linux kernel wants to lie at {at:#x}, and it is entered below 4 GiB only"
            ),
            Self::CommandLine { len, most } => write!(
                f,
                "the command line has {len} bytes, this kernel takes {most} at most"
            ),
        }
    }
}

/// Whether the file is a Linux kernel of protocol 2.00 or later.
pub fn is_bzimage(file: &[u8]) -> bool {
    Reader { bytes: file }
        .slice("the magic", MAGIC_AT, MAGIC.len() as u64)
        .is_ok_and(|magic| magic == MAGIC)
}

/// Takes a kernel apart and checks that it can be started here.
pub fn parse(file: &[u8]) -> Result<BzImage<'_>, ImageError> {
    let refused = |error| Err(ImageError::Linux(error));
    let header = setup_header(file)?;
    if header.version < VERSION_64 {
        return refused(BzImageError::Version(header.version));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return refused(BzImageError::LoadedLow);
    }
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        return refused(BzImageError::Not64Bit);
    }
    let kernel = BzImage {
        code: code(file, &header)?,
        header,
    };
    match kernel.load_address().checked_add(kernel.room()) {
        Some(end) if end <= 1 << 32 => Ok(kernel),
        _ => refused(BzImageError::OutOfReach(kernel.load_address())),
    }
}

/// The header as far as this kernel has it; what later protocols added is zero.
fn setup_header(file: &[u8]) -> Result<SetupHeader, ImageError> {
    let reader = Reader { bytes: file };
    let boot_flag = reader.u16("the boot sector", SECTOR - 2);
    if !is_bzimage(file) || boot_flag != Ok(BOOT_FLAG) {
        return Err(ImageError::Linux(BzImageError::NoHeader));
    }
    let end = MAGIC_AT + u64::from(file[LENGTH_AT]);
    let bytes = reader.slice("the Linux setup header", HEADER, end - HEADER)?;
    let mut header = SetupHeader::default();
    let known = header.as_mut_slice();
    let len = known.len().min(bytes.len());
    known[..len].copy_from_slice(&bytes[..len]);
    Ok(header)
}

/// What lies behind the boot sector and the real-mode part, as long as the header says: a
/// signature may follow. The length is counted in units of 16 bytes.
fn code<'a>(file: &'a [u8], header: &SetupHeader) -> Result<&'a [u8], ImageError> {
    let sectors = match header.setup_sects {
        0 => DEFAULT_SETUP_SECTS,
        sectors => sectors,
    };
    let start = SECTOR * (1 + u64::from(sectors));
    let len = 16 * u64::from(header.syssize);
    if len == 0 {
        return Err(ImageError::NothingToLoad);
    }
    let rest = (file.len() as u64).saturating_sub(start);
    let padding = len.saturating_sub(rest);
    let len = if padding < 16 { len - padding } else { len };
    Reader { bytes: file }.slice("the Linux kernel's code", start, len)
}

impl<'a> BzImage<'a> {
    /// Where the code goes. A kernel that isn't relocatable must be there; one that is
    /// moves itself there if it was loaded lower, and gains nothing higher up.
    pub fn load_address(&self) -> u64 {
        self.header.pref_address
    }

    /// How much memory from the load address on the kernel uses while it unpacks itself.
    pub fn room(&self) -> u64 {
        u64::from(self.header.init_size).max(self.code.len() as u64)
    }

    /// The last byte that an initial RAM disk may occupy.
    pub fn initrd_last(&self) -> u64 {
        if self.header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G != 0 {
            u64::MAX
        } else {
            u64::from(self.header.initrd_addr_max)
        }
    }

    /// Whether the command line is short enough.
    pub fn check_command_line(&self, text: &str) -> Result<(), ImageError> {
        let most = self.header.cmdline_size;
        if text.len() as u64 <= u64::from(most) {
            return Ok(());
        }
        let len = text.len();
        let error = BzImageError::CommandLine { len, most };
        Err(ImageError::Linux(error))
    }

    /// The code at its place.
    pub fn image(&self) -> Image<'a> {
        let segment = Segment {
            gpa: self.load_address(),
            data: self.code,
            mem_size: self.code.len() as u64,
        };
        Image {
            segments: vec![segment],
            entry: self.load_address() + ENTRY_64,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file with a header like that of Debian's kernels and 0x1000 bytes of code, behind
    /// which a signature follows.
    pub fn kernel() -> Vec<u8> {
        let mut file = vec![0; 0x600];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[2]); // setup_sects
        put(0x1f4, &0x100_u32.to_le_bytes()); // syssize
        put(0x1fe, &[0x55, 0xaa, 0xeb, 106]); // boot_flag, jump
        put(0x202, b"HdrS");
        put(0x206, &0x20f_u16.to_le_bytes()); // version
        put(0x211, &[1]); // loadflags
        put(0x214, &0x10_0000_u32.to_le_bytes()); // code32_start
        put(0x22c, &0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
        put(0x230, &0x20_0000_u32.to_le_bytes()); // kernel_alignment
        put(0x234, &[1]); // relocatable_kernel
        put(0x236, &0x7d_u16.to_le_bytes()); // xloadflags, not above 4 GiB
        put(0x238, &2047_u32.to_le_bytes()); // cmdline_size
        put(0x258, &0x100_0000_u64.to_le_bytes()); // pref_address
        put(0x260, &0x3_0000_u32.to_le_bytes()); // init_size
        file.extend([0x90; 0x1000]);
        file.extend(b"signature");
        file
    }

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut file = kernel();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    }

    fn refusal(file: &[u8]) -> BzImageError {
        match parse(file) {
            Err(ImageError::Linux(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn code_goes_where_the_header_prefers_and_is_entered_at_startup_64() {
        let file = kernel();
        let kernel = parse(&file).unwrap();
        let image = kernel.image();
        assert_eq!(image.entry, 0x100_0200);
        assert_eq!(image.segments[0].gpa, 0x100_0000);
        assert_eq!(
            image.segments[0].data, [0x90; 0x1000],
            "without the signature"
        );
        assert_eq!(kernel.room(), 0x3_0000);
        assert_eq!(kernel.initrd_last(), 0x7fff_ffff);
        let above = with(0x236, &[0x7f]);
        assert_eq!(parse(&above).unwrap().initrd_last(), u64::MAX);
        let none = with(0x1f1, &[0]);
        assert!(matches!(
            parse(&none),
            Err(ImageError::Truncated {
                offset: 0xa00,
                need: 0x1000,
                ..
            })
        ));
    }

    #[test]
    fn only_the_padding_of_the_last_paragraph_may_be_missing() {
        let file = kernel();
        let code_end = 0x600 + 0x1000;
        assert_eq!(
            parse(&file[..code_end - 15]).unwrap().code.len(),
            0x1000 - 15
        );
        assert!(matches!(
            parse(&file[..code_end - 16]),
            Err(ImageError::Truncated { .. })
        ));
    }

    #[test]
    fn kernels_without_a_64_bit_entry_are_refused_with_the_reason() {
        assert_eq!(
            refusal(&with(0x206, &[0x0b, 2])),
            BzImageError::Version(0x20b)
        );
        assert!(BzImageError::Version(0x20b).to_string().contains("2.11,"));
        assert_eq!(refusal(&with(0x211, &[0])), BzImageError::LoadedLow);
        assert_eq!(refusal(&with(0x236, &[0])), BzImageError::Not64Bit);
        assert_eq!(refusal(&with(0x202, b"HdrT")), BzImageError::NoHeader);
        assert_eq!(refusal(&with(0x1fe, &[0])), BzImageError::NoHeader);
        assert_eq!(refusal(b"short"), BzImageError::NoHeader);
        let high = 0xffff_f000_u64;
        assert_eq!(
            refusal(&with(0x258, &high.to_le_bytes())),
            BzImageError::OutOfReach(high)
        );
        assert_eq!(
            refusal(&with(0x258, &u64::MAX.to_le_bytes())),
            BzImageError::OutOfReach(u64::MAX)
        );
    }

    #[test]
    fn a_header_that_ends_early_has_zeros_behind() {
        // Up to 0x23c: no pref_address, no init_size.
        let file = with(LENGTH_AT, &[0x3a]);
        let header = setup_header(&file).unwrap();
        assert_eq!(
            ({ header.cmdline_size }, { header.pref_address }, {
                header.init_size
            }),
            (2047, 0, 0)
        );
    }

    #[test]
    fn the_command_line_has_the_kernels_limit() {
        let file = kernel();
        let kernel = parse(&file).unwrap();
        assert_eq!(kernel.check_command_line(&"x".repeat(2047)), Ok(()));
        let error = kernel.check_command_line(&"x".repeat(2048)).unwrap_err();
        assert!(error.to_string().contains("2048 bytes"), "{error}");
        assert!(error.to_string().contains("2047 at most"), "{error}");
    }

    proptest! {
        #[test]
        fn damaged_kernels_never_panic(
            changes in proptest::collection::vec((0x1f1usize..0x268, any::<u8>()), 0..8),
            cut in 0usize..0x1700,
        ) {
            let mut file = kernel();
            for (at, byte) in changes {
                file[at] = byte;
            }
            file.truncate(cut);
            if let Ok(kernel) = parse(&file) {
                prop_assert!(kernel.load_address() + kernel.room() <= 1 << 32);
                prop_assert!(kernel.code.len() as u64 <= kernel.room());
            }
        }
    }
}
