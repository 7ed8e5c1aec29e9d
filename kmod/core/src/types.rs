//! The units of this project: addresses, ids and error numbers as types, so that
//! a guest-physical address can't be passed where a host-physical one is meant.
//! Raw integers stop at the ABI (ioctl structures, VMCS fields, host.h).

use core::fmt;

/// Bytes in a 4 KiB page.
pub const PAGE_SIZE: u64 = 4096;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address as a number.
            pub const fn get(self) -> u64 {
                self.0
            }
            /// The offset within its 4 KiB page.
            pub const fn page_offset(self) -> u64 {
                self.0 % PAGE_SIZE
            }
            /// The start of its 4 KiB page.
            #[must_use]
            pub const fn page_base(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }
            /// The address `n` bytes on, or `None` past the end of the address space.
            #[must_use]
            pub const fn checked_add(self, n: u64) -> Option<Self> {
                match self.0.checked_add(n) {
                    Some(a) => Some(Self(a)),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address!(
    /// A guest-physical address.
    Gpa
);
address!(
    /// A host-physical address.
    Hpa
);
address!(
    /// A guest-linear (guest-virtual) address.
    Gla
);

/// The number of a virtual CPU within its VM.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct VcpuId(pub u16);

impl VcpuId {
    /// The bootstrap processor.
    pub const BSP: Self = Self(0);

    /// The number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of a CPU of the host, as the host kernel counts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct HostCpu(pub u32);

/// An interrupt or exception vector (SDM vol. 3A, 6.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Vector(pub u8);

impl Vector {
    pub const DE: Self = Self(0);
    pub const DB: Self = Self(1);
    pub const NMI: Self = Self(2);
    pub const BP: Self = Self(3);
    pub const OF: Self = Self(4);
    pub const BR: Self = Self(5);
    pub const UD: Self = Self(6);
    pub const NM: Self = Self(7);
    pub const DF: Self = Self(8);
    pub const TS: Self = Self(10);
    pub const NP: Self = Self(11);
    pub const SS: Self = Self(12);
    pub const GP: Self = Self(13);
    pub const PF: Self = Self(14);
    pub const MF: Self = Self(16);
    pub const AC: Self = Self(17);
    pub const MC: Self = Self(18);
    pub const XM: Self = Self(19);
    pub const VE: Self = Self(20);
    pub const CP: Self = Self(21);
}

/// What an ioctl answers instead of success: FreeBSD's errno(2) values, whose numbers
/// cross the ABI (the Linux shim translates them at its system calls).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Errno {
    EPERM = 1,
    ENOENT = 2,
    EINTR = 4,
    EIO = 5,
    ENXIO = 6,
    E2BIG = 7,
    EDEADLK = 11,
    ENOMEM = 12,
    EACCES = 13,
    EFAULT = 14,
    EBUSY = 16,
    EEXIST = 17,
    ENODEV = 19,
    EINVAL = 22,
    ENOTTY = 25,
    ENOSPC = 28,
    ERANGE = 34,
    EAGAIN = 35,
    EALREADY = 37,
    EOPNOTSUPP = 45,
    ETIMEDOUT = 60,
    ENAMETOOLONG = 63,
}

impl Errno {
    /// The number, as `host.h` and FreeBSD's `sys/errno.h` give it.
    pub const fn raw(self) -> i32 {
        self as i32
    }

    /// The error behind a number that a `host_*` function returned (0 is success).
    /// A number that host.h doesn't define is [`Errno::EIO`].
    pub const fn check(raw: i32) -> Result<(), Self> {
        Err(match raw {
            0 => return Ok(()),
            1 => Self::EPERM,
            2 => Self::ENOENT,
            4 => Self::EINTR,
            6 => Self::ENXIO,
            7 => Self::E2BIG,
            11 => Self::EDEADLK,
            12 => Self::ENOMEM,
            13 => Self::EACCES,
            14 => Self::EFAULT,
            16 => Self::EBUSY,
            17 => Self::EEXIST,
            19 => Self::ENODEV,
            22 => Self::EINVAL,
            25 => Self::ENOTTY,
            28 => Self::ENOSPC,
            34 => Self::ERANGE,
            35 => Self::EAGAIN,
            37 => Self::EALREADY,
            45 => Self::EOPNOTSUPP,
            60 => Self::ETIMEDOUT,
            63 => Self::ENAMETOOLONG,
            _ => Self::EIO,
        })
    }
}
