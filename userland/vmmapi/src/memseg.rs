//! Memory segments, and where in the guest-physical address space they are: the requests
//! one by one. [`crate::memory`] makes a guest's memory of them.

use std::sync::atomic::Ordering;

use bitflags::bitflags;
use vmm_sys::ioctl as req;

use crate::platform::{self, Errno};
use crate::{Error, Gpa, MemFlags, Vm};

bitflags! {
    /// What an access to a mapping may do.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Prot: u32 {
        const READ = 1;
        const WRITE = 2;
        const EXEC = 4;
    }
}

impl Prot {
    pub const ALL: Self = Self::all();
}

/// A memory segment of the VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Memseg {
    /// Bytes.
    pub len: u64,
    /// Device memory has a name; system memory has none.
    pub name: Option<String>,
}

/// Where the kernel takes a segment's pages from (domainset(9)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NumaPolicy {
    /// DOMAINSET_POLICY_*.
    pub policy: i32,
    pub domains: vmm_sys::domainset_t,
}

/// A segment, or a part of it, in the guest-physical address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memmap {
    pub gpa: Gpa,
    pub segid: i32,
    /// Where in the segment it begins.
    pub segoff: u64,
    pub len: u64,
    pub prot: Prot,
    /// VM_MEMMAP_F_*.
    pub flags: u32,
}

impl Vm {
    /// Makes a segment, or finds it as it should be. A name makes it device memory, which
    /// gets a device of its own: /dev/vmm.io/VM.NAME.
    pub fn alloc_memseg(
        &self,
        segid: i32,
        len: u64,
        name: Option<&str>,
        policy: Option<&NumaPolicy>,
    ) -> Result<(), Error> {
        let wanted = Memseg {
            len,
            name: name.map(str::to_owned),
        };
        if let Some(is) = self.get_memseg(segid)? {
            return if is == wanted {
                Ok(())
            } else {
                Err(mismatch(
                    format!("memory segment {segid} of {}", self.name()),
                    &is,
                    &wanted,
                ))
            };
        }
        self.alloc_new_memseg(segid, &wanted, policy)
            .map_err(|e| self.error_of(req::VM_ALLOC_MEMSEG, &format!("segment {segid}"), e))
    }

    fn alloc_new_memseg(
        &self,
        segid: i32,
        seg: &Memseg,
        policy: Option<&NumaPolicy>,
    ) -> Result<(), Errno> {
        let name =
            std::ffi::CString::new(seg.name.as_deref().unwrap_or("")).map_err(|_| libc::EINVAL)?;
        let name = platform::name_field(&name)?;
        let len = usize::try_from(seg.len).map_err(|_| libc::EINVAL)?;
        if self.shared().memseg_14.load(Ordering::Relaxed) {
            let mut param = vmm_sys::vm_memseg_14 { segid, len, name };
            return platform::ioctl(self.device(), req::VM_ALLOC_MEMSEG_14, &mut param);
        }
        let mut mask = policy.map(|numa| numa.domains);
        let mut param = vmm_sys::vm_memseg {
            segid,
            len,
            name,
            ..Default::default()
        };
        if let (Some(numa), Some(mask)) = (policy, &mut mask) {
            param.ds_policy = numa.policy;
            param.ds_mask_size = size_of_val(mask);
            param.ds_mask = mask;
        }
        // SAFETY: ds_mask is null with size 0, or points to ds_mask_size bytes.
        unsafe { platform::ioctl_ptr(self.device(), req::VM_ALLOC_MEMSEG, &mut param) }
    }

    /// A segment, if there is one of that number.
    pub fn get_memseg(&self, segid: i32) -> Result<Option<Memseg>, Error> {
        let (len, name) = self
            .get_memseg_fields(segid)
            .map_err(|e| self.error_of(req::VM_GET_MEMSEG, &format!("segment {segid}"), e))?;
        Ok((len != 0).then(|| Memseg {
            len: len as u64,
            name: (!name.is_empty()).then_some(name),
        }))
    }

