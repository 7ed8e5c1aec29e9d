//! Guest memory: segments, maps, mmap(2), and the guest's own view of it.

use vmmapi::{Exit, Gla, Gpa, GuestPaging, MmapStyle, PagingMode, Prot, Reg, Translation, Vm};

use crate::machine::{HOLE, MEMORY, Machine, PDPT, fresh_name};

crate::tests! {
    userland_and_guest_see_the_same_memory,
    a_segment_mapped_twice_is_one_memory,
    unmapped_memory_is_gone_for_the_guest,
    read_only_map_exits_on_write,
    memory_above_4_gib,
    wired_memory,
    maps_are_listed_in_order,
    translation_of_linear_addresses,
    memory_survives_the_vm_for_whoever_maps_it,
}

const SECOND: i32 = 1;

fn userland_and_guest_see_the_same_memory() {
    #[rustfmt::skip]
    let m = Machine::long(&[
        0x48, 0x8b, 0x04, 0x25, 0x00, 0x00, 0x30, 0x00, // mov rax, [0x300000]
        0x48, 0xf7, 0xd0,                               // not rax
        0x48, 0x89, 0x04, 0x25, 0xf8, 0xff, 0x3f, 0x00, // mov [0x3ffff8], rax
        0xe6, 0x80,                                     // out 0x80, al
    ]);
    let memory = m.vm.memory();
    memory
        .write(Gpa(0x30_0000), 0x0123_4567_89ab_cdefu64)
        .unwrap();
    m.run();
    assert_eq!(
        memory.read::<u64>(Gpa(MEMORY - 8)).unwrap(),
        !0x0123_4567_89ab_cdefu64
    );
}

fn a_segment_mapped_twice_is_one_memory() {
    #[rustfmt::skip]
    let m = Machine::protected(&[
        0xc7, 0x05, 0x00, 0x00, 0x00, 0x40, 0x44, 0x33, 0x22, 0x11, // mov dword [0x40000000], 0x11223344
        0xa1, 0x00, 0x10, 0x00, 0x50,                               // mov eax, [0x50001000]
        0xe7, 0x80,                                                 // out 0x80, eax
    ]);
    m.vm.alloc_memseg(SECOND, 0x4000, None, None).unwrap();
    m.vm.mmap_memseg(
        Gpa(0x4000_0000),
        SECOND,
        0,
        0x4000,
        Prot::READ | Prot::WRITE,
    )
    .unwrap();
    m.vm.mmap_memseg(Gpa(0x5000_1000), SECOND, 0, 0x2000, Prot::READ)
        .unwrap();
    let exit = m.run();
    let Exit::Inout(io) = exit.exit else {
        panic!("{exit:?}")
    };
    assert_eq!(io.eax, 0x1122_3344);
}

fn unmapped_memory_is_gone_for_the_guest() {
    #[rustfmt::skip]
    let m = Machine::protected(&[
        0xa1, 0x00, 0x00, 0x00, 0x40,   // mov eax, [0x40000000]
        0xe6, 0x80,                     // out 0x80, al
        0xa1, 0x00, 0x00, 0x00, 0x40,   // mov eax, [0x40000000]
    ]);
    m.vm.alloc_memseg(SECOND, 0x20_0000, None, None).unwrap();
    m.vm.mmap_memseg(
        Gpa(0x4000_0000),
        SECOND,
        0,
        0x20_0000,
        Prot::READ | Prot::WRITE,
    )
    .unwrap();
    assert!(matches!(m.run().exit, Exit::Inout(_)));
    m.vm.munmap_memseg(Gpa(0x4000_0000), 0x20_0000).unwrap();
    let exit = m.run();
    assert!(
        matches!(exit.exit, Exit::InstEmul(e) if e.gpa == Gpa(0x4000_0000)),
        "{exit:?}"
    );
    let twice = m.vm.munmap_memseg(Gpa(0x4000_0000), 0x20_0000).unwrap_err();
    assert!(twice.is(libc::EINVAL), "{twice}");
}

fn read_only_map_exits_on_write() {
    #[rustfmt::skip]
    let m = Machine::protected(&[
        0xa1, 0x00, 0x00, 0x00, 0x40,               // mov eax, [0x40000000]
        0xa3, 0x04, 0x00, 0x00, 0x40,               // mov [0x40000004], eax
    ]);
    m.vm.alloc_memseg(SECOND, 0x1000, None, None).unwrap();
    m.vm.mmap_memseg(Gpa(0x4000_0000), SECOND, 0, 0x1000, Prot::READ)
        .unwrap();
    let exit = m.run();
    assert!(
        matches!(exit.exit, Exit::InstEmul(e) if e.gpa == Gpa(0x4000_0004)),
        "{exit:?}"
    );
}

