//! The VM: memory, one vcpu as a multiboot loader leaves it, and the loop around KVM_RUN.

use std::io::{self, Write};
use std::path::Path;

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, kvm_pit_config, kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use crate::elf::{self, Program};
use crate::memory::Memory;

const COM1: u16 = 0x3f8;
const COM1_LINE_STATUS: u16 = COM1 + 5;
/// Transmitter empty, both bits.
const READY: u8 = 0x60;
const PCI_ADDRESS: u16 = 0xcf8;
const PM1A_CONTROL: u16 = 0x404;
const PCI_MMIO: std::ops::Range<u64> = 0xe000_0000..0xf000_0000;
/// What a multiboot loader leaves in EAX.
const MULTIBOOT_MAGIC: u64 = 0x2bad_b002;
/// KVM keeps a task state segment of its own for real mode: anywhere but in memory.
const TSS: usize = 0xfffb_d000;

pub fn run(path: &Path, megabytes: usize) -> Result<(), String> {
    let program = elf::read(path)?;
    let kvm = Kvm::new().map_err(|e| format!("/dev/kvm: {e}"))?;
    let vm = kvm.create_vm().map_err(kvm_error("KVM_CREATE_VM"))?;
    vm.set_tss_address(TSS)
        .map_err(kvm_error("KVM_SET_TSS_ADDR"))?;
    vm.create_irq_chip()
        .map_err(kvm_error("KVM_CREATE_IRQCHIP"))?;
    vm.create_pit2(kvm_pit_config::default())
        .map_err(kvm_error("KVM_CREATE_PIT2"))?;
    let mut memory = Memory::new(megabytes << 20)?;
    give_memory(&vm, &memory)?;
    for (address, bytes) in &program.segments {
        memory.write(*address, bytes)?;
    }
    let mut vcpu = vm.create_vcpu(0).map_err(kvm_error("KVM_CREATE_VCPU"))?;
    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(kvm_error("KVM_GET_SUPPORTED_CPUID"))?;
    vcpu.set_cpuid2(&cpuid)
        .map_err(kvm_error("KVM_SET_CPUID2"))?;
    protected_mode(&vcpu, &program)?;
    execute(&mut vcpu)
}

fn give_memory(vm: &VmFd, memory: &Memory) -> Result<(), String> {
    let region = kvm_userspace_memory_region {
        slot: 0,
        guest_phys_addr: 0,
        memory_size: memory.len() as u64,
        userspace_addr: memory.address(),
        flags: 0,
    };
    // SAFETY: the mapping lives as long as the VM, which run() ends first.
    unsafe { vm.set_user_memory_region(region) }.map_err(kvm_error("KVM_SET_USER_MEMORY_REGION"))
}

/// 32-bit protected mode with flat segments, paging off (Multiboot Specification 0.6.96,
/// section 3.2).
fn protected_mode(vcpu: &VcpuFd, program: &Program) -> Result<(), String> {
    let mut sregs = vcpu.get_sregs().map_err(kvm_error("KVM_GET_SREGS"))?;
    let data = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 0x10,
        type_: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    sregs.cs = kvm_segment {
        selector: 0x08,
        type_: 11,
        ..data
    };
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = data;
    }
    sregs.cr0 |= 1;
    vcpu.set_sregs(&sregs).map_err(kvm_error("KVM_SET_SREGS"))?;
    let mut regs = vcpu.get_regs().map_err(kvm_error("KVM_GET_REGS"))?;
    regs.rip = program.entry;
    regs.rax = MULTIBOOT_MAGIC;
    regs.rbx = 0;
    regs.rflags = 2;
    vcpu.set_regs(&regs).map_err(kvm_error("KVM_SET_REGS"))
}

/// Until the guest turns itself off.
fn execute(vcpu: &mut VcpuFd) -> Result<(), String> {
    let mut console = io::stdout().lock();
    let mut pci_address = [0; 4];
    loop {
        match vcpu.run().map_err(kvm_error("KVM_RUN"))? {
            VcpuExit::IoOut(COM1, bytes) => console
                .write_all(bytes)
                .map_err(|e| format!("stdout: {e}"))?,
            VcpuExit::IoIn(COM1_LINE_STATUS, bytes) => bytes.fill(READY),
            VcpuExit::IoOut(PCI_ADDRESS, bytes) if bytes.len() == 4 => {
                pci_address.copy_from_slice(bytes);
            }
            VcpuExit::IoIn(PCI_ADDRESS, bytes) if bytes.len() == 4 => {
                bytes.copy_from_slice(&pci_address);
            }
            VcpuExit::IoOut(PM1A_CONTROL, _) => return Ok(()),
            VcpuExit::MmioRead(address, bytes) if PCI_MMIO.contains(&address) => bytes.fill(0xff),
            VcpuExit::MmioWrite(address, _) if PCI_MMIO.contains(&address) => {}
            exit => return Err(format!("the guest did what nothing here answers: {exit:?}")),
        }
    }
}

fn kvm_error(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> String {
    move |error| format!("{what}: {error}")
}
