//! docs/steps.md maps the seed articles' numbered steps to files and functions: both exist,
//! and no step is missing.

use std::fs;
use std::path::Path;

/// A row of a table: the step's number, and where it is done.
struct Row {
    step: String,
    places: Vec<(String, Vec<String>)>,
}

/// The texts between backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn rows(page: &str) -> Vec<Row> {
    page.lines()
        .filter(|line| line.starts_with("| ") && line.contains('`'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let places = cells[2].split(';').map(|place| {
                let mut names = quoted(place);
                let file = names.remove(0);
                (file, names)
            });
            Row {
                step: cells[0].to_owned(),
                places: places.collect(),
            }
        })
        .collect()
}

/// Whether `source` defines `name`: a function, a type, a static or constant, an assembly
/// label, or a C function at the beginning of a line (style(9)).
fn defines(source: &str, name: &str) -> bool {
    let rust = ["fn", "enum", "struct", "static", "const"]
        .iter()
        .any(|kind| source.contains(&format!("{kind} {name}")));
    rust || source.contains(&format!("\"{name}:\"")) || source.contains(&format!("\n{name}("))
}

#[test]
fn every_named_function_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(top.join("docs/steps.md")).expect("docs/steps.md");
    for row in rows(&page) {
        for (file, names) in &row.places {
            let source = fs::read_to_string(top.join(file))
                .unwrap_or_else(|e| panic!("step {}: {file}: {e}", row.step));
            assert!(
                !names.is_empty(),
                "step {}: {file} without a function",
                row.step
            );
            for name in names {
                assert!(
                    defines(&source, name),
                    "step {}: {file} defines no `{name}`",
                    row.step
                );
            }
        }
    }
}

#[test]
fn no_step_is_missing() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(top.join("docs/steps.md")).expect("docs/steps.md");
    let steps: Vec<String> = rows(&page).into_iter().map(|row| row.step).collect();
    let bhyve = (1..=23).map(|n| format!("({n})"));
    let session = (1..=8).map(|n| format!("({n})"));
    let kernel = "❺❻❼❽⑥⑦⑧⑨⑩⑪⑫⑬⑭".chars().map(String::from);
    let want: Vec<String> = session.chain(bhyve).chain(kernel).collect();
    assert_eq!(steps, want);
}
