//! Does kbi.c assert the place of each member of a kernel structure that the shim uses, be
//! it through the kernel's inline functions and macros? The compiler's syntax tree says
//! which these are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use vmm_headers::{Headers, Kernel};

use super::Problem;

const ASSERTIONS: &str = "kbi.c";

/// Members that the sources in this folder use and its kbi.c says nothing of.
pub fn check(headers: &Headers, kernel: &Kernel, shim: &Path) -> Result<Vec<Problem>, String> {
    let kbi = shim.join(ASSERTIONS);
    let text = fs::read_to_string(&kbi).map_err(|e| format!("{}: {e}", kbi.display()))?;
    let asserted = asserted(&text);
    // A structure that kbi.c doesn't see is no kernel's.
    let of_kernel = syntax_tree(headers, kernel, &kbi)?.structures;

    let mut problems = BTreeSet::new();
    let files = fs::read_dir(shim).map_err(|e| format!("{}: {e}", shim.display()))?;
    for path in files.flatten().map(|file| file.path()) {
        if path.extension().is_none_or(|extension| extension != "c") || path == kbi {
            continue;
        }
        for (structure, member) in syntax_tree(headers, kernel, &path)?.used() {
            if of_kernel.contains(&structure)
                && !asserted.contains(&(structure.clone(), member.clone()))
            {
                problems.insert(Problem::Layout {
                    source: path
                        .file_name()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned(),
                    structure,
                    member,
                    release: kernel.release,
                });
            }
        }
    }
    Ok(problems.into_iter().collect())
}

/// Structure and member of each `OFFSET(struct thread, td_ast, 268, 268);`.
fn asserted(text: &str) -> BTreeSet<(String, String)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("OFFSET(struct "))
        .filter_map(|line| {
            let mut words = line.split(',').map(str::trim);
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect()
}

/// What matters of clang's dump of a source with its headers.
#[derive(Default)]
struct Tree {
    /// Structures that are defined.
    structures: BTreeSet<String>,
    /// Members by clang's number for them.
    fields: BTreeMap<String, (String, String)>,
    functions: BTreeMap<String, Function>,
}

#[derive(Default)]
struct Function {
    inline: bool,
    /// Numbers of the members that it uses.
    members: BTreeSet<String>,
    calls: BTreeSet<String>,
}

impl Tree {
    /// Structure and member of all that the source's functions use, and the headers'
    /// inline functions that they call.
    fn used(&self) -> BTreeSet<(String, String)> {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut next: Vec<&str> = self
            .functions
            .iter()
            .filter(|(_, function)| !function.inline)
            .map(|(name, _)| name.as_str())
            .collect();
        let mut used = BTreeSet::new();
        while let Some(name) = next.pop() {
            let Some(function) = self.functions.get(name).filter(|_| seen.insert(name)) else {
                continue;
            };
            next.extend(function.calls.iter().map(String::as_str));
            let fields = function.members.iter();
            used.extend(fields.filter_map(|number| self.fields.get(number)).cloned());
        }
        used
    }
}

fn syntax_tree(headers: &Headers, kernel: &Kernel, source: &Path) -> Result<Tree, String> {
    let output = Command::new(&headers.clang)
        .args(kernel.clang_args())
        .args(["-ffreestanding", "-std=gnu17", "-mcmodel=kernel", "-w"])
        .args(["-fsyntax-only", "-fno-color-diagnostics"])
        .args(["-Xclang", "-ast-dump"])
        .arg(source)
        .output()
        .map_err(|e| format!("{}: {e}", headers.clang.display()))?;
    if !output.status.success() {
        return Err(format!(
            "{}, for FreeBSD {}: {}",
            source.display(),
            kernel.release,
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(dump: &str) -> Tree {
    let mut tree = Tree::default();
    let mut function: Option<String> = None;
    // Structures that the line is in, from the outside, each with its depth.
    let mut around: Vec<(usize, String)> = Vec::new();
    for line in dump.lines() {
        let Some(depth) = line.find(|c: char| c.is_ascii_alphabetic()) else {
            continue;
        };
        let line = &line[depth..];
        let words: Vec<&str> = line.split_whitespace().collect();
        around.retain(|(outer, _)| *outer < depth);
        if depth == 2 {
            function = None;
        }
        match words[0] {
            "RecordDecl" if line.ends_with(" definition") => {
                // Members of an unnamed one belong to the structure around it.
                let named = words[words.len() - 2];
                let name = match around.last() {
                    Some((_, outer)) if ["struct", "union"].contains(&named) => outer.clone(),
                    _ => named.to_owned(),
                };
                tree.structures.insert(name.clone());
                around.push((depth, name));
            }
            "FieldDecl" => {
                let before_type = line.split(" '").next().unwrap_or_default();
                let member = before_type.rsplit(' ').next().unwrap_or_default();
                if let Some((_, structure)) = around.last() {
                    tree.fields
                        .insert(words[1].to_owned(), (structure.clone(), member.to_owned()));
                }
            }
            "FunctionDecl" if depth == 2 => {
                let before_type = line.split(" '").next().unwrap_or_default();
                let name = before_type
                    .rsplit(' ')
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let inline = line.contains("' static inline")
                    || line.contains("' inline")
                    || line.contains("' extern inline");
                let entry = tree.functions.entry(name.clone()).or_default();
                entry.inline |= inline;
                function = Some(name);
            }
            // A bit-field has no offset; kbi.c can only know the structure's size.
            "MemberExpr" if !line.contains(" bitfield ") => {
                if let Some(name) = &function {
                    let entry = tree.functions.entry(name.clone()).or_default();
                    entry.members.insert(words[words.len() - 1].to_owned());
                }
            }
            "DeclRefExpr" => {
                let callee = line
                    .split_once(" Function 0x")
                    .and_then(|(_, rest)| rest.split('\'').nth(1));
                if let (Some(name), Some(callee)) = (&function, callee) {
                    let entry = tree.functions.entry(name.clone()).or_default();
                    entry.calls.insert(callee.to_owned());
                }
            }
            _ => {}
        }
    }
    tree
}
