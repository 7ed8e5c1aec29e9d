//! From a path to a file, in file systems that are read here: names, "..", symbolic links.

use super::{FileRead, FileSystem, FsError};

/// What a name in a directory may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Other,
}

/// A file system of nodes (inodes, directory records). `what` names a node in errors.
pub trait Tree {
    type Node: Clone;

    /// The disk or partition, for errors.
    fn name(&self) -> &str;
    fn root(&self) -> Result<Self::Node, FsError>;
    fn kind(&self, node: &Self::Node) -> Kind;
    /// Calls `each` with every name and what is needed to find its node.
    fn entries(
        &self,
        directory: &Self::Node,
        what: &str,
        each: Each<'_, Self::Node>,
    ) -> Result<(), FsError>;
    /// The node of an entry that was found by its number only.
    fn node(&self, number: u64, what: &str) -> Result<Self::Node, FsError>;
    /// What a symbolic link contains.
    fn target(&self, link: &Self::Node, what: &str) -> Result<Vec<u8>, FsError>;
    fn file(&self, node: Self::Node, what: String) -> Box<dyn FileRead + '_>;
}

/// Takes a directory's names one by one; false ends that.
pub type Each<'a, N> = &'a mut dyn FnMut(&[u8], Entry<N>) -> bool;

/// A directory's entry: its node, or the number that the node is found by.
pub enum Entry<N> {
    Node(N),
    Number(u64),
}

/// FreeBSD's MAXSYMLINKS.
const MAX_SYMLINKS: u32 = 32;
/// Names in a path, those of all symbolic links included. PATH_MAX has room for so many.
const MAX_NAMES: u32 = 512;
/// FreeBSD's PATH_MAX.
pub const MAX_TARGET: u64 = 1024;

/// The node that a path leads to. ".." of the root is the root.
fn walk<T: Tree>(tree: &T, path: &str) -> Result<Option<T::Node>, FsError> {
    let what = label(tree, path);
    let too_many = || FsError::Symlinks { path: what.clone() };
    let mut above: Vec<T::Node> = Vec::new();
    let mut node = tree.root()?;
    // The names that are still to be walked, the next one last.
    let mut names: Vec<Vec<u8>> = Vec::new();
    push_names(&mut names, path.as_bytes());
    let (mut links, mut count) = (0, 0);
    while let Some(name) = names.pop() {
        count += 1;
        if count > MAX_NAMES {
            return Err(too_many());
        }
        if tree.kind(&node) != Kind::Directory {
            return Ok(None);
        }
        match name.as_slice() {
            b"." => continue,
            b".." => {
                node = above.pop().map_or_else(|| tree.root(), Ok)?;
                continue;
            }
            _ => {}
        }
        let Some(child) = lookup(tree, &node, &name, &what)? else {
            return Ok(None);
        };
        if tree.kind(&child) != Kind::Symlink {
            above.push(std::mem::replace(&mut node, child));
            continue;
        }
        links += 1;
        if links > MAX_SYMLINKS {
            return Err(too_many());
        }
        let target = tree.target(&child, &what)?;
        if target.first() == Some(&b'/') {
            above.clear();
            node = tree.root()?;
        }
        push_names(&mut names, &target);
    }
    Ok(Some(node))
}

fn push_names(names: &mut Vec<Vec<u8>>, path: &[u8]) {
    let parts = path.split(|&byte| byte == b'/');
    let parts = parts.filter(|part| !part.is_empty());
    names.extend(parts.rev().map(<[u8]>::to_vec));
}

fn lookup<T: Tree>(
    tree: &T,
    directory: &T::Node,
    name: &[u8],
    what: &str,
) -> Result<Option<T::Node>, FsError> {
    let mut found = None;
    tree.entries(directory, what, &mut |each, entry| {
        if each == name {
            found = Some(entry);
        }
        found.is_none()
    })?;
    match found {
        None => Ok(None),
        Some(Entry::Node(node)) => Ok(Some(node)),
        Some(Entry::Number(number)) => tree.node(number, what).map(Some),
    }
}

/// A path for errors: "disk0p2:/boot/loader.conf".
fn label<T: Tree>(tree: &T, path: &str) -> String {
    format!("{}:/{}", tree.name(), path.trim_start_matches('/'))
}

impl<T: Tree> FileSystem for T {
    fn open(&self, path: &str) -> Result<Option<Box<dyn FileRead + '_>>, FsError> {
        match walk(self, path)? {
            None => Ok(None),
            Some(node) if self.kind(&node) == Kind::File => {
                Ok(Some(self.file(node, label(self, path))))
            }
            Some(_) => Err(FsError::NotAFile {
                path: label(self, path),
            }),
        }
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>, FsError> {
        let Some(node) = walk(self, path)? else {
            return Ok(None);
        };
        let what = label(self, path);
        if self.kind(&node) != Kind::Directory {
            return Err(FsError::NotADirectory { path: what });
        }
        let mut names = Vec::new();
        self.entries(&node, &what, &mut |name, _| {
            names.push(name.to_vec());
            true
        })?;
        Ok(Some(super::sorted_names(names.into_iter())))
    }
}
