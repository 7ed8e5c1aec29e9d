//! A VM's physical address space: memory segments (what there is), maps (where the guest
//! sees it) and the EPT (what the CPU uses), which is filled on EPT violations. The
//! limits and errors are those of FreeBSD's vmm_mem(9).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vmm_core::cpu::paging::GuestMemory as PagingMemory;
use vmm_core::ept::{Ept, MapError, MemType, PageSize, Prot};
use vmm_core::exit::Access;
use vmm_core::ioctl::{Mapping, Prot as MapProt, SegId, SegName, VM_MAX_MEMMAPS, VM_MAX_MEMSEGS};
use vmm_core::stats::{Stat, VcpuStats};
use vmm_core::types::{Errno, Gpa, Hpa, PAGE_SIZE};

use super::ops::EptSpace;
use crate::host::mem::TablePages;
use crate::host::memobj::{LARGE_PAGE_SIZE, MemObj, NumaPolicy, has_room_for};
use crate::host::sync::{SxLock, SxReadGuard};
use crate::log_warn;

/// A segment: memory with a number, and a name if it is device memory.
pub struct Segment {
    pub object: MemObj,
    pub name: Option<SegName>,
}

impl Segment {
    pub fn is_sysmem(&self) -> bool {
        self.name.is_none()
    }
}

/// Segments and maps. Changed only with all vcpus frozen.
#[derive(Default)]
pub struct Layout {
    segments: [Option<Segment>; VM_MAX_MEMSEGS],
    /// By their address.
    maps: Vec<Mapping>,
}

pub struct GuestMemory {
    layout: SxLock<Layout>,
    ept: SxLock<Ept<TablePages>>,
    /// What the backend needs of the EPT.
    pub space: Arc<EptSpace>,
    /// The log says already that the host gives this VM no more memory.
    warned: AtomicBool,
}

impl GuestMemory {
    pub fn new() -> Result<Self, Errno> {
        let ept = Ept::new(TablePages)?;
        let space = Arc::new(EptSpace {
            pml4: ept.root(),
            generation: AtomicU64::new(1),
        });
        Ok(Self {
            layout: SxLock::new(c"vm memsegs", Layout::default())?,
            ept: SxLock::new(c"vm ept", ept)?,
            space,
            warned: AtomicBool::new(false),
        })
    }

