//! One vcpu as the backend keeps it: its VMCS, the registers that are not in it, and
//! copies of what the run loop would otherwise have to read from it.

use alloc::boxed::Box;
use alloc::sync::Arc;

use vmm_core::devices::lapic::ApicClock;
use vmm_core::exit::VmExit;
use vmm_core::regs::{ModeRegs, Reg, SegDesc, SegReg};
use vmm_core::types::{Errno, HostCpu, VcpuId};
use vmm_core::vcpu::Capability;
use vmm_core::vmx::controls::{Proc2Controls, ProcControls};
use vmm_core::vmx::field;
use vmm_core::vmx::spin::SpinWindow;

use super::apicv::VirtualApic;
use super::cpu;
use super::debug::DebugRegs;
use super::fail;
use super::fpu::GuestFpu;
use super::host_state::HostFields;
use super::inject::Interrupts;
use super::msrs::GuestMsrs;
use super::run::vmx_run;
use super::switch::VmxCtx;
use super::vmcs::{ClearVmcs, LoadedVmcs};
use super::vminit::{self, VmShared};
use super::vpid::Vpid;
use crate::host::cpu::critical;
use crate::host::time;
use crate::vm::ops::{RunEnv, VcpuOps};

/// The whole of it, behind [`VcpuOps`].
pub struct VtxVcpu {
    pub vmcs: ClearVmcs,
    pub vcpu: Vcpu,
}

/// All but the VMCS.
pub struct Vcpu {
    pub id: VcpuId,
    pub vm: Arc<VmShared>,
    /// Boxed: its address is in the VMCS (HOST_RSP).
    pub ctx: Box<VmxCtx>,
    pub debug_regs: DebugRegs,
    pub msrs: GuestMsrs,
    pub fpu: GuestFpu,
    pub vpid: Option<Vpid>,
    pub controls: VcpuControls,
    /// Capabilities that are on, a bit for each ABI number.
    pub capabilities: u32,
    /// VM_CAP_RFLAGS_TF: RFLAGS.TF is the debugger's, and this is the guest's own.
    pub traced_tf: Option<bool>,
    /// Guest TSC = host TSC + offset.
    pub tsc_offset: u64,
    pub apic: VirtualApic,
    pub interrupts: Interrupts,
    /// How long it may spin, where the CPU watches that.
    pub spin: Option<SpinWindow>,
    /// Where the last run left; another RIP at the next ends an interrupt shadow.
    pub next_rip: Option<u64>,
    /// The CPU whose host state is in the VMCS.
    pub last_cpu: Option<HostCpu>,
    pub host: HostFields,
    /// Translations cached under the VPID are no longer right.
    pub flush_vpid: bool,
}

/// The control fields that change while the vcpu lives, as they are in the VMCS.
#[derive(Clone, Copy)]
pub struct VcpuControls {
    pub proc: ProcControls,
    pub proc2: Proc2Controls,
    pub exception_bitmap: u32,
}

impl Vcpu {
    pub fn capability(&self, cap: Capability) -> bool {
        self.capabilities & 1 << cap as u32 != 0
    }

    /// The guest has IA32_TSC_AUX.
    pub fn has_tsc_aux(&self) -> bool {
        self.vm.backend.rdtscp || self.vm.backend.rdpid
    }

    /// The clocks of its local APIC.
    pub fn apic_clock(&self) -> ApicClock {
        ApicClock {
            now: time::now(),
            guest_tsc: cpu::rdtsc().wrapping_add(self.tsc_offset),
            tsc_hz: self.vm.backend.tsc_hz,
        }
    }

    /// VM_CAP_MASK_HWINTR: a debugger steps, nothing from outside may come between.
    pub fn masks_interrupts(&self) -> bool {
        self.capability(Capability::MaskHwintr)
    }
}

