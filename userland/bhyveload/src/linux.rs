//! How Linux is entered in 64-bit mode ("64-bit BOOT PROTOCOL" of its boot.rst): RSI points
//! to the boot parameters (the "zero page": the kernel's own setup header, completed by the
//! loader, and the E820 map), which tell of the command line and the initial RAM disk.

#![forbid(unsafe_code)]

use linux_loader::bootparam::{boot_e820_entry, boot_params as BootParams};
use vm_memory::ByteValued;
use vmmapi::address_map::e820;

use crate::boot::{self, BootState};
use crate::bzimage::BzImage;
use crate::layout::{Layout, LayoutError};

/// type_of_loader without a number of our own.
const UNDEFINED_LOADER: u8 = 0xff;
/// vid_mode "normal": as it is.
const VIDEO_NORMAL: u16 = 0xffff;
const PAGE: u64 = 4096;

/// An initial RAM disk in guest memory; none has length 0.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Initrd {
    pub gpa: u64,
    pub len: u64,
}

/// Takes the memory that the kernel uses beyond its code before it knows any map.
pub fn reserve_room(layout: &mut Layout, kernel: &BzImage<'_>) -> Result<(), LayoutError> {
    let code = kernel.code.len() as u64;
    let what = "what the Linux kernel unpacks itself into";
    layout.reserve(what, kernel.load_address() + code, kernel.room() - code)
}

/// As high as memory below 4 GiB and the kernel allow, out of the way of its unpacking.
pub fn place_initrd(
    layout: &mut Layout,
    kernel: &BzImage<'_>,
    len: u64,
) -> Result<Initrd, LayoutError> {
    let limit = kernel.initrd_last().saturating_add(1);
    let gpa = layout.allocate_high("the initial RAM disk", len, PAGE, limit)?;
    Ok(Initrd { gpa, len })
}

/// Boot parameters and command line, and the state in which startup_64 begins.
pub fn hand_over(
    layout: &mut Layout,
    kernel: &BzImage<'_>,
    entry: u64,
    command_line: &str,
    initrd: Initrd,
) -> Result<BootState, LayoutError> {
    let mut text = command_line.as_bytes().to_vec();
    text.push(0);
    let text_at = layout.allocate("the command line", text.len() as u64, 16, 0)?;
    let params_at = layout.allocate("the boot parameters", PAGE, PAGE, 0)?;
    let params = boot_params(layout, kernel, text_at, initrd);
    let mut state = boot::linux(layout, entry, params_at)?;
    state.memory.push((text_at, text));
    state.memory.push((params_at, params.as_slice().to_vec()));
    Ok(state)
}

/// What isn't named stays zero: no screen, no disks known to a BIOS.
fn boot_params(
    layout: &Layout,
    kernel: &BzImage<'_>,
    command_line: u64,
    initrd: Initrd,
) -> BootParams {
    let mut params = BootParams::zeroed();
    // acpi_rsdp_addr stays 0: the kernel looks for the ACPI tables in the BIOS area by itself. It
    // would believe an address, and not every bhyve has the RSDP at the same one.
    params.hdr = kernel.header;
    params.hdr.type_of_loader = UNDEFINED_LOADER;
    params.hdr.vid_mode = VIDEO_NORMAL;
    // The image is where it asked to be; the field has 32 bits, as the address does.
    params.hdr.code32_start = kernel.load_address() as u32;
    (params.hdr.cmd_line_ptr, params.ext_cmd_line_ptr) = halves(command_line);
    (params.hdr.ramdisk_image, params.ext_ramdisk_image) = halves(initrd.gpa);
    (params.hdr.ramdisk_size, params.ext_ramdisk_size) = halves(initrd.len);
    let map = e820(layout.lowmem(), layout.highmem());
    let mut table = params.e820_table;
    for (slot, entry) in table.iter_mut().zip(&map) {
        *slot = boot_e820_entry {
            addr: entry.base,
            size: entry.len,
            r#type: entry.kind as u32,
        };
    }
    params.e820_table = table;
    params.e820_entries = map.len() as u8;
    params
}

/// Lower and upper 32 bits.
fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bzimage;
    use vmmapi::Reg;

    fn word(page: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(page[at..at + 4].try_into().unwrap())
    }

    fn long(page: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(page[at..at + 8].try_into().unwrap())
    }

    /// The offsets are those of the kernel's documentation (zero-page.rst).
    #[test]
    fn boot_parameters_are_the_kernels_header_completed_and_the_memory_map() {
        let file = bzimage::tests::kernel();
        let kernel = bzimage::parse(&file).unwrap();
        let mut layout = Layout::new(5 << 30);
        layout.reserve("kernel", 0x100_0000, 0x1000).unwrap();
        reserve_room(&mut layout, &kernel).unwrap();
        let initrd = place_initrd(&mut layout, &kernel, 5000).unwrap();
        assert_eq!(
            initrd,
            Initrd {
                gpa: 0x7fff_e000,
                len: 5000
            },
            "no byte above initrd_addr_max"
        );
        let state = hand_over(&mut layout, &kernel, 0x100_0200, "a=b quiet", initrd).unwrap();
        let register = |reg| state.registers.iter().find(|(r, _)| *r == reg).unwrap().1;
        assert_eq!(register(Reg::Rip), 0x100_0200);
        let memory = |gpa| &state.memory.iter().find(|(at, _)| *at == gpa).unwrap().1;
        let page = memory(register(Reg::Rsi));
        assert_eq!(page.len(), 4096);

        assert_eq!(
            page[0x211..0x26c],
            [
                &file[0x211..0x214],
                &page[0x214..0x22c],
                &file[0x22c..0x26c]
            ]
            .concat()
        );
        assert_eq!((page[0x1f1], page[0x210]), (2, 0xff));
        assert_eq!(page[0x1fa..0x1fc], [0xff; 2], "vid_mode");
        assert_eq!((register(Reg::Cs), register(Reg::Ds)), (0x10, 0x18));
        assert_eq!(
            (word(page, 0x218), word(page, 0x21c)),
            (0x7fff_e000, 5000),
            "ramdisk_image, ramdisk_size"
        );
        assert_eq!(memory(u64::from(word(page, 0x228))), b"a=b quiet\0");
        assert_eq!(
            [0xc0, 0xc4, 0xc8].map(|at| word(page, at)),
            [0; 3],
            "upper halves"
        );
        assert_eq!(long(page, 0x70), 0, "acpi_rsdp_addr");
        assert_eq!(page[0x1ef], 0, "sentinel");

        let entries: Vec<_> = (0..usize::from(page[0x1e8]))
            .map(|n| 0x2d0 + 20 * n)
            .map(|at| (long(page, at), long(page, at + 8), word(page, at + 16)))
            .collect();
        assert_eq!(
            entries,
            [
                (0, 0xa_0000, 1),
                (0xf_0000, 0x1_0000, 2),
                (0x10_0000, (3 << 30) - 0x10_0000, 1),
                (0xe000_0000, 0x1000_0000, 2),
                (4 << 30, 2 << 30, 1)
            ]
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let file = bzimage::tests::kernel();
        let kernel = bzimage::parse(&file).unwrap();
        let mut layout = Layout::new(16 << 20);
        let error = reserve_room(&mut layout, &kernel).unwrap_err();
        assert!(error.to_string().contains("unpacks itself"), "{error}");
        let error = place_initrd(&mut layout, &kernel, 15 << 20 | 1).unwrap_err();
        assert!(error.to_string().contains("initial RAM disk"), "{error}");
    }
}