    /// FreeBSD 15's request, or 14's once the kernel has turned out not to know it.
    fn get_memseg_fields(&self, segid: i32) -> Result<(usize, String), Errno> {
        let is_14 = &self.shared().memseg_14;
        if !is_14.load(Ordering::Relaxed) {
            let mut param = vmm_sys::vm_memseg {
                segid,
                ..Default::default()
            };
            // SAFETY: ds_mask is null with size 0: the kernel writes no mask.
            match unsafe { platform::ioctl_ptr(self.device(), req::VM_GET_MEMSEG, &mut param) } {
                Err(libc::ENOTTY) => is_14.store(true, Ordering::Relaxed),
                Err(errno) => return Err(errno),
                Ok(()) => return Ok((param.len, platform::field_name(&param.name))),
            }
        }
        let mut param = vmm_sys::vm_memseg_14 {
            segid,
            ..Default::default()
        };
        platform::ioctl(self.device(), req::VM_GET_MEMSEG_14, &mut param)?;
        Ok((param.len, platform::field_name(&param.name)))
    }

    /// Puts `len` bytes of a segment from `segoff` on at `gpa`, or finds them there.
    pub fn mmap_memseg(
        &self,
        gpa: Gpa,
        segid: i32,
        segoff: u64,
        len: u64,
        prot: Prot,
    ) -> Result<(), Error> {
        let flags = if self.memflags().contains(MemFlags::WIRED) {
            vmm_sys::VM_MEMMAP_F_WIRED
        } else {
            0
        };
        let wanted = Memmap {
            gpa,
            segid,
            segoff,
            len,
            prot,
            flags,
        };
        if let Some(is) = self.mmap_getnext(gpa)? {
            if is == wanted {
                return Ok(());
            }
            if is.gpa == gpa {
                return Err(mismatch(
                    format!("the mapping at {gpa:#x} of {}", self.name()),
                    &is,
                    &wanted,
                ));
            }
        }
        let mut param = vmm_sys::vm_memmap {
            gpa: gpa.0,
            segid,
            segoff,
            len: host_len(len)?,
            prot: prot.bits() as i32,
            flags: flags as i32,
        };
        platform::ioctl(self.device(), req::VM_MMAP_MEMSEG, &mut param).map_err(|e| {
            self.error_of(
                req::VM_MMAP_MEMSEG,
                &format!("segment {segid} at {gpa:#x}, {len:#x} bytes,"),
                e,
            )
        })
    }

    /// The first mapping that begins at `gpa` or above.
    pub fn mmap_getnext(&self, gpa: Gpa) -> Result<Option<Memmap>, Error> {
        let mut param = vmm_sys::vm_memmap {
            gpa: gpa.0,
            ..Default::default()
        };
        match platform::ioctl(self.device(), req::VM_MMAP_GETNEXT, &mut param) {
            Ok(()) => Ok(Some(Memmap {
                gpa: Gpa(param.gpa),
                segid: param.segid,
                segoff: param.segoff,
                len: param.len as u64,
                prot: Prot::from_bits_retain(param.prot as u32),
                flags: param.flags as u32,
            })),
            Err(libc::ENOENT) => Ok(None),
            Err(e) => Err(self.error_of(req::VM_MMAP_GETNEXT, &format!("{gpa:#x}"), e)),
        }
    }

    /// Takes a mapping, whole, out of the guest-physical address space. What this process
    /// has mapped of it stays.
    pub fn munmap_memseg(&self, gpa: Gpa, len: u64) -> Result<(), Error> {
        let mut param = vmm_sys::vm_munmap {
            gpa: gpa.0,
            len: host_len(len)?,
        };
        platform::ioctl(self.device(), req::VM_MUNMAP_MEMSEG, &mut param).map_err(|e| {
            self.error_of(
                req::VM_MUNMAP_MEMSEG,
                &format!("{gpa:#x}, {len:#x} bytes,"),
                e,
            )
        })
    }
}

/// A length of the ABI as one of this process.
pub(crate) fn host_len(len: u64) -> Result<usize, Error> {
    usize::try_from(len).map_err(|_| Error::Invalid {
        what: "length",
        value: len,
    })
}

/// What exists is not what was asked for.
pub(crate) fn mismatch(
    thing: String,
    is: &dyn std::fmt::Debug,
    wanted: &dyn std::fmt::Debug,
) -> Error {
    Error::Mismatch {
        thing,
        is: format!("{is:?}"),
        wanted: format!("{wanted:?}"),
    }
}
