//! VMX operation on the host's CPUs (SDM vol. 3C, 24.6 to 24.8 and 32.5): what the CPUs
//! must have, VMXON on all of them or on none, VMXOFF, what happens around the sleep of a
//! CPU, and what the module keeps per CPU.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use vmm_core::exit::VmFail;
use vmm_core::types::{Errno, HostCpu, Hpa};
use vmm_core::vmx::caps::{
    CR4_VMXE, CapabilityMsrs, CapabilitySource, FeatureControl, Features, LoadError, VmxCaps,
};

use super::cpu::{self, msr};
use super::fail;
use super::instr::{self, InveptType, InvvpidType};
use super::msrs::HostSyscallMsrs;
use crate::host::cpu::{change_cr4, current, ncpus, run_on_all_cpus};
use crate::host::mem::Pages;
use crate::host::sync::SpinLock;
use crate::{log_err, log_info};

/// No VMCS (a physical address is page-aligned).
const NO_VMCS: u64 = u64::MAX;

/// One CPU of the host in VMX operation.
pub struct PerCpu {
    /// The VMXON region, the CPU's own while VMX operation lasts.
    region: Pages,
    on: AtomicBool,
    /// The VMCS that is current here, by address.
    vmcs: AtomicU64,
    /// What SYSCALL does in the host, the same for every thread.
    pub syscall_msrs: HostSyscallMsrs,
}

impl PerCpu {
    fn new(region: Pages) -> Self {
        Self {
            region,
            on: AtomicBool::new(false),
            vmcs: AtomicU64::new(NO_VMCS),
            syscall_msrs: HostSyscallMsrs::default(),
        }
    }

    /// A VMCS becomes current here. There is one at a time: a second one would silently
    /// take the first one's place under its reader.
    pub fn claim_vmcs(&self, vmcs: Hpa) {
        assert!(
            self.on.load(Ordering::Relaxed),
            "a vcpu runs on a CPU that is not in VMX operation"
        );
        let before = self.vmcs.swap(vmcs.get(), Ordering::Relaxed);
        assert!(before == NO_VMCS, "VMCS {before:#x} is current already");
    }

    /// It is no longer.
    pub fn release_vmcs(&self, vmcs: Hpa) {
        let before = self.vmcs.swap(NO_VMCS, Ordering::Relaxed);
        assert!(before == vmcs.get(), "VMCS {before:#x} was current");
    }
}

/// Every CPU of the host, in VMX operation while the value lives.
pub struct HostCpus {
    cpus: Box<[PerCpu]>,
    /// What the first CPU offered; the others and those that come back offer the same.
    caps: VmxCaps,
}

/// A CPU could not go back to VMX operation. (Not in HostCpus: each ioctl asks.)
static LOST: AtomicBool = AtomicBool::new(false);

/// Whether [`HostCpus::resume`] has failed on a CPU.
pub fn is_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Why VMX operation could not begin.
enum StartError {
    /// A CPU lacks something.
    Load(LoadError),
    /// VMXON failed.
    Vmxon { cpu: HostCpu, why: VmFail },
    /// No memory for a VMXON region.
    Memory(Errno),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(e) => e.fmt(f),
            Self::Vmxon {
                cpu,
                why: VmFail::Invalid,
            } => write!(
                f,
                "VMXON failed on CPU {} (VMfailInvalid): it is in VMX operation already, \
                 by another hypervisor; unload that first",
                cpu.0
            ),
            Self::Vmxon {
                cpu,
                why: VmFail::Valid(n),
            } => {
                write!(f, "VMXON failed on CPU {}: ", cpu.0)?;
                fail::write_instruction_error(f, *n)?;
                f.write_str("; another hypervisor uses VT-x, unload it first")
            }
            Self::Memory(_) => f.write_str("no memory for the VMXON regions"),
        }
    }
}

impl StartError {
    fn errno(&self) -> Errno {
        match self {
            Self::Load(LoadError::AlreadyInVmxOperation) | Self::Vmxon { .. } => Errno::EBUSY,
            Self::Load(LoadError::NoVmx | LoadError::DisabledByFirmware { .. }) => Errno::ENXIO,
            Self::Load(_) => Errno::EOPNOTSUPP,
            Self::Memory(e) => *e,
        }
    }
}

impl HostCpus {
    /// Checks every CPU and executes VMXON on each. On an error everything is as before,
    /// except that an unlocked IA32_FEATURE_CONTROL is now locked (it can't be undone),
    /// and one line in the log says why. Context: thread.
    pub fn start() -> Result<Self, Errno> {
        Self::try_start().map_err(|e| {
            log_err!("cannot use VT-x: {e}");
            e.errno()
        })
    }

