//! A virtual machine: its vcpus, its memory, and the life of both. `dev` gives it to
//! userland as /dev/vmm/NAME, a backend ([`ops`]) runs its vcpus.
//!
//! Locks, outermost first: `creation` (no vcpu comes into being, all are being locked),
//! a vcpu's lock in the order of their numbers, the memory's layout, the EPT.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use spin::Once;
use vmm_core::cpu::cpuid::CpuidPolicy;
use vmm_core::cpu::msr::MsrState;
use vmm_core::devices::lapic::APIC_BASE;
use vmm_core::exit::SuspendHow;
use vmm_core::ioctl::{Topology, VmName};
use vmm_core::types::{Errno, VcpuId};

use crate::host::sync::{SpinLock, SxLock, SxWriteGuard};
use cpuset::CpuSet;
use devices::Devices;
use memory::GuestMemory;
use ops::{VmOps, VmmOps};
use vcpu::{Frozen, Vcpu};

pub mod cpuset;
pub mod devices;
pub mod emulate;
pub mod fetch;
pub mod memory;
pub mod mmio;
pub mod ops;
pub mod platform;
pub mod run;
pub mod vcpu;

pub struct Vm {
    pub name: VmName,
    pub memory: GuestMemory,
    pub devices: Devices,
    /// Vcpus that VM_ACTIVATE_CPU named: those that take part in suspend and halt.
    pub active: Arc<CpuSet>,
    /// Those that have seen the suspend request and wait for the others.
    pub suspended: CpuSet,
    /// Those stopped for a debugger.
    pub debug: CpuSet,
    /// Those that an INIT has reset and that wait for a start-up IPI.
    pub wait_for_sipi: CpuSet,
    /// The VM halts when all of them are in HLT with interrupts off.
    halt_detection: bool,
    /// Those in HLT with interrupts off.
    halted: CpuSet,
    suspend: Arc<AtomicU32>,
    backend: Box<dyn VmOps>,
    cpuid: SpinLock<Arc<CpuidPolicy>>,
    vcpus: Box<[Once<Arc<Vcpu>>]>,
    creation: SxLock<Creation>,
}

struct Creation {
    /// The VM is being destroyed: no vcpu may be made.
    dying: bool,
}

/// Every vcpu of a VM, locked, and no new one possible.
pub struct AllFrozen<'a> {
    // Before the guard: the vcpus are unlocked first.
    pub vcpus: Vec<Frozen<'a>>,
    _creation: SxWriteGuard<'a, Creation>,
}

impl Vm {
    /// A VM without memory and vcpus, for up to `max_vcpus`.
    pub fn new(
        name: VmName,
        backend: &dyn VmmOps,
        max_vcpus: u16,
        halt_detection: bool,
    ) -> Result<Self, Errno> {
        let memory = GuestMemory::new()?;
        let backend_vm = backend.vminit(memory.space.clone())?;
        if let Some(page) = backend_vm.apic_access_page() {
            memory.map_page(APIC_BASE, page)?;
        }
        let active = Arc::new(CpuSet::new());
        let mut vcpus = Vec::new();
        vcpus.resize_with(usize::from(max_vcpus), Once::new);
        Ok(Self {
            name,
            backend: backend_vm,
            memory,
            devices: Devices::new(max_vcpus, active.clone())?,
            active,
            wait_for_sipi: CpuSet::new(),
            suspended: CpuSet::new(),
            debug: CpuSet::new(),
            halt_detection,
            halted: CpuSet::new(),
            suspend: Arc::new(AtomicU32::new(0)),
            cpuid: SpinLock::new(Arc::new(backend.cpuid_policy())),
            vcpus: vcpus.into_boxed_slice(),
            creation: SxLock::new(c"vm vcpus", Creation { dying: false })?,
        })
    }

    pub fn max_vcpus(&self) -> u16 {
        // Made from a u16 in new().
        self.vcpus.len() as u16
    }

    /// The vcpu with that number, made if it doesn't exist yet. EINVAL when the number is
    /// out of range or the VM is being destroyed.
    pub fn vcpu(&self, id: VcpuId) -> Result<&Arc<Vcpu>, Errno> {
        let slot = self.vcpus.get(id.index()).ok_or(Errno::EINVAL)?;
        if let Some(vcpu) = slot.get() {
            return Ok(vcpu);
        }
        let creation = self.creation.write();
        if creation.dying {
            return Err(Errno::EINVAL);
        }
        if let Some(vcpu) = slot.get() {
            return Ok(vcpu);
        }
        let vcpu = Arc::new(Vcpu::new(
            id,
            &*self.backend,
            MsrState::new(self.cpuid().maxphyaddr()),
            self.suspend.clone(),
        )?);
        self.devices.connect(vcpu.link());
        Ok(slot.call_once(|| vcpu))
    }

