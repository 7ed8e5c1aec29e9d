//! getopt_long(3) as FreeBSD's libc does it, for programs with long options only: names
//! may be abbreviated as long as they stay unambiguous, `--name=value` and `--name value`
//! mean the same, operands may stand between options (they are permuted to the end).

use std::fmt;

/// Whether an option has an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HasArg {
    No,
    Required,
}

/// One entry of the option table: `id` is what the program knows it by. Two names with the
/// same `id` are aliases, and an abbreviation of both is not ambiguous.
#[derive(Clone, Debug)]
pub struct LongOpt<T> {
    pub name: &'static str,
    pub has_arg: HasArg,
    pub id: T,
}

/// One option found, with its argument if it has one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found<'a, T> {
    pub id: T,
    pub arg: Option<&'a str>,
}

/// What is wrong with an argument, as it was typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    Unrecognized(String),
    Ambiguous(String),
    MissingArgument(String),
    UnwantedArgument(String),
    /// A single-letter option.
    Invalid(char),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unrecognized(typed) => write!(f, "unrecognized option `--{typed}'"),
            Self::Ambiguous(name) => write!(f, "option `--{name}' is ambiguous"),
            Self::MissingArgument(name) => write!(f, "option `--{name}' requires an argument"),
            Self::UnwantedArgument(name) => {
                write!(f, "option `--{name}' doesn't allow an argument")
            }
            Self::Invalid(letter) => write!(f, "invalid option -- {letter}"),
        }
    }
}

/// Options in the order given, and the operands.
pub type Parsed<'a, T> = (Vec<Found<'a, T>>, Vec<&'a str>);

/// Takes the arguments (without `argv[0]`) apart. Each table counts for abbreviations only
/// if those before it have nothing that begins so: what was added to a program's options
/// leaves the abbreviations of the old ones alone.
pub fn parse<'a, T: Copy + PartialEq>(
    args: &'a [String],
    tables: &[&[LongOpt<T>]],
) -> Result<Parsed<'a, T>, Error> {
    let mut found = Vec::new();
    let mut operands = Vec::new();
    let mut rest = args.iter().map(String::as_str);
    while let Some(arg) = rest.next() {
        if arg == "--" {
            operands.extend(rest.by_ref());
        } else if let Some(typed) = arg.strip_prefix("--") {
            found.push(resolve_in(typed, tables, || rest.next())?);
        } else if let Some(letter) = arg
            .strip_prefix('-')
            .and_then(|letters| letters.chars().next())
        {
            return Err(Error::Invalid(letter));
        } else {
            operands.push(arg);
        }
    }
    Ok((found, operands))
}

/// One long option: `typed` is what stood after the dashes, `next` takes the next argument.
/// For programs that mix long options with short ones (see `Getopt::take_long`).
pub fn resolve<'a, T: Copy + PartialEq>(
    typed: &'a str,
    table: &[LongOpt<T>],
    next: impl FnOnce() -> Option<&'a str>,
) -> Result<Found<'a, T>, Error> {
    resolve_in(typed, &[table], next)
}

fn resolve_in<'a, T: Copy + PartialEq>(
    typed: &'a str,
    tables: &[&[LongOpt<T>]],
    next: impl FnOnce() -> Option<&'a str>,
) -> Result<Found<'a, T>, Error> {
    let (name, joined) = match typed.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (typed, None),
    };
    let option = lookup(name, typed, tables)?;
    let arg = match (option.has_arg, joined) {
        (HasArg::No, Some(_)) => return Err(Error::UnwantedArgument(name.to_owned())),
        (HasArg::No, None) => None,
        (HasArg::Required, Some(value)) => Some(value),
        (HasArg::Required, None) => {
            Some(next().ok_or_else(|| Error::MissingArgument(name.to_owned()))?)
        }
    };
    Ok(Found { id: option.id, arg })
}

