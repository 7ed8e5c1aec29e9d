//! The guest's memory: segments, where they are in the guest-physical address space, and
//! their mapping into this process.
//!
//! The layout is libvmmapi's: memory up to 3 GiB from address 0 on, the rest from 4 GiB on.
//! Programs that open the same VM one after the other (bhyveload, bhyve) get the same
//! memory: what exists already, and fits, is used as it is.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bitflags::bitflags;
use vmm_sys::ioctl as req;

use crate::platform::{self, Errno, Mapping, Piece};
use crate::{Error, Gpa, GuestMemory, GuestRange, Vm};

/// The end of low memory; from here to [`HIGHMEM_BASE`] is the address space of devices.
pub const LOWMEM_LIMIT: u64 = 3 << 30;
/// Where the rest of the memory begins.
pub const HIGHMEM_BASE: u64 = 4 << 30;

/// The segment of the guest's memory, or the first of [`MAX_DOMAINS`].
pub const VM_SYSMEM: i32 = 0;
/// The most NUMA domains a guest can have.
pub const MAX_DOMAINS: usize = 8;

const PAGE: u64 = 4096;

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

bitflags! {
    /// How guest memory is kept (VM_MEM_F_*).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MemFlags: u8 {
        /// It is part of this process' core dumps.
        const INCORE = 1;
        /// All of it is allocated at once and stays.
        const WIRED = 2;
    }
}

/// How [`Vm::setup_memory`] maps the memory into this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MmapStyle {
    /// Not at all.
    #[default]
    None,
    /// All of it, once.
    All,
    /// Piece by piece in each [`Vm::map_gpa`]; [`Vm::memory`] is empty.
    Sparse,
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

/// The memory of one NUMA domain of the guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemDomain {
    /// Bytes, a multiple of 4 KiB.
    pub size: u64,
    pub policy: Option<NumaPolicy>,
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

/// What this process knows of the guest's memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    lowmem: u64,
    highmem: u64,
    style: MmapStyle,
    /// What is mapped, except with [`MmapStyle::Sparse`].
    memory: GuestMemory,
}

