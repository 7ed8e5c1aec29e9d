//! The state in which each format's first instruction runs, as data: registers, segment
//! registers with their hidden parts, and for long mode the page tables (SDM vol. 3A, 4.5
//! and 10.8.5) and the GDT (3.4.5). Access rights have the layout of SDM table 25-2.

#![forbid(unsafe_code)]

use vmmapi::{Reg, SegDesc, SegReg};

use crate::layout::{Layout, LayoutError};

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 is always set.
const RFLAGS_RESET: u64 = 1 << 1;

const PAGE: u64 = 4096;
/// PML4, one PDPT, four page directories: 4 GiB in pages of 2 MiB.
const PAGE_TABLES_LEN: u64 = 6 * PAGE;
const STACK_LEN: u64 = 4 * PAGE;

/// __BOOT_CS and __BOOT_DS of Linux' boot protocol; the other formats leave it open.
const CODE_SELECTOR: u64 = 0x10;
const DATA_SELECTOR: u64 = 0x18;
/// Two null descriptors, code, data.
const GDT_LEN: u64 = 4 * 8;
/// Code and data as SDM figure 3-8 lays them out: flat, 4 GiB, present, accessed.
const GDT_CODE32: u64 = 0x00cf_9b00_0000_ffff;
const GDT_CODE64: u64 = 0x00af_9b00_0000_ffff;
const GDT_DATA: u64 = 0x00cf_9300_0000_ffff;

const ACCESS_UNUSABLE: u32 = 1 << 16;
const ACCESS_CODE16: u32 = 0x009b;
const ACCESS_DATA16: u32 = 0x0093;
const ACCESS_CODE32: u32 = 0xc09b;
const ACCESS_CODE64: u32 = 0xa09b;
const ACCESS_DATA32: u32 = 0xc093;
const ACCESS_BUSY_TSS: u32 = 0x008b;
const TSS_LIMIT: u32 = 0x67;

/// What the vcpu is set to, in this order, and what else lies in guest memory for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BootState {
    pub registers: Vec<(Reg, u64)>,
    pub descriptors: Vec<(SegReg, SegDesc)>,
    pub memory: Vec<(u64, Vec<u8>)>,
}

/// Real mode at a physical address below 1 MiB: CS:IP reaches it with the 64 KiB block it
/// lies in as CS; the other segments start at 0. The stack grows down from the image if
/// that lies in the first 64 KiB, else from 0x7C00.
pub fn real_mode(entry: u64, image_start: u64) -> BootState {
    let cs_base = entry & 0xf_0000;
    let stack = if (0x1000..0x1_0000).contains(&image_start) {
        image_start & !15
    } else {
        0x7c00
    };
    let mut state = BootState::default();
    state.general(&[(Reg::Rsp, stack), (Reg::Rip, entry & 0xffff)]);
    state.control(CR0_ET | CR0_NE, 0, 0, 0);
    state.segment(
        SegReg::Cs,
        Reg::Cs,
        cs_base >> 4,
        flat16(cs_base, ACCESS_CODE16),
    );
    for (seg, reg) in DATA_SEGMENTS {
        state.segment(seg, reg, 0, flat16(0, ACCESS_DATA16));
    }
    state.system_segments();
    state.descriptors.push((
        SegReg::Gdtr,
        SegDesc {
            base: 0,
            limit: 0xffff,
            access: 0,
        },
    ));
    state.descriptors.push((
        SegReg::Idtr,
        SegDesc {
            base: 0,
            limit: 0x3ff,
            access: 0,
        },
    ));
    state
}