/// The same segment above 4 GiB and below: what is written there is read here.
fn memory_above_4_gib() {
    #[rustfmt::skip]
    let m = Machine::long(&[
        0x48, 0xb8, 0, 0, 0, 0, 1, 0, 0, 0,             // mov rax, 0x100000000
        0x48, 0x89, 0x00,                               // mov [rax], rax
        0x48, 0x8b, 0x1c, 0x25, 0x00, 0x00, 0x00, 0x40, // mov rbx, [0x40000000]
        0xe6, 0x80,                                     // out 0x80, al
    ]);
    // The first 2 MiB of the second GiB and of the fifth, one to one.
    let memory = m.vm.memory();
    for gib in [1, 4] {
        let pd = 0x20_0000 + gib * 0x1000;
        memory.write(Gpa(PDPT + 8 * gib), pd | 3).unwrap();
        memory.write(Gpa(pd), gib << 30 | 0x83).unwrap();
    }
    m.vm.alloc_memseg(SECOND, 0x20_0000, None, None).unwrap();
    for gpa in [0x4000_0000, 0x1_0000_0000] {
        m.vm.mmap_memseg(Gpa(gpa), SECOND, 0, 0x20_0000, Prot::READ | Prot::WRITE)
            .unwrap();
    }
    assert!(matches!(m.run().exit, Exit::Inout(_)));
    assert_eq!(m.reg(Reg::Rbx), 1 << 32);
}

fn wired_memory() {
    let m = Machine::new();
    m.vm.set_memflags(vmmapi::MemFlags::WIRED);
    m.vm.alloc_memseg(SECOND, 0x40_0000, None, None).unwrap();
    m.vm.mmap_memseg(
        Gpa(0x4000_0000),
        SECOND,
        0,
        0x40_0000,
        Prot::READ | Prot::WRITE,
    )
    .unwrap();
    let map = m.vm.mmap_getnext(Gpa(0x4000_0000)).unwrap().unwrap();
    assert_eq!(
        (map.gpa, map.len, map.flags & 1),
        (Gpa(0x4000_0000), 0x40_0000, 1)
    );
}

fn maps_are_listed_in_order() {
    let m = Machine::new();
    m.vm.alloc_memseg(SECOND, 0x4000, None, None).unwrap();
    for (gpa, offset) in [(0x7000_0000, 0x1000), (0x6000_0000, 0x2000)] {
        m.vm.mmap_memseg(Gpa(gpa), SECOND, offset, 0x1000, Prot::READ)
            .unwrap();
    }
    let mut found = Vec::new();
    let mut at = Gpa(0);
    while let Some(map) = m.vm.mmap_getnext(at).unwrap() {
        found.push((map.gpa.get(), map.segoff, map.len));
        at = Gpa(map.gpa.get() + map.len);
    }
    assert_eq!(
        found,
        [
            (0, 0, MEMORY),
            (0x6000_0000, 0x2000, 0x1000),
            (0x7000_0000, 0x1000, 0x1000)
        ]
    );
}

fn translation_of_linear_addresses() {
    let m = Machine::long(&[0x90]);
    let paging = GuestPaging {
        cr3: m.reg(Reg::Cr3),
        cpl: 0,
        cpu_mode: vmmapi::CpuMode::Long64,
        paging_mode: PagingMode::Level4,
    };
    let translate = |gla| {
        m.cpu
            .gla2gpa_nofault(&paging, Gla(gla), Prot::READ)
            .unwrap()
    };
    assert_eq!(translate(0x12_3456), Translation::Gpa(Gpa(0x12_3456)));
    assert_eq!(translate(HOLE + 5), Translation::Gpa(Gpa(HOLE + 5)));
    assert_eq!(translate(0x80_0000_0000), Translation::Fault);
    assert_eq!(m.cpu.intinfo().unwrap(), (0, 0), "nofault injects nothing");
    let user = GuestPaging { cpl: 3, ..paging };
    assert_eq!(
        m.cpu
            .gla2gpa_nofault(&user, Gla(0x1000), Prot::READ)
            .unwrap(),
        Translation::Fault
    );
    assert_eq!(
        m.cpu
            .gla2gpa(&paging, Gla(0x80_0000_0000), Prot::READ)
            .unwrap(),
        Translation::Fault
    );
    let (_, pending) = m.cpu.intinfo().unwrap();
    assert_eq!(
        pending & 0x8000_0fff,
        0x8000_0b0e,
        "#PF with an error code is pending"
    );
    assert_eq!(m.reg(Reg::Cr2), 0x80_0000_0000);
}

fn memory_survives_the_vm_for_whoever_maps_it() {
    let vm = Vm::create(&fresh_name()).unwrap();
    vm.setup_memory(MEMORY, MmapStyle::All).unwrap();
    let memory = vm.memory();
    memory.write(Gpa(0x1000), 0x1234_5678u32).unwrap();
    vm.destroy().unwrap();
    assert_eq!(memory.read::<u32>(Gpa(0x1000)).unwrap(), 0x1234_5678);
    memory.write(Gpa(0x2000), 1u32).unwrap();
}
