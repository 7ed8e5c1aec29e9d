//! The backend's table: what `struct vmm_ops` (the seed's `vmm_ops_intel`) is in C, as
//! traits. `vm` and `dev` know VT-x only through them, so that another backend could be
//! added beside [`crate::vmx::VMM_OPS_INTEL`].

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ffi::CStr;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use vmm_core::cpu::cpuid::CpuidPolicy;
use vmm_core::cpu::msr::MsrState;
use vmm_core::devices::Nanos;
use vmm_core::devices::lapic::{ApicClock, ApicEffect, ApicPage, Inbox, LocalApic};
use vmm_core::exit::{ExitKind, VmExit};
use vmm_core::regs::{ModeRegs, Reg, SegDesc, SegReg};
use vmm_core::stats::VcpuStats;
use vmm_core::types::{Errno, Hpa, VcpuId, Vector};
use vmm_core::vcpu::Capability;
use vmm_core::vcpu::events::EventQueue;

use crate::host::mem::PageBox;

/// An informational sysctl under hw.vmm.
#[derive(Clone, Copy)]
pub struct Info {
    pub name: &'static CStr,
    pub descr: &'static CStr,
    pub value: InfoValue,
}

/// Its value, of the type that FreeBSD's module gives it: programs read it by its size.
#[derive(Clone, Copy)]
pub enum InfoValue {
    Int(i32),
    Uint(u32),
    Ulong(u64),
}

impl From<bool> for InfoValue {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

/// A hardware backend (`vmm_ops`).
pub trait VmmOps: Sync {
    /// Its name for logs: "VT-x".
    fn name(&self) -> &'static str;
    /// Checks the CPUs and turns virtualization on, on all of them (`vmx_init`). On an
    /// error everything is as before, and one log line has named what is missing.
    fn modinit(&self) -> Result<(), Errno>;
    /// Turns it off again on every CPU (`vmx_cleanup`). No VM exists.
    fn modcleanup(&self);
    /// Turns it off on this CPU, which is about to stop (`vmx_modsuspend`). Context: spin.
    fn cpu_suspend(&self);
    /// Turns it on again on this CPU (`vmx_modresume`). After an error [`Self::usable`] is
    /// false, and a log line has said why. Context: spin.
    fn cpu_resume(&self) -> Result<(), Errno>;
    /// False when a CPU came back without virtualization: no vcpu may be touched then.
    fn usable(&self) -> bool;
    /// The informational sysctls under hw.vmm.
    fn info(&self, index: usize) -> Option<Info>;
    /// What CPUID shows to guests on these CPUs, for one vcpu per socket.
    fn cpuid_policy(&self) -> CpuidPolicy;
    /// What a VM needs once (`vmx_vminit`): MSR bitmap, VPIDs, EPT pointer.
    fn vminit(&self, ept: Arc<EptSpace>) -> Result<Box<dyn VmOps>, Errno>;
}

/// One VM as the backend keeps it.
pub trait VmOps: Send + Sync {
    /// A vcpu in its reset state (SDM table 10-1): real mode at F000:FFF0. `apic_page` is
    /// its local APIC's register page, which lives longer.
    fn vcpu_init(&self, id: VcpuId, apic_page: Hpa) -> Result<Box<dyn VcpuOps>, Errno>;
    /// The page that the guest's accesses to the local APIC's address are to hit, where
    /// the CPU virtualizes them (SDM vol. 3C, 30.4).
    fn apic_access_page(&self) -> Option<Hpa>;
}

/// One vcpu as the backend keeps it. Its user holds the vcpu's state FROZEN (or RUNNING,
/// for [`VcpuOps::run`]), so that there is one caller at a time.
pub trait VcpuOps: Send + Sync {
    /// Runs the guest from `rip` until an exit that this layer does not answer
    /// (`vmx_run`). Called and returns with preemption on; critical inside.
    fn run(&mut self, rip: u64, env: &mut RunEnv<'_>) -> VmExit;
    fn get_register(&mut self, reg: Reg) -> Result<u64, Errno>;
    fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), Errno>;
    /// EINVAL for a register without a descriptor (there is none in [`SegReg`]).
    fn get_desc(&mut self, seg: SegReg) -> Result<SegDesc, Errno>;
    fn set_desc(&mut self, seg: SegReg, desc: SegDesc) -> Result<(), Errno>;
    /// CS, and the registers that say in which mode the guest executes; what
    /// [`VcpuOps::get_register`] would give one by one.
    fn get_code_state(&mut self) -> (SegDesc, ModeRegs);
    /// A VMCS field by its encoding, for bhyvectl's --get-vmcs options. EINVAL for one that
    /// is not on the backend's list of fields that may be shown.
    fn get_vmcs_field(&mut self, encoding: u16) -> Result<u64, Errno>;
    /// ENOENT when the CPU lacks it.
    fn get_capability(&mut self, cap: Capability) -> Result<bool, Errno>;
    fn set_capability(&mut self, cap: Capability, on: bool) -> Result<(), Errno>;
    /// The host's clock and the guest's TSC, now.
    fn apic_clock(&self) -> ApicClock;
    /// Back to the reset state of [`VmOps::vcpu_init`] (VM_REINIT).
    fn reset(&mut self) -> Result<(), Errno>;
}

/// What one run may touch of the vcpu and its VM.
pub struct RunEnv<'a> {
    pub vcpu_id: VcpuId,
    /// Reasons to leave the loop, set by other threads at any time.
    pub requests: &'a RunRequests,
    /// Exceptions and re-injected events for the next entry.
    pub events: &'a mut EventQueue,
    pub stats: &'a VcpuStats,
    pub cpuid: &'a CpuidPolicy,
    pub msrs: &'a mut MsrState,
    pub apic: &'a mut Watched<Apic>,
    /// What others have sent to `apic` since it last looked.
    pub inbox: &'a Inbox,
    pub platform: &'a dyn Platform,
    /// Called right before the first VM entry with the host CPU that the thread is on,
    /// preemption off: the vcpu state becomes RUNNING there. And back to FROZEN.
    pub set_running: &'a dyn Fn(Option<vmm_core::types::HostCpu>),
}

