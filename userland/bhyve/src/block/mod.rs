//! The host's side of disks, the same for all devices that have one: what their
//! [`options`] say, the open [`disk`], and what a person is told of its [`errors`].

#![forbid(unsafe_code)]

pub mod disk;
pub mod errors;
pub mod options;

#[cfg(test)]
pub(crate) mod image;

pub use disk::{Disk, OpenError};
pub use errors::HostErrors;
pub use options::DiskOptions;

use crate::pci::DeviceContext;

/// Opens what the options name; `name` is who wants it, for messages. That a disk turns out to be read-only is
/// said; one with a bootindex gets its place.
pub fn open(options: &DiskOptions, name: &str, context: &DeviceContext) -> Result<Disk, OpenError> {
    let disk = Disk::open(options)?;
    if let Some(index) = options.boot_index {
        let taken = context.boot_order.add(index, context.at);
        taken.map_err(|by| OpenError::BootIndex { index, by })?;
    }
    if disk.read_only() && !options.read_only {
        eprintln!(
            "bhyve: {name}: {} can't be written: the disk is read-only\r",
            options.path.display()
        );
    }
    Ok(disk)
}

/// What bhyve(8) makes of the path, so that guests see their disks as the same ones.
pub fn default_serial(path: &str) -> String {
    let [a, b, c, d, e, f, ..] = md5::compute(path).0;
    format!("BHYVE-{a:02X}{b:02X}-{c:02X}{d:02X}-{e:02X}{f:02X}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_serial_is_the_first_bytes_of_what_md5_makes_of_the_path() {
        assert_eq!(super::default_serial("diskdev"), "BHYVE-A130-1C07-B139");
    }
}
