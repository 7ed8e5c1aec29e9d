//! Bad arguments get FreeBSD's errno, and change nothing.

use std::fmt::Debug;

use vmmapi::{Capability, Error, Gpa, Prot, Reg, SuspendHow, VcpuId, Vm};

use crate::machine::{Machine, fresh_name};

crate::tests! {
    names,
    segments,
    maps,
    vcpus,
    capabilities,
    suspend_and_reinit,
    topology,
    cpu_sets,
    debug_stop_of_a_vcpu,
    exceptions_and_intinfo,
    statistics,
    requests_after_destroy,
}

pub fn refused<T: Debug>(result: Result<T, Error>, errno: i32, what: &str) {
    match result {
        Err(e) if e.is(errno) => {}
        other => panic!("{what}: {other:?} instead of errno {errno}"),
    }
}

fn names() {
    let name = fresh_name();
    let vm = Vm::create(&name).unwrap();
    refused(Vm::create(&name), libc::EEXIST, "a name that exists");
    vm.destroy().unwrap();
    refused(
        vmmapi::vm::destroy(&name),
        libc::EINVAL,
        "destroying what is gone",
    );
    refused(Vm::open(&name), libc::ENOENT, "opening what is gone");
}

fn segments() {
    let m = Machine::new();
    refused(
        m.vm.alloc_memseg(-1, 0x1000, None, None),
        libc::EINVAL,
        "segment -1",
    );
    refused(
        m.vm.alloc_memseg(11, 0x1000, None, None),
        libc::EINVAL,
        "segment 11",
    );
    refused(
        m.vm.alloc_memseg(1, 0, None, None),
        libc::EINVAL,
        "no length",
    );
    refused(
        m.vm.alloc_memseg(1, 0x1001, None, None),
        libc::EINVAL,
        "half a page",
    );
    m.vm.alloc_memseg(1, 0x2000, None, None).unwrap();
    assert_eq!(m.vm.get_memseg(1).unwrap().map(|s| s.len), Some(0x2000));
    assert!(m.vm.get_memseg(2).unwrap().is_none());
    refused(m.vm.get_memseg(-5), libc::EINVAL, "segment -5");
}

fn maps() {
    let m = Machine::new();
    m.vm.alloc_memseg(1, 0x4000, None, None).unwrap();
    let map = |gpa, offset, len| m.vm.mmap_memseg(Gpa(gpa), 1, offset, len, Prot::READ);
    refused(
        map(0x4000_0000, 0, 0x5000),
        libc::EINVAL,
        "longer than the segment",
    );
    refused(
        map(0x4000_0000, 0x1000, 0x4000),
        libc::EINVAL,
        "past the segment's end",
    );
    refused(
        map(0x4000_0001, 0, 0x1000),
        libc::EINVAL,
        "not a page's address",
    );
    refused(
        map(0x4000_0000, 0, 0x10),
        libc::EINVAL,
        "not a page's length",
    );
    refused(
        map(0xffff_ffff_ffff_f000, 0, 0x2000),
        libc::EINVAL,
        "around the end of addresses",
    );
    refused(map(0x1000, 0, 0x1000), libc::ENOMEM, "over the first map");
    refused(
        m.vm.mmap_memseg(Gpa(0x4000_0000), 2, 0, 0x1000, Prot::READ),
        libc::EINVAL,
        "no such segment",
    );
    map(0x4000_0000, 0, 0x4000).unwrap();
    refused(
        map(0x4000_2000, 0, 0x1000),
        libc::ENOMEM,
        "inside another map",
    );
    refused(
        m.vm.munmap_memseg(Gpa(0x4000_0000), 0x1000),
        libc::EINVAL,
        "part of a map",
    );
    m.vm.munmap_memseg(Gpa(0x4000_0000), 0x4000).unwrap();
    map(0x4000_2000, 0, 0x1000).unwrap();
}

fn vcpus() {
    let m = Machine::new();
    let far = m.vm.vcpu(VcpuId(5000));
    refused(far.register(Reg::Rax), libc::EINVAL, "vcpu 5000");
    refused(far.activate(), libc::EINVAL, "activating vcpu 5000");
    refused(m.cpu.activate(), libc::EBUSY, "activating twice");
    let idle = Vm::create(&fresh_name()).unwrap();
    let run = idle.vcpu(VcpuId::BSP).run();
    idle.destroy().unwrap();
    refused(run, libc::EINVAL, "running a vcpu that is not active");
}

fn capabilities() {
    let m = Machine::new();
    m.cpu.set_capability(Capability::HaltExit, 1).unwrap();
    assert_eq!(m.cpu.capability(Capability::HaltExit).unwrap(), 1);
    assert_eq!(m.cpu.capability(Capability::UnrestrictedGuest).unwrap(), 1);
    refused(
        m.cpu
            .set_capability(Capability::Rdtscp, 0)
            .and(m.cpu.set_capability(Capability::IpiExit, 1)),
        libc::ENOENT,
        "no APIC yet, or not to be set",
    );
}

