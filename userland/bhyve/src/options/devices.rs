//! -s and -l: the devices on the PCI bus and behind the LPC bridge.

#![forbid(unsafe_code)]

use super::OptionError;
use crate::config::Config;
use crate::devices::pctestdev;
use crate::not_yet;
use crate::pci::device::OptionParser;
use crate::pci::{Bdf, registry};

/// The serial ports, in the order of their numbers.
pub const COM_PORTS: [&str; 4] = ["com1", "com2", "com3", "com4"];

/// The devices that `-l help` lists.
pub const LPC_DEVICES: [&str; 5] = ["com1", "com2", "com3", "com4", pctestdev::NAME];

/// Whether an argument begins as a slot with a device: `31,uart…`, `0:0,…`, `0:31:0,…`.
pub fn is_slot(arg: &str) -> bool {
    let Some((slot, device)) = arg.split_once(',') else {
        return false;
    };
    !device.is_empty()
        && !slot.is_empty()
        && slot
            .split(':')
            .all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// A slot's text in parts: where, which device, what stands behind it.
pub fn split_slot(text: &str) -> Result<(Bdf, &str, Option<&str>), OptionError> {
    let Some((slot, rest)) = text.split_once(',') else {
        return Err(OptionError::Slot {
            text: text.to_owned(),
            why: "slot,device is wanted",
        });
    };
    let (device, config) = match rest.split_once(',') {
        Some((device, config)) => (device, Some(config)),
        None => (rest, None),
    };
    let at = place(slot).map_err(|why| OptionError::Slot {
        text: text.to_owned(),
        why,
    })?;
    Ok((at, device, config))
}

/// `slot[:function]` or `bus:slot:function`, in decimal.
fn place(text: &str) -> Result<Bdf, &'static str> {
    let parts: Vec<&str> = text.split(':').collect();
    let (bus, slot, function) = match parts[..] {
        [slot] => ("0", slot, "0"),
        [slot, function] => ("0", slot, function),
        [bus, slot, function] => (bus, slot, function),
        _ => return Err("slot, slot:function or bus:slot:function is wanted"),
    };
    let number = |text: &str, most: u8, why| {
        let number = text.parse().ok().filter(|number| *number <= most);
        number.filter(|_| !text.starts_with('+')).ok_or(why)
    };
    Ok(Bdf {
        bus: number(bus, 255, "the bus is not a number from 0 to 255")?,
        slot: number(slot, 31, "the slot is not a number from 0 to 31")?,
        function: number(function, 7, "the function is not a number from 0 to 7")?,
    })
}

/// `-s slot,device[,configuration]`.
pub fn pci(config: &mut Config, text: &str) -> Result<(), OptionError> {
    let (at, name, options) = split_slot(text)?;
    let (device, parser) = find(name).ok_or_else(|| OptionError::UnknownDevice {
        at,
        name: name.to_owned(),
    })?;
    if config.contains(&at.node()) {
        return Err(OptionError::SlotTaken(at));
    }
    let mut node = config.node_mut(&at.node())?;
    node.set("device", device)?;
    parser(&mut node, options).map_err(|error| OptionError::Device {
        text: text.to_owned(),
        error: error.to_string(),
    })
}

/// The name that a device has in the configuration, and the parser of its options: of all
/// devices of bhyve(8), whether they are there or not.
fn find(name: &str) -> Option<(&'static str, OptionParser)> {
    if let Some(device) = registry::find(name) {
        return Some((device.alias.unwrap_or(device.name), device.options));
    }
    let device = not_yet::find(name)?;
    Some((device.name, device.options))
}

/// `-l device[,configuration]`. Names are compared without regard to case.
pub fn lpc(config: &mut Config, text: &str) -> Result<(), OptionError> {
    let (name, rest) = match text.split_once(',') {
        Some((name, rest)) => (name, Some(rest)),
        None => (text, None),
    };
    let invalid = |why: &str| OptionError::Invalid {
        what: "lpc device configuration",
        text: text.to_owned(),
        why: Some(why.to_owned()),
    };
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "bootrom" => bootrom(config, text, rest),
        "tpm" => tpm(config, text, rest),
        pctestdev::NAME => Ok(config.set("lpc.pc-testdev", "true")?),
        com if COM_PORTS.contains(&com) => {
            let backend = rest.ok_or_else(|| {
                invalid("stdio, the path of a terminal, or tcp=address:port is wanted behind it")
            })?;
            Ok(config.set(&format!("lpc.{com}.path"), backend)?)
        }
        _ => Err(invalid("no such device (-l help lists those there are)")),
    }
}

/// `bootrom,file[,variables file][,option…]`.
fn bootrom(config: &mut Config, text: &str, rest: Option<&str>) -> Result<(), OptionError> {
    let Some(rest) = rest else {
        return Err(OptionError::Device {
            text: text.to_owned(),
            error: "invalid bootrom option: a file is wanted".to_owned(),
        });
    };
    let (file, rest) = rest.split_once(',').unwrap_or((rest, ""));
    config.set("bootrom", file)?;
    let (first, others) = rest.split_once(',').unwrap_or((rest, ""));
    if first.is_empty() || first.contains('=') {
        return Ok(config.node_mut("lpc")?.set_options(rest)?);
    }
    config.set("bootvars", first)?;
    Ok(config.node_mut("lpc")?.set_options(others)?)
}

/// `tpm,type,path[,version=…]`.
fn tpm(config: &mut Config, text: &str, rest: Option<&str>) -> Result<(), OptionError> {
    let mut parts = rest.unwrap_or_default().splitn(3, ',');
    let (kind, path) = (parts.next().unwrap_or_default(), parts.next());
    let Some(path) = path else {
        return Err(OptionError::Device {
            text: text.to_owned(),
            error: "invalid tpm type or path: tpm,type,path is wanted".to_owned(),
        });
    };
    let options = parts.next().unwrap_or_default();
    let mut node = config.node_mut("tpm")?;
    node.set("type", kind)?;
    node.set("path", path)?;
    node.set_options(options)?;
    if node.get("version").is_none() {
        node.set("version", "2.0")?;
    }
    Ok(())
}
