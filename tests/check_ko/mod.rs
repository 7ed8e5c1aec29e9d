//! Can FreeBSD's kernel load this object and run it safely? What `kldload` would find out
//! too late, or never: relocations it doesn't take, symbols it doesn't export, use of
//! registers that belong to the thread's userland, use of memory that the next interrupt
//! overwrites, and linker sets without which the module does nothing.

mod code;
mod kpi;

use std::collections::BTreeSet;
use std::fmt;

use object::elf;
use object::read::elf::ElfFile64;
use object::{
    Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags,
    SymbolKind,
};

pub use kpi::Kpi;

/// What FreeBSD's linker for relocatable modules on amd64 (elf_reloc_internal of
/// sys/amd64/amd64/elf_machdep.c) takes in an object that isn't a shared library.
const RELOCATIONS: [(elf::RelocationType, &str); 5] = [
    (elf::R_X86_64_NONE, "NONE"),
    (elf::R_X86_64_64, "64"),
    (elf::R_X86_64_PC32, "PC32"),
    (elf::R_X86_64_PLT32, "PLT32"),
    (elf::R_X86_64_32S, "32S"),
];

/// The sets through which a module's start and end, sysctls and metadata are found.
const LINKER_SETS: [&str; 4] = [
    "set_sysinit_set",
    "set_sysuninit_set",
    "set_sysctl_set",
    "set_modmetadata_set",
];

/// One reason not to load it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Problem {
    /// A relocation type that the kernel's linker refuses.
    Relocation {
        section: String,
        offset: u64,
        kind: u32,
        symbol: String,
    },
    /// Needs a symbol that is not on the list of kernel functions.
    Undefined { symbol: String },
    /// The list has a symbol that nothing needs any more.
    Unneeded { symbol: String },
    /// An instruction uses the FPU, MMX, SSE or AVX registers.
    VectorRegister { place: String, instruction: String },
    /// An instruction uses memory below the stack pointer.
    RedZone { place: String, instruction: String },
    /// A linker set is not there.
    LinkerSet { name: String },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Relocation {
                section,
                offset,
                kind,
                symbol,
            } => {
                let taken = RELOCATIONS.map(|(_, name)| name).join(", ");
                write!(
                    f,
                    "{section}+{offset:#x}: relocation type {kind} against {symbol}; the kernel takes {taken}"
                )
            }
            Problem::Undefined { symbol } => {
                write!(
                    f,
                    "{symbol} is undefined and not on the list of kernel functions ({})",
                    Kpi::PATH
                )
            }
            Problem::Unneeded { symbol } => write!(
                f,
                "{symbol} is on the list {} but nothing needs it",
                Kpi::PATH
            ),
            Problem::VectorRegister { place, instruction } => {
                write!(f, "{place}: `{instruction}` uses FPU or vector registers")
            }
            Problem::RedZone { place, instruction } => {
                write!(f, "{place}: `{instruction}` uses the red zone")
            }
            Problem::LinkerSet { name } => write!(f, "section {name} is missing"),
        }
    }
}

/// Everything that is wrong with the object, in a fixed order; an error if it is no
/// x86-64 ELF object.
pub fn check(bytes: &[u8], kpi: &Kpi) -> Result<Vec<Problem>, String> {
    let object: ElfFile64 =
        ElfFile64::parse(bytes).map_err(|e| format!("not an ELF object: {e}"))?;
    if object.architecture() != object::Architecture::X86_64 {
        return Err(format!("an object for {:?}", object.architecture()));
    }
    let mut problems = BTreeSet::new();
    relocations(&object, &mut problems);
    undefined(&object, kpi, &mut problems);
    linker_sets(&object, &mut problems);
    for section in object.sections().filter(is_code) {
        code::check(&object, &section, &mut problems)?;
    }
    Ok(problems.into_iter().collect())
}

type Section<'data, 'file> = object::read::elf::ElfSection64<'data, 'file, object::Endianness>;

/// The kernel loads these, and only these.
fn is_loaded(section: &Section<'_, '_>) -> bool {
    matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & elf::SHF_ALLOC.0 != 0)
}

fn is_code(section: &Section<'_, '_>) -> bool {
    matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & elf::SHF_EXECINSTR.0 != 0)
}

/// The name of what a relocation is against.
fn target(object: &ElfFile64<'_>, target: RelocationTarget) -> Option<String> {
    let RelocationTarget::Symbol(index) = target else {
        return None;
    };
    let symbol = object.symbol_by_index(index).ok()?;
    if symbol.kind() == SymbolKind::Section {
        let section = object.section_by_index(symbol.section_index()?).ok()?;
        return section.name().ok().map(str::to_owned);
    }
    symbol.name().ok().map(str::to_owned)
}

fn relocations(object: &ElfFile64<'_>, problems: &mut BTreeSet<Problem>) {
    for section in object.sections().filter(is_loaded) {
        for (offset, relocation) in section.relocations() {
            let kind = match relocation.flags() {
                RelocationFlags::Elf { r_type } => r_type,
                other => unreachable!("{other:?} in an ELF object"),
            };
            if RELOCATIONS.iter().all(|&(taken, _)| taken != kind) {
                problems.insert(Problem::Relocation {
                    section: section.name().unwrap_or("?").to_owned(),
                    offset,
                    kind: kind.0,
                    symbol: target(object, relocation.target()).unwrap_or_default(),
                });
            }
        }
    }
}

/// Symbols that loaded sections need and the object doesn't have. A symbol in the table
/// that no relocation uses is not looked up.
fn undefined(object: &ElfFile64<'_>, kpi: &Kpi, problems: &mut BTreeSet<Problem>) {
    let mut needed = BTreeSet::new();
    for section in object.sections().filter(is_loaded) {
        for (_, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else {
                continue;
            };
            let Ok(symbol) = object.symbol_by_index(index) else {
                continue;
            };
            if symbol.is_undefined() {
                needed.insert(symbol.name().unwrap_or("?").to_owned());
            }
        }
    }
    // The kernel defines the bounds of the linker sets that the module has.
    needed.retain(|name| {
        let set = name
            .strip_prefix("__start_")
            .or_else(|| name.strip_prefix("__stop_"));
        set.is_none_or(|set| object.section_by_name(set).is_none())
    });
    for symbol in needed.iter().filter(|symbol| !kpi.contains(symbol)) {
        problems.insert(Problem::Undefined {
            symbol: symbol.clone(),
        });
    }
    for symbol in kpi.symbols().filter(|symbol| !needed.contains(*symbol)) {
        problems.insert(Problem::Unneeded {
            symbol: symbol.to_owned(),
        });
    }
}

fn linker_sets(object: &ElfFile64<'_>, problems: &mut BTreeSet<Problem>) {
    for name in LINKER_SETS {
        if object
            .section_by_name(name)
            .is_none_or(|section| section.size() == 0)
        {
            problems.insert(Problem::LinkerSet {
                name: name.to_owned(),
            });
        }
    }
}
