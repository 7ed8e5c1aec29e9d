//! Variables as they stand in a configuration file (-k) and behind -o: `name=value`. In a
//! file an empty line and one that begins with `#` say nothing; a blank is a part of the
//! name or the value like any other character.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;

use super::OptionError;
use crate::config::Config;

/// No more of a file is read: what is longer is a device rather.
const LARGEST: u64 = 16 << 20;

/// So much of a line is shown in a message.
const SHOWN: usize = 80;

/// Sets the variable of one `name=value`. The error is a sentence.
pub fn set(config: &mut Config, text: &str) -> Result<(), String> {
    match text.split_once('=') {
        None => Err("name=value is wanted".to_owned()),
        Some((name, "")) => Err(format!("{name} would have no value")),
        Some((name, value)) => config.set(name, value).map_err(|error| error.to_string()),
    }
}

/// Sets the variables of a file, in their order.
pub fn read(config: &mut Config, path: &str) -> Result<(), OptionError> {
    let failed = |error| OptionError::File {
        path: path.to_owned(),
        error,
    };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let error = |why| OptionError::Line {
            path: path.to_owned(),
            line: number,
            text: String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).into_owned(),
            why,
        };
        let text = std::str::from_utf8(line).map_err(|_| error("it is not UTF-8".to_owned()))?;
        set(config, text).map_err(error)?;
    }
    Ok(())
}
