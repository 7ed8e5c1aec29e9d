//! A disk on the command line and in the configuration: `path[,option…]` (bhyve(8), "Block
//! storage device backends"; bhyve_config(5), "Block Device Settings").

#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;

use crate::config::{NodeMut, View};
use crate::pci::DeviceError;

/// The smallest sector.
pub const MIN_SECTOR: u32 = 512;

/// What the text says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskOptions {
    pub path: PathBuf,
    /// Past the host's cache (O_DIRECT).
    pub no_cache: bool,
    /// Each write goes to the disk at once (O_SYNC): `direct` or `sync`.
    pub sync: bool,
    pub read_only: bool,
    /// No discarding.
    pub no_delete: bool,
    /// Bytes of a logical and of a physical sector.
    pub sector_size: Option<(u32, u32)>,
    /// Its place among those that firmware boots from.
    pub boot_index: Option<u64>,
}

/// What is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionError {
    NoPath,
    SectorSize(String),
}

impl std::error::Error for OptionError {}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPath => {
                f.write_str("the path of an image file or a disk device is wanted: path[,option…]")
            }
            Self::SectorSize(text) => write!(
                f,
                "invalid sector size \"{text}\": powers of two from {MIN_SECTOR} on are wanted, \
                 the logical one no larger than the physical one"
            ),
        }
    }
}

/// `path[,option…]` becomes variables. Nothing becomes none: `-o` may set the path.
pub fn parse(node: &mut NodeMut<'_>, text: Option<&str>) -> Result<(), DeviceError> {
    let Some(text) = text else {
        return Ok(());
    };
    let (path, options) = text.split_once(',').unwrap_or((text, ""));
    if path.is_empty() {
        return Err(OptionError::NoPath.into());
    }
    node.set("path", path)?;
    Ok(node.set_options(options)?)
}

/// A variable whose value the guest sees in a field of `room` bytes. One that is longer is
/// cut, as in bhyve(8), and the person is told.
pub fn text_field(config: &View<'_>, variable: &str, room: usize) -> Option<Vec<u8>> {
    let mut value = config.get(variable)?.into_bytes();
    if value.len() > room {
        let name = config.path_of(variable);
        eprintln!("bhyve: {name}: the guest sees the first {room} bytes only\r");
        value.truncate(room);
    }
    Some(value)
}

impl DiskOptions {
    /// From a disk's node, which may have variables of the device's own, too.
    pub fn read(config: &View<'_>) -> Result<Self, DeviceError> {
        let sector_size = config.get("sectorsize");
        // Both names are read, whichever is set.
        let (direct, sync) = (config.bool("direct", false)?, config.bool("sync", false)?);
        Ok(Self {
            path: config.get("path").ok_or(OptionError::NoPath)?.into(),
            no_cache: config.bool("nocache", false)?,
            sync: direct || sync,
            read_only: config.bool("ro", false)?,
            no_delete: config.bool("nodelete", false)?,
            boot_index: config.number("bootindex", 0, u32::MAX.into())?,
            sector_size: sector_size
                .map(|text| parse_sector_size(&text))
                .transpose()?,
        })
    }
}

/// `logical[/physical]`.
fn parse_sector_size(text: &str) -> Result<(u32, u32), OptionError> {
    let error = || OptionError::SectorSize(text.to_owned());
    let number = |text: &str| {
        let number = text.parse().ok().filter(|n: &u32| n.is_power_of_two());
        number.ok_or_else(error)
    };
    let (logical, physical) = text.split_once('/').unwrap_or((text, text));
    let sizes = (number(logical)?, number(physical)?);
    if sizes.0 < MIN_SECTOR || sizes.0 > sizes.1 {
        return Err(error());
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(text: &str) -> Result<DiskOptions, DeviceError> {
        let mut config = Config::default();
        super::parse(&mut config.node_mut("disk")?, Some(text))?;
        DiskOptions::read(&config.node("disk").ok_or("there is a disk")?)
    }

    fn parse(text: &str) -> DiskOptions {
        read(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_path_may_stand_alone_and_be_relative() {
        let options = parse("diskdev");
        assert_eq!(options.path, PathBuf::from("diskdev"));
        assert!(!options.no_cache && !options.sync && !options.read_only && !options.no_delete);
        assert_eq!(options.sector_size, None);
    }

    #[test]
    fn each_option_has_its_meaning() {
        assert!(parse("/x,nocache").no_cache);
        assert!(parse("/x,direct").sync && parse("/x,sync").sync);
        assert!(parse("/x,ro").read_only && !parse("/x,ro=off").read_only);
        assert!(parse("/x,nodelete=TRUE").no_delete);
        assert_eq!(parse("/x,sectorsize=512").sector_size, Some((512, 512)));
        let options = parse("/x,ser=A B,sectorsize=512/4096,ro");
        assert_eq!(options.sector_size, Some((512, 4096)));
        assert!(options.read_only);
    }

    #[test]
    fn a_field_has_what_fits_in() {
        let mut config = Config::default();
        config.set("disk.ser", "123456789012345678901").unwrap();
        let view = config.node("disk").unwrap();
        assert_eq!(text_field(&view, "ser", 21).unwrap().len(), 21);
        assert_eq!(
            text_field(&view, "ser", 20).unwrap(),
            b"12345678901234567890"
        );
        assert_eq!(text_field(&view, "rev", 8), None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, part) in [
            ("", "the path"),
            (",ro", "the path"),
            ("/x,ro=maybe", "disk.ro=maybe"),
            ("/x,sectorsize", "\"true\""),
            ("/x,sectorsize=256", "\"256\""),
            ("/x,sectorsize=4096/512", "\"4096/512\""),
            ("/x,sectorsize=1000", "\"1000\""),
            ("/x,sectorsize=512/", "\"512/\""),
            ("/x,bootindex=first", "disk.bootindex=first"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