/// 32-bit protected mode without paging, as the multiboot specification (3.2) and PVH have
/// it: the image finds what it is told through EBX. The GDT and the stack are a service: a
/// kernel that follows these specifications makes its own.
pub fn protected_mode(
    layout: &mut Layout,
    entry: u64,
    eax: u32,
    info: (u64, Vec<u8>),
) -> Result<BootState, LayoutError> {
    let gdt = layout.allocate("the GDT", GDT_LEN, 8, 0)?;
    let stack = layout.allocate("the boot stack", STACK_LEN, 16, 0)?;
    let mut state = BootState::default();
    state.general(&[
        (Reg::Rax, u64::from(eax)),
        (Reg::Rbx, info.0),
        (Reg::Rsp, stack + STACK_LEN),
        (Reg::Rip, entry),
    ]);
    state.control(CR0_PE | CR0_ET | CR0_NE, 0, 0, 0);
    state.flat_segments(ACCESS_CODE32);
    state.gdt(gdt, GDT_CODE32);
    state.memory.push(info);
    Ok(state)
}

/// Long mode with the first 4 GiB mapped one to one. RDI points to the command line
/// (NUL-terminated), RSI is the number of bytes of guest memory, RSP the top of 16 KiB.
pub fn long_mode(
    layout: &mut Layout,
    entry: u64,
    command_line: &str,
) -> Result<BootState, LayoutError> {
    let mut text = command_line.as_bytes().to_vec();
    text.push(0);
    let text_at = layout.allocate("the command line", text.len() as u64, 8, 0)?;
    let memory = layout.lowmem() + layout.highmem();
    let arguments = [(Reg::Rdi, text_at), (Reg::Rsi, memory)];
    let mut state = paged(layout, entry, &arguments)?;
    state.memory.push((text_at, text));
    Ok(state)
}

/// The same mapping for Linux, whose RSI points to the boot parameters.
pub fn linux(layout: &mut Layout, entry: u64, params: u64) -> Result<BootState, LayoutError> {
    paged(layout, entry, &[(Reg::Rsi, params)])
}

/// Long mode with the first 4 GiB mapped one to one, and a stack.
fn paged(
    layout: &mut Layout,
    entry: u64,
    arguments: &[(Reg, u64)],
) -> Result<BootState, LayoutError> {
    let tables = layout.allocate("the page tables", PAGE_TABLES_LEN, PAGE, 0)?;
    let gdt = layout.allocate("the GDT", GDT_LEN, 8, 0)?;
    let stack = layout.allocate("the boot stack", STACK_LEN, 16, 0)?;
    let mut state = BootState::default();
    let start = [(Reg::Rsp, stack + STACK_LEN), (Reg::Rip, entry)];
    state.general(&[arguments, &start].concat());
    state.control(
        CR0_PE | CR0_ET | CR0_NE | CR0_PG,
        tables,
        CR4_PAE,
        EFER_LME | EFER_LMA,
    );
    state.flat_segments(ACCESS_CODE64);
    state.gdt(gdt, GDT_CODE64);
    state.memory.push((tables, identity_tables(tables)));
    Ok(state)
}

/// Page tables at `base` that map the first 4 GiB one to one, writable, in 2 MiB pages.
fn identity_tables(base: u64) -> Vec<u8> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let entries = PAGE / 8;
    let mut table = vec![0u64; (PAGE_TABLES_LEN / 8) as usize];
    let mut set = |page: u64, index: u64, entry: u64| {
        table[(page * entries + index) as usize] = entry;
    };
    set(0, 0, (base + PAGE) | PRESENT_WRITABLE);
    for directory in 0..4 {
        set(
            1,
            directory,
            (base + (2 + directory) * PAGE) | PRESENT_WRITABLE,
        );
        for index in 0..entries {
            let page = (directory * entries + index) << 21;
            set(2 + directory, index, page | LARGE | PRESENT_WRITABLE);
        }
    }
    table.into_iter().flat_map(u64::to_le_bytes).collect()
}

const DATA_SEGMENTS: [(SegReg, Reg); 5] = [
    (SegReg::Ds, Reg::Ds),
    (SegReg::Es, Reg::Es),
    (SegReg::Fs, Reg::Fs),
    (SegReg::Gs, Reg::Gs),
    (SegReg::Ss, Reg::Ss),
];

