//! The table of requests: for each, what the caller must be, what is locked while it is
//! served, and whether this module serves it.

use vmm_sys::ioctl as sys;
use vmm_sys::ioctl::Ioctl;

use crate::types::Errno;

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub command: Command,
    pub ioctl: Ioctl,
    /// Taken after `memsegs`.
    pub vcpus: VcpuLock,
    pub memsegs: MemsegLock,
    /// Checked before anything is locked or decoded.
    pub privilege: Privilege,
    pub availability: Availability,
}

/// Which vcpus become FROZEN (and exist afterwards) while the request is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VcpuLock {
    None,
    /// The one it names, which is allocated if need be.
    One,
    /// The one it names is allocated if need be but not locked; -1 names none.
    Maybe,
    All,
}

/// How the memory segments and mappings are locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemsegLock {
    None,
    Shared,
    Exclusive,
}

/// What the caller needs beyond an open descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    None,
    /// PRIV_VMM_PPTDEV, and allow.vmm_ppt in a jail; EPERM without.
    PptDev,
}

/// Whether it is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Availability {
    Served,
    /// The device or option that it is about does not exist here: [`super::decode`]
    /// fails with this.
    Absent(Errno),
}
