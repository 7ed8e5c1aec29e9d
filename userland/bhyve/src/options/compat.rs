//! 2013's options (FreeBSD 10-CURRENT, r245542) beside today's.
//!
//! Most are told by their form: -S with a slot behind it, -p without a colon, -b, -B, -g, -M,
//! -z. A line that has one of them is one of 2013. Where the form doesn't tell, for -x and
//! for whether the APIC begins in x2APIC mode, the line's year decides; the variable
//! `compat.year` sets it for the options behind it (`-o compat.year=2013`), and so does
//! [`VARIABLE`] in the environment for all. What has no variable in bhyve_config(5) is
//! beneath `compat`.

#![forbid(unsafe_code)]

use super::devices::{self, COM_PORTS};
use super::{OptionError, Typed};
use crate::config::Config;

/// The environment variable that says which year's options are meant.
pub const VARIABLE: &str = "BHYVE_COMPAT";

/// Whose options an ambiguous one is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Year {
    Y2013,
    /// FreeBSD 15.
    Y2025,
}

const YEAR: &str = "compat.year";

/// The year that the configuration says.
pub fn year(config: &Config) -> Result<Year, OptionError> {
    let Some(text) = config.get(YEAR) else {
        return Ok(Year::Y2025);
    };
    parse(&text).ok_or_else(|| OptionError::Year {
        place: YEAR.to_owned(),
        text,
    })
}

fn parse(text: &str) -> Option<Year> {
    match text {
        "2013" => Some(Year::Y2013),
        "2025" => Some(Year::Y2025),
        _ => None,
    }
}

/// Finds out the year of a line. The configuration knows it only if something says it.
pub(super) fn begin(
    config: &mut Config,
    environment: Option<&str>,
    line: &[Typed<'_>],
) -> Result<(), OptionError> {
    let text = match environment {
        Some(text) if !text.is_empty() => {
            parse(text).ok_or_else(|| OptionError::Year {
                place: VARIABLE.to_owned(),
                text: text.to_owned(),
            })?;
            text
        }
        _ if line.iter().any(is_of_2013) => "2013",
        _ => return Ok(()),
    };
    Ok(config.set(YEAR, text)?)
}

fn is_of_2013(option: &Typed<'_>) -> bool {
    match option.name {
        'b' | 'B' | 'g' | 'M' | 'z' => true,
        'S' => option.arg.is_some(),
        'p' => option.arg.is_some_and(|arg| !arg.contains(':')),
        _ => false,
    }
}

/// 2013's -x: all vcpus take turns on one host CPU.
pub(super) fn mux(config: &mut Config) -> Result<(), OptionError> {
    Ok(config.set("compat.mux", "true")?)
}

/// The options that today's bhyve(8) hasn't got.
pub(super) fn option(config: &mut Config, name: char, arg: &str) -> Result<(), OptionError> {
    let (variable, value) = match name {
        'b' => ("compat.console", "stdio"),
        'B' => ("compat.breakpoint", "true"),
        'g' => ("compat.debug_port", arg),
        'M' => ("compat.memory_high", arg),
        'z' => ("compat.hz", arg),
        _ => return Err(OptionError::Usage),
    };
    Ok(config.set(variable, value)?)
}

/// 2013's `-S slot,uart,backend`: the first one is com1, the second com2. Other devices
/// were the same with -S as with -s.
pub(super) fn legacy_device(config: &mut Config, text: &str) -> Result<(), OptionError> {
    let (_, name, backend) = devices::split_slot(text)?;
    if name != "uart" {
        return devices::pci(config, text);
    }
    let mut ports = COM_PORTS.iter().map(|name| format!("lpc.{name}.path"));
    let Some(variable) = ports.find(|variable| !config.contains(variable)) else {
        return Err(OptionError::Invalid {
            what: "-S",
            text: text.to_owned(),
            why: Some(format!("all {} serial ports are used", COM_PORTS.len())),
        });
    };
    Ok(config.set(&variable, backend.unwrap_or("/dev/null"))?)
}
