//! fstab(5): which file system is the root (getrootmount in stand/common/boot.c).

#![forbid(unsafe_code)]

/// The entry of `/`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Root {
    /// `type:device`, as vfs.root.mountfrom has it.
    pub mount_from: String,
    pub options: String,
}

/// The first entry of `/`.
pub fn root(text: &str) -> Option<Root> {
    text.lines().find_map(|line| {
        let line = line.trim_start();
        let mut fields = line.split_whitespace();
        let (device, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        let is_root = place == "/" && !device.starts_with('#');
        is_root.then(|| Root {
            mount_from: format!("{kind}:{device}"),
            options: fields.next().unwrap_or_default().to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roots_entry_is_found() {
        let text = "# Device Mountpoint FStype Options Dump Pass#\n\
                    #/dev/x / ufs rw 1 1\n\n/dev/vtbd0p3 none swap sw 0 0\n\
                    /dev/gpt/rootfs\t/\tufs\trw,noatime\t1\t1\n/dev/y / zfs rw 0 0\n";
        let found = root(text).unwrap();
        assert_eq!(found.mount_from, "ufs:/dev/gpt/rootfs");
        assert_eq!(found.options, "rw,noatime");
        assert_eq!(root("/dev/a /usr ufs rw\n/dev/b /\n"), None);
        assert_eq!(root("/dev/a / cd9660").unwrap().options, "");
    }
}
