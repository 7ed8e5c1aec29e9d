//! AHCI controllers on the command line and in the configuration (bhyve(8), "AHCI device
//! backends"; bhyve_config(5), "AHCI Controller Settings"): each port has a node with its
//! type, its disk's variables and its names.

#![forbid(unsafe_code)]

use std::fmt;

use super::device::{Device, Kind};
use super::identify::{Identity, MODEL, REVISION, SERIAL};
use super::registers::MAX_PORTS;
use crate::block::options::{self as disk_options, text_field};
use crate::block::{self, DiskOptions, HostErrors, OpenError, default_serial};
use crate::config::{NodeMut, View};
use crate::pci::{DeviceContext, DeviceError};

/// What is wrong with a controller's options.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionError {
    /// A part of `ahci,…` that doesn't begin with `hd:` or `cd:`.
    NoType(String),
    /// Neither hd nor cd.
    Type {
        variable: String,
        value: String,
    },
    TooMany,
}

impl std::error::Error for OptionError {}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoType(text) => write!(
                f,
                "\"{text}\": what a port has begins with hd: or cd:, as in ahci,hd:path,cd:path"
            ),
            Self::Type { variable, value } => {
                write!(f, "{variable}={value}: hd or cd is wanted")
            }
            Self::TooMany => write!(f, "a controller has {MAX_PORTS} ports"),
        }
    }
}

/// `ahci[,hd:path[,option…]][,cd:path[,option…]]…`, one port each. A port without a path is
/// left out.
pub fn parse(node: &mut NodeMut<'_>, text: Option<&str>) -> Result<(), DeviceError> {
    let mut rest = text;
    let mut number = 0;
    while let Some(text) = rest {
        if number == MAX_PORTS {
            return Err(OptionError::TooMany.into());
        }
        let next = [",hd:", ",cd:"].map(|kind| text.find(kind));
        let (this, after) = match next.into_iter().flatten().min() {
            Some(comma) => (&text[..comma], text.get(comma + 1..)),
            None => (text, None),
        };
        match this.split_once(':') {
            Some(("hd" | "cd", "")) => {}
            Some((kind @ ("hd" | "cd"), disk)) => parse_port(node, number, kind, Some(disk))?,
            _ if this.is_empty() => {}
            _ => return Err(OptionError::NoType(this.to_owned()).into()),
        }
        number += 1;
        rest = after;
    }
    Ok(())
}

/// `ahci-hd,path[,option…]`.
pub fn parse_hd(node: &mut NodeMut<'_>, text: Option<&str>) -> Result<(), DeviceError> {
    parse_port(node, 0, "hd", text)
}

/// `ahci-cd,path[,option…]`.
pub fn parse_cd(node: &mut NodeMut<'_>, text: Option<&str>) -> Result<(), DeviceError> {
    parse_port(node, 0, "cd", text)
}

fn parse_port(
    node: &mut NodeMut<'_>,
    number: usize,
    kind: &str,
    disk: Option<&str>,
) -> Result<(), DeviceError> {
    let mut port = node.node(&format!("port.{number}"))?;
    port.set("type", kind)?;
    disk_options::parse(&mut port, disk)
}

/// The devices at the ports of that controller, by number.
pub fn open(
    config: &View<'_>,
    context: &DeviceContext,
) -> Result<Vec<Option<Device>>, DeviceError> {
    let Some(ports) = config.node("port") else {
        return Ok(Vec::new());
    };
    let mut devices = Vec::new();
    for number in 0..MAX_PORTS {
        let port = ports.node(&number.to_string());
        let name = format!("{} port {number}", context.name);
        let device = port
            .map(|port| open_port(&port, &name, context))
            .transpose();
        devices.push(device.map_err(|error| format!("port {number}: {error}"))?);
    }
    let used = devices.iter().rposition(Option::is_some);
    devices.truncate(used.map_or(0, |last| last + 1));
    Ok(devices)
}