fn suspend_and_reinit() {
    let m = Machine::real(&[0xeb, 0xfe]); // jmp $
    refused(
        m.vm.reinit(),
        libc::EBUSY,
        "reinit of a VM that has not ended",
    );
    m.vm.suspend(SuspendHow::Reset).unwrap();
    refused(
        m.vm.suspend(SuspendHow::Poweroff),
        libc::EALREADY,
        "a second end",
    );
    let exit = m.run();
    assert_eq!(exit.exit, vmmapi::Exit::Suspended(SuspendHow::Reset));
    assert!(m.vm.suspended_cpus().unwrap().contains(VcpuId::BSP));
    refused(m.cpu.run(), libc::EINVAL, "running a suspended vcpu");
    m.vm.reinit().unwrap();
    assert!(m.vm.active_cpus().unwrap().is_empty());
    assert_eq!(m.reg(Reg::Rip), 0xfff0, "the reset state");
    m.cpu.activate().unwrap();
}

fn topology() {
    let m = Machine::new();
    let t = m.vm.topology().unwrap();
    assert_eq!((t.sockets, t.cores, t.threads), (1, 1, 1));
    assert!(t.maxcpus >= 1);
    let huge = vmmapi::CpuTopology {
        sockets: 0xffff,
        cores: 0xffff,
        threads: 0xffff,
        maxcpus: 0,
    };
    refused(
        m.vm.set_topology(huge),
        libc::EINVAL,
        "more vcpus than can be",
    );
    let one = vmmapi::CpuTopology {
        sockets: 1,
        cores: t.maxcpus,
        threads: 1,
        maxcpus: 0,
    };
    m.vm.set_topology(one).unwrap();
    assert_eq!(m.vm.topology().unwrap().cores, t.maxcpus);
}

fn cpu_sets() {
    let m = Machine::new();
    let active: Vec<_> = m.vm.active_cpus().unwrap().iter().collect();
    assert_eq!(active, [VcpuId::BSP]);
    assert!(m.vm.suspended_cpus().unwrap().is_empty());
    assert!(m.vm.debug_cpus().unwrap().is_empty());
}

fn debug_stop_of_a_vcpu() {
    let m = Machine::real(&[0xe6, 0x80]); // out 0x80, al
    m.cpu.suspend().unwrap();
    assert!(m.vm.debug_cpus().unwrap().contains(VcpuId::BSP));
    assert_eq!(m.run().exit, vmmapi::Exit::Debug);
    m.cpu.resume().unwrap();
    refused(m.cpu.resume(), libc::EINVAL, "resuming what isn't stopped");
    assert!(matches!(m.run().exit, vmmapi::Exit::Inout(_)));
}

fn exceptions_and_intinfo() {
    let m = Machine::new();
    refused(
        m.cpu.inject_exception(32, None, false),
        libc::EINVAL,
        "vector 32",
    );
    refused(
        m.cpu.inject_exception(8, Some(0), false),
        libc::EINVAL,
        "a double fault",
    );
    // Type NMI with a vector that isn't 2; a hardware exception from 32 on; reserved bits.
    for bad in [0x8000_0203, 0x8000_0320, 0x8000_1000] {
        refused(
            m.cpu.set_intinfo(bad),
            libc::EINVAL,
            "an event that can't be",
        );
    }
    m.cpu.set_intinfo(0x8000_0202).unwrap();
    assert_eq!(m.cpu.intinfo().unwrap().0, 0x8000_0202);
    m.cpu.set_intinfo(0).unwrap();
    assert_eq!(m.cpu.intinfo().unwrap().0, 0);
}

fn statistics() {
    let m = Machine::new();
    // FreeBSD 15.1's first one: scripts lay the two modules' lists side by side.
    assert_eq!(
        m.vm.stat_desc(0).unwrap().as_deref(),
        Some("number of vm exits due to exceptions")
    );
    assert_eq!(m.vm.stat_desc(100_000).unwrap(), None);
    let stats = m.cpu.stats().unwrap();
    assert!(m.vm.stat_desc(stats.values.len()).unwrap().is_none());
    assert!(m.vm.stat_desc(stats.values.len() - 1).unwrap().is_some());
}

fn requests_after_destroy() {
    let vm = Vm::create(&fresh_name()).unwrap();
    let open = vm.clone();
    let cpu = vm.vcpu(VcpuId::BSP);
    cpu.register(Reg::Rax).unwrap();
    vm.destroy().unwrap();
    refused(
        cpu.register(Reg::Rax),
        libc::ENXIO,
        "a register of a destroyed VM",
    );
    refused(
        open.suspend(SuspendHow::Reset),
        libc::ENXIO,
        "ending a destroyed VM",
    );
}
