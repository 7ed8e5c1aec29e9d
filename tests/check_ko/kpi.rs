//! The reviewed list of kernel functions and variables that the module may use. On each
//! line a symbol, what it is, the header that declares it, and the FreeBSD releases that
//! have it: `14` is all of 14, `15.1` begins with 15.1. `#` is for comments.

use std::collections::BTreeMap;
use std::fmt;

pub struct Kpi {
    symbols: BTreeMap<String, Symbol>,
}

/// A line of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Symbol {
    pub kind: Kind,
    pub header: String,
    /// Major releases that have it, each with its first minor one.
    releases: BTreeMap<u32, u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Function,
    Variable,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Function => "function",
            Kind::Variable => "variable",
        })
    }
}

impl Symbol {
    /// Is it in each release of this major one?
    pub fn is_in(&self, release: u32) -> bool {
        self.releases.contains_key(&release)
    }

    /// Does a kernel of this `__FreeBSD_version`, and do all later ones of its major release,
    /// have it?
    pub fn is_in_version(&self, version: u32) -> bool {
        let (release, minor) = (version / 100_000, version % 100_000 / 1000);
        self.releases
            .get(&release)
            .is_some_and(|&first| first <= minor)
    }
}

impl Kpi {
    pub const PATH: &'static str = "kmod/shim/freebsd/kpi.txt";

    pub fn parse(text: &str) -> Result<Kpi, String> {
        let mut symbols = BTreeMap::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            let place = format!("{}:{number}", Kpi::PATH);
            match words[..] {
                [] => {}
                [name, kind, header, ref releases @ ..] if !releases.is_empty() => {
                    let kind = match kind {
                        "function" => Kind::Function,
                        "variable" => Kind::Variable,
                        _ => {
                            return Err(format!(
                                "{place}: {kind} is neither function nor variable"
                            ));
                        }
                    };
                    let releases = releases
                        .iter()
                        .map(|release| {
                            parse_release(release)
                                .ok_or_else(|| format!("{place}: {release} is no FreeBSD release"))
                        })
                        .collect::<Result<_, String>>()?;
                    let symbol = Symbol {
                        kind,
                        header: header.to_owned(),
                        releases,
                    };
                    if symbols.insert(name.to_owned(), symbol).is_some() {
                        return Err(format!("{place}: {name} is listed twice"));
                    }
                }
                _ => {
                    return Err(format!(
                        "{place}: symbol, function or variable, header and FreeBSD releases are needed: {line}"
                    ));
                }
            }
        }
        Ok(Kpi { symbols })
    }

    pub fn get(&self, name: &str) -> Option<&Symbol> {
        self.symbols.get(name)
    }

    pub fn symbols(&self) -> impl Iterator<Item = (&str, &Symbol)> {
        self.symbols
            .iter()
            .map(|(name, symbol)| (name.as_str(), symbol))
    }

    /// The major releases that the list speaks of.
    pub fn releases(&self) -> impl Iterator<Item = u32> {
        self.symbols
            .values()
            .flat_map(|symbol| symbol.releases.keys().copied())
    }
}

/// `15`, `15.1`.
fn parse_release(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}
