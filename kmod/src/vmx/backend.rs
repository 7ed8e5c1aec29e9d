//! What the backend decides once, at load: the CPUs in VMX operation, the controls of every
//! vcpu, how TLBs are flushed. Also what it tells about itself (hw.vmm.vmx.*).

use alloc::sync::Arc;
use core::arch::x86_64::CpuidResult;
use core::ffi::CStr;

use vmm_core::cpu::cpuid::{CpuidPolicy, CpuidRegs, HostCpuid};
use vmm_core::types::Errno;
use vmm_core::vmx::apic::{ApicSettings, ApicVirtualization};
use vmm_core::vmx::caps::{Features, LoadError, VmxCaps};
use vmm_core::vmx::controls::{
    ControlKind, Controls, PinControls, Proc2Controls, ProcControls, Setting,
};
use vmm_core::vmx::cr::{CR0_NEVER_REAL, CR4_SUPPORTED, Cr0, Cr4, CrPolicy};
use vmm_core::vmx::spin::SpinLimit;

use super::cpu;
use super::fpu;
use super::instr::{InveptType, InvvpidType};
use super::l1d::L1dFlush;
use super::percpu::{HostCpus, ThisCpu};
use super::vpid::Vpid;
use crate::host::sync::SpinLock;
use crate::host::time::{tsc_hz, tunable};
use crate::log_err;
use crate::vm::ops::{Info, InfoValue};

/// From modinit to modcleanup.
pub struct Backend {
    pub cpus: HostCpus,
    pub caps: VmxCaps,
    /// The controls of a new vcpu.
    pub controls: Controls,
    /// How CR0 and CR4 of guests are made real.
    pub cr: CrPolicy,
    pub invept: InveptType,
    pub invvpid: InvvpidType,
    /// MOV DR can exit, so that debug registers are loaded on demand.
    pub mov_dr_exiting: bool,
    /// How much of a local APIC the CPU does.
    pub apic: ApicVirtualization,
    /// The guest may use RDTSCP, RDPID.
    pub rdtscp: bool,
    pub rdpid: bool,
    /// VM exits fill the return stack buffer.
    pub flush_rsb: bool,
    /// VM entries empty the L1 data cache.
    pub l1d_flush: L1dFlush,
    /// EDX after a reset.
    pub signature: u32,
    /// The TSC's frequency.
    pub tsc_hz: u64,
    /// The VMX-preemption timer's start value, where it is used.
    pub time_slice: Option<u32>,
    /// PAUSE-loop exiting, where it is used.
    pub spin: Option<SpinLimit>,
}

static BACKEND: SpinLock<Option<Arc<Backend>>> = SpinLock::new(None);

/// Checks the CPUs and turns VMX operation on, on all of them. On an error everything is
/// as before, and one log line has said what is missing. Context: thread.
pub fn vmx_init() -> Result<(), Errno> {
    let cpus = HostCpus::start()?;
    let caps = *cpus.caps();
    let time_slice = time_slice(&caps);
    let spin = spin_limit(&caps);
    let apic = ApicVirtualization::choose(caps.features, apic_settings());
    let controls =
        new_vcpu_controls(&caps, apic, time_slice.is_some(), spin.is_some()).map_err(|e| {
            // Dropping cpus is VMXOFF.
            log_err!("cannot use VT-x: {e}");
            Errno::EOPNOTSUPP
        })?;
    let rdtscp_control = controls.proc2.contains(Proc2Controls::ENABLE_RDTSCP);
    // Without XSAVE in the host XCR0 is nobody's.
    let xsave = fpu::host_xcr0() != 0;
    let cr4_offered = if xsave {
        CR4_SUPPORTED
    } else {
        CR4_SUPPORTED - Cr4::OSXSAVE
    };
    let backend = Backend {
        cr: CrPolicy::new(&caps, cr4_offered),
        invept: if caps.has(Features::INVEPT_SINGLE_CONTEXT) {
            InveptType::SingleContext
        } else {
            InveptType::AllContexts
        },
        invvpid: if caps.has(Features::INVVPID_SINGLE_CONTEXT) {
            InvvpidType::SingleContext
        } else {
            InvvpidType::AllContexts
        },
        apic,
        mov_dr_exiting: can_set(&caps, ProcControls::MOV_DR_EXITING),
        rdtscp: rdtscp_control && host_has_rdtscp(),
        rdpid: rdtscp_control && host_has_rdpid(),
        flush_rsb: tunable(c"vmx.no_flush_rsb", 0) == 0,
        l1d_flush: L1dFlush::choose(),
        signature: cpu::signature(),
        tsc_hz: tsc_hz(),
        time_slice,
        spin,
        cpus,
        caps,
        controls,
    };
    let backend = Arc::new(backend);
    *BACKEND.lock() = Some(backend);
    Ok(())
}

