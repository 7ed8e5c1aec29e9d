//! A console on the command line and in the configuration: `name=path,…`, one port each
//! (bhyve(8), "Virtio console device backends"), which become `port.0.name` and so on
//! (bhyve_config(5), "VirtIO Console Device Settings").

#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;

use super::MAX_PORTS;
use crate::config::{NodeMut, View};
use crate::pci::DeviceError;

/// One port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortOptions {
    pub number: usize,
    /// What the guest calls it.
    pub name: String,
    /// Of its socket.
    pub path: PathBuf,
    /// The variable that the path is from, for messages.
    pub variable: String,
    /// The guest makes a terminal of it. A variable of our own: bhyve has no such ports.
    pub console: bool,
}

/// What is wrong with them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionError {
    NoPath(String),
    TooMany,
    Number(String),
    /// Of the same port: 1 and 01.
    Twice(usize),
    NameTooLong(String),
}

/// The longest name: what fits into the buffers that FreeBSD's driver has for messages.
const LONGEST_NAME: usize = 127;

impl std::error::Error for OptionError {}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPath(name) => write!(
                f,
                "port \"{name}\" requires the path of a socket: {name}=/path/to/socket"
            ),
            Self::TooMany => write!(f, "too many ports: a console has {MAX_PORTS} at most"),
            Self::Number(path) => {
                let last = MAX_PORTS - 1;
                write!(f, "{path}: ports have the numbers 0 to {last}")
            }
            Self::Twice(number) => write!(f, "port {number} is there twice"),
            Self::NameTooLong(path) => {
                write!(f, "{path}: longer than {LONGEST_NAME} bytes")
            }
        }
    }
}

/// `name=path,…` becomes variables.
pub fn parse(node: &mut NodeMut<'_>, text: Option<&str>) -> Result<(), DeviceError> {
    let Some(text) = text else {
        return Ok(());
    };
    for (number, option) in text.split(',').enumerate() {
        let Some((name, path)) = option.split_once('=') else {
            return Err(OptionError::NoPath(option.to_owned()).into());
        };
        if number >= MAX_PORTS {
            return Err(OptionError::TooMany.into());
        }
        let mut port = node.node(&format!("port.{number}"))?;
        port.set("name", name)?;
        port.set("path", path)?;
    }
    Ok(())
}

/// The ports of a console, in the order of their numbers.
pub fn ports(config: &View<'_>) -> Result<Vec<PortOptions>, DeviceError> {
    let mut ports: Vec<PortOptions> = Vec::new();
    let node = config.node("port");
    for (number, port) in node.iter().flat_map(|node| node.children()) {
        let last = MAX_PORTS as u64 - 1;
        let number = cli::number::parse_within(number, 0, last)
            .ok_or_else(|| OptionError::Number(port.path().to_owned()))?;
        // No more than 15.
        let number = number as usize;
        if ports.iter().any(|port| port.number == number) {
            return Err(OptionError::Twice(number).into());
        }
        let name = port.required("name")?;
        if name.len() > LONGEST_NAME {
            return Err(OptionError::NameTooLong(port.path_of("name")).into());
        }
        ports.push(PortOptions {
            number,
            name,
            path: port.required("path")?.into(),
            variable: port.path_of("path"),
            console: port.bool("console", false)?,
        });
    }
    ports.sort_by_key(|port| port.number);
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parsed(text: &str) -> Result<Vec<String>, String> {
        let mut config = Config::default();
        let mut node = config.node_mut("pci.0.3.0").unwrap();
        parse(&mut node, Some(text)).map_err(|error| error.to_string())?;
        Ok(config.lines())
    }

    fn read(lines: &[&str]) -> Result<Vec<PortOptions>, String> {
        let mut config = Config::default();
        config.set("c.device", "virtio-console").unwrap();
        for line in lines {
            let (name, value) = line.split_once('=').unwrap();
            config.set(&format!("c.{name}"), value).unwrap();
        }
        let ports = ports(&config.node("c").unwrap()).map_err(|error| error.to_string())?;
        config.get("c.device");
        assert_eq!(config.unread(), [""; 0], "all that is known is read");
        Ok(ports)
    }

    #[test]
    fn each_option_is_a_port() {
        assert_eq!(
            parsed("org.qemu.guest_agent.0=/tmp/a,b=/tmp/c=d,=").unwrap(),
            [
                "pci.0.3.0.port.0.name=org.qemu.guest_agent.0",
                "pci.0.3.0.port.0.path=/tmp/a",
                "pci.0.3.0.port.1.name=b",
                "pci.0.3.0.port.1.path=/tmp/c=d",
                "pci.0.3.0.port.2.name=",
                "pci.0.3.0.port.2.path=",
            ]
        );
        for bad in ["", "a", "a=/b,", "a=/b,c"] {
            let error = parsed(bad).unwrap_err();
            assert!(error.contains("requires the path"), "{bad}: {error}");
        }
        let many = vec!["a=/b"; 16].join(",");
        assert_eq!(parsed(&many).unwrap().len(), 32);
        assert!(parsed(&format!("{many},a=/b")).unwrap_err().contains("16"));
    }

    #[test]
    fn ports_are_read_in_the_order_of_their_numbers() {
        let ports = read(&[
            "port.10.name=ten",
            "port.10.path=/x",
            "port.2.name=two",
            "port.2.path=/y",
            "port.2.console=yes",
        ])
        .unwrap();
        let ports: Vec<_> = ports
            .iter()
            .map(|p| (p.number, &*p.name, p.console))
            .collect();
        assert_eq!(ports, [(2, "two", true), (10, "ten", false)]);
        assert_eq!(read(&[]).unwrap(), []);
    }

    #[test]
    fn errors_name_the_variable() {
        for (lines, part) in [
            (&["port.16.name=a", "port.16.path=/x"][..], "c.port.16: "),
            (&["port.one.name=a", "port.one.path=/x"], "c.port.one: "),
            (&["port.1.name=a"], "c.port.1.path is not set"),
            (&["port.1.path=/x"], "c.port.1.name is not set"),
            (
                &["port.1.name=a", "port.1.path=/x", "port.1.console=maybe"],
                "c.port.1.console=maybe",
            ),
            (
                &[
                    "port.1.name=a",
                    "port.1.path=/x",
                    "port.0x1.name=a",
                    "port.0x1.path=/x",
                ],
                "port 1 is there twice",
            ),
        ] {
            let error = read(lines).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let long = format!("port.0.name={}", "n".repeat(128));
        let error = read(&[&long, "port.0.path=/x"]).unwrap_err();
        assert!(error.starts_with("c.port.0.name: longer"), "{error}");
    }
}