impl Vm {
    // ---- The calls --------------------------------------------------------------------

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
            len: self.host_len(len)?,
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
            len: self.host_len(len)?,
        };
        platform::ioctl(self.device(), req::VM_MUNMAP_MEMSEG, &mut param).map_err(|e| {
            self.error_of(
                req::VM_MUNMAP_MEMSEG,
                &format!("{gpa:#x}, {len:#x} bytes,"),
                e,
            )
        })
    }

    // ---- The whole memory ---------------------------------------------------------------

    /// How memory is kept that is set up from now on.
    pub fn set_memflags(&self, flags: MemFlags) {
        self.shared()
            .memflags
            .store(flags.bits(), Ordering::Relaxed);
    }

    pub fn memflags(&self) -> MemFlags {
        MemFlags::from_bits_truncate(self.shared().memflags.load(Ordering::Relaxed))
    }

    /// Gives the guest `size` bytes of memory, a multiple of 4 KiB, and maps it into this
    /// process. Memory that the VM has already stays, with the size it has.
    pub fn setup_memory(&self, size: u64, style: MmapStyle) -> Result<(), Error> {
        let size = self.get_memseg(VM_SYSMEM)?.map_or(size, |seg| seg.len);
        self.setup_domains(&[MemDomain { size, policy: None }], style)
    }

    /// Gives the guest the memory of several NUMA domains, one behind the other. EEXIST as
    /// [`Error::Mismatch`] when the VM has memory already.
    pub fn setup_memory_domains(
        &self,
        domains: &[MemDomain],
        style: MmapStyle,
    ) -> Result<(), Error> {
        for segid in 0..domains.len().min(MAX_DOMAINS) as i32 {
            if let (Some(is), false) = (self.get_memseg(VM_SYSMEM + segid)?, domains.len() == 1) {
                let thing = format!("memory segment {segid} of {}", self.name());
                return Err(mismatch(thing, &is, &"to be made for a NUMA domain"));
            }
        }
        self.setup_domains(domains, style)
    }

    fn setup_domains(&self, domains: &[MemDomain], style: MmapStyle) -> Result<(), Error> {
        let plan = plan(domains)?;
        for (segid, domain) in (VM_SYSMEM..).zip(domains) {
            self.alloc_memseg(segid, domain.size, None, domain.policy.as_ref())?;
        }
        for map in &plan {
            self.mmap_memseg(map.gpa, map.segid, map.segoff, map.len, Prot::ALL)?;
        }
        let mut layout = Layout {
            style,
            ..Layout::default()
        };
        for (base, size) in [(0, &mut layout.lowmem), (HIGHMEM_BASE, &mut layout.highmem)] {
            let part = plan
                .iter()
                .filter(|map| (map.gpa.0 >= HIGHMEM_BASE) == (base == HIGHMEM_BASE));
            *size = part.clone().map(|map| map.len).sum();
            if style == MmapStyle::All && *size != 0 {
                let pieces = part
                    .map(|map| {
                        Ok(Piece {
                            offset: map.gpa.0,
                            len: self.host_len(map.len)?,
                        })
                    })
                    .collect::<Result<Vec<_>, Error>>()?;
                let range = self.mmap(&pieces)?;
                layout.memory = layout.memory.with(Gpa(base), range);
            }
        }
        *self
            .shared()
            .layout
            .write()
            .unwrap_or_else(PoisonError::into_inner) = layout;
        Ok(())
    }

    /// Gives the guest `len` more bytes of memory at `gpa` and maps them into this process,
    /// as vm_map_memory() of 2013 did: in a segment of its own. ENOSPC when all
    /// [`MAX_DOMAINS`] segments are taken.
    pub fn map_memory(&self, gpa: Gpa, len: u64) -> Result<GuestRange, Error> {
        let segid = self.free_sysmem()?;
        self.alloc_memseg(segid, len, None, None)?;
        self.mmap_memseg(gpa, segid, 0, len, Prot::ALL)?;
        let range = self.mmap(&[Piece {
            offset: gpa.0,
            len: self.host_len(len)?,
        }])?;
        let mut layout = self
            .shared()
            .layout
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        layout.memory = layout.memory.with(gpa, range.clone());
        Ok(range)
    }

    fn free_sysmem(&self) -> Result<i32, Error> {
        for segid in VM_SYSMEM..VM_SYSMEM + MAX_DOMAINS as i32 {
            if self.get_memseg(segid)?.is_none() {
                return Ok(segid);
            }
        }
        Err(self.error_of(
            req::VM_ALLOC_MEMSEG,
            "a ninth segment of memory",
            libc::ENOSPC,
        ))
    }

    /// Makes a named segment of device memory and maps it into this process; where the
    /// guest sees it, [`Vm::mmap_memseg`] says.
    pub fn create_devmem(&self, segid: i32, name: &str, len: u64) -> Result<GuestRange, Error> {
        if name.is_empty() {
            return Err(Error::BadName {
                name: String::new(),
                why: "device memory needs a name",
            });
        }
        self.alloc_memseg(segid, len, Some(name), None)?;
        let device = platform::open_devmem(self.name(), name).map_err(|errno| Error::Call {
            call: "open",
            thing: format!("/dev/vmm.io/{}.{name}", self.name()),
            errno,
        })?;
        self.mmap_of(
            &device,
            &[Piece {
                offset: 0,
                len: self.host_len(len)?,
            }],
        )
    }

    // ---- Access from this process -------------------------------------------------------

    /// `len` bytes of memory at `gpa`. Not memory: [`Error::NotMemory`], which is how one
    /// tells memory from the address space of devices.
    pub fn map_gpa(&self, gpa: Gpa, len: usize) -> Result<GuestRange, Error> {
        let layout = self
            .shared()
            .layout
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match layout.memory.slice(gpa, len) {
            Err(_) if layout.style == MmapStyle::Sparse => self.map_sparse(&layout, gpa, len),
            answer => answer,
        }
    }

    /// Maps the pages around the bytes for this one caller.
    fn map_sparse(&self, layout: &Layout, gpa: Gpa, len: usize) -> Result<GuestRange, Error> {
        let outside = Error::NotMemory {
            gpa,
            len: len as u64,
        };
        let end = gpa
            .0
            .checked_add(len as u64)
            .ok_or_else(|| outside.clone())?;
        let within =
            |base: u64, size: u64| gpa.0 >= base && gpa.0 - base < size && end <= base + size;
        if !within(0, layout.lowmem) && !within(HIGHMEM_BASE, layout.highmem) {
            return Err(outside);
        }
        let first = gpa.page_base().0;
        let pages = Piece {
            offset: first,
            len: self.host_len((end - first).next_multiple_of(PAGE))?,
        };
        self.mmap(&[pages])?.slice(gpa.page_offset() as usize, len)
    }

    /// The memory that is mapped, as one thing to keep and use without locks. It doesn't
    /// see what is mapped later.
    pub fn memory(&self) -> GuestMemory {
        self.shared()
            .layout
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .memory
            .clone()
    }

    /// Bytes of memory from address 0 on.
    pub fn lowmem_size(&self) -> u64 {
        self.shared()
            .layout
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .lowmem
    }

    /// Bytes of memory from [`HIGHMEM_BASE`] on.
    pub fn highmem_size(&self) -> u64 {
        self.shared()
            .layout
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .highmem
    }

    fn mmap(&self, pieces: &[Piece]) -> Result<GuestRange, Error> {
        self.mmap_of(self.device(), pieces)
    }

    fn mmap_of(
        &self,
        device: &std::os::fd::OwnedFd,
        pieces: &[Piece],
    ) -> Result<GuestRange, Error> {
        let error = |errno| {
            let at = pieces.first().map_or(0, |piece| piece.offset);
            Error::Call {
                call: "mmap",
                thing: format!("guest memory at {at:#x} of {}", self.name()),
                errno,
            }
        };
        let core = self.memflags().contains(MemFlags::INCORE);
        let mapping = Mapping::new(device, pieces, core).map_err(error)?;
        let len = mapping.len();
        GuestRange::new(Arc::new(mapping), 0, len).ok_or_else(|| error(libc::EINVAL))
    }

    #[allow(clippy::unused_self)]
    fn host_len(&self, len: u64) -> Result<usize, Error> {
        usize::try_from(len).map_err(|_| Error::Invalid {
            what: "length",
            value: len,
        })
    }
}