impl VtxVcpu {
    /// Works on the VMCS of a vcpu that does not run.
    pub fn with_vmcs<R>(&mut self, f: impl FnOnce(&mut LoadedVmcs<'_>, &mut Vcpu) -> R) -> R {
        let critical = critical();
        let vm = self.vcpu.vm.clone();
        let mut vmcs = self.vmcs.load(&critical, &vm.backend.cpus);
        f(&mut vmcs, &mut self.vcpu)
    }
}

impl VcpuOps for VtxVcpu {
    fn run(&mut self, rip: u64, env: &mut RunEnv<'_>) -> VmExit {
        let exit = vmx_run(self, rip, env);
        if fail::is_entry_failure(&exit) {
            fail::explain(self, env);
        }
        exit
    }
    fn get_register(&mut self, reg: Reg) -> Result<u64, Errno> {
        super::regs::vmx_getreg(self, reg)
    }
    fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), Errno> {
        super::regs::vmx_setreg(self, reg, value)
    }
    fn get_desc(&mut self, seg: SegReg) -> Result<SegDesc, Errno> {
        Ok(super::regs::vmx_getdesc(self, seg))
    }
    fn set_desc(&mut self, seg: SegReg, desc: SegDesc) -> Result<(), Errno> {
        super::regs::vmx_setdesc(self, seg, desc);
        Ok(())
    }
    fn get_code_state(&mut self) -> (SegDesc, ModeRegs) {
        super::regs::vmx_code_state(self)
    }
    fn get_vmcs_field(&mut self, encoding: u16) -> Result<u64, Errno> {
        super::regs::vmx_get_vmcs_field(self, encoding)
    }
    fn get_capability(&mut self, cap: Capability) -> Result<bool, Errno> {
        super::capability::vmx_getcap(&self.vcpu, cap)
    }
    fn set_capability(&mut self, cap: Capability, on: bool) -> Result<(), Errno> {
        super::capability::vmx_setcap(self, cap, on)
    }
    fn apic_clock(&self) -> ApicClock {
        self.vcpu.apic_clock()
    }
    fn reset(&mut self) -> Result<(), Errno> {
        vminit::vcpu_reset(self);
        Ok(())
    }
}

/// The guest's interruptibility state (SDM vol. 3C, table 25-3).
#[derive(Clone, Copy)]
pub struct Blocking(u32);

impl Blocking {
    const STI: u32 = 1 << 0;
    const MOV_SS: u32 = 1 << 1;
    const NMI: u32 = 1 << 3;

    pub fn read(vmcs: &LoadedVmcs<'_>) -> Self {
        Self(vmcs.read(field::GUEST_INTERRUPTIBILITY_STATE))
    }

    /// Interrupts are held back for one instruction: by STI or MOV SS.
    pub fn shadow(self) -> bool {
        self.0 & (Self::STI | Self::MOV_SS) != 0
    }

    /// An NMI can't be injected.
    pub fn nmi(self) -> bool {
        self.0 & (Self::STI | Self::MOV_SS | Self::NMI) != 0
    }

    /// An instruction has been completed by software: its shadow is over.
    #[inline(always)]
    pub fn clear_shadow(vmcs: &mut LoadedVmcs<'_>) {
        let state = vmcs.read(field::GUEST_INTERRUPTIBILITY_STATE);
        if state & (Self::STI | Self::MOV_SS) != 0 {
            vmcs.write(
                field::GUEST_INTERRUPTIBILITY_STATE,
                state & !(Self::STI | Self::MOV_SS),
            );
        }
    }

    pub fn set_sti(&mut self, vmcs: &mut LoadedVmcs<'_>, on: bool) {
        self.set(vmcs, Self::STI, on);
    }

    /// Blocking by NMI, which IRET ends.
    pub fn set_nmi(vmcs: &mut LoadedVmcs<'_>, on: bool) {
        Self::read(vmcs).set(vmcs, Self::NMI, on);
    }

    fn set(&mut self, vmcs: &mut LoadedVmcs<'_>, bit: u32, on: bool) {
        let state = if on { self.0 | bit } else { self.0 & !bit };
        if state != self.0 {
            self.0 = state;
            vmcs.write(field::GUEST_INTERRUPTIBILITY_STATE, state);
        }
    }
}