    /// The layout, for reading.
    pub fn layout(&self) -> SxReadGuard<'_, Layout> {
        self.layout.read()
    }

    /// VM_ALLOC_MEMSEG. EEXIST if the segment is there with the same size and kind.
    pub fn alloc_segment(
        &self,
        id: SegId,
        len: u64,
        name: Option<SegName>,
        numa: Option<&NumaPolicy<'_>>,
    ) -> Result<(), Errno> {
        let mut layout = self.layout.write();
        let slot = &mut layout.segments[id.index()];
        if let Some(old) = slot {
            let same = old.object.len() == len && old.is_sysmem() == name.is_none();
            return Err(if same { Errno::EEXIST } else { Errno::EINVAL });
        }
        *slot = Some(Segment {
            object: MemObj::new(len, numa)?,
            name,
        });
        Ok(())
    }

    /// Takes a segment back that could not be given its device node. It has no map yet.
    pub fn free_segment(&self, id: SegId) {
        self.layout.write().segments[id.index()] = None;
    }

    /// VM_MMAP_MEMSEG. ENOSPC: no free map; ENOMEM: overlaps another (as vm_map_insert), or
    /// the host has not so many pages for a wired one (as vm_map_wire); EFAULT: wired, but
    /// not readable.
    pub fn map(&self, map: Mapping) -> Result<(), Errno> {
        let mut layout = self.layout.write();
        let segment = layout.segment(map.segid).ok_or(Errno::EINVAL)?;
        if map.segoff_end() > segment.object.len() {
            return Err(Errno::EINVAL);
        }
        if layout.maps.len() == VM_MAX_MEMMAPS {
            return Err(Errno::ENOSPC);
        }
        if layout.maps.iter().any(|other| other.overlaps(&map)) {
            return Err(Errno::ENOMEM);
        }
        if map.wired {
            if let Err(error) = self.fill_all(&map, &segment.object) {
                self.forget(&mut layout, &map);
                return Err(error);
            }
        }
        let at = layout.maps.partition_point(|other| other.gpa < map.gpa);
        layout.maps.insert(at, map);
        Ok(())
    }

    /// VM_MUNMAP_MEMSEG: exactly one whole map.
    pub fn unmap(&self, gpa: Gpa, len: u64) -> Result<(), Errno> {
        let mut layout = self.layout.write();
        let at = layout
            .maps
            .iter()
            .position(|m| m.gpa == gpa && m.len == len)
            .ok_or(Errno::EINVAL)?;
        let map = layout.maps.remove(at);
        self.forget(&mut layout, &map);
        Ok(())
    }

    /// Removes the maps of device memory, which a reset guest places anew (VM_REINIT).
    pub fn unmap_devices(&self) {
        let mut layout = self.layout.write();
        let (kept, devices) = core::mem::take(&mut layout.maps)
            .into_iter()
            .partition(|map| layout.segment(map.segid).is_some_and(Segment::is_sysmem));
        layout.maps = kept;
        let devices: Vec<Mapping> = devices;
        for map in &devices {
            self.forget(&mut layout, map);
        }
    }

    /// Maps a page that is no segment's for as long as the VM lives: the APIC-access page.
    pub fn map_page(&self, gpa: Gpa, hpa: Hpa) -> Result<(), Errno> {
        let prot = Prot::READ | Prot::WRITE;
        self.ept
            .write()
            .map(gpa, hpa, PageSize::Size4K, prot, MemType::WriteBack)
            .map_err(|error| match error {
                MapError::NoMemory => Errno::ENOMEM,
                MapError::Overlap | MapError::Invalid => Errno::EINVAL,
            })
    }

    /// Answers an EPT violation at `gpa` if there is memory that allows the access.
    /// False: there is none, the access has to be emulated.
    pub fn fault(&self, gpa: Gpa, access: Access, stats: &VcpuStats) -> Result<bool, Errno> {
        let layout = self.layout.read();
        let Some(map) = layout.find(gpa) else {
            return Ok(false);
        };
        if !allows(map, access) {
            return Ok(false);
        }
        let object = &layout.segment(map.segid).ok_or(Errno::EFAULT)?.object;
        let large = self.fill(map, object, gpa)?;
        stats.incr(if large {
            Stat::EptFill2m
        } else {
            Stat::EptFill4k
        });
        Ok(true)
    }

    /// VM_MEMMAP_F_WIRED: all of a map before the guest touches it.
    fn fill_all(&self, map: &Mapping, object: &MemObj) -> Result<(), Errno> {
        if !map.prot.intersects(MapProt::READ | MapProt::EXEC) {
            return Err(Errno::EFAULT);
        }
        // Said before the host is filled up, as far as it can be known.
        if !has_room_for(map.len) {
            self.warn_of(Errno::ENOMEM);
            return Err(Errno::ENOMEM);
        }
        let mut gpa = map.gpa;
        while gpa < map.gpa_end() {
            let size = match self.fill(map, object, gpa) {
                Ok(true) => LARGE_PAGE_SIZE,
                Ok(false) => PAGE_SIZE,
                Err(Errno::ENOMEM) => return Err(Errno::ENOMEM),
                Err(_) => return Err(Errno::EFAULT),
            };
            gpa = Gpa((gpa.get() / size + 1) * size);
        }
        Ok(())
    }

    /// Puts the page at `gpa`, made resident if it isn't, into the EPT; true if that is a
    /// 2 MiB page.
    fn fill(&self, map: &Mapping, object: &MemObj, gpa: Gpa) -> Result<bool, Errno> {
        let place = place(map, gpa);
        let page = object
            .page(place.offset, place.large)
            .inspect_err(|error| self.warn_of(*error))?;
        let prot = ept_prot(map.prot);
        let mut ept = self.ept.write();
        let mut large = page.large && place.large;
        if large {
            let base = Gpa(gpa.get() & !(LARGE_PAGE_SIZE - 1));
            match ept.map(base, page.hpa, PageSize::Size2M, prot, MemType::WriteBack) {
                Ok(()) => {}
                // Another vcpu was faster, or 4 KiB pages of the region are mapped already.
                Err(MapError::Overlap) => large = false,
                Err(MapError::NoMemory) => return Err(Errno::ENOMEM),
                Err(MapError::Invalid) => return Err(Errno::EFAULT),
            }
        }
        if !large {
            let hpa = if page.large {
                page.hpa
                    .checked_add((place.offset % LARGE_PAGE_SIZE) & !(PAGE_SIZE - 1))
                    .ok_or(Errno::EFAULT)?
            } else {
                page.hpa
            };
            match ept.map(
                gpa.page_base(),
                hpa,
                PageSize::Size4K,
                prot,
                MemType::WriteBack,
            ) {
                Ok(()) | Err(MapError::Overlap) => {}
                Err(MapError::NoMemory) => return Err(Errno::ENOMEM),
                Err(MapError::Invalid) => return Err(Errno::EFAULT),
            }
        }
        Ok(large)
    }

    /// Says once for each VM why it can't go on.
    fn warn_of(&self, error: Errno) {
        if error == Errno::ENOMEM && !self.warned.swap(true, Ordering::Relaxed) {
            log_warn!(
                "a VM gets no more memory than its {} MiB: guests together have as much as the \
                 host wires for them (FreeBSD: sysctl vm.max_user_wired, in pages)",
                self.mapped_bytes() >> 20
            );
        }
    }

    /// Copies guest memory; pages need not have been touched before. EFAULT where there is
    /// none.
    pub fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), Errno> {
        let layout = self.layout.read();
        let (object, offset) = layout.resolve(gpa, buf.len() as u64, Access::Read)?;
        object.read(offset, buf)
    }

    /// Writes guest memory. EFAULT where there is none or it is read-only.
    pub fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), Errno> {
        let layout = self.layout.read();
        let (object, offset) = layout.resolve(gpa, buf.len() as u64, Access::Write)?;
        object.write(offset, buf)
    }

    /// Whether [`Self::write`] of so many bytes would succeed.
    pub fn is_writable(&self, gpa: Gpa, len: u64) -> bool {
        self.layout.read().resolve(gpa, len, Access::Write).is_ok()
    }

    /// The EPT entries on the way to `gpa`, root first, and how many there are.
    pub fn walk(&self, gpa: Gpa) -> ([u64; 4], usize) {
        self.ept.read().walk(gpa)
    }

    /// Bytes of resident guest memory, as the EPT maps it now.
    pub fn mapped_bytes(&self) -> u64 {
        self.ept.read().mapped_bytes()
    }

    /// Ends what the guest has of a map that is not in the layout any more, and gives back
    /// the pages that no other map shows. (No vcpu runs: all are frozen.)
    fn forget(&self, layout: &mut Layout, map: &Mapping) {
        let unmapped = self.ept.write().unmap(map.gpa, map.len);
        // A leaf never reaches beyond its map, so none has to be split.
        assert!(unmapped.is_ok(), "unmapping {map:?}: {unmapped:?}");
        // Every CPU that enters this VM again drops what it cached (EptSpace).
        self.space.generation.fetch_add(1, Ordering::SeqCst);
        if let Some(segment) = &layout.segments[map.segid.index()] {
            for (offset, len) in map.parts_only_here(&layout.maps) {
                segment.object.unwire(offset, len);
            }
        }
    }
}

