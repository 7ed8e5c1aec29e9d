//! The System Use Sharing Protocol (IEEE P1281) and Rock Ridge (IEEE P1282): what follows
//! the name in a directory record.

use super::super::FsError;
use super::super::bytes::u32_at;
use super::super::path::{Kind, MAX_TARGET};
use super::super::source::{Part, bytes_at};

/// Continuation areas that one directory's records may have, and that one record may.
const MAX_CONTINUATIONS: u32 = 1 << 14;
const MAX_RECORD_CONTINUATIONS: u32 = 16;
const MAX_CONTINUATION: u32 = 4096;
const MAX_NAME: usize = 255;

/// The name or the target goes on in the next field.
const CONTINUE: u8 = 1;
/// A component of a symbolic link that is ".", ".." or the root.
const CURRENT: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;

/// What the fields of a record say.
#[derive(Default)]
pub struct Fields {
    pub name: Option<Vec<u8>>,
    pub target: Vec<u8>,
    /// The block of a directory that was too deep for ISO 9660.
    pub moved: Option<u32>,
    mode: Option<u32>,
    /// The target's last component isn't complete.
    open: bool,
}

/// How many bytes come before the fields in all records, if the root's own record says that
/// there are fields.
pub fn skip(root: &[u8]) -> Option<usize> {
    match root {
        [b'S', b'P', 7, _, 0xbe, 0xef, skip, ..] => Some(usize::from(*skip)),
        _ => None,
    }
}

/// Reads fields and their continuations, a bounded number of them.
pub struct Continuations<'a> {
    part: &'a Part,
    block: u64,
    what: &'a str,
    left: u32,
}

impl<'a> Continuations<'a> {
    pub fn new(part: &'a Part, block: u64, what: &'a str) -> Self {
        Self {
            part,
            block,
            what,
            left: MAX_CONTINUATIONS,
        }
    }

    /// The fields of a record.
    pub fn fields(&mut self, area: &[u8]) -> Result<Fields, FsError> {
        let mut fields = Fields::default();
        let mut next = fields.add(area);
        let mut count = 0;
        while let Some((block, offset, len)) = next {
            count += 1;
            self.left = self.left.saturating_sub(1);
            if count > MAX_RECORD_CONTINUATIONS || self.left == 0 || len > MAX_CONTINUATION {
                return Err(FsError::damaged(
                    self.what,
                    "more Rock Ridge fields than any name needs",
                ));
            }
            let at = u64::from(block) * self.block + u64::from(offset);
            let area = bytes_at(self.part, at, len as usize)
                .map_err(|error| FsError::io(self.what, error))?;
            next = fields.add(&area);
        }
        Ok(fields)
    }
}

impl Fields {
    /// The file's type by its POSIX mode.
    pub fn kind(&self) -> Option<Kind> {
        match self.mode? & 0o170_000 {
            0o040_000 => Some(Kind::Directory),
            0o100_000 => Some(Kind::File),
            0o120_000 => Some(Kind::Symlink),
            _ => Some(Kind::Other),
        }
    }

    /// Takes the fields of an area; returns where they go on: block, offset, length.
    fn add(&mut self, mut area: &[u8]) -> Option<(u32, u32, u32)> {
        let mut next = None;
        // A field: two letters, its length, a version, what it says.
        while let [a, b, len, _, ..] = *area {
            let Some(field) = area.get(4..usize::from(len)) else {
                break;
            };
            match &[a, b] {
                b"CE" => next = Some((u32_at(field, 0), u32_at(field, 8), u32_at(field, 16))),
                b"NM" => self.add_name(field),
                b"SL" => self.add_target(field.get(1..).unwrap_or_default()),
                b"PX" => self.mode = Some(u32_at(field, 0)),
                b"CL" => self.moved = Some(u32_at(field, 0)),
                b"ST" => break,
                _ => {}
            }
            area = area.get(usize::from(len)..).unwrap_or_default();
        }
        next
    }

    fn add_name(&mut self, field: &[u8]) {
        let Some((&flags, text)) = field.split_first() else {
            return;
        };
        if flags & (CURRENT | PARENT) != 0 {
            return;
        }
        let name = self.name.get_or_insert_default();
        let room = MAX_NAME - name.len();
        name.extend(text.iter().take(room));
    }

    fn add_target(&mut self, mut components: &[u8]) {
        while let [flags, len, rest @ ..] = components {
            let text = rest.get(..usize::from(*len)).unwrap_or(rest);
            components = rest.get(text.len()..).unwrap_or_default();
            if self.target.len() as u64 > MAX_TARGET {
                return;
            }
            if !self.open && !self.target.is_empty() && !self.target.ends_with(b"/") {
                self.target.push(b'/');
            }
            self.open = flags & CONTINUE != 0;
            match flags & (CURRENT | PARENT | ROOT) {
                CURRENT => self.target.push(b'.'),
                PARENT => self.target.extend(b".."),
                ROOT => self.target.push(b'/'),
                _ => self.target.extend(text),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(areas: &[&[u8]]) -> Fields {
        let mut fields = Fields::default();
        for area in areas {
            fields.add(area);
        }
        fields
    }

    #[test]
    fn names_and_targets_go_on_in_further_fields() {
        let fields = add(&[b"NM\x08\x01\x01kerNM\x08\x01\x00nel", b"NM\x05\x01\x02"]);
        assert_eq!(fields.name.unwrap(), b"kernel");
        // "/", "boot" in two parts, "..", "a" and, in a second field, "b".
        let fields = add(&[
            b"SL\x14\x01\x01\x08\x00\x01\x02bo\x00\x02ot\x04\x00\x00\x01aSL\x08\x01\x00\x00\x01b",
        ]);
        assert_eq!(fields.target, b"/boot/../a/b");
    }

    #[test]
    fn fields_without_sense_end_the_area() {
        for area in [
            b"NM\x00\x01".as_slice(),
            b"NM\x03\x01",
            b"NM\xff\x01\x00abc",
            b"SL",
            b"",
        ] {
            let fields = add(&[area]);
            assert_eq!(fields.name, None);
            assert!(fields.target.is_empty());
        }
        let fields = add(&[b"ST\x04\x01NM\x06\x01\x00x"]);
        assert_eq!(fields.name, None);
    }
}