/// VMX operation off, on every CPU. No VM exists. Context: thread.
pub fn vmx_cleanup() {
    let backend = BACKEND.lock().take();
    drop(backend); // with interrupts on: VMXOFF waits for the other CPUs
}

/// The backend, between [`vmx_init`] and [`vmx_cleanup`].
pub fn backend() -> Result<Arc<Backend>, Errno> {
    BACKEND.lock().clone().ok_or(Errno::ENXIO)
}

fn can_set(caps: &VmxCaps, control: ProcControls) -> bool {
    caps.msrs.allowed(ControlKind::Proc).can_set(control.bits())
}

/// FreeBSD's tunables, of which each has two names; each is on unless it is set to 0.
fn apic_settings() -> ApicSettings {
    let either = |name, old_name| tunable(name, tunable(old_name, 1)) != 0;
    ApicSettings {
        tpr_shadow: either(c"vmx.cap.tpr_shadowing", c"vmx.use_tpr_shadowing"),
        interrupt_delivery: either(c"vmx.cap.virtual_interrupt_delivery", c"vmx.use_apic_vid"),
    }
}

/// `VmxCaps::controls`, and what this run loop needs besides. What depends on the mode of a
/// local APIC is added for each vcpu (`apicv`).
fn new_vcpu_controls(
    caps: &VmxCaps,
    apic: ApicVirtualization,
    time_slice: bool,
    spin_limit: bool,
) -> Result<Controls, LoadError> {
    let mut controls = caps.controls;
    controls
        .pin
        .set(PinControls::ACTIVATE_VMX_PREEMPTION_TIMER, time_slice);
    controls
        .proc2
        .set(Proc2Controls::PAUSE_LOOP_EXITING, spin_limit);
    require(caps, apic.proc(), Setting::One)?;
    controls.proc |= apic.proc();
    // MOV CR3 would need the guest's PDPTEs read here.
    let cr3 = ProcControls::CR3_LOAD_EXITING | ProcControls::CR3_STORE_EXITING;
    require(caps, cr3 | ProcControls::INVLPG_EXITING, Setting::Zero)?;
    // Without a way to flush it, a VPID is worse than none.
    if !caps
        .features
        .intersects(Features::INVVPID_SINGLE_CONTEXT | Features::INVVPID_ALL_CONTEXTS)
    {
        controls.proc2.remove(Proc2Controls::ENABLE_VPID);
    }
    Ok(controls)
}

/// The longest a guest runs without an exit (25.5.1), in the timer's ticks; by default a
/// millisecond, hw.vmm.vmx.slice_us sets it, 0 is for ever.
///
/// A CPU needs no such limit: the host's interrupts exit. But Bochs up to 2.7 keeps them
/// masked in a guest that was entered with RFLAGS.IF clear until that guest sets it (its
/// VM entry looks at IF before it is in VMX non-root operation), so that a guest's endless
/// loop would stop the host. The timer isn't saved at exits, so it costs nothing but the
/// exits that it causes.
fn time_slice(caps: &VmxCaps) -> Option<u32> {
    const DEFAULT_US: i64 = 1000;
    let us = u64::try_from(tunable(c"vmx.slice_us", DEFAULT_US)).unwrap_or(0);
    if us == 0 || !caps.has(Features::PREEMPTION_TIMER) {
        return None;
    }
    let ticks = (tsc_hz().saturating_mul(us) / 1_000_000) >> caps.preemption_timer_shift;
    Some(u32::try_from(ticks).unwrap_or(u32::MAX).max(1))
}

