//! For the tests of bhyve, bhyveload and bhyvectl: which options, devices and other words a
//! manual page and the completion files of the shells know, so that they can be compared with
//! the program's own tables.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Options as they are typed: "-s", "--vm".
pub type Words = BTreeSet<String>;

fn userland(file: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The options that a manual page names with mdoc's macro Fl. Those that end with a hyphen
/// stand for several.
pub fn manual(file: &str) -> Words {
    let text = userland(file).replace("\\\n", "");
    let mut options = Words::new();
    for line in text.lines().filter(|line| line.starts_with('.')) {
        let mut flag = false;
        for word in line.split_whitespace() {
            let word = word.trim_matches('"');
            if word == "Fl" || word == ".Fl" {
                flag = true;
                continue;
            }
            match word.strip_prefix('-') {
                Some(long) if flag && !long.is_empty() && !long.ends_with('-') => {
                    options.insert(format!("--{long}"));
                }
                None if flag && word.len() == 1 && word.chars().all(char::is_alphanumeric) => {
                    options.insert(format!("-{word}"));
                }
                _ => {}
            }
            // A comma goes on with the same macro.
            flag = flag && (word == "," || word.starts_with('-'));
        }
    }
    options
}

/// The part of a file between `# ---- program ----` and the next such line.
fn section(file: &str, program: &str) -> String {
    let text = userland(file);
    let mark = format!("# ---- {program} ----\n");
    let (_, rest) = text
        .split_once(&mark)
        .unwrap_or_else(|| panic!("{file} has no part for {program}"));
    rest.split("# ---- ").next().unwrap_or_default().to_owned()
}

/// What each completion file knows of a program's options, with the file's name.
pub fn completions(program: &str) -> Vec<(String, Words)> {
    let bash = section("completions/bhyve.bash", program);
    let bash = bash
        .split(|c: char| c.is_whitespace() || c == '"')
        .filter(|word| word.starts_with('-'))
        .map(|word| word.trim_end_matches('=').to_owned())
        .collect();

    let zsh = section("completions/_bhyve", program);
    let zsh = zsh
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix('\''))
        .map(|word| word.trim_start_matches('*'))
        .filter(|word| word.starts_with('-'))
        .filter_map(|word| word.split(['=', '[']).next())
        .map(str::to_owned)
        .collect();

    let tcsh = section("completions/bhyve.tcsh", program);
    let list = |begin: &str| -> Vec<String> {
        let found = tcsh.split_once(begin).map(|(_, rest)| rest);
        let names = found.and_then(|rest| rest.split(')').next());
        let names = names.unwrap_or_default().split_whitespace();
        names
            .map(|name| name.trim_end_matches('=').to_owned())
            .collect()
    };
    let short = list("'c/-/(").into_iter().map(|name| format!("-{name}"));
    let long = list("'c/--/(").into_iter().map(|name| format!("--{name}"));
    let tcsh = short.chain(long).collect();

    let file = format!("completions/{program}.fish");
    let prefix = format!("complete -c {program} ");
    let fish = userland(&file);
    let fish = fish
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .filter_map(|rest| {
            let mut words = rest.split_whitespace();
            match (words.next()?, words.next()) {
                ("-s", Some(name)) => Some(format!("-{name}")),
                ("-l", Some(name)) => Some(format!("--{name}")),
                _ => None,
            }
        })
        .collect();
    vec![
        ("bhyve.bash".to_owned(), bash),
        ("_bhyve".to_owned(), zsh),
        ("bhyve.tcsh".to_owned(), tcsh),
        (file, fish),
    ]
}

/// Fails with what one side has and the other hasn't.
#[track_caller]
pub fn same(what: &str, documented: &Words, known: &Words) {
    let missing: Vec<_> = known.difference(documented).collect();
    let unknown: Vec<_> = documented.difference(known).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{what}: not there: {missing:?}; there, but unknown to the program: {unknown:?}"
    );
}
