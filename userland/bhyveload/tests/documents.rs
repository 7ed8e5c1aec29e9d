//! The manual page and the completion files have the options of the tables.

#[path = "../../completions/check.rs"]
mod check;

use bhyveload::options::{OPTSTRING, long_names};
use check::Words;

fn known() -> Words {
    let short = OPTSTRING.chars().filter(|c| *c != ':');
    let long = long_names().map(|name| format!("--{name}"));
    short.map(|c| format!("-{c}")).chain(long).collect()
}

#[test]
fn the_manual_has_every_option_and_no_other() {
    let manual = check::manual("bhyveload/bhyveload.8");
    check::same("bhyveload.8", &manual, &known());
}

#[test]
fn each_completion_has_every_option_but_2013s_and_no_other() {
    let mut known = known();
    known.remove("-M");
    for (file, options) in check::completions("bhyveload") {
        check::same(&file, &options, &known);
    }
}

#[test]
fn every_documented_command_line_is_understood() {
    let lines = check::command_lines("bhyveload");
    assert!(lines.len() >= 10, "{}", lines.len());
    for (line, args) in lines {
        if let Err(error) = bhyveload::options::parse(&args) {
            panic!("{line}: {error}");
        }
    }
}
