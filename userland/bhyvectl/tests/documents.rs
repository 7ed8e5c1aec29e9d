//! The manual page and the completion files have the options of the table.

#[path = "../../completions/check.rs"]
mod check;

use bhyvectl::options::{self, Origin};
use bhyvectl::platform::Vendor;
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