    fn try_start() -> Result<Self, StartError> {
        let caps = check_all().map_err(StartError::Load)?;
        let mut cpus = Vec::new();
        for _ in 0..ncpus() {
            let mut region = Pages::new(1).map_err(StartError::Memory)?;
            region.bytes_mut()[..4].copy_from_slice(&caps.revision_id.to_le_bytes());
            cpus.push(PerCpu::new(region));
        }
        LOST.store(false, Ordering::Relaxed);
        // From here on dropping it undoes what has been done.
        let cpus = Self {
            cpus: cpus.into_boxed_slice(),
            caps,
        };
        let failed: SpinLock<Option<StartError>> = SpinLock::new(None);
        let count = AtomicU32::new(0);
        run_on_all_cpus(&|| match cpus.vmx_enable() {
            Ok(()) => {
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(e) => {
                failed.lock().get_or_insert(e);
            }
        });
        if let Some(e) = failed.lock().take() {
            return Err(e);
        }
        log_info!("VMXON on {} CPUs", count.load(Ordering::Relaxed));
        Ok(cpus)
    }

    /// What is kept about that CPU.
    pub fn get(&self, cpu: HostCpu) -> &PerCpu {
        &self.cpus[cpu.0 as usize]
    }

    /// How many CPU ids there are.
    pub fn len(&self) -> usize {
        self.cpus.len()
    }

    /// What all of them offer.
    pub fn caps(&self) -> &VmxCaps {
        &self.caps
    }

    /// VMXOFF before this CPU stops: what it caches of VMX is lost then. No VMCS is active
    /// here (host.h). Context: spin.
    pub fn suspend(&self) {
        self.vmx_disable();
    }

    /// VMXON after this CPU came back, perhaps for the first time since the load. Firmware
    /// may have reset IA32_FEATURE_CONTROL, or another hypervisor may have come. Context:
    /// spin.
    pub fn resume(&self) -> Result<(), Errno> {
        let capable = self.caps.check_same(&CapabilityMsrs::read(&ThisCpu));
        let resumed = capable
            .map_err(StartError::Load)
            .and_then(|()| self.vmx_enable());
        resumed.map_err(|e| {
            LOST.store(true, Ordering::Relaxed);
            log_err!(
                "CPU {} came back without VT-x: {e}; no guest runs until the module has been loaded anew",
                current().0
            );
            e.errno()
        })
    }

    /// VMXON on this CPU. Context: spin.
    fn vmx_enable(&self) -> Result<(), StartError> {
        let id = current();
        let this = self.get(id);
        // SAFETY: a CPU with VT-x has the MSR (24.7), and check_all has seen it.
        let feature_control = unsafe { cpu::rdmsr(msr::IA32_FEATURE_CONTROL) };
        match FeatureControl::decode(feature_control) {
            FeatureControl::Enabled => {}
            FeatureControl::Unlocked { write } => {
                // SAFETY: the MSR is not locked, so it takes the value.
                unsafe { cpu::wrmsr(msr::IA32_FEATURE_CONTROL, write) };
            }
            FeatureControl::DisabledByFirmware => {
                return Err(StartError::Load(LoadError::DisabledByFirmware {
                    feature_control,
                }));
            }
        }
        // SAFETY: VMXE only; it was clear (check_all) and is cleared again by vmx_disable.
        unsafe { change_cr4(CR4_VMXE, 0) };
        // SAFETY: CR4.VMXE is set; the region has the revision id and is this CPU's.
        if let Err(why) = unsafe { instr::vmxon(this.region.hpa()) } {
            // SAFETY: as above, back to what it was.
            unsafe { change_cr4(0, CR4_VMXE) };
            return Err(StartError::Vmxon { cpu: id, why });
        }
        this.syscall_msrs.capture();
        this.on.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// VMXOFF on this CPU, if it is in VMX operation. Context: spin.
    fn vmx_disable(&self) {
        let this = self.get(current());
        if !this.on.swap(false, Ordering::Relaxed) {
            return;
        }
        // VMXOFF keeps cached translations (29.4.3.3): the next VMXON, ours or another
        // hypervisor's, must not find them under EPT pointers and VPIDs used again.
        if self.caps.has(Features::INVVPID_ALL_CONTEXTS) {
            // SAFETY: in VMX operation, and the type exists. It can't fail then.
            let _ = unsafe { instr::invvpid(InvvpidType::AllContexts, 0) };
        }
        if self.caps.has(Features::INVEPT_ALL_CONTEXTS) {
            // SAFETY: in VMX operation, and the type exists. It can't fail then.
            let _ = unsafe { instr::invept(InveptType::AllContexts, 0) };
        }
        // SAFETY: in VMX operation; every VMCS is clear, since none is loaded outside of
        // a critical section and this CPU runs us.
        unsafe { instr::vmxoff() }.expect("VMXOFF");
        // SAFETY: VMXE only, which vmx_enable set.
        unsafe { change_cr4(0, CR4_VMXE) };
    }
}

impl Drop for HostCpus {
    /// VMXOFF wherever VMXON succeeded. Context: thread.
    fn drop(&mut self) {
        run_on_all_cpus(&|| self.vmx_disable());
    }
}

/// Reads the capabilities of every CPU: the first decides what the module does, the
/// others must offer the same.
fn check_all() -> Result<VmxCaps, LoadError> {
    let mut slots = Vec::new();
    slots.resize_with(ncpus() as usize, || SpinLock::new(None));
    run_on_all_cpus(&|| {
        *slots[current().0 as usize].lock() = Some(CapabilityMsrs::read(&ThisCpu));
    });
    let mut caps: Option<VmxCaps> = None;
    for msrs in slots.iter().filter_map(|slot| *slot.lock()) {
        match &caps {
            None => caps = Some(VmxCaps::check(&msrs)?),
            Some(first) => first.check_same(&msrs)?,
        }
    }
    caps.ok_or(LoadError::NoVmx)
}

/// The CPU that executes, for `vmm_core`.
pub struct ThisCpu;

impl CapabilitySource for ThisCpu {
    fn rdmsr(&self, msr: u32) -> u64 {
        // SAFETY: CapabilityMsrs::read asks only for MSRs that the CPU reports.
        unsafe { cpu::rdmsr(msr) }
    }
    fn cpuid_1_ecx(&self) -> u32 {
        cpu::cpuid(1, 0).ecx
    }
    fn max_phys_addr_width(&self) -> u8 {
        cpu::cpuid(0x8000_0008, 0).eax as u8
    }
    fn cr0(&self) -> u64 {
        cpu::read_cr0()
    }
    fn cr4(&self) -> u64 {
        cpu::read_cr4()
    }
}