impl Layout {
    /// The segment with that number.
    pub fn segment(&self, id: SegId) -> Option<&Segment> {
        self.segments[id.index()].as_ref()
    }

    /// The first map at or above `gpa` (VM_MMAP_GETNEXT).
    pub fn next_map(&self, gpa: u64) -> Option<&Mapping> {
        self.maps.iter().find(|map| map.gpa.get() >= gpa)
    }

    /// The map that holds all of [gpa, gpa + len).
    pub fn map_of(&self, gpa: Gpa, len: u64) -> Option<&Mapping> {
        let map = self.find(gpa)?;
        let end = gpa.get().checked_add(len)?;
        (end - map.gpa.get() <= map.len).then_some(map)
    }

    /// The end of the highest system memory map.
    pub fn max_sysmem(&self) -> Gpa {
        let sysmem = self
            .maps
            .iter()
            .filter(|m| self.segment(m.segid).is_some_and(Segment::is_sysmem));
        sysmem.map(Mapping::gpa_end).max().unwrap_or(Gpa(0))
    }

    fn find(&self, gpa: Gpa) -> Option<&Mapping> {
        self.maps
            .iter()
            .find(|map| map.gpa <= gpa && gpa < map.gpa_end())
    }

    fn resolve(&self, gpa: Gpa, len: u64, access: Access) -> Result<(&MemObj, u64), Errno> {
        let map = self.map_of(gpa, len).ok_or(Errno::EFAULT)?;
        if !allows(map, access) {
            return Err(Errno::EFAULT);
        }
        let object = &self.segment(map.segid).ok_or(Errno::EFAULT)?.object;
        Ok((object, map.segoff + (gpa.get() - map.gpa.get())))
    }
}