fn flat16(base: u64, access: u32) -> SegDesc {
    SegDesc {
        base,
        limit: 0xffff,
        access,
    }
}

fn flat32(access: u32) -> SegDesc {
    SegDesc {
        base: 0,
        limit: u32::MAX,
        access,
    }
}

impl BootState {
    /// The general registers and RFLAGS: these values, the others 0.
    fn general(&mut self, values: &[(Reg, u64)]) {
        let general = Reg::GENERAL.into_iter().chain([Reg::Rip]);
        self.registers.extend(general.map(|reg| {
            (
                reg,
                values
                    .iter()
                    .find(|(r, _)| *r == reg)
                    .map_or(0, |(_, value)| *value),
            )
        }));
        self.registers.push((Reg::Rflags, RFLAGS_RESET));
    }

    /// Control registers. CR0 and CR4 come before EFER: the kernel derives "IA-32e mode
    /// guest" from EFER.LMA.
    fn control(&mut self, cr0: u64, cr3: u64, cr4: u64, efer: u64) {
        self.registers.extend([
            (Reg::Cr0, cr0),
            (Reg::Cr3, cr3),
            (Reg::Cr4, cr4),
            (Reg::Efer, efer),
        ]);
    }

    fn segment(&mut self, seg: SegReg, reg: Reg, selector: u64, desc: SegDesc) {
        self.descriptors.push((seg, desc));
        self.registers.push((reg, selector));
    }

    fn flat_segments(&mut self, code: u32) {
        self.segment(SegReg::Cs, Reg::Cs, CODE_SELECTOR, flat32(code));
        for (seg, reg) in DATA_SEGMENTS {
            self.segment(seg, reg, DATA_SELECTOR, flat32(ACCESS_DATA32));
        }
        self.system_segments();
        self.descriptors.push((
            SegReg::Idtr,
            SegDesc {
                base: 0,
                limit: 0,
                access: 0,
            },
        ));
    }

    /// A TSS must be there and busy at VM entry (SDM vol. 3C, 27.3.1.2); nothing uses it.
    fn system_segments(&mut self) {
        let tss = SegDesc {
            base: 0,
            limit: TSS_LIMIT,
            access: ACCESS_BUSY_TSS,
        };
        self.segment(SegReg::Tr, Reg::Tr, 0, tss);
        let ldt = SegDesc {
            base: 0,
            limit: 0,
            access: ACCESS_UNUSABLE,
        };
        self.segment(SegReg::Ldtr, Reg::Ldtr, 0, ldt);
    }