/// How long a vcpu may spin; hw.vmm.vmx.ple_window sets it, 0 is for ever.
fn spin_limit(caps: &VmxCaps) -> Option<SpinLimit> {
    const DEFAULT_WINDOW: i64 = 4096;
    let window = u32::try_from(tunable(c"vmx.ple_window", DEFAULT_WINDOW)).unwrap_or(0);
    let used = window != 0 && caps.has(Features::PAUSE_LOOP_EXITING);
    used.then_some(SpinLimit::new(window))
}

fn require(caps: &VmxCaps, bits: ProcControls, setting: Setting) -> Result<(), LoadError> {
    let allowed = caps.msrs.allowed(ControlKind::Proc);
    let missing = match setting {
        Setting::One => bits.bits() & !allowed.may_be_one(),
        Setting::Zero => bits.bits() & allowed.must_be_one(),
    };
    if missing == 0 {
        return Ok(());
    }
    Err(LoadError::MissingControl {
        kind: ControlKind::Proc,
        bit: missing.trailing_zeros() as u8,
        true_msr: allowed.true_variant,
        setting,
    })
}

/// What CPUID shows to guests on these CPUs.
pub fn cpuid_policy() -> CpuidPolicy {
    CpuidPolicy::new(&ThisCpu)
}

impl HostCpuid for ThisCpu {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidRegs {
        let CpuidResult { eax, ebx, ecx, edx } = cpu::cpuid(leaf, subleaf);
        CpuidRegs { eax, ebx, ecx, edx }
    }
    fn xcr0(&self) -> u64 {
        fpu::host_xcr0()
    }
    /// CPUID.80000007H:EDX.INVARIANT_TSC; that it is in step on all CPUs is the host's
    /// matter, whose own clock relies on it.
    fn tsc_invariant(&self) -> bool {
        cpu::cpuid(0x8000_0000, 0).eax >= 0x8000_0007
            && cpu::cpuid(0x8000_0007, 0).edx & 1 << 8 != 0
    }
    fn tsc_hz(&self) -> u64 {
        tsc_hz()
    }
}

/// CPUID.80000001H:EDX.RDTSCP.
fn host_has_rdtscp() -> bool {
    cpu::cpuid(0x8000_0001, 0).edx & 1 << 27 != 0
}

/// CPUID.(EAX=7,ECX=0):ECX.RDPID.
fn host_has_rdpid() -> bool {
    cpu::cpuid(0, 0).eax >= 7 && cpu::cpuid(7, 0).ecx & 1 << 22 != 0
}

type Row = (&'static CStr, &'static CStr, fn(&Backend) -> InfoValue);

