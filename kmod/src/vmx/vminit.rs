//! What a VM needs once, and a new vcpu: the seed article's `vmx_vminit` (❻). The VMCS gets
//! every field that a VM entry reads (SDM vol. 3C, chapter 25), the guest in the state after
//! a reset (vol. 3A, table 10-1); what is a host CPU's or thread's own is written by the
//! run (`host_state`).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use vmm_core::cpu::msr;
use vmm_core::devices::lapic::ApicMode;
use vmm_core::ept::Eptp;
use vmm_core::types::{Errno, HostCpu, Hpa, VcpuId, Vector};
use vmm_core::vcpu::Capability;
use vmm_core::vmx::apic::{ApicVirtualization, x2apic_passes};
use vmm_core::vmx::caps::Features;
use vmm_core::vmx::controls::Proc2Controls;
use vmm_core::vmx::spin::SpinWindow;
use vmm_core::vmx::{field, reset};

use super::apicv::{self, VirtualApic};
use super::backend::{Backend, backend};
use super::cr;
use super::debug::DebugRegs;
use super::fpu::GuestFpu;
use super::host_state::HostFields;
use super::inject::Interrupts;
use super::msrs::GuestMsrs;
use super::switch::{VmxCtx, vmx_longjmp, vmx_longjmp_flush_rsb};
use super::vcpu::{Vcpu, VcpuControls, VtxVcpu};
use super::vmcs::{ClearVmcs, LoadedVmcs};
use super::vpid::Vpid;
use crate::host::mem::Pages;
use crate::vm::ops::{EptSpace, VcpuOps, VmOps};

/// No CPU has entered the VM with this EPT generation.
const NEVER: u64 = u64::MAX;

/// What the vcpus of a VM share.
pub struct VmShared {
    pub backend: Arc<Backend>,
    pub ept: Arc<EptSpace>,
    /// The EPT pointer.
    pub eptp: u64,
    msr_bitmap: Pages,
    /// The same for a vcpu in x2APIC mode whose MSRs the CPU virtualizes; not to be used
    /// otherwise, because the MSRs that it passes would be the host's APIC's.
    msr_bitmap_x2apic: Option<Pages>,
    /// The APIC-access page, where the CPU virtualizes accesses to it.
    pub apic_access: Option<Pages>,
    /// The EPT generation at each host CPU's last entry into this VM. It starts as
    /// [`NEVER`], so that the first entry drops what an earlier VM with the same root page
    /// has left in the TLB.
    pub ept_seen: Box<[AtomicU64]>,
}

impl VmShared {
    /// An INVEPT is due before that CPU, which is the current one, enters the VM.
    pub fn ept_is_stale(&self, cpu: HostCpu) -> bool {
        self.ept_seen[cpu.0 as usize].load(Ordering::Relaxed)
            != self.ept.generation.load(Ordering::Acquire)
    }

    /// Which MSR accesses don't exit, `x2apic`: with "virtualize x2APIC mode".
    pub fn msr_bitmap(&self, x2apic: bool) -> Hpa {
        let x2apic = self.msr_bitmap_x2apic.as_ref().filter(|_| x2apic);
        x2apic.unwrap_or(&self.msr_bitmap).hpa()
    }
}

/// A VM of this backend.
pub struct VtxVm(Arc<VmShared>);

/// Makes what a VM needs once. Context: thread.
pub fn vmx_vminit(ept: Arc<EptSpace>) -> Result<Box<dyn VmOps>, Errno> {
    let backend = backend()?;
    let eptp = Eptp::new(ept.pml4, backend.caps.has(Features::EPT_ACCESSED_DIRTY)).raw();
    let mut ept_seen = Vec::new();
    ept_seen.resize_with(backend.cpus.len(), || AtomicU64::new(NEVER));
    let delivers = backend.apic == ApicVirtualization::InterruptDelivery;
    let optional = |wanted: bool, make: fn() -> Result<Pages, Errno>| wanted.then(make).transpose();
    let shared = VmShared {
        msr_bitmap: msr_bitmap(false)?,
        msr_bitmap_x2apic: optional(delivers, || msr_bitmap(true))?,
        apic_access: optional(delivers, apic_access_page)?,
        eptp,
        ept,
        ept_seen: ept_seen.into_boxed_slice(),
        backend,
    };
    Ok(Box::new(VtxVm(Arc::new(shared))))
}

impl VmOps for VtxVm {
    fn apic_access_page(&self) -> Option<Hpa> {
        self.0.apic_access.as_ref().map(Pages::hpa)
    }