    fn gdt(&mut self, base: u64, code: u64) {
        let entries = [0, 0, code, GDT_DATA];
        self.memory.push((
            base,
            entries.into_iter().flat_map(u64::to_le_bytes).collect(),
        ));
        self.descriptors.push((
            SegReg::Gdtr,
            SegDesc {
                base,
                limit: GDT_LEN as u32 - 1,
                access: 0,
            },
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(state: &BootState, reg: Reg) -> u64 {
        state.registers.iter().find(|(r, _)| *r == reg).unwrap().1
    }

    fn descriptor(state: &BootState, seg: SegReg) -> SegDesc {
        state.descriptors.iter().find(|(s, _)| *s == seg).unwrap().1
    }

    #[test]
    fn real_mode_reaches_its_entry_through_cs_and_ip() {
        for (entry, selector, ip) in [
            (0x7c00, 0, 0x7c00),
            (0x1_0000, 0x1000, 0),
            (0xf_fff0, 0xf000, 0xfff0),
        ] {
            let state = real_mode(entry, entry);
            assert_eq!(register(&state, Reg::Cs), selector);
            assert_eq!(register(&state, Reg::Rip), ip);
            assert_eq!(descriptor(&state, SegReg::Cs).base + ip, entry);
            assert_eq!(register(&state, Reg::Cr0) & (CR0_PE | CR0_PG), 0);
        }
        assert_eq!(register(&real_mode(0x7c00, 0x7c00), Reg::Rsp), 0x7c00);
        assert_eq!(register(&real_mode(0x8_0000, 0x8_0000), Reg::Rsp), 0x7c00);
    }

    #[test]
    fn protected_mode_hands_over_a_magic_and_information() {
        let mut layout = Layout::new(64 << 20);
        let info = (0x5000, vec![1, 2, 3]);
        let state = protected_mode(&mut layout, 0x10_0000, 0x2bad_b002, info).unwrap();
        assert_eq!(register(&state, Reg::Rax), 0x2bad_b002);
        assert_eq!(register(&state, Reg::Rbx), 0x5000);
        assert_eq!(register(&state, Reg::Rip), 0x10_0000);
        assert_eq!(register(&state, Reg::Cr0) & (CR0_PE | CR0_PG), CR0_PE);
        assert_eq!(register(&state, Reg::Efer), 0);
        let code = descriptor(&state, SegReg::Cs);
        assert_eq!((code.base, code.limit), (0, u32::MAX));
        // D/B set, L clear: 32-bit code.
        assert_eq!(code.access >> 13 & 0b11, 0b10);
        assert!(state.memory.contains(&(0x5000, vec![1, 2, 3])));
    }

    #[test]
    fn long_mode_maps_four_gigabytes_one_to_one() {
        let mut layout = Layout::new(64 << 20);
        let state = long_mode(&mut layout, 0x10_0000, "a=b").unwrap();
        assert_eq!(register(&state, Reg::Efer), EFER_LME | EFER_LMA);
        assert_eq!(register(&state, Reg::Rsi), 64 << 20);
        // L set, D/B clear: 64-bit code.
        assert_eq!(descriptor(&state, SegReg::Cs).access >> 13 & 0b11, 0b01);
        let memory = |gpa: u64, len: usize| {
            let found = state.memory.iter().find_map(|(at, bytes)| {
                let from = usize::try_from(gpa.checked_sub(*at)?).ok()?;
                bytes.get(from..from + len)
            });
            found.unwrap()
        };
        let entry = |gpa: u64| u64::from_le_bytes(memory(gpa, 8).try_into().unwrap());
        let walk = |address: u64| {
            let pml4e = entry(register(&state, Reg::Cr3) + (address >> 39) * 8);
            let pdpte = entry((pml4e & !0xfff) + (address >> 30 & 511) * 8);
            let pde = entry((pdpte & !0xfff) + (address >> 21 & 511) * 8);
            assert_eq!(pml4e & pdpte & pde & 0b11, 0b11);
            assert_eq!(pde & 1 << 7, 1 << 7);
            (pde & !0x1f_ffff) + (address & 0x1f_ffff)
        };
        for address in [
            0,
            0x10_0000,
            0x20_0000,
            0xbfff_ffff,
            0xfee0_0000,
            0xffff_ffff,
        ] {
            assert_eq!(walk(address), address);
        }
        assert_eq!(memory(register(&state, Reg::Rdi), 4), b"a=b\0");
        let gdtr = descriptor(&state, SegReg::Gdtr);
        assert_eq!(entry(gdtr.base + CODE_SELECTOR), GDT_CODE64);
        assert_eq!(entry(gdtr.base + DATA_SELECTOR), GDT_DATA);
    }

    #[test]
    fn each_register_is_set_once() {
        let mut layout = Layout::new(64 << 20);
        for state in [
            real_mode(0x7c00, 0x7c00),
            protected_mode(&mut layout, 0x10_0000, 0, (0x5000, Vec::new())).unwrap(),
            long_mode(&mut layout, 0x10_0000, "").unwrap(),
            linux(&mut layout, 0x100_0200, 0x5000).unwrap(),
        ] {
            let mut names: Vec<Reg> = state.registers.iter().map(|(reg, _)| *reg).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), state.registers.len());
            assert_eq!(state.descriptors.len(), 10);
        }
    }
}
