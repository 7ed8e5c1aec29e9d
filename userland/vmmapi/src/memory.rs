//! The guest's memory as a whole, and its mapping into this process.
//!
//! The layout is libvmmapi's: memory up to 3 GiB from address 0 on, the rest from 4 GiB on.
//! Programs that open the same VM one after the other (bhyveload, bhyve) get the same
//! memory: what exists already, and fits, is used as it is.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bitflags::bitflags;
use vmm_sys::ioctl as req;

use crate::memseg::{host_len, mismatch};
use crate::platform::{self, Mapping, Piece};
use crate::{Error, Gpa, GuestMemory, GuestRange, Memmap, NumaPolicy, Prot, Vm};

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

/// The memory of one NUMA domain of the guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemDomain {
    /// Bytes, a multiple of 4 KiB.
    pub size: u64,
    pub policy: Option<NumaPolicy>,
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
                            len: host_len(map.len)?,
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
        let segid = self.free_sysmem(len)?;
        self.alloc_memseg(segid, len, None, None)?;
        self.mmap_memseg(gpa, segid, 0, len, Prot::ALL)?;
        let range = self.mmap(&[Piece {
            offset: gpa.0,
            len: host_len(len)?,
        }])?;
        let mut layout = self
            .shared()
            .layout
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        layout.memory = layout.memory.with(gpa, range.clone());
        Ok(range)
    }

    /// A system memory segment that isn't there yet, or one of that length that is mapped
    /// nowhere: what an earlier attempt has left, since segments can't be freed.
    fn free_sysmem(&self, len: u64) -> Result<i32, Error> {
        let mut used = Vec::new();
        let mut next = Gpa(0);
        while let Some(map) = self.mmap_getnext(next)? {
            used.push(map.segid);
            match map.gpa.checked_add(map.len.max(1)) {
                Some(end) => next = end,
                None => break,
            }
        }
        for segid in VM_SYSMEM..VM_SYSMEM + MAX_DOMAINS as i32 {
            match self.get_memseg(segid)? {
                None => return Ok(segid),
                Some(seg) if seg.len == len && seg.name.is_none() && !used.contains(&segid) => {
                    return Ok(segid);
                }
                Some(_) => {}
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
                len: host_len(len)?,
            }],
        )
    }

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
            len: host_len((end - first).next_multiple_of(PAGE))?,
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
}
