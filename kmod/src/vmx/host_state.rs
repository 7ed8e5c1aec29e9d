//! The host's state around a run: what VM exits load from the VMCS (SDM vol. 3C, 25.5 and
//! 28.5), and what they lose, which is put back after the loop: the limits of GDTR and
//! IDTR, and LDTR. DR7 and IA32_DEBUGCTL, lost too, are put back after each exit; TR's
//! limit and userland's data segments, with their bases, by `host_world_end`.

use vmm_core::vmx::field;

use super::cpu::{self, TableRegister, msr};
use super::vmcs::LoadedVmcs;

/// The host-state fields as they are in a VMCS, to be written again only when they differ.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct HostFields {
    cr0: u64,
    cr3: u64,
    cr4: u64,
    fs_base: u64,
}

/// The base in the 64-bit TSS descriptor that TR was loaded from (SDM vol. 3A, figure 8-4).
fn tss_base(gdtr: &TableRegister, selector: u16) -> u64 {
    let descriptor = (gdtr.base + u64::from(selector & !7)) as *const u64;
    // SAFETY: TR was loaded from this 16-byte descriptor of the GDT in use, which a
    // kernel keeps mapped; GDTs are 8-byte aligned in both kernels, and an unaligned read
    // would do no harm.
    let (low, high) = unsafe {
        (
            descriptor.read_unaligned(),
            descriptor.add(1).read_unaligned(),
        )
    };
    low >> 16 & 0xff_ffff | low >> 32 & 0xff00_0000 | high << 32
}

/// Writes what is this CPU's own. The data segments are null while the module runs: in
/// 64-bit mode they are not used, and null passes VM entry's checks (27.2.3).
pub fn write_cpu_fields(vmcs: &mut LoadedVmcs<'_>) {
    let gdtr = cpu::sgdt();
    let tr = cpu::task_selector();
    vmcs.write(field::HOST_CS_SELECTOR, cpu::cs_selector());
    vmcs.write(field::HOST_SS_SELECTOR, cpu::ss_selector());
    vmcs.write(field::HOST_DS_SELECTOR, 0);
    vmcs.write(field::HOST_ES_SELECTOR, 0);
    vmcs.write(field::HOST_FS_SELECTOR, 0);
    vmcs.write(field::HOST_GS_SELECTOR, 0);
    vmcs.write(field::HOST_TR_SELECTOR, tr);
    vmcs.write(field::HOST_TR_BASE, tss_base(&gdtr, tr));
    vmcs.write(field::HOST_GDTR_BASE, gdtr.base);
    vmcs.write(field::HOST_IDTR_BASE, cpu::sidt().base);
    // SAFETY: a 64-bit CPU with VT-x has all of these MSRs.
    unsafe {
        vmcs.write(field::HOST_GS_BASE, cpu::rdmsr(msr::IA32_GS_BASE));
        vmcs.write(
            field::HOST_IA32_SYSENTER_CS,
            cpu::rdmsr(msr::IA32_SYSENTER_CS) as u32,
        );
        vmcs.write(
            field::HOST_IA32_SYSENTER_ESP,
            cpu::rdmsr(msr::IA32_SYSENTER_ESP),
        );
        vmcs.write(
            field::HOST_IA32_SYSENTER_EIP,
            cpu::rdmsr(msr::IA32_SYSENTER_EIP),
        );
        vmcs.write(field::HOST_IA32_PAT, cpu::rdmsr(msr::IA32_PAT));
        vmcs.write(field::HOST_IA32_EFER, cpu::rdmsr(msr::IA32_EFER));
    }
}

impl HostFields {
    /// Writes what is this thread's own: its FS base, and CR0 (CR0.TS is clear now).
    pub fn write_thread_fields(&mut self, vmcs: &mut LoadedVmcs<'_>) {
        // SAFETY: every 64-bit CPU has the MSR.
        let fs_base = unsafe { cpu::rdmsr(msr::IA32_FS_BASE) };
        if fs_base != self.fs_base {
            self.fs_base = fs_base;
            vmcs.write(field::HOST_FS_BASE, fs_base);
        }
        let cr0 = cpu::read_cr0();
        if cr0 != self.cr0 {
            self.cr0 = cr0;
            vmcs.write(field::HOST_CR0, cr0);
        }
    }

    /// Before each entry, interrupts off: an interrupt may have changed the page tables
    /// (a lazy switch of the address space) or CR4 since the last one.
    #[inline(always)]
    pub fn write_volatile_fields(&mut self, vmcs: &mut LoadedVmcs<'_>) {
        let cr3 = cpu::read_cr3();
        if cr3 != self.cr3 {
            self.cr3 = cr3;
            vmcs.write(field::HOST_CR3, cr3);
        }
        let cr4 = cpu::read_cr4();
        if cr4 != self.cr4 {
            self.cr4 = cr4;
            vmcs.write(field::HOST_CR4, cr4);
        }
    }
}

/// What VM exits destroy and the host wants back.
pub struct SavedHost {
    gdtr: TableRegister,
    idtr: TableRegister,
    ldt: u16,
    /// VM exits clear the MSR; nonzero only when the host traces branches.
    pub debugctl: u64,
}

impl SavedHost {
    /// Before the first entry.
    pub fn save() -> Self {
        Self {
            gdtr: cpu::sgdt(),
            idtr: cpu::sidt(),
            ldt: cpu::ldt_selector(),
            // SAFETY: a CPU with VT-x has the MSR.
            debugctl: unsafe { cpu::rdmsr(msr::IA32_DEBUGCTL) },
        }
    }

    /// After the last exit.
    pub fn restore(&self) {
        // SAFETY: each value was in the register it goes to, on this CPU, since when the
        // thread has not left it.
        unsafe {
            cpu::lgdt(&self.gdtr);
            cpu::lidt(&self.idtr);
            if self.ldt != 0 {
                cpu::lldt(self.ldt);
            }
        }
    }
}