    /// Calls `f` with every vcpu there is locked, and none made meanwhile.
    pub fn lock_all<R>(&self, f: impl FnOnce(&mut AllFrozen<'_>) -> R) -> R {
        let creation = self.creation.write();
        let mut all = AllFrozen {
            vcpus: self.existing().map(|vcpu| vcpu.lock()).collect(),
            _creation: creation,
        };
        f(&mut all)
    }

    /// Ends the whole VM: every vcpu leaves its run loop with SUSPENDED. EALREADY if an end
    /// is under way.
    pub fn suspend(&self, how: SuspendHow) -> Result<(), Errno> {
        self.suspend
            .compare_exchange(0, how as u32, Ordering::SeqCst, Ordering::SeqCst)
            .map_err(|_| Errno::EALREADY)?;
        self.notify_active();
        Ok(())
    }

    /// Ends the VM for its destruction, whatever end is under way already.
    pub fn end_for_good(&self) {
        self.suspend
            .store(SuspendHow::Destroy as u32, Ordering::SeqCst);
        self.creation.write().dying = true;
        self.notify_active();
    }

    /// The end that is under way.
    pub fn suspend_request(&self) -> Option<SuspendHow> {
        SuspendHow::from_raw(self.suspend.load(Ordering::SeqCst))
    }

    /// VM_REINIT: back to power-on, memory contents kept. EBUSY unless every active vcpu
    /// is suspended.
    pub fn reinit(&self, all: &mut AllFrozen<'_>) -> Result<(), Errno> {
        if !self.suspended.same_as(&self.active) {
            return Err(Errno::EBUSY);
        }
        // First, so that no timer of theirs reaches a vcpu that is reset already.
        self.devices.reset();
        for frozen in &mut all.vcpus {
            frozen.reset()?;
        }
        self.memory.unmap_devices();
        self.active.clear();
        self.suspended.clear();
        self.debug.clear();
        self.wait_for_sipi.clear();
        self.halted.clear();
        self.suspend.store(0, Ordering::SeqCst);
        Ok(())
    }

    /// VM_ACTIVATE_CPU. EBUSY if it is active.
    pub fn activate(&self, id: VcpuId) -> Result<(), Errno> {
        if self.active.insert(id) {
            Ok(())
        } else {
            Err(Errno::EBUSY)
        }
    }

    /// VM_SUSPEND_CPU: stops one vcpu (EINVAL if it isn't active) or all for a debugger.
    pub fn debug_stop(&self, id: Option<VcpuId>) -> Result<(), Errno> {
        match id {
            None => {
                self.debug.copy_from(&self.active);
                for vcpu in self.existing().filter(|v| self.active.contains(v.id)) {
                    vcpu.requests.debug.store(true, Ordering::SeqCst);
                    vcpu.notify();
                }
            }
            Some(id) => {
                if !self.active.contains(id) {
                    return Err(Errno::EINVAL);
                }
                let vcpu = self.vcpu(id)?;
                self.debug.insert(id);
                vcpu.requests.debug.store(true, Ordering::SeqCst);
                vcpu.notify();
            }
        }
        Ok(())
    }

    /// VM_RESUME_CPU: lets one stopped vcpu (EINVAL if it isn't stopped) or all go on.
    pub fn debug_resume(&self, id: Option<VcpuId>) -> Result<(), Errno> {
        if let Some(id) = id {
            if !self.debug.remove(id) {
                return Err(Errno::EINVAL);
            }
            self.vcpu(id)?.requests.debug.store(false, Ordering::SeqCst);
        } else {
            self.debug.clear();
            for vcpu in self.existing() {
                vcpu.requests.debug.store(false, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    /// What CPUID shows, as it is now.
    pub fn cpuid(&self) -> Arc<CpuidPolicy> {
        self.cpuid.lock().clone()
    }

    pub fn topology(&self) -> Topology {
        Topology {
            maxcpus: self.max_vcpus(),
            ..self.cpuid().topology()
        }
    }

    /// VM_SET_TOPOLOGY. EINVAL if it has more vcpus than the VM may have.
    pub fn set_topology(&self, topology: Topology) -> Result<(), Errno> {
        if topology.vcpus() > u64::from(self.max_vcpus()) {
            return Err(Errno::EINVAL);
        }
        let mut policy = Arc::new(self.cpuid().with_topology(topology));
        // The old policy is dropped after the lock.
        core::mem::swap(&mut *self.cpuid.lock(), &mut policy);
        Ok(())
    }

    /// Notes that `id` is in HLT with interrupts off; true when all active vcpus are.
    fn all_halted(&self, id: VcpuId) -> bool {
        self.halted.insert(id);
        self.halt_detection && self.halted.same_as(&self.active)
    }

    fn existing(&self) -> impl Iterator<Item = &Arc<Vcpu>> {
        self.vcpus.iter().filter_map(Once::get)
    }

    fn notify_active(&self) {
        for vcpu in self.existing() {
            if self.active.contains(vcpu.id) {
                vcpu.notify();
            }
        }
    }
}