    fn vcpu_init(&self, id: VcpuId, apic_page: Hpa) -> Result<Box<dyn VcpuOps>, Errno> {
        let backend = &self.0.backend;
        let use_vpid = backend.controls.proc2.contains(Proc2Controls::ENABLE_VPID);
        let vpid = if use_vpid { Vpid::alloc() } else { None };
        let vcpu = Vcpu {
            id,
            vm: self.0.clone(),
            ctx: Box::new(VmxCtx::reset(backend.signature)),
            debug_regs: DebugRegs::RESET,
            msrs: GuestMsrs::default(),
            fpu: GuestFpu::new()?,
            controls: initial_controls(&self.0, vpid.is_some()),
            vpid,
            capabilities: initial_capabilities(backend),
            traced_tf: None,
            tsc_offset: 0,
            apic: VirtualApic::new(apic_page),
            interrupts: Interrupts::START,
            spin: backend.spin.map(SpinWindow::new),
            next_rip: None,
            last_cpu: None,
            host: HostFields::default(),
            flush_vpid: true,
        };
        let vmcs = ClearVmcs::new(backend.caps.revision_id)?;
        let mut this = Box::new(VtxVcpu { vmcs, vcpu });
        this.with_vmcs(vmcs_set_defaults);
        Ok(this)
    }
}

/// Back to the state of [`VmOps::vcpu_init`]; the VPID stays.
pub fn vcpu_reset(this: &mut VtxVcpu) {
    let vcpu = &mut this.vcpu;
    let backend = vcpu.vm.backend.clone();
    *vcpu.ctx = VmxCtx::reset(backend.signature);
    vcpu.debug_regs = DebugRegs::RESET;
    vcpu.msrs = GuestMsrs::default();
    vcpu.fpu.reset();
    vcpu.controls = initial_controls(&vcpu.vm, vcpu.vpid.is_some());
    vcpu.capabilities = initial_capabilities(&backend);
    vcpu.traced_tf = None;
    vcpu.tsc_offset = 0;
    vcpu.apic = VirtualApic::new(vcpu.apic.page);
    vcpu.interrupts = Interrupts::START;
    vcpu.next_rip = None;
    vcpu.last_cpu = None;
    vcpu.host = HostFields::default();
    vcpu.flush_vpid = true;
    this.with_vmcs(vmcs_set_defaults);
}

fn initial_controls(vm: &VmShared, vpid: bool) -> VcpuControls {
    let backend = &vm.backend;
    let mut proc2 = backend.controls.proc2;
    proc2.set(Proc2Controls::ENABLE_VPID, vpid);
    let mut controls = VcpuControls {
        proc: backend.controls.proc,
        proc2,
        // Machine checks are the host's. #DB comes and goes with the debug registers.
        exception_bitmap: 1 << Vector::MC.0,
    };
    apicv::set_mode(&mut controls, vm, ApicMode::Xapic);
    controls
}

fn initial_capabilities(backend: &Backend) -> u32 {
    let bit = |cap: Capability, on: bool| u32::from(on) << cap as u32;
    bit(Capability::UnrestrictedGuest, true)
        | bit(Capability::Rdtscp, backend.rdtscp)
        | bit(Capability::Rdpid, backend.rdpid)
}

/// Every field of a VMCS that is not undefined for us (❽).
fn vmcs_set_defaults(vmcs: &mut LoadedVmcs<'_>, vcpu: &mut Vcpu) {
    host_defaults(vmcs, vcpu);
    control_defaults(vmcs, vcpu);
    guest_defaults(vmcs, vcpu);
}

/// Where a VM exit lands: vmx_longjmp, on a stack pointer that is the VmxCtx.
fn host_defaults(vmcs: &mut LoadedVmcs<'_>, vcpu: &mut Vcpu) {
    let exit: unsafe extern "C" fn() = if vcpu.vm.backend.flush_rsb {
        vmx_longjmp_flush_rsb
    } else {
        vmx_longjmp
    };
    vmcs.write(field::HOST_RIP, exit as usize as u64);
    vmcs.write(field::HOST_RSP, &raw mut *vcpu.ctx as u64);
    // HostFields::default(), against which the run compares.
    vmcs.write(field::HOST_CR0, 0);
    vmcs.write(field::HOST_CR3, 0);
    vmcs.write(field::HOST_CR4, 0);
    vmcs.write(field::HOST_FS_BASE, 0);
}

