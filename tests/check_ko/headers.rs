//! Do a FreeBSD release's headers say what the list says? The compiler is asked: where was
//! this declared, and what is it?

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use vmm_headers::{Headers, Kernel};

use super::Problem;
use super::kpi::{Kind, Kpi};

/// What others need to be included before them, in this order.
const FIRST: [&str; 13] = [
    "sys/param.h",
    "sys/systm.h",
    "sys/kernel.h",
    "sys/lock.h",
    "sys/mutex.h",
    "sys/bus.h",
    "sys/malloc.h",
    "sys/proc.h",
    "vm/vm.h",
    "vm/vm_param.h",
    "vm/pmap.h",
    "machine/segments.h",
    "machine/intr_machdep.h",
];

/// Where the list and this release's headers differ.
pub fn check(headers: &Headers, kernel: &Kernel, kpi: &Kpi) -> Result<Vec<Problem>, String> {
    let declarations = declarations(headers, kernel, kpi)?;
    let release = kernel.release;
    let mut problems = BTreeSet::new();
    for (name, listed) in kpi.symbols() {
        let found = declarations.get(name);
        let symbol = name.to_owned();
        match (listed.is_in(release), found) {
            (true, Some(found)) => {
                if (found.kind, &found.header) != (listed.kind, &listed.header) {
                    problems.insert(Problem::Declared {
                        symbol,
                        release,
                        found: format!("a {} of {}", found.kind, found.header),
                    });
                }
            }
            (true, None) => {
                problems.insert(Problem::Undeclared { symbol, release });
            }
            (false, Some(found)) => {
                problems.insert(Problem::Unlisted {
                    symbol,
                    release,
                    header: found.header.clone(),
                });
            }
            (false, None) => {}
        }
    }
    Ok(problems.into_iter().collect())
}

struct Declaration {
    header: String,
    kind: Kind,
}

/// Declares each symbol once more, as something that it certainly is not: the compiler's
/// errors then say which were known, as what, and from where.
fn declarations(
    headers: &Headers,
    kernel: &Kernel,
    kpi: &Kpi,
) -> Result<BTreeMap<String, Declaration>, String> {
    let listed: BTreeSet<&str> = kpi
        .symbols()
        .map(|(_, symbol)| symbol.header.as_str())
        .collect();
    let mut source = String::new();
    for header in FIRST.into_iter().chain(listed) {
        source += &format!("#if __has_include(<{header}>)\n#include <{header}>\n#endif\n");
    }
    source += "struct vmm_rs_other { int other; };\n";
    for (name, _) in kpi.symbols() {
        source += &format!("extern struct vmm_rs_other {name};\n");
    }

    let mut child = Command::new(&headers.clang)
        .args(kernel.clang_args())
        .args(["-ffreestanding", "-std=gnu17", "-mcmodel=kernel", "-w"])
        .args(["-fsyntax-only", "-ferror-limit=0"])
        .args(["-fno-caret-diagnostics", "-fno-color-diagnostics"])
        .args(["-x", "c", "-"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{}: {e}", headers.clang.display()))?;
    let mut stdin = child.stdin.take().ok_or("no pipe to the compiler")?;
    stdin
        .write_all(source.as_bytes())
        .map_err(|e| format!("{}: {e}", headers.clang.display()))?;
    drop(stdin);
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    parse(&String::from_utf8_lossy(&output.stderr), kernel)
}

fn parse(messages: &str, kernel: &Kernel) -> Result<BTreeMap<String, Declaration>, String> {
    let mut found = BTreeMap::new();
    let mut lines = messages.lines();
    while let Some(line) = lines.next() {
        let Some((_, error)) = line.split_once(": error: ") else {
            continue;
        };
        let strange = || format!("headers of FreeBSD {}: {line}", kernel.release);
        if !line.starts_with("<stdin>:") {
            return Err(strange());
        }
        let kind = if error.ends_with("as different kind of symbol") {
            Kind::Function
        } else if error.contains("with a different type") {
            Kind::Variable
        } else {
            return Err(strange());
        };
        let name = error.split('\'').nth(1).ok_or_else(strange)?;
        // The note behind it, FILE:LINE:COLUMN: note: previous declaration is here.
        let file = lines
            .by_ref()
            .find_map(|note| note.split_once(": note: previous "))
            .and_then(|(place, _)| place.rsplitn(3, ':').nth(2))
            .ok_or_else(strange)?;
        let header = kernel
            .include_dirs
            .iter()
            .find_map(|dir| Path::new(file).strip_prefix(dir).ok())
            .map_or_else(|| file.to_owned(), |path| path.display().to_string());
        found.insert(name.to_owned(), Declaration { header, kind });
    }
    Ok(found)
}
