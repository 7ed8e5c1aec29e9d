//! What can be wrong with a configuration.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;

/// Why a variable can't be set or used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// A name with nothing before, between or behind its dots.
    Name(String),
    /// A variable beneath another one, which is no node then.
    ChildOfValue { path: String, value: String },
    /// A value for what has variables beneath it.
    ValueForNode(String),
    /// Neither on nor off.
    Bool { path: String, value: String },
    /// No number in that range.
    Number {
        path: String,
        value: String,
        min: u64,
        max: u64,
    },
    /// A variable that has to be there.
    Missing(String),
    /// An option with a dot where a single name is wanted.
    DottedOption(String),
    /// A value without a name.
    EmptyOption,
}

impl Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(path) => write!(
                f,
                "'{path}' is no name of a variable: names between dots are wanted"
            ),
            Self::ChildOfValue { path, value } => {
                write!(f, "{path} is beneath {value}, which has a value itself")
            }
            Self::ValueForNode(path) => {
                write!(
                    f,
                    "{path} can't have a value: there are variables beneath it"
                )
            }
            Self::Bool { path, value } => write!(
                f,
                "{path}={value}: true, on, yes, 1 or false, off, no, 0 is wanted"
            ),
            Self::Number {
                path,
                value,
                min,
                max,
            } => write!(f, "{path}={value}: a number from {min} to {max} is wanted"),
            Self::Missing(path) => write!(f, "{path} is not set"),
            Self::DottedOption(name) => write!(f, "'{name}' is no name of an option"),
            Self::EmptyOption => {
                f.write_str("a value without the name of an option in front of it")
            }
        }
    }
}
