//! Which devices the configuration puts on the bus: the nodes `pci.BUS.SLOT.FUNCTION`
//! (bhyve_config(5), "PCI Device Settings").

#![forbid(unsafe_code)]

use super::bus::{PciError, Slot};
use super::{Bdf, lpc, registry};
use crate::config::{Config, View};
use crate::not_yet;

const MOST: Bdf = Bdf {
    bus: 255,
    slot: 31,
    function: 7,
};

/// The devices, in no particular order. Everything beneath `pci` has to be one of them.
pub fn slots(config: &Config) -> Result<Vec<Slot<'_>>, PciError> {
    let mut slots = Vec::new();
    let Some(root) = config.node("pci") else {
        return Ok(slots);
    };
    for (bus, node) in root.children() {
        let Some(bus) = number(bus, MOST.bus) else {
            return Err(PciError::NoPlace(node.path().to_owned()));
        };
        for (slot, node) in node.children() {
            let Some(slot) = number(slot, MOST.slot) else {
                return Err(PciError::NoPlace(node.path().to_owned()));
            };
            for (function, node) in node.children() {
                let Some(function) = number(function, MOST.function) else {
                    return Err(PciError::NoPlace(node.path().to_owned()));
                };
                let at = Bdf {
                    bus,
                    slot,
                    function,
                };
                slots.push(slot_at(at, node)?);
            }
        }
    }
    let mut bridges = slots.iter().filter(|slot| slot.device.name == lpc::NAME);
    match (bridges.next(), bridges.next()) {
        (Some(_), Some(second)) => Err(PciError::SecondBridge(second.at)),
        _ => Ok(slots),
    }
}

/// A number as a node's name has it: in decimal, without leading zeros.
fn number(name: &str, most: u8) -> Option<u8> {
    let number = name.parse().ok().filter(|number: &u8| *number <= most)?;
    (number.to_string() == name).then_some(number)
}

fn slot_at(at: Bdf, config: View<'_>) -> Result<Slot<'_>, PciError> {
    let name = config.get("device").ok_or(PciError::NoDevice(at))?;
    let alias = match (registry::find(&name), not_yet::find(&name)) {
        (Some(device), _) => match device.alias {
            None => return Ok(Slot { at, device, config }),
            Some(alias) => alias,
        },
        (None, Some(_)) => return Err(PciError::NotYet { at, name }),
        (None, None) => return Err(PciError::UnknownDevice { at, name }),
    };
    Err(PciError::Alias { at, name, alias })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(lines: &[&str]) -> String {
        let mut config = Config::default();
        for line in lines {
            let (name, value) = line.split_once('=').unwrap();
            config.set(name, value).unwrap();
        }
        match slots(&config) {
            Ok(slots) => slots
                .iter()
                .map(|slot| format!("{} {};", slot.at, slot.device.name))
                .collect(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_node_is_a_device() {
        assert_eq!(message(&["pci.enable_bars=true"]), "");
        let lines = ["pci.0.31.0.device=lpc", "pci.2.0.7.device=hostbridge"];
        assert_eq!(message(&lines), "0:31:0 lpc;2:0:7 hostbridge;");
    }

    #[test]
    fn there_is_one_isa_bus() {
        let lines = ["pci.0.31.0.device=lpc", "pci.0.1.0.device=lpc"];
        let said = message(&lines);
        assert_eq!(said, "pci slot 0:1:0: Only one LPC bridge is allowed.");
    }

    #[test]
    fn what_is_no_device_is_named() {
        for (line, part) in [
            ("pci.256.0.0.device=lpc", "pci.256: "),
            ("pci.0.32.0.device=lpc", "pci.0.32: "),
            ("pci.0.01.0.device=lpc", "pci.0.01: "),
            ("pci.0.1.8.device=lpc", "pci.0.1.8: "),
            ("pci.0.1.0.devise=lpc", "pci slot 0:1:0: missing \"device\""),
            (
                "pci.0.1.0.device=floppy",
                "pci slot 0:1:0: unknown device \"floppy\"",
            ),
            (
                "pci.0.1.0.device=xhci",
                "pci slot 0:1:0: xhci is not part of this version",
            ),
            (
                "pci.0.1.0.device=amd_hostbridge",
                "pci slot 0:1:0: legacy device \"amd_hostbridge\", use \"hostbridge\" instead",
            ),
        ] {
            let message = message(&[line]);
            assert!(message.starts_with(part), "{line}: {message}");
        }
    }
}
