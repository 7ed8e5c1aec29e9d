//! References in values (bhyve_config(5)): `%(name)` stands for another variable's value,
//! which may have references in turn. In a value with a `%`, a backslash takes the special
//! meaning from the character behind it; in one without, it is a character like others.

#![forbid(unsafe_code)]

use super::Config;

/// So deep may values refer to each other. Deeper ones refer to themselves, most likely.
const DEPTH: usize = 16;
/// So many references are resolved for one value, nested ones counted.
const REFERENCES: usize = 10_000;
/// No value gets longer than that, however often its parts refer to others.
const LONGEST: usize = 1 << 20;

impl Config {
    /// The value with what its references stand for. One that leads nowhere stands for
    /// nothing, which is a warning.
    pub(super) fn expand(&self, value: &str) -> String {
        let mut expansion = Expansion {
            config: self,
            text: String::new(),
            references: 0,
        };
        expansion.add(value, DEPTH);
        expansion.text
    }
}

struct Expansion<'a> {
    config: &'a Config,
    text: String,
    references: usize,
}

impl Expansion<'_> {
    fn add(&mut self, value: &str, depth: usize) {
        if !value.contains('%') {
            self.text.push_str(value);
            return;
        }
        let mut rest = value;
        while let Some(c) = rest.chars().next() {
            if self.text.len() > LONGEST || self.references > REFERENCES {
                let told = "references make a value too long; it is cut off";
                return self.config.warn(told.to_owned());
            }
            rest = &rest[c.len_utf8()..];
            match c {
                '%' if depth == 0 => {
                    self.config.warn(format!(
                        "the references in \"{value}\" lead to themselves, or are nested too deep"
                    ));
                    self.text.push(c);
                }
                '%' => match reference(rest) {
                    Some((name, behind)) => {
                        rest = behind;
                        self.add_reference(name, value, depth);
                    }
                    None => {
                        self.config.warn(format!(
                            "\"{value}\" has a % without a (name) behind it; \\% is a %"
                        ));
                        self.text.push(c);
                    }
                },
                '\\' => match rest.chars().next() {
                    Some(escaped) => {
                        rest = &rest[escaped.len_utf8()..];
                        self.text.push(escaped);
                    }
                    None => self.config.warn(format!(
                        "there is nothing behind the last \\ of \"{value}\""
                    )),
                },
                other => self.text.push(other),
            }
        }
    }

    fn add_reference(&mut self, name: &str, value: &str, depth: usize) {
        self.references += 1;
        match self.config.raw(name) {
            Some(text) => self.add(text, depth - 1),
            None => self
                .config
                .warn(format!("%({name}) in \"{value}\" is not set")),
        }
    }
}

/// What stands in the parentheses, and what follows them.
fn reference(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('(')?.split_once(')')
}
