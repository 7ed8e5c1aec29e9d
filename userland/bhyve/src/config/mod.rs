//! The configuration of a machine as bhyve_config(5) has it: a tree of variables, such as
//! `pci.0.3.0.device=virtio-blk`. The command line and configuration files fill it
//! ([`Config::set`], [`NodeMut`]); the machine is built from it alone ([`Config::get`],
//! [`View`]). Values refer to other variables by `%(name)`.
//!
//! Each variable remembers whether somebody has read it, so that one that nobody knows,
//! with a typing error for example, can be told apart from one that has an effect
//! ([`Config::unread`]).

#![forbid(unsafe_code)]

mod error;
mod expand;
mod view;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

pub use error::ConfigError;
pub use view::{NodeMut, View};

/// The tree.
#[derive(Default, Debug)]
pub struct Config {
    root: Node,
    /// What was odd about values that were read, said once each.
    warnings: Mutex<BTreeSet<String>>,
}

/// A node, with its entries in the order in which they were made.
#[derive(Default, Debug)]
struct Node(Vec<(String, Entry)>);

#[derive(Debug)]
enum Entry {
    Value { text: String, read: AtomicBool },
    Node(Node),
}

impl Config {
    /// Gives a variable a value; nodes on the way to it are made. The value may hold
    /// references, which are resolved when it is read.
    pub fn set(&mut self, path: &str, value: &str) -> Result<(), ConfigError> {
        let (parent, name) = match path.rsplit_once('.') {
            Some((parent, name)) => (self.make_node(parent, path)?, name),
            None => (&mut self.root, path),
        };
        parent.set(path, name, value)
    }

    /// Makes a node, unless it is there, to set variables beneath it.
    pub fn node_mut(&mut self, path: &str) -> Result<NodeMut<'_>, ConfigError> {
        self.make_node(path, path)?;
        Ok(NodeMut::new(self, path.to_owned()))
    }

    /// A variable's value, with its references resolved.
    pub fn get(&self, path: &str) -> Option<String> {
        self.raw(path).map(|text| self.expand(text))
    }

    /// A variable that is on or off, or `default` if it isn't set.
    pub fn bool(&self, path: &str, default: bool) -> Result<bool, ConfigError> {
        self.get(path)
            .map_or(Ok(default), |value| parse_bool(path, &value))
    }

    /// A node, if it is there.
    pub fn node(&self, path: &str) -> Option<View<'_>> {
        let node = self.find(path)?;
        Some(View::new(self, node, path.to_owned()))
    }

    /// Whether there is a node or variable of that name.
    pub fn contains(&self, path: &str) -> bool {
        self.entry(path).is_some()
    }

    /// All variables as `name=value` with their references unresolved, in the order in which
    /// they were made.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.root.each("", &mut |path, text, _| {
            lines.push(format!("{path}={text}"));
        });
        lines
    }

    /// The names of the variables that nobody has read.
    pub fn unread(&self) -> Vec<String> {
        View::new(self, &self.root, String::new()).unread()
    }

    /// What was odd about values read so far: references that lead nowhere. Each is a
    /// sentence.
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.warnings.lock();
        let warnings = warnings.unwrap_or_else(PoisonError::into_inner);
        warnings.iter().cloned().collect()
    }

    fn warn(&self, warning: String) {
        let warnings = self.warnings.lock();
        warnings
            .unwrap_or_else(PoisonError::into_inner)
            .insert(warning);
    }

    /// A variable's value as it was set.
    fn raw(&self, path: &str) -> Option<&str> {
        match self.entry(path)? {
            Entry::Value { text, read } => {
                read.store(true, Ordering::Relaxed);
                Some(text)
            }
            Entry::Node(_) => None,
        }
    }

    fn entry(&self, path: &str) -> Option<&Entry> {
        match path.rsplit_once('.') {
            Some((parent, name)) => self.find(parent)?.entry(name),
            None => self.root.entry(path),
        }
    }

    fn find(&self, path: &str) -> Option<&Node> {
        path.split('.')
            .try_fold(&self.root, |node, name| match node.entry(name)? {
                Entry::Node(node) => Some(node),
                Entry::Value { .. } => None,
            })
    }

    /// The node at `path`, for the sake of `wanted`.
    fn make_node(&mut self, path: &str, wanted: &str) -> Result<&mut Node, ConfigError> {
        let mut node = &mut self.root;
        let mut end = 0;
        for name in path.split('.') {
            end += name.len();
            if name.is_empty() {
                return Err(ConfigError::Name(wanted.to_owned()));
            }
            let at = match node.0.iter().position(|(known, _)| known == name) {
                Some(at) => at,
                None => {
                    node.0.push((name.to_owned(), Entry::Node(Node::default())));
                    node.0.len() - 1
                }
            };
            node = match &mut node.0[at].1 {
                Entry::Node(node) => node,
                Entry::Value { .. } => {
                    return Err(ConfigError::ChildOfValue {
                        path: wanted.to_owned(),
                        value: path[..end].to_owned(),
                    });
                }
            };
            end += 1;
        }
        Ok(node)
    }
}

/// Two configurations are equal if the same variables have the same values in the same
/// order, whoever has read them.
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.lines() == other.lines()
    }
}

impl Eq for Config {}

impl Node {
    fn entry(&self, name: &str) -> Option<&Entry> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, entry)| entry)
    }

    fn set(&mut self, path: &str, name: &str, text: &str) -> Result<(), ConfigError> {
        if name.is_empty() {
            return Err(ConfigError::Name(path.to_owned()));
        }
        if let Some(Entry::Node(_)) = self.entry(name) {
            return Err(ConfigError::ValueForNode(path.to_owned()));
        }
        // A new value is the newest variable, too.
        self.0.retain(|(known, _)| known != name);
        let value = Entry::Value {
            text: text.to_owned(),
            read: AtomicBool::new(false),
        };
        self.0.push((name.to_owned(), value));
        Ok(())
    }

    fn each(&self, above: &str, found: &mut dyn FnMut(&str, &str, bool)) {
        for (name, entry) in &self.0 {
            let path = join(above, name);
            match entry {
                Entry::Value { text, read } => found(&path, text, read.load(Ordering::Relaxed)),
                Entry::Node(node) => node.each(&path, found),
            }
        }
    }
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() {
        name.to_owned()
    } else {
        format!("{above}.{name}")
    }
}

/// true, on, yes, 1 or false, off, no, 0.
fn parse_bool(path: &str, value: &str) -> Result<bool, ConfigError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(ConfigError::Bool {
            path: path.to_owned(),
            value: value.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