/// The guest's page tables are in its memory.
impl PagingMemory for &GuestMemory {
    fn read_u64(&mut self, gpa: Gpa) -> Option<u64> {
        let layout = self.layout.read();
        let (object, offset) = layout.resolve(gpa, 8, Access::Read).ok()?;
        object.load_u64(offset).ok()
    }

    fn read_u32(&mut self, gpa: Gpa) -> Option<u32> {
        let layout = self.layout.read();
        let (object, offset) = layout.resolve(gpa, 4, Access::Read).ok()?;
        object.load_u32(offset).ok()
    }

    fn cas_u64(&mut self, gpa: Gpa, old: u64, new: u64) -> Option<bool> {
        let layout = self.layout.read();
        let (object, offset) = layout.resolve(gpa, 8, Access::Write).ok()?;
        object.cas_u64(offset, old, new).ok()
    }

    fn cas_u32(&mut self, gpa: Gpa, old: u32, new: u32) -> Option<bool> {
        let layout = self.layout.read();
        let (object, offset) = layout.resolve(gpa, 4, Access::Write).ok()?;
        object.cas_u32(offset, old, new).ok()
    }
}

fn allows(map: &Mapping, access: Access) -> bool {
    map.prot.contains(match access {
        Access::Read => MapProt::READ,
        Access::Write => MapProt::WRITE,
        Access::Execute => MapProt::EXEC,
    })
}

fn ept_prot(prot: MapProt) -> Prot {
    // An EPT entry that is not readable is none that the CPU takes, or all that it takes is
    // execution (SDM vol. 3C, 29.3.3.1): as FreeBSD's pmap, what is there can be read.
    let mut ept = Prot::READ;
    ept.set(Prot::WRITE, prot.contains(MapProt::WRITE));
    ept.set(Prot::EXECUTE, prot.contains(MapProt::EXEC));
    ept
}

struct Place {
    /// Of `gpa` in the segment.
    offset: u64,
    /// The 2 MiB page around it lies within the map, and is aligned alike in both.
    large: bool,
}

fn place(map: &Mapping, gpa: Gpa) -> Place {
    let offset = map.segoff + (gpa.get() - map.gpa.get());
    let base = gpa.get() & !(LARGE_PAGE_SIZE - 1);
    let inside = base >= map.gpa.get() && base - map.gpa.get() + LARGE_PAGE_SIZE <= map.len;
    Place {
        offset,
        large: inside && offset % LARGE_PAGE_SIZE == gpa.get() % LARGE_PAGE_SIZE,
    }
}
