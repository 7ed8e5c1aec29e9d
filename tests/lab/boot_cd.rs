//! The CD that the emulated machine boots: the host's image, as `make image` or
//! tests/freebsd/image left it in build/lab, with the settings of one boot.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use super::bochs::named;
use super::config::LabConfig;
use super::{HOST, Host, workspace};

pub fn make(config: &LabConfig, folder: &Path, iso: &Path) -> Result<(), String> {
    match HOST {
        Host::Linux => linux(config, folder, iso),
        Host::FreeBsd => freebsd(config, iso),
    }
}

/// GRUB with the lab's kernel and this configuration's command line.
fn linux(config: &LabConfig, folder: &Path, iso: &Path) -> Result<(), String> {
    let lab = workspace().join("build/lab");
    // GRUB puts several archives one behind the other, and Linux unpacks them all.
    let mut files = vec!["vmlinuz", "initramfs.cpio"];
    if config.linux_guest {
        files.push("linux.cpio");
    }
    if let Some(missing) = files.iter().find(|file| !lab.join(file).is_file()) {
        return Err(format!(
            "{} is missing; `make linux-guest` builds it",
            lab.join(missing).display()
        ));
    }
    let archives: Vec<String> = files[1..].iter().map(|file| format!("/{file}")).collect();
    let menu = format!(
        "set timeout=0\nterminal_output console\nmenuentry lab {{\n\tlinux /vmlinuz {}\n\tinitrd {}\n}}\n",
        config.command_line(),
        archives.join(" ")
    );
    let grub_cfg = folder.join("grub.cfg");
    fs::write(&grub_cfg, menu).map_err(|e| format!("{}: {e}", grub_cfg.display()))?;
    let graft = |target: &str, file: &Path| format!("{target}={}", file.display());
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("iso.log"))
        .map_err(named("iso.log"))?;
    let errors = log.try_clone().map_err(named("iso.log"))?;
    let status = Command::new("grub-mkrescue")
        .args([
            "--directory=/usr/lib/grub/i386-pc",
            "--compress=no",
            "--locales=",
            "--themes=",
            "--fonts=",
        ])
        .args(["--install-modules=linux normal iso9660 biosdisk", "-o"])
        .arg(iso)
        .arg(graft("/boot/grub/grub.cfg", &grub_cfg))
        .args(
            files
                .iter()
                .map(|file| graft(&format!("/{file}"), &lab.join(file))),
        )
        .stdout(log)
        .stderr(errors)
        .status()
        .map_err(|e| format!("grub-mkrescue: {e}; run `make setup`"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!(
            "grub-mkrescue failed; see {}",
            folder.join("iso.log").display()
        ))
    }
}

/// How the script of the FreeBSD loader on the CD begins. tests/freebsd/image pads it with
/// spaces to [`SCRIPT_LEN`] bytes; a file of a CD is in one piece, so that a boot's own
/// script can be written over it.
const SCRIPT_MARK: &[u8] = b"\\ vmm_rs lab: what a boot sets goes here\n";
const SCRIPT_LEN: usize = 8192;

/// A copy of the FreeBSD host's CD with this configuration's loader variables.
fn freebsd(config: &LabConfig, iso: &Path) -> Result<(), String> {
    let image = workspace().join("build/lab/freebsd/cd.iso");
    if !image.is_file() {
        return Err(format!(
            "{} is missing; `make freebsd-test` builds it",
            image.display()
        ));
    }
    let mut script = config.loader_script().into_bytes();
    if script.len() > SCRIPT_LEN {
        return Err(format!(
            "kernel_args are {} bytes too long",
            script.len() - SCRIPT_LEN
        ));
    }
    script.resize(SCRIPT_LEN, b'\n');
    fs::copy(&image, iso).map_err(|e| format!("{}: {e}", iso.display()))?;
    let mut cd = OpenOptions::new()
        .read(true)
        .write(true)
        .open(iso)
        .map_err(named("boot.iso"))?;
    let place = find_sector(&mut cd, SCRIPT_MARK)
        .map_err(named("boot.iso"))?
        .ok_or_else(|| format!("{} has no loader script of the lab", image.display()))?;
    cd.seek(SeekFrom::Start(place))
        .and_then(|_| cd.write_all(&script))
        .map_err(named("boot.iso"))
}

/// Where the sector is that begins with these bytes.
fn find_sector(cd: &mut File, begins: &[u8]) -> std::io::Result<Option<u64>> {
    const SECTOR: usize = 2048;
    let mut buffer = vec![0; 512 * SECTOR];
    let mut place = 0;
    loop {
        let len = cd.read(&mut buffer)?;
        if len == 0 {
            return Ok(None);
        }
        let mut sectors = buffer[..len].chunks(SECTOR);
        if let Some(number) = sectors.position(|sector| sector.starts_with(begins)) {
            return Ok(Some(place + (number * SECTOR) as u64));
        }
        place += len as u64;
    }
}
