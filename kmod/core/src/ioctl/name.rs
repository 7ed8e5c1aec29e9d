//! Names of VMs and of device memory segments, which become names of device nodes:
//! /dev/vmm/NAME and /dev/vmm.io/NAME.SEGMENT.

use alloc::string::String;
use core::fmt;

use crate::types::Errno;

/// The name of a VM: 1 to VM_MAX_NAMELEN bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VmName(String);

impl VmName {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = vmm_sys::VM_MAX_NAMELEN as usize;

    /// EINVAL for what is no name, as FreeBSD answers when it creates or looks for it:
    /// empty, too long, or nothing that devfs(4) names a node. Unlike FreeBSD this
    /// refuses a '/' (the node would be in a directory below /dev/vmm), control
    /// characters and what is no UTF-8.
    pub fn new(bytes: &[u8]) -> Result<Self, Errno> {
        if bytes.len() > Self::MAX_LEN {
            return Err(Errno::EINVAL);
        }
        node_name(bytes).map(Self)
    }

    /// From an array of char of an ioctl: up to its terminator.
    pub(super) fn from_chars(chars: &[u8]) -> Result<Self, Errno> {
        Self::new(until_nul(chars).ok_or(Errno::EINVAL)?)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a device memory segment ("bootrom", "framebuffer"): 1 to 63 bytes as in
/// FreeBSD 12's requests; since 13 they have room for VM_MAX_SUFFIXLEN (15).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegName(String);

impl SegName {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 63;

    /// `None` when the array begins with its terminator. ENAMETOOLONG without a
    /// terminator, EINVAL for what is no name.
    pub(super) fn from_chars(chars: &[u8]) -> Result<Option<Self>, Errno> {
        match until_nul(chars) {
            None => Err(Errno::ENAMETOOLONG),
            Some([]) => Ok(None),
            Some(name) => node_name(name).map(|name| Some(Self(name))),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SegName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn until_nul(chars: &[u8]) -> Option<&[u8]> {
    let end = chars.iter().position(|&c| c == 0)?;
    Some(&chars[..end])
}

/// What devfs takes as one component of a node's name: white space and quotation marks
/// would break devctl(4)'s lines.
fn node_name(bytes: &[u8]) -> Result<String, Errno> {
    let name = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == '"';
    if matches!(name, "" | "." | "..") || name.contains(bad) {
        return Err(Errno::EINVAL);
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_vms() {
        for name in [
            "guest0",
            "a",
            "web-1.example_com",
            "...",
            "größe",
            &"x".repeat(229),
        ] {
            assert_eq!(VmName::new(name.as_bytes()).unwrap().as_str(), name);
        }
        let long = "x".repeat(230);
        for name in [
            "", ".", "..", "a/b", "/", "a b", "a\tb", "a\nb", "\"a\"", "a\x7f", &long,
        ] {
            assert_eq!(VmName::new(name.as_bytes()), Err(Errno::EINVAL), "{name:?}");
        }
        assert_eq!(VmName::new(b"a\0b"), Err(Errno::EINVAL));
        assert_eq!(VmName::new(&[0xff]), Err(Errno::EINVAL));
    }

    #[test]
    fn an_array_of_char_ends_at_its_terminator() {
        assert_eq!(VmName::from_chars(b"vm\0rest").unwrap().as_str(), "vm");
        assert_eq!(VmName::from_chars(b"\0vm"), Err(Errno::EINVAL));
        assert_eq!(VmName::from_chars(b"vm"), Err(Errno::EINVAL));
        assert_eq!(SegName::from_chars(b"\0bootrom"), Ok(None));
        let name = SegName::from_chars(b"bootrom\0\0\0\0\0\0\0\0\0")
            .unwrap()
            .unwrap();
        assert_eq!(name.as_str(), "bootrom");
        assert_eq!(
            SegName::from_chars(b"0123456789abcdef"),
            Err(Errno::ENAMETOOLONG)
        );
        assert_eq!(SegName::from_chars(b"../../null\0"), Err(Errno::EINVAL));
    }
}
