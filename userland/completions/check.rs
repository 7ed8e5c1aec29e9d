//! For the tests of bhyve, bhyveload and bhyvectl: which options, devices and other words a
//! manual page and the completion files of the shells know, so that they can be compared with
//! the program's own tables; and the command lines in documents, so that they can be parsed.

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

/// Where command lines stand.
const DOCUMENTS: [&str; 9] = [
    "../README.md",
    "../docs/handbook.md",
    "../docs/loading.md",
    "../kmod/vmm_rs.4",
    "bhyve/bhyve.8",
    "bhyve/bhyve_config.5",
    "bhyveload/bhyveload.8",
    "bhyvectl/bhyvectl.8",
    "rc.d/vmm_rs",
];

/// The arguments of each command line in a document that starts `program`, with the line.
/// Those with something left out are not for parsing.
pub fn command_lines(program: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for document in DOCUMENTS {
        // A backslash continues a line; in mdoc it is written \e.
        let text = userland(document).replace("\\e\n", "").replace("\\\n", "");
        let mut block = false;
        for line in text.lines() {
            match line {
                "```sh" => block = true,
                "```" | ".Ed" => block = false,
                _ => block |= line.starts_with(".Bd"),
            }
            // Outside of blocks a command stands between backquotes, or behind .Dl.
            let parts: Vec<&str> = match line.strip_prefix(".Dl ") {
                Some(command) => vec![command],
                None if block => vec![line],
                None => line.split('`').skip(1).step_by(2).collect(),
            };
            for part in parts {
                let command = part.trim_start().trim_start_matches("while ");
                let left_out = ["...", "…", "TEXT", "FILE"];
                let Some(arguments) = command.strip_prefix(&format!("{program} ")) else {
                    continue;
                };
                if !left_out.iter().any(|sign| command.contains(sign)) {
                    found.push((format!("{document}: {command}"), words(arguments)));
                }
            }
        }
    }
    found
}

/// As a shell has them, up to whatever isn't an argument any more.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    for c in text.chars().chain([' ']) {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (' ' | '\t', None) => {
                if ["&&", "&", "|", "#"].contains(&word.as_str()) || word.starts_with('>') {
                    break;
                }
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(c),
        }
    }
    words
}
