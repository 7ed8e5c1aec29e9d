//! What the C compiler says about a header, for the FreeBSD target: values of constant
//! expressions, the layout of every structure, and the macros. It can't run programs for
//! that target here, so the values are read from the LLVM IR of a generated file, and the
//! layouts from clang's own record of them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A structure as clang lays it out.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Record {
    pub size: u64,
    pub align: u64,
    /// Members in order, as paths: `u.vmx.status` is within a structure without a name.
    pub members: Vec<Member>,
}

#[derive(PartialEq, Eq, Debug)]
pub struct Member {
    pub path: String,
    /// First bit and width of a bit-field; `None` for other members.
    pub bits: Option<(u64, u64)>,
}

/// Runs clang over a source text.
fn clang(args: &[&str], source: &str) -> String {
    let headers = vmm_headers::find().unwrap();
    let mut child = Command::new(&headers.clang)
        .args(headers.clang_args())
        .arg("-I")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"))
        .arg("-I")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../kmod/shim"))
        .args(args)
        .args(["-x", "c", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(source.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "clang {args:?} failed for:\n{source}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The value of each C constant expression.
pub fn constants(header: &str, expressions: &[String]) -> Vec<u64> {
    let mut source = format!("#include <{header}>\n");
    for (index, expression) in expressions.iter().enumerate() {
        writeln!(
            source,
            "const unsigned long long value_{index} = ({expression});"
        )
        .unwrap();
    }
    let ir = clang(&["-S", "-emit-llvm", "-o", "-"], &source);
    // @value_7 = dso_local constant i64 24, align 8
    let values: HashMap<&str, u64> = ir
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix('@')?.split_once(" = ")?;
            let value = rest.split_once(" i64 ")?.1.split(',').next()?;
            Some((name, value.parse::<i64>().ok()? as u64))
        })
        .collect();
    (0..expressions.len())
        .map(|index| values[format!("value_{index}").as_str()])
        .collect()
}

/// Every complete structure that has a name, by name.
pub fn records(header: &str) -> BTreeMap<String, Record> {
    let source = format!("#include <{header}>\n");
    let dump = clang(
        &["-fsyntax-only", "-Xclang", "-fdump-record-layouts-complete"],
        &source,
    );
    dump.split("*** Dumping AST Record Layout")
        .filter_map(record)
        .collect()
}

/// One record of clang's dump: lines of `OFFSET | indented declaration`, where a bit-field's
/// offset is `BYTE:FIRST-LAST`, and `[sizeof=N, align=M]` at the end.
fn record(dump: &str) -> Option<(String, Record)> {
    let mut lines = dump.lines().filter_map(|line| line.split_once('|'));
    let name = lines.next()?.1.trim().strip_prefix("struct ")?.to_owned();
    if name.contains("::") {
        return None;
    }
    let mut record = Record::default();
    // Per level: the path of the enclosing member, if its members are to be listed.
    let mut levels = vec![Some(String::new())];
    for (offset, text) in lines {
        if let Some(sizes) = text.trim().strip_prefix("[sizeof=") {
            let (size, align) = sizes.trim_end_matches(']').split_once(", align=")?;
            record.size = size.parse().ok()?;
            record.align = align.parse().ok()?;
            continue;
        }
        let level = (text.len() - text.trim_start().len() - 1) / 2;
        levels.truncate(level);
        let Some(parent) = &levels[level - 1] else {
            levels.push(None);
            continue;
        };
        let path = format!("{parent}{}", text.split_whitespace().last()?);
        record.members.push(Member {
            path: path.clone(),
            bits: bit_range(offset.trim()),
        });
        levels.push(text.contains("(unnamed").then(|| format!("{path}.")));
    }
    Some((name, record))
}

fn bit_range(offset: &str) -> Option<(u64, u64)> {
    let (byte, bits) = offset.split_once(':')?;
    let (first, last) = bits.split_once('-')?;
    let (byte, first, last): (u64, u64, u64) =
        (byte.parse().ok()?, first.parse().ok()?, last.parse().ok()?);
    Some((byte * 8 + first, last - first + 1))
}

/// The macros that are ioctl requests: `_IO`, `_IOR`, `_IOW` or `_IOWR` of something.
pub fn requests(header: &str) -> Vec<String> {
    let macros = clang(&["-dM", "-E"], &format!("#include <{header}>\n"));
    macros
        .lines()
        .filter_map(|line| {
            let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
            (value.starts_with("_IO") && name.starts_with("VM")).then(|| name.to_owned())
        })
        .collect()
}
