//! What bhyve(8) has and this version hasn't, by the name under which it is refused.

#![forbid(unsafe_code)]

/// What an option asks for and this version hasn't got. `None`: the option is
/// handled.
pub fn option(name: char) -> Option<&'static str> {
    Some(match name {
        'k' => "a configuration file",
        'o' => "a configuration variable",
        'f' => "fw_cfg",
        'G' => "the GDB stub",
        'K' => "a keyboard layout: there is no keyboard, which",
        'n' => "a NUMA domain",
        'r' => "restoring a snapshot",
        'B' => "2013's breakpoint at the first entry",
        'g' => "2013's debug port 0x224",
        'z' => "2013's guest clock frequency",
        'M' => "2013's memory above 4 GiB as an option of its own (-m is the whole size)",
        _ => return None,
    })
}

/// Devices of bhyve(8) that are known by name and not there.
pub const PCI_DEVICES: [&str; 13] = [
    "e1000",
    "fbuf",
    "hda",
    "nvme",
    "passthru",
    "virtio-9p",
    "virtio-balloon",
    "virtio-console",
    "virtio-input",
    "virtio-scsi",
    "virtio-vsock",
    "xhci",
    "dummy",
];

/// Devices of -l.
pub const LPC_DEVICES: [&str; 6] = [
    "bootrom",
    "fwcfg",
    "pc-testdev",
    "tpm",
    "bootvars",
    "atkbdc",
];
