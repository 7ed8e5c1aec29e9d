//! The requests as FreeBSD 12, 13 and 14 laid them out, which a GENERIC kernel's module
//! takes from programs of these releases (COMPAT_FREEBSD12 and so on).

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use vmm_sys::ioctl::{
    Ioctl, VM_ALLOC_MEMSEG_12, VM_ALLOC_MEMSEG_14, VM_GET_MEMSEG_12, VM_GET_MEMSEG_14, VM_RUN_13,
    VM_STATS_13,
};
use vmm_sys::{vm_exit_13, vm_inout, vm_memseg_12, vm_memseg_14, vm_run_13, vm_stats_13};
use vmmapi::{Gpa, Reg, VcpuId, Vm};

use crate::abi::refused;
use crate::machine::{CODE, MEMORY, Machine, fresh_name};

crate::tests! {
    a_guest_by_the_requests_of_freebsd_12,
    a_guest_by_the_requests_of_freebsd_14,
    long_names_of_segments,
    segments_by_their_old_numbers,
    bad_arguments,
    statistics_of_freebsd_13,
}

/// Structures of integers only.
trait Plain {}
impl Plain for vm_memseg_12 {}
impl Plain for vm_memseg_14 {}
impl Plain for vm_run_13 {}
impl Plain for vm_stats_13 {}

