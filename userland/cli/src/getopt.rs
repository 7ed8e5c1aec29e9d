//! getopt(3) as FreeBSD's libc does it: options cluster (`-AHP`), an argument may be
//! joined (`-m1024`) or follow (`-m 1024`), the first operand, a lone `-` or `--` ends the
//! options, and the two error messages are POSIX's.

use std::fmt;

/// One option found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opt<'a> {
    pub name: char,
    /// Present exactly when the option string has a colon after the name.
    pub arg: Option<&'a str>,
}

/// What getopt(3) prints before it returns `?`. Scanning can go on afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    Illegal(char),
    MissingArgument(char),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Illegal(name) => write!(f, "illegal option -- {name}"),
            Self::MissingArgument(name) => write!(f, "option requires an argument -- {name}"),
        }
    }
}

/// The scan over the arguments (without `argv[0]`).
pub struct Getopt<'a> {
    args: &'a [String],
    optstring: &'a str,
    /// The next argument to look at (`optind`).
    index: usize,
    /// What is left of the cluster being taken apart.
    cluster: &'a str,
}

impl<'a> Getopt<'a> {
    pub fn new(args: &'a [String], optstring: &'a str) -> Self {
        Self {
            args,
            optstring,
            index: 0,
            cluster: "",
        }
    }

    /// The arguments after the options.
    pub fn operands(&self) -> &'a [String] {
        self.args.get(self.index..).unwrap_or_default()
    }

    /// For an option whose argument is told by its form: takes the rest of the cluster, or
    /// else the next argument, as the argument of the option just returned, if it has that form.
    pub fn take_if(&mut self, has_form: impl Fn(&str) -> bool) -> Option<&'a str> {
        if !self.cluster.is_empty() {
            let joined = self.cluster;
            return has_form(joined).then(|| {
                self.cluster = "";
                joined
            });
        }
        let next = self.args.get(self.index)?;
        has_form(next).then(|| {
            self.index += 1;
            next.as_str()
        })
    }

    /// A long option (`--name…`) standing where the next option would be: takes it, and gives
    /// what stands after the dashes. getopt(3) has none, so ask before each `next`.
    pub fn take_long(&mut self) -> Option<&'a str> {
        if !self.cluster.is_empty() {
            return None;
        }
        let typed = self
            .args
            .get(self.index)?
            .strip_prefix("--")
            .filter(|t| !t.is_empty())?;
        self.index += 1;
        Some(typed)
    }

    /// Whether `name` takes an argument, `None` if the option string doesn't have it.
    fn takes_argument(&self, name: char) -> Option<bool> {
        if name == ':' {
            return None;
        }
        let at = self.optstring.find(name)?;
        Some(self.optstring[at + name.len_utf8()..].starts_with(':'))
    }

    fn argument(&mut self) -> Option<&'a str> {
        if !self.cluster.is_empty() {
            return Some(std::mem::take(&mut self.cluster));
        }
        let arg = self.args.get(self.index)?;
        self.index += 1;
        Some(arg)
    }
}

impl<'a> Iterator for Getopt<'a> {
    type Item = Result<Opt<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.cluster.is_empty() {
            let cluster = self.args.get(self.index)?.strip_prefix('-')?;
            if cluster.is_empty() {
                return None;
            }
            self.index += 1;
            if cluster == "-" {
                return None;
            }
            self.cluster = cluster;
        }
        let mut rest = self.cluster.chars();
        let name = rest.next()?;
        self.cluster = rest.as_str();
        Some(match self.takes_argument(name) {
            None => Err(Error::Illegal(name)),
            Some(false) => Ok(Opt { name, arg: None }),
            Some(true) => match self.argument() {
                Some(arg) => Ok(Opt {
                    name,
                    arg: Some(arg),
                }),
                None => Err(Error::MissingArgument(name)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn args(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    /// The whole scan as text: `A m=1024 | guest0`.
    fn scan(line: &str, optstring: &str) -> String {
        let args = args(line);
        let mut getopt = Getopt::new(&args, optstring);
        let mut out: Vec<String> = Vec::new();
        for item in getopt.by_ref() {
            out.push(match item {
                Ok(Opt { name, arg: None }) => name.to_string(),
                Ok(Opt {
                    name,
                    arg: Some(arg),
                }) => format!("{name}={arg}"),
                Err(error) => error.to_string(),
            });
        }
        format!("{} | {}", out.join(" "), getopt.operands().join(" "))
    }

    #[test]
    fn options_cluster_and_arguments_join_or_follow() {
        assert_eq!(
            scan("-AHP -m 1024 -c2 guest0", "AHPm:c:"),
            "A H P m=1024 c=2 | guest0"
        );
        assert_eq!(scan("-AHm1024 guest0", "AHm:"), "A H m=1024 | guest0");
        assert_eq!(scan("-AHm 1024 guest0", "AHm:"), "A H m=1024 | guest0");
    }

    #[test]
    fn first_operand_and_double_dash_end_the_options() {
        assert_eq!(scan("-A guest0 -H", "AH"), "A | guest0 -H");
        assert_eq!(scan("-A -- -H", "AH"), "A | -H");
        assert_eq!(scan("-A - -H", "AH"), "A | - -H");
        assert_eq!(scan("-m -- x", "m:"), "m=-- | x");
    }

    #[test]
    fn messages_are_those_of_libc_and_scanning_goes_on() {
        assert_eq!(scan("-Aqm5", "Am:"), "A illegal option -- q m=5 | ");
        assert_eq!(
            scan("-A -m", "Am:"),
            "A option requires an argument -- m | "
        );
        assert_eq!(scan("-:", "A:"), "illegal option -- : | ");
        assert_eq!(scan("-A-", "A"), "A illegal option -- - | ");
    }

    #[test]
    fn take_if_takes_only_what_has_the_form() {
        let line = args("-S 31,uart,stdio -S -S31,uart guest0");
        let mut getopt = Getopt::new(&line, "S");
        let slot = |s: &str| s.starts_with(|c: char| c.is_ascii_digit());
        let mut taken = Vec::new();
        while let Some(Ok(_)) = getopt.next() {
            taken.push(getopt.take_if(slot));
        }
        assert_eq!(taken, [Some("31,uart,stdio"), None, Some("31,uart")]);
        assert_eq!(getopt.operands(), ["guest0"]);
    }

    #[test]
    fn long_options_are_taken_between_short_ones() {
        let line = args("-A --kernel=x -m 5 -- --kernel");
        let mut getopt = Getopt::new(&line, "Am:");
        assert_eq!(getopt.take_long(), None);
        assert!(getopt.next().unwrap().is_ok());
        assert_eq!(getopt.take_long(), Some("kernel=x"));
        assert_eq!(getopt.next().unwrap().unwrap().arg, Some("5"));
        assert_eq!(getopt.take_long(), None);
        assert_eq!(getopt.next(), None);
        assert_eq!(getopt.operands(), ["--kernel"]);
    }

    proptest! {
        #[test]
        fn scan_ends_and_never_panics(args in proptest::collection::vec("[-a-zé:,]{0,6}", 0..8)) {
            let bound = args.iter().map(|a| a.len() + 1).sum::<usize>() + 1;
            let mut getopt = Getopt::new(&args, "ab:c:é:z");
            prop_assert!(getopt.by_ref().take(bound).count() < bound);
            prop_assert!(getopt.operands().len() <= args.len());
        }
    }
}