/// The option of that exact name, or the only one that begins so.
fn lookup<'t, T: Copy + PartialEq>(
    name: &str,
    typed: &str,
    tables: &[&'t [LongOpt<T>]],
) -> Result<&'t LongOpt<T>, Error> {
    let mut all = tables.iter().copied().flatten();
    if let Some(exact) = all.find(|option| option.name == name) {
        return Ok(exact);
    }
    for table in tables {
        let mut candidates = table.iter().filter(|option| option.name.starts_with(name));
        if let Some(first) = candidates.next() {
            if candidates.any(|other| other.id != first.id || other.has_arg != first.has_arg) {
                return Err(Error::Ambiguous(name.to_owned()));
            }
            return Ok(first);
        }
    }
    Err(Error::Unrecognized(typed.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Id {
        Vm,
        GetCr0,
        GetCr3,
        VmcsCr0Mask,
        SetCr0,
    }

    const TABLE: [LongOpt<Id>; 6] = [
        LongOpt {
            name: "vm",
            has_arg: HasArg::Required,
            id: Id::Vm,
        },
        LongOpt {
            name: "get-cr0",
            has_arg: HasArg::No,
            id: Id::GetCr0,
        },
        LongOpt {
            name: "get-cr3",
            has_arg: HasArg::No,
            id: Id::GetCr3,
        },
        LongOpt {
            name: "get-vmcs-cr0-mask",
            has_arg: HasArg::No,
            id: Id::VmcsCr0Mask,
        },
        LongOpt {
            name: "get-vmcs-cr0mask",
            has_arg: HasArg::No,
            id: Id::VmcsCr0Mask,
        },
        LongOpt {
            name: "set-cr0",
            has_arg: HasArg::Required,
            id: Id::SetCr0,
        },
    ];

    fn ids(line: &str) -> Result<(Vec<(Id, String)>, String), String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (found, operands) = parse(&args, &[&TABLE]).map_err(|e| e.to_string())?;
        let found = found
            .iter()
            .map(|f| (f.id, f.arg.unwrap_or("-").to_owned()))
            .collect();
        Ok((found, operands.join(" ")))
    }

    #[test]
    fn arguments_join_or_follow_and_operands_are_permuted() {
        let expected = (
            vec![(Id::Vm, "g".into()), (Id::SetCr0, "0x1".into())],
            "a b".to_owned(),
        );
        assert_eq!(ids("--vm=g a --set-cr0 0x1 b").unwrap(), expected);
        assert_eq!(ids("a --vm g --set-cr0=0x1 -- b").unwrap(), expected);
    }

    #[test]
    fn names_may_be_abbreviated_while_unambiguous() {
        assert_eq!(ids("--set 5").unwrap().0, [(Id::SetCr0, "5".into())]);
        assert_eq!(
            ids("--get-vmcs").unwrap().0,
            [(Id::VmcsCr0Mask, "-".into())]
        );
        assert_eq!(
            ids("--get-cr").unwrap_err(),
            "option `--get-cr' is ambiguous"
        );
        assert_eq!(ids("--get-cr0").unwrap().0, [(Id::GetCr0, "-".into())]);
    }

    #[test]
    fn a_later_table_leaves_the_abbreviations_of_an_earlier_one_alone() {
        let later = [
            LongOpt {
                name: "vmcs",
                has_arg: HasArg::No,
                id: Id::VmcsCr0Mask,
            },
            LongOpt {
                name: "set-cr00",
                has_arg: HasArg::No,
                id: Id::GetCr0,
            },
        ];
        let id = |arg: &str| parse(&[arg.to_owned()], &[&TABLE, &later]).map(|p| p.0[0].id);
        assert_eq!(id("--v=x"), Ok(Id::Vm));
        assert_eq!(id("--set=1"), Ok(Id::SetCr0));
        assert_eq!(id("--vmc"), Ok(Id::VmcsCr0Mask));
        assert_eq!(id("--set-cr00"), Ok(Id::GetCr0));
        assert_eq!(id("--get-c"), Err(Error::Ambiguous("get-c".to_owned())));
    }

    #[test]
    fn messages_are_those_of_libc() {
        assert_eq!(
            ids("--nope=3").unwrap_err(),
            "unrecognized option `--nope=3'"
        );
        assert_eq!(
            ids("--get-cr0=3").unwrap_err(),
            "option `--get-cr0' doesn't allow an argument"
        );
        assert_eq!(
            ids("--vm").unwrap_err(),
            "option `--vm' requires an argument"
        );
        assert_eq!(ids("-c 1").unwrap_err(), "invalid option -- c");
    }

    proptest! {
        #[test]
        fn every_argument_is_accounted_for_or_refused(args in proptest::collection::vec("(--)?[-a-z0=]{0,8}", 0..6)) {
            if let Ok((found, operands)) = parse(&args, &[&TABLE]) {
                prop_assert!(found.len() + operands.len() <= args.len());
            }
        }
    }
}