/// FreeBSD's names where it has them.
const INFO: &[Row] = &[
    (c"vmx.initialized", c"Intel VMX initialized", |_| {
        true.into()
    }),
    (c"vmx.cr0_ones_mask", c"CR0 bits that are 1", |b| {
        let free = Cr0::PE | Cr0::PG;
        let (always, may) = (b.caps.msrs.cr0_fixed0, b.caps.msrs.cr0_fixed1);
        InfoValue::Ulong(always & may & !free.bits())
    }),
    (c"vmx.cr0_zeros_mask", c"CR0 bits that are 0", |b| {
        let (always, may) = (b.caps.msrs.cr0_fixed0, b.caps.msrs.cr0_fixed1);
        InfoValue::Ulong(!always & !may | CR0_NEVER_REAL.bits())
    }),
    (c"vmx.cr4_ones_mask", c"CR4 bits that are 1", |b| {
        InfoValue::Ulong(b.caps.msrs.cr4_fixed0 & b.caps.msrs.cr4_fixed1)
    }),
    (c"vmx.cr4_zeros_mask", c"CR4 bits that are 0", |b| {
        InfoValue::Ulong(!b.caps.msrs.cr4_fixed0 & !b.caps.msrs.cr4_fixed1)
    }),
    (c"vmx.cr0_mask", c"CR0 bits that guests do not own", |b| {
        InfoValue::Ulong(b.cr.cr0(0).mask)
    }),
    (c"vmx.cr4_mask", c"CR4 bits that guests do not own", |b| {
        InfoValue::Ulong(b.cr.cr4(0).mask)
    }),
    (c"vmx.no_flush_rsb", c"Do not flush RSB upon vmexit", |b| {
        (!b.flush_rsb).into()
    }),
    (
        c"vmx.l1d_flush",
        c"Flush the L1 data cache upon vmentry",
        |b| (b.l1d_flush != L1dFlush::Nothing).into(),
    ),
    (c"vmx.l1d_flush_sw", c"Flush it by filling it", |b| {
        (b.l1d_flush == L1dFlush::Fill).into()
    }),
    (
        c"vmx.vpid_alloc_failed",
        c"vcpus that run without a VPID",
        |_| InfoValue::Uint(Vpid::failures() as u32),
    ),
    (c"vmx.cap.halt_exit", c"HLT triggers a VM-exit", |_| {
        true.into()
    }),
    (c"vmx.cap.pause_exit", c"PAUSE triggers a VM-exit", |b| {
        has(b, Features::PAUSE_EXITING)
    }),
    (c"vmx.cap.wbinvd_exit", c"WBINVD triggers a VM-exit", |b| {
        has(b, Features::WBINVD_EXITING)
    }),
    (c"vmx.cap.rdpid", c"Guests are allowed to use RDPID", |b| {
        b.rdpid.into()
    }),
    (
        c"vmx.cap.rdtscp",
        c"Guests are allowed to use RDTSCP",
        |b| b.rdtscp.into(),
    ),
    (
        c"vmx.cap.unrestricted_guest",
        c"Unrestricted guests",
        |_| true.into(),
    ),
    (c"vmx.cap.monitor_trap", c"Monitor trap flag", |b| {
        has(b, Features::MONITOR_TRAP_FLAG)
    }),
    (
        c"vmx.cap.invpcid",
        c"Guests are allowed to use INVPCID",
        |b| has(b, Features::INVPCID),
    ),
    // As FreeBSD: what is used, that is to say what the tunables left of it.
    (c"vmx.cap.tpr_shadowing", c"TPR shadowing support", |b| {
        (b.apic >= ApicVirtualization::TprShadow).into()
    }),
    (
        c"vmx.cap.virtual_interrupt_delivery",
        c"APICv virtual interrupt delivery support",
        |b| (b.apic == ApicVirtualization::InterruptDelivery).into(),
    ),
    // Not used: the host's kernels have no vector to give away for them.
    (
        c"vmx.cap.posted_interrupts",
        c"APICv posted interrupt support",
        |_| false.into(),
    ),
    (
        c"vmx.posted_interrupt_vector",
        c"APICv posted interrupt vector",
        |_| InfoValue::Int(-1),
    ),
    (c"trap_wbinvd", c"WBINVD triggers a VM-exit", |b| {
        has(b, Features::WBINVD_EXITING)
    }),
];

fn has(backend: &Backend, feature: Features) -> InfoValue {
    backend.caps.has(feature).into()
}

/// Number `index` of the informational sysctls below hw.vmm.
pub fn info(index: usize) -> Option<Info> {
    let backend = backend().ok()?;
    let (name, descr, value) = INFO.get(index)?;
    Some(Info {
        name,
        descr,
        value: value(&backend),
    })
}
