//! What can go wrong in a call, as a sentence that names the call and the thing.

use std::fmt;
use std::io;

use crate::platform::LOAD_HINT;
use crate::{Gla, Gpa};

/// The reason a call failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// A system call failed; `call` is the request or the function ("VM_SET_REGISTER",
    /// "mmap"), `thing` what it was about ("Rip of vcpu 0 of guest0").
    Call {
        call: &'static str,
        thing: String,
        errno: i32,
    },
    /// No device of the module is there.
    NoModule,
    /// A VM's name that no VM can have.
    BadName { name: String, why: &'static str },
    /// Not, or not completely, in the guest's memory.
    NotMemory { gpa: Gpa, len: u64 },
    /// More bytes than the range of guest memory has from there on.
    OutOfRange { offset: u64, len: u64, size: u64 },
    /// An argument that makes no sense before it reaches the kernel.
    Invalid { what: &'static str, value: u64 },
    /// Something exists already, and is something else.
    Mismatch {
        thing: String,
        is: String,
        wanted: String,
    },
    /// A linear address that the guest's page tables don't map for this access.
    GuestFault { gla: Gla },
    /// The kernel reported an exit with a value that machine/vmm.h doesn't define.
    BadExit {
        exitcode: u32,
        field: &'static str,
        value: u64,
    },
}

impl Error {
    /// The errno of a failed system call, in the host's numbers (`libc::EBUSY`).
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether a system call failed with that errno.
    pub fn is(&self, errno: i32) -> bool {
        self.errno() == Some(errno)
    }
}

/// The text that the C library has for an errno.
fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    // std appends " (os error N)".
    match text.rfind(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { call, thing, errno } => {
                write!(
                    f,
                    "{call} of {thing}: {} (errno {errno})",
                    errno_text(*errno)
                )
            }
            Self::NoModule => write!(
                f,
                "there is no /dev/vmmctl: load the module first ({LOAD_HINT})"
            ),
            Self::BadName { name, why } => write!(f, "{name:?} can't be a VM's name: {why}"),
            Self::NotMemory { gpa, len } => {
                write!(
                    f,
                    "guest-physical {gpa:#x}, {len} bytes: not in the guest's memory"
                )
            }
            Self::OutOfRange { offset, len, size } => {
                write!(
                    f,
                    "{len} bytes at offset {offset:#x} leave a range of {size:#x} bytes"
                )
            }
            Self::Invalid { what, value } => write!(f, "{value:#x} is no valid {what}"),
            Self::Mismatch { thing, is, wanted } => {
                write!(f, "{thing} exists already and is {is}, not {wanted}")
            }
            Self::GuestFault { gla } => {
                write!(
                    f,
                    "linear address {gla:#x}: the guest's page tables don't allow the access"
                )
            }
            Self::BadExit {
                exitcode,
                field,
                value,
            } => {
                write!(
                    f,
                    "the kernel's exit {exitcode} has {field} {value:#x}, which machine/vmm.h doesn't define"
                )
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(e: Error) -> Self {
        let kind = match e.errno() {
            Some(errno) => Self::from_raw_os_error(errno).kind(),
            None => io::ErrorKind::Other,
        };
        Self::new(kind, e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_is_a_sentence_with_call_thing_and_errno() {
        let e = Error::Call {
            call: "VM_SET_REGISTER",
            thing: "Rip of vcpu 1 of guest0".to_owned(),
            errno: libc::EBUSY,
        };
        let text = e.to_string();
        assert!(
            text.starts_with("VM_SET_REGISTER of Rip of vcpu 1 of guest0: "),
            "{text}"
        );
        assert!(
            text.ends_with(&format!("busy (errno {})", libc::EBUSY)),
            "{text}"
        );
        assert!(e.is(libc::EBUSY));
        assert_eq!(io::Error::from(e).kind(), io::ErrorKind::ResourceBusy);
    }

    #[test]
    fn errors_of_our_own_have_no_errno() {
        assert_eq!(Error::NoModule.errno(), None);
        assert!(!Error::NoModule.is(0));
    }
}
