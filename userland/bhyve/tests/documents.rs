//! The manual pages and the completion files have the options and devices of the tables.

#[path = "../../completions/check.rs"]
mod check;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bhyve::options::{LPC_DEVICES, OF_2013, OPTSTRING};
use bhyve::pci::registry;
use check::Words;

/// Of the option string, without those that `leave_out` has.
fn options(leave_out: &str) -> Words {
    let letters = OPTSTRING.chars().filter(|c| *c != ':');
    letters
        .filter(|c| !leave_out.contains(*c))
        .map(|c| format!("-{c}"))
        .collect()
}

/// What is refused in this version, whatever its argument is, and -K, which has no effect.
const REFUSED: &str = "GKnr";

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_manual_has_every_option_and_no_other() {
    check::same("bhyve.8", &check::manual("bhyve/bhyve.8"), &options(""));
}

#[test]
fn each_completion_has_every_option_of_today_that_is_there_and_no_other() {
    let known = options(&format!("{OF_2013}{REFUSED}"));
    for (name, options) in check::completions("bhyve") {
        check::same(&name, &options, &known);
    }
}

/// The devices that a list in the manual begins with: `.It Cm name`.
fn devices_in_the_manual(from: &str, to: &str) -> BTreeSet<String> {
    let text = file("bhyve.8");
    let (_, text) = text.split_once(from).unwrap();
    let (text, _) = text.split_once(to).unwrap();
    let items = text.lines().filter_map(|line| line.strip_prefix(".It Cm "));
    items
        .flat_map(|item| item.split(" , Cm "))
        .filter_map(|item| item.split([' ', ',']).next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_manual_and_each_completion_have_every_device_and_no_other() {
    let pci: BTreeSet<String> = registry::DEVICES
        .iter()
        .map(|d| d.name.to_owned())
        .collect();
    let lpc: BTreeSet<String> = LPC_DEVICES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(devices_in_the_manual(".Sh DEVICES", ".Ss Disks"), pci);
    assert_eq!(devices_in_the_manual(".It Fl l Ar lpcdev", ".It Fl m"), lpc);
    // In each, a list of them between a mark and the end of the list.
    for (name, from, to, known) in [
        ("bhyve.bash", "_bhyve_devices=\"", "\"", &pci),
        ("bhyve.bash", "_bhyve_lpc=\"", "\"", &lpc),
        ("_bhyve", "devices=(", ")", &pci),
        ("_bhyve", "lpc=(", ")", &lpc),
        ("bhyve.fish", "for device in ", "\n\t\techo", &pci),
        ("bhyve.fish", "-s l -x -a '", " help'", &lpc),
        ("bhyve.tcsh", "'n/-l/(", " help)", &lpc),
    ] {
        let text = file(&format!("../completions/{name}"));
        let list = text
            .split_once(from)
            .and_then(|(_, rest)| rest.split_once(to));
        let list = list
            .unwrap_or_else(|| panic!("{name} has no list {from}"))
            .0;
        let words = list.split_whitespace().filter(|word| *word != "\\");
        let words: BTreeSet<String> = words.map(str::to_owned).collect();
        assert_eq!(&words, known, "{name}: {from}");
    }
}

#[test]
fn every_documented_command_line_is_understood_or_refused_by_name() {
    let lines = check::command_lines("bhyve");
    assert!(lines.len() >= 10, "{}", lines.len());
    for (line, args) in lines
        .iter()
        .filter(|(_, args)| !args.contains(&"-k".into()))
    {
        if let Err(error) = bhyve::options::parse(args, None) {
            let said = error.to_string();
            assert!(said.contains("not part of this version"), "{line}: {said}");
        }
    }
}
