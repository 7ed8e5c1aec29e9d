//! How a process maps guest memory: mmap(2) of /dev/vmm/NAME at a guest-physical address
//! and of /dev/vmm.io/NAME.SEGMENT at an offset; VM_MEMMAP_F_WIRED; the NUMA policy of a
//! segment. With FreeBSD's errno throughout.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use vmmapi::{Gpa, MemFlags, MmapStyle, NumaPolicy, Prot, Vm};

use crate::abi::refused;
use crate::machine::{MEMORY, Machine, fresh_name};

crate::tests! {
    a_process_maps_at_a_guest_physical_address,
    what_no_single_map_holds_is_not_mapped,
    bad_offsets_and_protections,
    device_segments_are_files_of_their_own,
    device_segments_end_with_their_vm,
    a_read_only_mapping_stays_so,
    wired_maps,
    wired_memory_keeps_its_contents_unmapped,
    numa_policies,
}

const SECOND: i32 = 1;
const DEVICE: i32 = 9;
const PAGE: usize = 0x1000;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Pages of a device, unmapped when dropped.
#[derive(Debug)]
struct Mapped {
    base: NonNull<u8>,
    len: usize,
}

impl Mapped {
    /// The errno of mmap(2).
    fn new(fd: BorrowedFd<'_>, offset: u64, len: usize, prot: i32) -> Result<Self, i32> {
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                prot,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if base == libc::MAP_FAILED {
            let error = std::io::Error::last_os_error();
            return Err(error.raw_os_error().expect("an errno"));
        }
        let base = NonNull::new(base.cast()).expect("mmap(2) at 0");
        Ok(Self { base, len })
    }

    fn word(&self, at: usize) -> *mut u64 {
        assert!(at % 8 == 0 && at + 8 <= self.len);
        // SAFETY: within the mapping.
        unsafe { self.base.as_ptr().add(at).cast() }
    }

    fn read(&self, at: usize) -> u64 {
        // SAFETY: an aligned word of the mapping.
        unsafe { self.word(at).read_volatile() }
    }

