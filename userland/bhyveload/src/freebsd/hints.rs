//! linker.hints, kldxref(8)'s index of a directory of modules: which file has which version
//! of a module (sys/sys/linker.h, stand/common/module.c). A record is its length, a type and
//! its fields: counted strings, and numbers aligned to 4 bytes from the file's beginning.

#![forbid(unsafe_code)]

use super::preload::Dependency;

/// As many bytes as FreeBSD's loader reads of it.
pub const LIMIT: u64 = 1 << 20;
const VERSION: u32 = 1;
const MDT_VERSION: u32 = 3;

/// The name of the file that has the module: in the version that is preferred, else the
/// newest of those that will do. A file that isn't linker.hints has none.
pub fn find<'a>(hints: &'a [u8], module: &str, needs: Option<&Dependency>) -> Option<&'a str> {
    let word = |at: usize| {
        let bytes = hints.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let string = |at: usize| {
        let start = at.checked_add(1)?;
        let end = start.checked_add(usize::from(*hints.get(at)?))?;
        Some((hints.get(start..end)?, end))
    };
    if word(0)? != VERSION {
        return None;
    }
    let mut best: Option<(i32, &str)> = None;
    let mut at = 4;
    while let (Some(len), Some(kind)) = (word(at), word(at.saturating_add(4))) {
        let fields = || {
            let (name, end) = string(at + 8)?;
            let end = end.next_multiple_of(4);
            let version = word(end)? as i32;
            let (file, _) = string(end + 4)?;
            Some((name, version, std::str::from_utf8(file).ok()?))
        };
        if kind == MDT_VERSION {
            match fields() {
                Some((name, version, file)) if name == module.as_bytes() => match needs {
                    None => return Some(file),
                    Some(needs) if version == needs.preferred => return Some(file),
                    Some(needs) if needs.admits(version) => {
                        if best.is_none_or(|(newest, _)| version > newest) {
                            best = Some((version, file));
                        }
                    }
                    Some(_) => {}
                },
                _ => {}
            }
        }
        // A record has a type at least; anything shorter would not lead on.
        match usize::try_from(len) {
            Ok(len) if len >= 4 => at = at.saturating_add(4 + len),
            _ => break,
        }
    }
    best.map(|(_, file)| file)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file with these (module, version, file).
    pub fn hints(modules: &[(&str, i32, &str)]) -> Vec<u8> {
        let mut all = VERSION.to_le_bytes().to_vec();
        for (name, version, file) in modules {
            let start = all.len();
            all.extend([0; 4]);
            all.extend(MDT_VERSION.to_le_bytes());
            all.push(name.len() as u8);
            all.extend(name.bytes());
            all.resize(all.len().next_multiple_of(4), 0);
            all.extend(version.to_le_bytes());
            all.push(file.len() as u8);
            all.extend(file.bytes());
            all.resize(all.len().next_multiple_of(4), 0);
            let len = (all.len() - start - 4) as u32;
            all[start..start + 4].copy_from_slice(&len.to_le_bytes());
        }
        all
    }

    #[test]
    fn the_version_that_is_preferred_wins_then_the_newest_that_will_do() {
        let file = hints(&[
            ("usb", 1, "usb1.ko"),
            ("bridgestp", 1, "bridgestp.ko"),
            ("usb", 3, "usb3.ko"),
            ("usb", 2, "usb2.ko"),
        ]);
        let needs = |minimum, preferred, maximum| Dependency {
            name: "usb".into(),
            minimum,
            preferred,
            maximum,
        };
        let usb = |d: &Dependency| find(&file, "usb", Some(d));
        assert_eq!(find(&file, "bridgestp", None), Some("bridgestp.ko"));
        assert_eq!(find(&file, "usb", None), Some("usb1.ko"));
        assert_eq!(usb(&needs(1, 2, 9)), Some("usb2.ko"));
        assert_eq!(usb(&needs(1, 7, 9)), Some("usb3.ko"));
        assert_eq!(usb(&needs(1, 1, 2)), Some("usb1.ko"));
        assert_eq!(usb(&needs(5, 5, 9)), None);
        assert_eq!(find(&file, "bridge", None), None);
        assert_eq!(find(b"\x02\0\0\0", "usb", None), None);
        assert_eq!(find(b"", "usb", None), None);
    }

    proptest! {
        #[test]
        fn damaged_hints_never_panic_or_loop(
            changes in proptest::collection::vec((0usize..80, any::<u8>()), 0..6),
            cut in 0usize..90,
        ) {
            let mut file = hints(&[("usb", 1, "usb1.ko"), ("aaa", 1, "a.ko"), ("x", 2, "x.ko")]);
            for (at, byte) in changes {
                if let Some(place) = file.get_mut(at) {
                    *place = byte;
                }
            }
            file.truncate(cut);
            let _ = find(&file, "x", None);
        }
    }
}