fn control_defaults(vmcs: &mut LoadedVmcs<'_>, vcpu: &mut Vcpu) {
    let VmShared { backend, eptp, .. } = &*vcpu.vm;
    let controls = &vcpu.controls;
    vmcs.write(field::PIN_BASED_CONTROLS, backend.controls.pin.bits());
    vmcs.write(
        field::PRIMARY_PROCESSOR_BASED_CONTROLS,
        controls.proc.bits(),
    );
    vmcs.write(
        field::SECONDARY_PROCESSOR_BASED_CONTROLS,
        controls.proc2.bits(),
    );
    vmcs.write(field::PRIMARY_EXIT_CONTROLS, backend.controls.exit.bits());
    vmcs.write(field::ENTRY_CONTROLS, backend.controls.entry.bits());
    vmcs.write(field::EXCEPTION_BITMAP, controls.exception_bitmap);
    vmcs.write(field::PAGE_FAULT_ERROR_CODE_MASK, 0);
    vmcs.write(field::PAGE_FAULT_ERROR_CODE_MATCH, 0);
    vmcs.write(field::CR3_TARGET_COUNT, 0);
    vmcs.write(field::EXIT_MSR_STORE_COUNT, 0);
    vmcs.write(field::EXIT_MSR_LOAD_COUNT, 0);
    vmcs.write(field::ENTRY_MSR_LOAD_COUNT, 0);
    vmcs.write(field::ENTRY_INTERRUPTION_INFO, 0);
    vmcs.write(field::ENTRY_EXCEPTION_ERROR_CODE, 0);
    vmcs.write(field::ENTRY_INSTRUCTION_LENGTH, 0);
    vmcs.write(field::TSC_OFFSET, vcpu.tsc_offset);
    vmcs.write(field::EPT_POINTER, *eptp);
    let bitmap = vcpu.vm.msr_bitmap(false);
    vmcs.write(field::MSR_BITMAPS_ADDRESS, bitmap.get());
    apicv::vmcs_defaults(vmcs, vcpu);
    if let Some(ticks) = backend.time_slice {
        vmcs.write(field::VMX_PREEMPTION_TIMER_VALUE, ticks);
    }
    if let Some(spin) = &vcpu.spin {
        let limit = spin.limit();
        vmcs.write(field::PLE_GAP, limit.gap);
        vmcs.write(field::PLE_WINDOW, limit.window);
    }
    if let Some(vpid) = &vcpu.vpid {
        vmcs.write(field::VIRTUAL_PROCESSOR_ID, vpid.get());
    }
}

/// The state after a reset.
fn guest_defaults(vmcs: &mut LoadedVmcs<'_>, vcpu: &Vcpu) {
    for &(field, value) in reset::GUEST_STATE {
        vmcs.write_any(field, value);
    }
    cr::set_guest_cr0(vmcs, vcpu, reset::CR0);
    cr::set_guest_cr4(vmcs, vcpu, reset::CR4);
}

/// A vcpu in xAPIC mode never sees what the page holds. To others it is a place where
/// nobody answers, as on real hardware: all ones (SDM vol. 3A, 11.12.2).
fn apic_access_page() -> Result<Pages, Errno> {
    let mut page = Pages::new(1)?;
    page.bytes_mut().fill(0xff);
    Ok(page)
}

/// Which MSR accesses don't exit, by the policy table. The bitmap (25.6.9) has four parts
/// of 1 KiB: reads of MSRs 0 to 1FFFH, reads of C0000000H to C0001FFFH, writes of the same.
/// A clear bit passes.
fn msr_bitmap(x2apic: bool) -> Result<Pages, Errno> {
    const WRITES: usize = 2048;
    let mut page = Pages::new(1)?;
    let bitmap = page.bytes_mut();
    bitmap.fill(0xff);
    let mut pass = |code, read, write| {
        let Some(bit) = msr_bit(code) else { return };
        if read {
            bitmap[bit / 8] &= !(1 << (bit % 8));
        }
        if write {
            bitmap[WRITES + bit / 8] &= !(1 << (bit % 8));
        }
    };
    for row in msr::POLICY {
        for code in row.first..=row.last {
            pass(code, row.place.read_passes(), row.place.write_passes());
        }
    }
    if x2apic {
        for code in 0x800..=0x8ff {
            let (read, write) = x2apic_passes(code);
            pass(code, read, write);
        }
    }
    Ok(page)
}

/// The MSR's place in the read half; MSRs without one always exit.
fn msr_bit(code: u32) -> Option<usize> {
    match code {
        0..=0x1fff => Some(code as usize),
        0xc000_0000..=0xc000_1fff => Some(0x2000 + (code - 0xc000_0000) as usize),
        _ => None,
    }
}