/// What a vcpu reaches of the rest of its VM from within the run loop, with preemption off.
pub trait Platform {
    /// IN from a device of the kernel; `None` from another port.
    fn port_in(&self, port: u16, bytes: u8) -> Option<u32>;
    /// OUT to a device of the kernel; false to another port.
    fn port_out(&self, port: u16, bytes: u8, value: u32) -> bool;
    /// Does what an access to the local APIC asks for: sends the IPI, tells the I/O APIC
    /// about the EOI, arms the timer. An exit if the vm layer has to go on.
    fn apic_effect(&self, apic: &Apic, effect: ApicEffect) -> Option<ExitKind>;
    /// The 8259s' INTR output is high.
    fn pic_pending(&self) -> bool;
    /// INTA: the vector of the 8259s' interrupt.
    fn pic_acknowledge(&self) -> Vector;
    /// The vcpu's timer is to go off at [`LocalApic::deadline`].
    fn arm_apic_timer(&self, deadline: Option<Nanos>);
}

/// A vcpu's local APIC, on a page that the CPU may use too.
pub type Apic = LocalApic<PageBox<ApicPage>>;

/// A value that remembers whether somebody could have changed it: the backend looks at a
/// local APIC only then, not at every entry.
pub struct Watched<T> {
    value: T,
    changed: bool,
}

impl<T> Watched<T> {
    pub const fn new(value: T) -> Self {
        Self {
            value,
            changed: true,
        }
    }

    /// Somebody has had a mutable reference since [`Self::seen`].
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// Its state is known.
    pub fn seen(&mut self) {
        self.changed = false;
    }
}

impl<T> Deref for Watched<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Watched<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.changed = true;
        &mut self.value
    }
}

/// A vcpu's local APIC takes what others have sent to it: `arm_timer` sets the vcpu's timer,
/// an NMI waits in `requests` afterwards.
pub fn accept(
    apic: &mut Watched<Apic>,
    clock: &ApicClock,
    requests: &RunRequests,
    arm_timer: impl FnOnce(Option<Nanos>),
) {
    let accepted = apic.accept(clock);
    if accepted.timer {
        arm_timer(apic.deadline());
    }
    if accepted.nmi {
        requests.nmi.store(true, Ordering::SeqCst);
    }
}

/// Whether something waits that ends a HLT (SDM vol. 2A, HLT). `pic_pending` is the 8259s'
/// INTR output.
pub fn ends_hlt(
    events: &EventQueue,
    requests: &RunRequests,
    apic: &Apic,
    interrupts_on: bool,
    pic_pending: impl FnOnce() -> bool,
) -> bool {
    !events.is_empty()
        || requests.nmi.load(Ordering::SeqCst)
        || interrupts_on && (apic.pending().is_some() || apic.takes_extint() && pic_pending())
}

/// Reasons for a vcpu to leave the run loop. Set first, then kick the vcpu's CPU: the
/// loop checks them with interrupts off right before each entry, so none is missed.
#[derive(Default)]
pub struct RunRequests {
    /// An end of the whole VM is under way; the value is a SuspendHow, 0 is none.
    /// Shared by all vcpus of a VM.
    pub suspend: Arc<AtomicU32>,
    /// How many ioctls wait to lock this vcpu.
    pub reqidle: AtomicU32,
    /// Stopped by VM_SUSPEND_CPU.
    pub debug: AtomicBool,
    /// An NMI waits for this vcpu.
    pub nmi: AtomicBool,
}

/// The VM's EPT as the backend needs it: the root, and a count that grows each time a
/// mapping is removed or made stricter. A CPU that enters the VM with an older count than
/// it saw last executes INVEPT first (SDM vol. 3C, 29.4.3.1).
pub struct EptSpace {
    pub pml4: Hpa,
    pub generation: AtomicU64,
}
