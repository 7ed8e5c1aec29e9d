//! A disk on the command line: `path[,option…]` behind the device's name (bhyve(8), "Block
//! storage device backends"). An option that nobody knows is an error and not forgotten.

#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;

/// The smallest sector.
pub const MIN_SECTOR: u32 = 512;

/// The longest serial: what GET_ID has room for.
pub const MAX_SERIAL: usize = 20;

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
    /// `ser` or `serial`.
    pub serial: Option<String>,
}

/// What is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionError {
    NoPath,
    Unknown(String),
    NoValue(String),
    NotYesOrNo { option: String, value: String },
    SectorSize(String),
    Serial(String),
    BootIndex,
}

impl std::error::Error for OptionError {}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPath => f.write_str(
                "the path of an image file or a disk device is wanted: virtio-blk,path[,option…]",
            ),
            Self::Unknown(option) => write!(
                f,
                "unknown option \"{option}\" (there are nocache, direct, sync, ro, nodelete, \
                 sectorsize=logical[/physical] and ser=serial)"
            ),
            Self::NoValue(option) => write!(f, "{option} wants a value: {option}=…"),
            Self::NotYesOrNo { option, value } => {
                write!(f, "{option} is on or off, and not \"{value}\"")
            }
            Self::SectorSize(text) => write!(
                f,
                "invalid sector size \"{text}\": powers of two from {MIN_SECTOR} on are wanted, \
                 the logical one no larger than the physical one"
            ),
            Self::Serial(text) => {
                write!(f, "the serial \"{text}\" is longer than {MAX_SERIAL} bytes")
            }
            Self::BootIndex => f.write_str(
                "bootindex is for firmware with fw_cfg, which is not part of this version",
            ),
        }
    }
}

impl DiskOptions {
    /// From what follows the device's name.
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        let mut parts = text.split(',');
        let path = parts.next().unwrap_or_default();
        if path.is_empty() {
            return Err(OptionError::NoPath);
        }
        let mut options = Self {
            path: PathBuf::from(path),
            no_cache: false,
            sync: false,
            read_only: false,
            no_delete: false,
            sector_size: None,
            serial: None,
        };
        for part in parts {
            options.add(part)?;
        }
        Ok(options)
    }

    fn add(&mut self, part: &str) -> Result<(), OptionError> {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (part, None),
        };
        let text = || value.ok_or_else(|| OptionError::NoValue(name.to_owned()));
        match name {
            "nocache" => self.no_cache = is_on(name, value)?,
            "direct" | "sync" => self.sync = is_on(name, value)?,
            "ro" => self.read_only = is_on(name, value)?,
            "nodelete" => self.no_delete = is_on(name, value)?,
            "sectorsize" => self.sector_size = Some(sector_size(text()?)?),
            "ser" | "serial" => {
                let serial = text()?;
                if serial.len() > MAX_SERIAL {
                    return Err(OptionError::Serial(serial.to_owned()));
                }
                self.serial = Some(serial.to_owned());
            }
            "bootindex" => return Err(OptionError::BootIndex),
            _ => return Err(OptionError::Unknown(part.to_owned())),
        }
        Ok(())
    }
}

/// Alone it is on; with a value as bhyve_config(5) has it.
fn is_on(option: &str, value: Option<&str>) -> Result<bool, OptionError> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("true" | "on" | "yes" | "1") => Ok(true),
        Some("false" | "off" | "no" | "0") => Ok(false),
        Some(other) => Err(OptionError::NotYesOrNo {
            option: option.to_owned(),
            value: other.to_owned(),
        }),
    }
}

/// `logical[/physical]`.
fn sector_size(text: &str) -> Result<(u32, u32), OptionError> {
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

    fn parse(text: &str) -> DiskOptions {
        DiskOptions::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_path_may_stand_alone_and_be_relative() {
        let options = parse("diskdev");
        assert_eq!(options.path, PathBuf::from("diskdev"));
        assert!(!options.no_cache && !options.sync && !options.read_only && !options.no_delete);
        assert_eq!((options.sector_size, options.serial), (None, None));
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
        assert_eq!(options.serial.as_deref(), Some("A B"));
        assert!(options.read_only);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, part) in [
            ("", "the path"),
            (",ro", "the path"),
            ("/x,rw", "\"rw\""),
            ("/x,,ro", "\"\""),
            ("/x,ro=maybe", "\"maybe\""),
            ("/x,sectorsize", "sectorsize=…"),
            ("/x,sectorsize=256", "\"256\""),
            ("/x,sectorsize=4096/512", "\"4096/512\""),
            ("/x,sectorsize=1000", "\"1000\""),
            ("/x,sectorsize=512/", "\"512/\""),
            ("/x,ser=123456789012345678901", "longer than 20"),
            ("/x,bootindex=1", "fw_cfg"),
        ] {
            let message = DiskOptions::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