fn open_port(
    config: &View<'_>,
    name: &str,
    context: &DeviceContext,
) -> Result<Device, DeviceError> {
    let kind = config.required("type")?;
    let kind = match kind.as_str() {
        "hd" => Kind::Disk,
        "cd" => Kind::Cd,
        _ => {
            let variable = config.path_of("type");
            return Err(OptionError::Type {
                variable,
                value: kind,
            }
            .into());
        }
    };
    let rotation = config.number("nmrr", 0, u16::MAX.into())?.unwrap_or(0);
    let text = |variable, room, default: &str| {
        text_field(config, variable, room).unwrap_or_else(|| default.into())
    };
    let mut options = DiskOptions::read(config)?;
    let identity = Identity {
        serial: text(
            "ser",
            SERIAL,
            &default_serial(&options.path.to_string_lossy()),
        ),
        revision: text("rev", REVISION, "001"),
        model: match kind {
            Kind::Disk => text("model", MODEL, "BHYVE SATA DISK"),
            Kind::Cd => text("model", MODEL, "BHYVE SATA DVD ROM"),
        },
        rotation: u16::try_from(rotation).unwrap_or(0),
    };
    // A CD is never written.
    options.read_only |= kind == Kind::Cd;
    let medium = match block::open(&options, name, context) {
        Ok(disk) => Some(disk),
        // vm-bhyve's way to say that there is no medium.
        Err(OpenError::Empty { .. }) if kind == Kind::Cd => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Device {
        kind,
        medium,
        identity,
        errors: HostErrors::new(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::pci::device::OptionParser;

    fn lines(parse: OptionParser, text: Option<&str>) -> Result<Vec<String>, String> {
        let mut config = Config::default();
        let mut node = config.node_mut("d").map_err(|error| error.to_string())?;
        parse(&mut node, text).map_err(|error| error.to_string())?;
        Ok(config.lines())
    }

    #[test]
    fn one_disk_or_cd_is_port_0() {
        let expected = ["d.port.0.type=hd", "d.port.0.path=/x", "d.port.0.ro=true"];
        assert_eq!(lines(parse_hd, Some("/x,ro")).unwrap(), expected);
        let expected = ["d.port.0.type=cd", "d.port.0.path=/y"];
        assert_eq!(lines(parse_cd, Some("/y")).unwrap(), expected);
        assert_eq!(lines(parse_cd, None).unwrap(), ["d.port.0.type=cd"]);
    }

    #[test]
    fn several_ports_each_have_their_options() {
        let expected = [
            "d.port.0.type=hd",
            "d.port.0.path=/a",
            "d.port.0.nocache=true",
            "d.port.0.ser=S 1",
            "d.port.1.type=cd",
            "d.port.1.path=/b",
            "d.port.3.type=hd",
            "d.port.3.path=hd:c",
        ];
        let text = "hd:/a,nocache,ser=S 1,cd:/b,hd:,hd:hd:c";
        assert_eq!(lines(parse, Some(text)).unwrap(), expected);
        assert_eq!(lines(parse, None).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_no_port_is_named() {
        let error = lines(parse, Some("/a,hd:/b")).unwrap_err();
        assert!(error.starts_with("\"/a\": "), "{error}");
        let many = vec!["hd:/a"; 33].join(",");
        assert_eq!(
            lines(parse, Some(&many)).unwrap_err(),
            "a controller has 32 ports"
        );
        let refusal = |lines: &[(&str, &str)]| {
            let mut config = Config::default();
            for (variable, value) in lines {
                config.set(variable, value).unwrap();
            }
            let node = config.node("d").unwrap();
            open(&node, &DeviceContext::of_test("ahci"))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refusal(&[("d.port.1.type", "fd")]),
            "port 1: d.port.1.type=fd: hd or cd is wanted"
        );
        assert_eq!(
            refusal(&[("d.port.0.path", "/x")]),
            "port 0: d.port.0.type is not set"
        );
        let error = refusal(&[("d.port.2.type", "hd"), ("d.port.2.path", "/nonexistent/x")]);
        assert!(error.starts_with("port 2: /nonexistent/x: "), "{error}");
    }
}
