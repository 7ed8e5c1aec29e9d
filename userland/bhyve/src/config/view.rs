//! A node of the configuration: as a device reads it, and as an option fills it.

#![forbid(unsafe_code)]

use super::{Config, ConfigError, Entry, Node, join, parse_bool};

/// A node, to be read.
#[derive(Clone, Debug)]
pub struct View<'a> {
    config: &'a Config,
    node: &'a Node,
    path: String,
}

impl<'a> View<'a> {
    pub(super) fn new(config: &'a Config, node: &'a Node, path: String) -> Self {
        Self { config, node, path }
    }

    /// "pci.0.3.0".
    pub fn path(&self) -> &str {
        &self.path
    }

    /// "pci.0.3.0.device", for messages.
    pub fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// A variable's value, with its references resolved.
    pub fn get(&self, name: &str) -> Option<String> {
        self.config.get(&self.path_of(name))
    }

    /// A variable's value from anywhere in the tree: the VM's name, for example.
    pub fn global(&self, path: &str) -> Option<String> {
        self.config.get(path)
    }

    /// A variable's value; an error if it isn't set.
    pub fn required(&self, name: &str) -> Result<String, ConfigError> {
        self.get(name)
            .ok_or_else(|| ConfigError::Missing(self.path_of(name)))
    }

    /// A variable that is on or off, or `default` if it isn't set.
    pub fn bool(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        match self.get(name) {
            Some(value) => parse_bool(&self.path_of(name), &value),
            None => Ok(default),
        }
    }

    /// A variable that is a number from `min` to `max`, decimal, 0x… or 0…, if it is set.
    pub fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match cli::number::parse_within(&value, min, max) {
            Some(number) => Ok(Some(number)),
            None => Err(ConfigError::Number {
                path: self.path_of(name),
                value,
                min,
                max,
            }),
        }
    }

    /// A node beneath this one, if it is there.
    pub fn node(&self, name: &str) -> Option<View<'a>> {
        self.config.node(&self.path_of(name))
    }

    /// The full names of the variables beneath this node that nobody has read.
    pub fn unread(&self) -> Vec<String> {
        let mut unread = Vec::new();
        self.node.each(&self.path, &mut |path, _, read| {
            if !read {
                unread.push(path.to_owned());
            }
        });
        unread
    }

    /// The nodes beneath this one with their names, in the order in which they were made.
    pub fn children(&self) -> Vec<(&'a str, View<'a>)> {
        let nodes = self.node.0.iter();
        nodes
            .filter_map(|(name, entry)| match entry {
                Entry::Node(node) => Some((
                    name.as_str(),
                    View::new(self.config, node, self.path_of(name)),
                )),
                Entry::Value { .. } => None,
            })
            .collect()
    }
}

/// A node, to be filled.
#[derive(Debug)]
pub struct NodeMut<'a> {
    config: &'a mut Config,
    path: String,
}

impl<'a> NodeMut<'a> {
    pub(super) fn new(config: &'a mut Config, path: String) -> Self {
        Self { config, path }
    }

    /// Gives a variable of this node a value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        if name.contains('.') {
            return Err(ConfigError::DottedOption(name.to_owned()));
        }
        self.config.set(&join(&self.path, name), value)
    }

    /// Switches a variable of this node on or off.
    pub fn set_bool(&mut self, name: &str, on: bool) -> Result<(), ConfigError> {
        self.set(name, if on { "true" } else { "false" })
    }

    /// A node beneath this one, made unless it is there. Several names are separated by dots.
    pub fn node(&mut self, name: &str) -> Result<NodeMut<'_>, ConfigError> {
        self.config.node_mut(&join(&self.path, name))
    }

    /// The value that a variable of this node has already.
    pub fn get(&self, name: &str) -> Option<String> {
        self.config.get(&join(&self.path, name))
    }

    /// `name[=value],…`, as most devices' options are: what has no value is switched on.
    /// Between two commas, as some front ends have them, there is no option.
    pub fn set_options(&mut self, text: &str) -> Result<(), ConfigError> {
        for option in text.split(',') {
            match option.split_once('=') {
                Some(("", _)) => return Err(ConfigError::EmptyOption),
                Some((name, value)) => self.set(name, value)?,
                None if option.is_empty() => {}
                None => self.set_bool(option, true)?,
            }
        }
        Ok(())
    }
}
