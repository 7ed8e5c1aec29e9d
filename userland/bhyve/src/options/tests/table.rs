//! Command lines and the configuration that each must give: `cmdlines.txt`, which explains
//! itself.

use super::*;
use crate::pci::slots;

const TABLE: &str = include_str!("cmdlines.txt");

#[derive(Default)]
struct Entry {
    line: &'static str,
    tree: Vec<&'static str>,
    refused: Option<&'static str>,
}

fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in TABLE.lines() {
        match (line.strip_prefix("    "), entries.last_mut()) {
            (Some(text), Some(entry)) => match text.strip_prefix("refused: ") {
                Some(message) => entry.refused = Some(message),
                None => entry.tree.push(text),
            },
            _ if line.is_empty() || line.starts_with('#') => {}
            _ => entries.push(Entry {
                line,
                ..Entry::default()
            }),
        }
    }
    entries
}

/// The words of a line: blanks separate them, except in single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<Option<String>> = vec![None];
    for (n, part) in line.split('\'').enumerate() {
        if n % 2 == 1 {
            words
                .last_mut()
                .unwrap()
                .get_or_insert_default()
                .push_str(part);
            continue;
        }
        for (n, piece) in part.split(' ').enumerate() {
            if n > 0 {
                words.push(None);
            }
            if !piece.is_empty() {
                words
                    .last_mut()
                    .unwrap()
                    .get_or_insert_default()
                    .push_str(piece);
            }
        }
    }
    words.into_iter().flatten().skip(1).collect()
}

#[test]
fn each_line_gives_the_tree_that_stock_bhyve_gives_it() {
    let entries = entries();
    assert!(entries.len() > 100, "{} lines", entries.len());
    for entry in entries {
        let options = match parse(&words(entry.line), None) {
            Ok(Answer::Run(options)) => options,
            other => panic!("{}: {other:?}", entry.line),
        };
        let is_default = |line: &str| {
            let default = DEFAULTS
                .iter()
                .any(|(name, value)| line == format!("{name}={value}"));
            default && !entry.tree.contains(&line)
        };
        let mut tree = options.config.lines();
        tree.retain(|line| !is_default(line));
        let mut wanted = entry.tree.clone();
        tree.sort();
        wanted.sort();
        assert_eq!(tree, wanted, "{}", entry.line);
    }
}

#[test]
fn each_line_is_a_machine_or_refused_by_name() {
    for entry in entries() {
        let Ok(Answer::Run(options)) = parse(&words(entry.line), None) else {
            panic!("{}", entry.line);
        };
        let refusal = match Settings::read(&options.config) {
            Err(error) => Some(error.to_string()),
            Ok(_) => slots::slots(&options.config).err().map(|e| e.to_string()),
        };
        match (&refusal, entry.refused) {
            (None, None) => {}
            (Some(message), Some(start)) if message.starts_with(start) => {}
            _ => panic!("{}: {refusal:?} instead of {:?}", entry.line, entry.refused),
        }
    }
}

#[test]
fn the_order_of_variables_is_that_of_the_options() {
    for entry in entries()
        .iter()
        .filter(|entry| !entry.line.contains(" -o "))
    {
        let Ok(Answer::Run(options)) = parse(&words(entry.line), None) else {
            panic!("{}", entry.line);
        };
        let tree = options.config.lines();
        let mut rest = tree.iter();
        for line in &entry.tree {
            assert!(
                rest.any(|other| other == line),
                "{}: {line} in {tree:?}",
                entry.line
            );
        }
    }
}
