//! What bhyve(8) has and this version hasn't, by the names under which it is refused: never
//! ignored. The command line knows these devices' options all the same, so that the
//! configuration can be looked at (config.dump).

#![forbid(unsafe_code)]

use std::fmt;

use crate::config::{Config, NodeMut};
use crate::pci::DeviceError;
use crate::pci::device::{OptionParser, plain_options};

/// -r.
pub const RESTORE: &str = "-r: restoring a snapshot";

/// A device of -s that is known by name and not there.
#[derive(Clone, Copy, Debug)]
pub struct Missing {
    pub name: &'static str,
    pub options: OptionParser,
}

const fn missing(name: &'static str, options: OptionParser) -> Missing {
    Missing { name, options }
}

/// All of them. One that is in the registry, too, is there.
static DEVICES: &[Missing] = &[
    missing("e1000", |node, text| first(node, "backend", text)),
    missing("fbuf", plain_options),
    missing("hda", plain_options),
    missing("nvme", nvme),
    missing("passthru", passthru),
    missing("virtio-9p", virtio_9p),
    missing("virtio-input", |node, text| first(node, "path", text)),
    missing("virtio-scsi", |node, text| first(node, "dev", text)),
    missing("xhci", xhci),
];

/// The device of that name.
pub fn find(name: &str) -> Option<&'static Missing> {
    DEVICES.iter().find(|device| device.name == name)
}

/// A feature that is asked for by a variable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    pub variable: String,
    pub value: String,
    pub what: &'static str,
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            variable,
            value,
            what,
        } = self;
        write!(f, "{variable}={value}: {what}")
    }
}

/// Variables that ask for what isn't there, whatever their value is.
const VARIABLES: [(&str, &str); 3] = [
    (
        "bootrom",
        "a boot ROM is not part of this version: load the guest with bhyveload",
    ),
    (
        "bootvars",
        "a boot ROM's variables are not part of this version",
    ),
    ("tpm.type", "a TPM is not part of this version"),
];

/// Variables that ask for it by being on.
const SWITCHES: [(&str, &str); 1] = [(
    "compat.breakpoint",
    "-B, 2013's breakpoint at the first entry, is not part of this version",
)];

/// The first variable that asks for something that isn't there.
pub fn variable(config: &Config) -> Option<Refused> {
    let refuse = |variable: &str, value, what| Refused {
        variable: variable.to_owned(),
        value,
        what,
    };
    for (name, what) in VARIABLES {
        if let Some(value) = config.get(name) {
            return Some(refuse(name, value, what));
        }
    }
    for (name, what) in SWITCHES {
        if let Some(value) = config
            .get(name)
            .filter(|_| config.bool(name, false) != Ok(false))
        {
            return Some(refuse(name, value, what));
        }
    }
    // The debug server is on if it has a port; the others say how it would be.
    let _ = (config.get("gdb.address"), config.get("gdb.wait"));
    if let Some(value) = config.get("gdb.port").filter(|value| value != "0") {
        let what = "the debug server for GDB is not part of this version";
        return Some(refuse("gdb.port", value, what));
    }
    let domains = config.node("domains").map(|node| node.unread());
    if let Some(name) = domains.and_then(|names| names.into_iter().next()) {
        let value = config.get(&name).unwrap_or_default();
        let what = "NUMA domains need a guest that starts from a boot ROM, which is not part of \
                    this version: bhyveload makes the memory as one";
        return Some(refuse(&name, value, what));
    }
    None
}

// ---- Options of these devices -----------------------------------------------------------

/// The first part is the value of `name`, the others are options.
fn first(node: &mut NodeMut<'_>, name: &str, text: Option<&str>) -> Result<(), DeviceError> {
    let Some(text) = text else {
        return Ok(());
    };
    let (value, options) = text.split_once(',').unwrap_or((text, ""));
    node.set(name, value)?;
    Ok(node.set_options(options)?)
}

fn nvme(node: &mut NodeMut<'_>, text: Option<&str>) -> Result<(), DeviceError> {
    match text.and_then(|text| text.strip_prefix("ram=")) {
        Some(ram) => first(node, "ram", Some(ram)),
        None => first(node, "path", text),
    }
}

/// `pptN`, `bus/slot/function` or `pciB:S:F`.
fn passthru(node: &mut NodeMut<'_>, text: Option<&str>) -> Result<(), DeviceError> {
    let Some(text) = text else {
        return Ok(());
    };
    let (device, options) = text.split_once(',').unwrap_or((text, ""));
    let invalid = || format!("invalid options \"{text}\": bus/slot/function or pptN is wanted");
    if device.starts_with("ppt") {
        node.set("pptdev", device)?;
    } else {
        let address = match device.strip_prefix("pci") {
            Some(address) => address
                .strip_prefix("0:")
                .filter(|a| a.contains(':'))
                .unwrap_or(address),
            None => device,
        };
        let separator = if device.starts_with("pci") { ':' } else { '/' };
        let numbers: Vec<&str> = address.split(separator).collect();
        let [bus, slot, function] = numbers[..] else {
            return Err(invalid().into());
        };
        for (name, number) in [("bus", bus), ("slot", slot), ("func", function)] {
            let number: u8 = number.parse().map_err(|_| invalid())?;
            node.set(name, &number.to_string())?;
        }
    }
    Ok(node.set_options(options)?)
}

/// `share=path[,option…]`.
fn virtio_9p(node: &mut NodeMut<'_>, text: Option<&str>) -> Result<(), DeviceError> {
    for part in text.into_iter().flat_map(|text| text.split(',')) {
        match part.split_once('=') {
            Some(_) if node.get("sharename").is_some() => {
                return Err("more than one share name given".into());
            }
            Some((share, path)) => {
                node.set("sharename", share)?;
                node.set("path", path)?;
            }
            None => node.set_options(part)?,
        }
    }
    Ok(())
}

/// `device[=option],…` in the slots from 1 on.
fn xhci(node: &mut NodeMut<'_>, text: Option<&str>) -> Result<(), DeviceError> {
    for (number, part) in (1..).zip(text.into_iter().flat_map(|text| text.split(','))) {
        let (device, option) = part.split_once('=').unwrap_or((part, ""));
        let mut slot = node.node(&format!("slot.{number}"))?;
        slot.set("device", device)?;
        slot.set_options(option)?;
    }
    Ok(())
}
