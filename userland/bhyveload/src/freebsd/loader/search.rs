//! Where the loader looks for files: on the module path, by linker.hints or by name, as they
//! are or compressed by gzip(1) (stand/common/module.c).

#![forbid(unsafe_code)]

use super::super::hints;
use super::super::preload::Dependency;
use super::{DEFAULT_MODULE_PATH, FreeBsdError, Loader};
use crate::fs::{FsError, gzip};

/// What loader(8) tries to put behind a module's name.
pub(super) const EXTENSIONS: [&str; 3] = [".ko", "", ".debug"];

/// A file that was found: the name that the kernel is told, and the one on the volume.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) path: String,
}

impl Loader<'_> {
    pub(super) fn module_directories(&self) -> Vec<String> {
        let path = self.environment.get("module_path");
        let path = path.unwrap_or(DEFAULT_MODULE_PATH);
        let directories = path.split(';').filter(|d| !d.is_empty());
        directories.map(str::to_owned).collect()
    }

    pub(super) fn on_module_path(
        &self,
        name: &str,
        extensions: &[&str],
    ) -> Result<Option<Found>, FreeBsdError> {
        for directory in self.module_directories() {
            if let Some(found) = self.locate_in(&directory, name, extensions)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    pub(super) fn by_hints(
        &mut self,
        name: &str,
        needs: Option<&Dependency>,
    ) -> Result<Option<Found>, FreeBsdError> {
        for directory in self.module_directories() {
            if !self.hints.contains_key(&directory) {
                let path = join(&directory, "linker.hints");
                let hints = self.files.read(&path, hints::LIMIT)?.unwrap_or_default();
                self.hints.insert(directory.clone(), hints);
            }
            let hinted = self
                .hints
                .get(&directory)
                .and_then(|hints| hints::find(hints, name, needs));
            let found = match hinted {
                Some(file) => self.locate_in(&directory, file, &[""])?,
                None => self.locate_in(&directory, name, &EXTENSIONS)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    pub(super) fn locate_in(
        &self,
        directory: &str,
        name: &str,
        extensions: &[&str],
    ) -> Result<Option<Found>, FreeBsdError> {
        for extension in extensions {
            let found = self.locate(&join(directory, &format!("{name}{extension}")))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// A regular file of that name, or one that gzip(1) made of it.
    pub(super) fn locate(&self, name: &str) -> Result<Option<Found>, FreeBsdError> {
        for path in [name.to_owned(), format!("{name}.gz")] {
            match self.files.open(&path) {
                Ok(Some(_)) => {
                    return Ok(Some(Found {
                        name: name.to_owned(),
                        path,
                    }));
                }
                Ok(None) | Err(FsError::NotAFile { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// A whole file, with its progress.
    pub(super) fn read(&mut self, found: &Found) -> Result<Vec<u8>, FreeBsdError> {
        const CHUNK: usize = 1 << 20;
        let path = &found.path;
        let Some(mut file) = self.files.open(path)? else {
            return Err(FreeBsdError::Missing(format!("{path}: it went away")));
        };
        let size = file.size();
        let shown = format!("{}{path}", self.prefix);
        let len = usize::try_from(size).ok().filter(|_| size <= self.limit);
        let len = len.ok_or_else(|| FreeBsdError::NoRoom {
            what: shown.clone(),
            len: size,
            limit: self.limit,
        })?;
        let mut reading = self.console.reading(&shown, size);
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let at = bytes.len();
            bytes.resize(at + CHUNK.min(len - at), 0);
            let wanted = bytes.len() - at;
            let read = file.read_at(at as u64, &mut bytes[at..])?;
            reading.at((at + read) as u64);
            if read < wanted {
                bytes.truncate(at + read);
                break;
            }
        }
        reading.done("");
        match found.path == found.name {
            true => Ok(bytes),
            false => Ok(gzip::decompress(&bytes, &shown, self.limit)?),
        }
    }
}

pub(super) fn join(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}
