//! Can FreeBSD's kernel load this object and run it safely? What `kldload` would find out
//! too late, or never: relocations it doesn't take, symbols it doesn't export, use of
//! registers that belong to the thread's userland, use of memory that the next interrupt
//! overwrites, and linker sets without which the module does nothing.

mod code;
mod headers;
mod kpi;
mod layouts;

use std::collections::BTreeSet;
use std::fmt;

use object::elf;
use object::read::elf::ElfFile64;
use object::{
    Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags,
    SymbolKind,
};

pub use headers::check as check_headers;
pub use kpi::Kpi;
pub use layouts::check as check_layouts;

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
    /// Needs a symbol that kernels don't have for which the module was built.
    Missing { symbol: String, version: u32 },
    /// The list has a symbol that nothing needs any more.
    Unneeded { symbol: String },
    /// The headers of a release don't declare a symbol that the list has for it.
    Undeclared { symbol: String, release: u32 },
    /// They declare it as something else, or elsewhere.
    Declared {
        symbol: String,
        release: u32,
        found: String,
    },
    /// They declare a symbol that the list doesn't have for the release.
    Unlisted {
        symbol: String,
        release: u32,
        header: String,
    },
    /// A member of a kernel's structure is used and its place not asserted.
    Layout {
        source: String,
        structure: String,
        member: String,
        release: u32,
    },
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
            Problem::Missing { symbol, version } => write!(
                f,
                "{symbol} is not in each kernel from version {version} on ({}); the shim needs an #if __FreeBSD_version",
                Kpi::PATH
            ),
            Problem::Unneeded { symbol } => write!(
                f,
                "{symbol} is on the list {} but nothing needs it",
                Kpi::PATH
            ),
            Problem::Undeclared { symbol, release } => write!(
                f,
                "{symbol} is on the list {} for FreeBSD {release}, whose headers don't declare it",
                Kpi::PATH
            ),
            Problem::Declared {
                symbol,
                release,
                found,
            } => write!(
                f,
                "{symbol} is {found} in FreeBSD {release}, not what {} says",
                Kpi::PATH
            ),
            Problem::Unlisted {
                symbol,
                release,
                header,
            } => write!(
                f,
                "{symbol} is in FreeBSD {release} as well ({header}), which {} doesn't say",
                Kpi::PATH
            ),
            Problem::Layout {
                source,
                structure,
                member,
                release,
            } => write!(
                f,
                "{source} uses {member} of struct {structure} in FreeBSD {release}; kbi.c needs a line OFFSET(struct {structure}, {member}, ...)"
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

/// What a look at a module found.
#[derive(PartialEq, Eq, Debug)]
pub struct Checked {
    /// `__FreeBSD_version` of the oldest kernel that it may be loaded by.
    pub version: u32,
    /// What it takes from the kernel.
    pub needed: BTreeSet<String>,
    /// Everything that is wrong, in a fixed order.
    pub problems: Vec<Problem>,
}

/// Looks at a module; an error if it is none for x86-64.
pub fn check(bytes: &[u8], kpi: &Kpi) -> Result<Checked, String> {
    let object: ElfFile64 =
        ElfFile64::parse(bytes).map_err(|e| format!("not an ELF object: {e}"))?;
    if object.architecture() != object::Architecture::X86_64 {
        return Err(format!("an object for {:?}", object.architecture()));
    }
    let mut problems = BTreeSet::new();
    let version = kernel_version(&object)?;
    let needed = needed(&object);
    relocations(&object, &mut problems);
    undefined(&needed, version, kpi, &mut problems);
    linker_sets(&object, &mut problems);
    for section in object.sections().filter(is_code) {
        code::check(&object, &section, &mut problems)?;
    }
    Ok(Checked {
        version,
        needed,
        problems: problems.into_iter().collect(),
    })
}

/// What the list has and no module needs. Nothing is known if modules for a release that
/// the list speaks of are not among these.
pub fn unneeded(kpi: &Kpi, modules: &[Checked]) -> Vec<Problem> {
    let known: BTreeSet<u32> = modules.iter().map(|m| m.version / 100_000).collect();
    if !kpi.releases().all(|release| known.contains(&release)) {
        return Vec::new();
    }
    kpi.symbols()
        .filter(|(name, _)| !modules.iter().any(|module| module.needed.contains(*name)))
        .map(|(name, _)| Problem::Unneeded {
            symbol: name.to_owned(),
        })
        .collect()
}

/// The module's dependency on the kernel, which DECLARE_MODULE() makes of the version in
/// sys/param.h: a `struct mod_depend`, the oldest version first.
fn kernel_version(object: &ElfFile64<'_>) -> Result<u32, String> {
    let symbol = object
        .symbols()
        .find(|symbol| {
            symbol
                .name()
                .is_ok_and(|name| name.ends_with("_depend_on_kernel"))
        })
        .ok_or("no module of FreeBSD's: it has no dependency on a kernel version")?;
    let section = symbol
        .section_index()
        .and_then(|index| object.section_by_index(index).ok());
    let data = section.and_then(|section| section.data_range(symbol.address(), 4).ok()?);
    let bytes = data.and_then(|data| data.try_into().ok());
    bytes
        .map(u32::from_le_bytes)
        .ok_or_else(|| "its dependency on a kernel version is empty".to_owned())
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
fn needed(object: &ElfFile64<'_>) -> BTreeSet<String> {
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
    needed
}

fn undefined(needed: &BTreeSet<String>, version: u32, kpi: &Kpi, problems: &mut BTreeSet<Problem>) {
    for name in needed {
        let symbol = name.clone();
        match kpi.get(name) {
            None => problems.insert(Problem::Undefined { symbol }),
            Some(listed) if !listed.is_in_version(version) => {
                problems.insert(Problem::Missing { symbol, version })
            }
            Some(_) => false,
        };
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
