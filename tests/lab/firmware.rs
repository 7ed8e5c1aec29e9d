//! The firmware of the emulated machine: Bochs's BIOS, or a copy of it that leaves VT-x
//! turned off, as a firmware's setup can (SDM 24.7).

use std::fs;
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
pub fn bios(wanted: FeatureControl, folder: &Path) -> Result<PathBuf, String> {
    let original = find(&BIOS)?;
    let value = match wanted {
        FeatureControl::LockedOn => return Ok(original),
        FeatureControl::LockedOff => LOCKED_OFF,
    };
    let mut image = fs::read(&original).map_err(|e| format!("{}: {e}", original.display()))?;
    let places = feature_control_values(&image);
    if places.len() != 2 {
        return Err(format!(
            "{}: {} places write IA32_FEATURE_CONTROL instead of 2, one for the first CPU and one for the others",
            original.display(),
            places.len()
        ));
    }
    for place in places {
        image[place] = value;
    }
    let copy = folder.join("bios");
    fs::write(&copy, image).map_err(|e| format!("{}: {e}", copy.display()))?;
    Ok(copy)
}

const LOCKED_ON: u8 = 5;
const LOCKED_OFF: u8 = 1;

/// Where the values are that the BIOS writes to IA32_FEATURE_CONTROL: `mov ecx, 3Ah; rdmsr;
/// or eax, 5; wrmsr`, in 32-bit code and, with a prefix before the OR, in 16-bit code.
fn feature_control_values(image: &[u8]) -> Vec<usize> {
    let codes: [&[u8]; 2] = [
        &[0x3a, 0, 0, 0, 0x0f, 0x32, 0x83, 0xc8, LOCKED_ON, 0x0f, 0x30],
        &[
            0x3a, 0, 0, 0, 0x0f, 0x32, 0x66, 0x83, 0xc8, LOCKED_ON, 0x0f, 0x30,
        ],
    ];
    let find = |code: &[u8]| {
        let starts = image.windows(code.len()).enumerate();
        let found = starts.filter(|(_, window)| *window == code);
        found.map(|(at, _)| at + code.len() - 3).collect::<Vec<_>>()
    };
    codes.into_iter().flat_map(find).collect()
}

fn find(places: &[&str]) -> Result<PathBuf, String> {
    places
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .ok_or_else(|| format!("none of {places:?} is there; run `make setup`"))
}