fn mismatch(thing: String, is: &dyn std::fmt::Debug, wanted: &dyn std::fmt::Debug) -> Error {
    Error::Mismatch {
        thing,
        is: format!("{is:?}"),
        wanted: format!("{wanted:?}"),
    }
}

/// Where the domains' segments go: low memory up to its limit, the rest above 4 GiB, a
/// domain that crosses the limit in two parts.
fn plan(domains: &[MemDomain]) -> Result<Vec<Memmap>, Error> {
    if domains.is_empty() || domains.len() > MAX_DOMAINS {
        return Err(Error::Invalid {
            what: "number of NUMA domains",
            value: domains.len() as u64,
        });
    }
    let mut plan = Vec::new();
    let mut gpa = 0_u64;
    for (segid, domain) in (VM_SYSMEM..).zip(domains) {
        let bad = || Error::Invalid {
            what: "memory size",
            value: domain.size,
        };
        if domain.size == 0 || domain.size % PAGE != 0 {
            return Err(bad());
        }
        let mut segoff = 0;
        while segoff < domain.size {
            if gpa == LOWMEM_LIMIT {
                gpa = HIGHMEM_BASE;
            }
            let rest = domain.size - segoff;
            let len = if gpa < LOWMEM_LIMIT {
                rest.min(LOWMEM_LIMIT - gpa)
            } else {
                rest
            };
            plan.push(Memmap {
                gpa: Gpa(gpa),
                segid,
                segoff,
                len,
                prot: Prot::ALL,
                flags: 0,
            });
            gpa = gpa.checked_add(len).ok_or_else(bad)?;
            segoff += len;
        }
    }
    Ok(plan)
}

/// A memory size of a command line: a number with an optional k, m, g or t; a plain
/// number below a mebibyte counts mebibytes (vm_parse_memsize).
pub fn parse_memsize(text: &str) -> Result<u64, Error> {
    let bad = || Error::BadName {
        name: text.to_owned(),
        why: "a memory size is a number with k, m, g or t",
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (digits, suffix) = match text.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|c| c.is_ascii_hexdigit()) => (text, ""),
        _ => (digits, &text[digits.len()..]),
    };
    let number = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    }
    .map_err(|_| bad())?;
    let shift = match suffix.to_ascii_lowercase().trim_end_matches('b') {
        "" if number < 1 << 20 && suffix.is_empty() => 20,
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(bad()),
    };
    number.checked_mul(1 << shift).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    fn maps(sizes: &[u64]) -> Vec<(u64, i32, u64, u64)> {
        let domains: Vec<_> = sizes
            .iter()
            .map(|size| MemDomain {
                size: *size,
                policy: None,
            })
            .collect();
        plan(&domains)
            .unwrap()
            .iter()
            .map(|m| (m.gpa.0, m.segid, m.segoff, m.len))
            .collect()
    }

    #[test]
    fn memory_up_to_3_gib_is_low_and_the_rest_is_above_4_gib() {
        assert_eq!(maps(&[GB]), [(0, 0, 0, GB)]);
        assert_eq!(maps(&[3 * GB]), [(0, 0, 0, 3 * GB)]);
        assert_eq!(
            maps(&[5 * GB]),
            [(0, 0, 0, 3 * GB), (4 * GB, 0, 3 * GB, 2 * GB)]
        );
    }

    #[test]
    fn domains_follow_each_other_and_one_is_split_at_the_limit() {
        assert_eq!(
            maps(&[2 * GB, 2 * GB, GB]),
            [
                (0, 0, 0, 2 * GB),
                (2 * GB, 1, 0, GB),
                (4 * GB, 1, GB, GB),
                (5 * GB, 2, 0, GB)
            ]
        );
        assert_eq!(maps(&[3 * GB, GB]), [(0, 0, 0, 3 * GB), (4 * GB, 1, 0, GB)]);
    }

    #[test]
    fn sizes_that_are_no_memory_are_refused() {
        for sizes in [
            vec![],
            vec![0],
            vec![4095],
            vec![!4095, 4096],
            vec![4096; 9],
        ] {
            let domains: Vec<_> = sizes
                .iter()
                .map(|size| MemDomain {
                    size: *size,
                    policy: None,
                })
                .collect();
            assert!(plan(&domains).is_err(), "{sizes:?}");
        }
    }

    #[test]
    fn memory_sizes_read_as_on_bhyves_command_line() {
        for (text, size) in [
            ("1024", 1024 << 20),
            ("1048576", 1 << 20),
            ("0x40", 64 << 20),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("2g", 2 << 30),
            ("2GB", 2 << 30),
            ("64k", 64 << 10),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse_memsize(text), Ok(size), "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "1x",
            "1mm",
            "99999999999999999999",
            "18446744073709551615t",
            "0x",
        ] {
            assert!(parse_memsize(text).is_err(), "{text}");
        }
    }
}