/// The errno of a request that failed.
fn ask<T: Plain>(vm: &Vm, request: Ioctl, param: &mut T) -> Result<(), i32> {
    assert_eq!(request.size, size_of::<T>());
    // SAFETY: the kernel reads and writes as many bytes as T has, and finds no address there.
    let result = unsafe {
        libc::ioctl(
            vm.as_fd().as_raw_fd(),
            request.code() as _,
            std::ptr::from_mut(param),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(error.raw_os_error().expect("an errno"))
}

fn chars<const N: usize>(name: &str) -> [i8; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = from as i8;
    }
    field
}

fn text(field: &[i8]) -> String {
    let bytes = field.iter().take_while(|c| **c != 0);
    bytes.map(|c| char::from(*c as u8)).collect()
}

fn alloc_12(vm: &Vm, segid: i32, len: usize, name: &str) -> Result<(), i32> {
    let name = chars(name);
    ask(
        vm,
        VM_ALLOC_MEMSEG_12,
        &mut vm_memseg_12 { segid, len, name },
    )
}

fn alloc_14(vm: &Vm, segid: i32, len: usize, name: &str) -> Result<(), i32> {
    let name = chars(name);
    ask(
        vm,
        VM_ALLOC_MEMSEG_14,
        &mut vm_memseg_14 { segid, len, name },
    )
}

/// Length and name of a segment.
fn get_12(vm: &Vm, segid: i32) -> Result<(usize, String), i32> {
    let mut seg = vm_memseg_12 {
        segid,
        ..Default::default()
    };
    ask(vm, VM_GET_MEMSEG_12, &mut seg)?;
    Ok((seg.len, text(&seg.name)))
}

fn get_14(vm: &Vm, segid: i32) -> Result<(usize, String), i32> {
    let mut seg = vm_memseg_14 {
        segid,
        ..Default::default()
    };
    ask(vm, VM_GET_MEMSEG_14, &mut seg)?;
    Ok((seg.len, text(&seg.name)))
}

fn run_13(m: &Machine) -> vm_exit_13 {
    loop {
        let mut run = vm_run_13::default();
        ask(&m.vm, VM_RUN_13, &mut run).expect("VM_RUN of FreeBSD 13");
        if run.vm_exit.exitcode != vmm_sys::VM_EXITCODE_BOGUS {
            return run.vm_exit;
        }
    }
}

/// The port and eax of an exit for an OUT.
fn inout(exit: &vm_exit_13) -> (u16, u32) {
    assert_eq!(exit.exitcode, vmm_sys::VM_EXITCODE_INOUT, "{exit:?}");
    // As struct vm_inout: bits, port, eax.
    const _: () = assert!(std::mem::offset_of!(vm_inout, port) == 2);
    const _: () = assert!(std::mem::offset_of!(vm_inout, eax) == 4);
    ((exit.u[0] >> 16) as u16, (exit.u[0] >> 32) as u32)
}

const PROGRAM: [u8; 10] = [
    0xb8, 0x34, 0x12, // mov ax, 0x1234
    0xe7, 0x80, // out 0x80, ax
    0x66, 0x0f, 0x20, 0xc0, // mov eax, cr0
    0xf4, // hlt
];

fn runs_a_guest(vm: Vm) {
    let m = Machine::on(vm).in_real_mode(&PROGRAM);
    let exit = run_13(&m);
    assert_eq!((exit.rip, exit.inst_length), (CODE + 3, 2));
    let (port, eax) = inout(&exit);
    assert_eq!((port, eax & 0xffff), (0x80, 0x1234));
    // The new request goes on where the old one has stopped.
    m.cpu.set_register(Reg::Rip, CODE).unwrap();
    assert!(matches!(m.run().exit, vmmapi::Exit::Inout(io) if io.port == 0x80));
}

fn a_guest_by_the_requests_of_freebsd_12() {
    let vm = Vm::create(&fresh_name()).unwrap();
    alloc_12(&vm, 0, MEMORY as usize, "").unwrap();
    assert_eq!(get_12(&vm, 0), Ok((MEMORY as usize, String::new())));
    assert_eq!(alloc_12(&vm, 0, MEMORY as usize, ""), Err(libc::EEXIST));
    assert_eq!(alloc_12(&vm, 0, 0x1000, ""), Err(libc::EINVAL));
    runs_a_guest(vm);
}

fn a_guest_by_the_requests_of_freebsd_14() {
    let vm = Vm::create(&fresh_name()).unwrap();
    alloc_14(&vm, 0, MEMORY as usize, "").unwrap();
    assert_eq!(get_14(&vm, 0), Ok((MEMORY as usize, String::new())));
    assert_eq!(alloc_14(&vm, 0, MEMORY as usize, ""), Err(libc::EEXIST));
    runs_a_guest(vm);
}

/// FreeBSD 12's structure has room for 63 bytes, the later ones for 15.
fn long_names_of_segments() {
    let m = Machine::new();
    let name = "a-name-that-only-freebsd-12-has-room-for";
    alloc_12(&m.vm, 1, 0x3000, name).unwrap();
    let node = format!("/dev/vmm.io/{}.{name}", m.vm.name());
    assert!(Path::new(&node).exists(), "{node}");
    assert_eq!(get_12(&m.vm, 1), Ok((0x3000, name.to_owned())));
    assert_eq!(get_14(&m.vm, 1), Err(libc::ENAMETOOLONG));
    refused(m.vm.get_memseg(8), libc::ENAMETOOLONG, "a name too long");
    assert_eq!(
        alloc_12(&m.vm, 2, 0x1000, &"x".repeat(64)),
        Err(libc::ENAMETOOLONG)
    );
    assert_eq!(
        alloc_14(&m.vm, 2, 0x1000, &"x".repeat(16)),
        Err(libc::ENAMETOOLONG)
    );
    assert_eq!(get_12(&m.vm, 2), Ok((0, String::new())));
}

/// 1, 2 and 3 were the boot ROM, the frame buffer and the PCI ROMs, which are 8, 9 and 10.
fn segments_by_their_old_numbers() {
    let m = Machine::new();
    alloc_14(&m.vm, 1, 0x2000, "bootrom").unwrap();
    alloc_12(&m.vm, 2, 0x4000, "framebuffer").unwrap();
    let names = |segid| {
        m.vm.get_memseg(segid)
            .unwrap()
            .map(|segment| (segment.len, segment.name.unwrap_or_default()))
    };
    assert_eq!(names(8), Some((0x2000, "bootrom".to_owned())));
    assert_eq!(names(9), Some((0x4000, "framebuffer".to_owned())));
    assert_eq!(names(1), None);
    assert_eq!(get_14(&m.vm, 2), Ok((0x4000, "framebuffer".to_owned())));
    assert_eq!(get_14(&m.vm, 3), Ok((0, String::new())));
    m.vm.mmap_memseg(Gpa(0x4000_0000), 9, 0x1000, 0x1000, vmmapi::Prot::READ)
        .unwrap();
}

fn bad_arguments() {
    let m = Machine::new();
    for segid in [4, 100, -8, i32::MAX] {
        assert_eq!(
            alloc_14(&m.vm, segid, 0x1000, "x"),
            Err(libc::EINVAL),
            "{segid}"
        );
        assert_eq!(get_12(&m.vm, segid), Err(libc::EINVAL), "{segid}");
    }
    assert_eq!(alloc_12(&m.vm, 1, 0, "x"), Err(libc::EINVAL));
    assert_eq!(alloc_12(&m.vm, 1, 0x800, "x"), Err(libc::EINVAL));
    for cpuid in [-1, 5000] {
        let mut run = vm_run_13 {
            cpuid,
            ..Default::default()
        };
        assert_eq!(ask(&m.vm, VM_RUN_13, &mut run), Err(libc::EINVAL));
        let mut stats = vm_stats_13 {
            cpuid,
            ..Default::default()
        };
        assert_eq!(ask(&m.vm, VM_STATS_13, &mut stats), Err(libc::EINVAL));
    }
    // A vcpu that is not active.
    let idle = Vm::create(&fresh_name()).unwrap();
    let run = ask(&idle, VM_RUN_13, &mut vm_run_13::default());
    idle.destroy().unwrap();
    assert_eq!(run, Err(libc::EINVAL));
}

fn statistics_of_freebsd_13() {
    let m = Machine::real(&PROGRAM);
    m.run();
    let mut old = vm_stats_13::default();
    ask(&m.vm, VM_STATS_13, &mut old).unwrap();
    let new = m.vm.vcpu(VcpuId::BSP).stats().unwrap();
    let count = usize::try_from(old.num_entries).unwrap();
    assert!(count > 10 && count <= new.values.len(), "{count}");
    assert_eq!(old.statbuf[..count], new.values[..count]);
    assert!(old.tv.tv_sec > 0);
}