    fn write(&self, at: usize, value: u64) {
        // SAFETY: as read(); the tests write where they have mapped with PROT_WRITE.
        unsafe { self.word(at).write_volatile(value) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping that new() made, which nobody else has.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn map(vm: &Vm, gpa: u64, len: usize) -> Result<Mapped, i32> {
    Mapped::new(vm.as_fd(), gpa, len, RW)
}

fn open_segment(vm: &Vm, name: &str) -> File {
    let path = format!("/dev/vmm.io/{}.{name}", vm.name());
    let file = File::options().read(true).write(true).open(&path);
    file.unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn a_process_maps_at_a_guest_physical_address() {
    let m = Machine::new();
    let all = map(&m.vm, 0, MEMORY as usize).unwrap();
    let middle = map(&m.vm, 0x10_2000, 3 * PAGE).unwrap();
    let last = map(&m.vm, MEMORY - PAGE as u64, PAGE).unwrap();
    all.write(0x10_2000, 0x1111);
    middle.write(PAGE, 0x2222);
    last.write(PAGE - 8, 0x3333);
    assert_eq!(middle.read(0), 0x1111);
    assert_eq!(all.read(0x10_3000), 0x2222);
    assert_eq!(m.vm.memory().read::<u64>(Gpa(MEMORY - 8)).unwrap(), 0x3333);

    // The address is the guest's, whatever the offset in the segment is.
    m.vm.alloc_memseg(SECOND, 0x8000, None, None).unwrap();
    for (gpa, offset, len) in [(0x4000_0000, 0x2000, 0x4000), (0x5000_0000, 0x5000, 0x1000)] {
        m.vm.mmap_memseg(Gpa(gpa), SECOND, offset, len, Prot::ALL)
            .unwrap();
    }
    let one = map(&m.vm, 0x4000_2000, 2 * PAGE).unwrap();
    let other = map(&m.vm, 0x5000_0000, PAGE).unwrap();
    one.write(PAGE, 0x4444);
    assert_eq!(other.read(0), 0x4444);
}

fn what_no_single_map_holds_is_not_mapped() {
    let empty = Vm::create(&fresh_name()).unwrap();
    let before_any = map(&empty, 0, PAGE).map(|_| ());
    empty.destroy().unwrap();
    assert_eq!(before_any, Err(libc::ENOENT), "before any map");

    let m = Machine::new();
    let errno = |gpa, pages: usize| map(&m.vm, gpa, pages * PAGE).map(|_| ());
    assert_eq!(errno(MEMORY, 1), Err(libc::ENOENT), "behind memory");
    assert_eq!(
        errno(MEMORY - PAGE as u64, 2),
        Err(libc::ENOENT),
        "over its end"
    );
    m.vm.alloc_memseg(SECOND, 0x4000, None, None).unwrap();
    m.vm.mmap_memseg(Gpa(MEMORY), SECOND, 0, 0x4000, Prot::ALL)
        .unwrap();
    assert_eq!(errno(MEMORY, 4), Ok(()));
    assert_eq!(
        errno(MEMORY - PAGE as u64, 2),
        Err(libc::ENOENT),
        "over two adjacent maps"
    );
    m.vm.munmap_memseg(Gpa(MEMORY), 0x4000).unwrap();
    assert_eq!(errno(MEMORY, 1), Err(libc::ENOENT), "what was unmapped");
}

fn bad_offsets_and_protections() {
    let m = Machine::new();
    // An offset has no sign: there is no memory.
    let far = map(&m.vm, 1 << 63, PAGE).map(|_| ());
    assert_eq!(far, Err(libc::ENOENT));
    let around = map(&m.vm, u64::MAX - 0xfff, PAGE).map(|_| ());
    // Linux itself refuses what ends behind 2^64.
    let overflow = cfg!(target_os = "linux") && around == Err(libc::EOVERFLOW);
    assert!(overflow || around == Err(libc::EINVAL), "{around:?}");
    let exec = Mapped::new(m.vm.as_fd(), 0, PAGE, libc::PROT_READ | libc::PROT_EXEC);
    assert_eq!(exec.map(|_| ()), Err(libc::EINVAL), "PROT_EXEC");
    m.vm.alloc_memseg(DEVICE, 0x4000, Some("framebuffer"), None)
        .unwrap();
    m.vm.mmap_memseg(Gpa(0xd000_0000), DEVICE, 0, 0x4000, Prot::ALL)
        .unwrap();
    let device = map(&m.vm, 0xd000_0000, PAGE).map(|_| ());
    assert_eq!(device, Err(libc::EINVAL), "device memory at its gpa");
}

fn device_segments_are_files_of_their_own() {
    let m = Machine::new();
    m.vm.alloc_memseg(DEVICE, 0x4000, Some("framebuffer"), None)
        .unwrap();
    let file = open_segment(&m.vm, "framebuffer");
    let at = |offset, len| Mapped::new(file.as_fd(), offset, len, RW);
    let all = at(0, 4 * PAGE).unwrap();
    let third = at(2 * PAGE as u64, PAGE).unwrap();
    third.write(8, 0x5555);
    assert_eq!(all.read(2 * PAGE + 8), 0x5555);
    for (offset, len) in [
        (0, 5 * PAGE),
        (0x4000, PAGE),
        (0x3000, 2 * PAGE),
        (1 << 63, PAGE),
    ] {
        let result = at(offset, len).map(|_| ());
        assert_eq!(result, Err(libc::EINVAL), "{offset:#x}");
    }
    let exec = Mapped::new(file.as_fd(), 0, PAGE, libc::PROT_READ | libc::PROT_EXEC);
    assert_eq!(exec.map(|_| ()), Err(libc::EINVAL));
    // The guest sees the same pages.
    m.vm.mmap_memseg(Gpa(0xd000_0000), DEVICE, 0x2000, 0x2000, Prot::ALL)
        .unwrap();
    let mut word = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(&open_vm(&m.vm), &mut word, 0xd000_0008).unwrap();
    assert_eq!(u64::from_le_bytes(word), 0x5555);
}

fn open_vm(vm: &Vm) -> File {
    File::open(format!("/dev/vmm/{}", vm.name())).unwrap()
}

fn device_segments_end_with_their_vm() {
    let m = Machine::new();
    m.vm.alloc_memseg(DEVICE, 0x2000, Some("framebuffer"), None)
        .unwrap();
    let file = open_segment(&m.vm, "framebuffer");
    let mapped = Mapped::new(file.as_fd(), 0, 2 * PAGE, RW).unwrap();
    mapped.write(0, 0x6666);
    let node = format!("/dev/vmm.io/{}.framebuffer", m.vm.name());
    vmmapi::vm::destroy(m.vm.name()).unwrap();
    std::mem::forget(m); // nothing is left to destroy
    assert!(!std::path::Path::new(&node).exists(), "{node}");
    assert!(Mapped::new(file.as_fd(), 0, PAGE, RW).is_err());
    // What is mapped stays, with the page that was never touched.
    assert_eq!((mapped.read(0), mapped.read(PAGE)), (0x6666, 0));
}

fn a_read_only_mapping_stays_so() {
    let m = Machine::new();
    let mapped = Mapped::new(m.vm.as_fd(), 0x20_0000, PAGE, libc::PROT_READ).unwrap();
    m.vm.memory().write(Gpa(0x20_0000), 0x7777u64).unwrap();
    assert_eq!(mapped.read(0), 0x7777);
    // SAFETY: the child touches nothing but the mapping, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the page is mapped, without PROT_WRITE: this ends the child.
        unsafe {
            let limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
            mapped.word(0).write_volatile(1);
            libc::_exit(0);
        }
    }
    let mut status = 0;
    // SAFETY: status is a place for the answer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(
        libc::WIFSIGNALED(status)
            && [libc::SIGSEGV, libc::SIGBUS].contains(&libc::WTERMSIG(status)),
        "{status:#x}"
    );
    assert_eq!(mapped.read(0), 0x7777);
}

fn wired_maps() {
    let m = Machine::new();
    m.vm.alloc_memseg(SECOND, 0x40_0000, None, None).unwrap();
    // The stock module's number has page tables in it.
    let resident = || m.stat("Resident memory") & !0xf_ffff;
    let before = resident();
    m.vm.set_memflags(MemFlags::WIRED);
    let map = |gpa, prot| m.vm.mmap_memseg(Gpa(gpa), SECOND, 0, 0x40_0000, prot);
    refused(
        map(0x4000_0000, Prot::WRITE),
        libc::EFAULT,
        "wiring what can't be read",
    );
    assert!(m.vm.mmap_getnext(Gpa(0x4000_0000)).unwrap().is_none());
    assert_eq!(resident(), before, "a wired map that failed left pages");
    // All of it is there before the guest touches any.
    map(0x4000_0000, Prot::READ | Prot::WRITE).unwrap();
    assert_eq!(resident(), before + 0x40_0000);
    m.vm.munmap_memseg(Gpa(0x4000_0000), 0x40_0000).unwrap();
    assert_eq!(resident(), before);
    // Far more than any host of these tests has.
    m.vm.alloc_memseg(2, 1 << 40, None, None).unwrap();
    let result =
        m.vm.mmap_memseg(Gpa(0x100_0000_0000), 2, 0, 1 << 40, Prot::ALL);
    refused(result, libc::ENOMEM, "wiring a TiB");
    assert!(m.vm.mmap_getnext(Gpa(0x4000_0000)).unwrap().is_none());
    assert_eq!(resident(), before);
}

fn wired_memory_keeps_its_contents_unmapped() {
    let m = Machine::new();
    m.vm.alloc_memseg(SECOND, 0x40_0000, None, None).unwrap();
    m.vm.set_memflags(MemFlags::WIRED);
    let len = 0x40_0000;
    m.vm.mmap_memseg(Gpa(0x4000_0000), SECOND, 0, len, Prot::ALL)
        .unwrap();
    let mapped = map(&m.vm, 0x4000_0000, len as usize).unwrap();
    for page in 0..len as usize / PAGE {
        mapped.write(page * PAGE, page as u64 + 1);
    }
    // A part of it is in a second map when the first one goes.
    m.vm.mmap_memseg(Gpa(0x5000_0000), SECOND, 0x10_3000, 0x5000, Prot::ALL)
        .unwrap();
    m.vm.munmap_memseg(Gpa(0x4000_0000), len).unwrap();
    let part = map(&m.vm, 0x5000_0000, 5 * PAGE).unwrap();
    part.write(4 * PAGE, 0x8888);
    m.vm.munmap_memseg(Gpa(0x5000_0000), 0x5000).unwrap();
    m.vm.mmap_memseg(Gpa(0x6000_0000), SECOND, 0, len, Prot::ALL)
        .unwrap();
    let again = map(&m.vm, 0x6000_0000, len as usize).unwrap();
    for page in 0..len as usize / PAGE {
        let expected = if page == 0x107 {
            0x8888
        } else {
            page as u64 + 1
        };
        assert_eq!(again.read(page * PAGE), expected, "page {page:#x}");
        assert_eq!(mapped.read(page * PAGE), expected, "page {page:#x}");
    }
}

/// domainset(9): round robin, first touch, preferred, interleaved. The host has domain 0.
fn numa_policies() {
    let m = Machine::new();
    let alloc = |segid, policy, domains: &[usize]| {
        let mut set = vmm_sys::domainset_t::default();
        for domain in domains {
            set.__bits[domain / 64] |= 1 << (domain % 64);
        }
        let policy = NumaPolicy {
            policy,
            domains: set,
        };
        m.vm.alloc_memseg(segid, 0x2000, None, Some(&policy))
    };
    for policy in 1..=4 {
        alloc(policy, policy, &[0]).unwrap();
        let gpa = 0x4000_0000 + policy as u64 * 0x1000_0000;
        m.vm.mmap_memseg(Gpa(gpa), policy, 0, 0x2000, Prot::ALL)
            .unwrap();
        let mapped = map(&m.vm, gpa, 2 * PAGE).unwrap();
        mapped.write(PAGE, 1);
        assert_eq!(mapped.read(PAGE), 1);
    }
    // DOMAINSET_POLICY_INVALID is none, whatever the mask says.
    alloc(5, 0, &[77]).unwrap();
    for policy in [-1, 5, i32::MAX] {
        refused(alloc(6, policy, &[0]), libc::EINVAL, "no such policy");
    }
    refused(alloc(6, 1, &[]), libc::EDEADLK, "no domain");
    refused(alloc(6, 1, &[0, 77]), libc::EINVAL, "a domain that isn't");
    refused(alloc(6, 3, &[77]), libc::EINVAL, "preferring it");
    assert!(m.vm.get_memseg(6).unwrap().is_none());

    let raw = |mask: u64, size| {
        let mut param = vmm_sys::vm_memseg {
            segid: 6,
            len: 0x2000,
            ds_policy: 1,
            ds_mask: mask as *mut vmm_sys::domainset_t,
            ds_mask_size: size,
            ..Default::default()
        };
        // SAFETY: a whole structure; the kernel copies the mask from an address that is
        // not mapped, which fails.
        let result = unsafe {
            libc::ioctl(
                m.vm.as_fd().as_raw_fd(),
                vmm_sys::ioctl::VM_ALLOC_MEMSEG.code() as _,
                &raw mut param,
            )
        };
        assert_eq!(result, -1);
        std::io::Error::last_os_error().raw_os_error()
    };
    // A program's domainset_t is the most, the kernel's own the least.
    let size = size_of::<vmm_sys::domainset_t>();
    for wrong in [0, 7, size + 1, usize::MAX] {
        assert_eq!(raw(0x10, wrong), Some(libc::ERANGE), "{wrong} bytes");
    }
    for size in [8, 9, size] {
        assert_eq!(raw(0x10, size), Some(libc::EFAULT), "{size} bytes");
        assert_eq!(raw(u64::MAX, size), Some(libc::EFAULT), "{size} bytes");
    }
    m.vm.setup_memory(MEMORY, MmapStyle::All).unwrap();
}
