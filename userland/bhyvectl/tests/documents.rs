//! The manual page and the completion files have the options of the table.

#[path = "../../completions/check.rs"]
mod check;

use bhyvectl::options::{self, Origin};
use bhyvectl::platform::Vendor;
use bhyvectl::request::{self, RequestError};
use check::Words;

/// Of both kinds of CPUs; 2013's names only if `past`.
fn known(past: bool) -> Words {
    [Vendor::Intel, Vendor::Amd]
        .into_iter()
        .flat_map(options::table)
        .filter(|d| past || d.origin != Origin::Past)
        .map(|d| format!("--{}", d.option.name))
        .collect()
}

#[test]
fn the_manual_has_every_option_and_no_other() {
    check::same(
        "bhyvectl.8",
        &check::manual("bhyvectl/bhyvectl.8"),
        &known(true),
    );
}

#[test]
fn each_completion_has_every_option_of_today_and_no_other() {
    for (file, options) in check::completions("bhyvectl") {
        check::same(&file, &options, &known(false));
    }
}

#[test]
fn every_documented_command_line_is_understood_or_refused_by_name() {
    let [stock, added] = options::long_options(&options::table(Vendor::Intel));
    let lines = check::command_lines("bhyvectl");
    assert!(lines.len() >= 10, "{}", lines.len());
    for (line, args) in lines {
        match request::parse(&args, &[&stock, &added]) {
            Ok(_) | Err(RequestError::Gone { .. }) => {}
            // The Handbook's way to the usage, on FreeBSD as well.
            Err(_) if args == ["--usage"] => {}
            Err(error) => panic!("{line}: {error}"),
        }
    }
}
